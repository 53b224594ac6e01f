"""The diffusion transformer of Stable Audio 3, as Linen modules.

Latent frames are tokens, behind learned memory tokens. With m the modulation, a learned vector of
each block plus one made of noise level and duration, a block is (arXiv 2605.17991, section 3;
Peebles & Xie 2022, arXiv 2212.09748, with the gate as sigmoid(1 - g)):

    [s_a, b_a, g_a, s_m, b_m, g_m] = m
    a = x + sigmoid(1 - g_a) self_attention(norm(x) (1 + s_a) + b_a)                             (1)
    b = a + cross_attention(norm(a), context) + local                                            (2)
    y = b + sigmoid(1 - g_m) W_2 (u silu(h)),    [u, h] = W_1 (norm(b) (1 + s_m) + b_m)          (3)

and the network predicts velocity on the straight path. Queries and keys are normalised, those of
self-attention then turned by position; `local` is a linear view of what is to be kept of a sound
that is filled in (absent when all is to be made).

The context is the text, a learned token at every further text position up to `text_tokens`, and the
duration. As cross-attention knows no position, all those equal tokens are one key here, its score
raised by the logarithm of their number: the same sum of exponentials with up to 255 keys fewer.
Keys and values of the context do not depend on the noise level, so `condition` makes them once for
all steps. `distilled` adds, at zero, the further inputs of a student: guidance scale and length of
its step.
"""

import functools
import os
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.models.denoiser import student_embedding
from realaudio_jax.models.layers import RMSNorm
from realaudio_jax.teachers import importing
from realaudio_jax.teachers.layers import (
    HIDDEN,
    merge_heads,
    rotary_table,
    rotate_halves,
    split_heads,
)
from realaudio_jax.teachers.stable_audio_3.layers import fourier_features, mix
from realaudio_jax.trees import initial_shapes
from realaudio_jax.typing import Array, Bool, Float, Leaf, PyTree

CLASS_NAME = 'StableAudio3DiTModel'
# From paths here to the original's names, see `importing.original_name`.
NAMES = (
    (r'^blocks_(\d+)/', r'transformer_blocks/\1/'),
    (r'/self_norm/', '/pre_norm/'),
    (r'/cross_norm/', '/cross_attend_norm/'),
    (r'/mlp_norm/', '/ff_norm/'),
    (r'/(self|cross)_(query|key)_norm/', r'/\1_attn/\2_norm/'),
    (r'/(q|k)(?:uery|ey)_norm/', r'/\1_norm/'),
    (r'/self_in/', '/self_attn/to_qkv/'),
    (r'/cross_query/', '/cross_attn/to_q/'),
    (r'/cross_context/', '/cross_attn/to_kv/'),
    (r'/(self|cross)_out/', r'/\1_attn/to_out/'),
    (r'/mlp_(in|out)/', r'/ff/proj_\1/'),
    (r'/modulation$', '/to_scale_shift_gate'),
    (r'/local_in/', '/to_local_embed/0/'),
    (r'/local_out/', '/to_local_embed/2/'),
    (r'/scale$', '/gamma'),
    (r'^level_in/', 'to_timestep_embed/0/'),
    (r'^level_out/', 'to_timestep_embed/2/'),
    (r'^context_in/', 'to_cond_embed/0/'),
    (r'^context_out/', 'to_cond_embed/2/'),
    (r'^duration_in/', 'to_global_embed/0/'),
    (r'^duration_out/', 'to_global_embed/2/'),
    (r'^modulation_in/', 'global_cond_embedder/0/'),
    (r'^modulation_out/', 'global_cond_embedder/2/'),
    (r'^padding$', 'prompt_padding_embedding'),
    (r'^(pre|post)process/', r'\1process_conv/'),
    (r'^embed/', 'proj_in/'),
    (r'^unembed/', 'proj_out/'),
)
TABLES = r'^rotary_pos_emb\.inv_freq$'  # in the original's weights, and `rotary_table` here
_dense = functools.partial(nn.Dense, use_bias=False)


@flax.struct.dataclass
class Context:
    """Conditioning tokens and vectors shared by all sampling steps.

    Attributes:
        keys: of each block, M = text tokens + 2; values: the same.
        bias: of the scores of all blocks; hides padding and counts what stands for it.
        duration: projected.
    """

    keys: tuple[Leaf['B G M F'], ...]
    values: tuple[Leaf['B H M F'], ...]
    bias: Leaf['B 1 1 M']
    duration: Leaf['B D']


class Block(nn.Module):
    """Transformer block: equations (1) to (3)."""

    heads: int
    head_width: int
    hidden: int
    differential: bool

    def setup(self):
        width, maps = self.heads * self.head_width, 1 + self.differential
        self.self_norm, self.cross_norm, self.mlp_norm = RMSNorm(), RMSNorm(), RMSNorm()
        self.self_query_norm, self.self_key_norm = RMSNorm(), RMSNorm()
        self.cross_query_norm, self.cross_key_norm = RMSNorm(), RMSNorm()
        self.self_in = _dense((2 * maps + 1) * width)
        self.cross_query = _dense(maps * width)
        self.cross_context = _dense((maps + 1) * width)
        self.self_out, self.cross_out = _dense(width), _dense(width)
        self.mlp_in, self.mlp_out = nn.Dense(2 * self.hidden), nn.Dense(width)
        self.local_in, self.local_out = nn.Dense(width), nn.Dense(width)
        self.modulation = self.param('modulation', nn.initializers.normal(0.02), (6 * width,))

    def context(
        self, tokens: Float[Array, 'B M D']
    ) -> tuple[Float[Array, 'B G M F'], Float[Array, 'B H M F']]:
        """Keys and values of the context tokens."""
        both = split_heads(self.cross_context(tokens), (2 + self.differential) * self.heads)
        key, value = both[:, : -self.heads], both[:, -self.heads :]
        return self.cross_key_norm(key), value

    def __call__(
        self,
        x: Float[Array, 'B N D'],
        modulation: Float[Array, 'B 6*D'],
        rotary: tuple[Float[Array, 'N R'], Float[Array, 'N R']],
        key: Float[Array, 'B G M F'],
        value: Float[Array, 'B H M F'],
        bias: Float[Array, 'B 1 1 M'],
        local: Float[Array, 'B L J'] | None,
    ) -> Float[Array, 'B N D']:
        modulation = (self.modulation[None] + modulation)[:, None]
        scale_a, shift_a, gate_a, scale_m, shift_m, gate_m = jnp.split(modulation, 6, axis=-1)
        maps = key.shape[1]

        y = self.self_in(self.self_norm(x) * (1 + scale_a) + shift_a)
        y = split_heads(y, 2 * maps + self.heads)
        query, own = self.self_query_norm(y[:, :maps]), self.self_key_norm(y[:, maps : 2 * maps])
        query, own = rotate_halves(query, *rotary), rotate_halves(own, *rotary)
        y = mix(query, own, y[:, 2 * maps :])
        x = x + self.self_out(merge_heads(y)) * nn.sigmoid(1 - gate_a)

        query = split_heads(self.cross_query(self.cross_norm(x)), maps)
        y = mix(self.cross_query_norm(query), key, value, bias)
        x = x + self.cross_out(merge_heads(y))
        if local is not None:
            memory = x.shape[1] - local.shape[1]
            local = self.local_out(nn.silu(self.local_in(local)))
            x = x + jnp.pad(local, [(0, 0), (memory, 0), (0, 0)])

        y = self.mlp_in(self.mlp_norm(x) * (1 + scale_m) + shift_m)
        up, gate = jnp.split(y, 2, axis=-1)
        return x + self.mlp_out(up * nn.silu(gate)) * nn.sigmoid(1 - gate_m)


class StudentEmbedding(nn.Module):
    """`student_embedding` as a module."""

    width: int

    @nn.compact
    def __call__(
        self, guidance_scale: Float[Array, 'B'], step_size: Float[Array, 'B']
    ) -> Float[Array, 'B D']:
        return student_embedding(self.width, guidance_scale, step_size)


class Transformer(nn.Module):
    """Diffusion transformer that predicts velocity; the defaults are the published small model's.

    Those are of the authors' own runtime (Stability-AI/stable-audio-3, optimized/mlx): the defaults
    of the class in diffusers are the medium model's, which is differential.

    Attributes:
        channels: C, of the latents.
        depth: blocks.
        heads: H.
        head_width: F.
        hidden: width inside equation (3).
        context_input: I, width of the text's states.
        duration_input: width of the duration vector and its token; the same.
        local_input: J, of the latents kept and the mask of where.
        level_features: Fourier features of the noise level.
        memory: tokens.
        differential: two maps for each head, see `layers.mix`.
        text_tokens: positions of a text that the original pads to.
        distilled: whether it is a student, with guidance scale and step size as inputs.
    """

    channels: int = 256
    depth: int = 20
    heads: int = 16
    head_width: int = 64
    hidden: int = 4096
    context_input: int = 768
    duration_input: int = 768
    local_input: int = 257
    level_features: int = 256
    memory: int = 64
    differential: bool = False
    text_tokens: int = 256
    distilled: bool = False

    def setup(self):
        width = self.heads * self.head_width
        self.level_in, self.level_out = nn.Dense(width), nn.Dense(width)
        self.context_in, self.context_out = _dense(width), _dense(width)
        self.duration_in, self.duration_out = _dense(width), _dense(width)
        self.modulation_in, self.modulation_out = nn.Dense(width), nn.Dense(6 * width)
        pointwise = functools.partial(nn.Conv, self.channels, (1,), use_bias=False)
        self.preprocess, self.postprocess = pointwise(), pointwise()
        self.embed, self.unembed = _dense(width), _dense(self.channels)
        small = nn.initializers.normal(0.02)
        self.padding = self.param('padding', nn.initializers.zeros, (self.context_input,))
        self.memory_tokens = self.param('memory_tokens', small, (self.memory, width))
        # A student is trained: what the blocks computed is computed again rather than kept.
        kind = nn.remat(Block) if self.distilled else Block
        self.blocks = [
            kind(self.heads, self.head_width, self.hidden, self.differential)
            for _ in range(self.depth)
        ]
        if self.distilled:
            self.student = StudentEmbedding(width)

    def __call__(
        self,
        x_t: Float[Array, 'B L C'],
        t: Float[Array, 'B'],
        text: Float[Array, 'B T I'],
        text_mask: Bool[Array, 'B T'],
        duration: Float[Array, 'B I'],
        local: Float[Array, 'B L J'] | None = None,
        guidance_scale: Float[Array, 'B'] | None = None,
        step_size: Float[Array, 'B'] | None = None,
    ) -> Float[Array, 'B L C']:
        """`predict` of `condition`."""
        context = self.condition(text, text_mask, duration)
        return self.predict(x_t, t, context, local, guidance_scale, step_size)

    def condition(
        self,
        text: Float[Array, 'B T I'],
        text_mask: Bool[Array, 'B T'],
        duration: Float[Array, 'B I'],
    ) -> Context:
        """Computes what all sampling steps share.

        Args:
            text: states of the text encoder, T <= text_tokens.
            text_mask: real tokens.
            duration: its vector, which is a token of the context too.
        """
        padding = jnp.broadcast_to(self.padding[None, None], (len(text), 1, text.shape[-1]))
        tokens = [text, padding.astype(text.dtype), duration[:, None]]
        tokens = nn.silu(self.context_in(jnp.concatenate(tokens, axis=1)))
        tokens = self.context_out(tokens)
        keys, values = zip(*(block.context(tokens) for block in self.blocks), strict=True)
        count = self.text_tokens - jnp.sum(text_mask, axis=1, keepdims=True)
        bias = [
            jnp.where(text_mask, 0.0, HIDDEN),
            jnp.where(count > 0, jnp.log(jnp.maximum(count, 1).astype(jnp.float32)), HIDDEN),
            jnp.zeros((len(text), 1)),
        ]
        bias = jnp.concatenate(bias, axis=1)[:, None, None]
        return Context(keys, values, bias, self.duration_out(nn.silu(self.duration_in(duration))))

    def predict(
        self,
        x_t: Float[Array, 'B L C'],
        t: Float[Array, 'B'],
        context: Context,
        local: Float[Array, 'B L J'] | None = None,
        guidance_scale: Float[Array, 'B'] | None = None,
        step_size: Float[Array, 'B'] | None = None,
    ) -> Float[Array, 'B L C']:
        """Predicts the velocity.

        Args:
            x_t: noisy latents of unit variance.
            t: noise level in [0, 1].
            context: of `condition`.
            local: the latents of a sound to be kept and the mask of where, each frame; None is not
                the same as all zero.
            guidance_scale, step_size: of a student; a teacher has none.
        """
        level = fourier_features(t, self.level_features).astype(x_t.dtype)
        summed = context.duration + self.level_out(nn.silu(self.level_in(level)))
        if self.distilled:
            summed = summed + self.student(guidance_scale, step_size).astype(summed.dtype)
        modulation = self.modulation_out(nn.silu(self.modulation_in(summed)))

        x = self.embed(x_t + self.preprocess(x_t))
        memory = jnp.broadcast_to(self.memory_tokens[None], (len(x), *self.memory_tokens.shape))
        x = jnp.concatenate([memory.astype(x.dtype), x], axis=1)
        rotary = rotary_table(x.shape[1], self.head_width // 2)
        for block, key, value in zip(self.blocks, context.keys, context.values, strict=True):
            x = block(x, modulation, rotary, key, value, context.bias, local)
        x = self.unembed(x[:, self.memory :])
        return x + self.postprocess(x)


def read_transformer(folder: str | os.PathLike) -> Transformer:
    """The module that a folder's config describes.

    Raises:
        FileNotFoundError, ValueError: see `importing.read_model_config` and `importing.pick`.
    """
    config = importing.read_model_config(folder, CLASS_NAME)
    fields = {
        'io_channels': 'channels',
        'embed_dim': 'width',
        'depth': 'depth',
        'num_heads': 'heads',
        'cond_token_dim': 'context_input',
        'global_cond_dim': 'duration_input',
        'local_add_cond_dim': 'local_input',
        'timestep_features_dim': 'level_features',
        'ff_mult': 'expansion',
        'num_memory_tokens': 'memory',
        'use_differential_attention': 'differential',
    }
    fixed = {'patch_size': 1, 'global_cond_dim': config.get('cond_token_dim')}
    arguments = importing.pick(config, folder, fields, fixed)
    width, expansion = arguments.pop('width'), arguments.pop('expansion')
    return Transformer(
        **arguments, head_width=width // arguments['heads'], hidden=int(width * expansion)
    )


def parameter_shapes(model: Transformer) -> PyTree:
    """The parameters as `jax.ShapeDtypeStruct`."""

    def one(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct((1, *shape), dtype)

    inputs = (
        one(2, model.channels),
        one(),
        one(2, model.context_input),
        one(2, dtype=jnp.bool_),
        one(model.duration_input),
        one(2, model.local_input),
    )
    student = (one(), one()) if model.distilled else ()
    return initial_shapes(model, *inputs, *student)['params']


def import_transformer(
    folder: str | os.PathLike, dtype: Any = np.float32
) -> tuple[Transformer, PyTree]:
    """The transformer in a folder saved by diffusers, and its parameters.

    Args:
        folder: `transformer` of Stable Audio 3.
        dtype: of the parameters; None keeps each as it is stored.
    """
    model = read_transformer(folder)
    shapes = parameter_shapes(model)
    return model, importing.import_params(folder, shapes, NAMES, ignored=TABLES, dtype=dtype)
