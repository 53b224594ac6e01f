import sys

import pytest
from absl import flags

from experiments.common import define_config, parse_flags
from realaudio_jax.training.loop import main_guard

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


def test_a_sound_that_is_not_finite_is_a_line(capsys, monkeypatch):
    monkeypatch.delenv('REALAUDIO_TRACEBACK', raising=False)

    def main(argv):
        raise FloatingPointError('the sound is not finite')

    with pytest.raises(SystemExit):
        main_guard(main)([])
    assert capsys.readouterr().err == 'error: the sound is not finite\n'
