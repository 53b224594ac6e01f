import numpy as np
import pytest

from realaudio_jax.metrics.seams import seam_flux, spectral_step

RATE = 48_000


def noise(seconds: float, seed: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).normal(size=(round(seconds * RATE), 2))


def smooth(seconds: float, seed: int) -> np.ndarray:
    """Noise that is low-pass filtered, so that its spectrum is another."""
    return np.apply_along_axis(np.convolve, 0, noise(seconds, seed), np.ones(9) / 3, 'same')


def test_a_step_is_where_the_spectrum_changes():
    sound = np.concatenate([noise(3, 0), smooth(3, 1)])
    away, seam = spectral_step(sound, RATE, [1.5, 3.0])
    assert away < 2 and seam > 8
    half = np.concatenate([noise(3, 0), 0.5 * noise(3, 1)])
    assert spectral_step(half, RATE, [3.0])[0] == pytest.approx(6.0, abs=0.5)


def test_flux_sees_a_click_that_the_step_does_not():
    sound = noise(4, 0)
    sound[2 * RATE : 2 * RATE + 8] = 1.0
    assert seam_flux(sound, RATE, [1.0, 2.0, 3.0]).argmax() == 1
    away, seam = seam_flux(sound, RATE, [1.0, 2.0])
    assert 0.8 < away < 1.3 and seam > 1.3 * away
    away, seam = spectral_step(sound, RATE, [1.0, 2.0])
    assert abs(away - seam) < 1.0


def test_level_and_rate_change_nothing():
    sound = noise(3, 0)
    for measure in (seam_flux, spectral_step):
        np.testing.assert_allclose(
            measure(sound, RATE, [1.0, 2.0]), measure(0.01 * sound, RATE, [1.0, 2.0]), rtol=1e-3
        )


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match='too short, or silent'):
        seam_flux(np.zeros((RATE, 2)), RATE, [0.5])
    with pytest.raises(ValueError, match='too short, or silent'):
        seam_flux(np.zeros(100), RATE, [0.0])
    with pytest.raises(ValueError, match=r'0\.1 s is not 0\.25 s inside'):
        spectral_step(noise(1, 0), RATE, [0.1])
