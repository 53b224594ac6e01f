"""VGGish: a 128-d vector for each 0.96 s, the embedding that most published FADs name.

A port of the network of Hershey et al. 2017 (arXiv 1609.09430) in the weights of torchvggish. The
folder holds vggish.safetensors or vggish.npz, the state dict of the published
vggish-10086976.pth; with PyTorch at hand,

    state = torch.load('vggish-10086976.pth', map_location='cpu', weights_only=True)
    safetensors.torch.save_file(state, 'vggish.safetensors')

The vectors are those before the last ReLU and without PCA, as in the distances of Kilgour et al.
2019 (1812.08466) and the tools after them; `relu=True` gives what torchvggish's `embeddings` do.
Against an independent PyTorch module with random weights: within 1e-4 of the largest value;
log-mel against a float64 formula: within 1e-3.
"""

import os

import flax.linen as nn
import jax.numpy as jnp

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

LICENCE = 'Apache-2.0'
SOURCE = 'github.com/harritaylor/torchvggish, vggish-10086976.pth'
SAMPLE_RATE = 16_000  # Hz
FRAME, HOP, N_FFT = 400, 160, 512  # samples
BANDS, PATCH_FRAMES = 64, 96
WINDOW = (PATCH_FRAMES - 1) * HOP + FRAME  # 15600 samples behind a vector, 15360 between two
DIMENSION, HIDDEN = 128, 4096
# Width by the place of a convolution in the original's list; every other entry pools or rectifies.
WIDTHS = {0: 64, 3: 128, 6: 256, 8: 256, 11: 512, 13: 512}
POOLED = {0, 3, 8, 13}
NAMES = ('vggish.safetensors', 'vggish.npz')


class Vggish(nn.Module):
    """Log-mel patches [B 96 64] to vectors [B 128]; `hidden` is smaller only in tests."""

    relu: bool = False
    hidden: int = HIDDEN

    @nn.compact
    def __call__(self, patches: Float[Array, 'B 96 64']) -> Float[Array, 'B 128']:
        x = patches[..., None]
        for place, width in WIDTHS.items():
            x = nn.relu(nn.Conv(width, (3, 3), padding=1, name=f'features.{place}')(x))
            if place in POOLED:
                x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        for place in (0, 2):
            x = nn.relu(nn.Dense(self.hidden, name=f'embeddings.{place}')(x))
        x = nn.Dense(DIMENSION, name='embeddings.4')(x)
        return nn.relu(x) if self.relu else x


def vggish(weights_dir: str | os.PathLike, relu: bool = False) -> Embedder:
    """VGGish as an embedder: vectors [128] of 0.975 s, 0.96 s apart.

    Raises:
        FileNotFoundError: the folder has no weights.
        ValueError: the file is damaged or of another network; every mismatch is listed.
    """
    path = find_weights(weights_dir, NAMES, 'VGGish')
    network = Vggish(relu)
    template = parameter_shapes(network, (1, PATCH_FRAMES, BANDS))
    params = fit(read_arrays(path), template, f'{path} as VGGish', r'pproc\..*')
    embed = frontends.embed_windows(
        lambda params, audio: network.apply({'params': params}, log_mel(audio)),
        WINDOW,
        PATCH_FRAMES * HOP,
        at_once=32,
    )
    return Embedder(
        name=f'VGGish{" with ReLU" if relu else ""} ({digest(path)})',
        sample_rate=SAMPLE_RATE,
        dimension=DIMENSION,
        window_s=WINDOW / SAMPLE_RATE,
        hop_s=PATCH_FRAMES * HOP / SAMPLE_RATE,
        licence=LICENCE,
        source=SOURCE,
        embed=lambda audio: embed(params, jnp.asarray(audio)),
    )


def log_mel(audio: Float[Array, 'B S']) -> Float[Array, 'B N 64']:
    """ln(mel + 0.01) of the magnitude, 125 to 7500 Hz; N = 1 + (S - 400) // 160."""
    window = frontends.periodic_hann(FRAME)
    power = frontends.power_spectrum(audio, N_FFT, HOP, window, center=None)
    basis = frontends.height_mel(SAMPLE_RATE, N_FFT, BANDS, 125.0, 7500.0)
    return jnp.log(jnp.sqrt(power) @ basis + 0.01)
