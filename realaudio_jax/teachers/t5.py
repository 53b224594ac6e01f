"""The encoder of T5 and FLAN-T5, the text encoder of several teachers, with its tokenizer.

Pre-normalised layers without biases (Raffel et al. 2019, arXiv 1910.10683, sections 2.1 and 3.1.1):

    a = x + softmax(q k^T + b) v W_o        with q, k, v from rms_norm(x)                        (1)
    y = a + f(rms_norm(a)) W_o,             f(z) = relu(z W_i)                                   (2)

Scores are not scaled; b is a learned number for each head and bucket of the distance between two
tokens, one table for all layers. FLAN-T5 and T5 1.1 gate (2): f(z) = gelu(z W_0) * (z W_1) (Shazeer
2020, arXiv 2002.05202, eq. 6, with the gelu of tanh).
"""

import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tokenizers

from realaudio_jax.models.layers import RMSNorm
from realaudio_jax.teachers import importing
from realaudio_jax.teachers.layers import attend, mask_bias, split_heads
from realaudio_jax.trees import initial_shapes
from realaudio_jax.typing import Array, Bool, Float, Int, PyTree

CLASS_NAME = 'T5EncoderModel'
TOKENIZER_NAME = 'tokenizer.json'
ACTIVATIONS = {  # (is it gated, what is applied), by the config's feed_forward_proj
    'relu': (False, nn.relu),
    'gated-gelu': (True, functools.partial(nn.gelu, approximate=True)),
    'gated-silu': (True, nn.silu),
}
_TEXT_STEP = 16  # so that texts of similar length share a compiled program
# From paths here to the original's names, see `importing.original_name`.
NAMES = (
    (r'^buckets/', 'encoder/block/0/layer/0/SelfAttention/relative_attention_bias/'),
    (r'^token/', 'shared/'),
    (r'^norm/', 'encoder/final_layer_norm/'),
    (r'^layer_(\d+)/attention_norm/', r'encoder/block/\1/layer/0/layer_norm/'),
    (
        r'^layer_(\d+)/(q|k|v|o)(?:uery|ey|alue|ut)/',
        r'encoder/block/\1/layer/0/SelfAttention/\2/',
    ),
    (r'^layer_(\d+)/mlp_norm/', r'encoder/block/\1/layer/1/layer_norm/'),
    (r'^layer_(\d+)/(wi|wi_0|wi_1|wo)/', r'encoder/block/\1/layer/1/DenseReluDense/\2/'),
)
ALIASES = {'encoder.embed_tokens.weight': 'shared.weight'}


def distance_buckets(tokens: int, count: int, longest: int) -> Int[np.ndarray, 'T T']:
    """Bucket of the distance from each query (row) to each key.

    Half of the buckets are for keys after the query. Of each half, half are for one distance each,
    and the rest grow evenly in the logarithm up to `longest`, beyond which all distances share one.

    Args:
        tokens: T.
        count: of buckets.
        longest: distance in tokens.
    """
    distance = np.arange(tokens)[None] - np.arange(tokens)[:, None]
    half, exact = count // 2, count // 4
    # In float32, as the original: a boundary may fall on either side of a whole number.
    far = np.log(np.maximum(np.abs(distance), 1).astype(np.float32) / np.float32(exact))
    far = exact + (far / np.float32(np.log(longest / exact)) * (half - exact)).astype(np.int64)
    near = np.abs(distance)
    bucket = np.where(near < exact, near, np.minimum(far, half - 1))
    return bucket + half * (distance > 0)


class Layer(nn.Module):
    """One T5 layer: self-attention (1) and feed-forward (2)."""

    heads: int
    head_width: int
    hidden: int
    feed_forward: str
    epsilon: float

    @nn.compact
    def __call__(
        self, x: Float[Array, 'B T D'], bias: Float[Array, 'B H T T']
    ) -> Float[Array, 'B T D']:
        width = x.shape[-1]
        dense = functools.partial(nn.Dense, use_bias=False)
        y = RMSNorm(self.epsilon, name='attention_norm')(x)
        query, key, value = (
            split_heads(dense(self.heads * self.head_width, name=name)(y), self.heads)
            for name in ('query', 'key', 'value')
        )
        x = x + dense(width, name='out')(attend(query, key, value, bias, scale=1.0))
        y = RMSNorm(self.epsilon, name='mlp_norm')(x)
        gated, activation = ACTIVATIONS[self.feed_forward]
        if gated:
            y = activation(dense(self.hidden, name='wi_0')(y)) * dense(self.hidden, name='wi_1')(y)
        else:
            y = activation(dense(self.hidden, name='wi')(y))
        return x + dense(width, name='wo')(y)


class T5Encoder(nn.Module):
    """T5 encoder; the defaults are t5-base.

    Attributes:
        vocabulary: number of token ids.
        width: D, of the states.
        head_width: F of each head; H * F need not be D.
        hidden: width inside equation (2).
        layers: how many.
        heads: H.
        buckets, longest: of `distance_buckets`.
        feed_forward: a key of ACTIVATIONS.
        epsilon: of the norms.
    """

    vocabulary: int = 32_128
    width: int = 768
    head_width: int = 64
    hidden: int = 3072
    layers: int = 12
    heads: int = 12
    buckets: int = 32
    longest: int = 128
    feed_forward: str = 'relu'
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, ids: Int[Array, 'B T'], mask: Bool[Array, 'B T']) -> Float[Array, 'B T D']:
        """Encodes a batch of texts.

        Args:
            ids: in [0, vocabulary).
            mask: True at tokens; padding is not attended to, its own states mean nothing.
        """
        x = nn.Embed(self.vocabulary, self.width, name='token')(ids)
        table = nn.Embed(self.buckets, self.heads, name='buckets')
        bias = table(distance_buckets(ids.shape[1], self.buckets, self.longest))
        bias = jnp.moveaxis(bias, -1, 0)[None] + mask_bias(mask)
        for i in range(self.layers):
            x = Layer(
                self.heads,
                self.head_width,
                self.hidden,
                self.feed_forward,
                self.epsilon,
                name=f'layer_{i}',
            )(x, bias)
        return RMSNorm(self.epsilon, name='norm')(x)


def read_encoder(folder: str | os.PathLike, class_name: str = CLASS_NAME) -> T5Encoder:
    """The module that a folder's config describes.

    Args:
        folder: of config.json and model.safetensors.
        class_name: that the config must name.

    Raises:
        FileNotFoundError: no such folder or config.
        ValueError: another model, or a variant that is not ported.
    """
    config = importing.read_model_config(folder, class_name)
    fields = {
        'vocab_size': 'vocabulary',
        'd_model': 'width',
        'd_kv': 'head_width',
        'd_ff': 'hidden',
        'num_layers': 'layers',
        'num_heads': 'heads',
        'feed_forward_proj': 'feed_forward',
        'relative_attention_num_buckets': 'buckets',
        'layer_norm_epsilon': 'epsilon',
    }
    arguments = importing.pick(config, folder, fields, {'model_type': 't5'})
    # Absent from configs older than the choice of it.
    arguments['longest'] = config.get('relative_attention_max_distance', 128)
    if arguments['feed_forward'] not in ACTIVATIONS:
        raise ValueError(
            f'the config of {folder} asks for feed_forward_proj '
            f'{arguments["feed_forward"]!r}; there are {", ".join(ACTIVATIONS)}'
        )
    return T5Encoder(**arguments)


def parameter_shapes(encoder: nn.Module) -> PyTree:
    """The parameters of an encoder of token ids and their mask, as `jax.ShapeDtypeStruct`."""
    ids = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    mask = jax.ShapeDtypeStruct((1, 2), jnp.bool_)
    return initial_shapes(encoder, ids, mask)['params']


def import_t5(folder: str | os.PathLike, dtype: Any = np.float32) -> tuple[T5Encoder, PyTree]:
    """The encoder in a folder saved by transformers, and its parameters.

    Args:
        folder: of config.json and model.safetensors, such as `text_encoder` of Stable Audio Open or
            `text_encoder_2` of AudioLDM 2.
        dtype: of the parameters; None keeps each as it is stored.

    Raises:
        FileNotFoundError, ValueError: see `read_encoder` and `importing.import_params`.
    """
    encoder = read_encoder(folder)
    shapes = parameter_shapes(encoder)
    return encoder, importing.import_params(folder, shapes, NAMES, aliases=ALIASES, dtype=dtype)


class Tokenizer:
    """Tokenizer that a `tokenizer.json` describes; adds the end token and <pad>.

    Args:
        folder: of tokenizer.json and tokenizer_config.json.
        end: the token that ends a text; None adds none.
        longest: most tokens of a text, where the tokenizer's config allows as many.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: it is damaged, or of the older layout without tokenizer.json.
    """

    def __init__(self, folder: str | os.PathLike, end: str | None = '</s>', longest: int = 512):
        folder = pathlib.Path(folder)
        path = folder / TOKENIZER_NAME
        if not path.is_file() and (folder / 'spiece.model').is_file():
            raise ValueError(
                f'{folder} is of an older layout: it has spiece.model and no {TOKENIZER_NAME}; '
                'save the tokenizer again with a current transformers'
            )
        importing.read_json(path)  # says what is wrong, if anything, in one line
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises nothing narrower
            raise ValueError(f'{path} is damaged ({error}); download it again') from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        names = ('<pad>',) if end is None else ('<pad>', end)
        special = [self._tokenizer.token_to_id(name) for name in names]
        if None in special:
            raise ValueError(
                f'{path} lacks {" or ".join(names)}: it is the tokenizer of another model'
            )
        self._padding, self._end = special[0], None if end is None else special[1]
        config = importing.read_json(folder / 'tokenizer_config.json')
        # Where there is no limit the original writes 10^30.
        self.max_tokens = int(min(config.get('model_max_length', longest), longest))

    def encode(
        self, texts: Sequence[str], tokens: int | None = None
    ) -> tuple[Int[np.ndarray, 'B T'], Bool[np.ndarray, 'B T']]:
        """Ids of each text, its end included, padded to `tokens`.

        Args:
            texts: any number of texts.
            tokens: T; None is the most that the tokenizer's config allows.

        Returns:
            int32 ids, and a mask that is False at padding.

        Raises:
            ValueError: `texts` is one string, or a text has more tokens than fit.
        """
        if isinstance(texts, str):
            raise ValueError(f'give a list of texts, not the one text {texts!r}')
        tokens = self.max_tokens if tokens is None else tokens
        ids = np.full((len(texts), tokens), self._padding, np.int32)
        mask = np.zeros((len(texts), tokens), bool)
        for i, text in enumerate(texts):
            # A shell hands over bytes that are not UTF-8 as lone surrogates.
            text = text.encode('utf-8', 'replace').decode('utf-8')
            # One by one: a batch would start threads, which do not survive a fork.
            found = self._tokenizer.encode(text).ids
            if self._end is not None and (not found or found[-1] != self._end):
                found = [*found, self._end]
            if len(found) > tokens:
                start = ' '.join(text[:60].split())
                raise ValueError(
                    f'the prompt "{start}..." has {len(found)} tokens, {tokens} at most; shorten it'
                )
            ids[i, : len(found)] = found
            mask[i, : len(found)] = True
        return ids, mask


def trimmed(
    ids: Int[np.ndarray, 'B T'], mask: Bool[np.ndarray, 'B T']
) -> tuple[Int[np.ndarray, 'B N'], Bool[np.ndarray, 'B N']]:
    """Drops padding beyond the longest text, to a multiple of _TEXT_STEP tokens, one at least."""
    tokens = max(1, -(-int(mask.sum(axis=1).max()) // _TEXT_STEP)) * _TEXT_STEP
    return ids[:, :tokens], mask[:, :tokens]
