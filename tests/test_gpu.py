"""What only a GPU shows: `JAX_PLATFORMS=cuda,cpu pytest -n 0 -m gpu`; skipped without one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.generator import Generator
from realaudio_jax.models.denoiser import Denoiser
from realaudio_jax.quantisation import quantise_products
from realaudio_jax.random import random_key
from realaudio_jax.release import denoiser_template, empty_conditioning

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(jax.default_backend() != 'gpu', reason='no GPU'),
]


@pytest.fixture(scope='module')
def teacher():
    """A network of the released size: `predicted(rounded=False, **execution)` on one batch."""
    network = dict(width=384, depth=8, heads=6)
    shapes = denoiser_template(Denoiser(**network))
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(random_key(0), len(leaves))
    params = [0.02 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    params = jax.tree.unflatten(tree, params)
    size, length = 8, 250
    noise = jax.random.normal(random_key(1), (size, length, 64))
    t = jnp.linspace(0.1, 0.9, size)
    c = jax.tree.map(jnp.asarray, empty_conditioning(size, length))

    def predicted(rounded=False, **execution):
        model = Denoiser(**network, **execution)
        given = quantise_products(params) if rounded else params
        return jax.jit(model.apply)(given, noise, t, c, jnp.ones(size), jnp.zeros(size))

    return predicted


@pytest.mark.parametrize(
    'execution', [{}, {'attention': 'cudnn'}, {'rounded': True}], ids=['plain', 'cudnn', 'int8']
)
def test_products_in_bfloat16_stay_near_float32(teacher, execution):
    """What :gpu configs train with, attention as one operation, and products in int8."""
    exact, fast = teacher(), teacher(dtype='bfloat16', **execution)
    assert np.isfinite(fast).all()
    assert jnp.std(fast - exact) < 0.05 * jnp.std(exact)


def test_a_seed_sounds_on_a_gpu_as_on_a_cpu(tiny_release):
    made = {}
    for platform in ('gpu', 'cpu'):
        with jax.default_device(jax.devices(platform)[0]):
            make = functools.partial(Generator(tiny_release).generate, 'a dog barks', seed=3)
            made[platform] = np.asarray(make(seconds=1.0).audio, float)
    error = np.std(made['gpu'] - made['cpu']) / np.std(made['cpu'])
    assert error < 0.05
