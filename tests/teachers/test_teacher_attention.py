"""Attention of the teachers against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.teachers import layers


def plain(query, key, value):
    """Equation (1) of the paper, in float64."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    scores = query @ np.swapaxes(key, -1, -2) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = weights / weights.sum(-1, keepdims=True) @ value
    return np.swapaxes(mixed, 1, 2).reshape(mixed.shape[0], mixed.shape[2], -1)


def heads(seed, tokens, keys):
    rng = np.random.default_rng(seed)
    shapes = ((2, 3, tokens, 4), (2, 3, keys, 4), (2, 3, keys, 4))
    return [jnp.asarray(3 * rng.normal(size=shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize('tokens, keys', [(7, 5), (520, 512), (1, 1)])
def test_attention_is_its_definition(tokens, keys):
    """Also of heads so long that they come one after the other."""
    assert (tokens * keys >= layers.LONG) is (tokens == 520)
    asked = heads(0, tokens, keys)
    found = jax.jit(layers.attend)(*asked)
    np.testing.assert_allclose(found, plain(*asked), atol=1e-5)


def test_hidden_keys_are_not_seen_and_no_key_at_all_is_a_number():
    asked = heads(1, 6, 5)
    mask = jnp.asarray([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0]], bool)
    found = layers.attend(*asked, layers.mask_bias(mask))
    seen = [x[:1] if i == 0 else x[:1, :, np.array([0, 1, 3])] for i, x in enumerate(asked)]
    np.testing.assert_allclose(found[:1], plain(*seen), atol=1e-5)
    assert jnp.isfinite(found).all()


def test_gradients_of_long_heads_are_those_of_short_ones(monkeypatch):
    asked = heads(2, 9, 8)

    def loss(*told):
        return jnp.sum(jnp.sin(layers.attend(*told)))

    def gradient():
        return jax.grad(loss, argnums=(0, 1, 2))(*asked)

    short = gradient()
    monkeypatch.setattr(layers, 'LONG', 1)
    for long, other in zip(gradient(), short, strict=True):
        np.testing.assert_allclose(long, other, atol=1e-5)
