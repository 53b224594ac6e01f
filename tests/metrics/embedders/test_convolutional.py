"""VGGish, PANNs CNN14 and OpenL3: front ends, sizes and refusals; figures in the parity tests."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import safetensors.numpy

from realaudio_jax.metrics.embedders import frontends, openl3, panns, vggish
from realaudio_jax.metrics.embedders.weights import parameter_shapes


@pytest.fixture(scope='module')
def noise():
    rng = np.random.default_rng(0)
    return (rng.normal(size=48_000) * np.linspace(1e-3, 0.5, 48_000)).astype(np.float32)


def test_log_mel_of_vggish(noise):
    audio = noise[:15_600].astype(np.float64)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.stack([audio[i * 160 : i * 160 + 400] * window for i in range(96)])
    magnitude = np.abs(np.fft.rfft(frames, 512))
    # Triangles drawn one by one on the axis 1127 ln(1 + f / 700).
    hertz = np.arange(257) * 31.25
    axis = 1127 * np.log(1 + hertz / 700)
    low, high = 1127 * np.log(1 + np.array([125.0, 7500.0]) / 700)
    step = (high - low) / 65
    peaks = low + step * np.arange(1, 65)
    bands = np.array([np.clip(1 - np.abs(axis - peak) / step, 0, None) for peak in peaks])
    bands[:, 0] = 0
    expected = np.log(magnitude @ bands.T + 0.01)
    found = vggish.log_mel(jnp.asarray(noise[None, :15_600]))[0]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_log_mel_of_panns(noise):
    padded = np.pad(noise.astype(np.float64), 512, mode='reflect')
    frames = np.stack([padded[i * 320 : i * 320 + 1024] for i in range(151)])
    window = np.sin(np.pi * np.arange(1024) / 1024) ** 2
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    bands = librosa.filters.mel(sr=32_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000)
    expected = 10 * np.log10(np.maximum(power @ bands.T, 1e-10))
    found = panns.log_mel(jnp.asarray(noise)[None])[0]
    np.testing.assert_allclose(found, expected, atol=2e-3)  # dB


@pytest.mark.parametrize('bands', [256, 128])
def test_front_end_of_openl3(noise, bands):
    padded = np.pad(noise.astype(np.float64), 982)
    frames = np.stack([padded[i * 242 : i * 242 + 2048] for i in range(199)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    mel = power @ librosa.filters.mel(sr=48_000, n_fft=2048, n_mels=bands, htk=True).T
    level = 10 * np.log10(np.maximum(np.sqrt(mel), 1e-10))
    expected = np.maximum(level - level.max(), -80).T
    found = openl3.mel_db(jnp.asarray(noise)[None], bands)[0]
    assert found.shape == (bands, 199)
    np.testing.assert_allclose(found, expected, atol=1e-3)  # dB


def test_published_sizes():
    def count(model, *shape):
        leaves = jax.tree_util.tree_leaves(parameter_shapes(model, shape))
        return sum(np.prod(leaf.shape, dtype=int) for leaf in leaves)

    assert count(vggish.Vggish(), 1, 96, 64) == 72_141_184  # as torchvggish counts them
    # 80,753,615 trained, by the authors' count, and the statistics of 13 batch norms.
    statistics = 2 * (64 + 2 * (64 + 128 + 256 + 512 + 1024 + 2048))
    assert count(panns.Cnn14(), 1, 64, 64) == 80_753_615 + statistics
    widths = [1, 64, 64, 128, 128, 256, 256, 512, 512]
    convolutions = sum(9 * a * b + b for a, b in zip(widths[:-1], widths[1:], strict=True))
    assert count(openl3.OpenL3(), 1, 256, 199) == convolutions + 4 * sum(widths[:-1])


def test_windows_pass_in_groups():
    calls = []

    def network(params, windows):
        calls.append(windows.shape)
        return windows[:, :3] * params

    embed = frontends.embed_windows(network, size=5, hop=4, at_once=4)  # six windows: 4 and 2
    audio = np.arange(2 * 14, dtype=np.float32).reshape(2, 14)
    found = embed(jnp.float32(2.0), audio)
    expected = 2 * np.stack([audio[:, i : i + 3] for i in (0, 4, 8)], 1)
    np.testing.assert_array_equal(found, expected)
    assert set(calls) == {(4, 5)}
    np.testing.assert_array_equal(embed(jnp.float32(2.0), audio[:1, :9]), expected[:1, :2])
    with pytest.raises(ValueError, match='4 samples are less than one window of 5'):
        embed(jnp.float32(2.0), audio[:, :4])


@pytest.mark.parametrize(
    'load, names',
    [
        (vggish.vggish, 'vggish.safetensors or vggish.npz'),
        (panns.cnn14, 'cnn14.safetensors'),
        (openl3.openl3, 'openl3_env_mel256.safetensors or openl3_env_mel128.safetensors'),
    ],
)
def test_missing_files_are_named(load, names, tmp_path):
    with pytest.raises(FileNotFoundError, match=names):
        load(tmp_path)


@pytest.mark.parametrize(
    'load, name, missing',
    [
        (vggish.vggish, 'vggish.safetensors', 'features.13.bias'),
        (panns.cnn14, 'cnn14.safetensors', 'conv_block6.bn2.running_var'),
        (openl3.openl3, 'openl3_music_mel128.safetensors', 'audio_embedding_layer.weight'),
    ],
)
def test_another_network_is_refused(load, name, missing, tmp_path):
    tensors = {'features.0.weight': np.zeros((64, 1, 5, 5), np.float32)}
    (tmp_path / name).write_bytes(safetensors.numpy.save(tensors))
    with pytest.raises(ValueError, match=f'missing {missing}'):
        load(tmp_path)
