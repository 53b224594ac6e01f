"""The page docs/own_data.md, walked with the commands it gives, in `:test` variants."""

import contextlib
import io
import logging
import os
import pathlib
import re
import shlex
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from absl import flags

ROOT = pathlib.Path(__file__).parents[2]


class Walk(NamedTuple):
    """The folder the commands ran in, their names, what they printed, and what was logged."""

    folder: pathlib.Path
    names: list[str]
    printed: str
    logged: str


def make_sounds(folder: pathlib.Path) -> None:
    """Three sounds, three takes each, in folders named after them; and what else lies about."""
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


def commands() -> list[list[str]]:
    """The commands of the page: the experiment's name, and its arguments."""
    page = (ROOT / 'docs' / 'own_data.md').read_text()
    lines = re.sub(r'\\\n\s*', ' ', page).splitlines()
    words = [shlex.split(line) for line in lines if line.startswith('    python -m experiments.')]
    return [[w[2].removeprefix('experiments.'), *w[3:]] for w in words]


def as_tested(argument: str, release: pathlib.Path) -> str:
    """An argument with the `:test` variant of its config, and a small release for the shipped."""
    argument = re.sub(r'(=configs/\w+\.py)(:\w+)?$', r'\1:test', argument)
    return re.sub('=foley$', f'={release}', argument)


def run_process(module: str, *arguments: str) -> None:
    """What `common.go_on_as` runs in this process's place, beside it; prints what that prints."""
    command = [sys.executable, '-m', module, *arguments]
    # On one device: several would each make the sounds that are made one by one.
    flags = [flag for flag in os.environ['XLA_FLAGS'].split() if 'device_count' not in flag]
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'XLA_FLAGS': ' '.join(flags)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    print(ended.stdout)


def walk(load_experiment, release: pathlib.Path, folder: pathlib.Path) -> Walk:
    """Runs the commands one after the other in a folder with sounds in it.

    Args:
        load_experiment: see conftest.
        release: stands for the shipped one.
        folder: empty.
    """
    make_sounds(folder / 'my_sounds')
    (folder / 'configs').symlink_to(ROOT / 'configs')
    logged: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())
    printed, names = io.StringIO(), []
    logging.getLogger('absl').addHandler(handler)
    try:
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.setenv('REALAUDIO_CACHE', str(folder / 'cache'))
            patch.chdir(folder)
            for name, *arguments in commands():
                module = load_experiment(name)
                if hasattr(module, 'go_on_as'):
                    patch.setattr(module, 'go_on_as', run_process)
                arguments = [as_tested(argument, release) for argument in arguments]
                sys.modules['experiments.common'].parse_flags([name, *arguments])
                module.main([name])
                flags.FLAGS.unparse_flags()
                names.append(name)
    finally:
        logging.getLogger('absl').removeHandler(handler)
    return Walk(folder, names, printed.getvalue(), '\n'.join(logged))
