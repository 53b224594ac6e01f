"""AudioLDM 2: its sizes, its folder, its sampler as a denoise function, and users' mistakes."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_audioldm2

from realaudio_jax import samplers
from realaudio_jax.noise import ddim_step
from realaudio_jax.teachers.audioldm2 import layers, mel, model, pipeline, schedule, vocoder

PROMPTS = ['a dog barks', 'rain and wind then a door slams']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tiny_audioldm2.write(tmp_path_factory.mktemp('audioldm2'))


@pytest.fixture(scope='module')
def ours(folder):
    return pipeline.load(folder)


@pytest.fixture
def damaged(folder, tmp_path):
    """A copy to break."""
    return shutil.copytree(folder, tmp_path / 'copy')


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


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


def test_convolution_of_a_doubled_plane_equals_its_definition():
    """Every cell twice in both directions, zeros around, and each product in turn."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 3, 4, 2)), rng.normal(size=(3, 3, 2, 5))
    found = layers.conv_of_doubled(jnp.float32(x), jnp.float32(kernel))
    padded = np.pad(x.repeat(2, 1).repeat(2, 2), [(0, 0), (1, 1), (1, 1), (0, 0)])
    wanted = sum(padded[:, i : i + 6, j : j + 8] @ kernel[i, j] for i in range(3) for j in range(3))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_convolution_of_cells_is_the_same_product_at_every_cell():
    rng = np.random.default_rng(0)
    x, kernel, bias = (rng.normal(size=s) for s in ((2, 3, 4, 5), (1, 1, 5, 6), (6,)))
    params = {'kernel': jnp.float32(kernel), 'bias': jnp.float32(bias)}
    found = layers.CellConv(6).apply({'params': params}, jnp.float32(x))
    wanted = np.array([[[kernel[0, 0].T @ cell for cell in row] for row in p] for p in x]) + bias
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_group_norm_equals_its_definition():
    rng = np.random.default_rng(0)
    x, scale, bias = rng.normal(2.0, size=(2, 3, 4, 6)), rng.normal(size=6), rng.normal(size=6)
    params = {'scale': jnp.float32(scale), 'bias': jnp.float32(bias)}
    found = layers.GroupNorm(2, 0.1).apply({'params': params}, jnp.float32(x))
    groups = x.reshape(2, 3, 4, 2, 3)
    centred = groups - groups.mean((1, 2, 4), keepdims=True)
    unit = centred / np.sqrt((centred**2).mean((1, 2, 4), keepdims=True) + 0.1)
    np.testing.assert_allclose(found, unit.reshape(x.shape) * scale + bias, atol=1e-5)


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


def test_sampling_is_ddim_with_the_guided_denoise_function(ours):
    """Guidance written out on the contract's functions, and each step by hand."""
    networks, conditioning, scale = ours.networks, ours.condition(PROMPTS), 3.0
    x = ours.noise([1, 2], 0.15)
    wanted = ours.sample(conditioning, x, scale, 3)

    @jax.jit
    def denoise(params, x, t):
        both = (conditioning, conditioning.unconditional())
        asked, empty = (model.bind(networks, params, c) for c in both)
        return asked(x, t), samplers.classifier_free_guidance(asked, empty, scale)(x, t)

    times, apart = networks.schedule.times(3), []
    for t, s in zip(times[:-1], times[1:], strict=True):
        asked, guided = denoise(ours.params, x, jnp.full(2, t))
        apart.append(np.abs(asked - guided).max())
        x = ddim_step(networks.schedule.path, x, guided, float(t), float(s))
    assert max(apart) > 1e-2
    np.testing.assert_allclose(x, wanted, atol=1e-4 * np.abs(wanted).max())
    with pytest.raises(ValueError, match='one time for each item'):
        model.bind(networks, ours.params, conditioning)(x, jnp.ones((2, 8)))


def test_planes_that_are_told_two_things_share_the_way_to_the_first(ours):
    """The same prediction as of the planes twice, at fewer products."""
    both = jax.tree.map(lambda *a: jnp.concatenate(a), *(ours.condition([p]).prompt for p in 'ab'))
    x, t = ours.noise([1], 0.15), jnp.full(1, 0.5)

    def compiled(times):
        network = lambda p, x, t: model.network(ours.networks, p, both)(x, t)  # noqa: E731
        twice = jnp.concatenate([x] * times), jnp.concatenate([t] * times)
        return jax.jit(network).lower(ours.params, *twice).compile(), twice

    (once, small), (whole, large) = compiled(1), compiled(2)
    wanted = whole(ours.params, *large)
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-4
    np.testing.assert_allclose(once(ours.params, *small), wanted, atol=1e-5)
    assert once.cost_analysis()['flops'] < 0.95 * whole.cost_analysis()['flops']


def test_noise_below_the_first_step_is_taken_for_it(ours):
    """Recipes and students ask at any time; the U-Net knows the table, and what lies between."""
    prompt = ours.condition(PROMPTS).prompt
    x = ours.noise([1, 2], 0.15)
    network = jax.jit(lambda params, t: model.network(ours.networks, params, prompt)(x, t))
    first, *others = (
        network(ours.params, jnp.full(2, step / 1000)) for step in (1.0, 0.4, 0.0, 1.5)
    )
    np.testing.assert_array_equal(others[0], first)
    np.testing.assert_array_equal(others[1], first)
    assert np.abs(others[2] - first).max() > 1e-4


def test_encode_gives_latents_that_decode_takes(ours):
    """Mean, and a draw from the posterior."""
    sound = jnp.sin(jnp.arange(2560.0) / 5)[None]
    encode = jax.jit(model.encode, static_argnums=0)
    draws = [encode(ours.networks, ours.params, sound, jnp.full((1, 8, 12), n)) for n in (0.0, 1.0)]
    assert draws[0].shape == (1, 8, 12) and draws[0].dtype == jnp.float32
    assert (draws[1] > draws[0]).all()


@pytest.mark.parametrize('kind', ['bfloat16', 'float16'])
def test_half_precision(ours, folder, kind):
    """Text and U-Net in half precision stay near the float32 result, and sound is finite."""
    half = pipeline.load(folder, kind)
    assert half.params['unet']['conv_in']['kernel'].dtype == kind
    text = jnp.float32 if kind == 'float16' else jnp.bfloat16
    assert half.params['t5']['token']['embedding'].dtype == text
    noise = ours.noise([1, 2], 0.15)
    wanted = ours.sample(ours.condition(PROMPTS), noise, 3.0, 3)
    found = half.sample(half.condition(PROMPTS), noise, 3.0, 3)
    assert found.dtype == jnp.float32
    tolerance = 0.1 if kind == 'bfloat16' else 0.02  # 8 and 11 bits, through three guided steps
    np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())
    assert np.isfinite(half.decode(found)).all()


def test_prompt_beyond_the_tokenizer(ours):
    with pytest.raises(ValueError, match='31 tokens, 24 at most; shorten it'):
        ours.condition(['rain ' * 30])


@pytest.mark.parametrize('seconds', [0.0, 0.01, 0.4, float('nan')])
def test_unsupported_clip_length(ours, seconds):
    with pytest.raises(ValueError, match='choose 0.02 to 0.32 s'):
        ours.generate(PROMPTS, seconds)


def test_unknown_precision(folder):
    with pytest.raises(ValueError, match="no precision 'int8': choose one of float32"):
        pipeline.load(folder, 'int8')


def break_pipeline(folder):
    edit(folder / 'model_index.json', _class_name='StableAudioPipeline')
    return 'class StableAudioPipeline, not AudioLDM2Pipeline'


def break_download(folder):
    (folder / 'unet' / 'diffusion_pytorch_model.safetensors').unlink()
    return 'half-downloaded'


def break_part(folder):
    shutil.rmtree(folder / 'vocoder')
    return 'no config.json in .*vocoder'


def break_file(folder):
    path = folder / 'vae' / 'diffusion_pytorch_model.safetensors'
    path.write_bytes(path.read_bytes()[:-40])
    return 'half-downloaded or damaged'


def break_layout(folder):
    (folder / 'language_model' / 'model.safetensors').rename(
        folder / 'language_model' / 'pytorch_model.bin'
    )
    return 'older layout: pytorch_model.bin is a pickle'


def break_variant(folder):
    edit(folder / 'unet' / 'config.json', class_embed_type='simple_projection')
    return "class_embed_type is 'simple_projection', not None"


def break_levels(folder):
    edit(folder / 'unet' / 'config.json', cross_attention_dim=[12, 12])
    return 'older layout or another variant: its levels'


def break_width(folder):
    edit(folder / 'text_encoder_2' / 'config.json', d_model=14)
    return 'shape'


def break_scheduler(folder):
    edit(folder / 'scheduler' / 'scheduler_config.json', timestep_spacing='trailing')
    return "timestep_spacing is 'trailing', not 'leading'"


def break_prediction(folder):
    edit(folder / 'scheduler' / 'scheduler_config.json', prediction_type='flow')
    return "prediction_type 'flow'"


def break_speech(folder):
    edit(folder / 'projection_model' / 'config.json', use_learned_position_embedding=True)
    return 'use_learned_position_embedding is True'


def break_language_model(folder):
    edit(folder / 'language_model' / 'config.json', architectures=['LlamaModel'])
    return 'class LlamaModel, not GPT2Model'


@pytest.mark.parametrize(
    'damage',
    [
        break_pipeline,
        break_download,
        break_part,
        break_file,
        break_layout,
        break_variant,
        break_levels,
        break_width,
        break_scheduler,
        break_prediction,
        break_speech,
        break_language_model,
    ],
)
def test_a_wrong_folder_is_one_line(damaged, damage):
    message = damage(damaged)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        pipeline.load(damaged)
    assert '\n' not in str(error.value)
