"""What a kind of sound is, and the finish every sound gets: onset, length, offset and peak."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import scipy.signal

from realaudio_jax.data.foley.primitives import Mono, Number, Stereo, samples

MAX_EVENT_SECONDS = 3.0
MIN_EVENT_SECONDS = 0.05
_ONSET_LEVEL = 0.03  # of the peak (-30 dB): a slower rise before it is not heard as the onset
_SILENCE_LEVEL = 1e-3  # of the peak (-60 dB)
_PEAK = 0.95


@dataclasses.dataclass(frozen=True)
class Foley:
    """A kind of sound that can be synthesised.

    Attributes:
        name: identifier, lower case with underscores.
        texts: readable English wordings of the same sound, two or more. The last is kept out of
            training: no caption made with it can be made with the others.
        synthesize: `(rng, seconds | None) -> float32 [S] or [S, 2]` at 48 kHz, peak in (0, 1]. An
            event without `seconds` has its natural length, with it at most that length; an ambience
            lasts `seconds` (10 when None).
    """

    name: str
    texts: tuple[str, ...]
    synthesize: Callable[[np.random.Generator, Number | None], np.ndarray]


def _event(
    make: Callable[[np.random.Generator], Mono], rng: np.random.Generator, seconds: Number | None
) -> Mono:
    x = make(rng)
    x = scipy.signal.lfilter((1.0, -1.0), (1.0, -0.9975), x)  # a 19 Hz high-pass
    level = np.abs(x)
    audible = np.flatnonzero(level > _SILENCE_LEVEL * level.max())
    start = int(np.argmax(level > _ONSET_LEVEL * level.max()))
    natural = audible[-1] + 1 - start
    n = min(natural, samples(MAX_EVENT_SECONDS if seconds is None else seconds))
    x = x[start : start + n].copy()
    # A sound cut short fades over a tenth of its length, a whole one only over 5 ms.
    fade = max(1, n // 10 if n < natural else min(n, samples(0.005)))
    x[n - fade :] *= np.linspace(1.0, 0.0, fade)
    # What offset the cut left goes in proportion to the level, so silence stays silent.
    x -= np.abs(x) * (x.sum() / np.abs(x).sum())
    x *= _PEAK / np.abs(x).max()
    if seconds is None:
        x = np.pad(x, (0, max(0, samples(MIN_EVENT_SECONDS) - n)))
    return x.astype(np.float32)


def _ambience(
    make: Callable[[np.random.Generator, int], Stereo],
    rng: np.random.Generator,
    seconds: Number | None,
) -> Stereo:
    x = make(rng, max(2, samples(10.0 if seconds is None else seconds)))
    x = x - x.mean(axis=0, keepdims=True)
    return (x * (_PEAK / np.abs(x).max())).astype(np.float32)


def event(name: str, make: Callable[[np.random.Generator], Mono], *texts: str) -> Foley:
    """A one-shot sound from `make(rng)`: onset at sample 0, cut 60 dB down, no offset."""
    return Foley(name, texts, functools.partial(_event, make))


def ambience(name: str, make: Callable[[np.random.Generator, int], Stereo], *texts: str) -> Foley:
    """A lasting stereo sound from `make(rng, n_samples)`."""
    return Foley(name, texts, functools.partial(_ambience, make))
