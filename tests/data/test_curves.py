"""Curves: known sounds, sketches, and the way from a scene through a batch into the denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.data import curves
from realaudio_jax.data.latent_crops import crop_batch
from realaudio_jax.data.scene_encoder import FRAME_SAMPLES, SceneEncoder
from realaudio_jax.data.scenes import Scene
from realaudio_jax.models.denoiser import Denoiser
from realaudio_jax.release import denoiser_template, empty_conditioning
from realaudio_jax.teachers import ConditionDropout
from realaudio_jax.teachers.release import drop_conditions, to_batch
from realaudio_jax.training.warm_start import with_curves
from realaudio_jax.typing import LATENT_CHANNELS, SAMPLE_RATE, TEXT_WIDTH


def stereo(mono):
    return np.repeat(np.asarray(mono, np.float32)[:, None], 2, axis=1)


def time(seconds):
    return np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE


@pytest.mark.parametrize('hertz', [110.0, 440.0, 1234.5])
def test_a_sine_has_its_own_pitch_and_centroid(hertz):
    audio = stereo(0.3 * np.sin(2 * np.pi * hertz * time(0.6)))
    for extract in (curves.brightness, curves.pitch):
        found, there = extract(audio)
        assert found.shape == there.shape == (15,) and there[1:-1].all()
        np.testing.assert_allclose(found[2:-2], hertz, rtol=0.01)


def test_a_glide_is_followed_where_it_is():
    seconds, low, high = 2.0, 200.0, 800.0
    t = time(seconds)
    phase = 2 * np.pi * low * seconds / np.log(high / low) * ((high / low) ** (t / seconds) - 1)
    found, there = curves.pitch(stereo(0.3 * np.sin(phase)))
    middles = (np.arange(50) + 0.5) / 25
    expected = low * (high / low) ** (middles / seconds)
    assert there[2:-2].all()
    np.testing.assert_allclose(found[2:-2], expected[2:-2], rtol=0.01)


def test_overtones_raise_the_centroid_and_not_the_pitch():
    t = time(0.5)
    dull = np.sin(2 * np.pi * 300 * t)
    bright = dull + sum(np.sin(2 * np.pi * 300 * k * t) for k in range(2, 9))
    pitches = [np.median(curves.pitch(stereo(0.1 * x))[0]) for x in (dull, bright)]
    centroids = [np.median(curves.brightness(stereo(0.1 * x))[0]) for x in (dull, bright)]
    np.testing.assert_allclose(pitches, 300.0, rtol=0.01)
    np.testing.assert_allclose(centroids, [300.0, 1350.0], rtol=0.01)


def test_noise_has_no_pitch_and_silence_nothing():
    noise = 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE)
    assert curves.pitch(stereo(noise))[1].mean() < 0.1
    found, there = curves.brightness(stereo(noise))
    assert there.all() and np.median(found) == pytest.approx(12000, rel=0.05)
    for extract in (curves.brightness, curves.pitch):
        assert not extract(stereo(np.zeros(9600)))[1].any()


def test_crepe_reads_pitch_where_its_weights_are(sound_dir):
    from realaudio_jax.metrics.embedders.crepe import load_crepe

    params, _ = load_crepe(sound_dir / 'weights' / 'crepe_tiny')
    tones = [np.sin(2 * np.pi * f * time(0.4)) for f in (220.0, 660.0)]
    found, there = curves.pitch(stereo(0.3 * np.concatenate(tones)), params)
    assert there[2:8].all() and there[12:18].all()
    np.testing.assert_allclose(found[2:8], 220.0, rtol=0.02)
    np.testing.assert_allclose(found[12:18], 660.0, rtol=0.02)


def test_arrays_are_octaves_with_a_mask_in_the_order_of_the_names():
    audio = stereo(0.3 * np.sin(2 * np.pi * 2000.0 * time(0.4)))
    arrays = curves.curve_arrays(audio, ('pitch', 'brightness'))
    assert arrays['curves'].shape == arrays['curve_mask'].shape == (10, 2)
    np.testing.assert_allclose(arrays['curves'][2:-2], 1.0, atol=0.02)
    assert not arrays['curves'][~arrays['curve_mask']].any()
    with pytest.raises(ValueError, match="no curve 'tone': there are brightness, pitch"):
        curves.curve_arrays(audio, ('tone',))


def test_medians_keep_steps_and_drop_what_is_short():
    curve = np.zeros((1, 30), np.float32)
    curve[0, 12:], curve[0, 5] = 1.0, 9.0
    mask = np.ones((1, 30), bool)
    mask[0, 20:23] = False
    out = np.asarray(curves.running_median(jnp.asarray(curve), jnp.asarray(mask), 5))
    assert out[0, 5] == 0.0 and not out[0, :12].any() and (out[0, 12:20] == 1.0).all()
    assert not out[0, 20:23].any() and (out[0, 23:] == 1.0).all()
    same = curves.running_median(jnp.asarray(curve), jnp.asarray(mask), 1)
    np.testing.assert_array_equal(same, np.where(mask, curve, 0.0))


def test_each_item_gets_a_width_of_its_own():
    curve = jnp.asarray(np.random.default_rng(1).standard_normal((40, 21)), jnp.float32)
    mask = jnp.ones((40, 21), bool)
    out = curves.random_median(jax.random.key(0), curve, mask)
    every = [curves.running_median(curve, mask, w) for w in curves.MEDIAN_WIDTHS]
    fits = np.array([[bool((a == b).all()) for a, b in zip(out, e, strict=True)] for e in every])
    assert (fits.sum(axis=0) == 1).all() and fits.any(axis=1).all()


NAMES = ('brightness', 'pitch')


class Encoders:
    """Latents of the sound's own samples, and texts that say nothing."""

    def encode_text(self, texts, max_tokens):
        states = np.zeros((len(texts), max_tokens, TEXT_WIDTH))
        return states, np.ones(states.shape[:2], bool), states[:, 0]

    def encode_audio(self, audio):
        return np.repeat(audio[:, ::FRAME_SAMPLES, :1], LATENT_CHANNELS, axis=2)

    def fingerprint(self):
        return 'of a test'


def encoded():
    """Two scenes with a tone of 500 Hz in their second half."""
    tone = 0.3 * np.sin(2 * np.pi * 500.0 * time(0.4))
    audio = stereo(np.concatenate([np.zeros(round(0.4 * SAMPLE_RATE)), tone]))
    scene = Scene(audio, 'a tone', (), ('tone',), 0.8, None)
    return SceneEncoder(Encoders(), 2, NAMES)([scene, scene], 0.8)


def test_a_scene_s_curves_are_cut_with_it_and_reach_the_conditioning():
    rows = {name: jnp.asarray(array) for name, array in encoded().items()}
    starts, lengths = jnp.array([0, 10]), jnp.array([10, 8])
    batch = to_batch(crop_batch(rows, starts, lengths, 10))
    c = batch.conditioning
    assert c.curves.shape == c.curve_mask.shape == (2, 10, 2)
    assert not c.curve_mask[0, :8].any() and c.curve_mask[1, 1:7].all()
    np.testing.assert_allclose(c.curves[1, 2:6], -1.0, atol=0.02)
    none = to_batch({k: v for k, v in rows.items() if not k.startswith('curve')})
    assert none.conditioning.curves is None


def test_curves_are_kept_at_random_each_by_itself_and_dropped_for_guidance():
    rows = {n: jnp.asarray(np.repeat(a[:1], 64, axis=0)) for n, a in encoded().items()}
    batch = to_batch(rows)
    out = drop_conditions(batch, jax.random.key(1), ConditionDropout(timeline=1.0, curves=0.5))
    kept = np.asarray(out.conditioning.curve_mask.any(axis=1))
    assert 0.3 < kept[:, 0].mean() < 0.7 and 0.3 < kept[:, 1].mean() < 0.7
    assert 0.1 < (kept[:, 0] & kept[:, 1]).mean() < 0.45
    assert not out.conditioning.loudness_mask.any()
    assert not out.conditioning.unconditional().curve_mask.any()


def test_a_network_without_curves_goes_on_as_it_was():
    """Weights of an old release in a denoiser with curves: the same result, until these train."""
    plain, curved = (Denoiser(8, 1, 2, curves=names) for names in ((), NAMES))
    one, c = jnp.ones(2), jax.tree.map(jnp.asarray, empty_conditioning(2, 6))
    x = jax.random.normal(jax.random.key(0), c.init.shape)
    params = plain.init(jax.random.key(1), x, one, c, one, one)
    params = jax.tree.map(lambda leaf: leaf + 0.05, params)
    wide = curved.init(jax.random.key(2), x, one, c, one, one)
    extra = {f'curve_{name}': wide['params'][f'curve_{name}'] for name in NAMES}
    assert set(wide['params']) == {*params['params'], *extra}
    assert set(denoiser_template(plain)['params']) == set(params['params'])
    joined = {'params': params['params'] | extra}
    started = with_curves(params, NAMES)
    jax.tree.map(np.testing.assert_array_equal, started, joined)
    asked = c.replace(curves=jnp.ones((2, 6, 2)), curve_mask=jnp.ones((2, 6, 2), bool))
    before = plain.apply(params, x, one, c, one, one)
    for conditioning in (c, asked):
        np.testing.assert_array_equal(before, curved.apply(joined, x, one, conditioning, one, one))
    extra['curve_pitch'] = jax.tree.map(jnp.ones_like, extra['curve_pitch'])
    joined = {'params': params['params'] | extra}
    after = curved.apply(joined, x, one, asked, one, one)
    assert np.abs(after - before).max() > 1e-3
    left_free = asked.replace(curve_mask=asked.curve_mask.at[..., 1].set(False))
    np.testing.assert_array_equal(before, curved.apply(joined, x, one, left_free, one, one))
