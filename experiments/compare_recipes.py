"""Compares distillation recipes on one teacher: one start, the same data, seeds and budget.

python -m experiments.compare_recipes --config=configs/recipes.py --workdir=runs/recipes

Each recipe is tried at the same learning rates on a seed of its own; the rate with the smallest
latent error at four steps is kept. It is then trained from the common start with every seed, for
equal seconds of training and for equal updates, and evaluated at every step count, beside the
shipped student. Seconds are of computing on all cores or of the clock (config.clock): other work on
a machine changes the first little. Each run is the experiment `distill` with configs/one_recipe.py
in a process of its own, the metrics are those of `evaluate_students`, which has all students of a
seed. Differences are paired: from the shipped student, from a recipe that is named beforehand
(config.baseline), and on all seeds but the first from the best recipe, which the first chooses. The
same command goes on where it was stopped; with --budget_s it stops by itself. docs/recipes.md says
how to read the table.
"""

import itertools
import json
import math
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from configs import one_recipe
from experiments.common import define_config, define_workdir, run, run_workdir, say
from realaudio_jax.metrics.distances import check_distances
from realaudio_jax.metrics.embedders.registry import embedders_in
from realaudio_jax.metrics.evaluation.generate import REFERENCE
from realaudio_jax.metrics.evaluation.scenes import held_out_scenes
from realaudio_jax.metrics.evaluation.students import SHIPPED
from realaudio_jax.metrics.rows import (
    LATENT_ERROR,
    TIME,
)
from realaudio_jax.report.recipes import (
    CLOCKS,
    MEMORY,
    SHIPPED_STUDENT,
    TEACHER,
    UPDATES,
    Row,
    drawn_distance,
    of_student,
    over_seeds,
    plot,
    tables,
    tuning_table,
    write_page,
)
from realaudio_jax.report.tables import write_results
from realaudio_jax.training.loop import STOPPED, StopRequest
from realaudio_jax.training.pieces import Piece, given, run_pieces
from realaudio_jax.training.run_folder import RELEASE, read_memory, run_folder

_CONFIG = define_config('configs/recipes.py')
define_workdir()
_RECORDINGS = flags.DEFINE_string(
    'recordings', None, 'Folder of sounds, see docs/own_data.md; none: foley alone.'
)
_TEACHER_RELEASE = flags.DEFINE_string('release', 'foley', 'Gives the teacher.')
_WEIGHTS = flags.DEFINE_string(
    'embedder_weights',
    None,
    'Folder with weights of embedders, in it or in folders below it; config.embedders says which.',
)
_BUDGET = flags.DEFINE_float(
    'budget_s', 0.0, 'Seconds after which it stops, to go on later; 0: none.', lower_bound=0.0
)

BUDGETS = ('seconds', 'updates')


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
        self._release, self._recordings, self._weights = release, recordings, embedder_weights

    @property
    def start(self) -> pathlib.Path:
        """The run that all recipes begin with."""
        return self.workdir / 'final' / one_recipe.START

    def start_piece(self) -> Piece:
        """Guidance is folded into a student of many steps."""
        return self._training(one_recipe.START, self.start, self.config.tuning_seed, {})

    def tuning(self) -> Iterator[tuple[str, float, Piece]]:
        """Recipe, learning rate, and its run."""
        c = self.config
        for name, rate in itertools.product(c.recipes, c.rates):
            folder = self.workdir / 'tuning' / f'{name}-{rate:g}'
            settings = stage_settings(name, c.suffix, c.tuning_updates, rate)
            yield name, rate, self._training(name, folder, c.tuning_seed, settings)

    def tuning_evaluation(self) -> Piece:
        """The latent errors of all trials, from the same scenes and noise."""
        c = self.config
        return self._evaluation(
            self.workdir / 'tuning' / 'evaluation',
            [_folder_of(piece) for *_, piece in self.tuning()],
            c.tuning_seed,
            scenes=c.tuning_scenes,
            steps=few(c.steps),
            metrics='kad',
        )

    def tuning_errors(self) -> dict[str, dict[float, float]]:
        """Latent error of each recipe at each rate; nothing where there was no choice."""
        if len(self.config.rates) == 1:
            return {}
        rows = results(self.workdir / 'tuning' / 'evaluation')
        rows = [r for r in rows if _is(r, LATENT_ERROR) and 'student' in r]
        errors = {r['student']: r['value'] for r in rows}
        found: dict[str, dict[float, float]] = {}
        for name, rate, piece in self.tuning():
            found.setdefault(name, {})[rate] = errors.get(_folder_of(piece).name, math.nan)
        return found

    def best_rate(self, name: str) -> tuple[float, float]:
        """The learning rate of a recipe, and the seconds that an update took.

        An error that is not finite is the largest.
        """
        errors = self.tuning_errors().get(name, dict.fromkeys(self.config.rates, 0.0))
        rate = min(errors, key=lambda r: errors[r] if math.isfinite(errors[r]) else math.inf)
        folder = self.workdir / 'tuning' / f'{name}-{rate:g}'
        return rate, seconds_per_update(folder / 'metrics.jsonl', self.config.clock)

    def final(self) -> Iterator[tuple[dict[str, Any], Piece]]:
        """What tells a reported run from the others, and the run."""
        c = self.config
        rates = {name: self.best_rate(name) for name in c.recipes}
        for budget, seed, name in itertools.product(c.budgets, c.seeds, c.recipes):
            rate, seconds = rates[name]
            updates = c.updates if budget == 'updates' else max(1, round(c.seconds / seconds))
            folder = self.workdir / 'final' / f'{name}-{budget}-{seed}'
            settings = stage_settings(name, c.suffix, updates, rate)
            about = {
                'recipe': name,
                'budget': f'equal {budget}',
                'seed': seed,
                'learning_rate': rate,
                'updates': updates,
                'seconds_per_update': seconds,
            }
            yield about, self._training(name, folder, seed, settings)

    def best(self) -> dict[str, str]:
        """For each budget the best recipe of the first seed: the smallest of `drawn_distance`.

        At four steps or the nearest; of those whose distance is finite.
        """
        rows, found = self.evaluated(self.config.seeds[0]), {}
        name, embedder = drawn_distance(rows)
        (steps,) = few(self.config.steps)
        distances = {
            r['student']: r['value']
            for r in rows
            if _is(r, name) and r.get('embedder') == embedder and r.get('steps') == steps
            if 'student' in r and math.isfinite(r['value'])
        }
        for about, piece in self.final():
            run = _folder_of(piece).name
            if about['seed'] == self.config.seeds[0] and run in distances:
                found.setdefault(about['budget'], {})[about['recipe']] = distances[run]
        return {budget: min(of, key=of.get) for budget, of in found.items()}

    def evaluated(self, seed: int) -> list[Row]:
        """What `evaluation` of a seed measured."""
        return results(self.workdir / 'evaluation' / str(seed))

    def evaluation(self, seed: int) -> Piece:
        """The metrics of all final runs of a seed, of the start and of the shipped student.

        That of a later seed needs the results of the first, which choose the best recipes.
        """
        c = self.config
        first = seed == c.seeds[0]
        best = {} if first else self.best()
        runs, against = [], [SHIPPED]
        for about, piece in self.final():
            if about['seed'] == seed:
                runs.append(_folder_of(piece))
                if about['recipe'] in (c.baseline, best.get(about['budget'])):
                    against.append(runs[-1].name)
        one = one_recipe.get_config(c.recipes[0] + c.suffix)
        return self._evaluation(
            self.workdir / 'evaluation' / str(seed),
            [self.start, *runs],
            seed,
            scenes=c.scenes,
            steps=c.steps,
            metrics=','.join(c.distances),
            diversity_prompts=c.diversity_prompts,
            shipped=self._release,
            against=','.join(against),
            keep=one.report_prompts if first else None,
        )

    def times(self) -> Piece:
        """The time of a sound at every step count: all students are one network."""
        c = self.config
        return self._evaluation(
            self.workdir / 'evaluation' / 'times',
            [self.start],
            c.tuning_seed,
            scenes=c.tuning_scenes,
            steps=c.steps,
            metrics='kad',
            times=True,
        )

    def measured_times(self) -> list[Row]:
        """Of the students and the teacher; nothing where they were not wanted."""
        if not self.config.times:
            return []
        return [r for r in results(self.workdir / 'evaluation' / 'times') if r['name'] == TIME]

    def _training(
        self, name: str, folder: pathlib.Path, seed: int, settings: Mapping[str, Any]
    ) -> Piece:
        """A run of one recipe."""
        train = (
            'experiments.distill',
            f'--config=configs/one_recipe.py:{name}{self.config.suffix}',
            *given(workdir=folder, **{'config.seed': seed, 'config.log_every': 1}),
            *given(**{'config.scenes': self.config.training_scenes}),
            *given(**settings),
            *given(latents=self.workdir / 'latents'),
            *given(release=self._release, recordings=self._recordings),
            *(() if name == one_recipe.START else given(student=self.start / RELEASE)),
            '--noevaluate',
        )
        label = str(folder.relative_to(self.workdir))
        return Piece(label, (train,), folder / RELEASE / 'config.json')

    def _evaluation(
        self,
        folder: pathlib.Path,
        runs: Sequence[pathlib.Path],
        seed: int,
        steps: Sequence[int],
        **settings: Any,
    ) -> Piece:
        """The metrics of some runs, from the same scenes and noise."""
        c = self.config
        one = one_recipe.get_config(c.recipes[0] + c.suffix)
        command = (
            'experiments.evaluate_students',
            *given(workdir=folder, seed=seed, seconds=one.eval_seconds),
            *given(students=','.join(str(run / RELEASE) for run in runs)),
            *given(steps=','.join(map(str, sorted(steps, reverse=True)))),
            *given(recordings=self._recordings, embedder_weights=self._weights),
            *(given(embedder=','.join(c.embedders)) if self._weights else ()),
            *given(**settings),
        )
        label = str(folder.relative_to(self.workdir))
        return Piece(label, (command,), folder / 'results.json')


def few(steps: Sequence[int]) -> tuple[int]:
    """The step count at which rates are compared: four, or the nearest."""
    return (min(steps, key=lambda n: abs(n - 4)),)


def stage_settings(name: str, suffix: str, updates: int, rate: float) -> dict[str, Any]:
    """The flags that give a recipe so many updates, shared evenly by its stages, at this rate."""
    stages = one_recipe.get_config(name + suffix).stages
    bounds = np.linspace(0, max(updates, len(stages)), len(stages) + 1).round().astype(int)
    settings = {}
    for i, count in enumerate(np.diff(bounds)):
        settings[f'config.stages[{i}].updates'] = int(count)
        settings[f'config.stages[{i}].learning_rate'] = rate
    return settings


def seconds_per_update(path: pathlib.Path, clock: str) -> float:
    """Mean seconds of an update by a clock of `CLOCKS`, from the lines of metrics.jsonl.

    The mean, since the updates of some recipes are of several lengths. The first update of a stage,
    with its compilation, is left out, and so is the first after the run was stopped.

    Raises:
        ValueError: no stage has two lines of one process.
    """
    lines = [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
    pairs = [
        (b[f'{clock}_s'], b['step'] - a['step'])
        for a, b in itertools.pairwise(lines)
        if a['stage'] == b['stage'] and b[f'{clock}_s'] is not None
    ]
    if not pairs:
        raise ValueError(f'{path}: no two lines of one stage; raise config.tuning_updates')
    seconds, updates = np.sum(pairs, axis=0)
    return float(seconds / updates)


def results(folder: pathlib.Path) -> list[Row]:
    """Rows of a folder's results."""
    return json.loads((folder / 'results.json').read_text(encoding='utf-8'))


def _folder_of(piece: Piece) -> pathlib.Path:
    """The folder of a training run."""
    return piece.made.parent.parent


def _is(row: Row, name: str) -> bool:
    return row['name'] == name and row.get('value') is not None


def cost_rows(about: Mapping[str, Any], folder: pathlib.Path, clock: str) -> list[dict[str, Any]]:
    """Updates, seconds of training without compilation by both clocks, and peak memory of a run.

    Args:
        about: the run, see `Comparison.final`.
        folder: of the run.
        clock: of `about['seconds_per_update']`, which stands in where no stage has two updates.
    """
    rows = [{'name': UPDATES, 'value': about['updates'], 'unit': ''}]
    for each, name in CLOCKS.items():
        try:
            seconds = seconds_per_update(folder / 'metrics.jsonl', each)
        except ValueError:
            if each != clock:
                continue
            seconds = about['seconds_per_update']
        rows.append({'name': name, 'value': about['updates'] * seconds, 'unit': 's'})
    memory = read_memory(folder)
    if memory:
        most = memory.get('device', memory.get('host'))
        rows.append({'name': MEMORY, 'value': most / 2**20, 'unit': 'MiB'})
    return [row | {'model': 'student'} for row in rows]


def runs_of(comparison: Comparison) -> list[tuple[dict[str, Any], list[Row]]]:
    """Each run with its rows, costs included.

    The teacher, the start and the shipped student stand in every budget, and what a difference is
    from has the name of its recipe.
    """
    config, found = comparison.config, []
    by_seed = {seed: comparison.evaluated(seed) for seed in config.seeds}
    known = {SHIPPED: SHIPPED_STUDENT, REFERENCE.label: f'{TEACHER}, {REFERENCE.steps} steps'}
    named = {label: (name, None) for label, name in known.items()}
    named |= {
        _folder_of(piece).name: (about['recipe'], about['budget'])
        for about, piece in comparison.final()
    }

    def rows_of(seed: int, student: str, budget: str) -> list[Row]:
        """Of a student, differences included, but for those from a student of another budget."""
        kept = []
        for row in by_seed[seed]:
            if row.get('student') == student:
                if 'figure' in row:
                    against, of = named[row['against']]
                    if of not in (None, budget):
                        continue
                    minus = f'{row["figure"]}, minus that of {against}'
                    row = row | {'against': against, 'name': minus}
                kept.append(row)
        return kept

    for about, piece in comparison.final():
        folder = _folder_of(piece)
        rows = rows_of(about['seed'], folder.name, about['budget'])
        found.append((about, rows + cost_rows(about, folder, config.clock)))
    beside = {one_recipe.START: one_recipe.START, SHIPPED_STUDENT: SHIPPED}
    for seed, budget in itertools.product(config.seeds, config.budgets):
        about = {'budget': f'equal {budget}', 'seed': seed}
        for name, student in beside.items():
            found.append((about | {'recipe': name}, rows_of(seed, student, about['budget'])))
        shared = [r for r in by_seed[seed] if 'student' not in r]
        found.append((about | {'recipe': TEACHER}, shared))
    times = comparison.measured_times()
    for budget in config.budgets:
        about = {'budget': f'equal {budget}'}
        found.append((about | {'recipe': 'any student'}, [r for r in times if of_student(r)]))
        found.append((about | {'recipe': TEACHER}, [r for r in times if not of_student(r)]))
    return found


def forget_checkpoints(pieces: Sequence[Piece]) -> None:
    """Removes the checkpoints of training runs that have ended: they are many and large."""
    for piece in pieces:
        if piece.made.name == 'config.json' and piece.made.exists():
            shutil.rmtree(_folder_of(piece) / 'checkpoints', ignore_errors=True)


def report(comparison: Comparison, recordings: str | None) -> None:
    """Writes results.json, results.md, pareto.png and report.html."""
    config, workdir = comparison.config, comparison.workdir
    rows = over_seeds(runs_of(comparison))
    write_results(workdir, rows, 'Recipes on one teacher')
    plot(rows, workdir / 'pareto.png', (TEACHER, one_recipe.START, SHIPPED_STUDENT))
    seed = config.seeds[0]
    labels = {one_recipe.START: one_recipe.START, SHIPPED: SHIPPED_STUDENT}
    labels |= {
        _folder_of(piece).name: f'{about["recipe"]}, {about["budget"]}'
        for about, piece in comparison.final()
        if about['seed'] == seed
    }
    one = one_recipe.get_config(config.recipes[0] + config.suffix)
    scenes, _ = held_out_scenes(recordings, config.scenes, one.eval_seconds, seed)
    errors = comparison.tuning_errors()
    found = [*tables(rows), *([tuning_table(errors)] if errors else [])]
    write_page(
        workdir / 'report.html',
        labels,
        workdir / 'evaluation' / str(seed) / 'samples',
        scenes[: one.report_prompts],
        found,
    )


def seconds_left(begin: float) -> float:
    """Of the budget of a call that began then; 0 where it has none."""
    return max(1e-3, _BUDGET.value + begin - time.monotonic()) if _BUDGET.value else 0.0


def check(config, budget_s: float, embedder_weights: str | None) -> None:
    """Refuses what could not be compared, before anything is trained.

    Args:
        config: of configs/recipes.py.
        budget_s: of --budget_s, s.
        embedder_weights: of --embedder_weights.

    Raises:
        ValueError: a budget that leaves no time, or a list that is empty or has a value twice or
            one that is not known.
        FileNotFoundError: no weights of embedders.
    """
    if budget_s and budget_s <= config.stop_s:
        raise ValueError(
            f'--budget_s={budget_s:g} is over before anything starts: a run saves in its last '
            f'{config.stop_s:g} s (config.stop_s); give more'
        )
    for name in ('recipes', 'rates', 'seeds', 'budgets', 'steps'):
        values = list(config[name])
        if not values or len(set(values)) < len(values):
            raise ValueError(f'config.{name} is {tuple(values)}: give one or more, each once')
    trained = one_recipe.get_config(one_recipe.START + config.suffix).student_steps
    known = {'recipes': one_recipe.RECIPES, 'budgets': BUDGETS, 'steps': trained}
    if config.clock not in CLOCKS:
        raise ValueError(f'config.clock is {config.clock!r}: choose {" or ".join(CLOCKS)}')
    for name, there in known.items():
        for value in config[name]:
            if value not in there:
                choices = ', '.join(map(str, there))
                raise ValueError(f'config.{name} has no {value!r}: there are {choices}')
    if config.baseline not in config.recipes:
        raise ValueError(f'config.baseline is {config.baseline!r}: choose one of config.recipes')
    check_distances(config.distances)
    if embedder_weights:
        embedders_in(embedder_weights, config.embedders)


def main(argv):
    del argv
    jax.config.update('jax_platforms', 'cpu')  # a GPU's memory is for the runs alone
    config, begin = _CONFIG.value, time.monotonic()
    check(config, _BUDGET.value, _WEIGHTS.value)
    inputs = {
        'release': _TEACHER_RELEASE.value,
        'recordings': _RECORDINGS.value,
        'embedder_weights': _WEIGHTS.value,
    }
    with run_folder(run_workdir(), config, inputs) as workdir, StopRequest() as stop:
        comparison = Comparison(config, workdir, *inputs.values())
        pieces = [comparison.start_piece(), *(piece for *_, piece in comparison.tuning())]
        if len(config.rates) > 1:
            pieces.append(comparison.tuning_evaluation())
        stopped = run_pieces(pieces, workdir, stop, seconds_left(begin), config.stop_s)
        forget_checkpoints(pieces)
        if not stopped:
            pieces += [piece for _, piece in comparison.final()]
            pieces.append(comparison.evaluation(config.seeds[0]))
            stopped = run_pieces(pieces, workdir, stop, seconds_left(begin), config.stop_s)
            forget_checkpoints(pieces)
        if not stopped:  # the best recipes are known
            pieces += [comparison.evaluation(seed) for seed in config.seeds[1:]]
            pieces += [comparison.times()] if config.times else []
            stopped = run_pieces(pieces, workdir, stop, seconds_left(begin), config.stop_s)
        if stopped:
            say(f'stopped in {stopped!r}: go on with the same command')
            sys.exit(STOPPED)
        report(comparison, _RECORDINGS.value)
    say(f'done: open {workdir / "report.html"}; all metrics are in {workdir / "results.json"}')


if __name__ == '__main__':
    run(main)
