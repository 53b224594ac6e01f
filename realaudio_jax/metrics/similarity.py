"""Cosine similarities: sound to prompt, step count to step count, sample to sample.

A score names the network its vectors come from; the functions here know only the vectors.
"""

import numpy as np

from realaudio_jax.typing import Array, Float

AnyArray = np.ndarray | Array


def cosine(a: Float[AnyArray, 'B D'], b: Float[AnyArray, 'B D']) -> Float[np.ndarray, 'B']:
    """Cosine of each row of a with the same row of b: a.b / (|a| |b|), in [-1, 1].

    Raises:
        ValueError: a row is all zeros, so that it has no direction.
    """
    return (_unit(a) * _unit(b)).sum(1).clip(-1, 1)  # one may come out as 1 + 2e-16


def clap_score(
    audio: Float[AnyArray, 'B D'], text: Float[AnyArray, 'B D']
) -> Float[np.ndarray, 'B']:
    """Cosine of each sound's embedding with its prompt's; a set's score is the mean.

    The cosine of the two embeddings of one audio-text network (the CLAP score of Wu et al. 2023,
    arXiv 2211.06687). Its scale belongs to that network: compare scores of one network only,
    beside the same score for recordings and for prompts of other items.

    Args:
        audio: embeddings of the sounds.
        text: embeddings of their prompts, in the same order.

    Returns:
        Cosines in [-1, 1].

    Raises:
        ValueError: a row is all zeros.
    """
    return cosine(audio, text)


def step_coherence(
    latents: Float[AnyArray, 'B L C'], reference: Float[AnyArray, 'B L C']
) -> Float[np.ndarray, 'B']:
    """Cosine between the latents of two step counts from the same noise, one per item.

    Raises:
        ValueError: an item is all zeros.
    """
    flat = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (latents, reference))
    return cosine(*flat)


def diversity(embeddings: Float[AnyArray, 'N D']) -> float:
    """One minus the mean cosine over all pairs of sounds made from one prompt, in [0, 2].

    mean over i < j = (|sum of unit rows|^2 - N) / (N (N - 1)).

    Args:
        embeddings: one row per sound, two or more.

    Raises:
        ValueError: fewer than two sounds, or a row of zeros.
    """
    count = len(embeddings)
    if count < 2:
        raise ValueError(f'diversity needs at least 2 sounds of one prompt, got {count}')
    total = _unit(embeddings).sum(0)
    return float(1 - (total @ total - count) / (count * (count - 1)))


def _unit(rows):
    rows = np.asarray(rows, np.float64)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    if not norm.all():
        raise ValueError(f'embedding {int(norm.argmin())} is all zeros: it has no direction')
    return rows / norm
