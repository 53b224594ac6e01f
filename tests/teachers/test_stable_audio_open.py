"""Stable Audio Open without its original: size, schedule, and its limits in one line."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_teacher

from realaudio_jax.teachers import load_teacher
from realaudio_jax.teachers.stable_audio_open import conditioners, oobleck, pipeline, transformer
from realaudio_jax.teachers.stable_audio_open.denoise import Schedule, guided, noises


@pytest.mark.parametrize(
    'shapes, count',
    [
        (transformer.parameter_shapes(transformer.Transformer()), 1_056_939_136),
        (oobleck.parameter_shapes(oobleck.Oobleck()), 156_112_514),
        (conditioners.parameter_shapes(conditioners.Projection()), 396_544),
    ],
    ids=['transformer', 'autoencoder', 'projection'],
)
def test_full_size_parameter_counts(shapes, count):
    """`test_stable_audio_open_parity` counts the originals."""
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes)) == count


def test_sin_squared_is_what_it_says():
    x = np.linspace(-1e3, 1e3, 200_001).astype(np.float32)
    wanted = np.sin(np.float64(x)) ** 2
    np.testing.assert_allclose(jax.jit(oobleck.sin_squared)(jnp.asarray(x)), wanted, atol=3e-7)
    slope = jax.vmap(jax.grad(oobleck.sin_squared))(jnp.asarray(x[::100]))
    np.testing.assert_allclose(slope, np.sin(2 * np.float64(x[::100])), atol=2e-6)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tiny_teacher.write_stable_audio_open(tmp_path_factory.mktemp('teacher') / 'model')


@pytest.fixture(scope='module')
def model(folder):
    return load_teacher('stable_audio_open', folder)


def test_schedule_and_noise():
    times = Schedule().times(4)
    assert times.shape == (5,) and times[-1] == 0 and (np.diff(times) < 0).all()
    sigma = np.tan(np.pi / 2 * np.float64(times[:4]))
    np.testing.assert_allclose(sigma[[0, 3]], [500, 0.3], rtol=1e-3)
    np.testing.assert_allclose(np.diff(np.log(sigma)), np.log(0.3 / 500) / 3, rtol=1e-3)
    with pytest.raises(ValueError, match='steps is 1: the published schedule needs 2'):
        Schedule().times(1)
    x, noise = noises(jax.random.split(jax.random.key(0), 3), 4, (5, 2))
    assert x.shape == (3, 5, 2) and noise.shape == (4, 3, 5, 2)
    again, _ = noises(jax.random.split(jax.random.key(0), 3)[1:2], 4, (5, 2))
    np.testing.assert_array_equal(x[1:2], again)


def test_what_is_told_nothing_needs_no_tokens(model):
    """Guided away from tokens that are zero, or from none."""
    asked = model.conditioning(['rain', 'a door'], 0.0, 1.0)
    asked = asked.replace(start_s=jnp.asarray([0.0, 0.5]))
    x = jax.random.normal(jax.random.key(0), (2, model.frames, 4))
    t = jnp.asarray([0.9, 0.4])
    whole, short = (
        guided(model.networks, model.params, asked, away, 3.0)(x, t)
        for away in (asked.unconditional(), None)
    )
    np.testing.assert_allclose(short, whole, atol=1e-5)
    told = guided(model.networks, model.params, asked, None, 1.0)(x, t)
    assert jnp.abs(told - whole).max() > 1e-3


def test_requests_that_the_model_cannot_serve(model):
    for seconds in (0.0, 1.1):
        with pytest.raises(ValueError, match=f'{seconds:g} s: choose above 0 and up to 1.02168 s'):
            model.generate(['rain'], seconds)
    with pytest.raises(ValueError, match='has 71 tokens, 64 at most; shorten it'):
        model.generate(['rain ' * 70], 1.0, steps=2)
    with pytest.raises(ValueError, match='frames is 10: 1 s need 22 to 22'):
        model.generate(['rain'], 1.0, frames=10)
    with pytest.raises(ValueError, match='dtype is'):
        pipeline.load('anywhere', dtype='int8')
    with pytest.raises(ValueError, match="no teacher 'stable_audio'"):
        load_teacher('stable_audio', 'anywhere')


def _edit(name, **values):
    def change(folder):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def _cut(folder):
    path = folder / 'transformer' / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-100])


def _as_stable_audio_tools(folder):
    (folder / 'model_index.json').rename(folder / 'model_config.json')


def _pickled(folder):
    (folder / 'transformer' / 'model.safetensors').rename(
        folder / 'transformer' / 'diffusion_pytorch_model.bin'
    )


@pytest.mark.parametrize(
    'change, says',
    [
        (
            _edit('model_index.json', _class_name='AudioLDM2Pipeline'),
            'class AudioLDM2Pipeline, not StableAudioPipeline',
        ),
        (lambda folder: shutil.rmtree(folder / 'vae'), 'half-downloaded: vae missing'),
        (_as_stable_audio_tools, 'older layout'),
        (_pickled, 'older layout: diffusion_pytorch_model.bin is a pickle'),
        (_cut, 'half-downloaded or damaged'),
        (_edit('transformer/config.json', num_layers=2), 'missing transformer_blocks.1.attn1'),
        (_edit('transformer/config.json', in_channels=5), 'out_channels is 4, not 5'),
    ],
)
def test_folders_that_are_not_the_model(folder, tmp_path, change, says):
    copy = shutil.copytree(folder, tmp_path / 'copy')
    change(copy)
    with pytest.raises(ValueError, match=says) as error:
        pipeline.load(copy)
    assert '\n' not in str(error.value)
