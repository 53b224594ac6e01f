"""Stable Audio 3 against diffusers, module by module, through folders that it saved."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stable_audio_3
from stable_audio import diffusers, save, torch

from realaudio_jax.samplers import item_noise
from realaudio_jax.teachers.stable_audio_3 import conditioners, denoise, same, transformer
from realaudio_jax.teachers.stable_audio_3.pipeline import load


def assert_close(found, wanted, tolerance=1e-4):
    """Relative to the largest value."""
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize('differential', [False, True], ids=['small', 'medium'])
def test_transformer(tmp_path, differential):
    """Texts of any length, none and the longest included; with a sound to fill in and without."""
    original = stable_audio_3.transformer(differential)
    model, params = transformer.import_transformer(save(original, tmp_path))
    model = model.clone(text_tokens=9)
    rng = np.random.default_rng(0)
    x, text, duration, local = (
        rng.normal(size=s).astype(np.float32) for s in ((3, 17, 6), (3, 9, 12), (3, 12), (3, 17, 7))
    )
    mask = np.arange(9)[None] < np.array([4, 0, 9])[:, None]
    t = np.array([0.05, 0.4, 1.0], np.float32)
    apply = jax.jit(lambda params, *inputs: model.apply({'params': params}, *inputs))
    for extra in (local, None):
        with torch.no_grad():
            wanted = original(
                torch.tensor(x).mT,
                torch.tensor(t),
                torch.cat([torch.tensor(text), torch.tensor(duration)[:, None]], dim=1),
                torch.tensor(duration),
                torch.tensor(np.pad(mask, [(0, 0), (0, 1)], constant_values=True)),
                None if extra is None else torch.tensor(extra).mT,
            ).sample.mT
        assert_close(apply(params, x, t, text, mask, duration, extra), wanted)
    if not differential:  # the two texts that are shorter, in fewer positions
        inputs = x[:2], t[:2], text[:2, :4], mask[:2, :4], duration[:2]
        assert_close(apply(params, *inputs), wanted[:2])


@pytest.mark.parametrize('levels', [1, 2], ids=['small', 'of more levels'])
def test_autoencoder(tmp_path, levels):
    """Sound that fills no latent frame; latents of several blocks of attention."""
    original = stable_audio_3.autoencoder(levels)
    original.bottleneck.running_std.fill_(1.7)  # learned, and no parameter
    model, params = same.import_autoencoder(save(original, tmp_path))
    rng = np.random.default_rng(0)
    audio = rng.uniform(-1, 1, size=(2, 24 * 9 - 10, 2)).astype(np.float32)
    latents = rng.normal(size=(2, 7, 6)).astype(np.float32)
    with torch.no_grad():
        encoded = original.encode(torch.tensor(audio).mT).latents.mT
        decoded = original.decode(torch.tensor(latents).mT).sample.mT
    encode = jax.jit(lambda p, x: model.apply({'params': p}, x, method='encode'))
    assert_close(encode(params, audio), encoded)
    decode = jax.jit(lambda p, x: model.apply({'params': p}, x, method='decode'))
    assert_close(decode(params, latents), decoded)


def test_duration(tmp_path):
    """Within the range, at its ends and beyond."""
    original = stable_audio_3.duration()
    model, params = conditioners.import_duration(save(original, tmp_path))
    seconds = np.array([0.0, 1.5, 29.0, 40.0], np.float32)
    with torch.no_grad():
        wanted = original(torch.tensor(seconds))
    found = jax.jit(lambda p, x: model.apply({'params': p}, x))(params, jnp.asarray(seconds))
    assert_close(found, wanted)


@pytest.mark.parametrize('stochastic, guidance', [(True, 1.0), (False, 3.0)])
def test_whole_sampler_from_the_same_noise(tmp_path, monkeypatch, stochastic, guidance):
    """As the distilled model is sampled, and as the other, its guidance away from a text."""
    original, folder = stable_audio_3.pipeline(tmp_path, stochastic)
    ours = load(folder)
    prompts, seconds, steps = ['a dog barks', 'rain and wind over a door'], 0.2, 8
    keys = jax.random.split(jax.random.key(0), 2)
    x, keys = denoise.start(keys, (ours.frames(seconds), 6))
    fold = jax.vmap(jax.random.fold_in, (0, None))
    noise = [torch.tensor(np.asarray(item_noise(fold(keys, i), x.shape[1:]))) for i in range(steps)]
    scheduling = diffusers.schedulers.scheduling_flow_match_euler_discrete
    monkeypatch.setattr(scheduling, 'randn_tensor', lambda *_, **__: noise.pop(0).mT)
    with torch.no_grad():
        wanted = original(
            prompts,
            duration=seconds,
            num_inference_steps=steps,
            guidance_scale=guidance,
            negative_prompt=['wind'] * 2,
            latents=torch.tensor(np.asarray(x)).mT,
        ).audios.mT
    assert len(noise) == (0 if stochastic else steps) and ours.schedule.stochastic == stochastic
    latents = jax.jit(functools.partial(denoise.sample, ours.networks))(
        {name: ours.params[name] for name in ('transformer', 'duration')},
        ours.conditioning(prompts, seconds),
        x,
        jnp.asarray(ours.schedule.times(steps)),
        keys if stochastic else None,
        None if guidance == 1.0 else guidance,
        None if guidance == 1.0 else ours.conditioning(['wind'] * 2, seconds),
    )
    found = np.clip(ours.decode(latents)[:, : wanted.shape[1]], -1, 1)
    assert wanted.shape[1] == 200 and np.mean(np.abs(wanted.numpy()) < 1) > 0.5
    assert_close(found, wanted, 1e-3)


def test_parameter_counts_of_the_originals():
    """The figures that `test_stable_audio_3` expects of the full-size modules."""
    with torch.device('meta'):
        models = (
            diffusers.StableAudio3DiTModel(
                embed_dim=1024, depth=20, num_heads=16, use_differential_attention=False
            ),
            diffusers.AutoencoderSAME(),
            diffusers.pipelines.stable_audio_3.StableAudio3DurationEmbedder(),
        )
    counts = [sum(p.numel() for p in model.parameters()) for model in models]
    assert counts == [459_131_648, 107_458_096, 197_376]
