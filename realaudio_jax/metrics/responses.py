"""Sensitivity of every metric to controlled degradations."""

from collections.abc import Callable, Sequence

import numpy as np

from realaudio_jax.metrics.codec.reconstruction import (
    bandwidth_kept,
    log_mel_l1,
    multi_resolution_stft,
    si_sdr,
    stereo_width_error,
)
from realaudio_jax.metrics.codec.tonality import roughness, signal_purity, test_signals
from realaudio_jax.metrics.degradations import ladders
from realaudio_jax.metrics.distances import DISTANCES
from realaudio_jax.metrics.embedders.base import Embedder, embed_clips
from realaudio_jax.metrics.timing import clip_timing
from realaudio_jax.timeline import Event

CLEAN = 'clean'
Responses = dict[str, dict[str, dict[str, float]]]  # [ladder][rung][figure]


def measure_responses(
    sounds: Sequence[np.ndarray],
    events: Sequence[Sequence[Event]],
    sample_rate: int,
    embedders: Sequence[Embedder] = (),
    distances: Sequence[str] = ('fad', 'kad'),
    progress: Callable[[int], None] | None = None,
) -> Responses:
    """Every figure of the sounds, undamaged (rung 'clean') and at each rung of each ladder.

    Args:
        sounds: float32 [S 2] in [-1, 1], none silent.
        events: where the events of each sound lie.
        sample_rate: Hz.
        embedders: for the distances, named 'fad, YAMNet' and so on.
        distances: names in `distances.DISTANCES`.
        progress: called with the number of rungs done.
    """
    windows = [embed_clips(embedder, sounds, sample_rate) for embedder in embedders]
    signals = test_signals(sample_rate)
    before = np.array([roughness(sound, sample_rate) for sound in sounds])

    def figures(damage):
        damaged = [damage(sound) for sound in sounds]
        purity = [signal_purity(s, damage(s.audio), sample_rate) for s in signals]
        rough = [roughness(sound, sample_rate) for sound in damaged]
        pairs = list(zip(sounds, damaged, strict=True))
        times = [clip_timing(x, sample_rate, e) for x, e in zip(damaged, events, strict=True)]
        onsets, offsets = (
            np.abs(np.concatenate([getattr(t, name) for t in times]))
            for name in ('onset_ms', 'offset_ms')
        )
        found = {
            'log-mel L1': np.mean([log_mel_l1(a, b, sample_rate) for a, b in pairs]),
            'multi-resolution STFT': np.mean([multi_resolution_stft(a, b) for a, b in pairs]),
            # an exact copy has no distortion: 100 dB stands for it
            'SI-SDR (dB)': np.mean([min(si_sdr(a, b), 100.0) for a, b in pairs]),
            'stereo width error': np.mean([abs(stereo_width_error(a, b)) for a, b in pairs]),
            'bandwidth kept (%)': 100
            * np.mean([bandwidth_kept(a, b, sample_rate) for a, b in pairs]),
            'line over skirt (dB)': np.mean(purity),
            'roughness ratio': np.mean(rough / before),
            'onset error (ms)': _median(onsets),
            'offset error (ms)': _median(offsets),
        }
        for embedder, real in zip(embedders, windows, strict=True):
            made = embed_clips(embedder, damaged, sample_rate)
            for name in distances:
                label = f'{name}, {embedder.name.split(" (")[0]}'
                found[label] = DISTANCES[name][1](real, made, 2).value
        return {name: float(value) for name, value in found.items()}

    clean, found, done = figures(lambda sound: sound), {}, 0
    for ladder, rungs in ladders(sample_rate).items():
        found[ladder] = {CLEAN: clean}
        for rung, damage in rungs:
            found[ladder][rung] = figures(damage)
            done += 1
            if progress:
                progress(done)
    return found


def _median(values):
    values = values[~np.isnan(values)]
    return np.median(values) if values.size else np.nan
