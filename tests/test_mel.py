"""Mel spectra against librosa's filters."""

import jax.numpy as jnp
import librosa
import numpy as np

from realaudio_jax.audio import stft
from realaudio_jax.mel import log_mel


def test_log_mel_sums_bands_before_the_logarithm():
    x = jnp.asarray(0.3 * np.random.default_rng(0).normal(size=800), jnp.float32)
    basis = librosa.filters.mel(sr=16_000, n_fft=80, n_mels=6).astype(np.float64)
    magnitude = np.abs(np.asarray(stft(x, 80, 20), np.complex128))
    want = np.log(np.maximum(magnitude @ basis.T, 1e-3))
    np.testing.assert_allclose(log_mel(x, 16_000, 80, 20, 6), want, atol=1e-4)
    silence = log_mel(jnp.zeros(800), 16_000, 80, 20, 6)
    np.testing.assert_allclose(silence, np.log(1e-3), rtol=1e-6)
