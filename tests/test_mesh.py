"""The mesh of devices, and which axis of a parameter is split over it."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from realaudio_jax.mesh import make_mesh, param_sharding


def test_mesh_shape():
    assert dict(make_mesh().shape) == {'data': 4, 'model': 1}
    assert dict(make_mesh(model_parallel=2).shape) == {'data': 2, 'model': 2}
    assert dict(make_mesh(devices=jax.devices()[:3]).shape) == {'data': 3, 'model': 1}


@pytest.mark.parametrize('parallel', [0, 3])
def test_model_parallel_must_divide_the_devices(parallel):
    with pytest.raises(ValueError, match='choose a divisor'):
        make_mesh(model_parallel=parallel)


def test_large_parameters_split_their_largest_divisible_axis():
    mesh = make_mesh(model_parallel=2)
    shapes = {
        'wide': jax.ShapeDtypeStruct((128, 512), jnp.float32),
        'tall': jax.ShapeDtypeStruct((512, 128), jnp.float32),
        'square': jax.ShapeDtypeStruct((256, 256), jnp.float32),
        'odd_long': jax.ShapeDtypeStruct((513, 64), jnp.float32),
        'indivisible': jax.ShapeDtypeStruct((513, 65), jnp.float32),
        'bias': jax.ShapeDtypeStruct((512,), jnp.float32),
        'step': jax.ShapeDtypeStruct((), jnp.int32),
    }
    specs = {name: sharding.spec for name, sharding in param_sharding(mesh, shapes).items()}
    assert specs == {
        'wide': P(None, 'model'),
        'tall': P('model'),
        'square': P(None, 'model'),
        'odd_long': P(None, 'model'),
        'indivisible': P(),
        'bias': P(),
        'step': P(),
    }
    kernels = {
        'self_qkv': (128, 384),
        'self_out': (128, 128),
        'mlp_in': (128, 512),
        'mlp_out': (256, 256),
    }
    block = {
        name: {'kernel': jax.ShapeDtypeStruct(shape, jnp.float32)}
        for name, shape in kernels.items()
    }
    found = param_sharding(mesh, {'mu': {'block_0': block}})['mu']['block_0']
    assert {name: leaf['kernel'].spec for name, leaf in found.items()} == {
        'self_qkv': P(None, 'model'),
        'self_out': P('model'),
        'mlp_in': P(None, 'model'),
        'mlp_out': P('model'),
    }
    alone = param_sharding(make_mesh(), shapes)
    assert {sharding.spec for sharding in alone.values()} == {P()}
