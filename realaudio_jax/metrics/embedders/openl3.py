"""OpenL3: a 512-d or 6144-d vector for each second of sound or music.

A port of the audio half of Look, Listen and Learn (Arandjelovic & Zisserman 2017, arXiv
1705.08168) as trained by Cramer et al. 2019 (ICASSP, "Look, listen, and learn more"), in the layout
of torchopenl3. The folder holds one file, named for what it was trained on and its mel bands:

    openl3_env_mel256.safetensors        also music for env, mel128 for mel256

the state dict of torchopenl3's model of that kind; with both at hand,

    model = torchopenl3.core.load_audio_embedding_model('mel256', 'env', 512)
    safetensors.torch.save_file(model.state_dict(), 'openl3_env_mel256.safetensors')

The front end is the one that the weights were trained with, kapre 0.1.4: roots of the power in HTK
bands, in dB below the window's loudest, padded alike at both ends. (openl3 from 0.4 on sums
magnitudes in Slaney bands and pads the end only, so its vectors differ.) Against an independent
PyTorch module with random weights: within 1e-4 of the largest value; front end against a float64
formula: within 1e-3 dB.
"""

import os
import re

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

LICENCE = 'CC-BY-4.0'
SOURCE = 'github.com/torchopenl3/torchopenl3, converted from marl/openl3'
SAMPLE_RATE, WINDOW_S, HOP_S = 48_000, 1.0, 0.5  # Hz, s; vectors half a second apart are our choice
N_FFT, HOP, FRAMES = 2048, 242, 199
RANGE_DB = 80.0
WIDTHS = (64, 128, 256, 512)
EPSILON = 1e-3  # of Keras' batch norm
DIMENSION = 512
NAMES = tuple(
    f'openl3_{content}_mel{bands}.safetensors'
    for content in ('env', 'music')
    for bands in (256, 128)
)
POOLING = {  # frequency, time; by dimension and mel bands
    (512, 256): (32, 24),
    (512, 128): (16, 24),
    (6144, 256): (8, 8),
    (6144, 128): (4, 8),
}
UNUSED = r'speclayer\..*|.*\.num_batches_tracked'


class OpenL3(nn.Module):
    """Mel bands in dB [B M 199], frequency first, to vectors [B D]."""

    bands: int = 256
    dimension: int = 512
    widths: tuple[int, ...] = WIDTHS

    @nn.compact
    def __call__(self, mel_db: Float[Array, 'B M N']) -> Float[Array, 'B D']:
        def normalise(x, place):
            return frontends.BatchNorm(EPSILON, name=f'batch_normalization_{place}')(x)

        x = normalise(mel_db[..., None], 1)
        layers = [width for width in self.widths for _ in range(2)]
        for place, width in enumerate(layers, 1):
            last = place == len(layers)
            name = 'audio_embedding_layer' if last else f'conv2d_{place}'
            x = nn.Conv(width, (3, 3), padding=1, name=name)(x)
            if last:
                break
            x = nn.relu(normalise(x, place + 1))
            if place % 2 == 0:
                x = nn.max_pool(x, (2, 2), (2, 2))
        size = POOLING[self.dimension, self.bands]
        return nn.max_pool(x, size, size).reshape(x.shape[0], -1)


def openl3(
    weights_dir: str | os.PathLike, dimension: int = DIMENSION, hop_s: float = HOP_S
) -> Embedder:
    """OpenL3 as an embedder: vectors of 1 s.

    Args:
        weights_dir: folder with one of the files above; env is preferred to music, 256 bands to
            128.
        dimension: 512 or 6144.
        hop_s: seconds between vectors.

    Raises:
        FileNotFoundError: the folder has no weights.
        ValueError: the file is damaged or of another network, or no such dimension.
    """
    path = find_weights(weights_dir, NAMES, 'OpenL3')
    bands = int(re.search(r'mel(\d+)', path.name)[1])
    if (dimension, bands) not in POOLING:
        raise ValueError(f'OpenL3 has vectors of 512 or 6144, not {dimension}')
    network = OpenL3(bands, dimension)
    template = parameter_shapes(network, (1, bands, FRAMES))
    params = fit(read_arrays(path), template, f'{path} as OpenL3', UNUSED)
    embed = frontends.embed_windows(
        lambda params, audio: network.apply({'params': params}, mel_db(audio, bands)),
        round(WINDOW_S * SAMPLE_RATE),
        round(hop_s * SAMPLE_RATE),
    )
    return Embedder(
        name=f'{path.stem.replace("openl3", "OpenL3").replace("_", " ")} {dimension}'
        f' ({digest(path)})',
        sample_rate=SAMPLE_RATE,
        dimension=dimension,
        window_s=WINDOW_S,
        hop_s=hop_s,
        licence=LICENCE,
        source=SOURCE,
        embed=lambda audio: embed(params, jnp.asarray(audio)),
    )


def mel_db(audio: Float[Array, 'B S'], bands: int = 256) -> Float[Array, 'B M N']:
    """5 log10 of mel bands of the power, 0 at the loudest, not below -80; N = ceil(S / 242)."""
    frames = -(-audio.shape[1] // HOP)
    extra = (frames - 1) * HOP + N_FFT - audio.shape[1]
    audio = jnp.pad(audio, ((0, 0), (extra // 2, extra - extra // 2)))
    window = frontends.periodic_hann(N_FFT)
    power = frontends.power_spectrum(audio, N_FFT, HOP, window, center=None)
    basis = frontends.area_mel(SAMPLE_RATE, N_FFT, bands, 0.0, SAMPLE_RATE / 2, htk=True)
    level = frontends.decibels(jnp.sqrt(power @ basis))
    level = level - level.max((1, 2), keepdims=True)
    return jnp.swapaxes(jnp.maximum(level, -RANGE_DB), 1, 2)
