"""Where a sound stands between two channels: differences of level and phase, and coherence."""

from typing import NamedTuple

import numpy as np

from realaudio_jax.typing import Array, Float

AnyArray = np.ndarray | Array

WINDOW_S = 0.04  # of a spectrum; hop a quarter
SEGMENT = 20  # spectra that are averaged, 0.2 s
CENTRES_HZ = 1000.0 * 2.0 ** (np.arange(-9, 13) / 3)  # third octaves, 125 Hz to 16 kHz
RANGE_DB = 40.0  # a cell further below the loudest one is left out
PHASE_LIMIT_HZ = 1_500.0  # above it the ear does not follow the phase between channels
PHASE_COHERENCE = 0.5  # below it the phase between channels means nothing
MONO_DB = -40.0  # a side signal further below the mid signal counts as none


class StereoErrors(NamedTuple):
    """Median errors over the third octaves and segments of one sound.

    Attributes:
        level: of the level difference between channels, dB.
        phase: of the phase difference, degrees, up to 1.5 kHz where the original is coherent; NaN
            where nothing is.
        coherence: of the coherence, 0 to 1.
    """

    level: float
    phase: float
    coherence: float


def is_stereo(audio: Float[AnyArray, 'S 2']) -> bool:
    """Whether the side signal is at most 40 dB below the mid signal."""
    mid, side = (np.square(x).sum() for x in _mid_side(audio))
    return bool(side > mid * 10 ** (MONO_DB / 10))


def side(audio: Float[AnyArray, 'S 2']) -> Float[np.ndarray, 'S']:
    """(left - right) / 2: what is lost in mono."""
    return _mid_side(audio)[1].astype(np.float32)


def stereo_errors(
    original: Float[AnyArray, 'S 2'], other: Float[AnyArray, 'S 2'], sample_rate: int
) -> StereoErrors | None:
    """How far level difference, phase difference and coherence of the channels have moved.

    From the averages of L L*, R R* and L R* over each third octave from 125 Hz to 16 kHz and 0.2 s:
    10 log10 (LL* / RR*), arg LR*, and |LR*| / sqrt (LL* RR*). Level differences are limited to
    +-30 dB. Cells of the original more than 40 dB below its loudest one are left out.

    Returns:
        None for an original that is mono (see `is_stereo`).
    """
    if not is_stereo(original):
        return None
    before, after = (_cells(x, sample_rate) for x in (original, other))
    power = before[0] + before[1]
    heard = power >= power.max() * 10 ** (-RANGE_DB / 10)
    level = np.abs(_level_difference(before) - _level_difference(after))[heard]
    coherent = (_coherence(before) >= PHASE_COHERENCE) & heard
    coherent &= (_centres(sample_rate) <= PHASE_LIMIT_HZ)[None]
    turned = np.abs(np.angle(after[2] * np.conj(before[2])))[coherent]
    changed = np.abs(_coherence(before) - _coherence(after))[heard]
    return StereoErrors(
        float(np.median(level)),
        float(np.degrees(np.median(turned))) if turned.size else float('nan'),
        float(np.median(changed)),
    )


def _mid_side(audio):
    left, right = np.asarray(audio, np.float64).T
    return (left + right) / 2, (left - right) / 2


def _centres(sample_rate):
    return CENTRES_HZ[CENTRES_HZ * 2 ** (1 / 6) < sample_rate / 2]


def _cells(audio, sample_rate):
    """Means of L L*, R R* and L R* by segment and third octave, each [segments bands]."""
    n_fft = round(WINDOW_S * sample_rate)
    hop = n_fft // 4
    channels = np.asarray(audio, np.float32).T
    shortage = n_fft + (SEGMENT - 1) * hop - channels.shape[1]
    channels = np.pad(channels, ((0, 0), (0, max(0, shortage))))
    frames = np.lib.stride_tricks.sliding_window_view(channels, n_fft, axis=1)[:, ::hop]
    frames = frames[:, : frames.shape[1] // SEGMENT * SEGMENT]
    hann = np.sin(np.pi * np.arange(n_fft, dtype=np.float32) / n_fft) ** 2
    left, right = np.fft.rfft(frames * hann)
    edges = np.append(
        _centres(sample_rate) * 2 ** (-1 / 6), _centres(sample_rate)[-1] * 2 ** (1 / 6)
    )
    bounds = np.round(edges * n_fft / sample_rate).astype(int)

    def average(products):
        bands = np.add.reduceat(products, bounds, axis=1)[:, :-1] / np.diff(bounds)[None]
        return bands.reshape(-1, SEGMENT, bands.shape[1]).mean(1)

    return (
        average(np.square(np.abs(left))) + 1e-12,
        average(np.square(np.abs(right))) + 1e-12,
        average(left * np.conj(right)),
    )


def _level_difference(cells):
    return np.clip(10 * np.log10(cells[0] / cells[1]), -30.0, 30.0)


def _coherence(cells):
    return np.abs(cells[2]) / np.sqrt(cells[0] * cells[1])
