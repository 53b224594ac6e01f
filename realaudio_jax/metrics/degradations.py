"""Controlled degradations of sound at several severities, to test the sensitivity of metrics."""

import functools
from collections.abc import Callable

import numpy as np
import scipy.interpolate
import scipy.signal

from realaudio_jax.typing import Float

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


def ladders(sample_rate: int) -> dict[str, list[tuple[str, Callable[[Stereo], Stereo]]]]:
    """Degradations by name, each a list of (rung, function) from mild to severe."""
    rate = sample_rate

    def rungs(unit, steps, damage):
        return [(f'{step} {unit}', functools.partial(damage, step)) for step in steps]

    return {
        'noise': rungs('dB', (40, 30, 20, 10), lambda snr, x: add_noise(x, snr)),
        'low-pass': rungs('kHz', (12, 6, 3), lambda khz, x: low_pass(x, rate, 1e3 * khz)),
        'delay': rungs('ms', (20, 50, 200), lambda ms, x: delay(x, rate, ms)),
        'polarity': [('flipped', flip_polarity)],
        'stereo': [('mono', fold_to_mono)],
        'phases': rungs('degrees', (45, 90, 180), lambda d, x: randomise_phases(x, rate, d)),
        'line-width': rungs('Hz', (2, 10, 50), lambda hz, x: widen_lines(x, rate, hz)),
        'vibrato': rungs('cents', (10, 30, 100), lambda cents, x: vibrato(x, rate, cents)),
    }
