"""Shapes of a network's parameters are traced once, and belong to who asked."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from realaudio_jax.models.autoencoder import Autoencoder
from realaudio_jax.release import autoencoder_template
from realaudio_jax.trees import initial_shapes


class Counted(nn.Module):
    """A layer that notes its calls."""

    features: int
    calls = []

    @nn.compact
    def __call__(self, x, bias=True):
        self.calls.append(x.shape)
        return nn.Dense(self.features, use_bias=bias)(x)


def test_equal_networks_are_traced_once_and_others_by_themselves():
    x, calls = jax.ShapeDtypeStruct((1, 3), jnp.float32), Counted.calls
    first, again = initial_shapes(Counted(5), x), initial_shapes(Counted(5), jnp.zeros((1, 3)))
    layer = first['params']['Dense_0']
    assert len(calls) == 1 and first == again and layer['kernel'].shape == (3, 5)
    layer.pop('bias')
    assert 'bias' in again['params']['Dense_0']
    assert 'bias' in initial_shapes(Counted(5), x)['params']['Dense_0'] and len(calls) == 1
    other = initial_shapes(Counted(4), x)['params']['Dense_0']
    assert other['bias'].shape == (4,) and len(calls) == 2
    wide = jax.ShapeDtypeStruct((1, 7), jnp.float32)
    assert initial_shapes(Counted(5), wide)['params']['Dense_0']['kernel'].shape == (7, 5)
    assert 'bias' not in initial_shapes(Counted(5), x, bias=False)['params']['Dense_0']
    with jax.enable_x64(True):
        assert initial_shapes(Counted(5), x) == again and len(calls) == 5  # others, perhaps


def test_a_network_with_a_dict_of_settings_is_known():
    """As a config gives them."""
    decoder = {'width': 10, 'blocks': 1, 'directions': 12}
    shapes = autoencoder_template(Autoencoder(decoder=decoder))
    assert shapes == autoencoder_template(Autoencoder(decoder=dict(decoder)))
    other = autoencoder_template(Autoencoder(decoder=decoder | {'width': 14}))
    assert jax.tree.structure(other) == jax.tree.structure(shapes) and other != shapes
