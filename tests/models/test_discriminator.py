"""What the discriminator sees, and that all of it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from realaudio_jax.models.discriminator import DepthwiseConv2D, Discriminator

SAMPLES = 512


@pytest.fixture(scope='module')
def small():
    model = Discriminator(n_ffts=(128, 256))
    return model, jax.jit(model.init)(jax.random.key(0), sound())


def sound(seed=0):
    x = 0.1 * np.random.default_rng(seed).normal(size=(2, SAMPLES, 2))
    return jnp.asarray(x, jnp.float32)


def test_logits_and_features_of_every_resolution(small):
    model, params = small
    logits, features = jax.jit(model.apply)(params, sound())
    # 4 frames a window; n_fft / 2 bins in patches of 8, halved three times
    assert [x.shape for x in logits] == [(2, 16, 1), (2, 8, 2)]
    assert [len(x) for x in features] == [4, 4]


def test_it_hears_phase_and_the_side(small):
    model, params = small
    apply = jax.jit(lambda x: jnp.concatenate([y.ravel() for y in model.apply(params, x)[0]]))
    x = sound()
    for other in (-x, x * jnp.asarray([[[1.0, -1.0]]]), x[:, ::-1]):
        assert np.abs(apply(x) - apply(other)).max() > 1e-3


def test_every_parameter_has_a_gradient(small):
    model, params = small

    def total(p):
        return sum(jnp.sum(jnp.sin(x)) for x in model.apply(p, sound())[0])

    for path, gradient in jax.tree.leaves_with_path(jax.jit(jax.grad(total))(params)):
        assert np.isfinite(gradient).all() and gradient.any(), jax.tree_util.keystr(path)


def test_the_filter_is_a_correlation_over_time_and_frequency():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 7, 5, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(9, 3)), jnp.float32)
    got = DepthwiseConv2D().apply({'params': {'kernel': kernel}}, x)
    for d in range(3):
        want = scipy.signal.correlate2d(x[1, ..., d], kernel[:, d].reshape(3, 3), 'same')
        np.testing.assert_allclose(got[1, ..., d], want, atol=1e-5)


def test_full_size():
    model, audio = Discriminator(), jax.ShapeDtypeStruct((2, 24_576, 2), np.float32)
    (logits, features), params = jax.eval_shape(model.init_with_output, jax.random.key(0), audio)
    assert [x.shape for x in logits] == [(2, 192, 4), (2, 96, 8), (2, 48, 16)]
    assert [x.shape[2] for x in features[0]] == [32, 16, 8, 4]
    assert sum(np.prod(x.shape) for x in jax.tree.leaves(params)) < 1e6
