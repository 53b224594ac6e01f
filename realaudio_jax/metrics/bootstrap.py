"""Bootstrap confidence intervals over clips.

Clips, not frames, are drawn with replacement: frames of one clip are not independent. A resample
repeats clips, which shifts a distance upwards as a smaller set would; so the spread of the
resamples about their own mean is laid around the value of the full set (Efron & Tibshirani 1993,
section 10.2, with the bias taken out once instead of twice).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from realaudio_jax.typing import Array, Float, Int

AnyArray = np.ndarray | Array


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value with its bootstrap interval and the numbers of clips behind it."""

    value: float
    low: float
    high: float
    clips: tuple[int, ...]


def draw_counts(
    clips_a: int, clips_b: int, resamples: int, paired: bool = False, seed: int = 0
) -> tuple[Int[np.ndarray, 'R A'], Int[np.ndarray, 'R B']]:
    """How often each clip of two sets is drawn in each resample.

    Args:
        clips_a, clips_b: sizes of the sets.
        resamples: number of draws R.
        paired: clip i of b was made from clip i of a: both are drawn together.
        seed: the same seed and sizes give the same draws.
    """
    rng = np.random.default_rng(seed)
    counts = ([], [])
    for _ in range(resamples):
        drawn = rng.integers(clips_a, size=clips_a)
        counts[0].append(np.bincount(drawn, minlength=clips_a))
        if not paired:
            drawn = rng.integers(clips_b, size=clips_b)
        counts[1].append(np.bincount(drawn, minlength=clips_b))
    a, b = (
        np.array(c, np.int64).reshape(resamples, n)
        for c, n in zip(counts, (clips_a, clips_b), strict=True)
    )
    return a, b


def spread_about(
    value: float, draws: Float[np.ndarray, 'R'], confidence: float = 0.95
) -> tuple[float, float]:
    """Ends of the interval: quantiles of the draws, moved so that their mean is the value.

    Draws that are not defined (NaN) are left out; with none left both ends are the value.
    """
    draws = draws[np.isfinite(draws)]
    if not draws.size:
        return value, value
    tail = (1 - confidence) / 2
    low, high = value + np.quantile(draws, [tail, 1 - tail]) - draws.mean()
    return float(low), float(high)


def bootstrap(
    statistic: Callable[[list], float],
    clips: Sequence[Any],
    resamples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A statistic of a set of clips with the plain percentile interval.

    Args:
        statistic: of a list of what each clip gives (a number, an array of errors, ...). NaN where
            it is undefined; such draws are left out.
        clips: what each clip gives.
        resamples: number of draws.
        confidence: probability the interval is meant to cover, in (0, 1).
        seed: of the draws.

    Raises:
        ValueError: there is no clip.
    """
    if not len(clips):
        raise ValueError('no clips: a metric needs at least one')
    value = float(statistic(list(clips)))
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(clips), size=len(clips)) for _ in range(resamples))
    draws = np.array([statistic([clips[i] for i in indices]) for indices in drawn])
    draws = draws[~np.isnan(draws)]
    if not draws.size:
        return Interval(value, value, value, (len(clips),))
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(value, float(low), float(high), (len(clips),))


def paired_bootstrap(
    statistic: Callable[[list], float],
    a: Sequence[Any],
    b: Sequence[Any],
    resamples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A statistic of a minus that of b, where clip i of both answers the same request.

    Both are resampled together, so that what makes a request hard or easy for both cancels: the
    interval of the difference is narrower than the two intervals suggest (Efron & Tibshirani 1993,
    section 8.4).

    Args:
        statistic, resamples, confidence, seed: see `bootstrap`.
        a, b: what each clip gives, in the same order.

    Raises:
        ValueError: there is no clip, or the two are not of one length.
    """
    if len(a) != len(b):
        raise ValueError(f'paired sets must match clip by clip, got {len(a)} and {len(b)} clips')

    def difference(pairs: list) -> float:
        first, second = zip(*pairs, strict=True)
        return statistic(list(first)) - statistic(list(second))

    pairs = list(zip(a, b, strict=True))
    return bootstrap(difference, pairs, resamples, confidence, seed)


def mean_interval(
    values: Float[AnyArray, 'N'] | Sequence[float], resamples: int = 200, seed: int = 0
) -> Interval:
    """The mean of one value per clip, with its interval."""
    return bootstrap(
        lambda drawn: float(np.mean(drawn)), list(np.asarray(values)), resamples, seed=seed
    )
