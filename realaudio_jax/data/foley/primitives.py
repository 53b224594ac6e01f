"""Building blocks of procedural sounds: filters, damped partials, noises, grains, voices, rooms.

Everything is NumPy/SciPy at 48 kHz, pure, and random only through the generator handed in.
"""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft
import scipy.signal

from realaudio_jax.typing import SAMPLE_RATE, Float

Number = int | float | np.number
# The leading underscore: lengths differ within one signature.
Mono = Float[np.ndarray, '_S']
Stereo = Float[np.ndarray, '_S 2']
Peaks = Sequence[tuple[Number, Number, Number]]

HELD_OUT_PART = (0.45, 0.55)  # of every range that `between` draws from, in logarithms

_TABLE_SIZE = 8192  # nearest-neighbour reading of it is 70 dB below the tone


def samples(seconds: Number) -> int:
    """Number of samples in `seconds`."""
    return int(round(seconds * SAMPLE_RATE))


def times(n: int) -> Mono:
    """Sample times in seconds, [n]."""
    return np.arange(n) / SAMPLE_RATE


class SplitGenerator(np.random.Generator):
    """Random numbers for the sounds of one split: `between` keeps to that split's part of a range.

    Every kind of sound draws a pitch, a size or a rate by `between`. The middle tenth of each range
    belongs to the held-out split and the rest to training, so that no seed of either gives a sound
    of the other.

    Args:
        rng: whose stream of bits goes on.
        held_out: whether the sounds are kept out of training.
    """

    def __init__(self, rng: np.random.Generator, held_out: bool):
        super().__init__(rng.bit_generator)
        self.held_out = held_out

    def position(self) -> float:
        """Where in a range a value lies, uniform over this split's part of [0, 1)."""
        first, last = HELD_OUT_PART
        drawn = self.random()
        if self.held_out:
            return first + (last - first) * drawn
        drawn *= 1 - (last - first)
        return drawn if drawn < first else drawn + (last - first)


def between(rng: np.random.Generator, low: Number, high: Number) -> float:
    """A value log-uniform in [low, high], both positive: how pitches and sizes are perceived.

    From a `SplitGenerator` it is log-uniform over the part of the range that the split has.
    """
    position = rng.position() if isinstance(rng, SplitGenerator) else rng.random()
    return low * (high / low) ** position


def db(value: Number) -> float:
    """Decibels to an amplitude factor, 10^(value/20)."""
    return 10.0 ** (value / 20.0)


# --- envelopes ---------------------------------------------------------------------------------


def decay(n: int, t60: Number) -> Mono:
    """Exponential decay, 60 dB down after `t60` seconds."""
    return np.exp(times(n) * (-math.log(1000.0) / t60))


def strike(n: int, attack: Number, t60: Number) -> Mono:
    """Exponential rise with time constant `attack` (seconds), then exponential decay."""
    return -np.expm1(times(n) * (-1.0 / attack)) * decay(n, t60)


def line(n: int, *points: tuple[Number, Number]) -> Mono:
    """Straight lines through (fraction of the length in [0, 1], value) points."""
    at, value = zip(*points, strict=True)
    return np.interp(np.linspace(0.0, 1.0, n), at, value)


def wander(rng: np.random.Generator, n: int, rate: Number) -> Mono:
    """A smooth random periodic curve of unit variance, no faster than `rate` Hz."""
    count = max(1, int(rate * n / SAMPLE_RATE))
    coarse = 16 * count
    spectrum = np.zeros(coarse // 2 + 1, complex)
    spectrum[1 : count + 1] = rng.standard_normal(count) + 1j * rng.standard_normal(count)
    curve = scipy.fft.irfft(spectrum, coarse)
    curve /= curve.std() + 1e-12
    wrapped = np.append(curve, curve[0])
    return np.interp(np.linspace(0.0, coarse, n, endpoint=False), np.arange(coarse + 1), wrapped)


# --- filters -----------------------------------------------------------------------------------


def _biquad(x: np.ndarray, kind: str, frequency: Number, q: Number) -> np.ndarray:
    # Bristow-Johnson's cookbook: the bilinear transform of the analogue second-order section.
    w = 2 * math.pi * min(max(frequency, 5.0), 0.48 * SAMPLE_RATE) / SAMPLE_RATE
    cos, alpha = math.cos(w), math.sin(w) / (2 * q)
    b = {
        'low': ((1 - cos) / 2, 1 - cos, (1 - cos) / 2),
        'high': ((1 + cos) / 2, -1 - cos, (1 + cos) / 2),
        'band': (alpha, 0.0, -alpha),
    }[kind]
    return scipy.signal.lfilter(b, (1 + alpha, -2 * cos, 1 - alpha), x, axis=0)


def lowpass(x: np.ndarray, frequency: Number, q: Number = 0.707) -> np.ndarray:
    """Second-order low-pass at `frequency` Hz along the first axis."""
    return _biquad(x, 'low', frequency, q)


def highpass(x: np.ndarray, frequency: Number, q: Number = 0.707) -> np.ndarray:
    """Second-order high-pass at `frequency` Hz along the first axis."""
    return _biquad(x, 'high', frequency, q)


def bandpass(x: np.ndarray, frequency: Number, q: Number = 1.0) -> np.ndarray:
    """Second-order band-pass with unit gain at `frequency` Hz along the first axis."""
    return _biquad(x, 'band', frequency, q)


def formants(x: np.ndarray, peaks: Peaks) -> np.ndarray:
    """Parallel resonances, each (frequency in Hz, bandwidth in Hz, gain in dB)."""
    return sum(db(gain) * bandpass(x, f, f / width) for f, width, gain in peaks)


# --- sources -----------------------------------------------------------------------------------


def white(rng: np.random.Generator, n: int) -> Mono:
    """Gaussian white noise of unit variance."""
    return rng.standard_normal(n, dtype=np.float32)


def shaped(
    rng: np.random.Generator, n: int, gain: Callable[[np.ndarray], np.ndarray], channels: int = 1
) -> np.ndarray:
    """Gaussian noise with magnitude `gain(Hz)`, unit variance, periodic over its length.

    Args:
        rng: source of randomness.
        n: length in samples.
        gain: amplitude response at an array of frequencies in Hz.
        channels: 1 gives [n]; more gives independent channels, [n, channels].
    """
    bins = n // 2 + 1
    frequency = np.arange(bins) * (SAMPLE_RATE / n)
    amplitude = gain(np.maximum(frequency, 1.0)).astype(np.float32)
    amplitude[0] = 0.0
    spectrum = rng.standard_normal((channels, 2 * bins), dtype=np.float32).view(np.complex64)
    noise = scipy.fft.irfft(spectrum * amplitude[None, :], n, axis=1)
    noise /= noise.std() + 1e-12
    return noise[0] if channels == 1 else noise.T


def slope(
    low: Number, high: Number, per_octave: Number = 0.0
) -> Callable[[np.ndarray], np.ndarray]:
    """A band from `low` to `high` Hz with soft edges, tilted by `per_octave` dB, for `shaped`."""

    def gain(f: np.ndarray) -> np.ndarray:
        edges = 1.0 / np.sqrt((1 + (low / f) ** 4) * (1 + (f / high) ** 4))
        return edges * f ** (per_octave / 6.02)

    return gain


def swept(rng: np.random.Generator, centre: Mono, width: Number) -> Mono:
    """Noise in a band whose `centre` (Hz, [S]) moves and whose half-width is `width` octaves."""
    low, high = math.log2(centre.min()), math.log2(centre.max())
    position = np.log2(centre)
    source = white(rng, len(centre))
    out = np.zeros(len(centre))
    for band in np.linspace(low, high, 2 + int(2 * (high - low))):
        weight = np.exp(-(((position - band) / max(width, 0.25)) ** 2))
        out += weight * bandpass(source, 2.0**band, 1.0 / width)
    return out


def partials(
    frequencies: np.ndarray | list,
    t60: np.ndarray | list,
    gains: np.ndarray | list,
    n: int,
    phases: np.ndarray | Number = 0.0,
) -> Mono:
    """Sum of damped partials, sum_p g_p exp(-ln(1000) t / t60_p) sin(2 pi f_p t + phase_p).

    With t = t_i + t_j (blocks and offsets) a partial is the product of two complex exponentials,
    so the whole sum is one matrix product.

    Args:
        frequencies, t60, gains, phases: Hz, seconds, amplitudes, radians, one per partial.
        n: length in samples.
    """
    frequencies = np.asarray(frequencies, float)
    block = 256
    gains = np.where(frequencies < 0.47 * SAMPLE_RATE, gains, 0.0)
    rate = (2j * math.pi * frequencies - math.log(1000.0) / np.asarray(t60)) / SAMPLE_RATE
    starts = np.exp(np.arange(0, n, block)[:, None] * rate[None, :])
    within = gains * np.exp(1j * np.asarray(phases))
    within = within[:, None] * np.exp(rate[:, None] * np.arange(block)[None, :])
    return (starts.astype(np.complex64) @ within.astype(np.complex64)).imag.reshape(-1)[:n]


@functools.lru_cache(maxsize=64)
def _pulse_table(sharpness: Number) -> np.ndarray:
    angle = 2 * math.pi * np.arange(_TABLE_SIZE) / _TABLE_SIZE
    table = np.exp(sharpness * (np.cos(angle) - 1))
    table -= table.mean()
    return table / table.std()


def tone(frequency: Mono, sharpness: Number = 0.0, phase: Number = 0.0) -> Mono:
    """A periodic wave of moving pitch: a sine, or a band-limited pulse train.

    The pulse is exp(sharpness (cos(angle) - 1)); its harmonics fall as a Gaussian of width
    about sqrt(sharpness), so it hardly aliases.

    Args:
        frequency: Hz at each sample, [S].
        sharpness: 0 for a sine, else of the order 10 to 1000.
        phase: starting phase in cycles.
    """
    cycles = np.cumsum(frequency) / SAMPLE_RATE + phase
    if sharpness == 0.0:
        return np.sin(2 * math.pi * cycles)
    index = (cycles * _TABLE_SIZE).astype(np.int64) & (_TABLE_SIZE - 1)
    return _pulse_table(float(sharpness))[index]


def blast(n: int, positive: Number, shape: Number = 1.0) -> Mono:
    """Friedlander's blast wave, (1 - t/t_p) exp(-shape t/t_p), with t_p = `positive` seconds."""
    t = times(n) / positive
    return (1 - t) * np.exp(-shape * t)


def compressed(x: Mono, ratio: Number = 2.5) -> Mono:
    """Unit variance, then soft limits at `ratio` deviations: tames heavy-tailed grains."""
    return ratio * np.tanh(x / (ratio * (x.std() + 1e-12)))


def sparse(rng: np.random.Generator, n: int, density: np.ndarray | Number) -> Mono:
    """Random impulses, heavy-tailed in size, `density` per second (a number or a curve [n])."""
    hit = rng.random(n, dtype=np.float32) < np.asarray(density) / SAMPLE_RATE
    out = np.zeros(n)
    count = int(hit.sum())
    out[hit] = rng.standard_normal(count) * np.exp(0.7 * rng.standard_normal(count))
    return out


def crackle(
    rng: np.random.Generator, density: Mono, low: Number, high: Number, q: Number, kinds: int = 5
) -> Mono:
    """Grains of `kinds` random resonances between `low` and `high` Hz, `density` [S] per second."""
    out = np.zeros(len(density))
    for _ in range(kinds):
        centre = between(rng, low, high)
        # A resonator's response to an impulse is as high as its bandwidth, so undo that.
        grain = bandpass(sparse(rng, len(density), density / kinds), centre, q)
        out += grain * (q * SAMPLE_RATE / (2 * math.pi * centre))
    return out


# --- composition -------------------------------------------------------------------------------


def place(out: np.ndarray, grain: np.ndarray, at: Number, gain: np.ndarray | Number = 1.0) -> None:
    """Adds a mono `grain` into `out` ([S] or [S, 2]) from `at` seconds (may be negative).

    The one function that writes into its argument: mixtures have thousands of grains.
    """
    start = int(at * SAMPLE_RATE)
    first, last = max(0, -start), min(len(grain), len(out) - start)
    if first < last:
        piece = grain[first:last]
        piece = piece * gain if out.ndim == 1 else piece[:, None] * np.asarray(gain)[None, :]
        out[start + first : start + last] += piece


def panned(position: Number) -> np.ndarray:
    """Constant-power gains (left, right), [2], for a position from 0 (left) to 1 (right)."""
    return np.array([math.cos(position * math.pi / 2), math.sin(position * math.pi / 2)])


def room(
    rng: np.random.Generator, x: Mono, t60: Number, wet: Number, bright: Number = 5000.0
) -> Mono:
    """`x` followed by early reflections and a diffuse tail.

    Args:
        rng: source of randomness (each call is another room).
        x: dry sound, [S].
        t60: reverberation time in seconds.
        wet: energy of the response over that of the direct sound, as an amplitude ratio.
        bright: the tail is low-passed at this frequency, in Hz.
    """
    n = samples(t60)
    response = white(rng, n) * decay(n, t60)
    gap = samples(rng.uniform(0.004, 0.015))
    response[:gap] = 0.0
    early = rng.integers(gap // 2, 4 * gap, size=6).clip(max=n - 1)
    response[early] += rng.choice([-1, 1], size=6) * rng.uniform(1.0, 3.0, size=6)
    response = lowpass(response, bright)
    response *= wet / (np.sqrt(np.sum(response**2)) + 1e-12)
    response[0] += 1.0
    response, x = response.astype(np.float32), x.astype(np.float32)
    return scipy.signal.oaconvolve(x, response)
