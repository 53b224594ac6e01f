"""RoBERTa, the text tower of LAION-CLAP, with CLAP's projection to the space it shares with sound.

Layers are those of BERT (Liu et al. 2019, arXiv 1907.11692, section 2), post-normalised:

    a = norm(x + softmax(q k^T / sqrt(D / H)) v W_o)                                            (1)
    y = norm(a + gelu(a W_1) W_2)                                                               (2)

Positions count real tokens from `padding` + 1 up, so padding changes no state but its own. The
projection is two layers upon tanh(W y_0) of the first token, scaled to unit length (Wu et al. 2022,
arXiv 2211.06687, section 3.2).
"""

import functools
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from realaudio_jax.teachers import importing
from realaudio_jax.teachers.layers import attend, mask_bias, split_heads
from realaudio_jax.typing import Array, Bool, Float, Int

CLASS_NAME = 'ClapModel'
# From paths here to the names in a published ClapModel, see `teachers.importing.original_name`.
NAMES = (
    (r'^(embeddings|pooler|layer_\d+)/', r'text_model/\1/'),
    (r'/layer_(\d+)/(query|key|value)/', r'/encoder/layer/\1/attention/self/\2/'),
    (r'/layer_(\d+)/attention_(dense|LayerNorm)/', r'/encoder/layer/\1/attention/output/\2/'),
    (r'/layer_(\d+)/output_', r'/encoder/layer/\1/output/'),
    (r'/layer_(\d+)/intermediate/', r'/encoder/layer/\1/intermediate/dense/'),
    (r'/pooler/', '/pooler/dense/'),
)
# Of a ClapModel: the other tower, its scales, and tables of whole numbers.
IGNORED = r'^(audio_model|audio_projection)\.|^logit_scale_|embeddings\.(position|token_type)_ids$'


class Layer(nn.Module):
    """One transformer layer: attention (1) and feed-forward (2), each with residual and norm."""

    heads: int
    hidden: int
    epsilon: float

    @nn.compact
    def __call__(
        self, x: Float[Array, 'B T D'], bias: Float[Array, 'B 1 1 T']
    ) -> Float[Array, 'B T D']:
        width = x.shape[-1]
        query, key, value = (
            split_heads(nn.Dense(width, name=name)(x), self.heads)
            for name in ('query', 'key', 'value')
        )
        y = nn.Dense(width, name='attention_dense')(attend(query, key, value, bias))
        x = _norm('attention_LayerNorm', self.epsilon)(x + y)
        y = nn.gelu(nn.Dense(self.hidden, name='intermediate')(x), approximate=False)
        y = nn.Dense(width, name='output_dense')(y)
        return _norm('output_LayerNorm', self.epsilon)(x + y)


class Embeddings(nn.Module):
    """Sum of token, position and segment embeddings, normalised."""

    vocabulary: int
    positions: int
    width: int
    padding: int
    epsilon: float

    @nn.compact
    def __call__(self, ids: Int[Array, 'B T'], mask: Bool[Array, 'B T']) -> Float[Array, 'B T D']:
        embed = functools.partial(nn.Embed, features=self.width)
        place = jnp.where(mask, jnp.cumsum(mask, axis=1), 0) + self.padding
        x = (
            embed(self.vocabulary, name='word_embeddings')(ids)
            + embed(1, name='token_type_embeddings')(jnp.zeros_like(ids))
            + embed(self.positions, name='position_embeddings')(place)
        )
        return _norm('LayerNorm', self.epsilon)(x)


class Projection(nn.Module):
    """CLAP's projection into the shared space: W_2 relu(W_1 x), scaled to unit length."""

    dimension: int

    @nn.compact
    def __call__(self, x: Float[Array, 'B D']) -> Float[Array, 'B E']:
        x = nn.relu(nn.Dense(self.dimension, name='linear1')(x))
        x = nn.Dense(self.dimension, name='linear2')(x)
        length = jnp.linalg.norm(x.astype(jnp.float32), axis=-1, keepdims=True)
        return x / jnp.maximum(length, 1e-12).astype(x.dtype)


class ClapText(nn.Module):
    """Token ids to CLAP's embedding; the defaults are RoBERTa-base with 512 dimensions.

    Attributes:
        vocabulary: number of token ids.
        positions: rows of the table; `padding` + 1 of them are not for tokens.
        width, hidden, layers, heads: of the layers.
        dimension: E, of the embedding.
        padding: id of the padding token.
        epsilon: of the norms.
    """

    vocabulary: int = 50_265
    positions: int = 514
    width: int = 768
    hidden: int = 3072
    layers: int = 12
    heads: int = 12
    dimension: int = 512
    padding: int = 1
    epsilon: float = 1e-12

    @nn.compact
    def __call__(self, ids: Int[Array, 'B T'], mask: Bool[Array, 'B T']) -> Float[Array, 'B E']:
        """The embedding of each text, of unit length.

        Args:
            ids: [B, T] in [0, vocabulary), beginning with <s>.
            mask: [B, T], True at tokens, False at padding, which follows them.

        Raises:
            ValueError: more tokens than positions.
        """
        if ids.shape[1] > self.positions - self.padding - 1:
            raise ValueError(
                f'{ids.shape[1]} tokens given, {self.positions - self.padding - 1} at most: '
                'shorten the text'
            )
        x = Embeddings(
            self.vocabulary,
            self.positions,
            self.width,
            self.padding,
            self.epsilon,
            name='embeddings',
        )(ids, mask)
        bias = mask_bias(mask)
        for i in range(self.layers):
            x = Layer(self.heads, self.hidden, self.epsilon, name=f'layer_{i}')(x, bias)
        x = jnp.tanh(nn.Dense(self.width, name='pooler')(x[:, 0]))
        return Projection(self.dimension, name='text_projection')(x)


def read_clap_text(folder: str | os.PathLike) -> ClapText:
    """The text tower that the config of a whole CLAP describes.

    Raises:
        FileNotFoundError: no such folder or config.
        ValueError: another model, or a variant that is not ported.
    """
    return clap_text(importing.read_model_config(folder, CLASS_NAME), folder)


def clap_text(config: Mapping[str, Any], source: str | os.PathLike) -> ClapText:
    """The text tower of a whole CLAP's config; what the config leaves out has its default.

    Args:
        config: as its JSON reads.
        source: named in the error.

    Raises:
        ValueError: a variant that is not ported.
    """
    fields = {
        'vocab_size': 'vocabulary',
        'max_position_embeddings': 'positions',
        'hidden_size': 'width',
        'intermediate_size': 'hidden',
        'num_hidden_layers': 'layers',
        'num_attention_heads': 'heads',
        'projection_dim': 'dimension',
        'pad_token_id': 'padding',
        'layer_norm_eps': 'epsilon',
    }
    fixed = {'hidden_act': 'gelu', 'projection_hidden_act': 'relu', 'type_vocab_size': 1}
    defaults = {key: getattr(ClapText, argument) for key, argument in fields.items()}
    shared = {k: config[k] for k in ('projection_dim', 'projection_hidden_act') if k in config}
    given = defaults | config.get('text_config', {}) | shared
    return ClapText(**importing.pick(given, source, fields, fixed))


def _norm(name: str, epsilon: float) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, name=name)
