"""The audio tower of a release as an embedder, and its similarity of sound and text."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.metrics.embedders.base import Embedder
from realaudio_jax.metrics.similarity import clap_score
from realaudio_jax.models import text_encoder as text_lib
from realaudio_jax.models.audio_tower import (
    BANDS,
    HOP,
    TOWER_RATE,
    WINDOW_FRAMES,
    WINDOW_HOP,
    WINDOW_WIDTH,
    AudioTower,
    cut_windows,
    tower_log_mel,
)
from realaudio_jax.release import TOWER_NAME, load_params, read_release
from realaudio_jax.release_config import AudioTowerConfig
from realaudio_jax.trees import initial_shapes
from realaudio_jax.typing import MAX_TEXT_TOKENS, Float, PyTree

BATCH = 32


@dataclasses.dataclass(frozen=True)
class Tower:
    """An audio tower with its text encoder.

    Attributes:
        embedder: windows of 1 s, 0.5 s apart, to vectors [256], for distances between sets.
        pool: one array of vectors [frames 256] per sound to unit vectors [N 384].
        embed_text: texts to unit vectors [N 384].
    """

    embedder: Embedder
    pool: Callable[[Sequence[np.ndarray]], Float[np.ndarray, 'N 384']]
    embed_text: Callable[[Sequence[str]], Float[np.ndarray, 'N 384']]

    def clap_scores(
        self, windows: Sequence[Float[np.ndarray, '_ 256']], texts: Sequence[str]
    ) -> Float[np.ndarray, 'N']:
        """Cosine of each sound, given as the embedder's vectors, with its own text.

        Raises:
            ValueError: not as many texts as sounds.
        """
        if len(windows) != len(texts):
            raise ValueError(f'{len(texts)} texts for {len(windows)} sounds; give one for each')
        return clap_score(self.pool(windows), self.embed_text(texts))


def tower_template(model: AudioTower) -> PyTree:
    """Parameter shapes of a tower, for strict loading."""
    windows = jax.ShapeDtypeStruct((1, 1, WINDOW_FRAMES, BANDS), np.float32)
    return initial_shapes(model, windows)


def has_tower(release: str | os.PathLike) -> bool:
    """Whether a release folder holds an audio tower."""
    return (pathlib.Path(release) / TOWER_NAME).is_file()


def load_tower(release: str | os.PathLike) -> Tower:
    """The audio tower of a release folder, with the release's text encoder.

    Raises:
        FileNotFoundError: the release has no tower. ValueError: a damaged one.
    """
    folder = pathlib.Path(release)
    path = folder / TOWER_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f'{folder} has no {TOWER_NAME}; train one with experiments.train_audio_tower'
        )
    config = read_release(folder, TOWER_NAME, text_lib.WEIGHTS_NAME, text_lib.TOKENIZER_NAME)
    model = AudioTower(**(config.audio_tower or AudioTowerConfig()).to_dict())
    params = load_params(path, tower_template(model))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]

    @jax.jit
    def embed(audio):
        windows = cut_windows(tower_log_mel(audio))
        return model.apply(params, windows, method='windows')

    pool = jax.jit(lambda x, mask: model.apply(params, x, mask, method='pool'))
    encode_text = load_text_embedder(folder)
    return Tower(
        Embedder(
            name=f'audio tower ({digest})',
            sample_rate=TOWER_RATE,
            dimension=WINDOW_WIDTH,
            window_s=WINDOW_FRAMES * HOP / TOWER_RATE,
            hop_s=WINDOW_HOP * HOP / TOWER_RATE,
            licence='Apache-2.0',
            embed=lambda audio: embed(jnp.asarray(audio)),
        ),
        lambda windows: _pooled(pool, windows),
        remembered(lambda texts: _sentences(encode_text, texts)),
    )


def load_text_embedder(folder: pathlib.Path) -> Callable:
    """(texts, max_tokens) to (states, mask, sentence embeddings) by a release's text encoder."""
    encoder = text_lib.TextEncoder()
    params = load_params(folder / text_lib.WEIGHTS_NAME, text_lib.parameter_shapes())
    tokenizer = text_lib.Tokenizer(folder / text_lib.TOKENIZER_NAME)

    @jax.jit
    def encode(ids, mask):
        states = encoder.apply({'params': params}, ids, mask)
        return states, text_lib.sentence_embedding(states, mask)

    def embed(texts, max_tokens):
        ids, mask = tokenizer.encode(texts, max_tokens)
        states, sentences = encode(ids, mask)
        return states, mask, sentences

    return embed


def _pooled(pool, windows):
    """Pools sounds of any number of windows with few compiled shapes."""
    length = -(-max(len(w) for w in windows) // 8) * 8
    out = []
    for i in range(0, len(windows), BATCH):
        part = windows[i : i + BATCH]
        x = np.zeros((BATCH, length, WINDOW_WIDTH), np.float32)
        mask = np.zeros((BATCH, length), bool)
        for row, w in enumerate(part):
            x[row, : len(w)], mask[row, : len(w)] = w, True
        out.append(np.asarray(pool(x, mask))[: len(part)])
    return np.concatenate(out)


def remembered(
    embed: Callable[[Sequence[str]], Float[np.ndarray, 'N D']],
) -> Callable[[Sequence[str]], Float[np.ndarray, 'N D']]:
    """`embed`, which sees each text once: every row of a table asks for the same captions."""
    known: dict[str, np.ndarray] = {}

    def of(texts):
        texts = list(texts)
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, embed(new), strict=True))
        return np.stack([known[text] for text in texts])

    return of


def _sentences(encode_text, texts):
    texts, out = list(texts), []
    for i in range(0, len(texts), BATCH):
        part = texts[i : i + BATCH]
        full = part + part[-1:] * (BATCH - len(part))
        out.append(np.asarray(encode_text(full, MAX_TEXT_TOKENS)[2])[: len(part)])
    return np.concatenate(out)
