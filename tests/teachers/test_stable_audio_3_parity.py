"""Stable Audio 3 against diffusers, module by module, through folders that it saved."""

import jax
import numpy as np
import pytest
import stable_audio_3
from stable_audio import save, torch

from realaudio_jax.teachers.stable_audio_3 import same, transformer


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
                torch.tensor(x).mT, torch.tensor(t),
                torch.cat([torch.tensor(text), torch.tensor(duration)[:, None]], dim=1),
                torch.tensor(duration),
                torch.tensor(np.pad(mask, [(0, 0), (0, 1)], constant_values=True)),
                None if extra is None else torch.tensor(extra).mT,
            ).sample.mT  # fmt: skip
        assert_close(apply(params, x, t, text, mask, duration, extra), wanted)
    # the two texts that are shorter, in fewer positions
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
