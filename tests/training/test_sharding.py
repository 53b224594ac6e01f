from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from realaudio_jax import processes
from realaudio_jax.mesh import make_mesh, param_sharding
from realaudio_jax.training.sharding import (
    data_mesh,
    jit_update,
    place,
    replicate,
    shard_batch,
    training_mesh,
)


@pytest.mark.parametrize('kind', [np.asarray, jnp.asarray])
def test_batch_is_split_over_data_and_keeps_its_values(kind):
    mesh = make_mesh(model_parallel=2)
    batch = {'latents': kind(np.arange(6 * 7 * 5.0).reshape(6, 7, 5)), 'mask': kind(np.ones(6))}
    placed = shard_batch(mesh, batch)
    assert placed['latents'].sharding.spec == P('data')
    shards = placed['latents'].addressable_shards
    assert {shard.data.shape for shard in shards} == {(3, 7, 5)} and len(shards) == 4
    jax.tree.map(np.testing.assert_array_equal, placed, batch)


@pytest.mark.parametrize('leaf', [np.ones((6, 2)), np.float32(1.0)])
def test_batch_that_cannot_be_split_is_named(leaf):
    with pytest.raises(ValueError, match=r"batch\['latents'\] of shape .* 4 data-parallel"):
        shard_batch(make_mesh(), {'latents': leaf})


def test_sharded_step_equals_one_device():
    mesh = make_mesh(model_parallel=2)
    keys = jax.random.split(jax.random.PRNGKey(0))
    params = {'kernel': jax.random.normal(keys[0], (128, 256)), 'bias': jnp.ones(256)}
    x = jax.random.normal(keys[1], (6, 128))

    def loss(params, x):
        return jnp.mean(jnp.tanh(x @ params['kernel'] + params['bias'][None, :]) ** 2)

    wanted = jax.jit(jax.grad(loss))(params, x)
    shardings = param_sharding(mesh, params)
    placed = jax.device_put(params, shardings)
    step = jax.jit(jax.grad(loss), out_shardings=shardings)
    gained = step(placed, shard_batch(mesh, x))
    assert placed['kernel'].addressable_shards[0].data.shape == (128, 128)
    assert gained['kernel'].sharding.spec == P(None, 'model')
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gained, wanted)


def test_replicate_puts_everything_everywhere():
    tree = replicate(make_mesh(model_parallel=2), {'w': np.arange(15.0).reshape(3, 5)})
    assert len(tree['w'].addressable_shards) == 4
    assert {shard.data.shape for shard in tree['w'].addressable_shards} == {(3, 5)}


def test_the_line_before_a_loop_says_what_a_device_gets(capsys):
    training_mesh(8, 12, model_parallel=2)
    assert capsys.readouterr().err == (
        '1 process, 4 devices (cpu), mesh of 2 data x 2 model: batch per device 6 and 4 (of 12 and '
        '8)\n'
    )


def test_what_cannot_be_split_is_one_error(monkeypatch):
    with pytest.raises(ValueError, match='a batch of 7 cannot be split evenly over 2 data-') as one:
        data_mesh(7, model_parallel=2)
    assert 'make it a multiple of 2' in str(one.value) and '\n' not in str(one.value)
    with pytest.raises(ValueError, match='--model_parallel=3 does not divide the 4 devices'):
        data_mesh(12, model_parallel=3)
    devices = [SimpleNamespace(process_index=i // 2, device_kind='cpu') for i in range(4)]
    monkeypatch.setattr(jax, 'devices', lambda: devices)
    with pytest.raises(ValueError, match='over 4 data-parallel devices .2 processes of 2 devices'):
        data_mesh(6)
    with pytest.raises(ValueError, match='--model_parallel=4 does not divide the 2 devices of'):
        data_mesh(8, model_parallel=4)


def test_an_update_leaves_the_state_where_it_lies():
    mesh = data_mesh(8, model_parallel=2)
    state = place(mesh, {'kernel': np.ones((128, 256), np.float32), 'bias': np.ones(256)})
    spread = {'kernel': P(None, 'model'), 'bias': P()}
    assert {name: leaf.sharding.spec for name, leaf in state.items()} == spread

    def update(state, x):
        y = x @ state['kernel']
        return {'kernel': state['kernel'] * y.mean(), 'bias': state['bias'] + y[0]}, {'y': y.sum()}

    state, metrics = jit_update(update, mesh)(state, shard_batch(mesh, np.ones((8, 128))))
    assert {name: leaf.sharding.spec for name, leaf in state.items()} == spread
    assert metrics['y'].sharding.is_fully_replicated and metrics['y'] == 8 * 128 * 256


def test_processes_meet_between_compiling_an_update_and_running_it(monkeypatch):
    """A sum between CPUs ends where one comes to it half a minute after another."""
    happened, mesh = [], data_mesh(8)
    monkeypatch.setitem(vars(mesh), 'is_multi_process', True)  # equal meshes are one object
    monkeypatch.setattr(processes, 'meet', lambda name: happened.append('meet'))

    def update(state, x, rate, *, factor):
        happened.append('compile')
        jax.debug.callback(lambda _: happened.append('run'), x[0, 0])
        return state + rate * factor * x.sum(), {'y': x.mean()}

    step = jit_update(update, mesh, static_argnames=['factor'])
    state = jnp.zeros(())
    first = ['compile', 'meet', 'run']
    for shape, rate, factor, wanted in (
        ((8, 3), 0.5, 2, first),
        ((8, 3), 0.7, 2, ['run']),
        ((8, 5), 0.5, 2, first),
        ((8, 5), 0.5, 3, first),
        ((8, 3), 0.5, 2, ['run']),
    ):
        moved, metrics = step(state, jnp.ones(shape), rate, factor=factor)
        jax.effects_barrier()
        assert happened == wanted and metrics['y'] == 1
        assert moved == rate * factor * np.prod(shape)
        happened.clear()


def test_a_mesh_over_as_many_devices_as_divide_every_batch(capsys):
    assert dict(data_mesh(8, 12).shape) == {'data': 4, 'model': 1}
    assert not capsys.readouterr().err
    assert data_mesh(8, 6).shape['data'] == 2 and data_mesh(9).shape['data'] == 3
    assert 'batches of 8 and 6 are split over 2 of 4 devices' in capsys.readouterr().err
