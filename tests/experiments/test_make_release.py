"""One command from recordings to a release: its parts, its budget, the same bytes on resuming."""

import importlib
import importlib.util
import pathlib
import sys

import jax
import numpy as np
import pytest
from absl import flags

from realaudio_jax.models.denoiser import Denoiser
from realaudio_jax.parts import split
from realaudio_jax.release import denoiser_template

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def release(experiment):
    return experiment('make_release')


def config_of(variant=''):
    return importlib.import_module('configs.release').get_config(variant)


def module_at(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(experiment, command):
    """The module of a command with its flags as given; an unknown flag, key or type is an error."""
    for name in [flag for flag in flags.FLAGS if flag.startswith('config.')]:
        delattr(flags.FLAGS, name)  # overrides of the command before
    module, *arguments = command
    name = module.removeprefix('experiments.')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [name, *arguments])  # of overrides
        module = experiment(name)
        sys.modules['experiments.common'].parse_flags([name, *arguments])
    return module


@pytest.mark.parametrize('variant', ['', 'gpu', 'test'])
def test_every_setting_is_one_of_its_experiment(release, experiment, variant, tmp_path):
    pieces = release.pieces_of(config_of(variant), tmp_path, 'sounds', 'weights')
    if variant == 'gpu':
        pieces = module_at(ROOT / 'tools' / 'on_gpu.py').pieces_of(config_of('gpu'), tmp_path, None)
    for piece in pieces:
        for command in piece.commands:
            if command[0] == 'pytest':
                continue
            parsed(experiment, command)
            flags.FLAGS.unparse_flags()


def test_the_teacher_has_16_million_parameters():
    for variant in ('', 'gpu'):
        network = config_of(variant).teacher.settings.model.to_dict()
        leaves = jax.tree.leaves(denoiser_template(Denoiser(**network)))
        assert 15e6 < sum(np.prod(leaf.shape) for leaf in leaves) < 18e6


def test_parts_of_recordings_are_joined_once(release, tmp_path):
    (tmp_path / 'sounds').mkdir()
    (tmp_path / 'sounds' / 'a.wav').write_bytes(bytes(3_000))
    assert release.joined(str(tmp_path / 'sounds'), tmp_path) == str(tmp_path / 'sounds')
    assert release.joined(None, tmp_path) is None
    split(tmp_path / 'sounds', tmp_path / 'parts', 1_024)
    for _ in range(2):
        folder = release.joined(str(tmp_path / 'parts'), tmp_path)
        assert (pathlib.Path(folder) / 'a.wav').read_bytes() == bytes(3_000)
