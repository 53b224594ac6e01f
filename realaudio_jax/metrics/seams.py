"""Seams in long sound: whether it changes more at certain times than it does elsewhere.

Two measures of the middle of both channels. Flux, of the magnitudes A of frames of 2,048 samples,

    F[i] = sum over bins of |A[i + 1] - A[i]|,        i every 512 samples,                    (1)

is a click's or a sudden change of texture's; at a seam it is the largest within 20 ms, over the
median of the whole sound. The step is slower: the mean over 128 mel bands of the difference in dB
between the mean powers of the quarter seconds before and after. Neither is 0 where there is no
seam, because sound changes: compare with times of an uncut sound of the same kind.
"""

from collections.abc import Sequence

import numpy as np
import scipy.fft

from realaudio_jax.models.band_levels import BANDS, bin_to_band
from realaudio_jax.typing import Float

STEP_S = 0.25  # on either side of a seam
NEAR_S = 0.02  # of a seam
_SIZE, _HOP = 2048, 512
_FLOOR_DB = -60.0  # below the loudest band, where nothing is heard


def seam_flux(
    audio: Float[np.ndarray, 'S *A'],
    sample_rate: int,
    seams_s: Sequence[float] | Float[np.ndarray, 'N'],
) -> Float[np.ndarray, 'N']:
    """Largest flux (1) within 20 ms of each seam over the median flux of the sound.

    Args:
        audio: [S] or [S A].
        sample_rate: Hz.
        seams_s: times of the seams, s.

    Raises:
        ValueError: the sound is shorter than two frames, or silent for half of its time.
    """
    power = _spectra(audio, _SIZE, _HOP)
    flux = np.abs(np.diff(np.sqrt(power), axis=0)).sum(axis=1)
    median = np.median(flux) if len(flux) else 0.0
    if median <= 0:
        raise ValueError('no flux to compare with: the sound is too short, or silent')
    middle = (np.arange(len(flux)) * _HOP + (_SIZE + _HOP) / 2) / sample_rate
    near = np.abs(middle[None] - np.asarray(seams_s)[:, None]) <= NEAR_S
    return np.max(np.where(near, flux[None], 0.0), axis=1) / median


def spectral_step(
    audio: Float[np.ndarray, 'S *A'],
    sample_rate: int,
    seams_s: Sequence[float] | Float[np.ndarray, 'N'],
) -> Float[np.ndarray, 'N']:
    """Difference in dB between the quarter seconds on either side of each seam.

    Args:
        audio, sample_rate, seams_s: see `seam_flux`; seams lie a quarter of a second inside.

    Raises:
        ValueError: one does not.
    """
    count = round(STEP_S * sample_rate)
    size = sample_rate // 25  # bins of 25 Hz
    position = bin_to_band(np.arange(size // 2 + 1) * (sample_rate / size / 25))
    bands = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(BANDS)[None]))
    steps = []
    for seam in seams_s:
        middle = round(seam * sample_rate)
        if middle < count or middle + count > len(audio):
            raise ValueError(f'{seam:g} s is not {STEP_S:g} s inside of the sound')
        sides = [
            _spectra(side, size, size // 4).mean(axis=0) @ bands
            for side in (audio[middle - count : middle], audio[middle : middle + count])
        ]
        floor = max(side.max() for side in sides) * 10 ** (_FLOOR_DB / 10) + 1e-20
        steps.append(np.mean(np.abs(10 * np.log10((sides[1] + floor) / (sides[0] + floor)))))
    return np.array(steps)


def _spectra(audio: np.ndarray, size: int, hop: int) -> Float[np.ndarray, 'N K']:
    """Power spectra of the middle of both channels in Hann windows."""
    mono = np.asarray(audio, np.float32).reshape(len(audio), -1).mean(axis=1)
    if len(mono) < size:
        return np.zeros((0, size // 2 + 1), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(mono, size)[::hop]
    spectrum = scipy.fft.rfft(frames * np.float32(np.hanning(size)), axis=1)
    return np.square(np.abs(spectrum))
