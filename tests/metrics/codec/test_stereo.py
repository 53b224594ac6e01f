"""Differences between channels that are known."""

import numpy as np
import pytest

from realaudio_jax.metrics.codec.stereo import is_stereo, side, stereo_errors

RATE = 24_000


def noise(count, seed=0):
    return 0.1 * np.random.default_rng(seed).normal(size=count).astype(np.float32)


def stereo(left, right):
    return np.stack([left, right], axis=1).astype(np.float32)


@pytest.fixture(scope='module')
def panned():
    mono = noise(2 * RATE)
    return stereo(mono, 0.5 * mono)


def test_a_copy_has_no_error_and_mono_has_no_image(panned):
    np.testing.assert_allclose(stereo_errors(panned, panned, RATE), 0, atol=1e-6)
    mono = stereo(panned[:, 0], panned[:, 0])
    assert not is_stereo(mono) and stereo_errors(mono, panned, RATE) is None
    assert is_stereo(panned) and not side(mono).any()


def test_another_pan_is_a_level_difference(panned):
    other = panned * np.array([[1, 2]], np.float32)
    found = stereo_errors(panned, other, RATE)
    assert found.level == pytest.approx(20 * np.log10(2), abs=0.01)
    assert found.phase < 0.1 and found.coherence < 1e-3


def test_a_delay_between_channels_is_a_phase_difference(panned):
    """One sample late in one channel turns a third octave by its frequency's share of a turn."""
    late = stereo(panned[:, 0], np.roll(panned[:, 1], 6))
    found = stereo_errors(panned, late, RATE)
    # third octaves up to 1.5 kHz are centred on 125 Hz to 1.26 kHz, their median on 397 Hz
    assert found.phase == pytest.approx(360 * 6 / RATE * 397, rel=0.1)
    assert found.level < 0.3
    assert stereo_errors(late, late, RATE).phase < 0.1


def test_independent_channels_lose_coherence(panned):
    wide = stereo(panned[:, 0], 0.5 * noise(len(panned), 1))
    found = stereo_errors(panned, wide, RATE)
    assert found.coherence > 0.6 and found.level < 1.5
