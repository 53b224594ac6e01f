"""Mel spectra, for training and metrics; generating a sound needs none."""

import functools

import jax.numpy as jnp
import librosa
import numpy as np

from realaudio_jax.audio import magnitude, stft
from realaudio_jax.typing import Array, Float


@functools.cache
def mel_basis(sample_rate: int, n_fft: int, bands: int, high_hz: float | None = None) -> np.ndarray:
    """Slaney mel filters with unit area (librosa); float32 [n_fft // 2 + 1, bands]."""
    return librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=bands, fmax=high_hz).T


def mel(
    x: Float[Array, '*b S'], sample_rate: int, n_fft: int, hop: int, bands: int
) -> Float[Array, '*b N M']:
    """Mel bands of the magnitude spectrum, |X|."""
    return magnitude(stft(x, n_fft, hop)) @ mel_basis(sample_rate, n_fft, bands)


def log_mel(
    x: Float[Array, '*b S'], sample_rate: int, n_fft: int, hop: int, bands: int, floor: float = 1e-3
) -> Float[Array, '*b N M']:
    """Log-mel spectrum, ln(max(mel |X|, floor)): bands are summed before the logarithm.

    A logarithm per bin would pull noise to its median; a band's sum is close to its mean.
    """
    return jnp.log(jnp.maximum(mel(x, sample_rate, n_fft, hop, bands), floor))
