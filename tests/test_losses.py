"""The autoencoder's losses against values known beforehand."""

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import losses

SAMPLES = 4096
mel_loss = jax.jit(losses.mel_loss, static_argnums=2)
complex_loss = jax.jit(losses.complex_loss)
energy_loss = jax.jit(losses.energy_loss, static_argnums=2)


def white(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(2, SAMPLES, 2)), jnp.float32)


def stereo(mid, side):
    return jnp.stack([mid + side, mid - side], axis=-1)


def test_mel_loss_measures_level_in_nepers_and_weights_the_side():
    """Twice the amplitude is ln 2 in every band; in the side alone it counts a third of that."""
    x = white(0)
    np.testing.assert_allclose(mel_loss(x, x, 48_000), 0, atol=1e-6)
    np.testing.assert_allclose(mel_loss(x, 2 * x, 48_000)[0], np.log(2), rtol=1e-3)
    mid, side = x[..., 0], x[..., 1]
    got = mel_loss(stereo(mid, side), stereo(mid, 2 * side), 48_000)
    np.testing.assert_allclose(got[0], np.log(2) / 3, rtol=1e-3)


def test_linear_mel_loss_is_a_share_of_the_target():
    """Half the amplitude misses half of the sum; the quiet parts of a sound count for nothing."""
    x = white(0)
    np.testing.assert_allclose(mel_loss(0.5 * x, x, 48_000)[1], 0.5, rtol=1e-2)
    quiet = x.at[:, : SAMPLES // 2].multiply(1e-2)
    worse = quiet.at[:, : SAMPLES // 4].multiply(2.0)
    logarithmic, linear = mel_loss(worse, quiet, 48_000)
    assert linear.max() < 0.05 < logarithmic.min()


def test_energy_loss_asks_for_the_octave_and_not_for_the_bin():
    """1.5 kHz for 1.2 kHz is nearly right, 2.5 kHz is not; half the amplitude costs ln 2."""
    t = jnp.arange(SAMPLES) / 48_000

    def tone(hz):
        mono = jnp.sin(2 * jnp.pi * hz * t)
        return jnp.stack([mono, 0.5 * mono], axis=-1)[None]

    near, far = (energy_loss(tone(hz), tone(1_200.0), 48_000)[0] for hz in (1_500.0, 2_500.0))
    assert near < 0.5 * far
    x = white(0)
    np.testing.assert_allclose(energy_loss(0.5 * x, x, 48_000), np.log(2), rtol=2e-2)


def test_losses_are_per_item():
    x = white(0)
    y = jnp.stack([x[0], white(1)[1]])
    for got in (*mel_loss(x, y, 48_000), complex_loss(x, y), energy_loss(x, y, 48_000)):
        assert got.shape == (2,) and abs(got[0]) < 1e-3 < 0.01 < got[1]


def test_complex_loss_hears_phase_where_mel_loss_does_not():
    x = white(0)
    np.testing.assert_allclose(mel_loss(x, -x, 48_000), 0, atol=1e-5)
    assert complex_loss(x, -x).min() > 0.5


def test_gradients_at_silence_are_finite():
    def total(x):
        target = white(0)
        logarithmic, linear = mel_loss(x, target, 48_000)
        spectra = complex_loss(x, target) + energy_loss(x, target, 48_000)
        return jnp.sum(logarithmic + linear + spectra)

    assert np.isfinite(jax.jit(jax.grad(total))(jnp.zeros((2, SAMPLES, 2)))).all()


def test_hinges_and_feature_matching_are_their_formulas():
    real = [jnp.asarray([0.5, 2.0, -1.0]), jnp.asarray([[3.0]])]
    fake = [jnp.asarray([-2.0, 0.0, 1.0]), jnp.asarray([[-0.5]])]
    # max(0, 1 - real): (0.5 + 0 + 2) / 3 and 0; max(0, 1 + fake): (0 + 1 + 2) / 3 and 0.5
    want = ((2.5 / 3 + 1.0) + (0.0 + 0.5)) / 2
    np.testing.assert_allclose(losses.discriminator_hinge(real, fake), want, rtol=1e-6)
    np.testing.assert_allclose(losses.generator_hinge(fake), (1 / 3 + 0.5) / 2, rtol=1e-6)
    want = (np.mean([2.5, 2.0, 2.0]) / np.mean([0.5, 2.0, 1.0]) + 3.5 / 3) / 2
    np.testing.assert_allclose(losses.feature_matching(real, fake), want, rtol=1e-5)
    to_real, to_fake = jax.grad(losses.feature_matching, argnums=(0, 1))(real, fake)
    assert all(not x.any() for x in to_real) and all(x.all() for x in to_fake)
