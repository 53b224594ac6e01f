"""The autoencoder of AudioLDM 2: log-mel planes to latents and back (Rombach 2022, 2112.10752).

Residual blocks at each resolution, attention over the whole plane in the middle; latents are
normal, their mean and log-variance the encoder's result. A latent cell covers `factor` frames by
`factor` mel bands.
"""

import os

import flax.linen as nn
import jax.numpy as jnp

from realaudio_jax.teachers import importing
from realaudio_jax.teachers.audioldm2.layers import (
    CellConv,
    Downsample,
    ResnetBlock,
    Upsample,
    attend,
    conv,
    group_norm,
)
from realaudio_jax.typing import Array, Float

CLASS_NAME = 'AutoencoderKL'
_EPSILON = 1e-6  # of every norm


class PlaneAttention(nn.Module):
    """Single-head self-attention over all cells, with a residual connection."""

    groups: int

    @nn.compact
    def __call__(self, x: Float[Array, 'B N M C']) -> Float[Array, 'B N M C']:
        batch, *_, channels = x.shape
        y = group_norm(self.groups, _EPSILON, 'group_norm')(x).reshape(batch, -1, channels)
        query, key, value = (nn.Dense(channels, name=f'to_{n}')(y) for n in 'qkv')
        y = nn.Dense(channels, name='to_out_0')(attend(query, key, value, 1))
        return x + y.reshape(x.shape)


class Middle(nn.Module):
    """Residual block, attention, residual block."""

    groups: int

    @nn.compact
    def __call__(self, x: Float[Array, 'B N M C']) -> Float[Array, 'B N M C']:
        x = ResnetBlock(x.shape[-1], self.groups, _EPSILON, name='resnets_0')(x)
        x = PlaneAttention(self.groups, name='attentions_0')(x)
        return ResnetBlock(x.shape[-1], self.groups, _EPSILON, name='resnets_1')(x)


class Stage(nn.Module):
    """Residual blocks of one resolution, then a resampling: 'down', 'up' or None."""

    features: int
    blocks: int
    groups: int
    resample: str | None

    @nn.compact
    def __call__(self, x: Float[Array, 'B N M C']) -> Float[Array, 'B N2 M2 F']:
        for i in range(self.blocks):
            x = ResnetBlock(self.features, self.groups, _EPSILON, name=f'resnets_{i}')(x)
        if self.resample == 'down':
            return Downsample(before=0, name='downsamplers_0')(x)
        return Upsample(name='upsamplers_0')(x) if self.resample == 'up' else x


class Encoder(nn.Module):
    """Encodes planes to mean and log-variance of the latents, concatenated."""

    channels: tuple[int, ...]
    latent_channels: int
    blocks: int
    groups: int

    @nn.compact
    def __call__(self, x: Float[Array, 'B N M 1']) -> Float[Array, 'B N2 M2 F']:
        x = conv(self.channels[0], 'conv_in')(x)
        for i, features in enumerate(self.channels):
            resample = 'down' if i + 1 < len(self.channels) else None
            x = Stage(features, self.blocks, self.groups, resample, name=f'down_blocks_{i}')(x)
        x = Middle(self.groups, name='mid_block')(x)
        x = nn.silu(group_norm(self.groups, _EPSILON, 'conv_norm_out')(x))
        return conv(2 * self.latent_channels, 'conv_out')(x)


class Decoder(nn.Module):
    """Decodes latents to planes."""

    channels: tuple[int, ...]
    blocks: int
    groups: int

    @nn.compact
    def __call__(self, z: Float[Array, 'B N M C']) -> Float[Array, 'B N2 M2 1']:
        x = conv(self.channels[-1], 'conv_in')(z)
        x = Middle(self.groups, name='mid_block')(x)
        for i, features in enumerate(reversed(self.channels)):
            resample = 'up' if i + 1 < len(self.channels) else None
            x = Stage(features, self.blocks + 1, self.groups, resample, name=f'up_blocks_{i}')(x)
        x = nn.silu(group_norm(self.groups, _EPSILON, 'conv_norm_out')(x))
        return conv(1, 'conv_out')(x)


class Autoencoder(nn.Module):
    """AudioLDM 2's autoencoder of log-mel spectrograms; the defaults are the base model's.

    Attributes:
        channels: of each resolution, from the full plane inwards.
        latent_channels: of a cell.
        blocks: residual blocks of a resolution on the way in; one more on the way out.
        groups: of the norms.
    """

    channels: tuple[int, ...] = (128, 256, 512)
    latent_channels: int = 8
    blocks: int = 2
    groups: int = 32

    @property
    def factor(self) -> int:
        """Frames, and mel bands, of a latent cell."""
        return 2 ** (len(self.channels) - 1)

    def setup(self):
        self.encoder = Encoder(self.channels, self.latent_channels, self.blocks, self.groups)
        self.decoder = Decoder(self.channels, self.blocks, self.groups)
        self.quant_conv = CellConv(2 * self.latent_channels)
        self.post_quant_conv = CellConv(self.latent_channels)

    def __call__(self, mel: Float[Array, 'B N M']) -> Float[Array, 'B N M']:
        """Encodes to the mean and decodes; used for initialisation."""
        return self.decode(self.encode(mel)[0])

    def encode(
        self, mel: Float[Array, 'B N M']
    ) -> tuple[Float[Array, 'B N2 M2 C'], Float[Array, 'B N2 M2 C']]:
        """Mean and log-variance of the latents, the latter kept within -30 and 20.

        Args:
            mel: log-mel frames; N and M multiples of `factor`.
        """
        moments = self.quant_conv(self.encoder(mel[..., None]))
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(log_variance, -30.0, 20.0)

    def decode(self, latents: Float[Array, 'B N M C']) -> Float[Array, 'B N2 M2']:
        """Log-mel frames of latents."""
        return self.decoder(self.post_quant_conv(latents))[..., 0]


def read_autoencoder(folder: str | os.PathLike) -> tuple[Autoencoder, float]:
    """The module that a folder's config describes, and what its latents are multiplied by.

    Raises:
        FileNotFoundError: no such folder or config.
        ValueError: another model, or a variant that is not ported.
    """
    config = importing.read_model_config(folder, CLASS_NAME)
    levels = len(config.get('block_out_channels', ()))
    fields = {
        'block_out_channels': 'channels',
        'latent_channels': 'latent_channels',
        'layers_per_block': 'blocks',
        'norm_num_groups': 'groups',
        'scaling_factor': 'scaling',
    }
    fixed = {
        'act_fn': 'silu',
        'in_channels': 1,
        'out_channels': 1,
        'shift_factor': None,
        'latents_mean': None,
        'latents_std': None,
        'use_quant_conv': True,
        'use_post_quant_conv': True,
        'mid_block_add_attention': True,
        'down_block_types': ['DownEncoderBlock2D'] * levels,
        'up_block_types': ['UpDecoderBlock2D'] * levels,
    }
    arguments = importing.pick(config, folder, fields, fixed)
    scaling = arguments.pop('scaling')
    return Autoencoder(**arguments), scaling
