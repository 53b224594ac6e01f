"""VGGish, CNN14 and OpenL3 against PyTorch modules written for the test, with random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.metrics.embedders import openl3, panns, vggish
from realaudio_jax.metrics.embedders.weights import fit, parameter_shapes, read_arrays

torch = pytest.importorskip('torch', reason="no torch: install the extra 'reference'")
nn, F = torch.nn, torch.nn.functional


def _same(found, expected):
    """Within 1e-4 of the largest value, which must differ between items."""
    expected = expected.numpy()
    assert np.abs(expected[0] - expected[1]).max() > 1e-2 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def _run(network, path, x, unused=''):
    template = parameter_shapes(network, x.shape)
    params = fit(read_arrays(path), template, str(path), unused)
    return jax.jit(network.apply)({'params': params}, jnp.asarray(x))


def test_vggish(randomise, save, tmp_path):
    class Original(nn.Module):
        def __init__(self, hidden):
            super().__init__()
            layers, before = [], 1
            for width in (64, 'pool', 128, 'pool', 256, 256, 'pool', 512, 512, 'pool'):
                if width == 'pool':
                    layers.append(nn.MaxPool2d(2))
                    continue
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            self.features = nn.Sequential(*layers)
            self.embeddings = nn.Sequential(
                nn.Linear(512 * 6 * 4, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, 128),
            )

        def forward(self, x):  # time, frequency, then channels, as TensorFlow flattens
            return self.embeddings(self.features(x[:, None]).permute(0, 2, 3, 1).flatten(1))

    original = randomise(Original(20))
    path = save(original, tmp_path / 'vggish.safetensors')
    x = np.random.default_rng(0).normal(size=(2, 96, 64)).astype(np.float32)
    with torch.no_grad():
        expected = original(torch.tensor(x))
    assert (expected < 0).any()
    _same(_run(vggish.Vggish(hidden=20), path, x), expected)
    _same(_run(vggish.Vggish(True, 20), path, x), expected.relu())


def test_cnn14(randomise, save, tmp_path):
    widths = (8, 12, 16, 20, 24, 28)

    class Block(nn.Module):
        def __init__(self, before, width, pool):
            super().__init__()
            self.pool = pool
            self.conv1 = nn.Conv2d(before, width, 3, padding=1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

        def forward(self, x):
            x = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
            return F.avg_pool2d(x, self.pool)

    class Original(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn0 = nn.BatchNorm2d(64)
            for i, (before, width) in enumerate(zip((1, *widths), widths, strict=False), 1):
                setattr(self, f'conv_block{i}', Block(before, width, 2 if i < 6 else 1))
            self.fc1 = nn.Linear(widths[-1], widths[-1])
            self.fc_audioset = nn.Linear(widths[-1], 527)

        def forward(self, x):  # [B 1 N 64]
            x = self.bn0(x.transpose(1, 3)).transpose(1, 3)
            for i in range(1, 7):
                x = getattr(self, f'conv_block{i}')(x)
            x = x.mean(3)
            vector = self.fc1(x.amax(2) + x.mean(2)).relu()
            return vector, self.fc_audioset(vector).sigmoid()

    original = randomise(Original())
    path = save(original, tmp_path / 'cnn14.safetensors')
    x = np.random.default_rng(0).normal(size=(2, 101, 64)).astype(np.float32)
    x[1] = 3 * x[1] + np.linspace(-3, 3, 64)
    with torch.no_grad():
        vectors, scores = original(torch.tensor(x)[:, None])
    found = _run(panns.Cnn14(widths), path, x, panns.UNUSED)
    _same(found[0], vectors)
    _same(found[1], scores)


def test_the_front_end_in_a_cnn14_file_is_compared(tmp_path):
    tensors = {panns.MEL: np.array(panns._mel())}
    panns._check_mel(tensors, tmp_path)
    with pytest.raises(ValueError, match='another front end'):
        panns._check_mel({panns.MEL: np.roll(tensors[panns.MEL], 1)}, tmp_path)


@pytest.mark.parametrize('dimension, bands', [(24, 256), (288, 128)])
def test_openl3(randomise, save, tmp_path, monkeypatch, dimension, bands):
    widths = (4, 8, 12, 24)

    class Original(nn.Module):
        def __init__(self):
            super().__init__()
            layers = [width for width in widths for _ in range(2)]
            self.batch_normalization_1 = nn.BatchNorm2d(1, eps=1e-3)
            for i, (before, width) in enumerate(zip([1, *layers], layers, strict=False), 1):
                name = f'conv2d_{i}' if i < 8 else 'audio_embedding_layer'
                setattr(self, name, nn.Conv2d(before, width, 3, padding=1))
                if i < 8:
                    setattr(self, f'batch_normalization_{i + 1}', nn.BatchNorm2d(width, eps=1e-3))

        def forward(self, x):
            x = self.batch_normalization_1(x)
            for i in range(1, 8):
                norm = getattr(self, f'batch_normalization_{i + 1}')
                x = norm(getattr(self, f'conv2d_{i}')(x)).relu()
                x = F.max_pool2d(x, 2) if i in (2, 4, 6) else x
            size = (bands // 8, 24) if dimension == widths[-1] else (bands // 32, 8)
            return F.max_pool2d(self.audio_embedding_layer(x), size).permute(0, 2, 3, 1).flatten(1)

    original = randomise(Original())
    path = save(original, tmp_path / 'openl3.safetensors')
    pooling = openl3.POOLING[512 if dimension == widths[-1] else 6144, bands]
    monkeypatch.setitem(openl3.POOLING, (dimension, bands), pooling)
    x = np.random.default_rng(0).uniform(-80, 0, (2, bands, 199)).astype(np.float32)
    with torch.no_grad():
        expected = original(torch.tensor(x)[:, None])
    assert expected.shape == (2, dimension)
    _same(_run(openl3.OpenL3(bands, dimension, widths), path, x, openl3.UNUSED), expected)
