"""Class accuracy of generated sounds, by a linear probe and by YAMNet's own classes.

The probe is multinomial logistic regression on one vector per clip (its mean over windows, each
dimension standardised), fitted to labelled recordings. Its own accuracy is measured by leaving one
group of recordings out at a time (the folds of ESC-10, or the takes): an accuracy on generated
sounds means little where the probe does not recognise real ones, so both are reported.
"""

import collections
import csv
import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np
import scipy.optimize
import scipy.special

from realaudio_jax.metrics.embedders.base import Embedder
from realaudio_jax.metrics.embedders.cache import embed_files
from realaudio_jax.typing import Array, Float

AnyArray = np.ndarray | Array

L2 = 1.0  # weight of |W|^2 / 2 against the sum of log-likelihoods


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """Linear classifier on embeddings, fitted to recordings.

    Attributes:
        classes: labels, sorted.
        weights, bias: of the standardised vector, [D K] and [K].
        mean, scale: that standardise it, [D].
        accuracy: on real recordings, each classified by a probe that did not see its group.
        clips, groups: how many recordings and groups that rests on.
    """

    classes: tuple[str, ...]
    weights: Float[np.ndarray, 'D K']
    bias: Float[np.ndarray, 'K']
    mean: Float[np.ndarray, 'D']
    scale: Float[np.ndarray, 'D']
    accuracy: float
    clips: int
    groups: int

    def probabilities(self, vectors: Float[AnyArray, 'N D']) -> Float[np.ndarray, 'N K']:
        """Of each class, for one vector per clip."""
        x = (np.asarray(vectors, np.float64) - self.mean[None, :]) / self.scale[None, :]
        return scipy.special.softmax(x @ self.weights + self.bias[None, :], axis=1)

    def hits(self, vectors: Float[AnyArray, 'N D'], labels: Sequence[str]) -> np.ndarray:
        """Whether the most likely class of each clip is the one asked for, bool [N].

        Raises:
            ValueError: a label that the probe does not know.
        """
        wanted = _index(labels, self.classes)
        return self.probabilities(vectors).argmax(1) == wanted


def fit_probe(
    vectors: Float[AnyArray, 'N D'], labels: Sequence[str], groups: Sequence[str | int]
) -> LinearProbe:
    """Fits the probe to all clips, and measures it by leaving each group out.

    Args:
        vectors: one per clip.
        labels: its class.
        groups: clips of one group are never on both sides of a measurement.

    Raises:
        ValueError: one class or one group, a class that only one group has, or lengths that differ.
    """
    x = np.asarray(vectors, np.float64)
    classes = tuple(sorted(set(labels)))
    if not len(x) == len(labels) == len(groups):
        raise ValueError(f'{len(x)} vectors, {len(labels)} labels, {len(groups)} groups')
    if len(classes) < 2:
        raise ValueError(f'a probe tells classes apart, and here is only {classes}')
    of = collections.defaultdict(set)
    for label, group in zip(labels, groups, strict=True):
        of[label].add(group)
    alone = [label for label in classes if len(of[label]) < 2]
    if alone:
        raise ValueError(f'the class {alone[0]!r} is in one group only: no probe could be tested')
    y, groups = _index(labels, classes), np.asarray(groups)
    right = np.zeros(len(x), bool)
    for group in np.unique(groups):
        out = groups == group
        right[out] = LinearProbe(classes, *_fit(x[~out], y[~out], len(classes)), 0.0, 0, 0).hits(
            x[out], [classes[k] for k in y[out]]
        )
    fitted = _fit(x, y, len(classes))
    return LinearProbe(classes, *fitted, float(right.mean()), len(x), len(np.unique(groups)))


def probe_of_recordings(
    folder: str | os.PathLike,
    embedder: Embedder,
    cache_dir: str | os.PathLike,
    subset: str = 'esc10/',
) -> LinearProbe:
    """Fits a probe to a folder with metadata.csv (columns file, label, and group for the folds).

    Args:
        folder: its files lie beside metadata.csv or under audio/.
        embedder: the network.
        cache_dir: where vectors are kept.
        subset: only files whose name begins so.

    Raises:
        FileNotFoundError: no metadata.csv. ValueError: no file of the subset, or see `fit_probe`.
    """
    folder = pathlib.Path(folder)
    if not (folder / 'metadata.csv').is_file():
        raise FileNotFoundError(f'no metadata.csv in {folder}; it lists file, label and group')
    with open(folder / 'metadata.csv', newline='', encoding='utf-8-sig') as file:
        rows = [row for row in csv.DictReader(file) if row['file'].startswith(subset)]
    if not rows:
        raise ValueError(f'{folder}/metadata.csv lists no file that begins with {subset!r}')
    root = folder / 'audio' if (folder / 'audio').is_dir() else folder
    by_file = {root / row['file']: row for row in rows}
    found = embed_files(embedder, list(by_file), cache_dir)
    kept = [by_file[file] for file in found.files]
    vectors = np.stack([windows.mean(0) for windows in found.vectors])
    return fit_probe(vectors, [row['label'] for row in kept], [row['group'] for row in kept])


def named_classes(prompt: str, class_names: Sequence[str]) -> list[int]:
    """Indices of the classes that a prompt names.

    A class is named when every word of one of its names ('Chicken, rooster' has two) is among the
    words of the prompt, endings aside: 'a rooster crows' names it, 'barking' names 'Bark'.
    """
    words = {_stem(word) for word in re.findall(r'[a-z]+', prompt.lower())}
    found = []
    for index, name in enumerate(class_names):
        options = [re.findall(r'[a-z]+', part) for part in name.lower().split(',')]
        if any(option and {_stem(word) for word in option} <= words for option in options):
            found.append(index)
    return found


def class_scores(
    scores: Sequence[Float[AnyArray, '_ K']], prompts: Sequence[str], class_names: Sequence[str]
) -> Float[np.ndarray, 'N']:
    """For each sound the mean, over the classes its prompt names, of the class's highest score.

    NaN where the prompt names no class: leave these out, and say how many are left.

    Args:
        scores: class scores of each window of each sound, 0 to 1.
        prompts: one for each sound.
        class_names: of the K scores.
    """
    found = np.full(len(prompts), np.nan)
    for i, (score, prompt) in enumerate(zip(scores, prompts, strict=True)):
        named = named_classes(prompt, class_names)
        if named:
            found[i] = np.asarray(score)[:, named].max(0).mean()
    return found


def _fit(x, y, classes):
    """Weights, bias, mean and scale that minimise -sum log p(y) + L2 |W|^2 / 2."""
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
    # a dimension of 1/sqrt(D) each, so that L2 means the same for any embedder
    scale = scale * x.shape[1] ** 0.5
    z = (x - mean) / scale
    target = np.eye(classes)[y]

    def loss(flat):
        w, b = flat[:-classes].reshape(x.shape[1], classes), flat[-classes:]
        logits = z @ w + b
        log_p = logits - scipy.special.logsumexp(logits, axis=1, keepdims=True)
        slope = np.exp(log_p) - target
        value = -(target * log_p).sum() + L2 / 2 * (w * w).sum()
        return value, np.concatenate([(z.T @ slope + L2 * w).ravel(), slope.sum(0)])

    start = np.zeros((x.shape[1] + 1) * classes)
    flat = scipy.optimize.minimize(loss, start, jac=True, method='L-BFGS-B').x
    return flat[:-classes].reshape(x.shape[1], classes), flat[-classes:], mean, scale


def _index(labels, classes):
    unknown = [label for label in labels if label not in classes]
    if unknown:
        raise ValueError(f'no class {unknown[0]!r}; the probe knows {", ".join(classes)}')
    return np.array([classes.index(label) for label in labels], int)


def _stem(word):
    """Without the endings of plural and verb: barks, barking and barked are bark."""
    for ending in ('ing', 'ed', 'es', 's'):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return word.rstrip('e')
