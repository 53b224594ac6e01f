"""Adapters: what they leave alone, what they add, and how they are found in a difference."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from realaudio_jax import low_rank

RNG = np.random.default_rng(0)


def network(seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return {
        'params': {
            'wide': {'kernel': draw(12, 20), 'bias': draw(20)},
            'small': {'kernel': draw(4, 20)},
        }
    }


def apply(params, x):
    return jnp.tanh(x @ params['params']['wide']['kernel'] + params['params']['wide']['bias'][None])


def test_a_network_with_a_new_adapter_is_as_it_was():
    params = network()
    adapter = low_rank.init(jax.random.key(0), params, 2)
    assert set(adapter['params']) == {'wide'}  # the other has a side of twice the rank
    jax.tree.map(np.testing.assert_array_equal, low_rank.merge(params, adapter), params)
    assert low_rank.merge(params, None) is params


def test_training_moves_the_adapter_alone_and_by_its_rank_alone():
    x, wanted = jnp.asarray(RNG.normal(size=(64, 12))), jnp.asarray(RNG.normal(size=(64, 20)))
    base, adapter = low_rank.trainable(jax.random.key(0), network(), None, 2)
    tx = optax.adam(1e-2)

    def loss_fn(base, adapter):
        return jnp.mean((apply(low_rank.join(base, adapter), x) - wanted) ** 2)

    state, before = tx.init(adapter), loss_fn(base, adapter)
    for leaf in jax.tree.leaves(jax.grad(loss_fn)(base, adapter)):
        np.testing.assert_array_equal(leaf, 0)
    for _ in range(50):
        updates, state = tx.update(jax.grad(loss_fn, 1)(base, adapter), state)
        adapter = optax.apply_updates(adapter, updates)
    assert loss_fn(base, adapter) < 0.95 * before
    kernel = low_rank.join(base, adapter)['params']['wide']['kernel']
    sizes = np.linalg.svd(kernel - base['params']['wide']['kernel'], compute_uv=False)
    assert sizes[1] > 1e-2 and sizes[2] < 1e-5


def test_the_adapter_is_found_again_in_a_difference_and_the_nearest_where_the_rank_is_less():
    base = network()
    adapter = low_rank.init(jax.random.key(0), base, 2)
    adapter['params']['wide']['kernel']['up'] = jnp.asarray(RNG.normal(size=(2, 20)))
    whole = low_rank.merge(base, adapter)
    found = low_rank.add(base, low_rank.extract(base, whole, 2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, whole)
    one = low_rank.add(base, low_rank.extract(base, whole, 1))
    kernel = lambda p: np.asarray(p['params']['wide']['kernel'])  # noqa: E731
    second = np.linalg.svd(kernel(whole) - kernel(base), compute_uv=False)[1]
    np.testing.assert_allclose(np.linalg.norm(kernel(whole) - kernel(one)), second, rtol=1e-4)


def test_factors_stay_to_the_bit_where_nothing_was_learnt():
    base, known = network(), {'params': {}}
    base['params']['other'] = network(1)['params']['wide']
    for i, name in enumerate(('wide', 'other')):
        known['params'][name] = low_rank.init(jax.random.key(i), base, 2)['params'][name]
        known['params'][name]['kernel']['up'] = jnp.asarray(RNG.normal(size=(2, 20)))
    after = low_rank.add(base, known)
    kernel = after['params']['other']['kernel']
    after['params']['wide']['kernel'] = after['params']['wide']['kernel'].astype('float16')
    after['params']['other']['kernel'] = kernel + 0.01 * jnp.ones(12)[:, None]
    found = low_rank.extract(base, after, 3, known)
    jax.tree.map(np.testing.assert_array_equal, found['params']['wide'], known['params']['wide'])
    assert found['params']['other']['kernel']['up'].shape == (3, 20)
    np.testing.assert_allclose(
        low_rank.add(base, found)['params']['other']['kernel'], kernel + 0.01, atol=1e-5
    )


def test_a_run_trains_the_whole_network_or_the_adapter_there_is_or_a_new_one():
    params, key = network(), jax.random.key(0)
    adapter = low_rank.init(key, params, 3)
    adapter['params']['wide']['kernel']['up'] = jnp.ones((3, 20))
    base, trained = low_rank.trainable(key, params, None, 0)
    assert base is None and trained is params and low_rank.join(base, trained) is params
    base, trained = low_rank.trainable(key, params, adapter, 2)
    assert base is params and trained is adapter
    new = low_rank.trainable(key, params, None, 2)[1]
    assert new['params']['wide']['kernel']['down'].shape == (12, 2)
    none, whole = low_rank.trainable(key, params, adapter, 0)
    assert none is None
    jax.tree.map(np.testing.assert_array_equal, whole, low_rank.add(params, adapter))


def test_what_an_adapter_cannot_hold_is_named():
    base, other = network(0), network(0)
    other['params']['wide']['bias'] = other['params']['wide']['bias'] + 1
    with pytest.raises(ValueError, match='params/wide/bias; save it whole'):
        low_rank.extract(base, other, 2)
    for rank in (0, 6):
        with pytest.raises(ValueError, match=f'rank {rank}'):
            low_rank.init(jax.random.key(0), base, rank)


def test_an_adapter_of_another_network_is_named_by_every_misfit():
    adapter = low_rank.init(jax.random.key(0), network(), 2)
    adapter['params']['gone'] = adapter['params']['wide']
    adapter['params']['wide'] = {'kernel': {'down': np.ones((12, 2)), 'up': np.ones((3, 20))}}
    with pytest.raises(ValueError) as caught:
        low_rank.add(network(), adapter)
    assert 'params/gone/kernel' in str(caught.value)
    assert 'params/wide/kernel (12, 2) (3, 20)' in str(caught.value)
    for broken in ({}, {'params': {'wide': {'kernel': {'down': np.ones((12, 2))}}}}):
        with pytest.raises(ValueError, match='does not fit'):
            low_rank.add(network(), broken)
