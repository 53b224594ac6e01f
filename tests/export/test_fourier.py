"""Fourier transforms as matrix products against numpy's in double precision."""

import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.export import fourier


@pytest.mark.parametrize('points', [1920, 1764, 4800, 4410, 12])
def test_transforms_are_those_of_numpy(points):
    x = np.random.default_rng(points).normal(size=(2, 3, points))
    want = np.fft.rfft(x)
    real, imaginary = fourier.rfft(jnp.asarray(x, jnp.float32))
    scale = np.abs(want).max()
    np.testing.assert_allclose(real / scale, want.real / scale, atol=2e-6)
    np.testing.assert_allclose(imaginary / scale, want.imag / scale, atol=2e-6)
    spectrum = want + 1j * np.random.default_rng(0).normal(size=want.shape)
    parts = (jnp.asarray(part, jnp.float32) for part in (spectrum.real, spectrum.imag))
    back = fourier.irfft(*parts, points)
    np.testing.assert_allclose(back, np.fft.irfft(spectrum, points), atol=2e-5)


def test_factors_are_near_the_root():
    assert fourier.factors(1920) == (40, 48) and fourier.factors(1764) == (42, 42)
