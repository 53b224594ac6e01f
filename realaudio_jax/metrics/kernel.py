"""Kernel distance between two sets of embeddings: unbiased squared maximum mean discrepancy.

    MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)                            (1)
    k(x, y) = exp(-|x - y|^2 / (2 s^2)),   s = median |x - x'| over the reference    (2)

with x, x' frames of two different clips of the reference and y, y' of the evaluated set. No
Gaussian is assumed, and the mean does not depend on the number of clips: the distance of a set from
its own kind is 0 on average, so it can be slightly negative. Printed times 100.

Gretton et al. 2012 (JMLR 13, eq. 3); for audio, with this kernel and bandwidth, KAD of Chung et al.
2025 (arXiv 2502.15602). One difference: they leave out of (1) only a frame with itself, which is
unbiased for independent frames. Frames of one clip resemble each other, so here every pair within
one clip is left out; for an embedder with one vector a clip the two agree.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from realaudio_jax.metrics.bootstrap import Interval, draw_counts, spread_about
from realaudio_jax.typing import Float

SCALE = 100.0
BLOCK = 1024  # frames compared with as many others at once
BINS = 1 << 16  # of the histogram that finds the median: 4 digits


def kernel_interval(
    a: Sequence[Float[np.ndarray, '_ D']],
    b: Sequence[Float[np.ndarray, '_ D']],
    resamples: int = 200,
    confidence: float = 0.95,
    paired: bool = False,
    bandwidth: float | None = None,
    seed: int = 0,
) -> Interval:
    """Kernel distance (1), times 100, with a bootstrap interval over clips.

    Memory does not grow with the sets, time grows with the square of their frames. Clips are read
    several times, one block at a time, so they may lie on disk.

    Args:
        a: the reference, one array [frames, D] per clip, two clips or more; it sets the bandwidth.
        b: the evaluated set, two clips or more.
        resamples: number of bootstrap draws.
        confidence: probability the interval is meant to cover, in (0, 1).
        paired: clip i of b was made from clip i of a: both are drawn together, and pairs of one
            with the other are left out of (1) as those within a clip are.
        bandwidth: s of (2), in units of the embedding; None is the median.
        seed: of the draws.

    Raises:
        ValueError: fewer than two clips, paired sets of unlike length, or a reference whose
            vectors are all alike, which has no bandwidth.
    """
    sets = [[i for i, clip in enumerate(clips) if len(clip)] for clips in (a, b)]
    if min(map(len, sets)) < 2:
        raise ValueError(
            f'a kernel distance needs 2 clips a set, got {len(sets[0])} and {len(sets[1])}'
        )
    if paired and (len(a) != len(b) or sets[0] != sets[1]):
        raise ValueError(f'paired sets must match clip by clip, got {len(a)} and {len(b)} clips')
    centre = np.mean([a[i].mean(0) for i in sets[0]], 0)  # keeps float32 products small
    sides = [_Side(clips, used, centre) for clips, used in zip((a, b), sets, strict=True)]
    scale = _median_distance(sides[0]) if bandwidth is None else bandwidth
    if not scale > 0:
        raise ValueError('the reference has vectors that are all alike: no kernel bandwidth')
    counts = draw_counts(len(sets[0]), len(sets[1]), resamples, paired, seed)
    # the first row, every clip once, is the distance itself
    weights = [np.vstack([np.ones((1, c.shape[1])), c]) for c in counts]
    within = [
        _mean_kernel(side, side, w, w, scale, True) for side, w in zip(sides, weights, strict=True)
    ]
    across = _mean_kernel(*sides, *weights, scale, paired)
    found = SCALE * (within[0] + within[1] - 2 * across)
    value, draws = float(found[0]), found[1:]
    low, high = spread_about(value, draws, confidence)
    return Interval(value, low, high, (len(sets[0]), len(sets[1])))


def kernel_difference(
    reference: Sequence[Float[np.ndarray, '_ D']],
    a: Sequence[Float[np.ndarray, '_ D']],
    b: Sequence[Float[np.ndarray, '_ D']],
    resamples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Kernel distance of a minus that of b, both to one reference, times 100.

    Clip i of all three belongs to the same request, so all are drawn together: what the choice of
    requests adds to both distances cancels.

    Args:
        reference: real clips; it sets the bandwidth.
        a, b: the evaluated sets, as many clips each. The rest as for `kernel_interval`.

    Raises:
        ValueError: fewer than two clips, sets of unlike length, a clip without frames, or a
            reference whose vectors are all alike.
    """
    if not len(reference) == len(a) == len(b) or len(a) < 2:
        raise ValueError(
            'a difference of kernel distances needs three sets of 2 or more clips that match, got '
            f'{len(reference)}, {len(a)} and {len(b)}'
        )
    if not all(len(clip) for clips in (reference, a, b) for clip in clips):
        raise ValueError('a clip has no frames: leave that request out of all three sets')
    everyone = list(range(len(a)))
    centre = np.mean([clip.mean(0) for clip in reference], 0)
    real, *evaluated = (_Side(clips, everyone, centre) for clips in (reference, a, b))
    scale = _median_distance(real)
    if not scale > 0:
        raise ValueError('the reference has vectors that are all alike: no kernel bandwidth')
    counts, _ = draw_counts(len(a), len(a), resamples, paired=True, seed=seed)
    weights = np.vstack([np.ones((1, len(a))), counts])
    # the reference's own term of (1) is the same in both distances
    first, second = (
        _mean_kernel(side, side, weights, weights, scale, True)
        - 2 * _mean_kernel(real, side, weights, weights, scale, False)
        for side in evaluated
    )
    found = SCALE * (first - second)
    low, high = spread_about(float(found[0]), found[1:], confidence)
    return Interval(float(found[0]), low, high, (len(a), len(b)))


class _Side:
    """A set of clips, read in blocks of whole clips."""

    def __init__(self, clips, used, centre):
        self.clips, self.used, self.centre = clips, used, centre

    def blocks(self, start: int = 0) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """From clip `start` on: (first clip, frames [n D], start of each clip within them)."""
        first, frames, starts, total = start, [], [], 0
        for position in range(start, len(self.used)):
            clip = self.clips[self.used[position]] - self.centre
            frames.append(np.asarray(clip, np.float32))
            starts.append(total)
            total += len(clip)
            if total >= BLOCK or position == len(self.used) - 1:
                yield first, np.concatenate(frames), np.array(starts)
                first, frames, starts, total = position + 1, [], [], 0


def _block_pairs(a, b, same_clips):
    """Every block of a with every block of b; within one set each pair once, with its factor."""
    symmetric = a is b
    for i, x, x_starts in a.blocks():
        for j, y, y_starts in b.blocks(i if symmetric else 0):
            factor = 2.0 if symmetric and j > i else 1.0
            own = np.zeros((len(x_starts), len(y_starts)), bool)
            if same_clips:
                rows = i + np.arange(len(x_starts))[:, None]
                own = rows == j + np.arange(len(y_starts))[None, :]
            yield (i, x, x_starts), (j, y, y_starts), factor, own


def _square_distance(x, y):
    """|x_i - y_j|^2, [n m]."""
    squares = [np.einsum('nd,nd->n', z, z) for z in (x, y)]
    return np.maximum(squares[0][:, None] + squares[1][None, :] - 2 * (x @ y.T), 0)


def _mean_kernel(a, b, weights_a, weights_b, scale, leave_out_own):
    """Weighted mean of k over pairs of clips, one for each row of weights [R clips]."""
    total, pairs = np.zeros(len(weights_a)), np.zeros(len(weights_a))
    for (i, x, x_starts), (j, y, y_starts), factor, own in _block_pairs(a, b, leave_out_own):
        k = np.exp(_square_distance(x, y) * np.float32(-0.5 / scale**2))
        per_clip = np.add.reduceat(k, y_starts, 1, np.float64)
        per_clip = np.add.reduceat(per_clip, x_starts, 0)
        lengths = [np.diff(s, append=len(z)) for s, z in ((x_starts, x), (y_starts, y))]
        frames = np.outer(*lengths).astype(np.float64)
        per_clip[own] = frames[own] = 0
        wa, wb = weights_a[:, i : i + len(x_starts)], weights_b[:, j : j + len(y_starts)]
        total += factor * ((wa @ per_clip) * wb).sum(1)
        pairs += factor * ((wa @ frames) * wb).sum(1)
    with np.errstate(invalid='ignore'):
        return total / pairs  # NaN where a resample drew one clip alone


def _median_distance(side) -> float:
    """Median |x - x'| over pairs of frames of different clips, from a histogram of squares."""
    largest = max(float(np.square(x).sum(1).max()) for _, x, _ in side.blocks())
    top = 4 * largest  # |x - x'|^2 is at most (2 max |x|)^2
    if not top > 0:
        return 0.0
    histogram = np.zeros(BINS)
    for (_, x, x_starts), (_, y, y_starts), factor, own in _block_pairs(side, side, True):
        squares = _square_distance(x, y)
        different = ~own[_owner(x, x_starts)][:, _owner(y, y_starts)]
        index = np.sqrt(squares[different] * np.float32((BINS - 1) ** 2 / top)).astype(np.int64)
        histogram += factor * np.bincount(index, minlength=BINS)[:BINS]
    at = int(np.searchsorted(np.cumsum(histogram), histogram.sum() / 2))
    return (at + 0.5) / (BINS - 1) * top**0.5 if at else 0.0


def _owner(frames, starts):
    """Which clip of its block each frame belongs to."""
    return np.repeat(np.arange(len(starts)), np.diff(starts, append=len(frames)))
