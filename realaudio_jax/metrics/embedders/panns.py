"""PANNs CNN14: AudioSet class scores and a 2048-d vector for 10 s of sound.

A port of Kong et al. 2020 (arXiv 1912.10211). The folder holds cnn14.safetensors, the state dict
of the published Cnn14_mAP=0.431.pth; with PyTorch at hand,

    state = torch.load('Cnn14_mAP=0.431.pth', map_location='cpu', weights_only=True)['model']
    safetensors.torch.save_file(state, 'cnn14.safetensors')

which runs no code of the file. If torch refuses a type of NumPy that it names, allow that one by
`torch.serialization.add_safe_globals`.

The file also holds the filters of its own front end; they are compared with this one's, so that a
variant for another sample rate is refused. Against an independent PyTorch module with random
weights: vectors and scores within 1e-4 of the largest; log-mel against librosa: within 2e-3 dB.
"""

import os

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from realaudio_jax.metrics.embedders import frontends
from realaudio_jax.metrics.embedders.base import Embedder
from realaudio_jax.metrics.embedders.weights import (
    digest,
    find_weights,
    fit,
    parameter_shapes,
    read_arrays,
)
from realaudio_jax.typing import Array, Float

LICENCE = 'CC-BY-4.0'
SOURCE = 'zenodo.org/records/3987831, Cnn14_mAP=0.431.pth'
SAMPLE_RATE = 32_000  # Hz
N_FFT, HOP, BANDS, LOW_HZ, HIGH_HZ = 1024, 320, 64, 50.0, 14_000.0
WINDOW_S = 10.0  # what the network was trained on; shorter clips are padded with zeros, as there
WIDTHS = (64, 128, 256, 512, 1024, 2048)
DIMENSION, CLASSES = 2048, 527
WEIGHTS = 'cnn14.safetensors'
MEL = 'logmel_extractor.melW'
UNUSED = r'spectrogram_extractor\..*|logmel_extractor\..*|.*\.num_batches_tracked'


class Cnn14(nn.Module):
    """Log-mel [B N 64] to vectors [B D] and probabilities [B 527]; D is the last width."""

    widths: tuple[int, ...] = WIDTHS

    @nn.compact
    def __call__(
        self, log_mel: Float[Array, 'B N 64']
    ) -> tuple[Float[Array, 'B D'], Float[Array, 'B 527']]:
        x = frontends.BatchNorm(name='bn0')(log_mel)[..., None]
        for i, width in enumerate(self.widths, 1):
            for j in (1, 2):
                name = f'conv_block{i}'
                x = nn.Conv(width, (3, 3), padding=1, use_bias=False, name=f'{name}.conv{j}')(x)
                x = nn.relu(frontends.BatchNorm(name=f'{name}.bn{j}')(x))
            if i < len(self.widths):
                x = nn.avg_pool(x, (2, 2), (2, 2))
        x = x.mean(2)
        x = nn.relu(nn.Dense(self.widths[-1], name='fc1')(x.max(1) + x.mean(1)))
        return x, nn.sigmoid(nn.Dense(CLASSES, name='fc_audioset')(x))


def cnn14(weights_dir: str | os.PathLike) -> Embedder:
    """CNN14 as an embedder: a vector [2048] for each 10 s.

    Raises:
        FileNotFoundError: the folder has no weights.
        ValueError: the file is damaged or of another network; every mismatch is listed.
    """
    path = find_weights(weights_dir, (WEIGHTS,), 'PANNs CNN14')
    tensors = read_arrays(path)
    network = Cnn14()
    template = parameter_shapes(network, (1, 64, BANDS))
    params = fit(tensors, template, f'{path} as PANNs CNN14', UNUSED)
    _check_mel(tensors, path)
    size = round(WINDOW_S * SAMPLE_RATE)
    embed = frontends.embed_windows(
        lambda params, audio: network.apply({'params': params}, log_mel(audio))[0], size, size
    )
    return Embedder(
        name=f'PANNs CNN14 ({digest(path)})',
        sample_rate=SAMPLE_RATE,
        dimension=DIMENSION,
        window_s=WINDOW_S,
        licence=LICENCE,
        source=SOURCE,
        embed=lambda audio: embed(params, jnp.asarray(audio)),
    )


def log_mel(audio: Float[Array, 'B S']) -> Float[Array, 'B N 64']:
    """Mel bands of the power spectrum in dB, not below -100; N = 1 + S // 320."""
    power = frontends.power_spectrum(audio, N_FFT, HOP, frontends.periodic_hann(N_FFT))
    return frontends.decibels(power @ _mel())


def _mel():
    return frontends.area_mel(SAMPLE_RATE, N_FFT, BANDS, LOW_HZ, HIGH_HZ)


def _check_mel(tensors, path):
    given = tensors.get(MEL)
    if given is not None and (
        given.shape != _mel().shape or not np.allclose(given, _mel(), atol=1e-5)
    ):
        raise ValueError(
            f'{path} is a CNN14 with another front end ({MEL} differs); '
            'give the one for 32 kHz, Cnn14_mAP=0.431'
        )
