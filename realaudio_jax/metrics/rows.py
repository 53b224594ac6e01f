"""Rows of a results table: a metric's name and value, unit, number of clips and 95% interval."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from realaudio_jax.metrics.bootstrap import Interval, bootstrap, mean_interval

# What a row is of, in the column 'model', beside 'student' and 'teacher'.
REAL = 'real against real'
RECONSTRUCTION = 'reconstruction against real'
# Names of metrics that others ask for by name.
FRECHET_DISTANCE, KERNEL_DISTANCE = 'Frechet distance', 'kernel distance'
CLAP_SCORE, CLASS_SCORE = 'CLAP score', 'class score'
CLASS_FOUND, LATENT_ERROR = 'class found', 'latent error'
ONSET_MEDIAN, ONSETS_NEAR = 'onset error, median', 'onsets within 50 ms'
ONSET_P90, LATENT_COSINE = 'onset error, 90th percentile', 'latent cosine'
FRECHET_INFINITE, DIVERSITY = 'extrapolated Frechet distance', 'diversity of one prompt'
TIME = 'time per sound'
# Fewer clips than this and a metric tells more of which clips they are than of what is measured.
ENOUGH_CLIPS = {
    FRECHET_DISTANCE: 64,
    FRECHET_INFINITE: 64,
    KERNEL_DISTANCE: 24,
    LATENT_ERROR: 12,
    CLASS_FOUND: 24,
    ONSET_MEDIAN: 12,
    ONSETS_NEAR: 12,
}


def too_few(row: Mapping[str, Any]) -> bool:
    """Whether a metric rests on fewer clips than `ENOUGH_CLIPS` asks for."""
    return (row.get('n') or 0) < ENOUGH_CLIPS.get(row['name'], 0)


def difference_row(metric: str, against: str, found: Interval, unit: str = '') -> dict:
    """A metric minus that of another set of sounds for the same prompts.

    Args:
        metric: its name.
        against: what made the other sounds.
        found: of `paired_bootstrap` or `kernel_difference`.
        unit: of the metric.
    """
    row = interval_row(f'{metric}, minus that of {against}', found, unit)
    return row | {'figure': metric, 'against': against}


def interval_row(name: str, found: Interval, unit: str = '') -> dict:
    """A metric with its interval; n is the smaller of its sets."""
    return {
        'name': name,
        'value': found.value,
        'unit': unit,
        'n': min(found.clips),
        'low': found.low,
        'high': found.high,
    }


def mean_row(name: str, values: Sequence[float] | np.ndarray, unit: str = '', seed: int = 0):
    """The mean of one value per clip."""
    return interval_row(name, mean_interval(list(values), seed=seed), unit)


def share_row(name: str, hits: Sequence[bool] | np.ndarray) -> dict:
    """A share in percent with its exact interval, which a bootstrap of 0 or 100% does not have.

    Source of the interval: Clopper & Pearson 1934.
    """
    found = binomtest(int(np.sum(hits)), len(hits))
    low, high = found.proportion_ci(method='exact')
    return interval_row(
        name, Interval(100 * found.statistic, 100 * low, 100 * high, (len(hits),)), '%'
    )


def statistic_row(name: str, statistic, clips: Sequence, unit: str = '', seed: int = 0) -> dict:
    """Any statistic of what each clip gives; see `bootstrap`."""
    return interval_row(name, bootstrap(statistic, clips, seed=seed), unit)
