"""What the ports' front ends share: windows of a clip, power spectra, mel filters, batch norm."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import librosa
import numpy as np

from realaudio_jax.typing import Array, Float

MICRO_BATCH = 4  # windows of 10 s that pass a large network at once


def periodic_hann(length: int) -> np.ndarray:
    """w[i] = (1 - cos(2 pi i / length)) / 2."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def cut(x: Float[Array, 'B S'], size: int, hop: int) -> Float[Array, 'B N F']:
    """Pieces of `size` samples, `hop` apart; N = 1 + (S - size) // hop.

    Raises:
        ValueError: fewer samples than one piece.
    """
    count = 1 + (x.shape[1] - size) // hop
    if count < 1:
        raise ValueError(f'{x.shape[1]} samples are less than one window of {size}; pad the clip')
    return x[:, np.arange(count)[:, None] * hop + np.arange(size)[None, :]]


def power_spectrum(
    x: Float[Array, 'B S'],
    n_fft: int,
    hop: int,
    window: np.ndarray,
    center: str | None = 'reflect',
) -> Float[Array, 'B N K']:
    """|X|^2 of frames `hop` apart.

    Args:
        x: samples.
        n_fft: size of the transform; a shorter window is centred in it where frames are centred,
            and stands at its start where they are not.
        hop: samples.
        window: at most n_fft long.
        center: how both ends are padded by n_fft / 2 ('reflect' or 'constant'), so that frame n is
            centred on sample n hop; None for no padding.
    """
    size = len(window)
    if center is not None:
        x = jnp.pad(x, ((0, 0), (n_fft // 2, n_fft // 2)), mode=center)
        left = (n_fft - size) // 2
        window = np.pad(window, (left, n_fft - size - left))
    frames = cut(x, len(window), hop)
    spectrum = jnp.fft.rfft(frames * jnp.asarray(window, x.dtype)[None, None, :], n_fft)
    return jnp.square(spectrum.real) + jnp.square(spectrum.imag)


@functools.cache
def area_mel(
    sample_rate: int, n_fft: int, bands: int, low_hz: float, high_hz: float, htk: bool = False
) -> np.ndarray:
    """Triangles of unit area on Slaney's mel axis, or HTK's (librosa); [n_fft // 2 + 1, bands]."""
    return librosa.filters.mel(
        sr=sample_rate, n_fft=n_fft, n_mels=bands, fmin=low_hz, fmax=high_hz, htk=htk
    ).T


@functools.cache
def height_mel(
    sample_rate: int, n_fft: int, bands: int, low_hz: float, high_hz: float
) -> np.ndarray:
    """Triangles of unit height on the axis m = 1127 ln(1 + f / 700), none for f = 0.

    They are straight in m, as in VGGish, where librosa's are straight in f. float32
    [n_fft // 2 + 1, bands].
    """
    bins = 1127 * np.log1p(np.arange(n_fft // 2 + 1) * sample_rate / n_fft / 700)
    low, high = 1127 * np.log1p(np.array([low_hz, high_hz]) / 700)
    edges = np.linspace(low, high, bands + 2)
    rise = (bins[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])[None]
    fall = (edges[None, 2:] - bins[:, None]) / (edges[2:] - edges[1:-1])[None]
    basis = np.maximum(0.0, np.minimum(rise, fall)).astype(np.float32)
    basis[0] = 0
    return basis


def decibels(power: Float[Array, '*b'], floor: float = 1e-10) -> Float[Array, '*b']:
    """10 log10(max(power, floor))."""
    return 10 * jnp.log10(jnp.maximum(power, floor))


def embed_windows(network, size: int, hop: int, at_once: int = MICRO_BATCH):
    """A compiled function from audio [B S] to vectors [B N D], window by window.

    Args:
        network: (params, windows [M size]) to vectors [M D].
        size: samples of a window.
        hop: samples between windows.
        at_once: windows that pass the network together, so that memory does not grow with B or S.

    Returns:
        (params, audio) to vectors; parameters are an argument, so that no copy is compiled in.
    """

    @jax.jit
    def embed(params, audio):
        windows = cut(audio, size, hop)
        flat = windows.reshape(-1, size)
        count = len(flat)
        if count <= at_once:
            vectors = network(params, flat)
        else:
            flat = jnp.pad(flat, ((0, -count % at_once), (0, 0)))
            groups = flat.reshape(-1, at_once, size)
            vectors = jax.lax.map(lambda group: network(params, group), groups)
        return vectors.reshape(-1, vectors.shape[-1])[:count].reshape(*windows.shape[:2], -1)

    return embed


class BatchNorm(nn.Module):
    """(x - mean) / sqrt(var + epsilon) scale + bias over the last axis, with stored statistics."""

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, '*b C']) -> Float[Array, '*b C']:
        shape = x.shape[-1:]
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        scale, var = self.param('scale', ones, shape), self.param('var', ones, shape)
        bias, mean = self.param('bias', zeros, shape), self.param('mean', zeros, shape)
        gain = scale * jax.lax.rsqrt(var + self.epsilon)
        lead = (1,) * (x.ndim - 1)
        return x * gain.reshape(*lead, -1) + (bias - mean * gain).reshape(*lead, -1)
