"""basic-pitch: probabilities of notes and of their onsets, for the timing of music.

A port of Bittner et al. 2022 (arXiv 2203.09893) that reads the published nmp.onnx as it is: a
constant-Q transform of nine octaves by one octave's filters and repeated halving of the rate,
stacked at its harmonics, and six convolutions. Against onnxruntime: within 1e-4.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.metrics.ports.frontends import cut
from realaudio_jax.metrics.ports.onnx import read_initializers
from realaudio_jax.metrics.ports.weights import digest, find_weights, fit
from realaudio_jax.typing import Array, Float, PyTree

LICENCE = 'Apache-2.0'
SOURCE = 'github.com/spotify/basic-pitch, nmp.onnx'
SAMPLE_RATE, WINDOW, HOP = 22_050, 43_844, 256  # Hz, samples of a window and between frames
FRAMES, OVERLAP = 172, 30  # frames of a window; half of the overlap is dropped at either end
OCTAVES, TAPS, BINS, CONTOURS = 9, 256, 309, 264
NOTES, LOWEST = 88, 21  # piano keys; MIDI number of the first
# Bins from the fundamental to the half, 2nd .. 7th harmonic, three bins a semitone.
HARMONICS = (-36, 0, 36, 57, 72, 84, 93, 101)
WEIGHTS = 'nmp.onnx'

# Kernel, the layer that names its bias, and strides and padding over time and frequency.
LAYERS = {
    'contour_1': ('const_fold_opt__727', 'conv2d_1', (1, 1), ((1, 1), (19, 19))),
    'contour_2': ('const_fold_opt__710', 'contours-reduced', (1, 1), ((2, 2), (2, 2))),
    'note_1': ('const_fold_opt__738', 'conv2d_2', (1, 3), ((3, 3), (2, 2))),
    'note_2': ('const_fold_opt__702', 'conv2d_3', (1, 1), ((3, 3), (1, 1))),
    'onset_1': ('const_fold_opt__707', 'conv2d_4', (1, 3), ((2, 2), (1, 1))),
    'onset_2': ('const_fold_opt__680', 'conv2d_5', (1, 1), ((1, 1), (1, 1))),
}
KERNELS = {  # height (time), width (frequency), in, out
    'contour_1': (3, 39, 8, 8),
    'contour_2': (5, 5, 8, 1),
    'note_1': (7, 7, 1, 32),
    'note_2': (7, 3, 32, 1),
    'onset_1': (5, 5, 8, 32),
    'onset_2': (3, 3, 33, 1),
}
ARRAYS = {
    'real': ('const_fold_opt__655', (36, TAPS)),
    'imaginary': ('const_fold_opt__664', (36, TAPS)),
    'lowpass': ('const_fold_opt__734', (TAPS,)),
    'gain': ('cq_t2010v2_1/Sqrt', (BINS,)),
    'norm_scale': ('batch_normalization/FusedBatchNormV3', ()),
    'norm_bias': ('batch_normalization/FusedBatchNormV31', ()),
}


def load_basic_pitch(weights_dir: str | os.PathLike) -> tuple[PyTree, str]:
    """The network's arrays and the first 8 hex digits of their file's SHA-256.

    Raises:
        FileNotFoundError: the folder has no nmp.onnx.
        ValueError: the file is damaged or of another network; every mismatch is listed.
    """
    path = find_weights(weights_dir, (WEIGHTS,), 'basic-pitch')
    tensors = {_short(name): array for name, array in read_initializers(path).items()}
    shapes = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, (_, shape) in ARRAYS.items()}
    for layer, shape in KERNELS.items():
        shapes[layer] = {
            'kernel': jax.ShapeDtypeStruct(shape, np.float32),
            'bias': jax.ShapeDtypeStruct(shape[-1:], np.float32),
        }
    # The rest of the graph's constants are shapes, slices and paddings.
    wanted = {name for name in tensors if tensors[name].dtype == np.float32}
    floats = {name: tensors[name] for name in wanted if tensors[name].size > 1}
    floats |= {name: tensors[name] for name in wanted if 'Norm' in name or 'BiasAdd' in name}
    params = fit(floats, shapes, f'{path} as basic-pitch', r'cq_t2010v2_1/conv1d_25', _source)
    return params, digest(path)


@jax.jit
def window_probabilities(
    params: PyTree, audio: Float[Array, 'B S']
) -> tuple[Float[Array, 'B N 264'], Float[Array, 'B N 88'], Float[Array, 'B N 88']]:
    """Contours, notes and onsets, 172 frames of windows of 43844 samples, 0 to 1."""
    level = _normalised_log(_constant_q_power(params, audio))
    x = level * params['norm_scale'] + params['norm_bias']
    x = jnp.stack([_shift(x, bins)[..., :CONTOURS] for bins in HARMONICS], -1)
    contour = jax.nn.sigmoid(_conv(params, 'contour_2', jax.nn.relu(_conv(params, 'contour_1', x))))
    note = jax.nn.sigmoid(_conv(params, 'note_2', jax.nn.relu(_conv(params, 'note_1', contour))))
    onset = jnp.concatenate([note, jax.nn.relu(_conv(params, 'onset_1', x))], -1)
    onset = jax.nn.sigmoid(_conv(params, 'onset_2', onset))
    return contour[..., 0], note[..., 0], onset[..., 0]


def probabilities(
    params: PyTree, audio: Float[np.ndarray, 'S']
) -> tuple[Float[np.ndarray, 'N 88'], Float[np.ndarray, 'N 88'], Float[np.ndarray, 'N']]:
    """Notes and onsets of a whole clip, and the time of each frame in s.

    Windows overlap by 30 frames, of which 15 are dropped at either end, as in the original. Times
    are those of the frames' middles within their windows; the original's estimate drifts.

    Args:
        params: of `load_basic_pitch`.
        audio: mono at 22.05 kHz in [-1, 1].
    """
    half = OVERLAP // 2
    step = WINDOW - OVERLAP * HOP
    padded = np.pad(np.asarray(audio, np.float32), (half * HOP, WINDOW))
    notes, onsets, times = [], [], []
    for start in range(0, len(audio) + half * HOP, step):
        _, note, onset = window_probabilities(params, padded[None, start : start + WINDOW])
        keep = slice(half, FRAMES - half)
        notes.append(np.asarray(note)[0, keep])
        onsets.append(np.asarray(onset)[0, keep])
        times.append((start + np.arange(FRAMES - OVERLAP) * HOP) / SAMPLE_RATE)
    time = np.concatenate(times)
    inside = time * SAMPLE_RATE < len(audio)
    return np.concatenate(notes)[inside], np.concatenate(onsets)[inside], time[inside]


def note_onsets(
    params: PyTree, audio: Float[np.ndarray, 'S'], threshold: float = 0.5
) -> list[tuple[float, int]]:
    """(time in s, MIDI number) of each onset: a local maximum in time that reaches `threshold`."""
    _, onset, time = probabilities(params, audio)
    before = np.pad(onset, ((1, 0), (0, 0)))[:-1]
    after = np.pad(onset, ((0, 1), (0, 0)))[1:]
    frames, keys = np.nonzero((onset >= threshold) & (onset > before) & (onset >= after))
    return [(float(time[n]), int(k) + LOWEST) for n, k in zip(frames, keys, strict=True)]


def _constant_q_power(params, x):
    """[B 172 309], lowest bin first: each octave by the same filters, at half the rate."""
    octaves = []
    for octave in range(OCTAVES):
        frames = cut(jnp.pad(x, ((0, 0), (128, 128)), mode='reflect'), TAPS, HOP >> octave)
        octaves.insert(
            0,
            jnp.square(frames @ params['real'].T) + jnp.square(frames @ params['imaginary'].T),
        )
        if octave + 1 < OCTAVES:
            x = cut(jnp.pad(x, ((0, 0), (127, 127))), TAPS, 2) @ params['lowpass']
    power = jnp.concatenate(octaves, -1)[..., -BINS:]
    return power * jnp.square(params['gain'])[None, None]


def _normalised_log(power):
    """Decibels, stretched to 0 .. 1 over the window; zero where all are equal."""
    level = 10 * jnp.log10(power + 1e-10)
    level = level - level.min((1, 2), keepdims=True)
    peak = level.max((1, 2), keepdims=True)
    return jnp.where(peak > 0, level / jnp.where(peak > 0, peak, 1), 0)


def _shift(x, bins):
    """Bin i of the result is bin i + `bins`, zero beyond the ends."""
    if bins < 0:
        return jnp.pad(x[..., :bins], ((0, 0), (0, 0), (-bins, 0)))
    return jnp.pad(x[..., bins:], ((0, 0), (0, 0), (0, bins)))


def _conv(params, layer, x):
    _, _, strides, padding = LAYERS[layer]
    x = jax.lax.conv_general_dilated(
        x, params[layer]['kernel'], strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    return x + params[layer]['bias'].reshape(1, 1, 1, -1)


@functools.cache
def _short(name: str) -> str:
    """The file joins all names a constant once had: of a bias, the layer; of others, the last."""
    parts = [part.removeprefix('model_1/') for part in name.split(';')]
    for part in parts:
        if part.endswith('BiasAdd/ReadVariableOp'):
            return part
    return parts[-1]


def _source(path):
    if path in ARRAYS:
        name, shape = ARRAYS[path]
        return (name,), lambda x: x.reshape(shape)
    layer, leaf = path.split('/')
    kernel, owner, _, _ = LAYERS[layer]
    if leaf == 'kernel':
        return (kernel,), lambda x: x
    return (f'{owner}/BiasAdd/ReadVariableOp',), lambda x: x
