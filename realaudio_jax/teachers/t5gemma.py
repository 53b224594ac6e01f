"""The encoder of T5Gemma, the text encoder of Stable Audio 3.

It is Gemma 2 without the causal mask (Zhang et al. 2025, arXiv 2504.06225, section 3; Gemma 2:
arXiv 2408.00118, section 2), from token embeddings times sqrt(D). A layer has a norm on either side
of each of its two branches, whose learned scale is stored less one:

    a = x + norm(softmax(cap tanh(q k^T / cap)) v W_o)    with q, k, v from norm(x)              (1)
    y = a + norm((gelu(z W_g) * (z W_u)) W_d),            z = norm(a)                            (2)

Queries and keys are turned by position, keys and values may be shared by neighbouring heads, and
every other layer sees only tokens within a window, which is longer than any prompt in practice.
"""

import functools
import os
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from realaudio_jax.models.layers import RMSNorm
from realaudio_jax.teachers import importing
from realaudio_jax.teachers.layers import (
    HIDDEN,
    attend,
    mask_bias,
    rotary_table,
    rotate_halves,
    split_heads,
)
from realaudio_jax.teachers.t5 import parameter_shapes
from realaudio_jax.typing import Array, Bool, Float, Int, PyTree

CLASS_NAME = 'T5GemmaEncoderModel'
NORM_OFFSET = 1.0  # the scale of every norm is stored less one
KINDS = ('sliding_attention', 'full_attention')  # of layers, in turn
# From paths here to the original's names, see `importing.original_name`.
NAMES = (
    (r'^(?=token|norm|layer)', 'encoder/'),
    (r'/token/', '/embed_tokens/'),
    (r'/layer_(\d+)/', r'/layers/\1/'),
    (r'/(q|k|v|o)(?:uery|ey|alue|ut)/', r'/self_attn/\1_proj/'),
    (r'/(gate|up|down)/', r'/mlp/\1_proj/'),
    (r'/(before|behind)_attention/', r'/\1_self_attn_layernorm/'),
    (r'/(before|behind)_mlp/', r'/\1_feedforward_layernorm/'),
    (r'/before_', '/pre_'),
    (r'/behind_', '/post_'),
)
_dense = functools.partial(nn.Dense, use_bias=False)


class Layer(nn.Module):
    """One layer: self-attention (1) and gated feed-forward (2)."""

    heads: int
    key_heads: int
    head_width: int
    hidden: int
    scale: float
    cap: float
    epsilon: float

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'B T D'],
        rotary: tuple[Float[Array, 'T R'], Float[Array, 'T R']],
        bias: Float[Array, '#B 1 #T T'],
    ) -> Float[Array, 'B T D']:
        width = x.shape[-1]
        norm = functools.partial(RMSNorm, self.epsilon, NORM_OFFSET)
        y = norm(name='before_attention')(x)
        query, key, value = (
            split_heads(_dense(heads * self.head_width, name=name)(y), heads)
            for name, heads in (
                ('query', self.heads),
                ('key', self.key_heads),
                ('value', self.key_heads),
            )
        )
        query, key = rotate_halves(query, *rotary), rotate_halves(key, *rotary)
        repeats = self.heads // self.key_heads
        if repeats > 1:
            key, value = jnp.repeat(key, repeats, axis=1), jnp.repeat(value, repeats, axis=1)
        y = attend(query, key, value, bias, self.scale, self.cap)
        x = x + norm(name='behind_attention')(_dense(width, name='out')(y))

        y = norm(name='before_mlp')(x)
        gate = nn.gelu(_dense(self.hidden, name='gate')(y), approximate=True)
        y = _dense(width, name='down')(gate * _dense(self.hidden, name='up')(y))
        return x + norm(name='behind_mlp')(y)


class T5GemmaEncoder(nn.Module):
    """T5Gemma encoder; the defaults are t5gemma-b-b-ul2, which Stable Audio 3 uses.

    Attributes:
        vocabulary: number of token ids.
        width: D, of the states.
        head_width: F of each head; H * F need not be D.
        hidden: width inside equation (2).
        layers: how many.
        heads: H, of queries.
        key_heads: of keys and values, a divisor of H.
        query_scalar: scores are divided by its root.
        cap: of the scores.
        window: tokens before and behind that the first layer and every other after it sees.
        longest: of `rotary_table`.
        epsilon: of the norms.
    """

    vocabulary: int = 256_000
    width: int = 768
    head_width: int = 64
    hidden: int = 2048
    layers: int = 12
    heads: int = 12
    key_heads: int = 12
    query_scalar: float = 64.0
    cap: float = 50.0
    window: int = 4096
    longest: float = 10_000.0
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, ids: Int[Array, 'B T'], mask: Bool[Array, 'B T']) -> Float[Array, 'B T D']:
        """Encodes a batch of texts.

        Args:
            ids: in [0, vocabulary).
            mask: True at tokens; padding is not attended to, its own states mean nothing.
        """
        x = nn.Embed(self.vocabulary, self.width, name='token')(ids)
        x = x * jnp.asarray(self.width**0.5, x.dtype)
        rotary = rotary_table(ids.shape[1], self.head_width, self.longest)
        bias = near = mask_bias(mask)
        if self.window < ids.shape[1] - 1:
            place = np.arange(ids.shape[1])
            seen = np.abs(place[:, None] - place[None]) <= self.window
            near = near + jnp.where(seen, 0.0, HIDDEN)[None, None]
        for i in range(self.layers):
            x = Layer(
                self.heads,
                self.key_heads,
                self.head_width,
                self.hidden,
                self.query_scalar**-0.5,
                self.cap,
                self.epsilon,
                name=f'layer_{i}',
            )(x, rotary, bias if i % 2 else near)
        return RMSNorm(self.epsilon, NORM_OFFSET, name='norm')(x)


def read_encoder(folder: str | os.PathLike) -> T5GemmaEncoder:
    """The module that a folder's config describes.

    Args:
        folder: of config.json and model.safetensors.

    Raises:
        FileNotFoundError: no such folder or config.
        ValueError: another model, or a variant that is not ported.
    """
    config = importing.read_model_config(folder, CLASS_NAME).get('encoder', {})
    fields = {
        'vocab_size': 'vocabulary',
        'hidden_size': 'width',
        'head_dim': 'head_width',
        'intermediate_size': 'hidden',
        'num_hidden_layers': 'layers',
        'num_attention_heads': 'heads',
        'num_key_value_heads': 'key_heads',
        'query_pre_attn_scalar': 'query_scalar',
        'attn_logit_softcapping': 'cap',
        'sliding_window': 'window',
        'rms_norm_eps': 'epsilon',
    }
    depth = config.get('num_hidden_layers', 0)
    fixed = {
        'hidden_activation': 'gelu_pytorch_tanh',
        'attention_bias': False,
        'layer_types': [KINDS[i % 2] for i in range(depth)],
    }
    rotary = config.get('rope_parameters') or {'rope_theta': config.get('rope_theta', 10_000.0)}
    if rotary.get('rope_type', 'default') != 'default':
        fixed['rope_parameters'] = {'rope_type': 'default'}
    arguments = importing.pick(config, folder, fields, fixed)
    floats = {name: float(arguments.pop(name)) for name in ('query_scalar', 'cap', 'epsilon')}
    return T5GemmaEncoder(**arguments, **floats, longest=float(rotary['rope_theta']))


def import_t5gemma(
    folder: str | os.PathLike, dtype: Any = np.float32
) -> tuple[T5GemmaEncoder, PyTree]:
    """The encoder in a folder saved by transformers, and its parameters.

    Args:
        folder: of config.json and model.safetensors, such as `text_encoder` of Stable Audio 3.
        dtype: of the parameters; None keeps each as it is stored.

    Raises:
        FileNotFoundError, ValueError: see `read_encoder` and `importing.import_params`.
    """
    encoder = read_encoder(folder)
    return encoder, importing.import_params(folder, parameter_shapes(encoder), NAMES, dtype=dtype)
