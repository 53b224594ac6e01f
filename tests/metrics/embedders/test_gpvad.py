"""GPVAD against vectors made with the originals, and its parts against plain formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.metrics.embedders import gpvad
from realaudio_jax.metrics.embedders.base import embed_clips
from realaudio_jax.sound_files import read_audio


@pytest.fixture(scope='module')
def weights(sound_dir):
    return sound_dir / 'weights' / 'gpvad'


@pytest.fixture(scope='module')
def reference(weights):
    return np.load(weights / 'reference_outputs_example.npz')


@pytest.fixture(scope='module')
def example(weights):
    return read_audio(weights / 'example_16k.wav', gpvad.SAMPLE_RATE).mean(1)


def test_features(example, reference):
    found = np.asarray(jax.jit(gpvad.log_mel)(jnp.asarray(example)[None]))[0]
    expected = reference['example_logmel']
    difference = np.abs(found - expected)
    assert difference[expected > -20].max() < 2e-3  # measured 9e-4
    assert difference.mean() < 0.01  # with the bands at the floor; measured 0.006


def test_states_and_scores_of_the_teacher(weights, reference):
    model = gpvad.load_gpvad(weights)
    features = jnp.asarray(reference['example_logmel'])[None]
    network = gpvad.Crnn(model.classes)
    states, scores = jax.jit(network.apply)({'params': model.params}, features)
    assert len(model.class_names) == model.classes == 527
    expected = reference['teacher1_bigru_embedding']
    np.testing.assert_allclose(states[0], expected, atol=5e-5)  # measured 6e-6
    clip = gpvad.clip_scores(gpvad.interpolate(scores, features.shape[1]))[0]
    np.testing.assert_allclose(clip, reference['teacher1_clip'], atol=1e-5)


def test_speech_where_the_authors_find_it(weights, example, reference):
    model = gpvad.load_gpvad(weights, student=True)
    scores = gpvad.frame_scores(model.params, jnp.asarray(example)[None], model.classes)[0]
    np.testing.assert_allclose(scores, reference['vad_sre_frame'], atol=2e-3)  # measured 1.1e-3
    clip = gpvad.clip_scores(scores[None])[0]
    np.testing.assert_allclose(clip, reference['vad_sre_clip'], atol=1e-4)
    found = gpvad.segments(np.asarray(scores)[:, model.class_names.index('Speech')])
    published = [(0.28, 0.94), (1.04, 2.22)]
    np.testing.assert_allclose(found, published, atol=gpvad.FRAME_S + 1e-6)  # one frame


def test_embedder(weights):
    embedder = gpvad.gpvad(weights)
    rng = np.random.default_rng(0)
    clip = (0.1 * rng.normal(size=embedder.window + embedder.hop)).astype(np.float32)
    both = embed_clips(embedder, [clip, clip[embedder.hop :]], batch=2)
    assert [v.shape for v in both] == [(2, 256), (1, 256)]
    np.testing.assert_allclose(both[0][1], both[1][0], atol=1e-5)
    assert np.abs(both[0][0] - both[0][1]).max() > 1e-3


def test_another_network_is_refused(weights, tmp_path):
    with pytest.raises(FileNotFoundError, match='teacher1.npz or teacher2.npz'):
        gpvad.load_gpvad(tmp_path)
    (tmp_path / 'teacher1.npz').write_bytes((weights / 'vad_sre.npz').read_bytes())
    expected = r'outputlayer.weight \(2, 256\) where \(527, 256\) is wanted'
    with pytest.raises(ValueError, match=expected):
        gpvad.load_gpvad(tmp_path)
    (tmp_path / 'teacher1.npz').write_bytes((weights / 'teacher1.npz').read_bytes()[:-5000])
    with pytest.raises(ValueError, match='truncated or damaged'):
        gpvad.load_gpvad(tmp_path)


def test_segments():
    p = np.array([0.2, 0.6, 0.05, 0.3, 0.7, 0.0, 0.0, 0.4, 0.0, 0.9])
    found = gpvad.segments(p)  # the gap of one frame closes, 0.4 alone is too little
    np.testing.assert_allclose(found, [(0.0, 0.1), (0.18, 0.2)], atol=1e-9)
    assert gpvad.segments(np.zeros(5)) == []


def test_interpolation_and_pooling():
    coarse = jnp.asarray([[[0.0], [1.0], [0.5]]])
    found = np.asarray(gpvad.interpolate(coarse, 6))[0, :, 0]
    np.testing.assert_allclose(found, [0, 0.25, 0.75, 0.875, 0.625, 0.5], atol=1e-6)
    found = gpvad.clip_scores(coarse)[0, 0]
    assert float(found) == pytest.approx(1.25 / 1.5)
    x = np.random.default_rng(0).normal(size=(1, 5, 8, 2)).astype(np.float32)
    blocks = x[:, :4].reshape(1, 2, 2, 2, 4, 2).transpose(0, 1, 3, 5, 2, 4).reshape(1, 2, 2, 2, 8)
    expected = (blocks.astype(np.float64) ** 4).sum(-1) ** 0.25
    np.testing.assert_allclose(gpvad._pool(jnp.asarray(x), (2, 4)), expected, rtol=1e-5)
