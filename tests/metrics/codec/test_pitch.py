"""Pitch errors of tones that are known; needs CREPE's weights."""

import numpy as np
import pytest

from realaudio_jax.metrics.codec.tonality import pitch_error_cents
from realaudio_jax.metrics.embedders import crepe

RATE = 48_000


@pytest.fixture(scope='module')
def params(sound_dir):
    return crepe.load_crepe(sound_dir / 'weights' / 'crepe_tiny')[0]


def tone(hz, seconds=1.2):
    time = np.arange(round(seconds * RATE)) / RATE
    wave = sum(0.2 / k * np.sin(2 * np.pi * k * hz * time) for k in range(1, 6))
    return np.repeat(wave[:, None], 2, axis=1).astype(np.float32)


@pytest.mark.parametrize('cents', [0, 30, 1200])
def test_a_shifted_tone_is_off_by_its_shift(params, cents):
    found = pitch_error_cents(tone(330), tone(330 * 2 ** (cents / 1200)), RATE, params)
    assert found == pytest.approx(cents, abs=4)


def test_mono_at_another_rate(params):
    before, after = (tone(hz)[::2, 0] for hz in (330, 330 * 2 ** (50 / 1200)))
    assert pitch_error_cents(before, after, RATE // 2, params) == pytest.approx(50, abs=4)


@pytest.mark.parametrize('share, cents', [(0.65, 0), (0.35, 1200)])
def test_every_part_of_a_sound_counts(params, share, cents):
    kept = round(share * 1.2 * RATE)
    half_shifted = np.concatenate([tone(330)[:kept], tone(660)[kept:]])
    assert pitch_error_cents(tone(330), half_shifted, RATE, params) == pytest.approx(cents, abs=4)


def test_noise_and_clicks_are_not_pitched(params):
    noise = np.random.default_rng(0).normal(size=(RATE, 2)).astype(np.float32) * 0.1
    assert np.isnan(pitch_error_cents(noise, noise, RATE, params))
    assert np.isnan(pitch_error_cents(tone(330, 0.3), tone(330, 0.3), RATE, params))
