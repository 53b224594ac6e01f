"""The labels of a release's training sounds, and those nearest to a text.

A label is a vector, the sentence embedding e of the release's text encoder, kept in the K principal
directions P of all labels (int8 on disk). The similarity of a text t to a label l is

    (P^T e_t) . (P^T e_l),

the cosine as far as the labels tell each other apart: a text of which they say nothing is near 0.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable

import jax
import numpy as np

from realaudio_jax.generator import Generator
from realaudio_jax.models.text_encoder import encode_tokens, sentence_embedding
from realaudio_jax.packing import save_params
from realaudio_jax.release import VOCABULARY_NAME, read_metadata, read_tensors
from realaudio_jax.typing import MAX_TEXT_TOKENS, Float

FAR = 0.4  # of 24 prompts for sounds of `foley` none is below, of 20 for others 13
_DIRECTIONS = 64
_SAME = 0.95  # cosine above which of two labels one is enough
_LABELS_KEY = 'labels'


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The labels of a release's training sounds, as vectors.

    Attributes:
        labels: texts, in the order of the alphabet.
        vectors: of each label, in the principal directions.
        directions: the columns of P.
    """

    labels: tuple[str, ...]
    vectors: Float[np.ndarray, 'N K']
    directions: Float[np.ndarray, 'D K']

    def nearest(self, embedding: Float[np.ndarray, 'D'], count: int = 3) -> list[tuple[str, float]]:
        """The labels nearest to a text, with their similarities, the nearest first.

        Args:
            embedding: sentence embedding of the text, of unit length.
            count: how many.
        """
        similarity = self.vectors @ (np.asarray(embedding) @ self.directions)
        order = np.argsort(-similarity, kind='stable')[:count]
        return [(self.labels[i], float(similarity[i])) for i in order]


def nearest_labels(generator: Generator, text: str, count: int = 3) -> list[tuple[str, float]]:
    """The labels of a release's training sounds that are nearest to a text.

    The first call compiles the text encoder by itself.

    Args:
        generator: a loaded release.
        text: in English.
        count: how many.

    Returns:
        (label, similarity) pairs, the nearest first; below `FAR` it was trained on nothing like the
        text. Empty where the release has no vocabulary.
    """
    vocabulary = load_vocabulary(generator.folder)
    if vocabulary is None:
        return []
    ids, mask = generator.tokenizer.encode([text], MAX_TEXT_TOKENS)
    embedding = np.asarray(_embed(generator.params['text_encoder'], ids, mask))[0]
    return vocabulary.nearest(embedding, count)


@jax.jit
def _embed(params, ids, mask):
    return sentence_embedding(encode_tokens(params, ids, mask), mask)


def make_vocabulary(
    labels: Iterable[str], embed: Callable[[list[str]], Float[np.ndarray, 'N D']]
) -> Vocabulary:
    """Makes a vocabulary of labels; of several that mean the same it keeps the first.

    Args:
        labels: in English.
        embed: texts to sentence embeddings of unit length.

    Raises:
        ValueError: there are no labels.
    """
    labels = sorted({' '.join(label.split()) for label in labels} - {''})
    if not labels:
        raise ValueError('there are no labels to make a vocabulary of')
    vectors = np.asarray(embed(labels), np.float32)
    cosine = np.tril(vectors @ vectors.T, -1)
    kept = []
    for i in range(len(labels)):
        if not kept or cosine[i, kept].max() < _SAME:
            kept.append(i)
    vectors = vectors[kept]
    count = min(_DIRECTIONS, *vectors.shape)
    directions = np.linalg.svd(vectors, full_matrices=False)[2][:count].T
    return Vocabulary(tuple(labels[i] for i in kept), vectors @ directions, directions)


def save_vocabulary(folder: str | os.PathLike, vocabulary: Vocabulary) -> None:
    """Writes `vocabulary.safetensors` into a release.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    tree = {
        'labels': {'embedding': vocabulary.vectors},  # a scale for each row, see `release`
        'directions': {'embedding': vocabulary.directions},
    }
    metadata = {_LABELS_KEY: '\n'.join(vocabulary.labels)}
    save_params(pathlib.Path(folder) / VOCABULARY_NAME, tree, metadata, dtype='int8')


def load_vocabulary(folder: str | os.PathLike) -> Vocabulary | None:
    """The vocabulary of a release, or None where it has none.

    Raises:
        ValueError: the file is damaged.
    """
    path = pathlib.Path(folder) / VOCABULARY_NAME
    if not path.is_file():
        return None
    labels, tensors = read_metadata(path).get(_LABELS_KEY, '').split('\n'), read_tensors(path)
    vectors, directions = (tensors.get(f'{n}/embedding') for n in ('labels', 'directions'))
    fits = vectors is not None and directions is not None and len(labels) == len(vectors)
    if not fits or vectors.shape[1:] != directions.shape[1:]:
        raise ValueError(f'{path} is damaged; get the release again')
    return Vocabulary(tuple(labels), vectors, directions)
