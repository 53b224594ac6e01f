import numpy as np

from realaudio_jax.metrics.evaluation.adherence import loudness_correlation

RATE = 16_000


def test_loudness_follows_its_curve():
    wanted = np.interp(np.arange(100), [0, 30, 60, 99], [-60, -20, -40, -25])
    gain = np.interp(np.arange(4 * RATE), (np.arange(100) + 0.5) * RATE / 25, 10 ** (wanted / 20))
    noise = np.random.default_rng(0).normal(size=(4 * RATE, 2))
    followed = noise * gain[:, None]
    assert loudness_correlation(wanted, followed, RATE) > 0.98
    assert loudness_correlation(wanted, followed * 0.1, RATE) > 0.98
    assert loudness_correlation(wanted, followed[::-1], RATE) < 0.5
    assert np.isnan(loudness_correlation(np.full(100, -20.0), followed, RATE))
