"""Onset and offset errors of requested events, and sound that was not requested.

Onsets are those of `events`. An offset is the last time at which a sound stands out within 250 ms
of the requested one: in some octave band above both

    the bed + 3 dB + 4 s_b,   the loudest millisecond of the event - 45 dB               (1)

with the bed the quietest 10 ms of that stretch, s_b the standard deviation of a band's level on
stationary noise (as in `events`; none where the bed is silence), and the filters run backwards in
time, so that nothing rings on after the sound. The mixer sets the offsets of scenes by the same
45 dB. An offset under another requested sound, or within 50 ms of the next onset, cannot be heard
and is not judged. Over a bed a decay is lost before its end, so compare with the row of real
scenes, where the truth is known and the rest is this measurement's own error.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.ndimage
import scipy.signal

from realaudio_jax.metrics.events import SEARCH_S, SIDE, band_energy, envelope_onset_errors, rises
from realaudio_jax.timeline import Event
from realaudio_jax.typing import Array, Float

AnyArray = np.ndarray | Array

DOWN_DB, ABOVE_BED_DB = 45.0, 3.0
SMOOTH = 10  # blocks of 1 ms
CLEAR_S = 0.05  # between an offset and the next sound, for the offset to be judged
SPURIOUS_DB = 10.0  # rise of an onset that nobody asked for
TAIL_S = 0.1  # after a requested offset, before an onset counts as one
OUTSIDE_FLOOR_DB = -60.0
LEAD_COLLAR_MS = 40.0  # a latent frame


@dataclasses.dataclass(frozen=True)
class ClipTiming:
    """Onset, offset and extra-sound measures of one clip against its requested events.

    Attributes:
        onset_ms: error of each onset, NaN where it was missed.
        offset_ms: error of each offset that can be judged, NaN where it was missed.
        spurious_s: onsets where none was requested.
        outside_db: energy outside the requested events over all energy, -60 dB and above; NaN
            for a silent sound.
        found: what was found, as events for `detection.event_counts` with offsets left out:
            requested ones under their own label from when they came, since what sounded is not
            judged, and spurious ones without a label.
    """

    onset_ms: Float[np.ndarray, 'E']
    offset_ms: Float[np.ndarray, 'F']
    spurious_s: Float[np.ndarray, 'G']
    outside_db: float
    found: tuple[Event, ...]


def clip_timing(
    audio: Float[AnyArray, 'S *A'], sample_rate: int, events: Sequence[Event]
) -> ClipTiming:
    """Measures the timing of one sound against its requested events.

    Args:
        audio: [S] or [S A] in [-1, 1].
        sample_rate: Hz.
        events: requested, all within the sound.

    Raises:
        ValueError: an onset lies outside the sound, or the sound is not finite.
    """
    energy, bandwidths = band_energy(audio, sample_rate)
    onsets = envelope_onset_errors(energy, bandwidths, [event.onset_s for event in events])
    spurious = _spurious(energy, bandwidths, events)
    found = [
        dataclasses.replace(event, onset_s=event.onset_s + error * 1e-3)
        for event, error in zip(events, onsets, strict=True)
        if not np.isnan(error)
    ]
    found += [Event('', time, time + 0.1) for time in spurious]
    backwards = band_energy(np.asarray(audio)[::-1], sample_rate)[0][::-1]
    offsets = _offset_errors(backwards, bandwidths, events)
    return ClipTiming(onsets, offsets, spurious, _outside(energy, events), tuple(found))


def onset_lead(errors_ms: Float[AnyArray, 'E']) -> float:
    """Seconds by which onsets come early: minus the median of errors that are near zero.

    Errors beyond `LEAD_COLLAR_MS` are other sounds taken for the one requested, and have no say.

    Args:
        errors_ms: of `events.onset_errors`; NaN where an onset was missed.

    Returns:
        Negative where onsets are late on the whole; 0 where none is near its request.
    """
    errors = np.asarray(errors_ms, np.float64)
    near = errors[np.abs(errors) < LEAD_COLLAR_MS]  # NaN is not
    return -float(np.median(near)) / 1000 if near.size else 0.0


def loudness_correlation(
    requested_db: Float[AnyArray, 'L'],
    audio: Float[AnyArray, 'S *A'],
    sample_rate: int,
    floor_db: float = -80.0,
) -> float:
    """Pearson correlation between a requested and a measured loudness curve, in [-1, 1].

    Args:
        requested_db: level in dB at L evenly spaced frames that share the sound among them.
        audio: [S] or [S A] in [-1, 1], at least one sample per frame.
        sample_rate: Hz. Levels are RMS over a frame and its neighbours, smoothed as they would be
            by a meter of 100 ms.
        floor_db: lower levels count as this.

    Returns:
        The correlation; blind to a constant offset and to range. NaN where either curve is flat.
    """
    wanted = np.maximum(np.asarray(requested_db, np.float64), floor_db)
    power = np.square(np.asarray(audio, np.float64).reshape(len(audio), -1)).mean(1)
    bounds = np.round(np.linspace(0, len(power), len(wanted) + 1)).astype(int)
    frames = np.add.reduceat(power, bounds[:-1]) / np.diff(bounds)
    width = max(1, round(0.1 * sample_rate * len(wanted) / len(power)))
    smooth = scipy.ndimage.uniform_filter1d(frames, width, mode='nearest')
    found = np.maximum(10 * np.log10(np.maximum(smooth, 1e-12)), floor_db)
    if np.ptp(wanted) < 1e-9 or np.ptp(found) < 1e-9:
        return float('nan')
    return float(np.corrcoef(wanted, found)[0, 1])


def _offset_errors(energy, bandwidths, events):
    """Measured minus requested offset in ms, for the events whose offset is audible."""
    seconds = len(energy) * 1e-3
    # the mean of each block and those that follow it: the last one above is the last of the sound
    sums = np.concatenate([np.zeros((1, energy.shape[1])), np.cumsum(energy, 0)])
    after = np.minimum(np.arange(len(energy)) + SMOOTH, len(energy))
    smooth = (sums[after] - sums[:-1]) / (after - np.arange(len(energy)))[:, None]
    spread = 10 / np.log(10) * np.sqrt(1 / (bandwidths * SMOOTH * 1e-3))
    silence = energy.min()  # the floor that `band_energy` adds
    above_bed = 10 ** ((ABOVE_BED_DB + 4 * spread) / 10)
    errors = []
    for event in events:
        others = [other for other in events if other is not event]
        if event.offset_s + CLEAR_S > seconds or any(
            other.onset_s < event.offset_s + CLEAR_S and other.offset_s > event.offset_s - CLEAR_S
            for other in others
        ):
            continue
        # ahead of an onset the filters ring, and the mean of a block reaches 10 ms on
        later = [e.onset_s - 0.8 * CLEAR_S for e in others if e.onset_s >= event.offset_s]
        low = max(event.onset_s, event.offset_s - SEARCH_S)
        high = min(seconds, event.offset_s + SEARCH_S, *later)
        first, last = int(low * 1e3), int(high * 1e3)
        stretch = smooth[first:last]
        start = int(event.onset_s * 1e3)
        peak = energy[start : max(start + 1, int(event.offset_s * 1e3))].max(0)
        bed = silence * 10 ** (ABOVE_BED_DB / 10) + (stretch.min(0) - silence) * above_bed
        threshold = np.maximum(peak * 10 ** (-DOWN_DB / 10), bed)
        sounds = np.flatnonzero((stretch > threshold).any(1))
        if not sounds.size or sounds[-1] == len(stretch) - 1:  # never heard, or never ending
            errors.append(np.nan)
        else:
            end = (first + sounds[-1] + 1) * 1e-3
            errors.append((end - event.offset_s) * 1e3)
    return np.array(errors, np.float64)


def _spurious(energy, bandwidths, events):
    """Times of onsets outside every requested event and its surroundings, s."""
    times = np.arange(SIDE, max(SIDE, len(energy) - SIDE))
    if not times.size:
        return np.zeros(0)
    rise, _ = rises(energy, bandwidths, times, energy[:SIDE].mean(0))
    peaks, _ = scipy.signal.find_peaks(rise, height=SPURIOUS_DB, distance=100)
    found = times[peaks] * 1e-3
    for event in events:
        near = (found > event.onset_s - SEARCH_S) & (found < event.offset_s + TAIL_S)
        found = found[~near]
    return found


def _outside(energy, events):
    level = energy.sum(1) - energy.min(0).sum()  # `band_energy` adds a floor to every block
    inside = np.zeros(len(level), bool)
    for event in events:
        inside[int(event.onset_s * 1e3) : int(np.ceil(event.offset_s * 1e3))] = True
    total = level.sum()
    if total <= 0:
        return float('nan')
    return float(10 * np.log10(max(level[~inside].sum() / total, 10 ** (OUTSIDE_FLOOR_DB / 10))))
