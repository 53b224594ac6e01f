"""SAME, the autoencoder of Stable Audio 3: stereo samples to latents and back, by transformers.

Samples are cut into patches, which are tokens. A level of the encoder puts a learned token behind
every `stride` tokens, lets all of them attend to those near them, and keeps the learned ones; a
level of the decoder puts `stride` learned tokens behind each and keeps those (arXiv 2605.17991,
section 2). A layer is

    a = x + attention(d(x)),    d(x) = gamma tanh(alpha x) + beta                                (1)
    y = a + W_2 (u f(g)),       [u, g] = W_1 d(a),    f = silu or sin(pi g)                      (2)

with d in place of a norm (Zhu et al. 2025, arXiv 2503.10622, algorithm 1), for queries and keys
too, and differential attention over a window of one latent's tokens before and one behind.

This is the model as diffusers has it. The authors' own runtime attends within chunks, moved by half
a chunk at every other layer, where the small model has no window in its config.
"""

import functools
import math
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.teachers import importing
from realaudio_jax.teachers.layers import merge_heads, rotary_table, rotate_halves, split_heads
from realaudio_jax.teachers.stable_audio_3.layers import mix_near
from realaudio_jax.trees import initial_shapes
from realaudio_jax.typing import Array, Float, PyTree

CLASS_NAME = 'AutoencoderSAME'
# From paths here to the original's names, see `importing.original_name`.
NAMES = (
    (r'^(en|de)coder/level_(\d+)/', r'\1coder/blocks/\2/'),
    (r'/layer_(\d+)/', r'/transformers/\1/'),
    (r'/(attention|mlp)_tanh/', r'/norm_\1/'),
    (r'/norm_attention/', '/norm_attn/'),
    (r'/norm_mlp/', '/norm_ff/'),
    (r'/(query|key)_tanh/', r'/attn/\1_norm/'),
    (r'/attn/(q|k)(?:uery|ey)_norm/', r'/attn/\1_norm/'),
    (r'/attention_in/', '/attn/to_qkv/'),
    (r'/attention_out/', '/attn/to_out/'),
    (r'/mlp_(in|out)/', r'/ff/proj_\1/'),
    (r'/token$', '/new_tokens'),
    (r'/direction$', '/weight_v'),
    (r'/length$', '/weight_g'),
    # with a dot, as a last name 'scale' would be renamed
    (r'^latent_(scale|bias)$', r'bottleneck.\1'),
    (r'^latent_std$', 'bottleneck/running_std'),
)
_dense = functools.partial(nn.Dense, use_bias=False)


class Tanh(nn.Module):
    """Dynamic tanh, d(x) of equation (1), in place of a norm."""

    @nn.compact
    def __call__(self, x: Float[Array, '*b D']) -> Float[Array, '*b D']:
        alpha = self.param('alpha', nn.initializers.constant(4.0), (1,))
        gamma = self.param('gamma', nn.initializers.ones, (x.shape[-1],))
        beta = self.param('beta', nn.initializers.zeros, (x.shape[-1],))
        alpha, gamma, beta = (
            jnp.expand_dims(p, tuple(range(x.ndim - 1))) for p in (alpha, gamma, beta)
        )
        return gamma * jnp.tanh(alpha * x) + beta


class Layer(nn.Module):
    """One transformer layer: equations (1) and (2).

    Attributes:
        head_width: F.
        expansion: width inside (2) over D.
        differential: two maps for each head, see `layers.mix`.
        reach: tokens that are seen before and behind.
        sine: is f of (2) the sine.
    """

    head_width: int
    expansion: int
    differential: bool
    reach: int
    sine: bool

    @nn.compact
    def __call__(self, x: Float[Array, 'B N D']) -> Float[Array, 'B N D']:
        width = x.shape[-1]
        head_width = min(self.head_width, width)
        heads, maps = width // head_width, (1 + self.differential) * (width // head_width)
        y = Tanh(name='attention_tanh')(x)
        y = split_heads(
            _dense((2 * maps + heads) * head_width, name='attention_in')(y), 2 * maps + heads
        )
        rotary = rotary_table(x.shape[1], head_width // 2)
        query = rotate_halves(Tanh(name='query_tanh')(y[:, :maps]), *rotary)
        key = rotate_halves(Tanh(name='key_tanh')(y[:, maps : 2 * maps]), *rotary)
        y = merge_heads(mix_near(query, key, y[:, 2 * maps :], self.reach))
        x = x + _dense(width, name='attention_out')(y)

        y = nn.Dense(2 * self.expansion * width, name='mlp_in')(Tanh(name='mlp_tanh')(x))
        up, gate = jnp.split(y, 2, axis=-1)
        gate = jnp.sin(math.pi * gate) if self.sine else nn.silu(gate)
        return x + nn.Dense(width, name='mlp_out')(up * gate)


class NormedDense(nn.Module):
    """A linear layer whose kernel is a direction and a length for each output.

    Source: Salimans & Kingma 2016 (arXiv 1602.07868), eq. 2.
    """

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, 'B N D']) -> Float[Array, 'B N F']:
        shape = (x.shape[-1], self.features)
        direction = self.param('direction', nn.initializers.lecun_normal(), shape)
        length = self.param('length', nn.initializers.ones, (self.features,))
        bias = self.param('bias', nn.initializers.zeros, (self.features,))
        norm = jnp.sqrt(jnp.sum(jnp.square(direction), axis=0))
        return x @ (direction * (length / norm)[None]) + bias[None, None]


class Level(nn.Module):
    """Downsamples or upsamples tokens by `stride`.

    Attributes:
        features: of the result.
        stride: tokens of the finer side for one of the coarser.
        up: does it make more tokens.
        window: latents seen before and behind.
        depth: layers.
        sines: how many the config counts as having the sine; the last of them are one fewer.
        layer: of `Layer`, what is the same in all.
    """

    features: int
    stride: int
    up: bool
    window: int
    depth: int
    sines: int
    layer: Mapping[str, Any]

    @nn.compact
    def __call__(self, x: Float[Array, 'B N D']) -> Float[Array, 'B M F']:
        old, new = (1, self.stride) if self.up else (self.stride, 1)
        x = jnp.pad(x, [(0, 0), (0, -x.shape[1] % old), (0, 0)])
        if not self.up and x.shape[-1] != self.features:
            x = NormedDense(self.features, name='mapping')(x)
        batch, count, width = len(x), x.shape[1] // old, x.shape[-1]
        token = self.param('token', nn.initializers.normal(1e-5), (width,)).astype(x.dtype)
        x = x.reshape(batch, count, old, width)
        token = jnp.broadcast_to(token[None, None, None], (batch, count, new, width))
        x = jnp.concatenate([x, token], axis=2).reshape(batch, -1, width)
        for i in range(self.depth):
            x = Layer(
                **self.layer,
                reach=self.window * (self.stride + 1),
                sine=self.depth - i < self.sines,
                name=f'layer_{i}',
            )(x)
        x = x.reshape(batch, count, -1, width)[:, :, old:].reshape(batch, -1, width)
        if self.up and width != self.features:
            x = NormedDense(self.features, name='mapping')(x)
        return x


class Encoder(nn.Module):
    """Encodes patches to latents, before normalisation."""

    channels: int
    levels: tuple[Mapping[str, Any], ...]

    @nn.compact
    def __call__(self, x: Float[Array, 'B N P']) -> Float[Array, 'B L C']:
        for i, level in enumerate(self.levels):
            x = Level(**level, up=False, name=f'level_{i}')(x)
        return nn.Dense(self.channels, name='proj')(x)


class Decoder(nn.Module):
    """Decodes latents to patches."""

    width: int
    levels: tuple[Mapping[str, Any], ...]

    @nn.compact
    def __call__(self, x: Float[Array, 'B L C']) -> Float[Array, 'B N P']:
        x = nn.Dense(self.width, name='proj')(x)
        for i, level in enumerate(self.levels):
            x = Level(**level, up=True, name=f'level_{i}')(x)
        return x


class SAME(nn.Module):
    """The autoencoder; the defaults are SAME-S, the small one, 107 million parameters.

    Attributes:
        channels: C, of the latents.
        audio_channels: A.
        sample_rate: Hz.
        patch: samples of a token.
        width: features of a level for a multiple of 1.
        multiples, strides, depths: of each level of the encoder; the decoder mirrors them.
        window: latents seen before and behind.
        head_width, expansion, differential: see `Layer`.
        encoder_sines, decoder_sines: see `Level`, one for all levels or one for each.
    """

    channels: int = 256
    audio_channels: int = 2
    sample_rate: int = 44_100
    patch: int = 256
    width: int = 128
    multiples: tuple[int, ...] = (6,)
    strides: tuple[int, ...] = (16,)
    depths: tuple[int, ...] = (6,)
    window: int = 1
    head_width: int = 64
    expansion: int = 3
    differential: bool = True
    encoder_sines: tuple[int, ...] = (0,)
    decoder_sines: tuple[int, ...] = (0,)

    @property
    def samples_per_latent(self) -> int:
        """Samples of one latent frame."""
        return self.patch * math.prod(self.strides)

    def setup(self):
        widths = [self.audio_channels * self.patch, *(self.width * m for m in self.multiples)]
        self.encoder = Encoder(self.channels, self._levels(widths[1:], self.encoder_sines))
        decoder = self._levels(widths[:-1], self.decoder_sines)
        self.decoder = Decoder(widths[-1], tuple(reversed(decoder)))
        self.latent_scale = self.param('latent_scale', nn.initializers.ones, (self.channels,))
        self.latent_bias = self.param('latent_bias', nn.initializers.zeros, (self.channels,))
        self.latent_std = self.param('latent_std', nn.initializers.ones, (1,))

    def _levels(self, widths: list[int], sines: tuple[int, ...]) -> tuple[Mapping[str, Any], ...]:
        layer = {name: getattr(self, name) for name in ('head_width', 'expansion', 'differential')}
        sines = sines * (len(self.strides) if len(sines) == 1 else 1)
        return tuple(
            {
                'features': features,
                'stride': stride,
                'window': self.window,
                'depth': depth,
                'sines': count,
                'layer': layer,
            }
            for features, stride, depth, count in zip(
                widths, self.strides, self.depths, sines, strict=True
            )
        )

    def __call__(self, audio: Float[Array, 'B S A']) -> Float[Array, 'B R A']:
        """Encodes and decodes; for initialisation."""
        return self.decode(self.encode(audio))

    def encode(self, audio: Float[Array, 'B S A']) -> Float[Array, 'B L C']:
        """Encodes sound to latents of about unit variance.

        Args:
            audio: at `sample_rate`; zeros fill the last latent frame.
        """
        audio = jnp.pad(audio, [(0, 0), (0, -audio.shape[1] % self.patch), (0, 0)])
        x = audio.reshape(len(audio), -1, self.patch, self.audio_channels)
        x = jnp.swapaxes(x, 2, 3).reshape(len(audio), x.shape[1], -1)
        x = self.encoder(x) * self.latent_scale[None, None] + self.latent_bias[None, None]
        return x / self.latent_std[None, None]

    def decode(self, latents: Float[Array, 'B L C']) -> Float[Array, 'B S A']:
        """Decodes latents to sound."""
        x = self.decoder(latents * self.latent_std[None, None])
        x = x.reshape(*x.shape[:2], self.audio_channels, self.patch)
        return jnp.swapaxes(x, 2, 3).reshape(len(x), -1, self.audio_channels)


def read_autoencoder(folder: str | os.PathLike) -> SAME:
    """The module that a folder's config describes.

    Raises:
        FileNotFoundError, ValueError: see `importing.read_model_config` and `importing.pick`.
    """
    config = importing.read_model_config(folder, CLASS_NAME)
    fields = {
        'audio_channels': 'audio_channels',
        'patch_size': 'patch',
        'encoder_channels': 'width',
        'encoder_c_mults': 'multiples',
        'encoder_strides': 'strides',
        'encoder_transformer_depths': 'depths',
        'latent_dim': 'channels',
        'use_differential_attention': 'differential',
        'dim_heads': 'head_width',
        'ff_mult': 'expansion',
        'sliding_window': 'window',
        'encoder_sinusoidal_blocks': 'encoder_sines',
        'decoder_sinusoidal_blocks': 'decoder_sines',
        'sampling_rate': 'sample_rate',
    }
    return SAME(**importing.pick(config, folder, fields, {}))


def parameter_shapes(model: SAME) -> PyTree:
    """Parameter shapes as `jax.ShapeDtypeStruct`: a template for strict loading."""
    shape = (1, 2 * model.samples_per_latent, model.audio_channels)
    audio = jax.ShapeDtypeStruct(shape, jnp.float32)
    return initial_shapes(model, audio)['params']


def layout(path: str, array: np.ndarray) -> np.ndarray:
    """Directions [out, in, 1] to [in, out]; what has axes of one besides is flat here."""
    if path.endswith('/direction'):
        return array[..., 0].T
    if path.endswith('/kernel'):
        return importing.torch_layout(path, array)
    return array.reshape(-1)


def import_autoencoder(folder: str | os.PathLike, dtype: Any = np.float32) -> tuple[SAME, PyTree]:
    """The autoencoder in a folder saved by diffusers, and its parameters.

    Args:
        folder: `vae` of Stable Audio 3.
        dtype: of the parameters; None keeps each as it is stored.
    """
    model = read_autoencoder(folder)
    shapes = parameter_shapes(model)
    return model, importing.import_params(folder, shapes, NAMES, layout=layout, dtype=dtype)
