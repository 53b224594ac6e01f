"""Spectral variational autoencoder: 48 or 44.1 kHz stereo to 25 latent frames a second and back.

Every STFT bin is 25 Hz wide at every sample rate, therefore one set of weights serves all of them:
a lower rate uses the first bins of every band. Nothing runs at sample rate but two STFTs.

**Encoder.** With e the logarithms of 128 band levels of mid and side in the four STFT frames of one
latent frame (1,024 numbers), the latents are a linear code, solved for rather than trained:
probabilistic principal components (Tipping & Bishop 1999, eq. 6 and 9) of training sounds,

    q(z | e) = N(A (e - mu), diag v),            e_0 = mu + D z.                                (1)

**Decoder.** What the code leaves out is texture. Its levels fluctuate, and a decoder trained on
distances to the original would regress to their mean, which does not. So the decoder is a
distribution, a Gaussian along the principal directions U of the residual, and a sound is one draw
from it (n: drawn by `watermark`):

    e' = e_0 + (m(z) + s(z) n) U,                n ~ N(0, T^2).                                 (2)

m and s are networks that are trained by maximum likelihood, or, without networks, 0 and 1: the rows
of U are as long as what the training sounds leave out is large, so one spread serves all sounds.

`synthesis` turns the levels e' into sound; where tone stands out it uses their mean: a draw is for
texture alone.
"""

from collections.abc import Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.models.band_levels import (
    LEVELS,
    band_levels,
    mid_side_spectrum,
)
from realaudio_jax.models.band_levels import (
    samples_per_latent as samples_per_latent,  # for those who use the autoencoder
)
from realaudio_jax.models.layers import ConvBlock, RMSNorm
from realaudio_jax.models.synthesis import Phases, frame_keys, synthesize, synthesize_part
from realaudio_jax.typing import (
    LATENT_CHANNELS,
    SAMPLE_RATE,
    Array,
    Float,
    Int,
    Leaf,
)

_LOG_STD_RANGE = (-6.0, 2.0)  # of ln s in eq. 2
TEMPERATURE = 0.9  # of n in eq. 2; at 1 a few heavy tails make textures too rough


@flax.struct.dataclass
class Posterior:
    """Diagonal Gaussian over latents, q(z | audio) = N(mean, exp(log_variance)); both [B, L, C]."""

    mean: Leaf['B L C']
    log_variance: Leaf['B L C']

    def sample(self, noise: Float[Array, 'B L C']) -> Float[Array, 'B L C']:
        """mean + exp(log_variance / 2) noise (Kingma & Welling 2013, arXiv 1312.6114, eq. 10)."""
        return self.mean + jnp.exp(self.log_variance / 2) * noise


class Encoder(nn.Module):
    """Encoder: band levels to the posterior of eq. 1; `training.pca` solves for its parameters.

    Attributes:
        channels: of the latents.
    """

    channels: int = LATENT_CHANNELS

    @nn.compact
    def __call__(self, levels: Float[Array, 'B L E']) -> Posterior:
        mean = self.param('mean', nn.initializers.constant(-4.0), (LEVELS,))
        kernel = self.param('kernel', nn.initializers.orthogonal(), (LEVELS, self.channels))
        log_variance = self.param('log_variance', nn.initializers.constant(-4.0), (self.channels,))
        z = (levels - mean[None, None]) @ kernel
        return Posterior(z, jnp.broadcast_to(log_variance[None, None], z.shape))


class Decoder(nn.Module):
    """Decoder: latents to the distribution of band levels, eq. 2.

    Attributes:
        width: features at 25 frames a second; 0: no networks.
        blocks: residual blocks.
        directions: principal directions that are drawn; the rest is left out.
        channels: of the latents.
        dtype: of the products, such as 'bfloat16'; None: that of latents and parameters. Levels
            are float32.
    """

    width: int = 384
    blocks: int = 3
    directions: int = 512
    channels: int = LATENT_CHANNELS
    dtype: str | None = None

    def setup(self):
        """Makes the layers."""
        self.mean = self.param('mean', nn.initializers.constant(-4.0), (LEVELS,))
        self.kernel = self.param('kernel', nn.initializers.orthogonal(), (self.channels, LEVELS))
        self.residual = self.param(
            'residual', nn.initializers.orthogonal(), (self.directions, LEVELS)
        )
        if not self.width:
            return
        self.from_latents = nn.Dense(self.width)
        self.stack = [ConvBlock(name=f'block_{i}') for i in range(self.blocks)]
        self.norm = RMSNorm()
        self.to_coordinates = nn.Dense(2 * self.directions, kernel_init=nn.initializers.zeros)

    def linear(self, latents: Float[Array, 'B L C']) -> Float[Array, 'B L E']:
        """Linear reconstruction of the band levels, e_0 of eq. 1."""
        return latents @ self.kernel + self.mean[None, None]

    def distribution(
        self, latents: Float[Array, 'B L C'], latent_mask: Float[Array, 'B L'] | None = None
    ) -> tuple[Float[Array, 'B L R'], Float[Array, 'B L R']]:
        """Mean and log standard deviation (m, ln s) along U, eq. 2."""
        if not self.width:
            nothing = jnp.zeros((*latents.shape[:2], self.directions), latents.dtype)
            return nothing, nothing
        x = self.from_latents(latents.astype(self.dtype or latents.dtype))
        if latent_mask is not None:
            latent_mask = latent_mask.astype(x.dtype)
        for block in self.stack:
            x = block(x, latent_mask)
        coordinates = self.to_coordinates(self.norm(x)).astype(latents.dtype)
        mean, log_std = jnp.split(coordinates, 2, axis=-1)
        return mean, jnp.clip(log_std, *_LOG_STD_RANGE)

    def log_likelihood(
        self,
        latents: Float[Array, 'B L C'],
        levels: Float[Array, 'B L E'],
        weight: Float[np.ndarray, 'E'],
    ) -> Float[Array, 'B L']:
        """ln p(levels | latents) along U, in nats per coordinate, up to ln(2 pi) / 2.

        U was solved for with the `weight` of levels of `training.pca`.
        """
        mean, log_std = self.distribution(latents)
        # U is orthogonal where the levels are weighted, so a division inverts it there.
        weight = weight[None]
        directions = self.residual * weight
        size = jnp.sum(jnp.square(directions), axis=1)
        left_out = (levels - self.linear(latents)) * weight[None]
        found = left_out @ directions.T / size[None, None]
        error = (found - mean) * jnp.exp(-log_std)
        return -jnp.mean(0.5 * jnp.square(error) + log_std, axis=-1)

    def __call__(
        self,
        latents: Float[Array, 'B L C'],
        latent_mask: Float[Array, 'B L'] | None = None,
        texture: Float[Array, 'B L R'] | None = None,
    ) -> tuple[Float[Array, 'B L E'], Float[Array, 'B L E']]:
        """One draw of e', with n = T texture, and its mean e_0 + m(z) U."""
        mean, log_std = self.distribution(latents, latent_mask)
        if texture is None:
            texture = frame_noise(latents.shape[1], self.directions)[None]
        expected = self.linear(latents) + self._levels_of(mean)
        noise = TEMPERATURE * texture
        return expected + self._levels_of(jnp.exp(log_std) * noise), expected

    def _levels_of(self, coordinates: Float[Array, 'B L R']) -> Float[Array, 'B L E']:
        """What coordinates along the principal directions add to the levels."""
        if self.dtype is None:
            return coordinates @ self.residual
        both = (x.astype(self.dtype) for x in (coordinates, self.residual))
        return jnp.matmul(*both, preferred_element_type=coordinates.dtype)


def frame_noise(frames: int | Int[Array, 'L'], count: int) -> Float[Array, 'L R']:
    """One fixed take of standard normal noise of latent frames, or of so many from the first on."""
    return jax.vmap(lambda key: jax.random.normal(key, (count,)))(frame_keys(0, frames))


class Autoencoder(nn.Module):
    """Encoder and decoder; use through `apply(..., method='encode')` and `method='decode'`.

    Attributes:
        decoder: keyword arguments of `Decoder`.
        channels: of the latents. A denoiser knows the channels that it was trained on.
        dtype: of the decoder's products, see `Decoder`.
    """

    decoder: Mapping[str, int] | None = None
    channels: int = LATENT_CHANNELS
    dtype: str | None = None

    def setup(self):
        """Makes both networks."""
        self._encoder = Encoder(self.channels, name='encoder')
        self._decoder = Decoder(
            **(self.decoder or {}), channels=self.channels, dtype=self.dtype, name='decoder'
        )

    @property
    def directions(self) -> int:
        """R, numbers that the decoder draws for a latent frame."""
        return Decoder(**(self.decoder or {})).directions

    def levels(self, audio: Float[Array, 'B S 2'], sample_rate: int) -> Float[Array, 'B L E']:
        """Log band levels, which the principal components are fitted to; see `band_levels`."""
        return band_levels(mid_side_spectrum(audio, sample_rate))

    def posterior(self, audio: Float[Array, 'B S 2'], sample_rate: int) -> Posterior:
        """Posterior q(z | audio). S must be a multiple of `samples_per_latent`."""
        return self._encoder(self.levels(audio, sample_rate))

    def encode(
        self, audio: Float[Array, 'B S 2'], sample_rate: int = SAMPLE_RATE
    ) -> Float[Array, 'B L C']:
        """Encodes audio to latents, the posterior's mean: zero mean and about unit variance.

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
        texture: Float[Array, 'B L R'] | None = None,
    ) -> Float[Array, 'B S 2']:
        """Decodes latents to audio of L * samples_per_latent(sample_rate) samples.

        Args:
            latents: as `encode` returns.
            sample_rate: Hz.
            latent_mask: 1 for real frames, 0 for padding at the end; padding does not reach the
                sound before it.
            texture: standard normal noise, the draw of what latents leave out, R the decoder's
                directions; None: one fixed take, the same for every item.
        """
        drawn, expected = self._decoder(latents, latent_mask, texture)
        return synthesize(drawn, sample_rate, latent_mask, expected)

    def decode_part(
        self,
        latents: Float[Array, 'B L C'],
        sample_rate: int,
        latent_mask: Float[Array, 'B L'],
        frames: Int[Array, 'L'],
        phases: Phases,
        begin: int,
        end: int,
        texture: Float[Array, 'B L R'] | None = None,
    ) -> tuple[Float[Array, 'B S 2'], Phases]:
        """`decode` for a part of a longer sound, see `synthesis.synthesize_part`.

        A decoder of three blocks reaches nine frames: this many at both ends of the part are not
        as in the whole.
        """
        if texture is None:
            texture = frame_noise(frames, self._decoder.directions)[None]
        drawn, expected = self._decoder(latents, latent_mask, texture)
        return synthesize_part(
            drawn, sample_rate, latent_mask, expected, frames, phases, begin, end
        )

    def log_likelihood(
        self,
        levels: Float[Array, 'B L E'],
        noise: Float[Array, 'B L C'],
        weight: Float[np.ndarray, 'E'],
    ) -> Float[Array, 'B L']:
        """Decoder's ln p(levels | z) for a posterior sample z = mean + deviation noise."""
        posterior = self._encoder(levels)
        return self._decoder.log_likelihood(posterior.sample(noise), levels, weight)

    def __call__(
        self, audio: Float[Array, 'B S 2'], noise: Float[Array, 'B L C'], sample_rate: int
    ) -> tuple[Float[Array, 'B S 2'], Posterior]:
        """Reconstruction from a posterior sample; visits every parameter."""
        posterior = self.posterior(audio, sample_rate)
        return self.decode(posterior.sample(noise), sample_rate), posterior
