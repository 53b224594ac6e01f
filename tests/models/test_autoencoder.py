"""One set of weights at two rates, padding that is not heard, and the posterior's arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import tiny

from realaudio_jax.models.autoencoder import (
    TEMPERATURE,
    Autoencoder,
    Decoder,
    Encoder,
    Posterior,
    samples_per_latent,
    synthesize,
)
from realaudio_jax.models.band_levels import BANDS, LEVELS, STRIDE
from realaudio_jax.release import autoencoder_template
from realaudio_jax.training.pca import fit_pca, level_weight
from realaudio_jax.typing import LATENT_RATE

MODEL = Autoencoder(**tiny.CONFIG['autoencoder'])
RATES = (48_000, 44_100)
LENGTH = 6  # latent frames
WEIGHT = level_weight(side=0.15, high=0.25, high_hz=8_000.0)


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


def test_a_lower_rate_uses_the_same_bands(call):
    """A tone has the same levels at both rates, and what lies above 22.05 kHz is silent at one."""
    levels = []
    for rate in RATES:
        seconds = np.arange(LENGTH * samples_per_latent(rate)) / rate
        x = 0.3 * np.sin(2 * np.pi * 1000 * seconds)
        audio = np.float32(np.stack([x, x], axis=-1)[None])
        levels.append(np.asarray(call('levels', {'params': {}}, audio, rate)))
    levels = np.stack(levels).reshape(2, LENGTH, STRIDE, 2, BANDS)[:, 1:-1]
    np.testing.assert_allclose(levels[0, ..., :120], levels[1, ..., :120], atol=0.05)
    np.testing.assert_allclose(levels[1, ..., -1], np.log(1e-2), atol=1e-2)


def test_padding_is_not_heard(params, call):
    """Latents after the end change nothing before it; the noise of a frame is the same in both."""
    z = latents()
    padded = np.concatenate([z, 50 * latents(4, seed=2)], axis=1)
    mask = np.repeat(np.float32([[1] * LENGTH + [0] * 4]), 2, axis=0)
    want = call('decode', params, z, 48_000)
    got = call('decode', params, padded, 48_000, mask)[:, : want.shape[1]]
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


def fitted(levels, directions=12):
    """Code and directions solved for on `levels`; the networks are random."""
    template = autoencoder_template(Autoencoder(decoder=dict(directions=directions)))
    params = tiny.random_params(template, 0)
    return fit_pca(params, np.float32(levels), WEIGHT)['params']


def test_the_code_is_exact_on_levels_of_few_directions():
    """40 directions fit into 64 latents; more do not. Few directions leave few latents alive."""
    rng = np.random.default_rng(0)
    for directions, exact in ((40, True), (200, False)):
        levels = rng.normal(size=(300, directions)) @ rng.normal(size=(directions, LEVELS)) - 4
        tree = fitted(levels)
        z = Encoder().apply({'params': tree['encoder']}, jnp.asarray(levels[None], jnp.float32))
        assert z.mean.shape == (1, 300, 64)
        decoder = Decoder(directions=12)
        back = decoder.apply({'params': tree['decoder']}, z.mean, method='linear')[0]
        assert exact == bool(np.abs(back - levels).max() < 1e-3 * np.abs(levels).max())
        spread = np.asarray(z.mean[0]).std(axis=0)
        np.testing.assert_allclose(np.asarray(z.mean[0]).mean(axis=0), 0, atol=2e-2)
        assert (np.diff(spread[:40]) < 1e-3).all()
        assert exact == bool(spread[41:].max() < 1e-2 * spread[0])


def test_a_wider_code_leaves_less_out():
    """The number of channels is a field of the model; shapes follow it, 64 is the default."""
    rng = np.random.default_rng(0)
    levels = np.float32(rng.normal(size=(300, 90)) @ rng.normal(size=(90, LEVELS)) - 4)
    given, left_out = jnp.asarray(levels[None]), []
    for channels in (64, 96):
        model = Autoencoder(decoder=dict(directions=12, width=10, blocks=1), channels=channels)
        params = fit_pca(tiny.random_params(autoencoder_template(model), 0), levels, WEIGHT)
        z = Encoder(channels).apply({'params': params['params']['encoder']}, given).mean
        assert z.shape == (1, 300, channels)
        decoder = Decoder(directions=12, width=10, blocks=1, channels=channels)
        back = decoder.apply({'params': params['params']['decoder']}, z, method='linear')[0]
        left_out.append(np.abs(back - levels).max())
    assert left_out[1] < 1e-2 * left_out[0]


def test_without_networks_one_spread_serves_all_latents():
    """The draw then has the covariance of what the code leaves out of the training sounds."""
    rng = np.random.default_rng(0)
    levels = rng.normal(size=(6_000, 20)) * np.arange(20, 0, -1) @ rng.normal(size=(20, LEVELS)) / 9
    model = Autoencoder(decoder=dict(directions=12, width=0), channels=8)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), autoencoder_template(model))
    params = fit_pca(zeros, np.float32(levels), WEIGHT)['params']
    assert params['decoder'].keys() == {'mean', 'kernel', 'residual'}
    decoder = Decoder(directions=12, width=0, channels=8)
    z = jnp.asarray(rng.normal(size=(1, 4_000, 8)), jnp.float32)
    drawn, expected = decoder.apply({'params': params['decoder']}, z)
    linear = decoder.apply({'params': params['decoder']}, z, method='linear')
    np.testing.assert_array_equal(expected, linear)
    code = Encoder(8).apply({'params': params['encoder']}, jnp.float32(levels[None])).mean
    missed = levels - decoder.apply({'params': params['decoder']}, code, method='linear')[0]
    got = np.square((drawn - expected)[0]).mean(0) / TEMPERATURE**2
    np.testing.assert_allclose(got, np.square(missed).mean(0), rtol=0.15)


def test_a_draw_keeps_its_latents():
    """What is drawn lies outside the code: encoding the drawn levels gives the latents back."""
    rng = np.random.default_rng(0)
    levels = rng.normal(size=(400, 100)) @ rng.normal(size=(100, LEVELS)) / 10 - 3
    tree = fitted(levels)
    z = jnp.asarray(0.5 * latents()[:1])
    decoder = Decoder(directions=12)
    drawn, _ = decoder.apply({'params': tree['decoder']}, z)
    plain = decoder.apply({'params': tree['decoder']}, z, method='linear')
    assert np.abs(drawn - plain).max() > 0.1
    back = Encoder().apply({'params': tree['encoder']}, drawn)
    np.testing.assert_allclose(back.mean, z, atol=5e-3)


def test_log_likelihood_is_that_of_the_gaussian_that_is_drawn_from():
    rng = np.random.default_rng(0)
    levels = rng.normal(size=(400, 100)) @ rng.normal(size=(100, LEVELS)) / 10 - 3
    tree = {'params': fitted(levels)['decoder']}
    decoder = Decoder(directions=12)
    z = jnp.asarray(0.5 * latents()[:1])
    mean, log_std = decoder.apply(tree, z, method='distribution')
    noise = rng.normal(size=mean.shape).astype(np.float32)
    drawn = decoder.apply(tree, z, method='linear')
    drawn = drawn + (mean + np.exp(log_std) * noise) @ tree['params']['residual']
    got = decoder.apply(tree, z, drawn, WEIGHT, method='log_likelihood')
    spread = np.exp(np.asarray(log_std, np.float64))
    want = scipy.stats.norm(0, spread).logpdf(spread * noise) + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(got, want.mean(axis=-1), atol=1e-3)


@pytest.mark.parametrize('rate', RATES)
def test_a_sound_from_levels_has_these_levels(rate, call):
    """A tone, noise and silence: levels of the sound made from levels are close to them."""
    samples = 2 * LENGTH * samples_per_latent(rate)
    seconds = np.arange(samples) / rate
    noise = 0.1 * np.random.default_rng(0).normal(size=samples)
    make = jax.jit(synthesize, static_argnums=1)
    for x, close in ((0.3 * np.sin(2 * np.pi * 1234 * seconds), 1.0), (noise, 0.35)):
        audio = np.float32(np.stack([x, 0.5 * x], axis=-1)[None])
        levels = np.asarray(call('levels', {'params': {}}, audio, rate))
        made = np.asarray(make(levels, rate))
        assert made.shape == audio.shape
        again = np.asarray(call('levels', {'params': {}}, made, rate))[:, 2:-2]
        error = np.abs(again - levels[:, 2:-2])[levels[:, 2:-2] > 0.0]
        assert error.mean() < close
        power = np.square(made[:, 4800:-4800]).mean() / np.square(audio[:, 4800:-4800]).mean()
        assert abs(10 * np.log10(power)) < 1.5
    silence = jnp.full((1, LENGTH, LEVELS), np.log(1e-2), jnp.float32)
    assert np.abs(make(silence, rate)).max() < 2e-5  # -94 dB: less than a 16-bit step


def test_latents_are_the_same_sound_at_every_rate(params, call):
    """Tone, noise and an attack: up to half a sample of delay, 44.1 kHz is 48 kHz resampled."""
    rng, samples = np.random.default_rng(0), 50 * samples_per_latent(48_000)
    tone = np.sin(2 * np.pi * 931 * np.arange(samples) / 48_000)
    mono = 0.2 * tone + 0.1 * rng.normal(size=samples) * (np.arange(samples) > 0.6 * samples)
    audio = np.float32(np.stack([mono, 0.5 * mono], axis=-1)[None])
    levels = np.asarray(call('levels', {'params': {}}, audio, 48_000))
    make = jax.jit(synthesize, static_argnums=1)
    at_48, at_44 = (np.asarray(make(levels, rate))[0, :, 0] for rate in RATES)
    hz = np.fft.rfftfreq(samples, 1 / 48_000)
    low = hz < 20_000
    spectra = [np.fft.rfft(x)[: low.sum()] / len(x) for x in (at_48, at_44)]
    delay = 0.5 * (1 / 44_100)  # 1.5 hops before a frame's middle are whole samples at 48 kHz
    spectra[1] *= np.exp(2j * np.pi * hz[low] * delay)
    error = np.square(np.abs(spectra[0] - spectra[1])).sum()
    assert error < 1e-4 * np.square(np.abs(spectra[0])).sum()


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


def test_a_sample_of_the_posterior():
    mean, log_variance = 0.7, -1.3
    posterior = Posterior(jnp.full((2, 7, 5), mean), jnp.full((2, 7, 5), log_variance))
    drawn = posterior.sample(jnp.full((2, 7, 5), 2.0))
    np.testing.assert_allclose(drawn, mean + 2 * np.exp(log_variance / 2), rtol=1e-6)


@pytest.mark.parametrize('rate', RATES)
def test_full_size(rate):
    """Parameters and the shapes of 10 s, with no memory; change the count with the architecture."""
    model = Autoencoder()
    shapes = autoencoder_template(model)
    count = {
        name: sum(np.prod(x.shape) for x in jax.tree.leaves(shapes['params'][name]))
        for name in ('encoder', 'decoder')
    }
    assert count == {'encoder': 66_624, 'decoder': 3_679_616}
    audio = jax.ShapeDtypeStruct((1, 10 * rate, 2), np.float32)
    z = jax.eval_shape(lambda p, x: model.apply(p, x, rate, method='encode'), shapes, audio)
    assert z.shape == (1, 250, 64)
    y = jax.eval_shape(lambda p, z: model.apply(p, z, rate, method='decode'), shapes, z)
    assert y.shape == audio.shape


def test_an_attack_is_not_smeared_by_the_window_twice():
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(1, 48_000, 2)).astype(np.float32) * 0.1
    audio[:, :24_000] *= 1e-3
    again = jax.jit(lambda x: synthesize(MODEL.apply({}, x, 48_000, method='levels'), 48_000))
    power = np.square(np.asarray(again(audio))[0]).sum(1)

    def decibels(begin_ms, end_ms):
        return 10 * np.log10(power[48 * begin_ms : 48 * end_ms].mean())

    assert decibels(480, 490) - decibels(550, 900) < -23  # -21.5 with frames as they were measured
