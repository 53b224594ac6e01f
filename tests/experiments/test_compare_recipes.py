"""The comparison of recipes: equal budgets, the rate that is kept, the table over seeds."""

import importlib
import json
import math
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
from realaudio_jax.packing import save_params
from realaudio_jax.release import MOMENTS_NAME
from realaudio_jax.release_config import ReleaseConfig
from realaudio_jax.report import recipes as recipes_report
from realaudio_jax.typing import LATENT_CHANNELS


@pytest.fixture
def comparison(experiment):
    return experiment('compare_recipes')


def config_of(variant=''):
    return importlib.import_module('configs.recipes').get_config(variant)


def left(folder: pathlib.Path, seconds: float) -> None:
    """What a run leaves whose updates take this CPU time on average, and eight times by the clock.

    The first line of a stage has a compilation in it, the first of a process no time.
    """
    folder.mkdir(parents=True)
    lines = [
        ('compiles', 5, None),
        ('a', 10, 400.0),
        ('a', 20, 5 * seconds),
        ('a', 21, None),  # was stopped, and went on
        ('a', 31, 15 * seconds),
    ]
    with open(folder / 'metrics.jsonl', 'w') as file:
        for stage, step, took in lines:
            times = {'cpu_s': took, 'wall_s': took and 8 * took}
            file.write(json.dumps({'step': step, 'stage': stage} | times) + '\n')


@pytest.mark.parametrize('name', one_recipe.RECIPES)
def test_all_recipes_get_the_same_updates(comparison, name):
    settings = comparison.stage_settings(name, '', 60, 3e-4)
    updates = [count for key, count in settings.items() if key.endswith('updates')]
    assert sum(updates) == 60 and max(updates) - min(updates) <= 1
    assert len(updates) == len(one_recipe.get_config(name).stages)
    rates = [rate for key, rate in settings.items() if key.endswith('learning_rate')]
    assert rates == [3e-4] * len(updates)
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
    errors = {'consistency': (0.3, 0.4, 0.7), 'ctm': (0.6, 0.5, 0.8)}
    row = {'name': 'latent error', 'model': 'student', 'unit': '', 'n': 9, 'steps': 4}
    rows = []
    for name, rate, piece in made.tuning():
        folder = piece.made.parent.parent
        left(folder, 0.5 if name == 'consistency' else 1.5)
        error = errors[name][config.rates.index(rate)]
        rows.append(row | {'student': folder.name, 'value': error})
        assert str(folder / 'release') in ' '.join(made.tuning_evaluation().commands[0])
        assert '--config.seed=100' in piece.commands[0]  # which no reported run has
        of_start = f'--student={made.start / "release"}'
        of_recipe = f'--config=configs/one_recipe.py:{name}'
        assert {of_start, of_recipe, '--noevaluate'} <= set(piece.commands[0])
    (command,) = made.start_piece().commands
    assert '--config=configs/one_recipe.py:start' in command and '--student' not in str(command)
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
    assert '--config.seed=100' not in seeds
    of_clock = config_of().unlock()
    of_clock.update(config)
    of_clock.clock = 'wall'
    by_clock = comparison.Comparison(of_clock, tmp_path, 'foley', None, None)
    assert by_clock.best_rate('ctm') == (config.rates[1], 8 * 1.5)

    (command,) = made.evaluation(1).commands
    of_baseline = 'consistency-seconds-1,consistency-updates-1'  # whichever is best
    assert f'--against=shipped,{of_baseline}' in command and '--shipped=foley' in command
    assert f'--keep={one_recipe.get_config("ctm").report_prompts}' in command  # and of no other
    of_first = made.evaluation(1).made
    of_first.parent.mkdir(parents=True)
    distances = {'consistency-seconds-1': 3.0, 'ctm-seconds-1': 4.0, 'start': 1.0}
    distances |= {'consistency-updates-1': 9.0, 'ctm-updates-1': 2.0}
    frechet = row | {'name': 'Frechet distance', 'embedder': 'gpvad'}
    rows = [frechet | {'student': name, 'value': value} for name, value in distances.items()]
    rows += [r | {'steps': 1, 'value': 10 - r['value']} for r in rows]
    rows += [r | {'embedder': 'audio tower', 'value': -r['value']} for r in rows]
    of_first.write_text(json.dumps(rows))
    assert made.best() == {'equal seconds': 'consistency', 'equal updates': 'ctm'}
    (command,) = made.evaluation(2).commands
    against = 'shipped,consistency-seconds-2,consistency-updates-2,ctm-updates-2'
    assert f'--against={against}' in command
    assert not {part.partition('=')[0] for part in command} & {'--times', '--keep'}
    students = next(part for part in command if part.startswith('--students='))
    assert students.count('-2/release') == 4 and students.count('-1/release') == 0
    (command,) = made.times().commands
    assert '--times=True' in command and f'--students={made.start / "release"}' in command
    table = comparison.tuning_table(made.tuning_errors())
    assert table.lines == (
        ('consistency', '0.300', '0.400', '0.700'),
        ('ctm', '0.600', '0.500', '0.800'),
    )


def test_a_rate_whose_error_is_not_finite_is_not_kept(comparison, tmp_path):
    config = config_of().unlock()
    config.recipes = ('ctm',)
    made = comparison.Comparison(config, tmp_path, 'foley', None, None)
    row, rows = {'name': 'latent error', 'model': 'student'}, []
    for (_, _, piece), error in zip(made.tuning(), (float('nan'), 0.5, math.inf), strict=True):
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
        ({'baseline': 'cmt'}, 0.0, "config.baseline is 'cmt'"),
        ({'clock': 'sun'}, 0.0, "config.clock is 'sun': choose cpu or wall"),
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


def test_the_table_has_the_mean_its_interval_and_the_worst_of_the_seeds(comparison):
    about = {'recipe': 'ctm', 'budget': 'equal updates', 'learning_rate': 1e-3}
    error = {'name': 'latent error', 'model': 'student', 'steps': 4, 'nfe': 4, 'unit': '', 'n': 9}
    cosine = error | {'name': 'latent cosine'}
    less = error | {'name': 'latent error, minus that of arc', 'figure': 'latent error'}
    less |= {'against': 'arc'}
    teacher = error | {'model': 'teacher', 'steps': 2, 'value': 0.5}
    cost = {'name': comparison.UPDATES, 'model': 'student', 'value': 9, 'unit': ''}
    runs = []
    for value, half in ((0.25, 0.03), (0.75, 0.04)):
        interval = {'low': value - half, 'high': value + 2 * half}
        rows = [error | {'value': value} | interval, cosine | {'value': 1 - value}, cost]
        rows.append(less | {'value': value - 1, 'low': value - 1.3, 'high': value - 0.6})
        rows.append(less | {'nfe': 1, 'value': -0.5, 'low': -2.0, 'high': 0.25})
        runs.append((about, rows))
        of_teacher = {'recipe': comparison.TEACHER, 'budget': about['budget']}
        runs.append((of_teacher, [teacher]))
    rows = recipes_report.over_seeds(runs)
    first = rows[0]
    assert (first['value'], first['least'], first['most'], first['n']) == (0.5, 0.25, 0.75, 2)
    # sqrt(3^2 + 4^2) / 2
    np.testing.assert_allclose((first['low'], first['high']), (0.5 - 0.025, 0.5 + 0.05))
    costs, errors, cosines, differences = recipes_report.tables(rows)
    assert costs.lines == (('ctm', '0.001', '9 (9)', '–', '–', '–'),)
    assert errors.lines == (
        ('ctm', '0.5 [0.475, 0.55] (0.75)'),
        (comparison.TEACHER, '0.5 (0.5)'),
    )
    assert cosines.lines[0][-1] == '0.5 (0.25)'  # larger is better
    assert differences.title == 'latent error, minus that of arc, equal updates'
    # halves of sqrt(2) times 0.3 and 0.4, 1.5 and 0.75
    assert differences.lines == (('ctm', '-0.5 [-0.712, -0.217] better', '-0.5 [-1.56, +0.0303]'),)


@pytest.mark.parametrize(
    ('low', 'high', 'ends'), [(-0.2, -0.1, 'better'), (0.1, 0.2, 'worse'), (-1.0, 1.0, ']')]
)
def test_a_difference_whose_interval_leaves_out_0_is_said_in_words(comparison, low, high, ends):
    row = {'name': 'x', 'figure': 'latent error', 'against': 'arc', 'model': 'student', 'nfe': 4}
    row |= {'value': (low + high) / 2, 'low': low, 'high': high, 'n': 1, 'recipe': 'ctm'}
    (_, table) = recipes_report.tables([row | {'budget': 'equal updates'}])
    assert table.lines[0][1].endswith(ends)


def test_a_point_that_no_other_beats_is_ringed(comparison):
    points = [(1.0, 5.0), (2.0, 3.0), (2.0, 4.0), (3.0, 3.0), (4.0, 1.0)]
    assert recipes_report.best_trades(points) == [True, True, False, False, True]


@pytest.mark.parametrize('variant', ['', 'hour', 'gpu', 'test'])
def test_every_setting_is_one_of_its_experiment(comparison, experiment, variant, tmp_path):
    """Of the start, and of one run and one evaluation of each kind."""
    config = config_of(variant)
    made = comparison.Comparison(config, tmp_path, 'foley', None, 'weights')
    trials = [piece for *_, piece in made.tuning()]
    for piece in [made.start_piece(), trials[-1], made.tuning_evaluation(), made.times()]:
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
    config.times = True
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
        for name in ('start', 'shipped', *runs):
            named = row | student | {'student': name}
            rows += [named | {'steps': n, 'nfe': n, 'value': seed + 4 / n} for n in (1, 4)]
            less = named | {'figure': 'latent error', 'name': 'less', 'low': 1.0, 'high': 9.0}
            others = ['shipped', 'teacher, 50 steps', f'dmd-seconds-{seed}', f'arc-updates-{seed}']
            rows += [
                less | {'steps': 4, 'nfe': 4, 'against': other, 'value': float(i)}
                for i, other in enumerate(others, 2)
            ]
            soundfile.write(folder / 'samples' / f'0-{name}.wav', np.zeros((480, 2)), 48_000)
        made.evaluation(seed).made.write_text(json.dumps(rows))
    time = {'name': 'time per sound', 'unit': 'ms', 'n': 9}
    rows = [time | student | {'steps': n, 'nfe': n, 'value': 10.0 * n} for n in (1, 4)]
    rows.append(time | teacher | {'value': 40.0})
    (folder := made.times().made.parent).mkdir()
    made.times().made.write_text(json.dumps(rows))
    scales, close = [], recipes_report.plt.close
    monkeypatch.setattr(
        recipes_report.plt,
        'close',
        lambda figure: scales.extend(a.get_yscale() for a in figure.axes) or close(figure),
    )
    comparison.report(made, None)

    rows = json.loads((tmp_path / 'results.json').read_text())
    assert scales == ['log', 'log']
    below = [r | {'value': r['value'] - 5, 'least': r['least'] - 5} for r in rows if 'nfe' in r]
    recipes_report.plot(below, tmp_path / 'below.png')  # a kernel distance may be below 0
    assert scales[2:] == ['linear', 'linear']
    for recipe in ('dmd', 'arc', 'start', 'shipped student'):
        for budget in ('equal seconds', 'equal updates'):
            mine = [r for r in rows if (r['recipe'], r['budget']) == (recipe, budget)]
            of_one = [r for r in mine if r.get('steps') == 1]
            assert [(r['value'], r['most'], r['n']) for r in of_one] == [(5.5, 6.0, 2)]
            differences = {r['against']: r['value'] for r in mine if 'figure' in r}
            best = {'dmd': 4.0} if budget == 'equal seconds' else {'arc': 5.0}
            both = {'shipped student': 2.0, 'teacher, guided, 50 steps': 3.0}
            assert differences == both | best  # none from the best of another budget
    costs = {r['name']: r['value'] for r in rows if (r['recipe'], r['budget']) == ('arc', budget)}
    times = {clock: costs[name] for clock, name in comparison.CLOCKS.items()}
    assert times == {'cpu': 2 * 0.25, 'wall': 2 * 8 * 0.25} and costs[comparison.MEMORY] == 2.0
    page = (tmp_path / 'report.html').read_text()
    assert page.count('<audio') == 6 and 'dmd, equal updates' in page
    assert '<h2>kernel distance by yamnet (x), equal updates</h2>' in page
    assert '>5.5 (6)<' in page and '>40<' in page
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
    shutil.copytree(tmp_path / 'a' / 'release', tmp_path / 'c')
    moments = {'gain': np.full(LATENT_CHANNELS, 2.0), 'shift': np.zeros(LATENT_CHANNELS)}
    counts = ReleaseConfig.read(tiny_release).student.steps
    save_params(tmp_path / 'c' / MOMENTS_NAME, {str(n): moments for n in counts})
    students = ','.join(f'{tmp_path}/{name}/release' for name in 'ab')
    arguments = [
        *('evaluate_students', f'--students={students}', f'--workdir={tmp_path}/out'),
        *('--scenes=2', '--seconds=1', '--steps=1', '--metrics=kad', '--resamples=2', '--keep=1'),
        *(f'--shipped={tmp_path}/c', '--against=shipped,b'),
    ]
    sys.modules['experiments.common'].parse_flags(arguments)
    module.main(arguments[:1])
    kept = tmp_path / 'out' / 'students'
    assert sorted(p.name for p in kept.iterdir()) == [
        *('a.json', 'b.json', 'shared.json', 'shipped.json')
    ]
    rows = json.loads((tmp_path / 'out' / 'results.json').read_text())
    error = {r.get('student'): r['value'] for r in rows if r['name'] == 'latent error'}
    assert error[None] == 0 and error['a'] != error['b']  # of the teacher's 50 steps, and of 1
    assert error['shipped'] != error['a']  # it has moment matching
    differences = {
        (r['student'], r['against']): r['value'] for r in rows if r.get('figure') == 'latent error'
    }
    students = ('shipped', 'a', 'b')
    expected = {(name, 'teacher, 50 steps'): error[name] for name in students}
    expected |= {(name, 'shipped'): error[name] - error['shipped'] for name in 'ab'}
    expected['a', 'b'] = error['a'] - error['b']
    assert differences == pytest.approx(expected)
    assert (tmp_path / 'out' / 'samples' / '0-b.wav').is_file()

    (kept / 'a.json').unlink()  # what it is compared with is made again for it
    monkeypatch.setattr(module.StudentEvaluator, 'shared_rows', None)  # is not asked again
    module.main(arguments[:1])
    again = json.loads((tmp_path / 'out' / 'results.json').read_text())
    assert [r['value'] for r in again] == [r['value'] for r in rows]
