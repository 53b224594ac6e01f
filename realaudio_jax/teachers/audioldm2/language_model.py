"""GPT-2, which extends AudioLDM 2's projected prompt by a few states (2308.05734, III-C).

No tokens are involved: the state at the last place is the next input. Layers are pre-normalised and
causal (Radford et al. 2019, section 2.3):

    a = x + softmax(q k^T / sqrt(D / H)) v W_o,     q, k, v from norm(x)
    y = a + gelu(norm(a) W_1) W_2,                  the gelu of tanh

Keys and values of places already seen are an explicit argument and result. Difference from the
original: the table of token embeddings, which is never read here, is left out.
"""

import os

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax

from realaudio_jax.teachers import importing
from realaudio_jax.teachers.layers import HIDDEN, attend, split_heads
from realaudio_jax.typing import Array, Bool, Float, Int, PyTree

CLASS_NAMES = ('GPT2Model', 'GPT2LMHeadModel')  # as published, and as current libraries save it
NAMES = ((r'^h_(\d+)/', r'h/\1/'),)
IGNORED = r'(^|\.)wte\.weight$|^lm_head\.weight$|\.attn\.(masked_)?bias$'

Cache = Float[Array, 'layers 2 B H K F']  # keys and values


class Attention(nn.Module):
    """Self-attention with a key-value cache; `bias` hides what a query must not see."""

    heads: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'B Q D'],
        bias: Float[Array, 'B 1 Q K'],
        cache: Float[Array, '2 B H K F'],
        at: Int[Array, ''] | int,
    ) -> tuple[Float[Array, 'B Q D'], Float[Array, '2 B H K F']]:
        width = x.shape[-1]
        qkv = nn.Dense(3 * width, name='c_attn')(x)
        query, key, value = (split_heads(a, self.heads) for a in jnp.split(qkv, 3, axis=-1))
        cache = lax.dynamic_update_slice(cache, jnp.stack([key, value]), (0, 0, 0, at, 0))
        return nn.Dense(width, name='c_proj')(attend(query, *cache, bias)), cache


class Mlp(nn.Module):
    """Feed-forward part of a block: two linear layers."""

    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, 'B Q D']) -> Float[Array, 'B Q D']:
        y = nn.gelu(nn.Dense(self.hidden, name='c_fc')(x), approximate=True)
        return nn.Dense(x.shape[-1], name='c_proj')(y)


class Block(nn.Module):
    """One GPT-2 block: equations (1) and (2) of the module."""

    heads: int
    hidden: int
    epsilon: float

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'B Q D'],
        bias: Float[Array, 'B 1 Q K'],
        cache: Float[Array, '2 B H K F'],
        at: Int[Array, ''] | int,
    ) -> tuple[Float[Array, 'B Q D'], Float[Array, '2 B H K F']]:
        y = _norm('ln_1', self.epsilon)(x)
        y, cache = Attention(self.heads, name='attn')(y, bias, cache, at)
        x = x + y
        return x + Mlp(self.hidden, name='mlp')(_norm('ln_2', self.epsilon)(x)), cache


class LanguageModel(nn.Module):
    """GPT-2 without token embeddings; the defaults are GPT-2 (base).

    Attributes:
        width: D; heads, layers, hidden: of the layers.
        positions: the most places of a sequence.
        epsilon: of the norms.
    """

    width: int = 768
    heads: int = 12
    layers: int = 12
    hidden: int = 3072
    positions: int = 1024
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'B Q D'],
        positions: Int[Array, 'B Q'],
        bias: Float[Array, 'B 1 Q K'],
        cache: Cache,
        at: Int[Array, ''] | int = 0,
    ) -> tuple[Float[Array, 'B Q D'], Cache]:
        """Final states and the updated key-value cache.

        Args:
            x: inputs.
            positions: of each.
            bias: added to the scores of every query with every place in the cache.
            cache: what was seen before.
            at: where in the cache these places belong.
        """
        x = x + nn.Embed(self.positions, self.width, name='wpe')(positions)
        seen = []
        for i in range(self.layers):
            block = Block(self.heads, self.hidden, self.epsilon, name=f'h_{i}')
            x, kept = block(x, bias, cache[i], at)
            seen.append(kept)
        return _norm('ln_f', self.epsilon)(x), jnp.stack(seen)

    def empty_cache(self, batch: int, places: int, dtype=jnp.float32) -> Cache:
        """Key-value cache of a given capacity."""
        depth = self.width // self.heads
        return jnp.zeros((self.layers, 2, batch, self.heads, places, depth), dtype)


def generate(
    model: LanguageModel,
    params: PyTree,
    prompt: Float[Array, 'B N D'],
    mask: Bool[Array, 'B N'],
    positions: Int[Array, 'B N'],
    count: int,
) -> Float[Array, 'B G D']:
    """Generates the `count` states that follow a prompt.

    Args:
        model: the network.
        params: its parameters.
        prompt: inputs; the last is real in every item.
        mask: True where the prompt is seen.
        positions: of each input; what follows continues from the last.
        count: G, at least 1.
    """
    batch, length, _ = prompt.shape
    places = length + count - 1
    mask = jnp.pad(mask, [(0, 0), (0, count - 1)], constant_values=True)
    order = np.arange(places)

    def bias(queries):  # a place sees itself and what is before it
        seen = mask[:, None, None] & (order[None, :] <= queries[:, None])[None, None]
        return jnp.where(seen, 0.0, HIDDEN).astype(jnp.float32)

    cache = model.empty_cache(batch, places, prompt.dtype)
    states, cache = model.apply(params, prompt, positions, bias(order[:length]), cache)

    def step(carry, i):
        x, cache = carry
        at = length + i
        x, cache = model.apply(params, x, positions[:, -1:] + 1 + i, bias(at[None]), cache, at)
        return (x, cache), x[:, 0]

    first = states[:, -1:]
    _, rest = lax.scan(step, (first, cache), jnp.arange(count - 1))
    return jnp.concatenate([first, jnp.swapaxes(rest, 0, 1)], axis=1)


def _norm(name: str, epsilon: float) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, name=name)


def layout(path: str, array: np.ndarray) -> np.ndarray:
    """Converts arrays from the original's layout; its matrices are [in, out] already."""
    del path
    return array


def read_language_model(folder: str | os.PathLike) -> tuple[LanguageModel, importing.Names, int]:
    """The module that a folder's config describes, its names, and how many states it generates.

    Raises:
        FileNotFoundError: no such folder or config.
        ValueError: another model, or a variant that is not ported.
    """
    config = importing.read_json(os.path.join(folder, importing.CONFIG_NAME))
    head = config.get('architectures') == [CLASS_NAMES[1]]
    config = importing.read_model_config(folder, CLASS_NAMES[head])
    fields = {
        'n_embd': 'width',
        'n_head': 'heads',
        'n_layer': 'layers',
        'n_positions': 'positions',
        'layer_norm_epsilon': 'epsilon',
    }
    fixed = {
        'activation_function': 'gelu_new',
        'add_cross_attention': False,
        'scale_attn_weights': True,
        'scale_attn_by_inverse_layer_idx': False,
    }
    arguments = importing.pick(config, folder, fields, fixed)
    arguments['hidden'] = config.get('n_inner') or 4 * arguments['width']
    names = (*NAMES, (r'^', 'transformer/')) if head else NAMES
    return LanguageModel(**arguments), names, config.get('max_new_tokens', 8)
