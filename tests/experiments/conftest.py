"""Experiments define flags of the same names; each test imports its own with a clean slate."""

import importlib
import sys

import pytest
from absl import flags


@pytest.fixture
def experiment():
    """`experiment(name)` imports experiments.name, whatever was imported before."""

    def load(name: str):
        for flag in list(flags.FLAGS):
            module = flags.FLAGS.find_module_defining_flag(flag, '') or ''
            if module.startswith('experiments.'):
                delattr(flags.FLAGS, flag)
        for module in [m for m in sys.modules if m.startswith('experiments.')]:
            del sys.modules[module]
        return importlib.import_module(f'experiments.{name}')

    return load


@pytest.fixture(scope='session')
def tower_release(tiny_release, tmp_path_factory):
    """The tiny release with a tiny random audio tower."""
    import tiny_tower

    return tiny_tower.write(tiny_release, tmp_path_factory.mktemp('tower') / 'tiny')
