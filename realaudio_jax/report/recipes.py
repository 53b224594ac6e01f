"""Report of a comparison of recipes: means over seeds, tables, distance against time, a page.

Everything is taken from rows, each with its recipe and budget, as `experiments.compare_recipes`
collects them.
"""

import math
import pathlib
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import soundfile

from realaudio_jax.data.scenes import Scene
from realaudio_jax.io import atomic_path
from realaudio_jax.metrics.rows import (
    CLASS_FOUND,
    DIVERSITY,
    FRECHET_DISTANCE,
    FRECHET_INFINITE,
    KERNEL_DISTANCE,
    LATENT_COSINE,
    LATENT_ERROR,
    ONSET_P90,
    ONSETS_NEAR,
    TIME,
)
from realaudio_jax.report.page import ReportClip, without_paths, write_report
from realaudio_jax.report.summary import Table

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402

# The metrics of the table, and whether a smaller value is a better one.
METRICS = {
    LATENT_ERROR: True,
    LATENT_COSINE: False,
    KERNEL_DISTANCE: True,
    FRECHET_DISTANCE: True,
    FRECHET_INFINITE: True,
    CLASS_FOUND: False,
    ONSETS_NEAR: False,
    ONSET_P90: True,
    DIVERSITY: False,
    TIME: True,
}
DIFFERENCES = (FRECHET_DISTANCE, LATENT_ERROR)  # whose differences stand in the report
UPDATES, MEMORY = 'updates', 'peak memory of training'
CLOCKS = {'cpu': 'CPU time of training', 'wall': 'training time'}  # config.clock, and its cost
TEACHER, SHIPPED_STUDENT = 'teacher, guided', 'shipped student'
Row = Mapping[str, Any]


def over_seeds(
    runs: Sequence[tuple[Mapping[str, Any], Sequence[Row]]],
) -> list[dict[str, Any]]:
    """One row for each metric, recipe, budget, step count and embedder: mean over the seeds.

    Args:
        runs: recipe and budget of each run, and its rows.

    Returns:
        Rows with 'least' and 'most', the smallest and largest value of a seed, and 'n', of seeds;
        where the rows have intervals 'low' and 'high', that of the mean: the scenes of two seeds
        are drawn apart, so the squares of the half-widths add. How much training again would change
        is not in it; 'least' and 'most' show that.
    """
    found: dict[tuple, tuple[dict[str, Any], list[Row]]] = {}
    for about, rows in runs:
        for row in rows:
            if row.get('figure', row['name']) not in (*METRICS, UPDATES, *CLOCKS.values(), MEMORY):
                continue
            if row.get('value') is None or row.get('model') not in ('student', 'teacher'):
                continue
            kept = ('name', 'unit', 'model', 'steps', 'nfe', 'embedder', 'figure', 'against')
            one = {key: row[key] for key in kept if row.get(key) is not None}
            one |= {
                key: about[key] for key in ('recipe', 'budget', 'learning_rate') if key in about
            }
            found.setdefault(tuple(sorted(one.items(), key=str)), (one, []))[1].append(row)
    made = []
    for one, rows in found.values():
        values = [row['value'] for row in rows]
        mean = float(np.mean(values))
        spread = {'least': float(np.min(values)), 'most': float(np.max(values)), 'n': len(values)}
        if all(row.get('low') is not None for row in rows):
            low, high = (
                math.hypot(*(row['value'] - row[end] for row in rows)) / len(rows)
                for end in ('low', 'high')
            )
            spread |= {'low': mean - low, 'high': mean + high}
        made.append(one | {'value': mean} | spread)
    return made


def of_student(row: Row) -> bool:
    """Whether a row is of a student, not of the teacher."""
    return row.get('model') == 'student'


def tables(rows: Sequence[Row]) -> list[Table]:
    """For each budget: costs, each metric with recipes down and evaluations across, differences.

    A teacher has half as many steps as evaluations; its reference of 50 steps stands last.
    """
    made = []
    for budget in dict.fromkeys(row['budget'] for row in rows):
        of = [row for row in rows if row['budget'] == budget]
        made.append(_cost_table(budget, of))
        apart = [row for row in of if 'figure' in row]
        alone = [row for row in of if 'figure' not in row]
        made += [_metric_table(budget, *key, mine) for key, mine in _by_metric(alone, METRICS)]
        for against in dict.fromkeys(row['against'] for row in apart):
            mine = [row for row in apart if row['against'] == against]
            made += [
                _difference_table(budget, against, *key, some)
                for key, some in _by_metric(mine, DIFFERENCES)
            ]
    return made


def _by_metric(
    rows: Sequence[Row], metrics: Collection[str]
) -> list[tuple[tuple[str, str | None], list[Row]]]:
    """Rows of each of these metrics, or of differences of it, by embedder; in their order."""
    found: dict[tuple, list[Row]] = {}
    for row in rows:
        name = row.get('figure', row['name'])
        if name in metrics:
            found.setdefault((name, row.get('embedder')), []).append(row)
    order = list(metrics)
    return sorted(found.items(), key=lambda pair: (order.index(pair[0][0]), str(pair[0][1])))


def _metric_table(budget: str, name: str, embedder: str | None, rows: Sequence[Row]) -> Table:
    """One metric."""
    smaller = METRICS[name]
    seeds = max(r['n'] for r in rows)

    def cell(row: Row) -> str:
        interval = f' [{row["low"]:.3g}, {row["high"]:.3g}]' if 'low' in row else ''
        worst = f' ({row["most" if smaller else "least"]:.3g})' if seeds > 1 else ''
        return f'{row["value"]:.3g}{interval}{worst}'

    unit = next((r['unit'] for r in rows if r.get('unit')), '')
    return Table(
        f'{name}{f" ({unit})" if unit else ""}{_by(embedder)}, {budget}',
        *_grid(rows, cell),
        f'{_over(seeds)}; {"smaller" if smaller else "larger"} is better.',
    )


def _difference_table(
    budget: str, against: str, name: str, embedder: str | None, rows: Sequence[Row]
) -> Table:
    """One metric, minus that of one student or of the teacher."""

    def cell(row: Row) -> str:
        verdict = ' better' if row['high'] < 0 else ' worse' if row['low'] > 0 else ''
        return f'{row["value"]:+.3g} [{row["low"]:+.3g}, {row["high"]:+.3g}]{verdict}'

    seeds = max(r['n'] for r in rows)
    return Table(
        f'{name}{_by(embedder)}, minus that of {against}, {budget}',
        *_grid(rows, cell),
        f'Of {seeds} seed{"s" if seeds > 1 else ""}, paired scene by scene, [interval of 95%]; '
        'in words where 0 is outside.',
    )


def _grid(rows: Sequence[Row], cell: Callable[[Row], str]) -> tuple[tuple, tuple]:
    """Headings and lines: recipes down, evaluations across."""
    counts = sorted({r['nfe'] for r in rows if of_student(r)}, reverse=True)
    most = max(r['nfe'] for r in rows)
    counts = [most, *(n for n in counts if n != most)]
    cells = {(r['recipe'], r['nfe']): cell(r) for r in rows}
    lines = tuple(
        (recipe, *(cells.get((recipe, n), '–') for n in counts))
        for recipe in dict.fromkeys(r['recipe'] for r in rows)
    )
    return ('recipe, by evaluations', *map(str, counts)), lines


def _by(embedder: str | None) -> str:
    return f' by {embedder}' if embedder else ''


def _over(seeds: int) -> str:
    if seeds == 1:
        return 'Of one seed, [interval of 95% over its scenes]'
    return f'Mean over {seeds} seeds, [interval of 95% over their scenes] and (the worst)'


def _cost_table(budget: str, rows: Sequence[Row]) -> Table:
    """Learning rate, updates, seconds and memory of each recipe."""
    costs = (UPDATES, *CLOCKS.values(), MEMORY)
    values = {
        (r['recipe'], r['name']): f'{r["value"]:.0f} ({r["most"]:.0f})'
        for r in rows
        if r['name'] in costs
    }
    rates = {r['recipe']: f'{r["learning_rate"]:g}' for r in rows if 'learning_rate' in r}
    lines = [
        (recipe, rate, *(values.get((recipe, name), '–') for name in costs))
        for recipe, rate in rates.items()
    ]
    headings = (UPDATES, *(f'{name} (s)' for name in CLOCKS.values()), f'{MEMORY} (MiB)')
    return Table(
        f'Cost, {budget}',
        ('recipe', 'learning rate', *headings),
        tuple(lines),
        'Mean over the seeds, in brackets the most. Seconds are of updates alone, without '
        'compilation; CPU time is of all cores, so other work on the machine hardly changes it.',
    )


def tuning_table(errors: Mapping[str, Mapping[float, float]]) -> Table:
    """The trials of every recipe: latent error at each learning rate."""
    rates = list(next(iter(errors.values())))
    return Table(
        'Trials: latent error by learning rate',
        ('recipe', *(f'{rate:g}' for rate in rates)),
        tuple((name, *(f'{of[rate]:.3f}' for rate in rates)) for name, of in errors.items()),
        'On a seed of their own, at four steps or the nearest; the smallest was kept.',
    )


def drawn_distance(rows: Sequence[Row]) -> tuple[str, str | None]:
    """What the plot shows: a distance by an embedder that did not come with the release, if any."""
    for name in (FRECHET_DISTANCE, FRECHET_INFINITE, KERNEL_DISTANCE, LATENT_ERROR):
        embedders = [r.get('embedder') for r in rows if r['name'] == name]
        if embedders:
            return name, sorted(embedders, key=lambda e: (str(e).startswith('audio tower'), e))[0]
    raise ValueError('no distance to draw')


def best_trades(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether no other point is at most as large in one coordinate and smaller in the other."""
    return [not any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in points) for a in points]


def plot(rows: Sequence[Row], path: pathlib.Path, beside: Sequence[str] = ()) -> None:
    """Distance against time of a sound, one panel a budget; a ring where no other point is better.

    Where times were not measured, against evaluations of the denoiser.

    Args:
        rows: see `over_seeds`.
        path: of the PNG.
        beside: recipes that are no trained ones, drawn as dashed lines.
    """
    name, embedder = drawn_distance(rows)
    budgets = list(dict.fromkeys(row['budget'] for row in rows))
    figure, axes = plt.subplots(
        1, len(budgets), figsize=(7 * len(budgets), 5), squeeze=False, layout='constrained'
    )
    for axis, budget in zip(axes[0], budgets, strict=True):
        of = [row for row in rows if row['budget'] == budget]
        mine = [r for r in of if (r['name'], r.get('embedder')) == (name, embedder)]
        times = {(r['model'], r['steps']): r['value'] for r in of if r['name'] == TIME}
        label = f'{TIME} (ms)' if times else 'evaluations of the denoiser'
        times = times or {(r['model'], r['steps']): r['nfe'] for r in mine}
        mine = [r for r in mine if (r['model'], r['steps']) in times]
        points = [(times[r['model'], r['steps']], r['value']) for r in mine]
        for recipe in dict.fromkeys(r['recipe'] for r in mine):
            own = [(p, r) for p, r in zip(points, mine, strict=True) if r['recipe'] == recipe]
            own.sort(key=lambda pair: pair[0])
            down = [r['value'] - r.get('low', r['least']) for _, r in own]
            up = [r.get('high', r['most']) - r['value'] for _, r in own]
            axis.errorbar(
                *zip(*(p for p, _ in own), strict=True),
                [down, up],
                marker='o',
                ms=4,
                ls='--' if recipe in beside else '-',
                lw=1.2,
                capsize=2,
                label=recipe,
            )
        best = [p for p, keep in zip(points, best_trades(points), strict=True) if keep]
        axis.plot(*zip(*best, strict=True), 'o', ms=11, mfc='none', mec='0.2', ls='')
        positive = all(row['value'] > 0 for row in mine)
        axis.set(xscale='log', yscale='log' if positive else 'linear', title=budget, xlabel=label)
        axis.grid(alpha=0.25, which='both')
    axes[0][0].set_ylabel(f'{name}{f", {embedder}" if embedder else ""}')
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside right center', frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def write_page(
    path: pathlib.Path,
    labels: Mapping[str, str],
    samples: pathlib.Path,
    scenes: Sequence[Scene],
    found: Sequence[Table],
) -> None:
    """The report: tables, and the same noise through every recipe.

    Args:
        path: of the page.
        labels: what is said of each run, by the name of its samples.
        samples: their folder.
        scenes: that they were evaluated on.
        found: see `tables`.
    """
    clips = []
    for i, scene in enumerate(scenes):
        for name, label in labels.items():
            audio, rate = soundfile.read(
                samples / f'{i}-{name}.wav', dtype='float32', always_2d=True
            )
            clips.append(ReportClip(scene.caption, label, audio, rate, scene.events))
    write_report(
        path,
        'Distillation recipes on one teacher',
        clips,
        [],
        found,
        facts={'command': without_paths(' '.join(sys.argv))},
        note='Four steps of every recipe from the same noise, as trained: without moment matching, '
        'but for the shipped student.',
    )
