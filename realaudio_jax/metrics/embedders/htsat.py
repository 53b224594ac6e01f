"""HTSAT, the audio tower of LAION-CLAP: a Swin transformer on log-mel frames folded into a square.

Chen et al. 2022 (arXiv 2202.00874) on Liu et al. 2021 (2103.14030). Each block attends within
windows of patches, every second one with the windows shifted by half, and each stage but the last
merges four patches into one:

    a = x + attention(norm x),    y = a + W_2 gelu(W_1 norm a).
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.metrics.embedders.frontends import BatchNorm
from realaudio_jax.typing import Array, Float

EPSILON = 1e-5  # of the norms between the stages


@dataclasses.dataclass(frozen=True)
class AudioConfig:
    """HTSAT's sizes by their names in config.json; the defaults are clap-htsat-unfused."""

    window_size: int = 8
    spec_size: int = 256
    patch_size: int = 4
    patch_stride: tuple[int, int] = (4, 4)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_attention_heads: tuple[int, ...] = (4, 8, 16, 32)
    patch_embeds_hidden_size: int = 96
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    layer_norm_eps: float = 1e-5


class WindowAttention(nn.Module):
    """Attention within square windows, with a learned bias for each relative position."""

    heads: int
    window: int
    qkv_bias: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, 'B W T D'], mask: Float[np.ndarray, 'W T T']
    ) -> Float[Array, 'B W T D']:
        batch, windows, tokens, width = x.shape
        depth = width // self.heads

        def split(name):
            y = nn.Dense(width, use_bias=self.qkv_bias, name=f'self.{name}')(x)
            y = y.reshape(batch, windows, tokens, self.heads, depth).transpose(0, 1, 3, 2, 4)
            return y.reshape(-1, tokens, depth)

        q, k, v = split('query'), split('key'), split('value')
        table = self.param(
            'self.relative_position_bias_table',
            nn.initializers.zeros,
            ((2 * self.window - 1) ** 2, self.heads),
        )
        bias = table[_relative_positions(self.window)].transpose(2, 0, 1)
        scores = jnp.matmul(q, k.transpose(0, 2, 1)) / jnp.sqrt(depth).astype(x.dtype)
        scores = scores.reshape(batch, windows, self.heads, tokens, tokens) + bias[None, None]
        scores = scores + jnp.asarray(mask, x.dtype)[None, :, None]
        out = jnp.matmul(jax.nn.softmax(scores.reshape(-1, tokens, tokens), -1), v)
        out = out.reshape(batch, windows, self.heads, tokens, depth).transpose(0, 1, 3, 2, 4)
        return nn.Dense(width, name='output.dense')(out.reshape(x.shape))


class SwinBlock(nn.Module):
    """x + attention(norm x), then x + mlp(norm x), in windows shifted by `shift` patches."""

    heads: int
    window: int
    shift: int
    mlp_ratio: float
    qkv_bias: bool
    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, 'B H W D']) -> Float[Array, 'B H W D']:
        side, width, window = x.shape[1], x.shape[-1], self.window
        shift = self.shift if side > window else 0
        y = _norm('layernorm_before', self.epsilon)(x)
        y = _windows(jnp.roll(y, (-shift, -shift), (1, 2)), window)
        attention = WindowAttention(self.heads, window, self.qkv_bias, name='attention')
        y = _unwindow(attention(y, _shift_mask(side, window, shift)), side)
        x = x + jnp.roll(y, (shift, shift), (1, 2))
        y = _norm('layernorm_after', self.epsilon)(x)
        y = nn.Dense(int(self.mlp_ratio * width), name='intermediate.dense')(y)
        y = nn.Dense(width, name='output.dense')(jax.nn.gelu(y, approximate=False))
        return x + y


class Htsat(nn.Module):
    """Log-mel frames [B N 64] to one vector [B D] a window."""

    config: AudioConfig

    @nn.compact
    def __call__(self, log_mel: Float[Array, 'B N 64']) -> Float[Array, 'B D']:
        config = self.config
        x = _to_square(BatchNorm(name='batch_norm')(log_mel), config.spec_size)
        strides = config.patch_stride
        padding = [((config.patch_size - s) // 2,) * 2 for s in strides]
        width, size = config.patch_embeds_hidden_size, (config.patch_size,) * 2
        x = nn.Conv(width, size, strides, padding, name='patch_embed.proj')(x[..., None])
        x = _norm('patch_embed.norm')(x)
        for i, (depth, heads) in enumerate(
            zip(config.depths, config.num_attention_heads, strict=True)
        ):
            for j in range(depth):
                x = SwinBlock(
                    heads,
                    config.window_size,
                    config.window_size // 2 * (j % 2),
                    config.mlp_ratio,
                    config.qkv_bias,
                    config.layer_norm_eps,
                    name=f'layers.{i}.blocks.{j}',
                )(x)
            if i + 1 < len(config.depths):
                x = jnp.concatenate(
                    [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], -1
                )
                x = _norm(f'layers.{i}.downsample.norm')(x)
                width *= 2
                reduce = nn.Dense(width, use_bias=False, name=f'layers.{i}.downsample.reduction')
                x = reduce(x)
        return _norm('norm')(x).mean((1, 2))


def _norm(name, epsilon=EPSILON):
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, name=name)


def _to_square(x, side):
    """[B N F] to [B side side]: stretched to side^2 / F frames, whose quarters are stacked."""
    ratio = side // x.shape[-1]
    frames = side * ratio
    if x.shape[1] > frames:
        raise ValueError(f'{x.shape[1]} frames do not fit a square of {side}: {frames} at most')
    if x.shape[1] < frames:
        x = jnp.einsum('nm,bmf->bnf', jnp.asarray(_bicubic(x.shape[1], frames), x.dtype), x)
    x = x.reshape(x.shape[0], ratio, side, -1)
    return x.transpose(0, 1, 3, 2).reshape(x.shape[0], side, side)


@functools.cache
def _bicubic(source: int, target: int) -> np.ndarray:
    """Cubic convolution (a = -3/4) from `source` points to `target`, ends on ends; [target source].

    Keys 1981, eq. 15; beyond an end the end's value stands.
    """
    place = np.arange(target) * (source - 1) / (target - 1)
    base, a = np.floor(place).astype(int), -0.75
    matrix = np.zeros((target, source))
    for tap in (-1, 0, 1, 2):
        d = np.abs(place - (base + tap))
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        weight = np.where(d <= 1, near, np.where(d < 2, far, 0))
        np.add.at(matrix, (np.arange(target), np.clip(base + tap, 0, source - 1)), weight)
    return matrix


@functools.cache
def _relative_positions(window: int) -> np.ndarray:
    """Row of the bias table for each pair of places in a window; [window^2 window^2]."""
    place = np.stack(np.divmod(np.arange(window * window), window))
    rows, columns = place[:, :, None] - place[:, None, :] + window - 1
    return rows * (2 * window - 1) + columns


@functools.cache
def _shift_mask(side: int, window: int, shift: int) -> np.ndarray:
    """-100 where a shifted window holds patches that are no neighbours; [windows T T]."""
    edge = np.arange(side)
    region = (edge >= side - window).astype(int) + (edge >= side - shift)
    grid = (3 * region[:, None] + region[None, :] if shift else np.zeros((side, side)))[None]
    tokens = np.asarray(_windows(grid[..., None], window))[0, :, :, 0]
    return np.where(tokens[:, None, :] == tokens[:, :, None], 0.0, -100.0)


def _windows(x, window):
    """[B H W D] to [B windows tokens D]."""
    batch, height, width, depth = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, depth)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, window * window, depth)


def _unwindow(x, side):
    """The inverse of `_windows` for a square."""
    batch, _, tokens, depth = x.shape
    window = round(tokens**0.5)
    x = x.reshape(batch, side // window, side // window, window, window, depth)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, side, side, depth)
