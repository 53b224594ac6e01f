"""Shapes of a network's parameters are traced once, and belong to who asked."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from realaudio_jax.models.autoencoder import Autoencoder
from realaudio_jax.release import autoencoder_template
from realaudio_jax.trees import traced_once


def test_equal_networks_are_traced_once_and_others_by_themselves():
    traced = []

    @traced_once
    def shapes(model):
        traced.append(model)
        return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 3)))

    first, again = shapes(nn.Dense(5)), shapes(nn.Dense(5))
    assert len(traced) == 1 and first == again and first['params']['kernel'].shape == (3, 5)
    first['params'].pop('bias')
    assert 'bias' in again['params'] and 'bias' in shapes(nn.Dense(5))['params']
    assert shapes(nn.Dense(4))['params']['bias'].shape == (4,) and len(traced) == 2
    with jax.enable_x64(True):
        assert shapes(nn.Dense(5)) == again and len(traced) == 3  # floats may be others there


def test_a_network_with_a_dict_of_settings_is_known():
    """As a config gives them."""
    decoder = {'width': 10, 'blocks': 1, 'directions': 12}
    shapes = autoencoder_template(Autoencoder(decoder=decoder))
    assert shapes == autoencoder_template(Autoencoder(decoder=dict(decoder)))
    other = autoencoder_template(Autoencoder(decoder=decoder | {'width': 14}))
    assert jax.tree.structure(other) == jax.tree.structure(shapes) and other != shapes
