"""DNSMOS P.835: opinion scores of speech, of its background and of the whole, without a reference.

A port of Reddy et al. 2022 (arXiv 2110.01763) that reads the published sig_bak_ovr.onnx as it is.
Log-power frames of 20 ms pass seven convolutions and three dense layers; a polynomial takes the
result to the scale of listeners, 1 to 5. Made for speech: of other sounds it only says how speech-
like they are to it. Against onnxruntime: raw scores within 1e-3.
"""

import dataclasses
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.metrics.ports.frontends import cut
from realaudio_jax.metrics.ports.onnx import read_initializers
from realaudio_jax.metrics.ports.weights import digest, find_weights, fit, parameter_shapes
from realaudio_jax.typing import Array, Float, PyTree

LICENCE = 'CC-BY-4.0'
SOURCE = 'github.com/microsoft/DNS-Challenge, DNSMOS'
SAMPLE_RATE, WINDOW, HOP = 16_000, 144_160, 16_000  # Hz, samples: 9.01 s, each second
FRAME, STEP = 320, 160
WEIGHTS = 'sig_bak_ovr.onnx'
WIDTHS = (128, 64, 64, 32, 32, 32, 64)
POOLED = {3, 4, 5}
NAMES = ('SIG', 'BAK', 'OVRL')
POLYNOMIALS = np.array(
    [  # a x^2 + b x + c, from raw scores to mean opinion scores
        [-0.08397278, 1.22083953, 0.0052439],
        [-0.13166888, 1.60915514, -0.39604546],
        [-0.06766283, 1.11546468, 0.04602535],
    ]
)
CONSTANTS = r'input_1.*|shape_tensor.*|mos_estimator_logpow/(truediv|Maximum|pow)/.*'


class Dnsmos(nn.Module):
    """Windows [B 144160] to raw SIG, BAK and OVRL [B 3]."""

    @nn.compact
    def __call__(self, audio: Float[Array, 'B S']) -> Float[Array, 'B 3']:
        frames = cut(audio, FRAME, STEP)
        normal, bins = nn.initializers.lecun_normal(), FRAME // 2 + 1
        real = frames @ self.param('stft_real', normal, (FRAME, bins))
        imaginary = frames @ self.param('stft_imag', normal, (FRAME, bins))
        power = jnp.square(real) + jnp.square(imaginary)
        x = jnp.log10(jnp.maximum(power, 1e-12))[..., None]
        for i, width in enumerate(WIDTHS):
            name = f'conv2d_{i}' if i else 'conv2d'
            x = nn.relu(nn.Conv(width, (3, 3), padding=1, name=name)(x))
            if i in POOLED:
                x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.max((1, 2))
        x = nn.relu(nn.Dense(128, name='dense')(x))
        x = nn.relu(nn.Dense(64, name='dense_1')(x))
        return nn.Dense(3, name='dense_3')(x)


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Loaded weights.

    Attributes:
        name: what a table prints.
        params: of `Dnsmos`.
    """

    name: str
    params: PyTree

    def __call__(self, audio: Float[np.ndarray, 'S']) -> dict[str, float]:
        """Mean opinion scores SIG, BAK and OVRL of a clip, the means over its windows.

        As the authors do, a clip shorter than 9.01 s is repeated until it is longer.

        Args:
            audio: mono at 16 kHz in [-1, 1].

        Raises:
            ValueError: the clip is empty.
        """
        if not audio.size:
            raise ValueError('DNSMOS needs at least one sample of sound')
        repeats = -(-WINDOW // len(audio))
        audio = np.tile(np.asarray(audio, np.float32), repeats)
        starts = range(0, len(audio) - WINDOW + 1, HOP)
        raw = np.concatenate([raw_scores(self.params, audio[None, i : i + WINDOW]) for i in starts])
        squares = np.stack([raw**2, raw, np.ones_like(raw)], -1)
        return dict(zip(NAMES, (squares * POLYNOMIALS).sum(-1).mean(0).tolist(), strict=True))


def load_dnsmos(weights_dir: str | os.PathLike) -> Scorer:
    """Reads the network in a folder.

    Raises:
        FileNotFoundError: the folder has no sig_bak_ovr.onnx.
        ValueError: the file is damaged or of another network; every mismatch is listed.
    """
    path = find_weights(weights_dir, (WEIGHTS,), 'DNSMOS')
    template = parameter_shapes(Dnsmos(), (1, WINDOW))
    params = fit(read_initializers(path), template, f'{path} as DNSMOS', CONSTANTS, _source)
    return Scorer(f'DNSMOS P.835 ({digest(path)})', params)


@jax.jit
def raw_scores(params: PyTree, audio: Float[Array, 'B S']) -> Float[Array, 'B 3']:
    """SIG, BAK and OVRL before the polynomial, of windows of 144160 samples."""
    return Dnsmos().apply({'params': params}, audio)


def _source(path):
    owner, _, leaf = path.rpartition('/')
    if not owner:
        name = path.replace('stft_', 'stft-')
        return (f'time2freq/{name}/kernel:0',), lambda x: x[:, :, 0].T
    if owner.startswith('conv'):
        return (f'{path}:0',), lambda x: x
    kind = 'MatMul' if leaf == 'kernel' else 'BiasAdd'
    # A dense kernel is stored as [in out] already: turn it back.
    name = f'mos_estimator_logpow/{owner}/{kind}/ReadVariableOp/resource:0'
    return (name,), lambda x: x.T
