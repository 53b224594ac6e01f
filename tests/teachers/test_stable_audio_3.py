"""Stable Audio 3 without its original: size, blocks of attention, and its limits in one line."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_stable_audio_3

from realaudio_jax.teachers import t5gemma
from realaudio_jax.teachers.stable_audio_3 import (
    conditioners,
    layers,
    pipeline,
    same,
    transformer,
)
from realaudio_jax.teachers.stable_audio_3.denoise import Schedule


@pytest.mark.parametrize(
    'shapes, count',
    [
        (transformer.parameter_shapes(transformer.Transformer()), 459_131_648),
        (same.parameter_shapes(same.SAME()), 107_458_096 + 1),  # and what is no parameter there
        (conditioners.parameter_shapes(conditioners.Duration()), 197_376),
        (t5gemma.parameter_shapes(t5gemma.T5GemmaEncoder()), 281_580_288),
    ],
    ids=['transformer', 'autoencoder', 'duration', 'text encoder'],
)
def test_full_size_parameter_counts(shapes, count):
    """`test_stable_audio_3_parity` counts the originals."""
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize('length', [3, 8, 21])
def test_attention_in_blocks_is_attention_under_a_mask(length):
    """Shorter than a block of 8, one block, and two with part of a third."""
    rng = np.random.default_rng(0)
    query, key = (jnp.asarray(rng.normal(size=(2, 6, length, 5)), jnp.float32) for _ in range(2))
    value = jnp.asarray(rng.normal(size=(2, 3, length, 5)), jnp.float32)
    found = jax.jit(layers.mix_near, static_argnums=3)(query, key, value, 4)
    place = np.arange(length)
    seen = abs(place[:, None] - place[None]) <= 4
    bias = jnp.where(seen, 0.0, -1e9)[None, None]
    wanted = jax.jit(layers.mix)(query, key, value, bias)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_schedule():
    """The published levels of eight steps, from notes of its users."""
    wanted = [1, 0.994, 0.984, 0.958, 0.891, 0.746, 0.513, 0.274, 0]
    np.testing.assert_allclose(Schedule().times(8), wanted, atol=1e-3)
    assert Schedule().steps == 8 and Schedule(stochastic=False).steps == 100
    np.testing.assert_array_equal(Schedule().times(1), [1, 0])
    with pytest.raises(ValueError, match='steps is 0'):
        Schedule().times(0)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tiny_stable_audio_3.write(tmp_path_factory.mktemp('teacher') / 'model')


@pytest.fixture(scope='module')
def model(folder):
    return pipeline.load(folder)


def test_a_sound_depends_on_its_own_seed_prompt_and_duration(model):
    prompts = ['rain', 'a dog barks over wind']
    sound = model.generate(prompts, 0.3, steps=2, seed=3)
    assert sound.shape == (2, 300, 2) and sound.dtype == np.float32
    assert np.abs(sound).max() <= 1 and sound.std() > 1e-3
    again = model.generate(prompts[1:], 0.3, steps=2, seed=4)
    np.testing.assert_allclose(again, sound[1:], atol=1e-5)
    for other in (
        model.generate(prompts[:1], 0.3, steps=2, seed=4),
        model.generate(['slams'], 0.3, steps=2, seed=3)[:1],
        model.generate(prompts[:1], 0.3, steps=2, seed=3, blank=True),
    ):
        assert np.abs(other - sound[:1]).max() > 1e-5


def test_sound_to_latents(model):
    latents = model.encode_audio(np.zeros((2, 300, 2), np.float32))
    assert latents.shape == (2, 3, 4)
    with pytest.raises(ValueError, match='a clip of 5 s'):
        model.encode_audio(np.zeros((1, 5000, 2), np.float32))


def test_half_precision(folder):
    half = pipeline.load(folder, 'bfloat16')
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype('bfloat16')}
    sound = half.generate(['rain'], 0.2, steps=1)
    assert sound.dtype == np.float32 and np.isfinite(sound).all()


def test_requests_that_the_model_cannot_serve(folder, model):
    for seconds in (0.0, 4.1, float('nan')):
        with pytest.raises(ValueError, match=f'{seconds:g} s: choose above 0 and up to 4 s'):
            model.generate(['rain'], seconds)
    assert pipeline.load(folder, max_seconds=2.0).max_seconds == 2.0
    with pytest.raises(ValueError, match='has 31 tokens, 24 at most; shorten it'):
        model.generate(['rain ' * 30], 1.0)
    with pytest.raises(ValueError, match='dtype is'):
        pipeline.load(folder, dtype='int8')


def _edit(name, **values):
    def change(folder):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def _cut(folder):
    path = folder / 'vae' / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    'change, says',
    [
        (
            _edit('model_index.json', _class_name='StableAudioPipeline'),
            'class StableAudioPipeline, not StableAudio3Pipeline',
        ),
        (lambda folder: shutil.rmtree(folder / 'scheduler'), 'half-downloaded: scheduler missing'),
        (_cut, 'half-downloaded or damaged'),
        (
            _edit('transformer/config.json', depth=2, num_memory_tokens=4),
            r'missing transformer_blocks.1.*memory_tokens has shape \(3, 16\), not \(4, 16\)',
        ),
        (_edit('transformer/config.json', patch_size=2), 'patch_size is 2, not 1'),
        (_edit('vae/config.json', latent_dim=5), r'bottleneck.scale has shape \(4,\), not \(5,\)'),
        (_edit('scheduler/scheduler_config.json', shift=3.0), 'shift is 3.0, not 1.0'),
        (
            _edit('text_encoder/config.json', architectures=['T5EncoderModel']),
            'class T5EncoderModel, not T5GemmaEncoderModel',
        ),
    ],
)
def test_folders_that_are_not_the_model(folder, tmp_path, change, says):
    copy = shutil.copytree(folder, tmp_path / 'copy')
    change(copy)
    with pytest.raises(ValueError, match=says) as error:
        pipeline.load(copy)
    assert '\n' not in str(error.value)
