"""Integers of weights and of products: their errors, and what stays a float."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from realaudio_jax import quantisation
from realaudio_jax.models.autoencoder import Autoencoder
from realaudio_jax.models.denoiser import Denoiser
from realaudio_jax.models.text_encoder import parameter_shapes
from realaudio_jax.quantisation import Dense, Quantised, quantise
from realaudio_jax.release import autoencoder_template, denoiser_template, named_leaves

RNG = np.random.default_rng(0)


@pytest.mark.parametrize('bits', [8, 4])
def test_an_error_is_half_a_step(bits):
    weights = RNG.normal(size=(6, 5)).astype(np.float32)
    values, scale = quantise(weights, bits=bits)
    most = 2 ** (bits - 1) - 1
    assert scale.shape == (1, 5) and (np.abs(values).max(axis=0) == most).all()
    error = np.abs(values * scale - weights)
    assert (error <= 0.5001 * np.abs(weights).max(axis=0) / most).all() and error.max() > 0


@pytest.mark.parametrize('block', [None, 2])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_what_is_not_finite_has_no_integers(value, block):
    """They would be zeros, and the sound another one without a word."""
    weights = np.ones((6, 5), np.float32)
    weights[2, 3] = value
    with pytest.raises(ValueError, match='not finite'):
        quantise(weights, block=block)


def test_two_int4_make_a_byte():
    values = np.arange(-7, 8, dtype=np.int8)[RNG.integers(0, 15, (3, 6))]
    packed = quantisation.pack_int4(values)
    assert packed.shape == (3, 3) and packed.dtype == np.uint8
    np.testing.assert_array_equal(quantisation.unpack_int4(packed), values)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_product_of_integers_is_that_of_the_rounded_factors(dtype):
    """By integers of numpy, exactly; and it is near to the product of floats."""
    x = np.asarray(RNG.normal(size=(2, 7, 12)) * RNG.lognormal(size=(2, 7, 1)), np.float32)
    x[0, 3] = 0.0  # a token of zeros has no scale
    kernel, bias = RNG.normal(size=(12, 5)).astype(np.float32), np.ones(5, np.float32)
    values, scale = quantise(kernel)
    layer = Dense(5, dtype=dtype)
    params = {'kernel': Quantised(jnp.asarray(values), jnp.asarray(scale)), 'bias': bias}
    got = np.asarray(jax.jit(layer.apply)({'params': params}, jnp.asarray(x)), np.float64)

    x = np.asarray(jnp.asarray(x, dtype), np.float32)
    peak = np.maximum(np.abs(x).max(-1, keepdims=True), 1e-12)
    integers = np.round(x * (np.float32(127) / peak)).astype(int)
    want = (integers @ values.astype(int)) * (peak / 127.0) * scale[0].astype(float) + 1
    tolerance = 1e-6 if dtype == 'float32' else 1e-2  # bfloat16 rounds the result, bias and all
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    exact = np.float64(x) @ kernel + 1
    assert 0 < np.std(got - exact) < 0.02 * np.std(exact)
    np.testing.assert_allclose(got[0, 3], 1.0)


def test_which_kernels_become_integers():
    shapes = {
        'text_encoder': parameter_shapes(),
        'autoencoder': autoencoder_template(Autoencoder(**tiny.CONFIG['autoencoder'])),
        'student': denoiser_template(Denoiser(**tiny.CONFIG['denoiser'])),
    }
    shapes['text_encoder'] = {
        name: of for name, of in shapes['text_encoder'].items() if name in ('layer_0', 'position')
    }
    rounded = quantisation.quantise_products(tiny.random_params(shapes, 0))
    found = {name.removesuffix('/values') for name, _ in named_leaves(rounded) if '/values' in name}
    assert found == {
        *(f'text_encoder/layer_0/{name}/kernel' for name in ('expand', 'contract')),
        *(f'text_encoder/layer_0/attention/{name}/kernel' for name in ('qkv', 'out')),
        *(f'autoencoder/params/decoder/block_0/{name}/kernel' for name in ('up', 'down')),
        *(
            f'student/params/block_0/{name}/kernel'
            for name in ('self_qkv', 'self_out', 'cross_query', 'cross_out', 'mlp_in', 'mlp_out')
        ),
    }
