"""A tiny release with a tiny random audio tower in it."""

import dataclasses
import pathlib
import shutil

import jax
import tiny

from realaudio_jax.metrics.embedders.tower import tower_template
from realaudio_jax.models.audio_tower import AudioTower
from realaudio_jax.packing import save_params
from realaudio_jax.release import TOWER_NAME
from realaudio_jax.release_config import AudioTowerConfig, ReleaseConfig

TOWER = dict(width=12, blocks=1, deep_width=20, deep_blocks=1, head_width=16)


def write(release: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Copies a release to `folder`, adds a tower and returns the folder."""
    shutil.copytree(release, folder)
    params = tiny.random_params(tower_template(AudioTower(**TOWER)), 3)
    save_params(folder / TOWER_NAME, jax.device_get(params))
    config = ReleaseConfig.read(folder)
    dataclasses.replace(config, audio_tower=AudioTowerConfig(**TOWER)).write(folder)
    return folder
