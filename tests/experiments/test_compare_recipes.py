"""The comparison of recipes: equal budgets, the rate that is kept, the table over seeds."""

import importlib
import json
import pathlib

import pytest

from configs import one_recipe
from realaudio_jax.distillation import registry


@pytest.fixture
def comparison(experiment):
    return experiment('compare_recipes')


def config_of(variant=''):
    return importlib.import_module('configs.recipes').get_config(variant)


def left(folder: pathlib.Path, error: float, seconds: float) -> None:
    """What a run of 20 updates leaves, with this latent error and seconds for each update."""
    folder.mkdir(parents=True)
    lines = [{'step': n, 'stage': 'a', 'time': 5 + n * seconds} for n in (10, 20)]
    lines.insert(0, {'step': 5, 'stage': 'compiles', 'time': -400.0})
    (folder / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    row = {'name': 'latent error', 'model': 'student', 'unit': '', 'n': 9}
    rows = [row | {'steps': 4, 'value': error}, row | {'steps': 1, 'value': 2 - error}]
    (folder / 'results.json').write_text(json.dumps(rows))


@pytest.mark.parametrize('name', one_recipe.RECIPES)
def test_all_recipes_get_the_same_updates(comparison, name):
    settings = comparison.stage_settings(name, '', 60, 3e-4)
    updates = [count for key, count in settings.items() if key.endswith('updates')]
    assert sum(updates) == 60 and max(updates) - min(updates) <= 1
    assert len(updates) == len(one_recipe.get_config(name).stages)
    for stage in one_recipe.get_config(name).stages:
        if isinstance(stage['recipe'], str):
            assert registry.recipe_class(stage['recipe'])


def test_the_rate_with_the_smallest_error_is_kept_and_time_is_shared_evenly(comparison, tmp_path):
    config = config_of().unlock()
    config.recipes, config.seeds, config.seconds = ('consistency', 'ctm'), (1, 2), 30.0
    made = comparison.Comparison(config, tmp_path, 'foley', None, None)
    errors = {'consistency': (0.3, 0.4), 'ctm': (0.6, 0.5)}
    for name, rate, piece in made.tuning():
        error = errors[name][config.rates.index(rate)]
        left(piece.made.parent, error, 0.5 if name == 'consistency' else 1.5)

    assert made.best_rate('consistency') == (config.rates[0], 0.5)
    assert made.best_rate('ctm') == (config.rates[1], 1.5)
    updates = {about['recipe']: about['updates'] for about, _ in made.final()}
    assert updates == {'consistency': 60, 'ctm': 20}
    seeds = [command for _, piece in made.final() for command in piece.commands[0]]
    assert {'--config.seed=1', '--config.seed=2'} <= set(seeds)
    assert '--config.seed=100' not in seeds  # of the rates


def test_the_table_has_the_mean_and_the_range_of_the_seeds(comparison):
    about = {'recipe': 'ctm', 'budget': 'equal updates', 'updates': 9, 'training_seconds': 4.5}
    row = {'name': 'latent error', 'model': 'student', 'steps': 4, 'nfe': 4, 'unit': '', 'n': 9}
    teacher = row | {'model': 'teacher', 'steps': 2, 'value': 0.5}
    runs = [(about, [row | {'value': value}, teacher]) for value in (0.25, 0.75)]
    student, other = comparison.over_seeds(runs)
    assert (student['value'], student['low'], student['high'], student['n']) == (0.5, 0.25, 0.75, 2)
    assert other['recipe'] == 'teacher' and other['value'] == 0.5
    (table,) = comparison.tables([student, other])
    assert table.lines[0] == ('ctm', '9', '4.5', '0.50 [0.25, 0.75]')
    assert table.lines[1][-1] == '0.50 [0.50, 0.50]'  # two guided steps are four evaluations
