"""Sensitivity of metrics: their values on sounds degraded in a known way, mild to severe."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import scipy.interpolate
import scipy.signal

from realaudio_jax.metrics.codec.reconstruction import (
    bandwidth_kept,
    log_mel_l1,
    multi_resolution_stft,
    si_sdr,
    stereo_width_error,
)
from realaudio_jax.metrics.codec.tonality import roughness, signal_purity, test_signals
from realaudio_jax.metrics.distances import DISTANCES
from realaudio_jax.metrics.embedders.base import Embedder, embed_clips
from realaudio_jax.metrics.onsets import onset_accuracy
from realaudio_jax.timeline import Event
from realaudio_jax.typing import Float

CLEAN = 'clean'
Sensitivity = dict[str, dict[str, dict[str, float]]]  # [degradation][severity][metric]
Stereo = Float[np.ndarray, 'S 2']


def add_noise(audio: Stereo, snr_db: float | int, seed: int = 0) -> Stereo:
    """White noise in both channels, `snr_db` below the sound's own power."""
    noise = np.random.default_rng(seed).normal(size=audio.shape)
    level = np.sqrt(np.square(audio).mean()) * 10 ** (-snr_db / 20)
    return (audio + level * noise).astype(np.float32)


def low_pass(audio: Stereo, sample_rate: int, cutoff_hz: float | int) -> Stereo:
    """Butterworth of order 8, forwards and backwards, so that nothing is delayed."""
    sos = scipy.signal.butter(8, cutoff_hz, fs=sample_rate, output='sos')
    return scipy.signal.sosfiltfilt(sos, audio, axis=0).astype(np.float32)


def delay(audio: Stereo, sample_rate: int, ms: float | int) -> Stereo:
    """Delays a sound: silence at the start, the end cut off."""
    lag = round(ms * 1e-3 * sample_rate)
    return np.concatenate([np.zeros_like(audio[:lag]), audio[: len(audio) - lag]])


def flip_polarity(audio: Stereo) -> Stereo:
    """Inverts the polarity of both channels, which is inaudible."""
    return -audio


def fold_to_mono(audio: Stereo) -> Stereo:
    """Replaces both channels by their mean."""
    return np.repeat(audio.mean(1, keepdims=True), 2, axis=1).astype(np.float32)


def randomise_phases(
    audio: Stereo, sample_rate: int, degrees: float | int, seed: int = 0
) -> Stereo:
    """A random turn of up to +-`degrees` for every bin of a spectrum of 40 ms, magnitudes kept.

    Both channels are turned alike, so the image between them stays.
    """
    size = round(0.04 * sample_rate)
    overlap = dict(fs=sample_rate, window='hann', nperseg=size, noverlap=size * 3 // 4)
    _, _, spectrum = scipy.signal.stft(audio.T, **overlap)
    turn = np.random.default_rng(seed).uniform(-1, 1, spectrum.shape[1:]) * np.radians(degrees)
    _, turned = scipy.signal.istft(spectrum * np.exp(1j * turn), **overlap)
    return np.ascontiguousarray(turned.T[: len(audio)], np.float32)


def widen_lines(audio: Stereo, sample_rate: int, width_hz: float | int, seed: int = 0) -> Stereo:
    """Every line becomes a band of noise with a standard deviation of `width_hz` about it.

    The analytic signal times complex normal noise of that spectrum and of unit power.
    """
    count = len(audio)
    rng = np.random.default_rng(seed)
    hz = np.fft.fftfreq(count, 1 / sample_rate)
    shape = np.exp(-np.square(hz / width_hz) / 4)  # of the amplitude
    noise = np.fft.ifft((rng.normal(size=count) + 1j * rng.normal(size=count)) * shape)
    noise /= np.sqrt(np.square(np.abs(noise)).mean())
    analytic = scipy.signal.hilbert(audio, axis=0)
    return (analytic * noise[:, None]).real.astype(np.float32)


def vibrato(
    audio: Stereo, sample_rate: int, cents: float | int, rate_hz: float | int = 6
) -> Stereo:
    """The pitch swings by +-`cents` at `rate_hz`: time runs faster and slower in turn."""
    time = np.arange(len(audio)) / sample_rate
    depth = (2 ** (cents / 1200) - 1) / (2 * np.pi * rate_hz)  # s
    moved = (time + depth * np.sin(2 * np.pi * rate_hz * time)) * sample_rate
    positions = np.arange(len(audio))
    return np.stack(
        [scipy.interpolate.CubicSpline(positions, x)(moved) for x in audio.T], axis=1
    ).astype(np.float32)


def degradations(sample_rate: int) -> dict[str, list[tuple[str, Callable[[Stereo], Stereo]]]]:
    """Degradations by name, each a list of (severity, function) from mild to severe."""
    rate = sample_rate

    def levels(unit, values, degrade):
        return [(f'{value} {unit}', functools.partial(degrade, value)) for value in values]

    return {
        'noise': levels('dB', (40, 30, 20, 10), lambda snr, x: add_noise(x, snr)),
        'low-pass': levels('kHz', (12, 6, 3), lambda khz, x: low_pass(x, rate, 1e3 * khz)),
        'delay': levels('ms', (20, 50, 200), lambda ms, x: delay(x, rate, ms)),
        'polarity': [('flipped', flip_polarity)],
        'stereo': [('mono', fold_to_mono)],
        'phases': levels('degrees', (45, 90, 180), lambda d, x: randomise_phases(x, rate, d)),
        'line-width': levels('Hz', (2, 10, 50), lambda hz, x: widen_lines(x, rate, hz)),
        'vibrato': levels('cents', (10, 30, 100), lambda cents, x: vibrato(x, rate, cents)),
    }


def measure_sensitivity(
    sounds: Sequence[np.ndarray],
    events: Sequence[Sequence[Event]],
    sample_rate: int,
    embedders: Sequence[Embedder] = (),
    distances: Sequence[str] = ('fad', 'kad'),
    progress: Callable[[int], None] | None = None,
) -> Sensitivity:
    """Every metric of the sounds: undamaged ('clean') and at each severity of each degradation.

    Args:
        sounds: float32 [S 2] in [-1, 1], none silent.
        events: where the events of each sound lie.
        sample_rate: Hz.
        embedders: for the distances, named 'fad, YAMNet' and so on.
        distances: names in `distances.DISTANCES`.
        progress: called with the number of severities done.
    """
    windows = [embed_clips(embedder, sounds, sample_rate) for embedder in embedders]
    signals = test_signals(sample_rate)
    before = np.array([roughness(sound, sample_rate) for sound in sounds])

    def metrics(degrade):
        degraded = [degrade(sound) for sound in sounds]
        purity = [signal_purity(s, degrade(s.audio), sample_rate) for s in signals]
        rough = [roughness(sound, sample_rate) for sound in degraded]
        pairs = list(zip(sounds, degraded, strict=True))
        times = [onset_accuracy(x, sample_rate, e) for x, e in zip(degraded, events, strict=True)]
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
            made = embed_clips(embedder, degraded, sample_rate)
            for name in distances:
                label = f'{name}, {embedder.name.split(" (")[0]}'
                found[label] = DISTANCES[name][1](real, made, 2).value
        return {name: float(value) for name, value in found.items()}

    clean, found, done = metrics(lambda sound: sound), {}, 0
    for name, severities in degradations(sample_rate).items():
        found[name] = {CLEAN: clean}
        for severity, degrade in severities:
            found[name][severity] = metrics(degrade)
            done += 1
            if progress:
                progress(done)
    return found


def _median(values):
    values = values[~np.isnan(values)]
    return np.median(values) if values.size else np.nan
