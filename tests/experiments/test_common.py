import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest
from absl import flags
from ml_collections import config_flags

import realaudio_jax
from experiments import common
from experiments.common import define_config, parse_flags
from realaudio_jax import processes
from realaudio_jax.training.loop import main_guard

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
EXPERIMENTS = CONFIGS.parent / 'experiments'
PROGRAMS = [p.stem for p in sorted(EXPERIMENTS.glob('*.py')) if '\n    run(' in p.read_text()]
CONFIG = """
import ml_collections

def get_config(variant=''):
    if variant:
        raise ValueError(f'no variant {variant!r}')
    config = ml_collections.ConfigDict({'steps': 4, 'model': {'width': 8}})
    return config.lock()
"""


@pytest.fixture
def parse(tmp_path, monkeypatch):
    """Parses arguments into flags of its own, as one process would."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'toy.py').write_text(CONFIG)

    def run(*arguments):
        argv = ['program', *arguments]
        monkeypatch.setattr(sys, 'argv', argv)  # where config flags look for overrides
        values = flags.FlagValues()
        flags.DEFINE_string('workdir', 'runs', '', flag_values=values)
        define_config('configs/toy.py', values)
        parse_flags(argv, values)
        return values

    return run


def test_overrides_reach_the_config(parse):
    values = parse('--config=configs/toy.py', '--config.model.width=16', '--workdir=x')
    assert values.config.model.width == 16 and values.workdir == 'x'
    assert parse().config.steps == 4


@pytest.mark.parametrize(
    ('arguments', 'line'),
    [
        (['--config.stps=1'], "no key 'stps' .*did you mean 'steps'"),
        (['--config.model.widht=1'], "no key 'widht' .*did you mean 'width'"),
        (['--config.qqq=1'], "no key 'qqq' "),
        (['--config.steps=many'], 'many'),
        (
            ['--config=configs/tyo.py'],
            "no config file 'configs/tyo.py'; did you mean configs/toy.py",
        ),
        (['--config=configs/tyo.py', '--config.steps=2'], 'did you mean configs/toy.py'),
        (['--config', 'elsewhere/toy.py:test'], 'did you mean configs/toy.py'),
        (['--config=configs/toy.py:tst'], "^no variant 'tst'"),
        (['--wrkdir=x'], "'wrkdir'. Did you mean: workdir"),
        (['--workdir=a', 'b'], "do not know what to do with 'b'"),
    ],
)
def test_a_typo_is_one_line_with_a_remedy(arguments, line, parse):
    with pytest.raises(ValueError, match=line) as caught:
        parse(*arguments)
    assert '\n' not in str(caught.value)


def test_help_shows_the_config_and_ends_with_0(parse, capsys):
    with pytest.raises(SystemExit) as ended:
        parse('--help')
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for part in ("--config: Config file, with :variant. ('configs/toy.py')", 'steps: 4', '{width}'):
        assert part in shown


def test_the_version_is_one(parse, capsys):
    with pytest.raises(SystemExit) as ended:
        parse('--version')
    assert ended.value.code == 0
    assert capsys.readouterr().out == f'realaudio_jax {realaudio_jax.__version__}\n'
    root = pathlib.Path(realaudio_jax.__file__).parents[1]
    changes = re.findall(r'^## (\S+)', (root / 'CHANGELOG.md').read_text(), re.MULTILINE)
    assert changes[0] == realaudio_jax.__version__
    assert 'version = attr: realaudio_jax.__version__' in (root / 'setup.cfg').read_text()
    citation = re.search(r'^version: *(\S+)', (root / 'CITATION.cff').read_text(), re.MULTILINE)
    assert citation is None or citation[1].strip('\'"') == realaudio_jax.__version__


@pytest.mark.parametrize('name', [p.stem for p in sorted(CONFIGS.glob('[a-z]*.py'))])
def test_help_reads_every_config(name):
    lines = common._config_help(str(CONFIGS / f'{name}.py'))
    assert f'variant: --config={CONFIGS / name}.py:test' in lines and len(lines) > 5


def test_a_tilde_is_the_home_folder(parse, monkeypatch):
    monkeypatch.setenv('HOME', '/some/one')
    assert parse('--workdir=~/runs').workdir == '/some/one/runs'
    assert parse('--workdir=runs/~x').workdir == 'runs/~x'


def test_default_names_differ_where_the_sound_does():
    plain = dict(seed=0, steps=4, seconds=10.0)
    changes = [
        {},
        {'seed': 1},
        {'steps': 2},
        {'seconds': 2.5},
        {'model': 'teacher'},
        {'guidance': 3.0},
    ]
    names = [common.default_name('A dog', None, **(plain | change)) for change in changes]
    names += [common.default_name('A dog', f'bark@{i}-2', **plain) for i in range(2)]
    assert len(set(names)) == len(names) and names[0] == 'a-dog-seed0-4steps-10s'
    long = common.default_name('\u96e8' * 500, None, **plain)
    assert len(long.encode()) < 100


def test_flags_that_would_be_ignored_are_refused():
    values = flags.FlagValues()
    one, two, three = (
        flags.DEFINE_string(name, default, '', flag_values=values)
        for name, default in (('a', None), ('b', 'x'), ('c', 'y'))
    )
    values(['program', '--a=1', '--c=z'])
    with pytest.raises(ValueError, match='--teacher makes no use of --a, --c; leave that out'):
        common.refuse_ignored('--teacher', one, two, three)
    common.refuse_ignored('--teacher', two)


def test_a_sound_that_is_not_finite_is_a_line(capsys, monkeypatch):
    monkeypatch.delenv('REALAUDIO_TRACEBACK', raising=False)

    def main(argv):
        raise FloatingPointError('the sound is not finite')

    with pytest.raises(SystemExit):
        main_guard(main)([])
    assert capsys.readouterr().err == 'error: the sound is not finite\n'


def test_what_a_library_logs_is_its_line_alone():
    """Without absl's date, process and place in the code."""
    program = (
        'from absl import logging\n'
        'from experiments import common\n'
        "common.run(lambda argv: logging.warning('10 sounds, %d labels', 2))\n"
    )
    root = pathlib.Path(common.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, '-c', program], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.stderr == '10 sounds, 2 labels\n'


@pytest.mark.parametrize(
    ('given', 'folder'),
    [
        (['--config=configs/foley_distill.py'], 'runs/foley_distill'),
        (['--config=configs/foley_distill.py:test'], 'runs/foley_distill_test'),
        (['--config=configs/foley_teacher.py:own'], 'runs/foley_teacher_own'),
        (['--config=configs/foley_teacher.py:own', '--workdir=mine'], 'mine'),
    ],
)
def test_a_variant_has_a_default_folder_of_its_own(given, folder):
    values = flags.FlagValues()
    config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=['x', *given])
    common.define_workdir(values)
    parse_flags(['x', *given], values)
    assert common.run_workdir(values) == folder


def test_a_connection_that_broke_is_a_line_and_other_errors_are_not(monkeypatch):
    def main(text):
        raise jax.errors.JaxRuntimeError(text)

    monkeypatch.setattr(processes._Run, 'count', 2)
    with pytest.raises(processes.OtherProcessError, match='another process of this run has ended'):
        common._joined(main)('UNKNOWN: Gloo AllGather failed: Connection reset by peer')
    with pytest.raises(jax.errors.JaxRuntimeError, match='memory'):
        common._joined(main)('RESOURCE_EXHAUSTED: out of memory')


@pytest.mark.parametrize(('given', 'line'), [([], 'None'), (['--out='], 'name a folder')])
def test_what_is_made_does_not_go_where_the_user_stands(given, line):
    values = flags.FlagValues()
    common.define_out('Folder.', values)
    with pytest.raises(ValueError, match=line):
        parse_flags(['x', *given], values)


@pytest.mark.parametrize(
    'name', ['distill', 'train_teacher', 'train_autoencoder', 'train_audio_tower']
)
def test_training_commands_share_the_default_folder(experiment, name):
    experiment(name)
    assert flags.FLAGS['workdir'].default is None


def test_a_stop_ends_the_process_without_the_interpreters_own_end(tmp_path):
    """Which would crash amid a compilation: what is registered for the end does not run."""
    code = (
        'import atexit\n'
        'from experiments import common\n'
        "atexit.register(print, 'ended slowly')\n"
        'def main(argv):\n'
        "    print('said', end='')\n"
        '    raise KeyboardInterrupt\n'
        'common.run(main)\n'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (130, 'said', 'stopped\n')


def test_a_program_goes_on_as_another_with_its_status(tmp_path):
    """As one process: the same number, what was printed before, and the other's exit status."""
    (tmp_path / 'other.py').write_text(
        'import os, sys\nprint(os.getpid(), *sys.argv[1:])\nsys.exit(7)\n'
    )
    code = (
        'import os; from experiments.common import go_on_as; print(os.getpid(), "before"); '
        'go_on_as("other", "--run=a b")'
    )
    environment = os.environ | {'PYTHONPATH': f'{tmp_path}{os.pathsep}{CONFIGS.parent}'}
    ended = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 7, ended.stderr
    before, after = ended.stdout.splitlines()
    assert before == f'{after.split()[0]} before' and after.endswith(' --run=a b')


# What a release, or a call of `Generator.generate`, has to say first.
CHECKED_LATER = {'steps', 'sample_rate', 'strength', 'guidance', 'teacher_adapter'}


@pytest.mark.parametrize('name', PROGRAMS)
def test_counts_seeds_and_durations_have_bounds(experiment, name):
    module = experiment(name)
    unbound = {
        flag.name
        for flag in flags.FLAGS.flags_by_module_dict().get(module.__name__, ())
        if hasattr(flag.parser, 'lower_bound') and flag.parser.lower_bound is None
    }
    assert unbound <= CHECKED_LATER | ({'seconds'} if name == 'sample' else set())
