"""Discriminators: of sound by its complex spectra, and the head of one of latents.

As in DAC (arXiv 2306.06546, sec. 3.4) `Discriminator` judges complex spectra at several window
lengths; unlike it, the spectrum is cut into bands of eight bins that become the features of one
position, and further layers are small depthwise filters and matrix products.
"""

import flax.linen as nn
import jax.numpy as jnp

from realaudio_jax import audio as audio_lib
from realaudio_jax.models.layers import ConvBlock
from realaudio_jax.typing import Array, Float

_BINS_PER_PATCH = 8


class DepthwiseConv2D(nn.Module):
    """3x3 filter per feature over time and frequency, as a sum of shifted products."""

    @nn.compact
    def __call__(self, x: Float[Array, 'B N P D']) -> Float[Array, 'B N P D']:
        kernel = self.param('kernel', nn.initializers.lecun_normal(), (9, x.shape[-1]))
        count, patches = x.shape[1:3]
        padded = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
        return sum(
            padded[:, i : i + count, j : j + patches] * kernel[None, None, None, 3 * i + j]
            for i in range(3)
            for j in range(3)
        )


class SpectrumDiscriminator(nn.Module):
    """Logits for every patch of a complex spectrum at one resolution.

    Attributes:
        n_fft: samples; the hop is a quarter of it.
        width: features of the first layer.
    """

    n_fft: int
    width: int = 64

    @nn.compact
    def __call__(self, audio: Float[Array, 'B S 2']) -> tuple[Array, list[Array]]:
        hop = self.n_fft // 4
        x = jnp.moveaxis(audio_lib.mid_side(audio), -1, 1)
        x = audio_lib.stft(x[..., : x.shape[-1] // hop * hop], self.n_fft, hop)[..., :-1]
        x = x / audio_lib.magnitude(x, 1e-2) ** 0.7
        x = jnp.concatenate([x.real, x.imag], axis=1)  # [B, 4, N, K]
        batch, parts, count, bins = x.shape
        x = x.reshape(batch, parts, count, bins // _BINS_PER_PATCH, _BINS_PER_PATCH)
        x = jnp.moveaxis(x, 1, -1).reshape(batch, count, bins // _BINS_PER_PATCH, -1)
        x = nn.leaky_relu(nn.Dense(self.width, name='patch')(x), 0.1)
        features = [x]
        for i in range(3):
            x = DepthwiseConv2D(name=f'filter_{i}')(x)
            batch, count, patches, width = x.shape
            x = x.reshape(batch, count, patches // 2, 2 * width)  # halve the frequency axis
            x = nn.leaky_relu(
                nn.Dense(int(self.width * (1.5 + 0.5 * i)), name=f'merge_{i}')(x), 0.1
            )
            features.append(x)
        return nn.Dense(1, name='logits')(x)[..., 0], features


class Discriminator(nn.Module):
    """One `SpectrumDiscriminator` for each window length; returns all logits and features.

    Attributes:
        n_ffts: window lengths in samples.
    """

    n_ffts: tuple[int, ...] = (512, 1024, 2048)

    @nn.compact
    def __call__(self, audio: Float[Array, 'B S 2']) -> tuple[list[Array], list[list[Array]]]:
        parts = [SpectrumDiscriminator(n, name=f'n_fft_{n}')(audio) for n in self.n_ffts]
        return [logits for logits, _ in parts], [features for _, features in parts]


class LatentHead(nn.Module):
    """A logit for each frame of what a network sees of latents, with its neighbours.

    Attributes:
        width: features of a frame.
    """

    width: int = 64

    @nn.compact
    def __call__(
        self, features: Float[Array, 'B L F'], mask: Float[Array, 'B L']
    ) -> Float[Array, 'B L']:
        x = nn.silu(nn.Dense(self.width, name='embed')(features))
        x = ConvBlock(name='block')(x, (mask > 0).astype(x.dtype))
        return nn.Dense(1, name='logits')(x)[..., 0]
