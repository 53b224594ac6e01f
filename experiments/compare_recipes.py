"""Compares distillation recipes on one teacher: one start, the same data, seeds and budget.

python -m experiments.compare_recipes --config=configs/recipes.py --workdir=runs/recipes

Each recipe is tried at the same learning rates on a seed of its own; the rate with the smallest
latent error at four steps is kept. It is then trained from the common start with every seed, for
equal updates or equal seconds of training, and evaluated at every step count. Each run is the
experiment `distill` with configs/one_recipe.py in a process of its own, its metrics `evaluate
--run`; the same command goes on where it was stopped. docs/recipes.md says how to read the table.
"""

import itertools
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import soundfile
from absl import flags

from configs import one_recipe
from experiments.common import define_config, define_workdir, run, run_workdir, say
from realaudio_jax.data.scenes import Scene
from realaudio_jax.metrics.evaluation.scenes import held_out_scenes
from realaudio_jax.metrics.rows import (
    CLASS_FOUND,
    FRECHET_DISTANCE,
    KERNEL_DISTANCE,
    LATENT_ERROR,
    ONSETS_NEAR,
)
from realaudio_jax.report.page import ReportClip, without_paths, write_report
from realaudio_jax.report.summary import Table
from realaudio_jax.report.tables import write_results
from realaudio_jax.training.loop import STOPPED, StopRequest
from realaudio_jax.training.pieces import Piece, given, run_pieces
from realaudio_jax.training.run_folder import RELEASE, run_folder

_CONFIG = define_config('configs/recipes.py')
define_workdir()
_RECORDINGS = flags.DEFINE_string(
    'recordings', None, 'Folder of sounds, see docs/own_data.md; none: foley alone.'
)
_TEACHER_RELEASE = flags.DEFINE_string('release', 'foley', 'Gives the teacher.')
_WEIGHTS = flags.DEFINE_string(
    'embedder_weights', None, 'Folder of YAMNet weights, for an independent evaluator.'
)

METRICS = (LATENT_ERROR, KERNEL_DISTANCE, FRECHET_DISTANCE, CLASS_FOUND, ONSETS_NEAR)
Row = Mapping[str, Any]


class Comparison:
    """The runs of a comparison: their command lines, and what they left."""

    def __init__(
        self,
        config,
        workdir: pathlib.Path,
        release: str,
        recordings: str | None,
        embedder_weights: str | None,
    ):
        self.config, self.workdir = config, workdir
        self._inputs = given(release=release, recordings=recordings)
        self._weights = given(embedder_weights=embedder_weights)

    @property
    def start(self) -> pathlib.Path:
        """The run that all recipes begin with."""
        return self.workdir / 'start'

    def start_piece(self) -> Piece:
        """Guidance is folded into a student of many steps."""
        return self._piece(one_recipe.START, self.start, self.config.tuning_seed, {}, None)

    def tuning(self) -> Iterator[tuple[str, float, Piece]]:
        """Recipe, learning rate, and its run."""
        c = self.config
        for name, rate in itertools.product(c.recipes, c.rates):
            folder = self.workdir / 'tuning' / f'{name}-{rate:g}'
            settings = stage_settings(name, c.suffix, c.tuning_updates, rate)
            yield name, rate, self._piece(name, folder, c.tuning_seed, settings, c.tuning_scenes)

    def best_rate(self, name: str) -> tuple[float, float]:
        """The learning rate of a recipe, and the seconds that an update took."""
        runs = {rate: piece.made.parent for n, rate, piece in self.tuning() if n == name}
        errors = {rate: _value(results(folder), LATENT_ERROR, 4) for rate, folder in runs.items()}
        rate = min(errors, key=errors.__getitem__)
        return rate, seconds_per_update(runs[rate] / 'metrics.jsonl')

    def final(self) -> Iterator[tuple[dict[str, Any], Piece]]:
        """What tells a reported run from the others, and the run."""
        c = self.config
        for budget, name, seed in itertools.product(c.budgets, c.recipes, c.seeds):
            rate, seconds = self.best_rate(name)
            updates = c.updates if budget == 'updates' else max(1, round(c.seconds / seconds))
            folder = self.workdir / budget / f'{name}-{seed}'
            settings = stage_settings(name, c.suffix, updates, rate)
            about = {
                'recipe': name,
                'budget': f'equal {budget}',
                'learning_rate': rate,
                'updates': updates,
                'training_seconds': round(updates * seconds, 1),
            }
            yield about, self._piece(name, folder, seed, settings, c.scenes)

    def _piece(
        self,
        name: str,
        folder: pathlib.Path,
        seed: int,
        settings: Mapping[str, Any],
        scenes: int | None,
    ) -> Piece:
        """A run of one recipe, evaluated on so many scenes (None: not at all)."""
        student = folder / RELEASE
        train = (
            'experiments.distill',
            f'--config=configs/one_recipe.py:{name}{self.config.suffix}',
            *given(workdir=folder, **{'config.seed': seed}),
            *given(**settings),
            *given(latents=self.workdir / 'latents'),
            *self._inputs,
            *(() if name == one_recipe.START else given(student=self.start / RELEASE)),
            '--noevaluate',
        )
        label = str(folder.relative_to(self.workdir))
        if scenes is None:
            return Piece(label, (train,), student / 'config.json')
        evaluate = (
            'experiments.evaluate',
            *given(run=folder, scenes=scenes, seed=seed),
            *self._weights,
        )
        return Piece(label, (train, evaluate), folder / 'results.json')


def stage_settings(name: str, suffix: str, updates: int, rate: float) -> dict[str, Any]:
    """The flags that give a recipe so many updates, shared evenly by its stages, at this rate."""
    stages = one_recipe.get_config(name + suffix).stages
    bounds = np.linspace(0, max(updates, len(stages)), len(stages) + 1).round().astype(int)
    settings = {}
    for i, count in enumerate(np.diff(bounds)):
        settings[f'config.stages[{i}].updates'] = int(count)
        settings[f'config.stages[{i}].learning_rate'] = rate
    return settings


def seconds_per_update(path: pathlib.Path) -> float:
    """Median seconds of an update between two lines of metrics.jsonl of one stage."""
    lines = [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
    pairs = [pair for pair in itertools.pairwise(lines) if pair[0]['stage'] == pair[1]['stage']]
    took = [(b['time'] - a['time']) / (b['step'] - a['step']) for a, b in pairs]
    if not took:
        raise ValueError(f'{path}: no two lines of one stage; raise config.tuning_updates')
    return float(np.median(took))


def results(folder: pathlib.Path) -> list[Row]:
    """Rows of a run's results."""
    return json.loads((folder / 'results.json').read_text(encoding='utf-8'))


def _value(rows: Sequence[Row], name: str, steps: int) -> float:
    """A metric of the student, by the first embedder that has it."""
    counts = [r['steps'] for r in rows if r['name'] == name and r.get('model') == 'student']
    steps = min(counts, key=lambda count: abs(count - steps))
    return next(
        r['value']
        for r in rows
        if r['name'] == name and r.get('model') == 'student' and r['steps'] == steps
    )


def over_seeds(runs: Sequence[tuple[dict[str, Any], Sequence[Row]]]) -> list[dict[str, Any]]:
    """One row for each metric, recipe, budget, step count and embedder: mean over the seeds.

    Args:
        runs: what tells a run from the others, and the rows of its results.

    Returns:
        Rows with 'low' and 'high', the smallest and largest value of a seed, and 'n', of seeds.
    """
    found: dict[tuple, dict[str, Any]] = {}
    for about, rows in runs:
        for row in rows:
            if row['name'] not in METRICS or row.get('model') not in ('student', 'teacher'):
                continue
            student = row['model'] == 'student'
            settings = about if student else {'recipe': 'teacher', 'budget': about['budget']}
            kept = ('name', 'unit', 'model', 'steps', 'nfe', 'embedder')
            one = settings | {key: row[key] for key in kept if row.get(key) is not None}
            values = found.setdefault(tuple(sorted(one.items(), key=str)), one | {'values': []})
            values['values'].append(row['value'])
    made = []
    for row in found.values():
        values = row.pop('values')
        spread = {'low': float(np.min(values)), 'high': float(np.max(values)), 'n': len(values)}
        made.append(row | {'value': float(np.mean(values))} | spread)
    return made


def tables(rows: Sequence[Row]) -> list[Table]:
    """One table for each budget and metric: recipes down, step counts across."""
    made = []
    for budget, name, embedder in dict.fromkeys(
        (row['budget'], row['name'], row.get('embedder')) for row in rows
    ):
        of = [
            row
            for row in rows
            if (row['budget'], row['name'], row.get('embedder')) == (budget, name, embedder)
        ]
        counts = sorted({row['steps'] for row in of if row['model'] == 'student'}, reverse=True)
        cells = {
            (row['recipe'], row['steps']): f'{row["value"]:.2f} [{row["low"]:.2f}, '
            f'{row["high"]:.2f}]'
            for row in of
        }
        lines = []
        for recipe in dict.fromkeys(row['recipe'] for row in of):
            about = next(row for row in of if row['recipe'] == recipe)
            training = [str(about.get(key, '–')) for key in ('updates', 'training_seconds')]
            label = recipe if recipe != 'teacher' else 'teacher, guided, so many evaluations'
            steps = [count // 2 if recipe == 'teacher' else count for count in counts]
            lines.append((label, *training, *(cells.get((recipe, n), '–') for n in steps)))
        unit = next((row['unit'] for row in of if row.get('unit')), '')
        made.append(
            Table(
                f'{name}{f" ({unit})" if unit else ""}, {budget}',
                ('recipe', 'updates', 'training (s)', *(f'{n} evaluations' for n in counts)),
                tuple(lines),
                'Mean over the seeds, in brackets the least and the most'
                + (f'; by {embedder}.' if embedder else '.'),
            )
        )
    return made


def write_page(
    path: pathlib.Path,
    runs: Sequence[tuple[dict[str, Any], pathlib.Path]],
    scenes: Sequence[Scene],
    found: Sequence[Table],
) -> None:
    """The report: tables, and the same noise through every recipe in its most steps up to four.

    Args:
        path: of the page.
        runs: what tells a run from the others, and its folder; all of one seed.
        scenes: that they were evaluated on.
        found: see `tables`.
    """
    clips = []
    for i, scene in enumerate(scenes):
        for about, folder in runs:
            samples = (folder / 'samples' / f'{i}-student-{n}-steps.wav' for n in (4, 2))
            sample = next((sample for sample in samples if sample.is_file()), None)
            if sample is None:
                continue
            audio, rate = soundfile.read(sample, dtype='float32', always_2d=True)
            label = f'{about["recipe"]}, {about["budget"]}'
            clips.append(ReportClip(scene.caption, label, audio, rate, scene.events))
    write_report(
        path,
        'Distillation recipes on one teacher',
        clips,
        [],
        found,
        facts={'command': without_paths(' '.join(sys.argv))},
        note='Four steps of every recipe from the same noise.',
    )


def main(argv):
    del argv
    jax.config.update('jax_platforms', 'cpu')  # a GPU's memory is for the runs alone
    config = _CONFIG.value
    inputs = {
        'release': _TEACHER_RELEASE.value,
        'recordings': _RECORDINGS.value,
        'embedder_weights': _WEIGHTS.value,
    }
    with run_folder(run_workdir(), config, inputs) as workdir, StopRequest() as stop:
        comparison = Comparison(config, workdir, *inputs.values())
        pieces = [comparison.start_piece(), *(piece for *_, piece in comparison.tuning())]
        stopped = run_pieces(pieces, workdir, stop)
        if not stopped:
            final = list(comparison.final())
            stopped = run_pieces([*pieces, *(piece for _, piece in final)], workdir, stop)
        if stopped:
            say(f'stopped in {stopped!r}: go on with the same command')
            sys.exit(STOPPED)
        runs = [(about, piece.made.parent) for about, piece in final]
        rows = over_seeds([(about, results(folder)) for about, folder in runs])
        write_results(workdir, rows, 'Recipes on one teacher')
        first = [r for r in runs if r[1].name.endswith(f'-{config.seeds[0]}')]
        one = one_recipe.get_config(config.recipes[0] + config.suffix)
        scenes, _ = held_out_scenes(
            _RECORDINGS.value, config.scenes, one.eval_seconds, config.seeds[0]
        )
        write_page(workdir / 'report.html', first, scenes[: one.report_prompts], tables(rows))
    say(f'done: open {workdir / "report.html"}; all metrics are in {workdir / "results.json"}')


if __name__ == '__main__':
    run(main)
