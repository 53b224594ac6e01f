"""YAMNet against the published test vectors and embeddings of the tflite file."""

import csv
import json
import os

import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.metrics.embedders import yamnet
from realaudio_jax.metrics.embedders.base import embed_clips
from realaudio_jax.metrics.frechet import GaussianStatistics, frechet_distance


@pytest.fixture(scope='module')
def weights(sound_dir):
    return sound_dir / 'weights' / 'yamnet'


@pytest.fixture(scope='module')
def model(weights):
    return yamnet.load_yamnet(weights)


@pytest.fixture(scope='module')
def embedder(weights):
    return yamnet.yamnet(weights)


@pytest.fixture(scope='module')
def published(sound_dir):
    return sound_dir / 'reference' / 'yamnet_fd'


def test_features_of_the_test_audio(weights):
    samples = np.fromfile(weights / 'yamnet_test_audio_int16_16k.bin', np.int16)
    audio = (samples / 32768 * 4.1).astype(np.float32)[None]  # the published gain
    spectra = np.fromfile(weights / 'yamnet_test_spectra_f32_96x64.bin', np.float32)
    found = np.asarray(yamnet.log_mel_patches(jnp.asarray(audio)))[0, 0]
    assert np.abs(found - spectra.reshape(96, 64)).mean() < 0.015


@pytest.mark.parametrize(
    'activations, expected, tolerance',
    [
        ('int8', 0.9414, 0.004),  # the tflite score under XNNPACK, one step of its 8-bit output
        ('float32', 0.9414, 0.02),
    ],
)
def test_scores_of_the_test_spectra(weights, model, activations, expected, tolerance):
    spectra = np.fromfile(weights / 'yamnet_test_spectra_f32_96x64.bin', np.float32)
    _, scores = yamnet.forward(model.params, jnp.asarray(spectra.reshape(1, 96, 64)), activations)
    assert scores.shape == (1, 521) and len(model.class_names) == 521
    assert float(scores[0].max()) == pytest.approx(expected, abs=tolerance)
    assert model.class_names[int(scores[0].argmax())] == 'Speech'
    embedding, _ = yamnet.forward(
        model.params, jnp.asarray(spectra.reshape(1, 96, 64)), activations
    )
    again = yamnet.yamnet(weights, activations).class_scores(np.asarray(embedding))
    np.testing.assert_allclose(again, scores, atol=1e-5)


def test_embeddings_of_recordings(sound_dir, published, embedder):
    reference = np.load(published / 'reference_embeddings_20files.npz')
    found = embed_clips(embedder, [sound_dir / 'audio' / f for f in reference['files']])
    counts = np.bincount(reference['file_index'])
    assert [len(v) for v in found] == counts.tolist()
    difference = np.abs(np.concatenate(found) - reference['embedding'])
    assert (difference < 1e-3).mean() > 0.98  # equal on the 8-bit grid; measured 0.987
    assert np.sqrt((difference**2).mean()) < 0.005  # measured 0.0036, of an rms of 0.177


def test_published_frechet_distances(published, embedder):
    values = json.loads((published / 'fd_values_dev.json').read_text())['values']
    stats = np.load(published / 'yamnet_dev_stats.npz')
    count = int(stats['n'])
    dev = GaussianStatistics(
        count, stats['mu'].astype(np.float64), stats['cov'].astype(np.float64) * (count - 1)
    )
    noise = (
        np.random.default_rng(1000 + k).normal(size=80_000)[: 15_600 + 3 * 7_680] * 0.1
        for k in range(300)
    )
    white = GaussianStatistics.stream(embed_clips(embedder, noise))
    assert white.count == 1200
    assert frechet_distance(dev, white) == pytest.approx(values['dev_vs_white_noise'], rel=1e-3)
    silence = GaussianStatistics.stream(embed_clips(embedder, [np.zeros(15_600)] * 2))
    expected = values['dev_vs_silence_point_mass']
    assert frechet_distance(dev, silence) == pytest.approx(expected, rel=1e-3)


@pytest.mark.skipif(
    'REALAUDIO_SLOW' not in os.environ, reason='two minutes: set REALAUDIO_SLOW=1 to run it'
)
def test_published_frechet_distances_between_recordings(sound_dir, published, embedder):
    values = json.loads((published / 'fd_values_dev.json').read_text())['values']
    with open(sound_dir / 'metadata.csv', newline='') as file:
        files = [row['file'] for row in csv.DictReader(file)]
    clips = embed_clips(embedder, [sound_dir / 'audio' / name for name in files])

    def of(chosen):
        return GaussianStatistics.stream(clips[i] for i in chosen)

    def folder(name):
        return of(i for i, file in enumerate(files) if file.startswith(name))

    order = np.random.default_rng(0).permutation(len(files))
    half = len(files) // 2
    found = {
        'dev_half_A_vs_half_B': (of(order[:half]), of(order[half:])),
        'esc10_dev_vs_berklee_dev': (folder('esc10'), folder('berklee')),
        'esc10_dev_vs_cc_sounds_dev': (folder('esc10'), folder('cc_sounds')),
    }
    for name, pair in found.items():
        assert frechet_distance(*pair) == pytest.approx(values[name], rel=1e-3)  # within 4e-4


def test_depthwise_layers_equal_a_grouped_convolution():
    import jax.lax

    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 7, 6, 5)), rng.normal(size=(3, 3, 5))
    for stride in (1, 2):
        shifts = yamnet._shifted(jnp.asarray(x, jnp.float32), stride)
        taps = w.reshape(9, 1, 1, 1, 5)
        found = sum(np.asarray(s) * t for s, t in zip(shifts, taps, strict=True))
        expected = jax.lax.conv_general_dilated(
            jnp.asarray(x, jnp.float32),
            jnp.asarray(w[:, :, None], jnp.float32),
            (stride, stride),
            'SAME',
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            feature_group_count=5,
        )
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_absent_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='yamnet_coral_int8.npz'):
        yamnet.yamnet(tmp_path / 'nowhere')
    np.savez(tmp_path / 'yamnet_coral_int8.npz', other=np.zeros(3))
    with pytest.raises(ValueError, match='not a YAMNet file'):
        yamnet.load_yamnet(tmp_path)
