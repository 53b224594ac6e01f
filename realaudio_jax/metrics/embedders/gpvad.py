"""GPVAD: AudioSet class scores and 256-d embeddings at 80 ms, and its speech detector.

A port of the CRNN of Dinkel et al. 2021 (arXiv 2105.04065): five blocks of batch norm, 3x3
convolution and LeakyReLU(0.1), pooled by the 4-norm

    y = (sum x^4)^(1/4),

one bidirectional GRU, a linear layer and a sigmoid for each frame of 80 ms, interpolated to 20 ms.
The teacher knows the 527 classes of AudioSet, the student speech and non-speech. The folder holds

    teacher1.npz or teacher2.npz, vad_sre.npz           the state dicts of the published .pth files
    teacher_classes_527.json, vad_classes.json          optional: names of the classes

Against vectors made with the originals on their example recording: features within 1e-3, scores
and embeddings within 1e-4; speech found where their page says, 0.28-0.94 and 1.04-2.22 s.
"""

import dataclasses
import functools
import json
import os

import flax.linen as nn
import jax
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
from realaudio_jax.typing import Array, Float, PyTree

LICENCE = 'MIT'
SOURCE = 'github.com/RicherMans/Datadriven-GPVAD, pretrained_models'
SAMPLE_RATE = 22_050  # Hz
N_FFT, HOP, FRAME = 2048, 441, 882  # samples; 20 ms between frames of 40 ms
BANDS, DIMENSION, WIDTH = 64, 256, 128
FRAME_S = HOP / SAMPLE_RATE  # 0.02
FLOOR = np.finfo(np.float64).eps  # under the logarithm
# Width of each block and, where the list has a pair, 4-norm pooling (time, frequency).
FEATURES = (32, (2, 4), 128, 128, (2, 4), 128, 128, (1, 4))
WINDOW_FRAMES = 96  # 1.92 s behind one vector of the embedder, twice YAMNet's
HIGH, LOW = 0.5, 0.1  # thresholds of the detector
TEACHERS, STUDENT = ('teacher1.npz', 'teacher2.npz'), 'vad_sre.npz'


class Crnn(nn.Module):
    """Log-mel frames [B N 64] to embeddings [B N//4 256] and probabilities [B N//4 classes]."""

    classes: int

    @nn.compact
    def __call__(
        self, x: Float[Array, 'B N 64']
    ) -> tuple[Float[Array, 'B M 256'], Float[Array, 'B M classes']]:
        x = x[..., None]
        for i, layer in enumerate(FEATURES):
            if isinstance(layer, tuple):
                x = _pool(x, layer)
                continue
            x = frontends.BatchNorm(name=f'features.{i}.block.0')(x)
            conv = nn.Conv(layer, (3, 3), padding=1, use_bias=False, name=f'features.{i}.block.1')
            x = nn.leaky_relu(conv(x), 0.1)
        states = BidirectionalGru(WIDTH, name='gru')(x[:, :, 0])
        return states, nn.sigmoid(nn.Dense(self.classes, name='outputlayer')(states))


class BidirectionalGru(nn.Module):
    """One layer in both directions, side by side [B M 2D], in PyTorch's parameters.

    r = s(W_r x + U_r h), z = s(W_z x + U_z h), n = tanh(W_n x + r U_n h), h' = (1 - z) n + z h;
    each product has a bias.
    """

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, 'B M D']) -> Float[Array, 'B M E']:
        both = []
        for suffix in ('', '_reverse'):
            normal, zeros = nn.initializers.lecun_normal(), nn.initializers.zeros
            size = 3 * self.width
            w = self.param(f'weight_ih_l0{suffix}', normal, (size, x.shape[-1]))
            u = self.param(f'weight_hh_l0{suffix}', normal, (size, self.width))
            b_w = self.param(f'bias_ih_l0{suffix}', zeros, (size,))
            b_u = self.param(f'bias_hh_l0{suffix}', zeros, (size,))
            inputs = jnp.swapaxes(x @ w.T + b_w[None, None], 0, 1)  # [M B 3D]

            def step(h, given, u=u, b_u=b_u):
                r_x, z_x, n_x = jnp.split(given, 3, -1)
                r_h, z_h, n_h = jnp.split(h @ u.T + b_u[None], 3, -1)
                r, z = nn.sigmoid(r_x + r_h), nn.sigmoid(z_x + z_h)
                h = (1 - z) * jnp.tanh(n_x + r * n_h) + z * h
                return h, h

            start = jnp.zeros((x.shape[0], self.width), x.dtype)
            states = jax.lax.scan(step, start, inputs, reverse=bool(suffix))[1]
            both.append(jnp.swapaxes(states, 0, 1))
        return jnp.concatenate(both, -1)


@dataclasses.dataclass(frozen=True)
class Gpvad:
    """Loaded weights.

    Attributes:
        params: of `Crnn`.
        classes: how many.
        class_names: of the scores; empty where the folder has none.
        digest: first 8 hex digits of the SHA-256 of the weights file.
    """

    params: PyTree
    classes: int
    class_names: tuple[str, ...]
    digest: str


def load_gpvad(weights_dir: str | os.PathLike, student: bool = False) -> Gpvad:
    """Reads the AudioSet teacher in a folder, or the speech detector.

    Raises:
        FileNotFoundError: the folder has no such weights.
        ValueError: the file is damaged or of another network.
    """
    names = (STUDENT,) if student else TEACHERS
    path = find_weights(weights_dir, names, 'GPVAD')
    classes = 2 if student else 527
    template = parameter_shapes(Crnn(classes), (1, 8, BANDS))
    params = fit(read_arrays(path), template, f'{path} as GPVAD', r'.*\.num_batches_tracked')
    listed = path.with_name('vad_classes.json' if student else 'teacher_classes_527.json')
    class_names = tuple(json.loads(listed.read_text())) if listed.is_file() else ()
    return Gpvad(params, classes, class_names, digest(path))


def gpvad(weights_dir: str | os.PathLike) -> Embedder:
    """The teacher as an embedder: the mean state of windows of 1.92 s, 0.96 s apart.

    The original gives a state each 80 ms for a whole clip; the window, so that a vector depends on
    a known stretch of sound, is ours.

    Raises:
        FileNotFoundError: the folder has no teacher.
    """
    model = load_gpvad(weights_dir)
    size = WINDOW_FRAMES * HOP
    embed = frontends.embed_windows(
        lambda params, audio: embed_audio(params, audio)[0].mean(1), size, size // 2, at_once=32
    )
    return Embedder(
        name=f'GPVAD teacher ({model.digest})',
        sample_rate=SAMPLE_RATE,
        dimension=DIMENSION,
        window_s=size / SAMPLE_RATE,
        hop_s=size / 2 / SAMPLE_RATE,
        licence=LICENCE,
        source=SOURCE,
        embed=lambda audio: embed(model.params, jnp.asarray(audio)),
    )


def log_mel(audio: Float[Array, 'B S']) -> Float[Array, 'B N 64']:
    """ln(mel + eps) of the power spectrum, N = 1 + S // 441."""
    window = frontends.periodic_hann(FRAME)
    power = frontends.power_spectrum(audio, N_FFT, HOP, window)
    basis = frontends.area_mel(SAMPLE_RATE, N_FFT, BANDS, 0.0, SAMPLE_RATE / 2)
    return jnp.log(power @ basis + FLOOR)


def embed_audio(
    params: PyTree, audio: Float[Array, 'B S'], classes: int = 527
) -> tuple[Float[Array, 'B M 256'], Float[Array, 'B M classes']]:
    """States and probabilities each 80 ms of mono audio at 22.05 kHz."""
    return Crnn(classes).apply({'params': params}, log_mel(audio))


@functools.partial(jax.jit, static_argnames='classes')
def frame_scores(
    params: PyTree, audio: Float[Array, 'B S'], classes: int = 527
) -> Float[Array, 'B N classes']:
    """Probabilities each 20 ms, interpolated between the network's frames of 80 ms.

    Args:
        params: `Gpvad.params`.
        audio: [B S] at 22.05 kHz in [-1, 1], at least 80 ms.
        classes: `Gpvad.classes`.
    """
    features = log_mel(audio)
    scores = Crnn(classes).apply({'params': params}, features)[1]
    return interpolate(scores, features.shape[1])


def interpolate(scores: Float[Array, 'B M C'], frames: int) -> Float[Array, 'B N C']:
    """Linear in time to N = `frames`, between the middles of the M frames; the ends are held."""
    coarse = scores.shape[1]
    place = np.clip((np.arange(frames) + 0.5) * coarse / frames - 0.5, 0, coarse - 1)
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, coarse - 1)
    share = jnp.asarray(place - below, scores.dtype)[None, :, None]
    return scores[:, below] * (1 - share) + scores[:, above] * share


def clip_scores(scores: Float[Array, 'B N C']) -> Float[Array, 'B C']:
    """sum p^2 / sum p over the frames of 20 ms: the pooling the network was trained with."""
    return jnp.square(scores).sum(1) / scores.sum(1)


def segments(
    probabilities: Float[np.ndarray, 'N'], high: float = HIGH, low: float = LOW
) -> list[tuple[float, float]]:
    """Onsets and offsets in s: runs above `low` that somewhere exceed `high`.

    Runs one frame apart are one, as in the original.

    Args:
        probabilities: each 20 ms, of one class.
        high, low: thresholds, low <= high.
    """
    active = np.concatenate([[False], np.asarray(probabilities) > low, [False]])
    starts, ends = (np.flatnonzero(np.diff(active.astype(int)) == sign) for sign in (1, -1))
    merged: list[list[int]] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if np.max(probabilities[start:end]) <= high:
            continue
        if merged and start - merged[-1][1] <= 1:
            merged[-1][1] = end
        else:
            merged.append([start, end])
    return [(start * FRAME_S, end * FRAME_S) for start, end in merged]


def _pool(x, size):
    """4-norm over blocks of (time, frequency); what does not fill a block is left out."""
    total = nn.avg_pool(jnp.square(jnp.square(x)), size, size) * (size[0] * size[1])
    return jnp.sqrt(jnp.sqrt(total))
