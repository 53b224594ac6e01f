"""Known damage to a sound, by degrees: what a metric must put in order, or is known not to see."""

from collections.abc import Callable

import numpy as np
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
    """Everything later, the end cut off, silence at the start."""
    lag = round(ms * 1e-3 * sample_rate)
    return np.concatenate([np.zeros_like(audio[:lag]), audio[: len(audio) - lag]])


def flip_polarity(audio: Stereo) -> Stereo:
    """Both channels upside down: no ear hears it."""
    return -audio


def fold_to_mono(audio: Stereo) -> Stereo:
    """Both channels the same, their mean."""
    return np.repeat(audio.mean(1, keepdims=True), 2, axis=1).astype(np.float32)


def ladders(sample_rate: int) -> dict[str, list[tuple[str, Callable[[Stereo], Stereo]]]]:
    """Degradations by name, each a list of (rung, function) from mild to severe."""
    return {
        'noise': [(f'{snr} dB', lambda x, s=snr: add_noise(x, s)) for snr in (40, 30, 20, 10)],
        'low-pass': [(f'{khz} kHz', lambda x, f=khz: low_pass(x, sample_rate, 1e3 * f))
                     for khz in (12, 6, 3)],
        'delay': [(f'{ms} ms', lambda x, m=ms: delay(x, sample_rate, m)) for ms in (20, 50, 200)],
        'polarity': [('flipped', flip_polarity)],
        'stereo': [('mono', fold_to_mono)],
    }  # fmt: skip
