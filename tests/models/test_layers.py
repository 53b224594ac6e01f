"""Layers against numpy, and padding that must look like the end."""

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.models.layers import ConvBlock, DepthwiseConv, RMSNorm


def rand(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_rms_norm_is_its_formula():
    x, scale = rand(2, 7, 5), rand(5, seed=1)
    got = RMSNorm().apply({'params': {'scale': scale}}, x)
    want = x / np.sqrt(np.mean(np.float64(x) ** 2, -1, keepdims=True)) * scale[None, None]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_depthwise_convolution_correlates_every_channel_with_its_own_filter():
    x, kernel, bias = rand(2, 9, 5), rand(3, 5, seed=1), rand(5, seed=2)
    got = np.asarray(DepthwiseConv(3).apply({'params': {'kernel': kernel, 'bias': bias}}, x))
    for b in range(2):
        for d in range(5):
            want = np.correlate(np.pad(x[b, :, d], 1), kernel[:, d], 'valid') + bias[d]
            np.testing.assert_allclose(got[b, :, d], want, atol=1e-5)


def test_padding_of_a_masked_block_looks_like_the_end():
    block, x = ConvBlock(expansion=2, taps=5), rand(2, 7, 6)
    params = jax.jit(block.init)(jax.random.key(0), x)
    padded = jnp.concatenate([x, 100 * rand(2, 4, 6, seed=1)], axis=1)
    mask = jnp.asarray(np.repeat([[1.0] * 7 + [0.0] * 4], 2, axis=0), jnp.float32)
    got, want = block.apply(params, padded, mask)[:, :7], block.apply(params, x)
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.abs(want - x).max() > 0.01  # the block does something
