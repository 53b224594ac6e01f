"""Small pieces of signal arithmetic on numpy sounds [S] or [S, A]."""

import numpy as np

from realaudio_jax.typing import SAMPLE_RATE, Float

Regions = tuple[tuple[float, float], ...]  # (start, end) pairs in seconds

MAX_DELAY = 1200  # samples, 25 ms: above it a widened sound becomes an echo


def random_stereo(rng: np.random.Generator, audio: Float[np.ndarray, '...']) -> np.ndarray:
    """A stereo image for a mono sound, or another image of a stereo one.

    Mono: a constant-power pan of x, in two cases of three widened by a delayed copy of opposite
    sign in the two channels, L = l (x + w d), R = r (x - w d) (Lauridsen 1954), so the side is not
    a scaled middle. Stereo: the image is kept, its channels swapped in half of the cases.

    Args:
        rng: where the image comes from.
        audio: [S] or [S, 2].

    Returns:
        float32 [S, 2].
    """
    if audio.ndim == 2:
        return audio[:, ::-1] if rng.random() < 0.5 else audio
    angle = np.pi / 4 * (1 + rng.triangular(-1.0, 0.0, 1.0))
    left, right = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    out = np.empty((len(audio), 2), np.float32)
    out[:, 0] = audio
    out[:, 1] = audio
    delay = int(rng.integers(24, MAX_DELAY))
    if rng.random() < 0.67 and delay < len(audio):
        side = audio[:-delay] * np.float32(rng.uniform(0.1, 0.8))
        out[delay:, 0] += side
        out[delay:, 1] -= side
    out *= np.array([[left, right]], np.float32) * np.float32(np.sqrt(2))
    return out


def limit(audio: np.ndarray, peak: float = 1.0) -> None:
    """Scales a sound in place where it goes above `peak`."""
    highest = max(float(audio.max(initial=0.0)), -float(audio.min(initial=0.0)))
    if highest > peak:
        audio *= np.float32(peak / highest)


def frame_power(audio: Float[np.ndarray, '...'], hop: int) -> Float[np.ndarray, ' N']:
    """Mean square over channels and `hop` samples; the last frame is filled up with zeros."""
    frames = np.pad(audio, ((0, -len(audio) % hop),) + ((0, 0),) * (audio.ndim - 1))
    return np.square(frames.reshape(-1, hop * frames[0].size), dtype=np.float32).mean(axis=1)


def rms(audio: Float[np.ndarray, '...']) -> float:
    """Root mean square over samples and channels, never 0."""
    return float(np.sqrt(np.square(audio).mean())) + 1e-7


def active_regions(
    audio: Float[np.ndarray, '...'], sample_rate: int = SAMPLE_RATE, floor_db: float = -40.0
) -> Regions:
    """Where a sound is louder than `floor_db` below its loudest 10 ms (and than -66 dBFS).

    Args:
        audio: [S] or [S, A].
        sample_rate: Hz.
        floor_db: dB relative to the loudest 10 ms frame.

    Returns:
        (start, end) pairs in seconds; pauses below 150 ms do not split. Empty for silence.
    """
    power = frame_power(audio, sample_rate // 100)
    loud = power > max(power.max(initial=0.0) * 10 ** (floor_db / 10), 10**-6.6)
    edges = np.flatnonzero(np.diff(np.pad(loud.astype(np.int8), 1)))
    regions: list[tuple[float, float]] = []
    for start, end in zip(edges[::2] / 100, edges[1::2] / 100, strict=True):
        end = min(float(end), len(audio) / sample_rate)
        if regions and start - regions[-1][1] < 0.15:
            regions[-1] = (regions[-1][0], end)
        else:
            regions.append((float(start), end))
    return tuple(regions)
