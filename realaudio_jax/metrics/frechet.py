"""Frechet distance between two sets of embeddings, from streaming Gaussian statistics.

    d^2 = |m_a - m_b|^2 + tr C_a + tr C_b - 2 tr (C_a^1/2 C_b C_a^1/2)^1/2           (1)

Any factor F with F F^T = C_a gives the last trace, since F^T C_b F and C_a^1/2 C_b C_a^1/2 have
the same non-zero eigenvalues. That matrix is symmetric, so its eigenvalues are real and
non-negative up to rounding, and a rank-deficient covariance needs no added diagonal (a general
matrix square root of C_a C_b does, and biases the result).

The distance is that of Dowson & Landau (1982), in the use of Heusel et al. 2017 (arXiv
1706.08500, eq. 6) and, for audio, Kilgour et al. 2019 (arXiv 1812.08466, eq. 1). Covariances
are unbiased (divided by N - 1). A distance from few frames is biased upwards: compare distances
of like N only, or extrapolate to infinite N:

    d(n) = d_inf + c / n,   fitted to n = N, N/2, N/3, N/4                            (2)

after Chong & Forsyth 2020 (arXiv 1911.07023) and, for audio, Gui et al. 2023 (arXiv 2311.01616).
The line is the first term of a series: where frames are fewer than dimensions the bias grows more
slowly than 1 / n, and d_inf is still too large.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import scipy.linalg

from realaudio_jax.metrics.bootstrap import Interval, draw_counts, spread_about
from realaudio_jax.typing import Float, Int

BLOCK = 2048  # frames joined before their statistics are taken
PARTS = (1, 2, 3, 4)  # the set is cut into so many parts for (2)


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
        """Statistics of many arrays, holding a few at a time.

        Raises:
            ValueError: there is no array.
        """
        total = None
        for block in _blocks(parts):
            total = cls.of(block) if total is None else total.merge(cls.of(block))
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
    return float(_distance(a.mean, a.covariance, b.mean, b.covariance))


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

    The spread (`bootstrap`) is measured within the leading `rank` principal directions of both
    sets together, where nearly all the variance is; the value itself uses every direction. Clips
    are read twice, one block at a time, so they may lie on disk.

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
    sets = [_used(a, b, paired), _used(b, a, paired)]
    whole = [GaussianStatistics.stream(_clips(*each)) for each in sets]
    value = frechet_distance(*whole)
    counts = draw_counts(*(len(each[1]) for each in sets), resamples, paired, seed)
    directions = _principal(*whole, rank)
    draws = _distance(
        *_weighted_gaussians(*sets[0], *directions, counts[0]),
        *_weighted_gaussians(*sets[1], *directions, counts[1]),
    )
    low, high = spread_about(value, draws, confidence)
    return Interval(value, max(0.0, low), high, tuple(len(each[1]) for each in sets))


def frechet_difference(
    real: Sequence[Float[np.ndarray, '_ D']],
    a: Sequence[Float[np.ndarray, '_ D']],
    b: Sequence[Float[np.ndarray, '_ D']],
    resamples: int = 200,
    confidence: float = 0.95,
    rank: int = 64,
    seed: int = 0,
) -> Interval:
    """d(real, b) - d(real, a) of two reconstructions of the same clips, with a paired interval.

    Every resample draws the same clips of all three sets, so that the chance of their choice, which
    the two distances share, is left out: b is better where the interval lies below 0.

    Args:
        real: the originals, one array [frames, D] per clip.
        a, b: what two codecs made of each. The rest as for `frechet_interval`.

    Raises:
        ValueError: as for paired sets of `frechet_interval`.
    """
    sets = [_used(real, a, True), _used(a, b, True), _used(b, real, True)]
    whole = [GaussianStatistics.stream(_clips(*each)) for each in sets]
    value = frechet_distance(whole[0], whole[2]) - frechet_distance(whole[0], whole[1])
    count = len(sets[0][1])
    counts = draw_counts(count, count, resamples, True, seed)[0]
    directions = _principal(whole[0], whole[1].merge(whole[2]), rank)
    origin, first, second = (_weighted_gaussians(*each, *directions, counts) for each in sets)
    draws = _distance(*origin, *second) - _distance(*origin, *first)
    return Interval(value, *spread_about(value, draws, confidence), (count, count))


def frechet_infinity_interval(
    a: Sequence[Float[np.ndarray, '_ D']],
    b: Sequence[Float[np.ndarray, '_ D']],
    resamples: int = 200,
    confidence: float = 0.95,
    paired: bool = False,
    rank: int = 64,
    seed: int = 0,
) -> Interval:
    """Frechet distance extrapolated to infinitely many clips of b by (2), with its interval.

    The evaluated set b is cut at random into one, two, three and four parts; d(N / k) is the mean
    over the k parts, so that every clip counts at every size (the papers draw subsets, and frames
    in place of clips). The reference a stays whole, as there: its own bias remains, and is the
    same for every row of a table.

    Args:
        a: the reference.
        b: the evaluated set, at least 8 clips. The rest as for `frechet_interval`.

    Returns:
        The intercept of the least-squares line with its interval; noise can make it negative.

    Raises:
        ValueError: as for `frechet_interval`, or b has fewer than 8 clips.
    """
    (a, used_a), (b, used_b) = _used(a, b, paired), _used(b, a, paired)
    if len(used_b) < 2 * PARTS[-1]:
        raise ValueError(
            f'extrapolating a distance needs at least {2 * PARTS[-1]} clips, got {len(used_b)}'
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(_canonical_order(b, used_b))
    whole_a = GaussianStatistics.stream(_clips(a, used_a))
    factor = _factor(whole_a.covariance)
    means, whole_b = [], None
    for k in PARTS:
        parts = [GaussianStatistics.stream(_clips(b, p)) for p in np.array_split(order, k)]
        whole_b = whole_b or parts[0]
        found = [_distance(whole_a.mean, factor, p.mean, p.covariance, True) for p in parts]
        means.append(np.mean(found))
    value = float(_intercept(np.array(means)))

    counts_a, counts_b = draw_counts(len(used_a), len(used_b), resamples, paired, seed)
    directions = _principal(whole_a, whole_b, rank)
    mean_a, cov_a = _weighted_gaussians(a, used_a, *directions, counts_a)
    factors = _factor(cov_a)
    draws = []
    for k in PARTS:
        # each resample is cut into k parts: of a clip drawn m times, every draw goes its own way
        part_counts = np.stack([_cut(c, k, rng) for c in counts_b])  # [R k clips]
        found = []
        for i in range(k):
            mean_b, cov_b = _weighted_gaussians(b, used_b, *directions, part_counts[:, i])
            found.append(_distance(mean_a, factors, mean_b, cov_b, True))
        draws.append(np.mean(found, 0))
    low, high = spread_about(value, _intercept(np.array(draws)), confidence)
    return Interval(value, low, high, (len(used_a), len(used_b)))


def _distance(mean_a, cov_a, mean_b, cov_b, factored=False):
    """Distance (1) of Gaussians, or of each pair in a stack; `factored`: cov_a is its factor."""
    factor = cov_a if factored else _factor(cov_a)
    eigenvalues = np.linalg.eigvalsh(factor.mT @ cov_b @ factor)
    cross = np.sqrt(np.maximum(eigenvalues, 0)).sum(-1)
    traces = np.square(factor).sum((-2, -1)) + np.trace(cov_b, axis1=-2, axis2=-1)
    return np.maximum(0.0, np.square(mean_a - mean_b).sum(-1) + traces - 2 * cross)


def _factor(cov):
    """F with F F^T = cov: Cholesky, or scaled eigenvectors where the covariance is singular."""
    try:
        return np.linalg.cholesky(cov)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(cov)
        return vectors * np.sqrt(np.maximum(values, 0))[..., None, :]


def _intercept(means):
    """d_inf of (2) from the mean distance at each of PARTS, [4] or [4 R]."""
    k = np.array(PARTS, np.float64)
    centred = k - k.mean()
    weights = 1 / len(k) - k.mean() * centred / (centred @ centred)
    return np.tensordot(weights, means, 1)


def _cut(counts, parts, rng):
    """Cuts the draws of one resample at random into parts of like size, [parts clips]."""
    drawn = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    cut = np.array_split(drawn, parts)
    return np.stack([np.bincount(part, minlength=len(counts)) for part in cut])


def _principal(a, b, rank):
    """Mean of both sets together and its leading principal directions, [D] and [D rank].

    No more than have any variance: n frames span n - 1 directions.
    """
    pooled = a.merge(b)
    size = len(pooled.mean)
    rank = min(rank, size, max(1, pooled.count - 1))
    bounds = (size - rank, size - 1)
    return pooled.mean, scipy.linalg.eigh(pooled.scatter, subset_by_index=bounds)[1]


def _weighted_gaussians(clips, used, centre, directions, counts: Int[np.ndarray, 'R N']):
    """Means [R d] and unbiased covariances [R d d] with clip used[i] counted counts[:, i] times."""
    size = directions.shape[1]
    frames = np.zeros(len(counts))
    total, scatter = np.zeros((len(counts), size)), np.zeros((len(counts), size * size))
    for first in range(0, len(used), 64):
        sides = [
            (np.asarray(clips[i], np.float64) - centre[None, :]) @ directions
            for i in used[first : first + 64]
        ]
        weights = counts[:, first : first + 64].astype(np.float64)
        frames += weights @ [len(x) for x in sides]
        total += weights @ [x.sum(0) for x in sides]
        scatter += weights @ [(x.T @ x).ravel() for x in sides]
    mean = total / frames[:, None]
    outer = (mean[:, :, None] * mean[:, None, :]).reshape(scatter.shape)
    cov = (scatter - frames[:, None] * outer) / np.maximum(frames - 1, 1)[:, None]
    return mean, cov.reshape(-1, size, size)


def _canonical_order(clips, used):
    """Clips in an order that depends on what they hold, so that a set has one value."""
    keys = [np.asarray(clips[i], np.float64).mean() for i in used]
    return used[np.argsort(keys, kind='stable')]


def _used(clips, others, paired):
    """The clips and the indices of those that hold frames."""
    held = np.array([len(c) > 0 for c in clips], bool)
    if paired and (len(clips) != len(others) or list(held) != [len(c) > 0 for c in others]):
        raise ValueError(
            f'paired sets must match clip by clip, got {len(clips)} and {len(others)} clips'
        )
    return clips, np.flatnonzero(held)


def _clips(clips, used) -> Iterator[np.ndarray]:
    return (clips[i] for i in used)


def _blocks(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The arrays joined into blocks of at least BLOCK frames: a merge costs D^2 however few."""
    waiting, count = [], 0
    for part in parts:
        waiting.append(np.asarray(part))
        count += len(part)
        if count >= BLOCK:
            yield np.concatenate(waiting)
            waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)


def _require_same_dimension(a, b):
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f'embeddings of {a.mean.shape[0]} and {b.mean.shape[0]} dimensions cannot be compared: '
            'use one embedder for both sets'
        )
