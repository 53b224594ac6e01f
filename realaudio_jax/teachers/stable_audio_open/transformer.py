"""The diffusion transformer of Stable Audio Open, as Linen modules.

Latent frames are tokens; one more token in front carries noise level and timing. Each block is
pre-normalised (Evans et al. 2024, arXiv 2407.14358, section 3.2; Peebles & Xie 2022, arXiv
2212.09748):

    a = x + self_attention(norm(x)),    queries and keys turned by position                      (1)
    b = a + cross_attention(norm(a), context),    fewer heads of keys and values                 (2)
    y = b + (u * silu(g)) W_2,    [u, g] = norm(b) W_1                                           (3)

and the network predicts v on the cosine path. `distilled` adds, at zero, the further
inputs of a student: guidance scale and length of its step.
"""

import functools
import os
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.models.denoiser import student_embedding
from realaudio_jax.teachers import importing
from realaudio_jax.teachers.layers import attend, rotary_table, rotate_halves, split_heads
from realaudio_jax.trees import initial_shapes
from realaudio_jax.typing import Array, Float, PyTree

CLASS_NAME = 'StableAudioDiTModel'
# From paths here to the original's names, see `importing.original_name`.
NAMES = (
    (r'^block_(\d+)/', r'transformer_blocks/\1/'),
    (r'/self_norm/', '/norm1/'),
    (r'/cross_norm/', '/norm2/'),
    (r'/mlp_norm/', '/norm3/'),
    (r'/self_(query|key|value|out)/', r'/attn1/\1/'),
    (r'/cross_(query|key|value|out)/', r'/attn2/\1/'),
    (r'/(q|k|v)(?:uery|ey|alue)/', r'/to_\1/'),
    (r'/out/', '/to_out/0/'),
    (r'/mlp_in/', '/ff/net/0/proj/'),
    (r'/mlp_out/', '/ff/net/2/'),
    (r'^level_frequencies$', 'time_proj/weight'),
    (r'^level_in/', 'timestep_proj/0/'),
    (r'^level_out/', 'timestep_proj/2/'),
    (r'^timing_in/', 'global_proj/0/'),
    (r'^timing_out/', 'global_proj/2/'),
    (r'^context_in/', 'cross_attention_proj/0/'),
    (r'^context_out/', 'cross_attention_proj/2/'),
    (r'^(pre|post)process/', r'\1process_conv/'),
    (r'^embed/', 'proj_in/'),
    (r'^unembed/', 'proj_out/'),
)
_norm = functools.partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)
_dense = functools.partial(nn.Dense, use_bias=False)


class Block(nn.Module):
    """Transformer block: equations (1) to (3).

    A context may be of the last items alone. The others are unconditional: of tokens that are zero
    (2) adds zero, for it has no bias, so it is left out.
    """

    heads: int
    key_heads: int
    head_width: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'B N D'],
        context: Float[Array, 'b M W'],
        rotary: tuple[Float[Array, 'N R'], Float[Array, 'N R']],
    ) -> Float[Array, 'B N D']:
        width, inner = x.shape[-1], self.heads * self.head_width
        y = _norm(name='self_norm')(x)
        query, key, value = (
            split_heads(_dense(inner, name=f'self_{name}')(y), self.heads)
            for name in ('query', 'key', 'value')
        )
        y = attend(rotate_halves(query, *rotary), rotate_halves(key, *rotary), value)
        x = x + _dense(width, name='self_out')(y)

        untold, x = jnp.split(x, [len(x) - len(context)])
        query = _dense(inner, name='cross_query')(_norm(name='cross_norm')(x))
        narrow = self.key_heads * self.head_width
        key, value = (
            split_heads(_dense(narrow, name=f'cross_{name}')(context), self.key_heads)
            for name in ('key', 'value')
        )
        repeats = self.heads // self.key_heads  # neighbouring heads share keys and values
        key, value = jnp.repeat(key, repeats, axis=1), jnp.repeat(value, repeats, axis=1)
        y = attend(split_heads(query, self.heads), key, value)
        x = jnp.concatenate([untold, x + _dense(width, name='cross_out')(y)])

        y = nn.Dense(8 * width, name='mlp_in')(_norm(name='mlp_norm')(x))
        up, gate = jnp.split(y, 2, axis=-1)
        return x + nn.Dense(width, name='mlp_out')(up * nn.silu(gate))


class Transformer(nn.Module):
    """Diffusion transformer that predicts v; the defaults are the published model (1.06 billion).

    Attributes:
        channels: C, of the latents.
        frames: L that the model was trained on, and the most it takes.
        depth: blocks.
        heads: of queries; of keys and values in self-attention too.
        key_heads: of keys and values in cross-attention, a divisor of `heads`.
        head_width: F.
        context_width: W, of the projected conditioning tokens.
        context_input: width of the conditioning tokens.
        timing_input: width of the timing vector.
        level_features: Fourier features of the noise level.
        distilled: whether it is a student, with guidance scale and step size as inputs.
    """

    channels: int = 64
    frames: int = 1024
    depth: int = 24
    heads: int = 24
    key_heads: int = 12
    head_width: int = 64
    context_width: int = 768
    context_input: int = 768
    timing_input: int = 1536
    level_features: int = 256
    distilled: bool = False

    @nn.compact
    def __call__(
        self,
        x_t: Float[Array, 'B L C'],
        t: Float[Array, 'B'],
        context: Float[Array, 'b M I'],
        timing: Float[Array, 'B J'],
        guidance_scale: Float[Array, 'B'] | None = None,
        step_size: Float[Array, 'B'] | None = None,
    ) -> Float[Array, 'B L C']:
        """Predicts v.

        Args:
            x_t: noisy latents of unit variance.
            t: noise level in [0, 1].
            context: conditioning tokens: text, start and end; of the last b items, see `Block`.
            timing: start and end side by side.
            guidance_scale, step_size: of a student; a teacher has none.
        """
        width = self.heads * self.head_width
        frequencies = self.param(
            'level_frequencies', nn.initializers.normal(1.0), (self.level_features // 2,)
        )
        angle = 2 * jnp.pi * t[:, None] * frequencies[None]
        level = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1).astype(x_t.dtype)
        level = nn.Dense(width, name='level_out')(nn.silu(nn.Dense(width, name='level_in')(level)))
        timing = _dense(width, name='timing_out')(nn.silu(_dense(width, name='timing_in')(timing)))
        first = timing + level
        if self.distilled:
            first = first + student_embedding(width, guidance_scale, step_size)
        context = nn.silu(_dense(self.context_width, name='context_in')(context))
        context = _dense(self.context_width, name='context_out')(context)

        pointwise = functools.partial(nn.Conv, self.channels, (1,), use_bias=False)
        x = x_t + pointwise(name='preprocess')(x_t)
        x = _dense(width, name='embed')(x)
        x = jnp.concatenate([first[:, None], x], axis=1)
        rotary = rotary_table(x.shape[1], self.head_width // 2)
        # A student is trained: what the blocks computed is computed again rather than kept.
        kind = nn.remat(Block) if self.distilled else Block
        for i in range(self.depth):
            block = kind(self.heads, self.key_heads, self.head_width, name=f'block_{i}')
            x = block(x, context, rotary)
        x = _dense(self.channels, name='unembed')(x[:, 1:])
        return x + pointwise(name='postprocess')(x)


def read_transformer(folder: str | os.PathLike) -> Transformer:
    """The module that a folder's config describes.

    Raises:
        FileNotFoundError, ValueError: see `importing.read_model_config` and `importing.pick`.
    """
    config = importing.read_model_config(folder, CLASS_NAME)
    fields = {
        'in_channels': 'channels',
        'sample_size': 'frames',
        'num_layers': 'depth',
        'num_attention_heads': 'heads',
        'num_key_value_attention_heads': 'key_heads',
        'attention_head_dim': 'head_width',
        'cross_attention_dim': 'context_width',
        'cross_attention_input_dim': 'context_input',
        'global_states_input_dim': 'timing_input',
        'time_proj_dim': 'level_features',
    }
    fixed = {'out_channels': config.get('in_channels')}
    return Transformer(**importing.pick(config, folder, fields, fixed))


def parameter_shapes(model: Transformer) -> PyTree:
    """The parameters as `jax.ShapeDtypeStruct`."""

    def one(*shape):
        return jax.ShapeDtypeStruct((1, *shape), jnp.float32)

    inputs = one(2, model.channels), one(), one(3, model.context_input), one(model.timing_input)
    student = (one(), one()) if model.distilled else ()
    return initial_shapes(model, *inputs, *student)['params']


def import_transformer(
    folder: str | os.PathLike, dtype: Any = np.float32
) -> tuple[Transformer, PyTree]:
    """The transformer in a folder saved by diffusers, and its parameters.

    Args:
        folder: `transformer` of Stable Audio Open.
        dtype: of the parameters; None keeps each as it is stored.
    """
    model = read_transformer(folder)
    params = importing.import_params(folder, parameter_shapes(model), NAMES, dtype=dtype)
    return model, params
