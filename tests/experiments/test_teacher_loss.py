"""How the teacher's loss draws noise levels, and its dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.models.denoiser import Denoiser
from realaudio_jax.random import random_key
from realaudio_jax.release import empty_conditioning


def test_emphasised_times_follow_their_density(experiment):
    emphasised = experiment('train_teacher').emphasised
    u = (np.arange(100_000) + 0.5) / 100_000
    t = np.asarray(emphasised(jnp.asarray(u), 0.5, 0.95, 3.0))
    assert (np.diff(t) >= 0).all() and 0 < t[0] < t[-1] < 1
    counts, _ = np.histogram(t, [0.0, 0.25, 0.5, 0.725, 0.95, 1.0])
    density = np.array([1, 1, 3, 3, 1]) * np.array([0.25, 0.25, 0.225, 0.225, 0.05])
    np.testing.assert_allclose(counts / len(u), density / density.sum(), atol=1e-3)
    np.testing.assert_allclose(emphasised(jnp.asarray(u), 0.5, 0.95, 1.0), u, atol=1e-6)


@pytest.mark.parametrize('rate', [0.0, 0.5])
def test_dropout_needs_a_key_and_changes_no_parameter(rate):
    model, (size, length) = Denoiser(width=8, depth=1, heads=2, dropout=rate), (2, 4)
    c = jax.tree.map(jnp.asarray, empty_conditioning(size, length))
    x, ones = jax.random.normal(random_key(1), (size, length, 64)), jnp.ones(size)
    params = jax.jit(model.init)(random_key(0), x, ones, c, ones, ones)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)

    @jax.jit
    def predicted(params):
        rest = x, ones, c, ones, ones
        plain = model.clone(dropout=0.0).apply(params, *rest)
        dropped = model.apply(params, *rest, rngs={'dropout': random_key(2)})
        return plain, model.apply(params, *rest), dropped

    plain, without_key, dropped = predicted(params)  # strict: the parameters are the same
    np.testing.assert_array_equal(without_key, plain)
    assert bool((dropped != plain).any()) == bool(rate)
