"""A complete release with tiny random networks (the text encoder is the shipped one)."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.distillation.setup import DistillationSetup
from realaudio_jax.models.autoencoder import Autoencoder
from realaudio_jax.models.denoiser import Denoiser
from realaudio_jax.noise import CosinePath
from realaudio_jax.packing import save_release
from realaudio_jax.release import RELEASES, autoencoder_template, denoiser_template

CONFIG = {
    'name': 'tiny',
    'sample_rate': 48_000,
    'autoencoder': {'decoder': {'width': 10, 'blocks': 1, 'directions': 12}},
    'denoiser': {'width': 24, 'depth': 1, 'heads': 2},
    'student': {'steps': [1, 2, 4, 8], 'guidance_range': [1.0, 4.0]},
    'teacher': {'steps': 50},
    'guidance': 2.0,
}


def random_params(shapes, seed: int):
    """Every parameter random, so that nothing is hidden behind a zero at the start."""
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(seed)
    values = [
        jnp.asarray(rng.normal(size=x.shape) / max(1, x.shape[0]) ** 0.5 * 0.5, jnp.float32)
        if len(x.shape) > 1
        else jnp.asarray(1.0 + 0.1 * rng.normal(size=x.shape), jnp.float32)
        for x in leaves
    ]
    return jax.tree.unflatten(tree, values)


def write(folder: pathlib.Path, config=CONFIG) -> pathlib.Path:
    """Writes the release and returns its folder."""
    autoencoder = Autoencoder(**config['autoencoder'])
    denoiser = Denoiser(**config['denoiser'])
    params = {
        'autoencoder': random_params(autoencoder_template(autoencoder), 0),
        'teacher': random_params(denoiser_template(denoiser), 1),
        'student': random_params(denoiser_template(denoiser), 2),
    }
    save_release(folder, config, params, RELEASES / 'foley')
    return folder


def setup_without_networks() -> DistillationSetup:
    """The setup of a distillation whose stages are read and never run."""
    return DistillationSetup(
        teacher=lambda *given: None,
        student=lambda *given: None,
        path=CosinePath(),
        teacher_params=None,
        student_params=None,
        to_batch=lambda arrays: None,
        prepare=lambda batch, key: batch,
    )
