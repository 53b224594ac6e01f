"""Stable Audio Open against diffusers, module by module, through folders that it saved."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stable_audio
from stable_audio import torch

from realaudio_jax.teachers.stable_audio_open import (
    conditioners,
    denoise,
    oobleck,
    transformer,
)
from realaudio_jax.teachers.stable_audio_open.pipeline import load


def assert_close(found, wanted, tolerance=1e-4):
    """Relative to the largest value."""
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def test_transformer(tmp_path):
    original = stable_audio.transformer()
    model, params = transformer.import_transformer(stable_audio.save(original, tmp_path))
    rng = np.random.default_rng(0)
    x, context, timing = (
        rng.normal(size=s).astype(np.float32) for s in ((3, 17, 6), (3, 5, 12), (3, 24))
    )
    t = np.array([0.05, 0.4, 1.0], np.float32)
    rotary = _rotary(8 // 2, 18)
    with torch.no_grad():
        wanted = original(
            torch.tensor(x).mT,
            torch.tensor(t),
            torch.tensor(context),
            torch.tensor(timing)[:, None],
            rotary_embedding=rotary,
        ).sample.mT
    found = jax.jit(model.apply)({'params': params}, x, t, context, timing)
    assert_close(found, wanted)


def _rotary(features, positions):
    return stable_audio.diffusers.models.embeddings.get_1d_rotary_pos_embed(
        features, positions, use_real=True, repeat_interleave_real=False
    )


def test_autoencoder(tmp_path):
    original = stable_audio.autoencoder()
    model, params = oobleck.import_autoencoder(stable_audio.save(original, tmp_path))
    rng = np.random.default_rng(0)
    audio = rng.uniform(-1, 1, size=(2, 40 * 9, 2)).astype(np.float32)
    latents = rng.normal(size=(2, 7, 6)).astype(np.float32)
    with torch.no_grad():
        spread = original.encode(torch.tensor(audio).mT).latent_dist
        decoded = original.decode(torch.tensor(latents).mT).sample.mT
    encode = jax.jit(lambda p, x: model.apply({'params': p}, x, method='encode'))
    mean, std = encode(params, audio)
    assert_close(mean, spread.mean.mT)
    assert_close(std, spread.std.mT)
    decode = jax.jit(lambda p, x: model.apply({'params': p}, x, method='decode'))
    assert_close(decode(params, latents), decoded)


@pytest.mark.parametrize('text_width', [14, 12])
def test_projection(tmp_path, text_width):
    """With a projection of the text, and, as published, without."""
    original = stable_audio.projection(text_width)
    model, params = conditioners.import_projection(stable_audio.save(original, tmp_path))
    rng = np.random.default_rng(0)
    text = rng.normal(size=(2, 5, text_width)).astype(np.float32)
    mask = np.arange(5)[None] < np.array([5, 3])[:, None]
    start, end = np.array([0.0, 1.5], np.float32), np.array([3.0, 9.0], np.float32)
    with torch.no_grad():
        wanted = original(torch.tensor(text), torch.tensor(start), torch.tensor(end))
    c = conditioners.Conditioning(text, mask, start, end, np.array([True, True]))
    tokens, timing = model.apply({'params': params}, jax.tree.map(jnp.asarray, c))
    assert_close(tokens[:, :5], wanted.text_hidden_states.numpy() * mask[..., None])
    ends = [wanted.seconds_start_hidden_states, wanted.seconds_end_hidden_states]
    assert_close(tokens[:, 5:], torch.cat(ends, dim=1))
    assert_close(timing, torch.cat(ends, dim=2)[:, 0])


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        original, folder = stable_audio.pipeline(tmp_path_factory.mktemp('pipeline'), patch)
        yield original, load(folder)


@pytest.mark.parametrize('negative', [None, 'wind'])
def test_whole_sampler_from_the_same_noise(both, negative):
    original, ours = both
    prompts, seconds, steps = ['a dog barks', 'rain and wind over a door'], 0.05, 8
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, stable_audio.FRAMES, 6)).astype(np.float32)
    noise = rng.normal(size=(steps, *x.shape)).astype(np.float32)
    stable_audio.Noise.given = [torch.tensor(z).mT for z in noise]
    with torch.no_grad():
        wanted = original(
            prompts,
            audio_end_in_s=seconds,
            num_inference_steps=steps,
            guidance_scale=7.0,
            negative_prompt=None if negative is None else [negative] * 2,
            latents=torch.tensor(x).mT,
        ).audios.mT
    away = None if negative is None else ours.conditioning([negative] * 2, 0.0, seconds)
    latents = jax.jit(functools.partial(denoise.sample, ours.networks))(
        {name: ours.params[name] for name in ('transformer', 'projection')},
        ours.conditioning(prompts, 0.0, seconds),
        jnp.asarray(x),
        jnp.asarray(ours.schedule.times(steps)),
        jnp.asarray(noise),
        7.0,
        away,
    )
    assert_close(ours.decode(latents)[:, : wanted.shape[1]], wanted, 1e-3)


def test_parameter_counts_of_the_originals():
    """The figures that `test_stable_audio_open` expects of the full-size modules."""
    library = stable_audio.diffusers
    with torch.device('meta'):
        models = (
            library.StableAudioDiTModel(),
            library.AutoencoderOobleck(),
            library.pipelines.stable_audio.StableAudioProjectionModel(768, 768, 0, 512),
        )
    counts = [sum(p.numel() for p in model.parameters()) for model in models]
    assert counts == [1_056_939_136, 156_112_514, 396_544]
