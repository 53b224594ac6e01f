"""The frozen networks that prepare training data: audio to latents, text to states."""

import functools
import os

import jax
import numpy as np
from flax.core import FrozenDict

from realaudio_jax.data.cache import cache_key, weights_digest
from realaudio_jax.models.autoencoder import Autoencoder
from realaudio_jax.models.text_encoder import (
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    TextEncoder,
    Tokenizer,
    parameter_shapes,
    sentence_embedding,
)
from realaudio_jax.release import (
    find_release,
    load_autoencoder,
    load_params,
    read_release,
)
from realaudio_jax.typing import SAMPLE_RATE, Array, PyTree


@functools.partial(jax.jit, static_argnums=(0, 3))
def _apply(autoencoder: Autoencoder, params: PyTree, x: Array, method: str) -> Array:
    return autoencoder.apply(params, x, SAMPLE_RATE, method=method)


@functools.partial(jax.jit, static_argnums=0)
def _states(encoder: TextEncoder, params: PyTree, ids: Array, mask: Array) -> tuple[Array, Array]:
    """States of the tokens of texts, and the embedding of each text as a whole."""
    states = encoder.apply({'params': params}, ids, mask)
    return states, sentence_embedding(states, mask)


class FrozenEncoders:
    """Frozen autoencoder and text encoder, compiled once for each shape in a process.

    Args:
        autoencoder, autoencoder_params: as a release holds them.
        text_encoder, text_params: likewise.
        tokenizer: of the text encoder.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        autoencoder_params: PyTree,
        text_encoder: TextEncoder,
        text_params: PyTree,
        tokenizer: Tokenizer,
    ):
        self.tokenizer, self.autoencoder = tokenizer, autoencoder
        self._text_encoder = text_encoder
        self.autoencoder_params, self._text_params = autoencoder_params, text_params
        # The same network, hashable: a constant of programs that all encoders of its size share.
        self._codec = autoencoder.clone(decoder=FrozenDict(autoencoder.decoder))

    def encode_audio(self, audio: np.ndarray) -> Array:
        """Encodes float32 audio [B, S, 2] at 48 kHz to latents [B, L, C]."""
        return _apply(self._codec, self.autoencoder_params, audio, 'encode')

    def decode_latents(self, latents: np.ndarray) -> Array:
        """Decodes latents [B, L, C] to float32 audio [B, S, 2] at 48 kHz."""
        return _apply(self._codec, self.autoencoder_params, latents, 'decode')

    def encode_text(self, texts: list[str], max_tokens: int) -> tuple[Array, np.ndarray, Array]:
        """Encodes texts to (states [B, T, D], mask [B, T], sentence embeddings [B, D])."""
        ids, mask = self.tokenizer.encode(texts, max_tokens)
        states, sentences = _states(self._text_encoder, self._text_params, ids, mask)
        return states, mask, sentences

    def fingerprint(self) -> str:
        """Hash of the weights of both networks."""
        return cache_key(
            'front end',  # in the keys of caches that exist
            networks=[repr(self.autoencoder), repr(self._text_encoder)],
            weights=weights_digest((self.autoencoder_params, self._text_params)),
            tokenizer=self.tokenizer.digest,
        )


def load_frozen_encoders(
    release: str | os.PathLike, autoencoder: str | os.PathLike | None = None
) -> FrozenEncoders:
    """The text encoder and autoencoder of a release, for preparing training data.

    Args:
        release: name or folder; only its frozen networks are read.
        autoencoder: a safetensors file to use instead of the release's, see
            `release.load_autoencoder`.
    """
    folder = find_release(release)
    read_release(folder, WEIGHTS_NAME, TOKENIZER_NAME)
    config, params = load_autoencoder(folder, autoencoder)
    return FrozenEncoders(
        Autoencoder(**config.to_dict()),
        params,
        TextEncoder(),
        load_params(folder / WEIGHTS_NAME, parameter_shapes()),
        Tokenizer(folder / TOKENIZER_NAME),
    )
