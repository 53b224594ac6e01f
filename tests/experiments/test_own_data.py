"""The page docs/own_data.md, walked with the commands it gives, in `:test` variants."""

import pathlib
import re
import shlex
import sys

import jax
import numpy as np
import pytest
import soundfile
from absl import flags

from realaudio_jax.generator import load

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'own_data.md'


def make_sounds(folder):
    """Gongs, creaks and hums, three takes each, in folders named after them; and what people leave
    beside them."""
    rng = np.random.default_rng(0)
    t = np.arange(12_000) / 16_000
    for i, label in enumerate(('gong', 'creak', 'steady hum')):
        (folder / label).mkdir(parents=True)
        for take in range(3):
            sound = np.sin(2 * np.pi * (200 + 150 * i + 20 * take) * t) * np.exp(-t * (2 - i))
            sound += 0.01 * rng.normal(size=len(t))
            soundfile.write(folder / label / f'{take}.aiff', 0.3 * sound, 16_000)
    (folder / 'gong' / 'cut.flac').write_bytes(b'fLaC')
    (folder / 'notes.m4a').write_bytes(b'')


@pytest.fixture(scope='module')
def commands():
    """The commands of the page, by experiment: their arguments."""
    lines = re.sub(r'\\\n\s*', ' ', PAGE.read_text()).splitlines()
    found = [shlex.split(line) for line in lines if line.startswith('    python -m experiments.')]
    return {words[2].removeprefix('experiments.'): words[3:] for words in found}


def test_own_data_from_a_folder_to_a_release_that_sounds(
    commands, experiment, tiny_release, tmp_path, monkeypatch, capsys, caplog
):
    assert list(commands) == ['train_teacher', 'pack_release', 'distill', 'sample']
    monkeypatch.setenv('REALAUDIO_CACHE', str(tmp_path / 'cache'))
    make_sounds(tmp_path / 'my_sounds')
    repository = pathlib.Path.cwd()
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').symlink_to(repository / 'configs')

    for name, arguments in commands.items():
        arguments = [
            re.sub(r'(=configs/\w+\.py)(:\w+)?$', r'\1:test', argument).replace(
                '=foley', f'={tiny_release}'
            )
            for argument in arguments
        ]
        module = experiment(name)
        sys.modules['experiments.common'].parse_flags([name, *arguments])
        module.main([name])
        flags.FLAGS.unparse_flags()

    said = capsys.readouterr()
    assert 'new in it: teacher' in said.out and 'gong.wav: 1 s at 48000 Hz' in said.out
    log = '\n'.join(record.getMessage() for record in caplog.records)
    for line in (
        '10 sounds, 3 labels: creak, gong, steady hum',
        '1 file not read as sound: 1 .m4a',
        'left out 1 of 10 files, not readable: gong/cut.flac (damaged',
    ):
        assert log.count(line) == 1, line  # once, however often the folder is opened
    assert soundfile.info('gong.wav').frames == 48_000
    release, base = load('runs/my_distill/release'), load(tiny_release)
    assert release.config.denoiser == base.config.denoiser  # not the 16 wide one of the config
    for name in ('teacher', 'student'):
        same = jax.tree.map(np.array_equal, release.params[name], base.params[name])
        assert not all(jax.tree.leaves(same))
