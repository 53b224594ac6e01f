"""AudioLDM 2: its sizes, its schedule, its front end, and sound from a tiny folder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_audioldm2

from realaudio_jax.teachers.audioldm2 import mel, model, pipeline, schedule, vocoder

PROMPTS = ['a dog barks', 'rain and wind then a door slams']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tiny_audioldm2.write(tmp_path_factory.mktemp('audioldm2'))


@pytest.fixture(scope='module')
def ours(folder):
    return pipeline.load(folder)


@pytest.fixture(scope='module')
def full_size():
    """Shapes of the published model's parameters; nothing is computed."""
    return model.parameter_shapes(model.Networks())


def test_full_size_parameter_counts(full_size):
    counts = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in full_size.items()}
    assert counts == tiny_audioldm2.COUNTS


def test_full_size_shapes(full_size):
    """10.24 s: 1024 mel frames of 64 bands, 256 latent frames of 16 cells of 8 channels."""
    networks = model.Networks()
    assert networks.cells == (16, 8) and networks.latent_samples == 640
    assert networks.max_seconds == 10.24 and networks.latent_frames(10.0) == 250
    latents = jax.ShapeDtypeStruct((2, 256, 128), jnp.float32)
    sound = jax.eval_shape(lambda p, z: model.decode(networks, p, z), full_size, latents)
    assert sound.shape == (2, 163_840)


def test_schedule_is_the_originals():
    """The formula in float64, and the steps of diffusers: 981, 961, ..., 1, then 0."""
    table = schedule.Schedule()
    betas = [(0.0015**0.5 + n / 999 * (0.0195**0.5 - 0.0015**0.5)) ** 2 for n in range(1000)]
    wanted = np.prod(1.0 - np.array(betas[:982]))
    assert table.path.alphas_cumprod[981] == pytest.approx(wanted, rel=1e-12)
    steps = table.times(50) * 1000 - 1
    np.testing.assert_allclose(steps, [*range(981, 0, -20), 0], atol=1e-4)
    with pytest.raises(ValueError, match='1 to 999'):
        table.times(1000)


def test_transposed_convolution_equals_its_definition():
    """y[n] = sum over i, j with i stride + j - before = n of x[i] w[j], in loops."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(1, 3, 2)), rng.normal(size=(16, 2, 4))
    layer = vocoder.TransposedConv(4, 16, 5)
    params = {'kernel': jnp.float32(kernel), 'bias': jnp.zeros(4)}
    found = layer.apply({'params': params}, jnp.float32(x))
    wanted = np.zeros((1, 5 * 2 + 16, 4))
    for i in range(3):
        for j in range(16):
            wanted[:, i * 5 + j] += x[:, i] @ kernel[j]
    np.testing.assert_allclose(found, wanted[:, 5:-5], atol=1e-5)


def test_mel_frames_of_a_sine():
    """A frame a hop; a sine stands in one band, at the same level in all of them."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(1600) / 16_000)[None].astype(np.float32)
    frames = np.asarray(mel.log_mel_frames(jnp.asarray(tone), 16_000, 64, 160))
    assert frames.shape == (1, 10, 64) and frames.min() >= np.log(1e-5) - 1e-5
    bands = frames[0, 3:7].argmax(axis=-1)
    assert np.ptp(bands) == 0 and np.ptp(frames[0, 3:7, bands[0]]) < 0.02


def test_generate_gives_each_prompt_its_own_sound(ours):
    """Prompts of different lengths: an item does not depend on the other nor on its position."""
    sound = ours.generate(PROMPTS, 0.15, steps=3, seed=5)
    assert sound.shape == (2, 2400) and sound.dtype == np.float32
    assert np.isfinite(sound).all() and 1e-3 < sound.std() < 1
    assert np.abs(sound[0] - sound[1]).max() > 1e-3
    again = ours.generate(PROMPTS[1:] * 2, 0.15, steps=3, seed=6)
    np.testing.assert_allclose(again[0], sound[1], atol=1e-5)
