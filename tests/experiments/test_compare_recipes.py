"""The comparison of recipes: equal budgets, the rate that is kept, the table over seeds."""

import importlib
import json
import pathlib
import shutil
import sys

import numpy as np
import pytest
import soundfile
from absl import flags

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
    lines.append({'step': 21, 'stage': 'a', 'time': 5 + 20 * seconds + 900.0})  # was stopped
    lines += [{'step': n, 'stage': 'a', 'time': 905 + (n - 1) * seconds} for n in (23, 24)]
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


def test_a_rate_whose_error_is_not_finite_is_not_kept(comparison, tmp_path):
    config = config_of().unlock()
    config.recipes = ('ctm',)
    made = comparison.Comparison(config, tmp_path, 'foley', None, None)
    row, rows = {'name': 'latent error', 'model': 'student'}, []
    for (_, _, piece), error in zip(made.tuning(), (float('nan'), 0.5), strict=True):
        left(piece.made.parent.parent, 1.0)
        rows.append(row | {'student': piece.made.parent.parent.name, 'value': error})
    made.tuning_evaluation().made.parent.mkdir()
    made.tuning_evaluation().made.write_text(json.dumps(rows))
    assert made.best_rate('ctm')[0] == config.rates[1]


@pytest.mark.parametrize(
    ('settings', 'budget_s', 'part'),
    [
        ({}, 20.0, 'over before anything starts'),
        ({'budgets': ('update',)}, 0.0, "config.budgets has no 'update'"),
        ({'recipes': ('cmt',)}, 0.0, "config.recipes has no 'cmt'"),
        ({'steps': (3,)}, 0.0, 'config.steps has no 3'),
        ({'seeds': ()}, 0.0, 'config.seeds is'),
        ({'seeds': (1, 1)}, 0.0, 'each once'),
        ({'distances': ('fda',)}, 0.0, "no metric 'fda'"),
        ({'embedders': ('yamnt',)}, 0.0, 'no weights of yamnt'),
    ],
)
def test_what_could_not_be_compared_is_refused_at_once(
    comparison, tmp_path, settings, budget_s, part
):
    (tmp_path / 'yamnet_coral_int8.npz').write_text('')
    config = config_of().unlock()
    config.update(settings)
    with pytest.raises(ValueError, match=part):
        comparison.check(config, budget_s, str(tmp_path))


@pytest.mark.parametrize('variant', ['', 'hour', 'gpu', 'test'])
def test_every_variant_can_be_compared(comparison, variant):
    comparison.check(config_of(variant), 540.0, None)


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


@pytest.mark.parametrize('variant', ['', 'hour', 'gpu', 'test'])
def test_every_setting_is_one_of_its_experiment(comparison, experiment, variant, tmp_path):
    """Of the start, and of one run and one evaluation of each kind."""
    config = config_of(variant)
    made = comparison.Comparison(config, tmp_path, 'foley', None, 'weights')
    trials = [piece for *_, piece in made.tuning()]
    for piece in [made.start_piece(), trials[-1], made.tuning_evaluation()]:
        for module, *arguments in piece.commands:
            for name in [flag for flag in flags.FLAGS if flag.startswith('config.')]:
                delattr(flags.FLAGS, name)  # overrides of the command before
            name = module.removeprefix('experiments.')
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, 'argv', [name, *arguments])
                experiment(name)
                sys.modules['experiments.common'].parse_flags([name, *arguments])
            flags.FLAGS.unparse_flags()


def test_the_report_holds_every_run_of_every_budget(comparison, tmp_path, monkeypatch):
    """From what runs and evaluations leave."""
    monkeypatch.setattr(sys, 'argv', ['compare_recipes'])
    config = config_of('test').unlock()
    config.recipes, config.budgets, config.seeds = ('dmd', 'arc'), ('seconds', 'updates'), (1, 2)
    made = comparison.Comparison(config, tmp_path, 'foley', None, None)
    for *_, piece in made.tuning():
        left(piece.made.parent.parent, 0.5)
    for _, piece in made.final():
        folder = piece.made.parent.parent
        left(folder, 0.25)
        (folder / 'memory.json').write_text('{"host": 2097152}')
        (folder / 'checkpoints').mkdir()
        piece.made.parent.mkdir()
        piece.made.write_text('{}')
    comparison.forget_checkpoints([piece for _, piece in made.final()])
    assert not list(tmp_path.rglob('checkpoints'))

    for seed in config.seeds:
        folder = made.evaluation(seed).made.parent
        (folder / 'samples').mkdir(parents=True)
        row = {'name': 'kernel distance', 'embedder': 'yamnet (x)', 'unit': '', 'n': 9}
        student, teacher = {'model': 'student'}, {'model': 'teacher', 'steps': 2, 'nfe': 4}
        rows = [row | teacher | {'value': 3.0}]
        runs = [p.made.parent.parent.name for about, p in made.final() if about['seed'] == seed]
        for name in ('start', *runs):
            named = row | student | {'student': name}
            rows += [named | {'steps': n, 'nfe': n, 'value': seed + 4 / n} for n in (1, 4)]
            soundfile.write(folder / 'samples' / f'0-{name}.wav', np.zeros((480, 2)), 48_000)
        time = {'name': 'time per sound', 'unit': 'ms', 'n': 9}
        rows += [time | student | {'steps': n, 'nfe': n, 'value': 10.0 * n} for n in (1, 4)]
        rows.append(time | teacher | {'value': 40.0})
        made.evaluation(seed).made.write_text(json.dumps(rows))
    comparison.report(made, None)

    rows = json.loads((tmp_path / 'results.json').read_text())
    for recipe in ('dmd', 'arc', 'start'):
        for budget in ('equal seconds', 'equal updates'):
            mine = [r for r in rows if (r['recipe'], r['budget']) == (recipe, budget)]
            of_one = [r for r in mine if r.get('steps') == 1]
            assert [(r['value'], r['high'], r['n']) for r in of_one] == [(5.5, 6.0, 2)]
    costs = {r['name']: r['value'] for r in rows if (r['recipe'], r['budget']) == ('arc', budget)}
    assert (costs[comparison.TRAINING], costs[comparison.MEMORY]) == (2 * 0.25, 2.0)
    page = (tmp_path / 'report.html').read_text()
    assert page.count('<audio') == 5 and 'dmd, equal updates' in page
    assert '5.5 (6)' in page and '40 (40)' in page
    assert (tmp_path / 'pareto.png').read_bytes().startswith(b'\x89PNG')


def test_students_of_a_trial_share_what_they_can_and_each_is_itself(
    experiment, tiny_release, tmp_path, monkeypatch
):
    """A student that is the teacher in all weights is not the one with other weights; its figures
    are kept, and only what is left is made."""
    module = experiment('evaluate_students')
    for name, weights in (('a', 'student'), ('b', 'teacher')):
        folder = tmp_path / name / 'release'
        shutil.copytree(tiny_release, folder)
        shutil.copy(tiny_release / f'{weights}.safetensors', folder / 'student.safetensors')
        (folder / 'SHA256SUMS').unlink()
    students = ','.join(f'{tmp_path}/{name}/release' for name in 'ab')
    arguments = [
        *('evaluate_students', f'--students={students}', f'--workdir={tmp_path}/out'),
        *('--scenes=2', '--seconds=1', '--steps=1', '--metrics=kad', '--resamples=2', '--keep=1'),
    ]
    sys.modules['experiments.common'].parse_flags(arguments)
    module.main(arguments[:1])
    kept = tmp_path / 'out' / 'students'
    assert sorted(p.name for p in kept.iterdir()) == ['a.json', 'b.json', 'shared.json']
    rows = json.loads((tmp_path / 'out' / 'results.json').read_text())
    error = {r.get('student'): r['value'] for r in rows if r['name'] == 'latent error'}
    assert error[None] == 0 and error['a'] != error['b']  # of the teacher's 50 steps, and of 1
    assert (tmp_path / 'out' / 'samples' / '0-b.wav').is_file()

    (kept / 'b.json').unlink()
    monkeypatch.setattr(module.StudentEvaluator, 'shared_rows', None)  # is not asked again
    module.main(arguments[:1])
    again = json.loads((tmp_path / 'out' / 'results.json').read_text())
    assert [r['value'] for r in again] == [r['value'] for r in rows]
