"""CREPE tiny against activations of the original, and the pitch of tones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.metrics.embedders import crepe
from realaudio_jax.metrics.embedders.base import embed_clips


@pytest.fixture(scope='module')
def weights(sound_dir):
    return sound_dir / 'weights' / 'crepe_tiny'


@pytest.fixture(scope='module')
def params(weights):
    return crepe.load_crepe(weights)[0]


@pytest.fixture(scope='module')
def network(params):
    """Compiled for the 200 frames of the reference."""
    run = jax.jit(crepe.Crepe().apply)
    return lambda frames: run({'params': params}, jnp.asarray(frames))


def test_activations(weights, network):
    reference = np.load(weights / 'reference_200frames.npz')
    bins = network(reference['frames'])[1]
    np.testing.assert_allclose(bins, reference['activation'], atol=1e-5)  # measured 5e-7


def test_pitch_of_tones(params):
    hz = np.array([110.0, 440.0, 1000.0])
    time = np.arange(2400) / crepe.SAMPLE_RATE
    tones = 0.1 * np.sin(2 * np.pi * hz[:, None] * time[None])
    found, confidence = crepe.pitch(params, jnp.asarray(tones, jnp.float32))
    assert found.shape == (3, 16)
    cents = 1200 * np.log2(np.asarray(found)[:, 4:-4] / hz[:, None])
    assert np.abs(np.median(cents, axis=1)).max() < 15  # a bin is 20
    assert np.asarray(confidence)[:, 4:-4].min() > 0.7
    silence, confidence = crepe.pitch(params, jnp.zeros((1, 4000)))
    assert np.isfinite(silence).all() and float(confidence.max()) < 0.5


def test_standardise():
    frames = np.random.default_rng(0).normal(3, 2, (2, 5, 1024)).astype(np.float32)
    found = np.asarray(crepe.standardise(jnp.asarray(frames)))
    expected = (frames - frames.mean(-1, keepdims=True)) / frames.std(-1, ddof=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert not np.asarray(crepe.standardise(jnp.zeros((1, 1, 1024)))).any()


def test_embedder(weights, network):
    embedder = crepe.crepe(weights)
    clip = np.random.default_rng(0).normal(size=3 * 1024 + 9).astype(np.float32)
    vectors = embed_clips(embedder, [clip], batch=2)[0]
    frames = np.zeros((200, 1024), np.float32)
    frames[:3] = crepe.standardise(jnp.asarray(clip[:3072].reshape(3, 1024)))
    np.testing.assert_allclose(vectors, network(frames)[0][:3], atol=1e-4)


def test_another_network_is_refused(weights, tmp_path):
    with pytest.raises(FileNotFoundError, match='crepe_tiny.npz'):
        crepe.crepe(tmp_path)
    with np.load(weights / 'crepe_tiny.npz') as arrays:
        kept = {k: v for k, v in arrays.items() if k != 'conv3_BN.running_var'}
    kept['conv2.bias'][3] = np.nan
    np.savez(tmp_path / 'crepe_tiny.npz', **kept)
    with pytest.raises(ValueError, match='missing conv3_BN.running_var') as error:
        crepe.crepe(tmp_path)
    assert 'conv2.bias is not finite' in str(error.value)
