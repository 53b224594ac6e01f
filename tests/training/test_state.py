import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from realaudio_jax.mesh import make_mesh
from realaudio_jax.training.sharding import replicate
from realaudio_jax.training.state import (
    apply_gradients,
    create_state,
    ema_decay_at,
    with_learning_rate,
)


def _params():
    return {'dense': {'kernel': jnp.arange(15.0).reshape(3, 5), 'bias': jnp.zeros(5)}}


def test_average_follows_the_ramp_then_the_decay():
    tx = optax.sgd(0.5)
    state = create_state(_params(), tx)
    grads = jax.tree.map(jnp.ones_like, state.params)
    params = np.arange(15.0).reshape(3, 5)
    average = params.copy()
    for step in range(12):
        state = apply_gradients(state, grads, tx, ema_decay=0.4)
        params = params - 0.5
        decay = min(0.4, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * params
    assert int(state.step) == 12
    np.testing.assert_allclose(state.params['dense']['kernel'], params, rtol=1e-6)
    np.testing.assert_allclose(state.ema_params['dense']['kernel'], average, rtol=1e-6)


def test_decay_starts_at_a_tenth_and_is_capped():
    np.testing.assert_allclose(ema_decay_at(jnp.int32(0), 0.999), 0.1, rtol=1e-6)
    np.testing.assert_allclose(ema_decay_at(jnp.int32(10**7), 0.999), 0.999, rtol=1e-6)


def test_no_decay_keeps_the_average_equal_to_the_parameters():
    tx = optax.adam(1e-2)
    state = create_state(_params(), tx)
    state = apply_gradients(state, jax.tree.map(jnp.ones_like, state.params), tx, ema_decay=0.0)
    jax.tree.map(np.testing.assert_array_equal, state.params, state.ema_params)


def test_average_keeps_a_narrow_dtype():
    tx = optax.sgd(0.5)
    state = create_state({'w': jnp.ones(3, jnp.bfloat16)}, tx)
    state = apply_gradients(state, {'w': jnp.ones(3, jnp.bfloat16)}, tx, ema_decay=0.9)
    assert state.ema_params['w'].dtype == jnp.bfloat16
    assert state.params['w'].dtype == jnp.bfloat16


def test_the_whole_state_can_be_donated():
    tx = optax.adam(1e-2)
    state = create_state(_params(), tx)
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state) if leaf.size]
    assert len(set(pointers)) == len(pointers)
    step = jax.jit(lambda s, g: apply_gradients(s, g, tx, ema_decay=0.9), donate_argnums=0)
    state = step(state, jax.tree.map(jnp.ones_like, state.params))
    assert int(state.step) == 1


def test_the_learning_rate_is_an_argument_of_each_update():
    tx = with_learning_rate(optax.sgd)
    state = create_state(_params(), tx)
    grads = jax.tree.map(jnp.ones_like, state.params)
    step = jax.jit(lambda state, rate: apply_gradients(state, grads, tx, 0.0, rate))
    for rate in (0.5, 0.125):
        state = step(state, rate)
    expected = np.arange(15.0).reshape(3, 5) - 0.625
    np.testing.assert_allclose(state.params['dense']['kernel'], expected, rtol=1e-6)
    assert step._cache_size() == 1  # one program for every rate


@pytest.mark.parametrize('on_mesh', [(), ('kernel',), ('kernel', 'bias')])
def test_a_step_is_compiled_once_wherever_the_parameters_are(on_mesh):
    tx = with_learning_rate(optax.adam)
    params = {
        name: replicate(make_mesh(), leaf) if name in on_mesh else leaf
        for name, leaf in _params()['dense'].items()
    }
    step = jax.jit(lambda s, g: apply_gradients(s, g, tx, ema_decay=0.9, learning_rate=1e-2))
    state = create_state(params, tx)
    for _ in range(2):
        state = step(state, jax.tree.map(jnp.ones_like, params))
    assert step._cache_size() == 1


def test_the_state_before_an_update_keeps_its_learning_rate():
    tx = with_learning_rate(optax.sgd)
    state = create_state(_params(), tx)
    grads = jax.tree.map(jnp.ones_like, state.params)
    after = apply_gradients(state, grads, tx, ema_decay=0.0, learning_rate=0.25)
    assert float(state.opt_state.hyperparams['learning_rate']) == 0.0
    assert float(after.opt_state.hyperparams['learning_rate']) == 0.25
