"""Experiments define flags of the same names; each test imports its own with a clean slate."""

import importlib
import sys

import pytest
from absl import flags
from watched_batches import watch_batches


def load_experiment(name: str):
    """Imports experiments.name, whatever was imported before."""
    for flag in list(flags.FLAGS):
        module = flags.FLAGS.find_module_defining_flag(flag, '') or ''
        if module.startswith('experiments.'):
            delattr(flags.FLAGS, flag)
    for module in [m for m in sys.modules if m.startswith('experiments.')]:
        del sys.modules[module]
    return importlib.import_module(f'experiments.{name}')


@pytest.fixture
def experiment():
    """`experiment(name)` imports experiments.name, whatever was imported before."""
    return load_experiment


@pytest.fixture(scope='module')
def own_data(tiny_release, tmp_path_factory):
    """What the commands of docs/own_data.md leave in a folder; see `own_data.walk`."""
    import own_data

    return own_data.walk(load_experiment, tiny_release, tmp_path_factory.mktemp('own_data'))


@pytest.fixture(scope='module')
def autoencoder_run(tmp_path_factory):
    """The folder of a run of train_autoencoder in its `:test` variant, and what it returned."""
    folder = tmp_path_factory.mktemp('autoencoder')
    config = importlib.import_module('configs.foley_autoencoder').get_config('test')
    run = load_experiment('train_autoencoder')
    devices = watch_batches(run)
    params = run.train(config, folder, None)
    assert devices == [2] * (config.likelihood_steps + config.adversarial_steps)
    return folder, params


@pytest.fixture(scope='session')
def tower_release(tiny_release, tmp_path_factory):
    """The tiny release with a tiny random audio tower."""
    import tiny_tower

    return tiny_tower.write(tiny_release, tmp_path_factory.mktemp('tower') / 'tiny')
