"""Attacks whose times and precursors are known."""

import numpy as np

from realaudio_jax.metrics.codec.transients import attack_errors, attacks, energy_before_attacks

RATE, TIMES = 24_000, (0.4, 1.1)


def bursts(times=TIMES, bed=1e-3):
    """Bursts of noise of 0.1 s over a faint bed."""
    rng = np.random.default_rng(0)
    audio = bed * rng.normal(size=(2 * RATE, 2))
    for time in times:
        start = round(time * RATE)
        audio[start : start + RATE // 10] += 0.1 * rng.normal(size=(RATE // 10, 2))
    return audio.astype(np.float32)


def test_attacks_are_found_where_they_are():
    np.testing.assert_allclose(attacks(bursts(), RATE), TIMES, atol=1e-3)
    assert not attacks(bursts(()), RATE).size
    assert not attacks(np.zeros((RATE // 100, 2), np.float32), RATE).size


def test_energy_ahead_of_an_attack():
    original = bursts()
    echo = original.copy()
    for time in TIMES:
        start = round(time * RATE)
        echo[start - RATE // 50 : start] *= 10 ** (12 / 20)
    np.testing.assert_allclose(energy_before_attacks(original, echo, RATE), 12, atol=0.2)
    np.testing.assert_allclose(energy_before_attacks(original, original, RATE), 0)
    # what lies 60 dB below the attack is as good as silence
    silent, faint = bursts(bed=0.0), bursts(bed=3e-5)
    np.testing.assert_allclose(energy_before_attacks(silent, faint, RATE), 0)


def test_a_later_sound_has_later_attacks():
    original = bursts()
    found = attack_errors(original, np.roll(original, RATE // 50, axis=0), RATE)
    np.testing.assert_allclose(found, 20, atol=1)
    assert np.isnan(attack_errors(original, bursts(()), RATE)).all()
