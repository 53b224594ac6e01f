"""Curves of a sound, one value in each latent frame: what a model can be asked to follow.

Brightness is the spectral centroid, pitch the fundamental frequency; both in Hz, both with a mask
that says where the sound has one. They cost no labels: they are computed from the audio. In
training they are smoothed by random median filters, so that a drawn sketch serves as well as a
measured curve (Sketch2Sound, arXiv 2412.08550, section 3.2).
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft

from realaudio_jax.io import resample
from realaudio_jax.models.denoiser import octaves
from realaudio_jax.timeline import CURVES
from realaudio_jax.typing import LATENT_RATE, SAMPLE_RATE, Array, Bool, Float, Key, PyTree

Curve = tuple[Float[np.ndarray, ' L'], Bool[np.ndarray, ' L']]  # Hz, and where there is one

FLOOR_DBFS = -60.0  # a frame below it has neither brightness nor pitch
MEDIAN_WIDTHS = (1, 5, 11, 25)  # frames, of the random filters: up to a second
HOP = SAMPLE_RATE // LATENT_RATE  # samples
_WINDOW = 2 * HOP
_PITCH_RATE, _PITCH_WINDOW_S = 16_000, 0.064
_APERIODICITY = 0.12  # of YIN, below which a frame is a tone
_CONFIDENT = 0.5  # of CREPE


def _frames(audio: np.ndarray, hop: int, window: int, centre: int | None = None) -> np.ndarray:
    """Windows [L, window] whose sample `centre` is the middle of their frame of `hop` samples."""
    count = len(audio) // hop
    before = (window // 2 if centre is None else centre) - hop // 2
    padded = np.pad(audio[: count * hop], (before, window - hop - before))
    return np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][:count]


def brightness(audio: Float[np.ndarray, 'S 2']) -> Curve:
    """Spectral centroid of the middle channel, sum f P(f) / sum P(f) over 80 ms Hann windows.

    Args:
        audio: at 48 kHz; what does not fill a latent frame is left out.

    Returns:
        Hz, and True where a frame is louder than `FLOOR_DBFS`.
    """
    frames = _frames(np.asarray(audio, np.float32).mean(axis=1), HOP, _WINDOW)
    power = np.abs(scipy.fft.rfft(frames * np.hanning(_WINDOW).astype(np.float32), axis=1)) ** 2
    hertz = np.fft.rfftfreq(_WINDOW, 1 / SAMPLE_RATE).astype(np.float32)
    total = power.sum(axis=1)
    return power @ hertz / np.maximum(total, 1e-20), _loud(frames)


def _loud(frames: np.ndarray) -> Bool[np.ndarray, ' L']:
    return np.square(frames).mean(axis=1) > 10 ** (FLOOR_DBFS / 10)


def pitch(audio: Float[np.ndarray, 'S 2'], crepe_params: PyTree | None = None) -> Curve:
    """Fundamental frequency of the middle channel.

    Without CREPE's weights by YIN (de Cheveigne & Kawahara 2002, steps 2 to 5, 64 ms windows),
    which is right for a single tone and silent on most mixtures.

    Args:
        audio: at 48 kHz.
        crepe_params: of `metrics.embedders.crepe.load_crepe`; None is YIN.

    Returns:
        Hz, and True where a frame is a tone louder than `FLOOR_DBFS`.
    """
    mono = np.asarray(audio, np.float32).mean(axis=1)
    mono = resample(mono[: len(mono) // HOP * HOP], SAMPLE_RATE, _PITCH_RATE)
    hop = _PITCH_RATE // LATENT_RATE
    window = round(_PITCH_WINDOW_S * _PITCH_RATE)
    loud = _loud(_frames(mono, hop, window))
    if crepe_params is None:
        hertz, aperiodicity = _yin(_frames(mono, hop, 2 * window, window // 2), window)
        tonal = aperiodicity < _APERIODICITY
    else:
        from realaudio_jax.metrics.embedders import crepe

        # its frames are centred on whole hops, these on the middles between two
        late = np.pad(mono[hop // 2 :], (0, hop // 2))
        found, sure = crepe.pitch(crepe_params, jnp.asarray(late)[None], hop)
        hertz, tonal = np.asarray(found[0])[: len(loud)], np.asarray(sure[0])[: len(loud)]
        tonal = tonal > _CONFIDENT
    low, high = CURVES['pitch']
    return hertz.astype(np.float32), tonal & loud & (hertz >= low) & (hertz <= high)


def _yin(frames: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """(Hz, aperiodicity) of the first half of frames [L, 2 window], lags up to `window`."""
    frames = frames.astype(np.float64)
    size = scipy.fft.next_fast_len(3 * window, real=True)
    head = scipy.fft.rfft(frames[:, :window], size, axis=1)
    products = scipy.fft.irfft(scipy.fft.rfft(frames, size, axis=1) * head.conj(), size, axis=1)
    energy = np.cumsum(np.pad(np.square(frames), ((0, 0), (1, 0))), axis=1)
    energy = energy[:, window : 2 * window] - energy[:, :window]
    difference = energy[:, :1] + energy - 2 * products[:, :window]  # equation 7
    difference = np.maximum(difference, 0.0)
    lags = np.arange(1, window)
    mean = np.cumsum(difference[:, 1:], axis=1) / lags
    normal = np.ones_like(difference)
    normal[:, 1:] = difference[:, 1:] / np.maximum(mean, 1e-12)  # equation 8
    shortest = 4  # lags: 4 kHz
    inner = normal[:, shortest:-1]
    dips = (inner <= normal[:, shortest - 1 : -2]) & (inner < normal[:, shortest + 1 :])
    deep = dips & (inner < _APERIODICITY)
    best = np.where(deep.any(axis=1), deep.argmax(axis=1), inner.argmin(axis=1)) + shortest
    rows = np.arange(len(frames))
    a, b, c = (normal[rows, best + i] for i in (-1, 0, 1))
    bend = a - 2 * b + c
    shift = np.where(bend > 1e-12, 0.5 * (a - c) / np.where(bend > 1e-12, bend, 1.0), 0.0)
    return _PITCH_RATE / (best + np.clip(shift, -0.5, 0.5)), b


EXTRACT: Mapping[str, Callable[..., Curve]] = {'brightness': brightness, 'pitch': pitch}


def curve_arrays(
    audio: Float[np.ndarray, 'S 2'], names: tuple[str, ...], crepe_params: PyTree | None = None
) -> dict[str, np.ndarray]:
    """The curves of a sound as a batch holds them.

    Args:
        audio: at 48 kHz.
        names: of `CURVES`, in the order of the denoiser's.
        crepe_params: see `pitch`.

    Returns:
        curves float32 [L, K], octaves above 1 kHz, and curve_mask bool [L, K].

    Raises:
        ValueError: a name that is no curve.
    """
    unknown = sorted(set(names) - set(EXTRACT))
    if unknown:
        raise ValueError(f'no curve {unknown[0]!r}: there are {", ".join(EXTRACT)}')
    found = [
        pitch(audio, crepe_params) if name == 'pitch' else EXTRACT[name](audio) for name in names
    ]
    hertz, masks = (np.stack(part, axis=1) for part in zip(*found, strict=True))
    return {
        'curves': np.where(masks, octaves(np.maximum(hertz, 1.0)), 0.0).astype(np.float32),
        'curve_mask': masks,
    }


def running_median(
    curve: Float[Array, 'B L'], mask: Bool[Array, 'B L'], width: int
) -> Float[Array, 'B L']:
    """Median over `width` frames about each frame, of those that the mask marks; others stay 0.

    Args:
        curve: values.
        mask: where there are some.
        width: frames, odd.
    """
    half = width // 2
    marked = jnp.pad(
        jnp.where(mask, curve, jnp.nan), ((0, 0), (half, half)), constant_values=jnp.nan
    )
    windows = jnp.stack([marked[:, i : i + curve.shape[1]] for i in range(width)], axis=-1)
    return jnp.where(mask, jnp.nan_to_num(jnp.nanmedian(windows, axis=-1)), 0.0)


def random_median(
    key: Key[Array, ''], curve: Float[Array, 'B L'], mask: Bool[Array, 'B L']
) -> Float[Array, 'B L']:
    """Each item's curve through a median filter of a width drawn from `MEDIAN_WIDTHS`; pure."""
    filtered = [running_median(curve, mask, width) for width in MEDIAN_WIDTHS]
    chosen = jax.random.randint(key, (len(curve),), 0, len(MEDIAN_WIDTHS))
    picked = functools.reduce(
        lambda kept, i: jnp.where((chosen == i)[:, None], filtered[i], kept),
        range(1, len(MEDIAN_WIDTHS)),
        filtered[0],
    )
    return picked
