"""Band levels of a sound: 128 mel bands of mid and side in every STFT frame of 25 Hz wide bins."""

import jax.numpy as jnp
import numpy as np

from realaudio_jax import audio as audio_lib
from realaudio_jax.typing import LATENT_RATE, SAMPLE_RATE, Array, Float

AnyArray = np.ndarray | Array

BINS = SAMPLE_RATE // audio_lib.BIN_HZ // 2 + 1  # at the highest rate
STRIDE = audio_lib.FRAME_RATE // LATENT_RATE  # STFT frames per latent frame
BANDS = 128  # of the levels, evenly spaced in mel
LEVELS = STRIDE * 2 * BANDS  # numbers in one latent frame
LEVEL_FLOOR = 1e-2  # of band levels, below which nothing is heard
_MEL_BINS = 700 / audio_lib.BIN_HZ  # where the mel scale turns from linear to logarithmic, in bins
_BANDS_PER_NEPER = float((BANDS - 1) / np.log1p((BINS - 1) / _MEL_BINS))


def samples_per_latent(sample_rate: int) -> int:
    """Samples in one latent frame: 1920 at 48 kHz, 1764 at 44.1 kHz."""
    return audio_lib.stft_size(sample_rate)[1] * STRIDE


def bin_to_band(bins: np.ndarray) -> np.ndarray:
    """Position of a frequency among the bands: the peak of band b lies at b.

    Args:
        bins: frequency in bins of 25 Hz.
    """
    return np.log1p(bins / _MEL_BINS) * _BANDS_PER_NEPER


def band_to_bin(position: Float[AnyArray, '*b']) -> Float[AnyArray, '*b']:
    """Inverse of `bin_to_band`; a NumPy array gives a NumPy array."""
    numpy = np if isinstance(position, np.ndarray) else jnp
    return numpy.expm1(position / _BANDS_PER_NEPER) * _MEL_BINS


def band_shapes() -> np.ndarray:
    """Triangular bands, evenly spaced in mel, that sum to one in every bin; [BANDS, BINS]."""
    position = bin_to_band(np.arange(BINS))
    return np.maximum(0, 1 - np.abs(position[None] - np.arange(BANDS)[:, None])).astype(np.float32)


def band_averages(shapes: np.ndarray) -> np.ndarray:
    """Weights [M, K] that average over each band; a band beyond the bins averages to nothing."""
    return shapes / np.maximum(shapes.sum(1, keepdims=True), 1e-6)


def mid_side_spectrum(audio: Float[Array, 'B S 2'], sample_rate: int) -> Array:
    """Complex [B, N, K, 2], mid and side, in the units of the highest rate."""
    n_fft, hop = audio_lib.stft_size(sample_rate)
    channels = jnp.moveaxis(audio_lib.mid_side(audio), -1, 1)
    spectrum = audio_lib.stft(channels, n_fft, hop) * (SAMPLE_RATE / sample_rate)
    return jnp.moveaxis(spectrum, 1, -1)


def band_levels(spectrum: Array) -> Float[Array, 'B L E']:
    """ln(RMS + floor) of every band, channel and frame of a latent frame, side by side.

    Args:
        spectrum: complex [B, N, K, 2], mid and side.

    Returns:
        E = LEVELS = 4 frames x 2 channels x BANDS numbers for each of N / 4 latent frames.
    """
    batch, count, bins, _ = spectrum.shape
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    averages = band_averages(band_shapes()[:, :bins])
    level = jnp.sqrt(jnp.moveaxis(power, -1, 2) @ averages.T + 1e-12)
    return jnp.log(level + LEVEL_FLOOR).reshape(batch, count // STRIDE, -1)
