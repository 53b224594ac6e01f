"""The denoising U-Net of AudioLDM 2 (Liu et al. 2023, 2308.05734, section III-D), predicting noise.

A U-Net over planes of time by mel band, whose attending levels follow each residual block with
three transformers (Rombach et al. 2022, 2112.10752, section 3.3): one attends to the plane alone,
one to what the language model generated from the prompt, one to the states of FLAN-T5. `distilled`
adds, at zero, the further inputs of a student: guidance scale and length of its step.

There may be more contexts than planes: P = n B of them tell the B planes n things, as guidance
does. What comes before the first context is then computed once, and exactly so.
"""

import functools
import math
import os

import flax.linen as nn
import jax.numpy as jnp

from realaudio_jax.models.denoiser import student_embedding
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
from realaudio_jax.teachers.layers import tile_like
from realaudio_jax.typing import Array, Bool, Float

CLASS_NAME = 'AudioLDM2UNet2DConditionModel'
FIXED = {  # what is built in, by key of the config
    'act_fn': 'silu', 'class_embed_type': None, 'class_embeddings_concat': False,
    'conv_in_kernel': 3, 'conv_out_kernel': 3, 'downsample_padding': 1, 'flip_sin_to_cos': True,
    'freq_shift': 0, 'mid_block_scale_factor': 1, 'mid_block_type': 'UNetMidBlock2DCrossAttn',
    'num_class_embeds': None, 'only_cross_attention': False, 'resnet_time_scale_shift': 'default',
    'time_cond_proj_dim': None, 'time_embedding_act_fn': None, 'time_embedding_dim': None,
    'time_embedding_type': 'positional', 'timestep_post_act': None, 'upcast_attention': False,
    'use_linear_projection': False,
}  # fmt: skip

Context = tuple[Float[Array, 'P _ _'], Bool[Array, 'P _'] | None]  # states, and which are real


class Attention(nn.Module):
    """Cross-attention to a context, or self-attention without one."""

    heads: int

    @nn.compact
    def __call__(
        self, x: Float[Array, 'B Q D'], context: Context | None = None
    ) -> Float[Array, 'B Q D']:
        states, mask = (x, None) if context is None else context
        width = x.shape[-1]
        query = nn.Dense(width, use_bias=False, name='to_q')(x)
        key = nn.Dense(width, use_bias=False, name='to_k')(states)
        value = nn.Dense(width, use_bias=False, name='to_v')(states)
        return nn.Dense(width, name='to_out_0')(attend(query, key, value, self.heads, mask))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention (self-attention again without a context), gated MLP."""

    heads: int

    @nn.compact
    def __call__(
        self, x: Float[Array, 'B Q D'], context: Context | None = None
    ) -> Float[Array, 'B Q D']:
        width = x.shape[-1]
        x = x + Attention(self.heads, name='attn1')(_norm('norm1')(x))
        x = x + Attention(self.heads, name='attn2')(_norm('norm2')(x), context)
        hidden = nn.Dense(8 * width, name='ff_in')(_norm('norm3')(x))
        value, gate = jnp.split(hidden, 2, axis=-1)
        # GEGLU: Shazeer 2020 (2002.05202), eq. 6
        return x + nn.Dense(width, name='ff_out')(value * nn.gelu(gate, approximate=False))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the cells of a plane, with a residual connection.

    Planes that see a context become as many as there are contexts.
    """

    heads: int
    depth: int = 1
    groups: int = 32

    @nn.compact
    def __call__(
        self, x: Float[Array, 'B N M C'], context: Context | None = None
    ) -> Float[Array, '_ N M C']:
        if context is not None:
            x = tile_like(x, context[0])
        batch, *_, channels = x.shape
        y = CellConv(channels, name='proj_in')(group_norm(self.groups, 1e-6, 'norm')(x))
        y = y.reshape(batch, -1, channels)
        for i in range(self.depth):
            y = TransformerBlock(self.heads, name=f'transformer_blocks_{i}')(y, context)
        return x + CellConv(channels, name='proj_out')(y.reshape(x.shape))


class Stage(nn.Module):
    """Residual blocks of one level, each followed by that level's transformers.

    Attributes:
        features: channels.
        blocks: how many residual blocks.
        sees: what each transformer attends to besides the plane: None for nothing, 0 for what the
            language model generated, 1 for the states of the text; () for a level that does not
            attend.
        heads, depth: of the transformers.
        groups, epsilon: of the norms.
        resample: 'down', 'up' or None: what follows.
        bare: residual blocks at the end that no transformers follow (the middle has one).
        again: computes its blocks again for the gradient rather than keep what they computed.
    """

    features: int
    blocks: int
    sees: tuple[int | None, ...]
    heads: int
    depth: int
    groups: int
    epsilon: float
    resample: str | None = None
    bare: int = 0
    again: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'B N M C'],
        level: Float[Array, '_ D'],
        contexts: tuple[Context, Context],
        skips: list[Array] | None = None,
        size: tuple[int, int] | None = None,
    ) -> tuple[Float[Array, '_ N2 M2 F'], list[Array]]:
        """The output plane of the level, and the planes for the skip connections.

        Args:
            x: the plane.
            level: embedding of the noise level; of as many items as x, or of fewer, see
                `tile_like`.
            contexts: what the transformers may attend to.
            skips: planes to join, the last first; None on the way down.
            size: of the plane after going up.
        """
        kinds = ResnetBlock, SpatialTransformer
        residual, attending = map(nn.remat, kinds) if self.again else kinds
        passed = []
        for i in range(self.blocks):
            if skips is not None:
                x = jnp.concatenate([x, tile_like(skips[-1 - i], x)], axis=-1)
            block = residual(self.features, self.groups, self.epsilon, name=f'resnets_{i}')
            x = block(x, tile_like(level, x))
            for j, which in enumerate(self.sees if i < self.blocks - self.bare else ()):
                x = attending(
                    self.heads,
                    self.depth,
                    self.groups,
                    name=f'attentions_{i * len(self.sees) + j}',
                )(x, None if which is None else contexts[which])
            passed.append(x)
        if self.resample == 'down':
            x = Downsample(name='downsamplers_0')(x)
            passed.append(x)
        elif self.resample == 'up':
            x = Upsample(name='upsamplers_0')(x, size)
        return x, passed


class UNet(nn.Module):
    """U-Net that predicts noise; the defaults are AudioLDM 2 (base).

    Attributes:
        latent_channels: of a cell, in and out.
        channels: of each level, from the full plane inwards.
        attends: whether a level attends.
        heads: of each level's attention.
        sees: of each level, see `Stage`.
        blocks: residual blocks of a level on the way down; one more on the way up.
        depth: blocks of each transformer.
        groups, epsilon: of the norms.
        distilled: whether it is a student, with guidance scale and step size as inputs.
    """

    latent_channels: int = 8
    channels: tuple[int, ...] = (128, 256, 384, 640)
    attends: tuple[bool, ...] = (False, True, True, True)
    heads: tuple[int, ...] = (8, 8, 8, 8)
    sees: tuple[tuple[int | None, ...], ...] = ((None, 0, 1),) * 4
    blocks: int = 2
    depth: int = 1
    groups: int = 32
    epsilon: float = 1e-5
    distilled: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'B N M C'],
        step: Float[Array, 'B'],
        generated: Float[Array, 'P G E'],
        text: Float[Array, 'P T W'],
        text_mask: Bool[Array, 'P T'],
        guidance_scale: Float[Array, 'B'] | None = None,
        step_size: Float[Array, 'B'] | None = None,
    ) -> Float[Array, 'P N M C']:
        """Predicts the noise.

        Args:
            x: noisy latents; M divisible by 2 for each level but the last, N any length.
            step: of the DDPM table, from 0; fractions are allowed.
            generated: states that the language model made of the prompts: P = n B, see the module.
            text: states of FLAN-T5; text_mask: real tokens.
            guidance_scale, step_size: of a student; a teacher has none.
        """
        contexts = ((generated, None), (text, text_mask))
        width = self.channels[0]
        level = nn.Dense(4 * width, name='time_linear_1')(
            step_features(step, width).astype(x.dtype)
        )
        level = nn.Dense(4 * width, name='time_linear_2')(nn.silu(level))
        if self.distilled:
            further = student_embedding(4 * width, guidance_scale, step_size)
            level = level + further.astype(level.dtype)

        def stage(i, **kwargs):
            sees = self.sees[i] if self.attends[i] else ()
            return functools.partial(
                Stage,
                self.channels[i],
                heads=self.heads[i],
                depth=self.depth,
                groups=self.groups,
                epsilon=self.epsilon,
                again=self.distilled,  # a student is trained
                **{'sees': sees, **kwargs},
            )

        last = len(self.channels) - 1
        x = conv(width, 'conv_in')(x)
        skips = [x]
        for i in range(last + 1):
            down = stage(i, blocks=self.blocks, resample='down' if i < last else None)
            x, passed = down(name=f'down_blocks_{i}')(x, level, contexts)
            skips += passed
        middle = stage(last, blocks=2, bare=1, sees=self.sees[last])
        x, _ = middle(name='mid_block')(x, level, contexts)
        for i in range(last, -1, -1):
            taken, skips = skips[-self.blocks - 1 :], skips[: -self.blocks - 1]
            size = skips[-1].shape[1:3] if i else None
            up = stage(i, blocks=self.blocks + 1, resample='up' if i else None)
            x, _ = up(name=f'up_blocks_{last - i}')(x, level, contexts, taken, size)
        x = nn.silu(group_norm(self.groups, self.epsilon, 'conv_norm_out')(x))
        return conv(self.latent_channels, 'conv_out')(tile_like(x, generated))


def step_features(step: Float[Array, 'B'], width: int) -> Float[Array, 'B D']:
    """[cos(n f), sin(n f)], f from 1 down to nearly 1 / 10000 in even ratios (1706.03762, 3.5)."""
    half = width // 2
    frequency = jnp.exp(-math.log(10_000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    angle = step.astype(jnp.float32)[:, None] * frequency[None]
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name)


def read_unet(folder: str | os.PathLike) -> tuple[UNet, int]:
    """The module that a folder's config describes, and the latent frames it was trained on.

    Raises:
        FileNotFoundError: no such folder or config.
        ValueError: another model, or a variant that is not ported.
    """
    config = importing.read_model_config(folder, CLASS_NAME)
    down = config.get('down_block_types', ())
    levels = len(config.get('block_out_channels', ()))
    attends = tuple(name == 'CrossAttnDownBlock2D' for name in down)
    mirrored = ['CrossAttnUpBlock2D' if a else 'UpBlock2D' for a in reversed(attends)]
    seen = config.get('cross_attention_dim')
    if not (
        set(down) <= {'DownBlock2D', 'CrossAttnDownBlock2D'}
        and list(config.get('up_block_types', ())) == mirrored
        and isinstance(seen, list)
        and len(down) == len(seen) == levels
        and all(isinstance(level, list) for level in seen)
    ):
        raise ValueError(
            f'the config of {folder} is of an older layout or another variant: its levels '
            f'{down}, {config.get("up_block_types")} and {seen} are not those of AudioLDM 2; '
            'this port covers the published model only'
        )
    fields = {
        'in_channels': 'latent_channels',
        'block_out_channels': 'channels',
        'attention_head_dim': 'heads',
        'layers_per_block': 'blocks',
        'transformer_layers_per_block': 'depth',
        'norm_num_groups': 'groups',
        'norm_eps': 'epsilon',
        'sample_size': 'frames',
    }
    fixed = FIXED | {'out_channels': config.get('in_channels')}
    arguments = importing.pick(config, folder, fields, fixed)
    frames = arguments.pop('frames')
    if isinstance(arguments['heads'], int):  # the config calls the count of heads their width
        arguments['heads'] = (arguments['heads'],) * levels
    sees = tuple(
        tuple(None if width is None else int(j > 1) for j, width in enumerate(level))
        for level in seen
    )
    return UNet(attends=attends, sees=sees, **arguments), frames
