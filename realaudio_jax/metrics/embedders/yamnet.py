"""YAMNet in JAX: AudioSet class scores and 1024-d embeddings of 0.96 s patches of sound.

A port of the Coral variant of YAMNet (MobileNet-v1 of 13 separable layers, ReLU6), published as
an int8 tflite file by google-coral/coralmicro (Apache-2.0). The weights are its int8 values times
their scales, with batch normalisation folded in. The tflite file also rounds activations to 8 bits
after every layer, and its published figures include that noise: by default this port rounds them
to the same grid in float32 (`activations='int8'`), and 'float32' leaves them unrounded. The
weights are not part of this package: the caller names a folder holding

    yamnet_coral_int8.npz            arrays NN_conv, NN_dw (00 .. 26) and 27_fc
    yamnet_class_names_521.json      optional: the names of the 521 classes

Against the tflite file with XNNPACK: on its test vector top score 0.9412 for 0.9414; over 20
recordings 98.7% of the embedding equal and the rest within a few steps of the grid. Frechet
distances published with that file over 2,085 recordings come out within 0.04% ('int8').

Architecture: Howard et al. 2017 (arXiv 1704.04861); training data: AudioSet (Gemmeke et al. 2017).
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import librosa
import numpy as np

from realaudio_jax.metrics.embedders.base import Embedder
from realaudio_jax.typing import Array, Float, PyTree

SAMPLE_RATE = 16_000  # Hz
FRAME, HOP, N_FFT = 400, 160, 512  # samples: 25 ms, 10 ms
BANDS, PATCH_FRAMES, PATCH_HOP = 64, 96, 48  # mel bands; frames per patch and between patches
WINDOW = (PATCH_FRAMES - 1) * HOP + FRAME  # 15600 samples behind one patch
DIMENSION, CLASSES = 1024, 521
WEIGHTS, NAMES = 'yamnet_coral_int8.npz', 'yamnet_class_names_521.json'
LAYERS = 27
STRIDE_2 = {0, 3, 7, 11, 23}
# Quantisation grids of the tflite file: ReLU6 outputs span 0..6 in 255 steps, layer 22 fewer.
INPUT_STEP, INPUT_ZERO = 0.04778895899653435, 17
STEP, STEP_22 = 6 / 255, 0.02195238508284092
EMBEDDING_STEP = 0.023313090205192566
LOGIT_STEP, LOGIT_ZERO = 0.3081279695034027, 100


@dataclasses.dataclass(frozen=True)
class Yamnet:
    """Loaded weights.

    Attributes:
        params: float32 arrays by layer: conv [9 out] or [in out], dw [3 3 C], fc, each with b.
        class_names: of the 521 scores; empty where the folder has none.
        digest: first 8 hex digits of the SHA-256 of the weights file.
    """

    params: PyTree
    class_names: tuple[str, ...]
    digest: str


def load_yamnet(weights_dir: str | os.PathLike) -> Yamnet:
    """Reads and dequantises the weights in a folder.

    Raises:
        FileNotFoundError: the folder or its weights file is absent.
        ValueError: an array is missing from the file.
    """
    folder = pathlib.Path(weights_dir)
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(
            f'YAMNet weights not found at {path}: name the folder that holds {WEIGHTS}'
        )
    data = path.read_bytes()
    with np.load(path, allow_pickle=False) as arrays:
        try:
            params = {name: _dequantise(arrays, name) for name in _layer_names()}
        except KeyError as error:
            raise ValueError(f'{path} is not a YAMNet file: {error.args[0]}') from error
    names = folder / NAMES
    class_names = tuple(json.loads(names.read_text())) if names.is_file() else ()
    return Yamnet(params, class_names, hashlib.sha256(data).hexdigest()[:8])


def yamnet(weights_dir: str | os.PathLike, activations: str = 'int8') -> Embedder:
    """YAMNet as an embedder: [B S] at 16 kHz to [B patches 1024], a patch each 0.48 s.

    Args:
        weights_dir: folder of the weights.
        activations: 'int8' as in the published network, or 'float32'.

    Raises:
        FileNotFoundError: the folder has no YAMNet weights.
    """
    model = load_yamnet(weights_dir)
    return Embedder(
        name=f'YAMNet (Coral {activations}, {model.digest})',
        sample_rate=SAMPLE_RATE,
        dimension=DIMENSION,
        window_s=WINDOW / SAMPLE_RATE,
        hop_s=PATCH_HOP * HOP / SAMPLE_RATE,
        licence='Apache-2.0',
        embed=lambda audio: embed_audio(model.params, jnp.asarray(audio), activations)[0],
        class_names=model.class_names,
        class_scores=lambda vectors: np.asarray(scores(model.params, vectors, activations)),
    )


@functools.partial(jax.jit, static_argnames='activations')
def embed_audio(
    params: PyTree, audio: Float[Array, 'B S'], activations: str = 'int8'
) -> tuple[Float[Array, 'B N 1024'], Float[Array, 'B N 521']]:
    """Embeddings and class scores (0 to 1) of mono audio at 16 kHz, one per patch.

    Args:
        params: `Yamnet.params`.
        audio: [B S] in [-1, 1], S at least 15600.
        activations: 'int8' or 'float32'.

    Returns:
        Embeddings [B N 1024] and scores [B N 521], N = 1 + (S - 15600) // 7680.
    """
    patches = log_mel_patches(audio)
    batch, count = patches.shape[:2]
    flat = patches.reshape(batch * count, PATCH_FRAMES, BANDS)
    embedding, scores = forward(params, flat, activations)
    return embedding.reshape(batch, count, -1), scores.reshape(batch, count, -1)


def log_mel_patches(audio: Float[Array, 'B S']) -> Float[Array, 'B N 96 64']:
    """Patches of ln(mel + 0.001), mel of the magnitude spectrum, frames of 25 ms each 10 ms."""
    samples = audio.shape[1]
    if samples < WINDOW:
        raise ValueError(f'YAMNet needs at least {WINDOW} samples at 16 kHz, got {samples}')
    patches = 1 + (samples - WINDOW) // (PATCH_HOP * HOP)
    frames = PATCH_FRAMES + (patches - 1) * PATCH_HOP
    index = np.arange(frames)[:, None] * HOP + np.arange(FRAME)[None, :]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
    framed = audio[:, index] * jnp.asarray(window, audio.dtype)[None, None, :]
    magnitude = jnp.abs(jnp.fft.rfft(framed, N_FFT))
    log_mel = jnp.log(magnitude @ _mel_basis() + 0.001)
    which = np.arange(patches)[:, None] * PATCH_HOP + np.arange(PATCH_FRAMES)[None, :]
    return log_mel[:, which]


@functools.partial(jax.jit, static_argnames='activations')
def forward(
    params: PyTree, patches: Float[Array, 'N 96 64'], activations: str = 'int8'
) -> tuple[Float[Array, 'N 1024'], Float[Array, 'N 521']]:
    """Embeddings (mean over time and frequency of the last layer) and sigmoid class scores.

    Raises:
        ValueError: `activations` is neither 'int8' nor 'float32'.
    """
    rounded = _rounding(activations)
    x = rounded(patches[..., None], INPUT_STEP, INPUT_ZERO)
    for layer, name in enumerate(_layer_names()[:LAYERS]):
        weight, bias = params[name]['w'], params[name]['b']
        stride = 2 if layer in STRIDE_2 else 1
        if layer == 0:
            x = jnp.concatenate(_shifted(x, stride), axis=-1) @ weight
        elif name.endswith('dw'):
            taps = weight.reshape(9, 1, 1, 1, -1)
            shifts = zip(_shifted(x, stride), taps, strict=True)
            x = functools.reduce(jnp.add, (value * tap for value, tap in shifts))
        else:
            x = x @ weight
        x = jnp.clip(x + bias[None, None, None, :], 0, 6)
        x = rounded(x, STEP_22 if layer == 22 else STEP)
    embedding = rounded(x.mean((1, 2)), EMBEDDING_STEP)
    return embedding, scores(params, embedding, activations)


def scores(
    params: PyTree, embeddings: Float[Array | np.ndarray, 'N 1024'], activations: str = 'int8'
) -> Float[Array, 'N 521']:
    """Sigmoid class scores of embeddings, as `forward` gives them."""
    logits = jnp.asarray(embeddings) @ params['27_fc']['w'] + params['27_fc']['b'][None, :]
    return jax.nn.sigmoid(_rounding(activations)(logits, LOGIT_STEP, LOGIT_ZERO))


def _rounding(activations):
    if activations not in ('int8', 'float32'):
        raise ValueError(f"activations must be 'int8' or 'float32', not {activations!r}")
    return _round_to_grid if activations == 'int8' else lambda x, step, zero=-128: x


def _round_to_grid(x, step, zero=-128):
    """The value an 8-bit tensor of this step and zero point would hold."""
    return (jnp.clip(jnp.round(x / step) + zero, -128, 127) - zero) * step


def _shifted(x, stride):
    """The nine shifts of a 3x3 neighbourhood under SAME padding, each [N H' W' C].

    Sums of shifted products run several times faster than a grouped convolution on CPU.
    """
    pads = []
    for size in x.shape[1:3]:
        total = max((-(-size // stride) - 1) * stride + 3 - size, 0)
        pads.append((total // 2, total - total // 2))
    height, width = (-(-size // stride) for size in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), pads[0], pads[1], (0, 0)))
    return [
        x[:, i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride]
        for i in range(3)
        for j in range(3)
    ]


@functools.cache
def _mel_basis():
    """Triangles of unit height on the HTK mel scale from 125 to 7500 Hz, [257 64].

    Their sides are straight in mel, as TensorFlow draws them and YAMNet was trained; librosa's are
    straight in Hz, which moves one embedding value in fifty by a step of the 8-bit grid.
    """
    mel = librosa.hz_to_mel(np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE), htk=True)[:, None]
    edges = librosa.hz_to_mel(np.array([125.0, 7500.0]), htk=True)
    corners = np.linspace(*edges, BANDS + 2)[None, :]
    left, peak, right = corners[:, :-2], corners[:, 1:-1], corners[:, 2:]
    rising, falling = (mel - left) / (peak - left), (right - mel) / (right - peak)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


@functools.cache
def _layer_names():
    convolutions = [f'{i:02d}_{"dw" if i % 2 else "conv"}' for i in range(LAYERS)]
    return [*convolutions, '27_fc']


def _dequantise(arrays, name):
    weight = arrays[f'{name}/w_int8'].astype(np.float32)
    scale = arrays[f'{name}/w_scale']
    if name.endswith('dw'):  # 1HWC -> [3 3 C]
        weight = weight[0] * scale[None, None, :]
    else:  # O... -> [... O], with the taps of the first convolution in row order
        weight = (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).reshape(len(weight), -1).T
    return {'w': jnp.asarray(weight), 'b': jnp.asarray(arrays[f'{name}/b'])}
