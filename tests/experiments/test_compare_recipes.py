"""The comparison of recipes: equal budgets, the rate that is kept, the table over seeds."""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import pytest

from configs import one_recipe
from realaudio_jax.distillation import registry
from realaudio_jax.noise import CosinePath


@pytest.fixture
def comparison(experiment):
    return experiment('compare_recipes')


def config_of(variant=''):
    return importlib.import_module('configs.recipes').get_config(variant)


def left(folder: pathlib.Path, seconds: float) -> None:
    """What a run of 20 updates leaves, with these seconds for each update."""
    folder.mkdir(parents=True)
    lines = [{'step': n, 'stage': 'a', 'time': 5 + n * seconds} for n in (10, 20)]
    lines.insert(0, {'step': 5, 'stage': 'compiles', 'time': -400.0})
    (folder / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)))


@pytest.mark.parametrize('name', one_recipe.RECIPES)
def test_all_recipes_get_the_same_updates(comparison, name):
    settings = comparison.stage_settings(name, '', 60, 3e-4)
    updates = [count for key, count in settings.items() if key.endswith('updates')]
    assert sum(updates) == 60 and max(updates) - min(updates) <= 1
    assert len(updates) == len(one_recipe.get_config(name).stages)
    available = dict(
        student=lambda *_: None, teacher=lambda *_: None, path=CosinePath(), teachers=None
    )
    for stage in one_recipe.get_config(name).stages:
        keys = ('recipe', 'name', 'data', 'updates', 'learning_rate', 'target')
        own = {key: value for key, value in stage.items() if key not in keys}
        if isinstance(stage['recipe'], str):  # nothing that a recipe needs is left out
            registry.make(stage['recipe'], available, **own)
        else:
            registry.make_sum(stage['recipe'], available)


def test_the_rate_with_the_smallest_error_is_kept_and_time_is_shared_evenly(comparison, tmp_path):
    config = config_of().unlock()
    config.recipes, config.seeds, config.seconds = ('consistency', 'ctm'), (1, 2), 30.0
    made = comparison.Comparison(config, tmp_path, 'foley', None, None)
    errors = {'consistency': (0.3, 0.4), 'ctm': (0.6, 0.5)}
    row = {'name': 'latent error', 'model': 'student', 'unit': '', 'n': 9, 'steps': 4}
    rows = []
    for name, rate, piece in made.tuning():
        folder = piece.made.parent.parent
        left(folder, 0.5 if name == 'consistency' else 1.5)
        error = errors[name][config.rates.index(rate)]
        rows.append(row | {'student': folder.name, 'value': error})
        assert str(folder / 'release') in ' '.join(made.tuning_evaluation().commands[0])
    evaluated = made.tuning_evaluation().made
    evaluated.parent.mkdir()
    evaluated.write_text(json.dumps(rows))

    assert made.best_rate('consistency') == (config.rates[0], 0.5)
    assert made.best_rate('ctm') == (config.rates[1], 1.5)
    updates = {(about['recipe'], about['budget']): about['updates'] for about, _ in made.final()}
    both = {(name, 'equal updates'): config.updates for name in config.recipes}
    assert updates == both | {('consistency', 'equal seconds'): 60, ('ctm', 'equal seconds'): 20}
    seeds = [command for _, piece in made.final() for command in piece.commands[0]]
    assert {'--config.seed=1', '--config.seed=2'} <= set(seeds)
    assert '--config.seed=100' not in seeds  # of the rates
    (command,) = made.evaluation(2).commands
    students = next(part for part in command if part.startswith('--students='))
    assert students.count('-2/release') == 4 and students.count('-1/release') == 0
    table = comparison.tuning_table(made.tuning_errors())
    assert table.lines == (('consistency', '0.300', '0.400'), ('ctm', '0.600', '0.500'))


def test_the_table_has_the_mean_and_the_worst_of_the_seeds(comparison):
    about = {'recipe': 'ctm', 'budget': 'equal updates', 'learning_rate': 1e-3}
    error = {'name': 'latent error', 'model': 'student', 'steps': 4, 'nfe': 4, 'unit': '', 'n': 9}
    cosine = error | {'name': 'latent cosine'}
    teacher = error | {'model': 'teacher', 'steps': 2, 'value': 0.5}
    cost = {'name': comparison.UPDATES, 'model': 'student', 'value': 9, 'unit': ''}
    runs = []
    for value in (0.25, 0.75):
        rows = [error | {'value': value}, cosine | {'value': 1 - value}, cost]
        runs.append((about, rows))
        of_teacher = {'recipe': comparison.TEACHER, 'budget': about['budget']}
        runs.append((of_teacher, [teacher]))
    rows = comparison.over_seeds(runs)
    first = rows[0]
    assert (first['value'], first['low'], first['high'], first['n']) == (0.5, 0.25, 0.75, 2)
    costs, errors, cosines = comparison.tables(rows)
    assert costs.lines == (('ctm', '0.001', '9 (9)', '–', '–'),)
    assert errors.lines == (
        ('ctm', '0.5 (0.75)', '0.5 (0.75)'),
        (comparison.TEACHER, '0.5 (0.5)', '0.5 (0.5)'),
    )
    assert cosines.lines[0][-1] == '0.5 (0.25)'  # larger is better


def test_a_point_that_no_other_beats_is_ringed(comparison):
    points = [(1.0, 5.0), (2.0, 3.0), (2.0, 4.0), (3.0, 3.0), (4.0, 1.0)]
    assert comparison.best_trades(points) == [True, True, False, False, True]


def test_the_trial_goes_through_in_pieces(comparison, tiny_release, tmp_path):
    """Every command of the `:test` variant, in processes of their own, and the page of it."""
    root = pathlib.Path(__file__).resolve().parents[2]
    command = [
        *(sys.executable, '-m', 'experiments.compare_recipes'),
        '--config=configs/recipes.py:test',
        *(f'--workdir={tmp_path}/run', f'--release={tiny_release}', '--budget_s=600'),
    ]
    environment = os.environ | {'PYTHONPATH': str(root), 'REALAUDIO_CACHE': str(tmp_path / 'cache')}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / 'run' / 'results.json').read_text())
    found = {(row['recipe'], row.get('steps')) for row in rows if row['name'] == 'latent error'}
    assert {(name, n) for name in ('consistency', 'dmd', 'start') for n in (1, 4)} <= found
    assert (comparison.TEACHER, 2) in found and (comparison.TEACHER, 50) in found
    names = {row['name'] for row in rows if row['recipe'] == 'dmd'}
    assert {comparison.UPDATES, comparison.TRAINING, comparison.MEMORY} <= names
    assert {'latent cosine', 'kernel distance', 'diversity of one prompt'} <= names
    assert any(row['name'] == 'time per sound' for row in rows)
    page = (tmp_path / 'run' / 'report.html').read_text()
    assert page.count('<audio') == 3 and 'dmd, equal updates' in page
    assert (tmp_path / 'run' / 'pareto.png').read_bytes().startswith(b'\x89PNG')
    assert not list((tmp_path / 'run').rglob('checkpoints'))
