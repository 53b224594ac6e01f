"""One set of weights at two rates, padding that is not heard, and the posterior's arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tiny

from realaudio_jax.components import autoencoder_template
from realaudio_jax.models.autoencoder import (
    BANDS,
    STRIDE,
    Autoencoder,
    LinearCode,
    Posterior,
    fit_linear_code,
    samples_per_latent,
)
from realaudio_jax.typing import LATENT_RATE

MODEL = Autoencoder(**tiny.CONFIG['autoencoder'])
RATES = (48_000, 44_100)
LENGTH = 6  # latent frames


@pytest.fixture(scope='module')
def params():
    return tiny.random_params(autoencoder_template(MODEL), 0)


@pytest.fixture(scope='module')
def call():
    """`call(method, params, x, rate, ...)`, compiled once for each shape and rate."""
    return jax.jit(
        lambda method, params, *arguments: MODEL.apply(params, *arguments, method=method),
        static_argnums=(0, 3),
    )


def sound(rate, length=LENGTH, seed=0):
    shape = (2, length * samples_per_latent(rate), 2)
    return 0.1 * np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def latents(length=LENGTH, seed=1):
    return np.random.default_rng(seed).normal(size=(2, length, 64)).astype(np.float32)


@pytest.mark.parametrize('rate', RATES)
def test_round_trip_shapes_from_one_set_of_weights(params, call, rate):
    x = sound(rate)
    z = call('encode', params, x, rate)
    assert z.shape == (2, LENGTH, 64) and x.shape[1] / z.shape[1] == rate / LATENT_RATE
    y = call('decode', params, z, rate)
    assert y.shape == x.shape and np.isfinite(y).all() and np.abs(y).max() > 1e-3


def test_a_lower_rate_uses_the_first_rows_of_the_same_kernels(params, call):
    """Rows of the bins above 22.05 kHz matter at 48 kHz and cannot at 44.1 kHz."""
    bins = 44_100 // 25 // 2 + 1
    changed = jax.tree.map(np.array, params)
    inner = changed['params']
    inner['encoder']['from_magnitude']['kernel'][2 * bins :] += 1.0
    inner['decoder']['to_bins_kernel'][:, 6 * bins :] += 1.0
    inner['decoder']['to_bins_bias'][6 * bins :] += 1.0
    for rate, matters in zip(RATES, (True, False), strict=True):
        for method, x in (('encode', sound(rate)), ('decode', latents())):
            old, new = (call(method, p, x, rate) for p in (params, changed))
            assert matters == bool(np.abs(old - new).max() > 1e-3), (rate, method)


def test_padding_is_not_heard(params, call):
    """Latents after the end change nothing before it; the noise of a frame is the same in both."""
    z = latents()
    padded = np.concatenate([z, 50 * latents(4, seed=2)], axis=1)
    mask = np.repeat(np.float32([[1] * LENGTH + [0] * 4]), 2, axis=0)
    want = call('decode', params, z, 48_000)
    got = call('decode', params, padded, 48_000, mask)[:, : want.shape[1]]
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


def test_latents_are_shifted_and_scaled_posterior_means(params, call):
    mean, scale = params['params']['latent_mean'], params['params']['latent_scale']
    mean, scale = mean[None, None], scale[None, None]
    x, z = sound(48_000), latents()
    posterior = call('posterior', params, x, 48_000)
    np.testing.assert_allclose(
        call('encode', params, x, 48_000), (posterior.mean - mean) / scale, rtol=1e-4, atol=1e-4
    )
    raw = call('decode_raw', params, np.asarray(z * scale + mean), 48_000)
    np.testing.assert_allclose(
        call('decode', params, z, 48_000), raw, atol=1e-4 * np.abs(raw).max()
    )


def test_the_linear_code_is_exact_on_levels_of_few_directions():
    """40 directions fit into 64 latents; more do not."""
    rng = np.random.default_rng(0)
    size = STRIDE * 2 * BANDS
    empty = {'params': {'encoder': {}, 'decoder': {}}}
    for directions, exact in ((40, True), (200, False)):
        levels = rng.normal(size=(300, directions)) @ rng.normal(size=(directions, size)) - 4
        code = fit_linear_code(empty, levels.astype(np.float32))['params']
        levels = jnp.asarray(levels[None, :7], jnp.float32)
        z = LinearCode().apply({'params': code['encoder']['linear']}, levels)
        back = LinearCode(inverse=True).apply({'params': code['decoder']['linear']}, z)
        assert z.shape == (1, 7, 64)
        assert exact == bool(np.abs(back - levels).max() < 1e-3 * np.abs(levels).max())


@pytest.mark.parametrize('rate', RATES)
def test_band_levels_of_one_loud_band(rate, call, params):
    """A sine in the middle only: the loudest band is at its frequency at both rates."""
    samples = LENGTH * samples_per_latent(rate)
    tone = 0.5 * np.sin(2 * np.pi * 3000 * np.arange(samples) / rate)
    audio = jnp.asarray(np.stack([tone, tone], axis=1)[None], jnp.float32)
    levels = np.asarray(call('levels', params, audio, rate)).reshape(1, LENGTH, STRIDE, 2, BANDS)
    mel = np.log10(1 + 3000 / 700) / np.log10(1 + 24_000 / 700) * (BANDS - 1)
    assert abs(levels[0, 2, 0, 0].argmax() - mel) <= 1
    np.testing.assert_allclose(levels[..., 1, :], np.log(0.01), atol=0.05)
    assert levels[0, 2, 0, 0].max() > 2


def test_posterior_against_numerical_integration():
    mean, log_variance = 0.7, -1.3
    scale = np.exp(log_variance / 2)
    q, p = scipy.stats.norm(mean, scale), scipy.stats.norm()
    want, _ = scipy.integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -8, 8)
    posterior = Posterior(jnp.full((2, 7, 5), mean), jnp.full((2, 7, 5), log_variance))
    np.testing.assert_allclose(posterior.kl(), want, rtol=1e-5)
    standard = Posterior(jnp.zeros((1, 1, 3)), jnp.zeros((1, 1, 3)))
    np.testing.assert_allclose(standard.kl(), 0, atol=1e-7)
    drawn = posterior.sample(jnp.full((2, 7, 5), 2.0))
    np.testing.assert_allclose(drawn, mean + 2 * scale, rtol=1e-6)


@pytest.mark.parametrize('rate', RATES)
def test_full_size(rate):
    """Parameters and the shapes of 10 s, with no memory; change the count with the architecture."""
    model = Autoencoder()
    shapes = autoencoder_template(model)
    count = {
        name: sum(np.prod(x.shape) for x in jax.tree.leaves(shapes['params'][name]))
        for name in ('encoder', 'decoder')
    }
    assert count == {'encoder': 5_386_048, 'decoder': 8_145_158}
    audio = jax.ShapeDtypeStruct((1, 10 * rate, 2), np.float32)
    z = jax.eval_shape(lambda p, x: model.apply(p, x, rate, method='encode'), shapes, audio)
    assert z.shape == (1, 250, 64)
    y = jax.eval_shape(lambda p, z: model.apply(p, z, rate, method='decode'), shapes, z)
    assert y.shape == audio.shape


def test_linear_code_alone_rebuilds_levels_of_its_own_rank():
    """Levels that vary in few directions come back exactly; the networks start as no correction."""
    rng = np.random.default_rng(0)
    model = Autoencoder()
    params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), autoencoder_template(model))
    levels = rng.normal(size=(400, 7)) @ rng.normal(size=(7, 1024)) - 2.0
    code = jax.tree.map(np.asarray, fit_linear_code(params, levels)['params'])
    z = (levels - code['encoder']['linear']['mean']) @ code['encoder']['linear']['kernel']
    back = z @ code['decoder']['linear']['kernel'] + code['decoder']['linear']['mean']
    np.testing.assert_allclose(back, levels, atol=2e-3)
    spread = np.asarray(z).std(axis=0)
    assert (np.diff(spread[:7]) < 0).all() and spread[7:].max() < 1e-3 * spread[0]
