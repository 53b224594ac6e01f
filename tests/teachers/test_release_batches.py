"""Condition dropout: its probabilities, and given regions that are what they say; onset weights."""

import dataclasses

import jax
import numpy as np
import pytest

from realaudio_jax.teachers import ConditionDropout
from realaudio_jax.teachers.release import (
    drop_conditions,
    to_batch,
    with_onset_weight,
)

B, L, T, E, W, C = 3, 8, 4, 5, 6, 7
NEVER = ConditionDropout(text=0.0, timeline=0.0, loudness=0.0, init=0.0)


def arrays(batch=B):
    rng = np.random.default_rng(0)
    seconds = np.full(batch, L / 25, np.float32)
    seconds[1::3] = 5 / 25  # ends within the third of four tokens
    made = {
        'latents': rng.normal(size=(batch, L, C)).astype(np.float32),
        'text': rng.normal(size=(batch, T, W)).astype(np.float32),
        'text_mask': np.ones((batch, T), bool),
        'event_text': rng.normal(size=(batch, E, W)).astype(np.float32),
        'onset_s': np.zeros((batch, E), np.float32),
        'offset_s': np.ones((batch, E), np.float32),
        'gain_db': np.zeros((batch, E), np.float32),
        'event_mask': np.ones((batch, E), bool),
        'loudness_db': np.zeros((batch, L), np.float32),
        'seconds': seconds,
    }
    return {name: jax.numpy.asarray(array) for name, array in made.items()}


def draw(dropout, seed=0, batch=B):
    start = to_batch(arrays(batch))
    return start, drop_conditions(start, jax.random.key(seed), dropout)


def test_a_batch_lacks_nothing_and_is_given_nothing():
    batch = to_batch(arrays())
    np.testing.assert_array_equal(batch.mask, [[1] * 8, [1] * 6 + [0] * 2, [1] * 8])
    c = batch.conditioning
    assert c.loudness_mask.all() and not c.init.any() and not c.init_mask.any()
    np.testing.assert_array_equal(c.event_text, arrays()['event_text'])


def test_probability_zero_leaves_everything_but_loudness():
    start, got = draw(NEVER)
    c = got.conditioning
    assert c.text_mask.all() and c.event_mask.all() and not c.loudness_mask.any()
    assert not c.init.any() and not c.init_mask.any()
    np.testing.assert_array_equal(got.latents, start.latents)
    np.testing.assert_array_equal(got.mask, start.mask)


@pytest.mark.parametrize(
    'change, text, events, loudness',
    [
        ({'text': 1.0, 'loudness': 1.0}, False, True, True),
        ({'timeline': 1.0, 'loudness': 1.0}, True, False, False),
        ({'loudness': 1.0}, True, True, True),
    ],
)
def test_probability_one(change, text, events, loudness):
    c = draw(dataclasses.replace(NEVER, **change))[1].conditioning
    assert (np.asarray(c.text_mask) == text).all() and (np.asarray(c.event_mask) == events).all()
    assert (np.asarray(c.loudness_mask) == loudness).all()


def test_given_regions_hold_the_latents_and_never_padding():
    """Before a time, after one, or both: at most two borders, and all three kinds occur."""
    start, got = draw(dataclasses.replace(NEVER, init=1.0), batch=2000)
    mask, c = np.asarray(start.mask), got.conditioning
    given = np.asarray(c.init_mask)
    assert set(np.unique(given)) == {0.0, 1.0} and not (given * (1 - mask)).any()
    np.testing.assert_array_equal(c.init, np.asarray(start.latents) * given[..., None])
    whole = given[mask.all(axis=1)]
    borders = np.abs(np.diff(whole, axis=1)).sum(axis=1)
    assert set(borders) == {0, 1, 2}
    ends = {(first, last) for first, last in whole[:, [0, -1]].tolist()}
    assert {(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)} <= ends
    assert (whole[borders == 2][:, 0] == 1).all()  # a span is missing, never alone given


def test_rates_are_those_asked_for_and_independent():
    """Of 2000 items, within 4 standard deviations (0.045)."""
    c = draw(ConditionDropout(text=0.3, timeline=0.4, loudness=0.5, init=0.0), batch=2000)[
        1
    ].conditioning
    no_text, no_events = ~np.asarray(c.text_mask)[:, 0], ~np.asarray(c.event_mask)[:, 0]
    loud = np.asarray(c.loudness_mask)
    for got, want in (
        (no_text, 0.3),
        (no_events, 0.4),
        (no_text & no_events, 0.12),
        (loud, 0.5 * 0.6),
    ):
        assert abs(got.mean() - want) < 0.045


def test_pure_under_jit_and_a_function_of_the_key():
    dropout = ConditionDropout(0.5, 0.5, 0.5, 0.5)
    start, want = draw(dropout, seed=1, batch=2000)
    got = jax.jit(lambda batch, key: drop_conditions(batch, key, dropout))(start, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, got, want)
    other = draw(dropout, seed=2, batch=2000)[1].conditioning
    assert not np.array_equal(other.init_mask, want.conditioning.init_mask)


def test_onset_weight_reaches_the_frames_around_onsets_that_are_asked_for():
    batch = to_batch(arrays())
    onsets = np.full((B, E), 0.1)  # within the third frame, 0.08 to 0.12 s
    onsets[0, 1] = 0.31  # within the last frame
    asked = np.ones((B, E), bool)
    asked[2] = False
    c = batch.conditioning.replace(onset_s=onsets, event_mask=asked)
    got = with_onset_weight(batch.replace(conditioning=c), 4.0)
    np.testing.assert_array_equal(
        got.mask, [[1, 4, 4, 4, 1, 1, 4, 4], [1, 4, 4, 4, 1, 1, 0, 0], [1] * 8]
    )
