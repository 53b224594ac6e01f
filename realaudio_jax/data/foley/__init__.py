"""Procedural foley: sounds synthesised from physical and perceptual models, with no download.

Usage:

    from realaudio_jax.data import foley
    bark = foley.EVENTS['dog_bark'].synthesize(np.random.default_rng(0), None)  # float32 [S]
    rain = foley.AMBIENCES['rain'].synthesize(np.random.default_rng(0), 10.0)  # float32 [S, 2]
"""

from realaudio_jax.data.foley import (
    ambiences,
    footsteps,
    impacts,
    signals,
    voices,
    water,
    weapons,
)
from realaudio_jax.data.foley.catalogue import Foley

VERSION = 2  # of the sounds that a seed gives: raised with every change of them

_FAMILIES = (footsteps, impacts, weapons, voices, signals, water)

EVENTS: dict[str, Foley] = {f.name: f for family in _FAMILIES for f in family.FOLEYS}
AMBIENCES: dict[str, Foley] = {f.name: f for f in ambiences.FOLEYS}

__all__ = ['AMBIENCES', 'EVENTS', 'VERSION', 'Foley']
