"""Held-out scenes of procedural foley share nothing with training but the names of their classes.

That no sound of one split is a sound of the other follows from three properties, each tested: a
split draws every pitch, size and rate from its own part of a range; every class draws one; and the
scenes of the splits come from streams of random numbers that no seed brings together.
"""

import itertools

import numpy as np
import pytest

from realaudio_jax.data import captions, foley
from realaudio_jax.data.foley import primitives
from realaudio_jax.data.foley.primitives import HELD_OUT_PART, SplitGenerator, between
from realaudio_jax.data.scenes import make_scenes
from realaudio_jax.data.sources import FoleySource, MixedSource
from realaudio_jax.metrics.evaluation.scenes import held_out_scenes

ALL = {**foley.EVENTS, **foley.AMBIENCES}
TRAIN, HELD_OUT = FoleySource('train'), FoleySource('held_out')


def position(value, low, high):
    return np.log(value / low) / np.log(high / low)


@pytest.mark.parametrize('bounds', [(0.1, 0.7), (3.0, 4000.0)])
def test_each_split_fills_its_own_part_of_a_range(bounds):
    drawn = {}
    for held_out in (False, True):
        rngs = (SplitGenerator(np.random.default_rng(seed), held_out) for seed in range(2000))
        drawn[held_out] = np.array([position(between(rng, *bounds), *bounds) for rng in rngs])
    first, last = HELD_OUT_PART
    assert ((drawn[True] > first - 1e-9) & (drawn[True] < last + 1e-9)).all()
    assert not ((drawn[False] > first + 1e-9) & (drawn[False] < last - 1e-9)).any()
    # all of it: a quarter of the draws lies in each quarter of the part
    cut = (drawn[False] > last) * (last - first)
    for share in ((drawn[True] - first) / (last - first), (drawn[False] - cut) / 0.9):
        assert np.histogram(share, 4, (0, 1))[0].min() > 420


@pytest.mark.parametrize('name', sorted(ALL))
def test_every_class_draws_its_sounds_from_a_range(name, monkeypatch):
    """So every sound of a class has a parameter that the other split never gives it."""
    drawn = []
    original = SplitGenerator.position
    monkeypatch.setattr(
        SplitGenerator, 'position', lambda rng: drawn.append(original(rng)) or drawn[-1]
    )
    ALL[name].synthesize(SplitGenerator(np.random.default_rng(5), True), 0.5)
    first, last = HELD_OUT_PART
    assert drawn and all(first <= value <= last for value in drawn)


def test_no_seed_of_one_split_draws_what_a_seed_of_the_other_draws():
    words = (0, 1, 2, 2**31, 2**32, 2**32 + 1, 2**33, 2**63 - 1)
    states = {
        key: {
            tuple(np.random.SeedSequence([seed, i], spawn_key=key).generate_state(4))
            for seed, i in itertools.product(words, (0, 1, 2, 2**32))
        }
        for key in (TRAIN.spawn_key, HELD_OUT.spawn_key)
    }
    assert TRAIN.spawn_key == () and not states[()] & states[HELD_OUT.spawn_key]
    train, held_out = (
        [scene for seed in range(2) for scene in make_scenes(seed, source, 6, 1.0)]
        for source in (TRAIN, HELD_OUT)
    )
    for a, b in itertools.product(train, held_out):
        assert not np.array_equal(a.audio, b.audio) and a.caption != b.caption
    assert {s.labels for s in train} != {s.labels for s in held_out}


def forms(text):
    """What captions make of a text."""
    made = {text, captions.noun_phrase(text), captions.clause(text)}
    made |= {captions.plural(text, count) for count in range(2, 11)}
    return {form.lower() for form in made if form}


def test_no_wording_of_one_split_reads_like_one_of_the_other():
    texts = {
        split: {text for sound in ALL.values() for text in cut(sound.texts)}
        for split, cut in (('train', lambda t: t[:-1]), ('held_out', lambda t: t[-1:]))
    }
    train, held_out = (set().union(*map(forms, texts[s])) for s in ('train', 'held_out'))
    assert len(texts['held_out']) == len(ALL) and not train & held_out
    for source, own in ((TRAIN, texts['train']), (HELD_OUT, texts['held_out'])):
        rng = np.random.default_rng(0)
        assert {source.pick(rng, 'event', 0.1).text for _ in range(40)} <= own


def test_evaluations_take_the_held_out_split():
    scenes, others = held_out_scenes(None, 2, 1.0, seed=3)
    again = list(make_scenes(3, HELD_OUT, 4, 1.0))
    for scene, expected in zip([*scenes, *others], again, strict=True):
        np.testing.assert_array_equal(scene.audio, expected.audio)


def test_a_mixture_keeps_the_stream_of_its_foley():
    assert MixedSource((TRAIN, HELD_OUT), (1.0, 1.0)).spawn_key == HELD_OUT.spawn_key
    with pytest.raises(ValueError, match='not one of train, held_out'):
        FoleySource('test')


def test_ordinary_generators_draw_from_the_whole_range():
    values = [primitives.between(np.random.default_rng(seed), 1.0, np.e) for seed in range(100)]
    np.testing.assert_allclose(
        np.log(values), [np.random.default_rng(seed).random() for seed in range(100)], rtol=1e-12
    )
