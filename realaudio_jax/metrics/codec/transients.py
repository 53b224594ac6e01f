"""Attacks of an original: when they come in another sound, and what is heard ahead of them."""

import numpy as np
import scipy.signal

from realaudio_jax.metrics.onsets import onset_errors
from realaudio_jax.typing import Array, Float

AnyArray = np.ndarray | Array

BEFORE_MS, AFTER_MS = 20, 10  # compared at an attack
RISE_DB = 20.0
APART_MS = 250
FLOOR_DB = 60.0  # energy ahead of an attack further below it counts as none


def attacks(audio: Float[AnyArray, 'S *A'], sample_rate: int) -> Float[np.ndarray, 'E']:
    """Times in s at which 10 ms are at least 20 dB louder than the 20 ms before; 0.25 s apart."""
    total = np.concatenate([[0.0], np.cumsum(_milliseconds(audio, sample_rate))])
    times = np.arange(BEFORE_MS, len(total) - AFTER_MS)
    if not times.size:
        return np.zeros(0)
    before = (total[times] - total[times - BEFORE_MS]) / BEFORE_MS
    after = (total[times + AFTER_MS] - total[times]) / AFTER_MS
    rise = 10 * np.log10((after + 1e-10) / (before + 1e-10))
    # one more on either side, or an attack at the first or last of them would be no peak
    peaks, _ = scipy.signal.find_peaks(
        np.pad(rise, 1, constant_values=-np.inf), height=RISE_DB, distance=APART_MS
    )
    return times[peaks - 1] * 1e-3


def energy_before_attacks(
    original: Float[AnyArray, 'S *A'], other: Float[AnyArray, 'S *A'], sample_rate: int
) -> Float[np.ndarray, 'E']:
    """Energy of the 20 ms ahead of each attack of the original, over the original's, in dB.

    What lies more than 60 dB below the 10 ms after the attack counts as being there: nobody hears
    it ahead of such an attack.
    """
    before, after = (_milliseconds(x, sample_rate) for x in (original, other))
    found = []
    for time in attacks(original, sample_rate):
        k = round(time * 1e3)
        floor = before[k : k + AFTER_MS].mean() * 10 ** (-FLOOR_DB / 10)
        old, new = (max(x[k - BEFORE_MS : k].mean(), floor) for x in (before, after))
        found.append(10 * np.log10(new / old))
    return np.array(found, np.float64)


def attack_errors(
    original: Float[AnyArray, 'S *A'], other: Float[AnyArray, 'S *A'], sample_rate: int
) -> Float[np.ndarray, 'E']:
    """How much later each attack comes in the other sound, in ms; NaN where it is missing.

    Both are timed by `events.onset_errors`, so that its own error is in neither.
    """
    times = attacks(original, sample_rate)
    before, after = (onset_errors(x, sample_rate, times) for x in (original, other))
    return after - before


def _milliseconds(audio, sample_rate):
    """Mean square over all channels of each whole millisecond."""
    power = np.square(np.asarray(audio, np.float64)).reshape(len(audio), -1).mean(1)
    bounds = np.round(np.arange(0, len(power) * 1e3 / sample_rate + 1e-9) * sample_rate / 1e3)
    bounds = bounds.astype(int)
    return np.add.reduceat(power, bounds[:-1]) / np.diff(bounds) if len(bounds) > 1 else power[:0]
