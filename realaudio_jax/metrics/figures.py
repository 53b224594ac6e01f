"""Figures as rows of a table: each with its number of clips, embedder and 95% interval.

fad       Frechet distance, see `frechet`
fad_inf   the same, extrapolated to infinitely many clips
kad       kernel distance, see `kernel`
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from realaudio_jax.metrics.bootstrap import Interval, bootstrap, mean_interval
from realaudio_jax.metrics.embedders.base import Embedder
from realaudio_jax.metrics.frechet import frechet_infinity_interval, frechet_interval
from realaudio_jax.metrics.kernel import kernel_interval

REAL = 'real against real'
RECONSTRUCTION = 'reconstruction against real'
DISTANCES = {
    'fad': ('Frechet distance', frechet_interval),
    'fad_inf': ('extrapolated Frechet distance', frechet_infinity_interval),
    'kad': ('kernel distance', kernel_interval),
}
# Fewer clips than this and a figure tells more of which clips they are than of what is judged.
ENOUGH_CLIPS = {
    'Frechet distance': 64,
    'extrapolated Frechet distance': 64,
    'kernel distance': 24,
    'latent error': 12,
    'class found': 24,
    'onset error, median': 12,
    'onsets within 50 ms': 12,
}
Windows = Sequence[np.ndarray]  # of an embedder, one array [frames D] per sound


def check_distances(names: Sequence[str]) -> tuple[str, ...]:
    """The names, if all are distances.

    Raises:
        ValueError: one is not, or there is none.
    """
    unknown = [name for name in names if name not in DISTANCES]
    if unknown or not names:
        raise ValueError(
            f'no metric {unknown[0]!r}; choose from {", ".join(DISTANCES)}'
            if unknown
            else f'no metric named; choose from {", ".join(DISTANCES)}'
        )
    return tuple(names)


def distance_rows(
    real: Windows,
    made: Windows,
    embedder: Embedder,
    distances: Sequence[str] = ('fad',),
    seed: int = 0,
    resamples: int = 200,
    paired: bool = False,
) -> list[dict]:
    """Distances of one set to another by one embedder.

    A distance that is not defined for these sets has a row that says why: nothing is left out in
    silence, and the others are not lost.
    """
    rows = []
    for name in check_distances(distances):
        label, measure = DISTANCES[name]
        row = {'name': label, 'embedder': embedder.name}
        try:
            found = measure(real, made, resamples, paired=paired, seed=seed)
            row = interval_row(label, found) | row
            if too_few(row):
                row['note'] = (
                    f'{row["n"]} clips: from fewer than {ENOUGH_CLIPS[label]} it ranks nothing'
                )
            rows.append(row)
        except ValueError as error:
            clips = min(len(real), len(made))
            rows.append(row | {'value': float('nan'), 'unit': '', 'n': clips, 'note': str(error)})
    return rows


def too_few(row: Mapping[str, Any]) -> bool:
    """Whether a figure rests on fewer clips than `ENOUGH_CLIPS` asks for."""
    return (row.get('n') or 0) < ENOUGH_CLIPS.get(row['name'], 0)


def difference_row(figure: str, against: str, found: Interval, unit: str = '') -> dict:
    """How far a figure lies above that of another set of sounds for the same requests.

    Args:
        figure: its name.
        against: what made the other sounds.
        found: of `paired_bootstrap` or `kernel_difference`.
        unit: of the figure.
    """
    row = interval_row(f'{figure}, minus that of {against}', found, unit)
    return row | {'figure': figure, 'against': against}


def interval_row(name: str, found: Interval, unit: str = '') -> dict:
    """A figure with its interval; n is the smaller of its sets."""
    return {
        'name': name,
        'value': found.value,
        'unit': unit,
        'n': min(found.clips),
        'low': found.low,
        'high': found.high,
    }


def mean_row(name: str, values: Sequence[float] | np.ndarray, unit: str = '', seed: int = 0):
    """The mean of one figure per clip."""
    return interval_row(name, mean_interval(list(values), seed=seed), unit)


def statistic_row(name: str, statistic, clips: Sequence, unit: str = '', seed: int = 0) -> dict:
    """Any statistic of what each clip gives; see `bootstrap`."""
    return interval_row(name, bootstrap(statistic, clips, seed=seed), unit)
