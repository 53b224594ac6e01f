"""Onset and offset accuracy of requested events, from energy envelopes without a trained detector.

For each requested onset the steepest rise of the sound is sought near the request, in two steps:

1. Coarse. In each octave band b, with R and L the mean energy of the 30 ms after and before a time,

       r_b(t) = 10 log10 (R_b / L_b),   rise(t) = rms over bands of max(0, r_b - 2 s_b)      (1)

   where s_b is the standard deviation of r_b on stationary noise, 10 / ln 10 * sqrt(2 / (B_b W))
   for bandwidth B_b and W = 30 ms. Bands let a chirp be seen over wind that is louder than it, and
   2 s_b keeps the flicker of a noisy bed from passing for an onset.
2. Fine. Within 30 ms of that time, the most likely instant of a change of variance, 1 ms apart:
   the minimum over k of sum_b B_b (k log L_b + (N - k) log R_b), over the bands that rose. It is
   the seismologists' AIC picker (Maeda 1985), which stays sharp in noise where a slope does not.

An event whose rise (1) is below 3 dB counts as missed. What it cannot see: which sound it was, an
onset with no rise of energy in any band, or a louder accident of the bed near the request. A slow
attack is timed where it leaves the bed: later in a louder one (a 20 ms ramp, bed 6 dB down: 10 ms).

An offset is the last time at which a sound stands out within 250 ms of the requested one: in some
octave band above both

    the bed + 3 dB + 4 s_b,   the loudest millisecond of the event - 45 dB               (2)

with the bed the quietest 10 ms of that stretch, s_b as above (none where the bed is silence), and
the filters run backwards in time, so that nothing rings on after the sound. The mixer sets the
offsets of scenes by the same 45 dB. An offset under another requested sound, or within 50 ms of
the next onset, cannot be heard and is not measured. Over a bed a decay is lost before its end, so
compare with the row of real scenes, where the truth is known and the rest is this measurement's
own error.

Over many clips, found events are counted against requested ones as sed_eval 0.2.1 does (Mesaros,
Heittola & Virtanen 2016, "Metrics for polyphonic sound event detection"):

    F = 2 hits / (requested + found).                                                    (3)
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.signal
import scipy.sparse
import scipy.sparse.csgraph

from realaudio_jax.timeline import Event
from realaudio_jax.typing import Array, Float, Int

AnyArray = np.ndarray | Array
Pair = tuple[Sequence[Event], Sequence[Event]]  # requested and found, of one clip

SEARCH_S = 0.25  # an onset is sought this far from the request
SIDE = 30  # blocks of 1 ms compared on each side
MISSED_DB = 3.0
COLLARS_MS = (25, 50, 100, 250)
BAND_EDGES = (180, 355, 710, 1400, 2800, 5600, 11200)  # Hz; below and above are bands too
DYNAMIC_RANGE_DB = 60.0  # energy further below the loudest block counts as silence

DOWN_DB, ABOVE_BED_DB = 45.0, 3.0
SMOOTH = 10  # blocks of 1 ms
CLEAR_S = 0.05  # between an offset and the next sound, for the offset to be measured
SPURIOUS_DB = 10.0  # rise of an onset that nobody asked for
TAIL_S = 0.1  # after a requested offset, before an onset counts as one
OUTSIDE_FLOOR_DB = -60.0


def onset_errors(
    audio: Float[AnyArray, 'S *A'],
    sample_rate: int,
    onsets_s: Sequence[float] | Float[AnyArray, 'E'],
) -> Float[np.ndarray, 'E']:
    """Measured minus requested onset of each event in ms; NaN for a missed event.

    The search covers 250 ms on either side of a request, and ends half way to the request before
    and after it, so that one attack answers one request. Requests within 5 ms count as one.

    Args:
        audio: [S] or [S A] in [-1, 1].
        sample_rate: Hz.
        onsets_s: requested onsets in seconds from the start, in any order.

    Returns:
        Errors in ms, in the order of the requests: positive is late, at most 250 in size.

    Raises:
        ValueError: an onset lies outside the sound, or the sound is not finite.
    """
    return envelope_onset_errors(*band_energy(audio, sample_rate), onsets_s)


def envelope_onset_errors(
    energy: Float[np.ndarray, 'N bands'],
    bandwidths: Float[np.ndarray, 'bands'],
    onsets_s: Sequence[float] | Float[AnyArray, 'E'],
) -> Float[np.ndarray, 'E']:
    """`onset_errors` computed from the band envelopes of `band_energy`."""
    seconds = len(energy) * 1e-3
    onsets = np.asarray(onsets_s, np.float64).reshape(-1)
    for onset in onsets:
        if not 0 <= onset < seconds:
            raise ValueError(f'onset {onset:g} s lies outside the sound of {seconds:g} s')
    errors = np.full(len(onsets), np.nan)
    for i, onset in enumerate(onsets):
        low, high = _search_range(onset, onsets, seconds)
        found = _steepest_rise(energy, bandwidths, onset, low, high)
        if found is not None:
            errors[i] = (found - onset) * 1e3
    return errors


@dataclasses.dataclass(frozen=True)
class OnsetSummary:
    """Onset errors of a set of events.

    Attributes:
        median_ms, p90_ms: of the size of the error, over the events found; NaN when none was.
        bias_ms: median of the signed error; positive is late.
        hit_rate: share of all events, missed ones included, found within each collar in ms.
        missed: share of all events without a rise.
        count: number of events.
    """

    median_ms: float
    p90_ms: float
    bias_ms: float
    hit_rate: dict[int, float]
    missed: float
    count: int


def summarise_onsets(errors_ms: Float[AnyArray, 'E']) -> OnsetSummary:
    """Median, 90th percentile, hit rates at 25, 50, 100 and 250 ms, and the share missed.

    Args:
        errors_ms: errors of `onset_errors`, of any number of clips joined.

    Raises:
        ValueError: there is no event.
    """
    errors = np.asarray(errors_ms, np.float64)
    if not errors.size:
        raise ValueError('no events: an onset error needs at least one request')
    found = errors[~np.isnan(errors)]
    size = np.abs(found)
    median, p90 = np.percentile(size, [50, 90]) if found.size else (np.nan, np.nan)
    return OnsetSummary(
        median_ms=float(median),
        p90_ms=float(p90),
        bias_ms=float(np.median(found)) if found.size else float('nan'),
        hit_rate={c: float((size <= c).sum() / errors.size) for c in COLLARS_MS},
        missed=1 - found.size / errors.size,
        count=errors.size,
    )


def band_energy(
    audio: Float[AnyArray, 'S *A'], rate: int
) -> tuple[Float[np.ndarray, 'N bands'], Float[np.ndarray, 'bands']]:
    """Mean square of each band in blocks of 1 ms, and bandwidths in Hz.

    The filters are causal, so no energy leaks ahead of an onset; their delay stays below 3 ms.

    Raises:
        ValueError: the sound is not finite.
    """
    channels = np.asarray(audio, np.float64).reshape(len(audio), -1)
    if not np.isfinite(channels).all():
        raise ValueError('the sound contains NaN or infinity')
    edges = [e for e in BAND_EDGES if e < 0.45 * rate]
    bounds = np.round(np.arange(0, len(channels) / rate + 1e-9, 1e-3) * rate).astype(int)
    bounds = bounds[bounds < len(channels)]
    lengths = np.diff(np.append(bounds, len(channels)))
    bands = []
    for i in range(len(edges) + 1):
        if i == 0:
            sos = scipy.signal.butter(2, edges[0], 'lowpass', fs=rate, output='sos')
        elif i == len(edges):
            sos = scipy.signal.butter(2, edges[-1], 'highpass', fs=rate, output='sos')
        else:
            sos = scipy.signal.butter(2, edges[i - 1 : i + 1], 'bandpass', fs=rate, output='sos')
        power = (scipy.signal.sosfilt(sos, channels, axis=0) ** 2).sum(1)
        bands.append(np.add.reduceat(power, bounds) / lengths)
    energy = np.stack(bands, 1)
    floor = max(energy.max() * 10 ** (-DYNAMIC_RANGE_DB / 10), 1e-12)
    return energy + floor, np.diff([0, *edges, rate / 2])


@dataclasses.dataclass(frozen=True)
class OnsetAccuracy:
    """Onset and offset errors of one clip, and the sound that nobody asked for.

    Attributes:
        onset_ms: error of each onset, NaN where it was missed.
        offset_ms: error of each offset that can be measured, NaN where it was missed.
        spurious_s: onsets where none was requested.
        outside_db: energy outside the requested events over all energy, -60 dB and above; NaN
            for a silent sound.
        found: what was found, as events for `event_counts` with offsets left out:
            requested ones under their own label from when they came, since what sounded is not
            measured, and spurious ones without a label.
    """

    onset_ms: Float[np.ndarray, 'E']
    offset_ms: Float[np.ndarray, 'F']
    spurious_s: Float[np.ndarray, 'G']
    outside_db: float
    found: tuple[Event, ...]


def onset_accuracy(
    audio: Float[AnyArray, 'S *A'], sample_rate: int, events: Sequence[Event]
) -> OnsetAccuracy:
    """Onset and offset accuracy of one sound against its requested events.

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
    return OnsetAccuracy(onsets, offsets, spurious, _outside(energy, events), tuple(found))


def event_counts(
    clip: Pair, collar_s: float = 0.2, offset_share: float | None = 0.5
) -> Int[np.ndarray, '4']:
    """Hits, substitutions, requested and found events of one clip; counts of clips add up.

    A found event is a hit if its label is that of a requested one, its onset lies within a collar
    of it and, where offsets count, its offset within the larger of the collar and a share of the
    requested length. Each event answers one other, in the way that gives most hits. Of those left
    over, pairs at the right time with the wrong label are substitutions.

    Args:
        clip: requested and found events.
        collar_s: tolerance of onsets, and the least tolerance of offsets.
        offset_share: tolerance of an offset as a share of the requested length; None: onsets alone.
    """
    requested, found = clip
    hit, substitutions = _hits(requested, found, collar_s, offset_share)
    return np.array([hit.sum(), substitutions, len(requested), len(found)])


def f1_of_counts(counts: Sequence[Int[np.ndarray, '4']]) -> float:
    """F of (3) from the `event_counts` of clips: 2 hits / (requested + found); NaN for none."""
    hits, _, requested, found = np.sum(counts, 0)
    return float(2 * hits / (requested + found)) if requested + found else float('nan')


def _search_range(onset, onsets, seconds):
    before = onsets[onsets < onset - 5e-3]
    after = onsets[onsets > onset + 5e-3]
    low = max(onset - SEARCH_S, (onset + before.max()) / 2 if before.size else 0.0)
    high = min(onset + SEARCH_S, (onset + after.min()) / 2 if after.size else seconds)
    return low, high


def rises(
    energy: Float[np.ndarray, 'N bands'],
    bandwidths: Float[np.ndarray, 'bands'],
    times: Int[np.ndarray, 'T'],
    before: Float[np.ndarray, 'bands'],
) -> tuple[Float[np.ndarray, 'T'], Float[np.ndarray, 'T bands']]:
    """rise(t) of (1) in dB at each block, and by band; `before` lies ahead of the first block."""
    padded = _padded(energy, before)
    total = np.concatenate([np.zeros((1, energy.shape[1])), np.cumsum(padded, 0)])
    middle = total[times + SIDE]
    ratio = (total[times + 2 * SIDE] - middle) / (middle - total[times])
    spread = 10 / np.log(10) * np.sqrt(2 / (bandwidths * SIDE * 1e-3))
    above = np.maximum(10 * np.log10(ratio) - 2 * spread[None, :], 0)
    return np.sqrt((above**2).mean(1)), above


def _steepest_rise(energy, bandwidths, onset, low, high):
    """Time of the steepest rise within [low, high] s, or None where nothing rises by 3 dB."""
    # Before the sound lies silence for an event at its very start; for a later one the bed goes
    # on, else the start of the bed would be the steepest rise of all.
    before = energy.min() * np.ones(energy.shape[1])
    if onset > SIDE * 1e-3:
        before = energy[: min(SIDE, len(energy))].mean(0)
    times = np.arange(int(np.ceil(low * 1e3)), min(int(high * 1e3), len(energy) - 1) + 1)
    if not times.size:
        return None
    rise, above = rises(energy, bandwidths, times, before)
    best = int(rise.argmax())
    if rise[best] < MISSED_DB:
        return None
    rising = above[best] > 0
    start = times[best]  # of the 2 * SIDE blocks around it, in padded blocks
    near = _padded(energy, before)[start : start + 2 * SIDE, rising]
    return (start - SIDE + _change_point(near, bandwidths[rising])) * 1e-3


def _padded(energy, before):
    """SIDE blocks of `before`, the energy, and its last block SIDE times more."""
    return np.concatenate([np.tile(before, (SIDE, 1)), energy, np.tile(energy[-1], (SIDE, 1))])


def _change_point(energy, bandwidths):
    """Most likely block at which the variance of all bands changes, 1 .. N - 1."""
    count = len(energy)
    k = np.arange(1, count)[:, None]
    left = np.cumsum(energy, 0)[:-1]
    right = energy.sum(0, keepdims=True) - left
    cost = k * np.log(left / k) + (count - k) * np.log(right / (count - k))
    return 1 + int((cost * bandwidths[None, :]).sum(1).argmin())


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


def _hits(requested, found, collar_s, offset_share):
    """Whether each requested event was found, and the number of substitutions."""
    near = _near(requested, found, collar_s, offset_share)
    same = np.array([[r.text == f.text for f in found] for r in requested], bool)
    answer = _match(near & same.reshape(near.shape))
    left = near[answer < 0]
    left[:, answer[answer >= 0]] = False
    return answer >= 0, _pair_in_order(left)


def _near(requested, found, collar_s, offset_share):
    """Whether each found event is at the time of each requested one, [requested found]."""
    a, b = (
        np.array([(e.onset_s, e.offset_s) for e in events], np.float64).reshape(-1, 2)
        for events in (requested, found)
    )
    off = np.abs(a[:, None] - b[None])
    near = off[..., 0] <= collar_s
    if offset_share is not None:
        tolerance = np.maximum(collar_s, offset_share * (a[:, 1] - a[:, 0]))
        near &= off[..., 1] <= tolerance[:, None]
    return near


def _match(right):
    """For each row the column it is matched with, -1 for none: as many pairs as there can be."""
    if not right.size:
        return np.full(len(right), -1)
    graph = scipy.sparse.csr_array(right)
    return scipy.sparse.csgraph.maximum_bipartite_matching(graph, perm_type='column')


def _pair_in_order(near):
    """Number of matches when each row takes the first free column, in sed_eval's order."""
    free, pairs = np.ones(near.shape[1], bool), 0
    for row in near:
        columns = np.flatnonzero(row & free)
        if columns.size:
            free[columns[0]] = False
            pairs += 1
    return pairs
