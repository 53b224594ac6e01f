"""Distillation recipes behind one signature, see `recipe`; by name: `registry.make`."""

from realaudio_jax.distillation.consistency import Consistency
from realaudio_jax.distillation.ctm import ConsistencyTrajectory
from realaudio_jax.distillation.energy import Energy
from realaudio_jax.distillation.imitation import Imitation
from realaudio_jax.distillation.mean_flow import MeanFlow
from realaudio_jax.distillation.progressive import Progressive
from realaudio_jax.distillation.scm import ContinuousConsistency
from realaudio_jax.distillation.shortcut import Shortcut

__all__ = [
    'Consistency',
    'ConsistencyTrajectory',
    'ContinuousConsistency',
    'Energy',
    'Imitation',
    'MeanFlow',
    'Progressive',
    'Shortcut',
]
