"""Spectral variational autoencoder: 48 or 44.1 kHz stereo to 25 latent frames a second and back.

Every STFT bin is 25 Hz wide at every sample rate, therefore one set of weights serves all of them:
a lower rate uses the first bins of every band. Nothing runs at sample rate but two STFTs.

**Code.** With e the logarithms of 128 band levels of mid and side in the four STFT frames of one
latent frame (1,024 numbers), the latents are a linear code that is solved for, not trained:
probabilistic principal components (Tipping & Bishop 1999, eq. 6 and 9) of training sounds,

    q(z | e) = N(A (e - mu), diag v),            e_0 = mu + D z.                                (1)

**Decoder.** What the code leaves out is texture, and its mean is the one thing it never is: levels
of noise fluctuate, and a decoder trained on distances to the original learns not to. So the decoder
is a distribution, a Gaussian along the principal directions U of what is left, trained by maximum
likelihood, and a sound is one draw from it (n: one fixed take of noise):

    e' = e_0 + (m(z) + s(z) n) U,                n ~ N(0, T^2).                                 (2)

**Waveform.** Band levels become bin magnitudes that have these levels in their bands and their
frames, by the multiplicative updates of Lee & Seung 1999 for one fixed factor, B: first the overlap
of frames, without which an attack would be smeared by the window twice, then that of bands. The
phases are those of white noise after a few iterations towards a consistent spectrum (Griffin & Lim
1984, sec. III):

    P <- P . (B^T (e^2 / B P)),                  X <- |X| STFT(iSTFT(X)) / |STFT(iSTFT(X))|.     (3)

With exact levels this last step alone stands at a Frechet distance (YAMNet) of 0.74 to held-out
recordings; noise in the same bands stands at 5.0.
"""

from collections.abc import Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import audio as audio_lib
from realaudio_jax.models.layers import ConvBlock, RMSNorm
from realaudio_jax.random import random_key
from realaudio_jax.typing import (
    LATENT_CHANNELS,
    LATENT_RATE,
    SAMPLE_RATE,
    Array,
    Float,
    Key,
    Leaf,
    PyTree,
)

BINS = SAMPLE_RATE // audio_lib.BIN_HZ // 2 + 1  # at the highest rate
STRIDE = audio_lib.FRAME_RATE // LATENT_RATE  # STFT frames per latent frame
BANDS = 128  # of the levels, evenly spaced in mel
LEVELS = STRIDE * 2 * BANDS  # numbers in one latent frame
_LEVEL_FLOOR = 1e-2  # of band levels, below which nothing is heard
# What counts in the choice of principal directions: detail is heard in the middle, below 8 kHz.
_SIDE_WEIGHT = 0.15
_HIGH_WEIGHT = 0.25
_HIGH_HZ = 8_000
_LEVEL_RANGE = (-4.6, 8.0)  # of decoded levels: from silence to above full scale
_SPREAD_RANGE = (-6.0, 2.0)  # of ln s in eq. 2
_NOISE_SEED = 0
_SHARP_BINS = 320  # 8 kHz
_OVERLAP_REACH = 2  # frames on either side; windows further away barely meet
SHARPENING = 4  # iterations of the first half of eq. 3 along frequency
CONSISTENCY = 1  # and of the second: a second one costs a fifth of decoding
NOISE_PERIOD = 64  # latent frames, 2.56 s
TEMPERATURE = 0.9  # of n in eq. 2; at 1 a few heavy tails make textures too rough


@flax.struct.dataclass
class Posterior:
    """Diagonal Gaussian over latents, q(z | audio) = N(mean, exp(log_variance)); both [B, L, C]."""

    mean: Leaf['B L C']
    log_variance: Leaf['B L C']

    def sample(self, noise: Float[Array, 'B L C']) -> Float[Array, 'B L C']:
        """mean + exp(log_variance / 2) noise (Kingma & Welling 2013, arXiv 1312.6114, eq. 10)."""
        return self.mean + jnp.exp(self.log_variance / 2) * noise


def samples_per_latent(sample_rate: int) -> int:
    """Samples in one latent frame: 1920 at 48 kHz, 1764 at 44.1 kHz."""
    return audio_lib.stft_size(sample_rate)[1] * STRIDE


def _band_shapes() -> np.ndarray:
    """Triangular bands, evenly spaced in mel, that sum to one in every bin; [BANDS, BINS]."""
    hz = np.arange(BINS) * audio_lib.BIN_HZ
    mel = 2595 * np.log10(1 + hz / 700)
    position = mel / mel[-1] * (BANDS - 1)
    return np.maximum(0, 1 - np.abs(position[None] - np.arange(BANDS)[:, None])).astype(np.float32)


def _averages(shapes: np.ndarray) -> np.ndarray:
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
    averages = _averages(_band_shapes()[:, :bins])
    level = jnp.sqrt(jnp.moveaxis(power, -1, 2) @ averages.T + 1e-12)
    return jnp.log(level + _LEVEL_FLOOR).reshape(batch, count // STRIDE, -1)


def _level_weight() -> np.ndarray:
    """What each level counts in the choice of principal directions; float32 [LEVELS]."""
    weight = np.ones((STRIDE, 2, BANDS), np.float32)
    weight[:, 1] = _SIDE_WEIGHT
    centre_hz = _band_shapes().argmax(axis=1) * audio_lib.BIN_HZ
    weight[:, :, centre_hz > _HIGH_HZ] *= _HIGH_WEIGHT
    return weight.reshape(-1)


class Encoder(nn.Module):
    """Band levels to the posterior of eq. 1; its parameters come from `fit_linear_code`."""

    @nn.compact
    def __call__(self, levels: Float[Array, 'B L E']) -> Posterior:
        mean = self.param('mean', nn.initializers.constant(-4.0), (LEVELS,))
        kernel = self.param('kernel', nn.initializers.orthogonal(), (LEVELS, LATENT_CHANNELS))
        log_variance = self.param(
            'log_variance', nn.initializers.constant(-4.0), (LATENT_CHANNELS,)
        )
        z = (levels - mean[None, None]) @ kernel
        return Posterior(z, jnp.broadcast_to(log_variance[None, None], z.shape))


class Decoder(nn.Module):
    """Latents to the distribution of band levels, eq. 2.

    Attributes:
      width: features at 25 frames a second.
      blocks: residual blocks.
      directions: principal directions that are drawn; the rest is left out.
    """

    width: int = 384
    blocks: int = 3
    directions: int = 512

    def setup(self):
        self.mean = self.param('mean', nn.initializers.constant(-4.0), (LEVELS,))
        self.kernel = self.param('kernel', nn.initializers.orthogonal(), (LATENT_CHANNELS, LEVELS))
        self.residual = self.param(
            'residual', nn.initializers.orthogonal(), (self.directions, LEVELS)
        )
        self.from_latents = nn.Dense(self.width)
        self.stack = [ConvBlock(name=f'block_{i}') for i in range(self.blocks)]
        self.norm = RMSNorm()
        self.to_coordinates = nn.Dense(2 * self.directions, kernel_init=nn.initializers.zeros)

    def linear(self, latents: Float[Array, 'B L C']) -> Float[Array, 'B L E']:
        """e_0 of eq. 1."""
        return latents @ self.kernel + self.mean[None, None]

    def distribution(
        self, latents: Float[Array, 'B L C'], latent_mask: Float[Array, 'B L'] | None = None
    ) -> tuple[Float[Array, 'B L R'], Float[Array, 'B L R']]:
        """(m, ln s) of eq. 2."""
        x = self.from_latents(latents)
        for block in self.stack:
            x = block(x, latent_mask)
        mean, log_spread = jnp.split(self.to_coordinates(self.norm(x)), 2, axis=-1)
        return mean, jnp.clip(log_spread, *_SPREAD_RANGE)

    def log_likelihood(
        self, latents: Float[Array, 'B L C'], levels: Float[Array, 'B L E']
    ) -> Float[Array, 'B L']:
        """ln p(levels | latents) along U, in nats per coordinate, up to ln(2 pi) / 2."""
        mean, log_spread = self.distribution(latents)
        # U is orthogonal where the levels are weighted, so a division inverts it there.
        weight = _level_weight()[None]
        directions = self.residual * weight
        size = jnp.sum(jnp.square(directions), axis=1)
        left_out = (levels - self.linear(latents)) * weight[None]
        found = left_out @ directions.T / size[None, None]
        error = (found - mean) * jnp.exp(-log_spread)
        return -jnp.mean(0.5 * jnp.square(error) + log_spread, axis=-1)

    def __call__(
        self, latents: Float[Array, 'B L C'], latent_mask: Float[Array, 'B L'] | None = None
    ) -> Float[Array, 'B L E']:
        """One draw of e', the same noise for every item."""
        mean, log_spread = self.distribution(latents, latent_mask)
        noise = TEMPERATURE * _frame_noise(latents.shape[1], self.directions)
        return self.linear(latents) + (mean + jnp.exp(log_spread) * noise[None]) @ self.residual


def synthesize(
    levels: Float[Array, 'B L E'],
    sample_rate: int,
    latent_mask: Float[Array, 'B L'] | None = None,
) -> Float[Array, 'B S 2']:
    """Sound whose bands have the given levels, eq. 3.

    Args:
      levels: as `band_levels` gives them.
      sample_rate: Hz.
      latent_mask: 1 for real frames, 0 for padding at the end.
    """
    n_fft, hop = audio_lib.stft_size(sample_rate)
    batch, length, _ = levels.shape
    levels = jnp.moveaxis(levels.reshape(batch, length * STRIDE, 2, BANDS), 2, 1)
    level = jnp.exp(jnp.clip(levels, *_LEVEL_RANGE)) - _LEVEL_FLOOR
    power = jnp.square(jnp.maximum(level, 1e-5))
    frame_mask = sample_mask = None
    if latent_mask is not None:
        frame_mask = jnp.repeat(jnp.repeat(latent_mask, STRIDE, axis=1)[:, None], 2, axis=1)
        power = power * frame_mask[..., None]
        sample_mask = jnp.repeat(frame_mask, hop, axis=-1)
    size = _bin_magnitudes(_frame_powers(power), n_fft // 2 + 1)

    real, imaginary = _noise_phases(length * STRIDE, n_fft, hop)
    for i in range(CONSISTENCY + 1):
        spectrum = jax.lax.complex(size * real, size * imaginary)
        channels = audio_lib.istft(spectrum, n_fft, hop, frame_mask)
        if i < CONSISTENCY:
            if sample_mask is not None:
                channels = channels * sample_mask
            real, imaginary = _phases(audio_lib.stft(channels, n_fft, hop))
    channels = channels * (sample_rate / SAMPLE_RATE)
    return audio_lib.left_right(jnp.moveaxis(channels, 1, -1))


def _phases(spectrum: Array) -> tuple[Float[Array, '*b'], Float[Array, '*b']]:
    """Real and imaginary part of X / |X|."""
    # Two real products: a complex division takes longer than the transform.
    gain = 1.0 / audio_lib.magnitude(spectrum, 1e-6)
    return spectrum.real * gain, spectrum.imag * gain


def _noise_phases(
    frames: int, n_fft: int, hop: int
) -> tuple[Float[Array, '1 2 N K'], Float[Array, '1 2 N K']]:
    """`_phases` of one fixed take of white noise that comes round every NOISE_PERIOD.

    Transforming 10 s of it would take as long as an iteration of eq. 3.
    """
    noise = _frame_signs(NOISE_PERIOD, 2 * hop * STRIDE).reshape(-1, 2).T
    around = jnp.concatenate([noise[:, -n_fft:], noise, noise[:, :n_fft]], axis=1)
    margin, period = n_fft // hop, NOISE_PERIOD * STRIDE
    spectrum = audio_lib.stft(around, n_fft, hop)[:, margin : margin + period]
    times = -(-frames // period)
    return tuple(jnp.tile(part, (1, times, 1))[None, :, :frames] for part in _phases(spectrum))


def _frame_powers(wanted: Float[Array, 'B 2 N M']) -> Float[Array, 'B 2 N M']:
    """Powers that leave the wanted ones after the overlap of frames; eq. 3 along time, once.

    More updates make attacks sharper still, and textures rough: after four the distance to
    recordings is larger than after none.
    """
    count = wanted.shape[2]

    def overlapped(x):
        edges = [(0, 0), (0, 0), (_OVERLAP_REACH, _OVERLAP_REACH), (0, 0)]
        x = jnp.pad(x, edges)
        return sum(w * x[:, :, i : i + count] for i, w in enumerate(_frame_overlap()))

    return wanted * overlapped(wanted / (overlapped(wanted) + 1e-12))


def _frame_overlap() -> list[float]:
    """How much of the power set in one frame is found in it and its neighbours; sums to one."""
    n_fft, hop = audio_lib.stft_size(SAMPLE_RATE)
    power = np.square(audio_lib.hann(n_fft))
    shifts = np.abs(np.arange(-_OVERLAP_REACH, _OVERLAP_REACH + 1)) * hop
    products = np.array([power[shift:] @ power[: n_fft - shift] for shift in shifts])
    return (products / products.sum()).tolist()


def _bin_magnitudes(wanted: Float[Array, 'B 2 N M'], bins: int) -> Float[Array, 'B 2 N K']:
    """Magnitudes that have the wanted powers in their bands; eq. 3 along frequency."""
    shapes = _band_shapes()[:, :bins]
    # Only the bands below 8 kHz are sharpened: wider ones hold no single partial to be found.
    low = int(np.argmax(shapes[:, _SHARP_BINS:].any(axis=1)))
    high = int(np.argmin(shapes[:, :_SHARP_BINS].any(axis=1)))
    above = wanted[..., low:] @ shapes[low:, _SHARP_BINS:]
    sharp = wanted[..., :high] @ shapes[:high, :_SHARP_BINS]
    shapes = shapes[:low, :_SHARP_BINS]
    averages, others = _averages(shapes), 1.0 - shapes.sum(0)
    others = jnp.expand_dims(jnp.asarray(others), (0, 1, 2))
    for _ in range(SHARPENING):
        ratio = wanted[..., :low] / (sharp @ averages.T + 1e-12)
        sharp = sharp * (ratio @ shapes + others)
    # Padded and added, which is part of the next pass; side by side would be a pass of its own.
    sharp, above = (
        jnp.pad(x, [(0, 0)] * 3 + [edges])
        for x, edges in ((sharp, (0, bins - _SHARP_BINS)), (above, (_SHARP_BINS, 0)))
    )
    return jnp.sqrt(sharp + above + 1e-12)


def _frame_noise(length: int, count: int) -> Float[Array, 'L R']:
    """One fixed take of standard normal noise."""
    return jax.vmap(lambda key: jax.random.normal(key, (count,)))(_frame_keys(0, length))


def _frame_signs(length: int, count: int) -> Float[Array, 'L S']:
    """One fixed take of random signs: as white as normal noise, and 32 for the price of one."""

    def signs(key):
        words = jax.random.bits(key, (-(-count // 32), 1), 'uint32')
        bits = (words >> jnp.arange(32, dtype='uint32')[None]) & 1
        return 2.0 * bits.reshape(-1)[:count].astype(jnp.float32) - 1.0

    return jax.vmap(signs)(_frame_keys(1, length))


def _frame_keys(stream: int, length: int) -> Key[Array, 'L']:
    """A key for each latent frame, so a longer sound starts with the noise of a shorter one."""
    # Behind the barrier, or the compiler would spend its time drawing the noise itself.
    seed = jax.lax.optimization_barrier(jnp.asarray(_NOISE_SEED))
    key = jax.random.fold_in(random_key(seed), stream)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(length))


class Autoencoder(nn.Module):
    """Encoder and decoder; use through `apply(..., method='encode')` and `method='decode'`.

    Attributes:
      decoder: keyword arguments of `Decoder`.
    """

    decoder: Mapping[str, int] | None = None

    def setup(self):
        self._encoder = Encoder(name='encoder')
        self._decoder = Decoder(**(self.decoder or {}), name='decoder')

    def levels(self, audio: Float[Array, 'B S 2'], sample_rate: int) -> Float[Array, 'B L E']:
        """The band levels that the code is fitted to, see `band_levels`."""
        return band_levels(mid_side_spectrum(audio, sample_rate))

    def posterior(self, audio: Float[Array, 'B S 2'], sample_rate: int) -> Posterior:
        """q(z | audio). S must be a multiple of `samples_per_latent`."""
        return self._encoder(self.levels(audio, sample_rate))

    def encode(
        self, audio: Float[Array, 'B S 2'], sample_rate: int = SAMPLE_RATE
    ) -> Float[Array, 'B L C']:
        """Mean of the posterior: zero mean and about unit variance over training sounds.

        Args:
          audio: in [-1, 1]; S a multiple of `samples_per_latent(sample_rate)`.
          sample_rate: Hz, 48000 or lower and divisible by 100.
        """
        return self.posterior(audio, sample_rate).mean

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
        return synthesize(self._decoder(latents, latent_mask), sample_rate, latent_mask)

    def log_likelihood(
        self, levels: Float[Array, 'B L E'], noise: Float[Array, 'B L C']
    ) -> Float[Array, 'B L']:
        """Decoder's ln p(levels | z) for a posterior sample z = mean + deviation noise."""
        posterior = self._encoder(levels)
        return self._decoder.log_likelihood(posterior.sample(noise), levels)

    def __call__(
        self, audio: Float[Array, 'B S 2'], noise: Float[Array, 'B L C'], sample_rate: int
    ) -> tuple[Float[Array, 'B S 2'], Posterior]:
        """Reconstruction from a posterior sample; visits every parameter."""
        posterior = self.posterior(audio, sample_rate)
        return self.decode(posterior.sample(noise), sample_rate), posterior


def fit_linear_code(params: PyTree, levels: Float[np.ndarray, 'N E']) -> PyTree:
    """An autoencoder's parameters with eq. 1 and U of eq. 2 solved for on levels.

    The side and the highest bands count less, so that directions are spent on what is heard first:
    with equal weights the Frechet distance of reconstructions is larger by half. Each latent is
    scaled by the root of its deviation over the mean one: half-way to unit variance, so the
    channels that carry most of the sound stay the largest, and the mean variance is one, as
    diffusion expects.

    Args:
      params: of `Autoencoder`.
      levels: `band_levels` of latent frames of training sounds, several thousand.
    """
    weight = _level_weight()
    mean = levels.mean(axis=0, dtype=np.float64)
    centred = (levels - mean) * weight
    variance, directions = np.linalg.eigh(centred.T @ centred / len(levels))
    variance, directions = variance[::-1].clip(1e-9), directions[:, ::-1]
    leading, spread = directions[:, :LATENT_CHANNELS], np.sqrt(variance[:LATENT_CHANNELS])
    scale = np.sqrt(spread * spread.mean())
    left_out = variance[LATENT_CHANNELS:].mean()
    tree = params['params']
    count = len(tree['decoder']['residual'])
    others = slice(LATENT_CHANNELS, LATENT_CHANNELS + count)
    residual = (directions[:, others] * np.sqrt(variance[others])).T
    encoder = {
        'mean': mean,
        'kernel': weight[:, None] * leading / scale,
        'log_variance': np.log(left_out / scale**2),
    }
    decoder = {
        'mean': mean,
        'kernel': scale[:, None] * leading.T / weight,
        'residual': residual / weight,
    }
    encoder, decoder = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (encoder, decoder))
    return {'params': {**tree, 'encoder': encoder, 'decoder': {**tree['decoder'], **decoder}}}
