"""Spectral variational autoencoder: 48 or 44.1 kHz stereo to 25 latent frames a second and back.

All layers run at frame rate: STFT features in, 100 then 25 frames a second, and a complex STFT out
that an inverse STFT turns into samples (the idea of Vocos, arXiv 2306.00814), so a decode costs
about as much as one denoiser step. Every STFT bin is 25 Hz wide at every sample rate, therefore one
set of weights serves all of them: a lower rate uses the first rows of the input and output kernels.

Both halves begin as a linear code that is solved for, not trained. With e the logarithms of 128
band levels of mid and side in the four STFT frames of one latent frame (1,024 numbers), mu their
mean and V the 64 leading principal directions over training sounds (`fit_linear_code`),

    z = V^T (e - mu) + network(audio),            e' = mu + V z                                (1)

and the decoder excites the envelope E = exp(e'), spread over the bins, in two ways:

    X = E (g W + exp(r) u),                       u = (a + ib) / |a + ib|                      (2)

white noise W with band gains g, and a predicted relative magnitude r and phase u for every bin. The
networks start at zero (g = 1, r = -4), as corrections of (1). A network that must find the envelope
by itself spends its first hours on it: after 3,000 steps of 8 s it kept about as much of the
envelope as six principal directions do.
"""

from collections.abc import Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import audio as audio_lib
from realaudio_jax.models.layers import ConvBlock, RMSNorm
from realaudio_jax.typing import (
    LATENT_CHANNELS,
    LATENT_RATE,
    SAMPLE_RATE,
    Array,
    Float,
    Leaf,
    PyTree,
)

BINS = SAMPLE_RATE // audio_lib.BIN_HZ // 2 + 1  # at the highest rate
STRIDE = audio_lib.FRAME_RATE // LATENT_RATE  # STFT frames per latent frame
_PHASE_BINS = 160  # the encoder sees phase below 4 kHz only
BANDS = 128  # of the envelope, evenly spaced in mel
_LEVEL_FLOOR = 1e-2  # of band levels, below which nothing is heard
_SIDE_WEIGHT = 0.5  # of the side in the choice of principal directions
_NOISE_SEED = 0


@flax.struct.dataclass
class Posterior:
    """Diagonal Gaussian over latents, q(z | audio) = N(mean, exp(log_variance)); both [B, L, C]."""

    mean: Leaf['B L C']
    log_variance: Leaf['B L C']

    def sample(self, noise: Float[Array, 'B L C']) -> Float[Array, 'B L C']:
        """mean + exp(log_variance / 2) noise (Kingma & Welling 2013, arXiv 1312.6114, eq. 10)."""
        return self.mean + jnp.exp(self.log_variance / 2) * noise

    def kl(self) -> Float[Array, 'B L C']:
        """KL(q || N(0, 1)) in nats per latent value (same paper, appendix B)."""
        return 0.5 * (jnp.square(self.mean) + jnp.exp(self.log_variance) - 1.0 - self.log_variance)


def samples_per_latent(sample_rate: int) -> int:
    """Samples in one latent frame: 1920 at 48 kHz, 1764 at 44.1 kHz."""
    return audio_lib.stft_size(sample_rate)[1] * STRIDE


class BinDense(nn.Module):
    """A dense layer from the first K of all frequency bins; kernel [BINS * features, D]."""

    width: int
    bins: int = BINS

    @nn.compact
    def __call__(self, x: Float[Array, 'B N K F']) -> Float[Array, 'B N D']:
        features = x.shape[-1]
        kernel = self.param(
            'kernel',
            nn.initializers.lecun_normal(),
            (self.bins * features, self.width),
        )
        used = x.shape[-2]
        return x.reshape(*x.shape[:-2], used * features) @ kernel[: used * features]


def _band_shapes() -> np.ndarray:
    """Triangular bands, evenly spaced in mel, that sum to one in every bin; [BANDS, BINS]."""
    hz = np.arange(BINS) * audio_lib.BIN_HZ
    mel = 2595 * np.log10(1 + hz / 700)
    position = mel / mel[-1] * (BANDS - 1)
    return np.maximum(0, 1 - np.abs(position[None] - np.arange(BANDS)[:, None])).astype(np.float32)


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
      E = 4 frames x 2 channels x BANDS numbers for each of N / 4 latent frames.
    """
    batch, count, bins, _ = spectrum.shape
    shapes = _band_shapes()[:, :bins]
    shapes = shapes / np.maximum(shapes.sum(1, keepdims=True), 1e-6)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    level = jnp.sqrt(jnp.moveaxis(power, -1, 2) @ shapes.T + 1e-12)
    return jnp.log(level + _LEVEL_FLOOR).reshape(batch, count // STRIDE, -1)


class LinearCode(nn.Module):
    """The linear part of eq. 1; its parameters come from `fit_linear_code`.

    Attributes:
      inverse: False for levels to latents, True for latents to levels.
    """

    inverse: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, 'B L F']) -> Float[Array, 'B L G']:
        size = STRIDE * 2 * BANDS
        mean = self.param('mean', nn.initializers.constant(-4.0), (size,))
        shape = (LATENT_CHANNELS, size) if self.inverse else (size, LATENT_CHANNELS)
        kernel = self.param('kernel', nn.initializers.orthogonal(), shape)
        if self.inverse:
            return x @ kernel + mean[None, None]
        return (x - mean[None, None]) @ kernel


def fit_linear_code(params: PyTree, levels: Float[np.ndarray, 'N E']) -> PyTree:
    """An autoencoder's parameters with its linear code set to the principal directions of levels.

    The side counts half, so that directions are spent on what is heard first.

    Args:
      params: of `Autoencoder`.
      levels: `band_levels` of latent frames of training sounds, several thousand.
    """
    weight = np.ones((STRIDE, 2, BANDS))
    weight[:, 1] = _SIDE_WEIGHT
    weight = weight.reshape(-1)
    mean = levels.mean(axis=0, dtype=np.float64)
    centred = (levels - mean) * weight
    _, directions = np.linalg.eigh(centred.T @ centred)
    leading = directions[:, ::-1][:, :LATENT_CHANNELS]
    code = {
        'encoder': {'mean': mean, 'kernel': weight[:, None] * leading},
        'decoder': {'mean': mean, 'kernel': leading.T / weight[None]},
    }
    code = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), code)
    tree = params['params']
    new = {half: {**tree[half], 'linear': code[half]} for half in ('encoder', 'decoder')}
    return {'params': {**tree, **new}}


class Encoder(nn.Module):
    """Audio to the parameters of the posterior.

    Attributes:
      frame_width: features at 100 frames a second.
      width: features at 25 frames a second.
      frame_blocks, blocks: residual blocks at either rate.
    """

    frame_width: int = 320
    width: int = 512
    frame_blocks: int = 1
    blocks: int = 2

    @nn.compact
    def __call__(self, audio: Float[Array, 'B S 2'], sample_rate: int) -> Posterior:
        spectrum = mid_side_spectrum(audio, sample_rate)
        size = audio_lib.magnitude(spectrum, 1e-4)
        log_size = (jnp.log(size + 1e-2) + 2.0) / 3.0
        low = spectrum[:, :, :_PHASE_BINS] / size[:, :, :_PHASE_BINS] ** 0.7
        low = jnp.concatenate([low.real, low.imag], axis=-1)
        x = BinDense(self.frame_width, name='from_magnitude')(log_size)
        x = x + BinDense(self.frame_width, _PHASE_BINS, name='from_phase')(low)
        for i in range(self.frame_blocks):
            x = ConvBlock(name=f'frame_block_{i}')(x)
        batch, count, _ = x.shape
        x = x.reshape(batch, count // STRIDE, STRIDE * self.frame_width)
        x = nn.Dense(self.width, name='down')(x)
        for i in range(self.blocks):
            x = ConvBlock(name=f'block_{i}')(x)
        x = nn.Dense(2 * LATENT_CHANNELS, kernel_init=nn.initializers.zeros, name='to_latents')(
            RMSNorm(name='norm')(x)
        )
        mean, log_variance = jnp.split(x, 2, axis=-1)
        linear = LinearCode(name='linear')(band_levels(spectrum))
        return Posterior(linear + mean, jnp.clip(log_variance - 3.0, -10.0, 4.0))


class Decoder(nn.Module):
    """Latents to audio, eq. 2. Attributes as in `Encoder`."""

    frame_width: int = 384
    width: int = 512
    frame_blocks: int = 2
    blocks: int = 2

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, 'B L C'],
        sample_rate: int,
        latent_mask: Float[Array, 'B L'] | None = None,
    ) -> Float[Array, 'B S 2']:
        n_fft, hop = audio_lib.stft_size(sample_rate)
        bins = n_fft // 2 + 1
        batch, length, _ = latents.shape
        frame_mask = None if latent_mask is None else jnp.repeat(latent_mask, STRIDE, axis=1)
        levels = LinearCode(inverse=True, name='linear')(latents)
        levels = levels.reshape(batch, length * STRIDE, 2, BANDS)
        x = nn.Dense(self.width, name='from_latents')(latents)
        for i in range(self.blocks):
            x = ConvBlock(name=f'block_{i}')(x, latent_mask)
        x = nn.Dense(STRIDE * self.frame_width, name='up')(x)
        x = x.reshape(batch, length * STRIDE, self.frame_width)
        for i in range(self.frame_blocks):
            x = ConvBlock(name=f'frame_block_{i}')(x, frame_mask)
        x = RMSNorm(name='norm')(x)

        zeros = nn.initializers.zeros
        gains = nn.Dense(2 * BANDS, kernel_init=zeros, name='to_gains')(x)
        shapes = _band_shapes()[:, :bins]
        # Levels are of energy after a floor was added; both are undone here.
        envelope = jnp.maximum(jnp.exp(jnp.clip(levels, -6.0, 7.0)) - _LEVEL_FLOOR, 1e-5)
        gains = envelope * jnp.exp(jnp.clip(gains.reshape(levels.shape), -8.0, 4.0))
        envelope, gains = (jnp.moveaxis(a @ shapes, 2, -1) for a in (envelope, gains))

        small = nn.initializers.variance_scaling(0.01, 'fan_in', 'normal')
        kernel = self.param('to_bins_kernel', small, (self.frame_width, BINS * 6))
        bias = self.param('to_bins_bias', _initial_bias, (BINS * 6,))
        out = x @ kernel[:, : bins * 6] + bias[None, None, : bins * 6]
        out = out.reshape(batch, length * STRIDE, bins, 6)  # r, a, b for mid and side
        size = envelope * jnp.exp(jnp.clip(out[..., :2], -8.0, 4.0))
        phase = out[..., 2:4] + 1j * out[..., 4:6]
        spectrum = size * phase / audio_lib.magnitude(phase, 1e-4)
        spectrum = spectrum + gains * _white_noise(length, n_fft, hop)[None]

        channels = jnp.moveaxis(spectrum, -1, 1) * (sample_rate / SAMPLE_RATE)  # [B, 2, N, K]
        mask = None if frame_mask is None else jnp.repeat(frame_mask[:, None], 2, axis=1)
        channels = audio_lib.istft(channels, n_fft, hop, mask)
        return audio_lib.left_right(jnp.moveaxis(channels, 1, -1))


def _initial_bias(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    """Starts r of eq. 2 at -4, where only noise is heard, and phases at zero."""
    del key
    start = np.zeros((BINS, 6), np.float32)
    start[:, :2], start[:, 2:4] = -4.0, 1.0
    return jnp.asarray(start.reshape(shape), dtype)


def _white_noise(length: int, n_fft: int, hop: int) -> Array:
    """The transform of one fixed take of white noise; complex [N, K, 2], about 1 in magnitude.

    Drawn per latent frame, and for one more than there are, into which the last windows reach: so a
    longer sound starts with exactly the noise of a shorter one.
    """
    key = jax.random.key(_NOISE_SEED)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(length + 1))
    noise = jax.vmap(lambda k: jax.random.normal(k, (hop * STRIDE, 2)))(keys)
    noise = noise.reshape(-1, 2).T / np.sqrt(0.375 * n_fft)
    return jnp.moveaxis(audio_lib.stft(noise, n_fft, hop)[:, : length * STRIDE], 0, -1)


class Autoencoder(nn.Module):
    """Encoder and decoder with the scale that brings latents to unit variance.

    Use through `apply(..., method='encode')` and `method='decode'`. `latent_mean` and
    `latent_scale` are constants of a trained autoencoder (zeros and ones while it trains), applied
    outside the posterior so that diffusion sees latents of zero mean and unit variance.

    Attributes:
      encoder, decoder: keyword arguments of `Encoder` and `Decoder`.
    """

    encoder: Mapping[str, int] | None = None
    decoder: Mapping[str, int] | None = None

    def setup(self):
        self._encoder = Encoder(**(self.encoder or {}), name='encoder')
        self._decoder = Decoder(**(self.decoder or {}), name='decoder')
        self.latent_mean = self.param('latent_mean', nn.initializers.zeros, (LATENT_CHANNELS,))
        self.latent_scale = self.param('latent_scale', nn.initializers.ones, (LATENT_CHANNELS,))

    def levels(self, audio: Float[Array, 'B S 2'], sample_rate: int) -> Float[Array, 'B L E']:
        """The band levels that the linear code is fitted to, see `band_levels`."""
        return band_levels(mid_side_spectrum(audio, sample_rate))

    def posterior(self, audio: Float[Array, 'B S 2'], sample_rate: int) -> Posterior:
        """q(z | audio), before scaling. S must be a multiple of `samples_per_latent`."""
        return self._encoder(audio, sample_rate)

    def encode(
        self, audio: Float[Array, 'B S 2'], sample_rate: int = SAMPLE_RATE
    ) -> Float[Array, 'B L C']:
        """Posterior mean, scaled to zero mean and unit variance.

        Args:
          audio: in [-1, 1]; S a multiple of `samples_per_latent(sample_rate)`.
          sample_rate: Hz, 48000 or lower and divisible by 100.
        """
        mean = self.posterior(audio, sample_rate).mean
        return (mean - self.latent_mean[None, None]) / self.latent_scale[None, None]

    def decode(
        self,
        latents: Float[Array, 'B L C'],
        sample_rate: int = SAMPLE_RATE,
        latent_mask: Float[Array, 'B L'] | None = None,
    ) -> Float[Array, 'B S 2']:
        """Audio of L * samples_per_latent(sample_rate) samples.

        Args:
          latents: as `encode` returns.
          sample_rate: Hz.
          latent_mask: 1 for real frames, 0 for padding at the end; padding does not reach the sound
            before it.
        """
        z = latents * self.latent_scale[None, None] + self.latent_mean[None, None]
        return self._decoder(z, sample_rate, latent_mask)

    def decode_raw(
        self, latents: Float[Array, 'B L C'], sample_rate: int = SAMPLE_RATE
    ) -> Float[Array, 'B S 2']:
        """Audio from latents as `posterior` gives them, before scaling; for training."""
        return self._decoder(latents, sample_rate)

    def __call__(
        self, audio: Float[Array, 'B S 2'], noise: Float[Array, 'B L C'], sample_rate: int
    ) -> tuple[Float[Array, 'B S 2'], Posterior]:
        """Reconstruction from a posterior sample, for training."""
        posterior = self.posterior(audio, sample_rate)
        return self._decoder(posterior.sample(noise), sample_rate), posterior
