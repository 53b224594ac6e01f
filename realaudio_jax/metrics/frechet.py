"""Frechet distance between two sets of embeddings, from streaming Gaussian statistics.

    d^2 = |m_a - m_b|^2 + tr C_a + tr C_b - 2 tr (C_a^1/2 C_b C_a^1/2)^1/2           (1)

Any factor F with F F^T = C_a gives the last trace, since F^T C_b F and C_a^1/2 C_b C_a^1/2 have
the same non-zero eigenvalues. That matrix is symmetric, so its eigenvalues are real and
non-negative up to rounding, and a rank-deficient covariance needs no added diagonal (a general
matrix square root of C_a C_b does, and biases the result).

The distance is that of Dowson & Landau (1982), in the use of Heusel et al. 2017 (arXiv
1706.08500, eq. 6) and, for audio, Kilgour et al. 2019 (arXiv 1812.08466, eq. 1). Covariances
are unbiased (divided by N - 1). A distance from few frames is biased upwards: compare figures
of like N only.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import scipy.linalg

from realaudio_jax.typing import Float


@dataclasses.dataclass(frozen=True)
class GaussianStatistics:
    """Count, mean and centred scatter of a set of D-dimensional frames, in float64.

    Sets are joined by the pairwise update of Chan, Golub & LeVeque (1979), so the order, batch
    size and number of parts change the result by rounding only, even for a large common offset.

    Attributes:
        count: number of frames N.
        mean: [D].
        scatter: sum over frames of (x - mean)(x - mean)^T, [D D].
    """

    count: int
    mean: Float[np.ndarray, 'D']
    scatter: Float[np.ndarray, 'D D']

    @classmethod
    def empty(cls, dimension: int) -> 'GaussianStatistics':
        """Statistics of no frames: the neutral element of `merge`."""
        return cls(0, np.zeros(dimension), np.zeros((dimension, dimension)))

    @classmethod
    def of(cls, frames: Float[np.ndarray, 'N D']) -> 'GaussianStatistics':
        """Statistics of one array of frames [N D].

        Raises:
            ValueError: a frame is not finite, or the array is not [N D].
        """
        frames = np.asarray(frames, np.float64)
        if frames.ndim != 2:
            raise ValueError(f'embeddings must have shape [N, D], not {list(frames.shape)}')
        if not len(frames):
            return cls.empty(frames.shape[1])
        if not np.isfinite(frames).all():
            raise ValueError('embeddings contain NaN or infinity: leave out the clip they are of')
        mean = frames.mean(0)
        centred = frames - mean[None, :]
        return cls(len(frames), mean, centred.T @ centred)

    @classmethod
    def stream(cls, parts: Iterable[Float[np.ndarray, '_ D']]) -> 'GaussianStatistics':
        """Statistics of many arrays, holding one at a time.

        Raises:
            ValueError: there is no array.
        """
        total = None
        for part in parts:
            total = cls.of(part) if total is None else total.merge(cls.of(part))
        if total is None:
            raise ValueError('no embeddings: the set of clips is empty')
        return total

    def merge(self, other: 'GaussianStatistics') -> 'GaussianStatistics':
        """Statistics of both sets together: S = S_a + S_b + (N_a N_b / N) d d^T, d = m_b - m_a.

        Raises:
            ValueError: the dimensions differ.
        """
        _require_same_dimension(self, other)
        count = self.count + other.count
        if not count:
            return self
        step = other.mean - self.mean
        weight = self.count * other.count / count
        scatter = self.scatter + other.scatter + weight * np.outer(step, step)
        return GaussianStatistics(count, self.mean + step * (other.count / count), scatter)

    @property
    def covariance(self) -> Float[np.ndarray, 'D D']:
        """Unbiased covariance S / (N - 1), [D D].

        Raises:
            ValueError: fewer than two frames.
        """
        if self.count < 2:
            raise ValueError(f'a covariance needs at least 2 frames, got {self.count}: add clips')
        return self.scatter / (self.count - 1)


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """Squared Frechet distance (1) between the Gaussians of two sets, at least 0.

    Args:
        a, b: statistics over the same embedding dimension, two frames or more each.

    Returns:
        The distance in squared units of the embedding (the field's FAD and FID).

    Raises:
        ValueError: the dimensions differ or a set has fewer than two frames.
    """
    _require_same_dimension(a, b)
    return _distance(a.mean, a.covariance, b.mean, b.covariance)


@dataclasses.dataclass(frozen=True)
class Interval:
    """A figure with its bootstrap interval and the numbers of clips it rests on."""

    value: float
    low: float
    high: float
    clips: tuple[int, int]


def frechet_interval(
    a: Sequence[Float[np.ndarray, '_ D']],
    b: Sequence[Float[np.ndarray, '_ D']],
    resamples: int = 200,
    confidence: float = 0.95,
    paired: bool = False,
    rank: int = 64,
    seed: int = 0,
) -> Interval:
    """Frechet distance between two sets of clips with a bootstrap interval over clips.

    Clips, not frames, are drawn with replacement: frames of one clip are not independent. Two
    choices keep it sound and fast. A resample repeats clips, which adds the same upward bias a
    smaller set has, so the spread about the resamples' mean is laid around the full-set value.
    And the spread is measured within the leading `rank` principal directions of both sets
    together, where nearly all the variance is; the value itself uses every direction.

    Args:
        a, b: one array [frames, D] per clip; clips of no frames are ignored.
        resamples: number of bootstrap draws.
        confidence: probability the interval is meant to cover, in (0, 1).
        paired: clip i of b was made from clip i of a (a reconstruction): both are drawn together,
            which leaves out the chance of the choice of clips that they share.
        rank: principal directions kept for the spread.
        seed: of the draws; the same seed and sets give the same interval.

    Returns:
        The value with its interval; `low` is cut at 0.

    Raises:
        ValueError: a set has no clip or fewer than two frames, or paired sets differ in number.
    """
    if paired and [len(c) > 0 for c in a] != [len(c) > 0 for c in b]:
        raise ValueError(f'paired sets must match clip by clip, got {len(a)} and {len(b)} clips')
    a, b = ([np.asarray(c, np.float64) for c in clips if len(c)] for clips in (a, b))
    whole_a, whole_b = GaussianStatistics.stream(a), GaussianStatistics.stream(b)
    value = frechet_distance(whole_a, whole_b)
    pooled = whole_a.merge(whole_b)
    size = pooled.mean.shape[0]
    _, directions = scipy.linalg.eigh(
        pooled.scatter, subset_by_index=(max(0, size - rank), size - 1)
    )
    sides = [[(c - pooled.mean[None, :]) @ directions for c in clips] for clips in (a, b)]
    frames = [np.concatenate(side) for side in sides]
    owner = [np.repeat(np.arange(len(side)), [len(c) for c in side]) for side in sides]
    rng = np.random.default_rng(seed)
    draws = np.empty(resamples)
    for i in range(resamples):
        gaussians, drawn = [], None
        for side, x, clip in zip(sides, frames, owner, strict=True):
            if drawn is None or not paired:
                drawn = rng.integers(len(side), size=len(side))
            times = np.bincount(drawn, minlength=len(side))
            gaussians.extend(_weighted_gaussian(x, times[clip].astype(np.float64)))
        draws[i] = _distance(*gaussians)
    tail = (1 - confidence) / 2
    low, high = value + np.quantile(draws, [tail, 1 - tail]) - draws.mean()
    return Interval(value, max(0.0, float(low)), float(high), (len(a), len(b)))


def _distance(mean_a, cov_a, mean_b, cov_b) -> float:
    factor = _factor(cov_a)
    eigenvalues = np.linalg.eigvalsh(factor.T @ cov_b @ factor)
    cross = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    step = mean_a - mean_b
    return float(max(0.0, step @ step + np.trace(cov_a) + np.trace(cov_b) - 2 * cross))


def _factor(cov):
    """F with F F^T = cov: Cholesky, or scaled eigenvectors where the covariance is singular."""
    try:
        return np.linalg.cholesky(cov)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(cov)
        return vectors * np.sqrt(np.maximum(values, 0))[None, :]


def _weighted_gaussian(frames, times):
    """Mean and unbiased covariance of frames each counted `times` times."""
    count = times.sum()
    mean = times @ frames / count
    centred = (frames - mean[None, :]) * np.sqrt(times)[:, None]
    return mean, centred.T @ centred / max(count - 1, 1)


def _require_same_dimension(a, b):
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f'embeddings of {a.mean.shape[0]} and {b.mean.shape[0]} dimensions cannot be compared: '
            'use one embedder for both sets'
        )
