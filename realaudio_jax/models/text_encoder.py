"""The frozen text encoder: all-MiniLM-L6-v2 (a six-layer BERT) as Flax modules, with its tokenizer.

Each layer is post-normalised (Devlin et al. 2018, arXiv 1810.04805; Vaswani et al. 2017, arXiv
1706.03762, section 3):

    a = norm(x + softmax(q k^T / sqrt(D / H)) v W_o)                                            (1)
    y = norm(a + gelu(a W_1) W_2),     gelu(z) = z (1 + erf(z / sqrt 2)) / 2                    (2)

and a sentence is the mean of its token states, scaled to unit length (Reimers & Gurevych 2019,
arXiv 1908.10084, section 3). Differences from the original, none of which changes a result: q, k
and v are one matrix; the embedding of segment 0, the only one used, is added to the positions'; the
unused pooler is left out; the states of padding are zero.
"""

import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tokenizers

from realaudio_jax.quantisation import Dense
from realaudio_jax.trees import initial_shapes
from realaudio_jax.typing import MAX_TEXT_TOKENS, TEXT_WIDTH, Array, Bool, Float, Int, PyTree

WEIGHTS_NAME = 'text_encoder.safetensors'  # in a release
TOKENIZER_NAME = 'tokenizer.json'


class SelfAttention(nn.Module):
    """Self-attention of equation (1), before the residual; padding is masked."""

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, 'B T D'], mask: Bool[Array, 'B T']) -> Float[Array, 'B T D']:
        batch, tokens, width = x.shape
        depth = width // self.heads
        # [B T 3 H D/H] -> three of [B*H T D/H]: products of three axes are what XLA's CPU
        # backend gives to its fast matrix kernels.
        qkv = Dense(3 * width, name='qkv')(x)
        qkv = qkv.reshape(batch, tokens, 3, self.heads, depth).transpose(2, 0, 3, 1, 4)
        q, k, v = qkv.reshape(3, batch * self.heads, tokens, depth)
        scores = jnp.matmul(q, k.transpose(0, 2, 1)) / jnp.sqrt(depth).astype(x.dtype)
        seen = jnp.repeat(mask, self.heads, axis=0)[:, None, :]
        # A finite floor: a row of padding alone stays a number.
        scores = jnp.where(seen, scores, jnp.finfo(scores.dtype).min)
        out = jnp.matmul(jax.nn.softmax(scores, axis=-1), v)
        out = out.reshape(batch, self.heads, tokens, depth).transpose(0, 2, 1, 3)
        return Dense(width, name='out')(out.reshape(batch, tokens, width))


class EncoderLayer(nn.Module):
    """One BERT layer: self-attention (1) and feed-forward (2), each with residual and norm."""

    heads: int
    hidden: int
    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, 'B T D'], mask: Bool[Array, 'B T']) -> Float[Array, 'B T D']:
        attended = SelfAttention(self.heads, name='attention')(x, mask)
        x = _norm('attention_norm', self.epsilon)(x + attended)
        hidden = jax.nn.gelu(Dense(self.hidden, name='expand')(x), approximate=False)
        hidden = Dense(x.shape[-1], name='contract')(hidden)
        return _norm('output_norm', self.epsilon)(x + hidden)


class TextEncoder(nn.Module):
    """Token ids to contextual states; the defaults are all-MiniLM-L6-v2.

    Attributes:
        vocabulary: number of token ids.
        positions: the most tokens a text may have.
        width: D, of the states.
        heads: H, a divisor of `width`.
        hidden: width inside equation (2).
        layers: how many.
        epsilon: of every norm.
    """

    vocabulary: int = 30_522
    positions: int = 512
    width: int = TEXT_WIDTH
    heads: int = 12
    hidden: int = 1536
    layers: int = 6
    epsilon: float = 1e-12

    @nn.compact
    def __call__(self, ids: Int[Array, 'B T'], mask: Bool[Array, 'B T']) -> Float[Array, 'B T D']:
        """Encodes a batch of texts.

        Args:
            ids: [B, T] in [0, vocabulary), T at most `positions`.
            mask: [B, T], True at tokens, False at padding.

        Returns:
            [B, T, D] states; zero at padding.

        Raises:
            ValueError: more tokens than positions.
        """
        tokens = ids.shape[1]
        if tokens > self.positions:
            raise ValueError(f'{tokens} tokens given, {self.positions} at most: cut the text')
        place = nn.Embed(self.positions, self.width, name='position')(jnp.arange(tokens))
        x = nn.Embed(self.vocabulary, self.width, name='token')(ids) + place[None]
        x = _norm('embedding_norm', self.epsilon)(x)
        for i in range(self.layers):
            layer = EncoderLayer(self.heads, self.hidden, self.epsilon, name=f'layer_{i}')
            x = layer(x, mask)
        return jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))


def _norm(name: str, epsilon: float) -> nn.LayerNorm:
    # The variance as mean (x - mean)^2: the shortcut E x^2 - (E x)^2 costs parity.
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, name=name)


def encode_tokens(
    params: PyTree,
    ids: Int[Array | np.ndarray, 'B T'],
    mask: Bool[Array | np.ndarray, 'B T'],
    encoder: TextEncoder | None = None,
) -> Float[Array, 'B T D']:
    """Token states of a batch of texts.

    Args:
        params: of the encoder, as `load_params(path, parameter_shapes())` gives them.
        ids: [B, T], as `Tokenizer.encode` gives them.
        mask: [B, T], True at tokens.
        encoder: all-MiniLM-L6-v2 where left out.

    Returns:
        [B, T, D]; zero at padding.
    """
    encoder = encoder or TextEncoder()
    return encoder.apply({'params': params}, jnp.asarray(ids), jnp.asarray(mask))


def sentence_embedding(
    states: Float[Array, 'B T D'], mask: Bool[Array | np.ndarray, 'B T']
) -> Float[Array, 'B D']:
    """Sentence embedding: the mean m of the token states, at unit length, m / |m|.

    m = sum_t mask_t x_t / sum_t mask_t

    Args:
        states: [B, T, D], of `encode_tokens`.
        mask: [B, T], True at tokens.

    Returns:
        [B, D] of length 1, or 0 where a text has no token at all.
    """
    weights = jnp.asarray(mask, states.dtype)[..., None]
    count = jnp.maximum(weights.sum(axis=1), 1.0)
    mean = (states * weights).sum(axis=1) / count
    square = jnp.sum(jnp.square(mean), axis=-1, keepdims=True)
    return mean * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def parameter_shapes(encoder: TextEncoder | None = None) -> PyTree:
    """The encoder's parameters as `jax.ShapeDtypeStruct`: a template for strict loading."""
    tokens = jax.ShapeDtypeStruct((1, 2), np.int32)
    mask = jax.ShapeDtypeStruct((1, 2), bool)
    return initial_shapes(encoder or TextEncoder(), tokens, mask)['params']


class Tokenizer:
    """Tokenizer read from a `tokenizer.json`.

    Args:
        path: the file.
        special: its tokens for padding, the start and the end of a text.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a tokenizer, or one without these tokens.
    """

    def __init__(
        self, path: str | os.PathLike, special: tuple[str, str, str] = ('[PAD]', '[CLS]', '[SEP]')
    ):
        path = pathlib.Path(path)
        if not path.is_file():
            raise FileNotFoundError(f'no tokenizer at {path}; get the release again')
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises nothing narrower
            raise ValueError(
                f'{path} is damaged ({error}); get the release again or save it anew'
            ) from error
        # The file's own settings (128 tokens, cut without a word) are not ours.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        found = [self._tokenizer.token_to_id(name) for name in special]
        if None in found:
            raise ValueError(
                f'{path} lacks {special[0]}, {special[1]} or {special[2]}; get it again'
            )
        self._padding, _, self._end = found
        self._unknown = self._tokenizer.token_to_id('[UNK]')

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of its whole definition, for the keys of caches."""
        return hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()

    def encode(
        self,
        texts: Sequence[str],
        max_tokens: int = MAX_TEXT_TOKENS,
        log: Callable[[str], None] | None = None,
    ) -> tuple[Int[np.ndarray, 'B T'], Bool[np.ndarray, 'B T']]:
        """Token ids of each text with [CLS] and [SEP], truncated or padded to `max_tokens`.

        Args:
            texts: any number of texts; an empty one is [CLS] [SEP] alone.
            max_tokens: T, at least 3.
            log: called with a line for each text that had to be cut, or that holds what has no
                token and cannot be represented.

        Returns:
            int32 ids [B, T], and a bool mask [B, T] that is False at padding.

        Raises:
            ValueError: `texts` is one string instead of a list, or `max_tokens` is too small.
        """
        if isinstance(texts, str):
            raise ValueError(f'give a list of texts, not the one text {texts!r}')
        if max_tokens < 3:
            raise ValueError(f'max_tokens is {max_tokens}: give at least 3')
        ids = np.full((len(texts), max_tokens), self._padding, np.int32)
        mask = np.zeros((len(texts), max_tokens), bool)
        for i, text in enumerate(texts):
            # A shell hands over bytes that are not UTF-8 as lone surrogates.
            text = text.encode('utf-8', 'replace').decode('utf-8')
            # One by one: a batch would start threads, which do not survive a fork.
            encoding = self._tokenizer.encode(text)
            found = encoding.ids
            if log is not None:
                for line in self._notes(text, encoding, max_tokens):
                    log(line)
            if len(found) > max_tokens:
                found = found[: max_tokens - 1] + [self._end]
            ids[i, : len(found)] = found
            mask[i, : len(found)] = True
        return ids, mask

    def _notes(self, text: str, encoding: tokenizers.Encoding, max_tokens: int) -> Iterator[str]:
        """A line on what of a text has no token, and one on how much of it is cut."""
        start = ' '.join(text[:60].split())
        unread = [
            text[begin:end]
            for token, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if token == self._unknown
        ]
        if unread:
            read = len(encoding.ids) - 2 - len(unread)  # [CLS] and [SEP] are no words
            rest = 'the rest counts' if read > 0 else 'nothing of it is left'
            shown = ' '.join(dict.fromkeys(unread))[:40]
            yield f'cannot read "{shown}" in "{start}", {rest}: write it in English words'
        elif text.strip() and len(encoding.ids) == 2:  # control characters and the like
            yield f'cannot read {start!a}, nothing of it is left: write it in English words'
        if len(encoding.ids) > max_tokens:
            yield f'text of {len(encoding.ids)} tokens cut to {max_tokens}: "{start}..."'
