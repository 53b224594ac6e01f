"""Signal arithmetic inside compiled programs: framing, STFT, mid/side, level, limiting, PCM.

Frames are aligned to the hop, not to sample zero: frame n of an STFT with hop R and window F = m R
is centred on sample (n + 1/2) R, so S = N R samples have exactly N frames, and N depends on nothing
else. With F = rate / 25 and R = rate / 100 every bin is 25 Hz wide at every sample rate.
"""

import functools
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from realaudio_jax.typing import Array, Float

BIN_HZ = 25  # width of an STFT bin of the models, at every sample rate
FRAME_RATE = 100  # STFT frames of the models per second
_PEAK_ERROR_DB = 0.3  # of true peaks by four points a sample
PCM_SCALE = 2**15  # of 16-bit integers, in every file that is written or read
MAX_PEAK = 10.0  # of floating-point samples; sound lies in [-1, 1], 20 dB more is a loud mix
PEAK_SCALED = 'peak above 1 scaled to 1'  # what a message says of samples beyond


def stft_size(sample_rate: int) -> tuple[int, int]:
    """STFT window and hop in samples: (n_fft, hop) = (rate / 25, rate / 100).

    Args:
        sample_rate: Hz, divisible by 100.

    Raises:
        ValueError: the rate is not divisible by 100.
    """
    if sample_rate % FRAME_RATE:
        raise ValueError(f'sample rate {sample_rate} is not divisible by 100; use 48000 or 44100')
    return sample_rate // BIN_HZ, sample_rate // FRAME_RATE


@functools.cache
def hann(n_fft: int) -> np.ndarray:
    """Periodic Hann window, w[i] = sin(pi i / n_fft)^2; float32 [n_fft]."""
    return (np.sin(np.pi * np.arange(n_fft) / n_fft) ** 2).astype(np.float32)


def frame(x: Float[Array, '*b S'], n_fft: int, hop: int) -> Float[Array, '*b N F']:
    """Cuts S = N hop samples into N overlapping frames of n_fft = m hop samples.

    Built from m shifted slices of hop-sized blocks: no gather, so it and its gradient are fast
    (stacked, which XLA writes in one pass: side by side on the last axis they take twice as long).

    Args:
        x: samples; S divisible by hop.
        n_fft: samples, a multiple of hop.
        hop: samples.

    Raises:
        ValueError: sizes that do not divide.
    """
    blocks, remainder = divmod(n_fft, hop)
    if remainder or x.shape[-1] % hop:
        raise ValueError(f'hop {hop} must divide n_fft {n_fft} and the length {x.shape[-1]}')
    count = x.shape[-1] // hop
    left = (n_fft - hop) // 2
    padding = [(0, 0)] * (x.ndim - 1) + [(left, n_fft - hop - left)]
    x = jnp.pad(x, padding).reshape(*x.shape[:-1], count + blocks - 1, hop)
    x = jnp.stack([x[..., i : i + count, :] for i in range(blocks)], axis=-2)
    return x.reshape(*x.shape[:-2], n_fft)


def overlap_add(frames: Float[Array, '*b N F'], hop: int) -> Float[Array, '*b S']:
    """The adjoint of `frame`: sums N frames, hop apart, into S = N hop samples."""
    *batch, count, n_fft = frames.shape
    blocks = n_fft // hop
    frames = frames.reshape(*batch, count, blocks, hop)
    lead = [(0, 0)] * len(batch)
    total = sum(
        jnp.pad(frames[..., i, :], [*lead, (i, blocks - 1 - i), (0, 0)]) for i in range(blocks)
    )
    total = total.reshape(*batch, (count + blocks - 1) * hop)
    left = (n_fft - hop) // 2
    return total[..., left : left + count * hop]


def stft(x: Float[Array, '*b S'], n_fft: int, hop: int) -> Array:
    """Short-time Fourier transform with a Hann window; complex64 [..., N, n_fft // 2 + 1]."""
    frames = frame(x, n_fft, hop)
    return jnp.fft.rfft(frames * jnp.broadcast_to(hann(n_fft), frames.shape))


def istft(
    spectrum: Array, n_fft: int, hop: int, frame_mask: Float[Array, '*b N'] | None = None
) -> Float[Array, '*b S']:
    """Least-squares inverse of `stft` (Griffin & Lim 1984, eq. 6); exact on a consistent spectrum.

    x = sum_n w y_n / sum_n w^2, y_n the inverse transform of frame n.

    Args:
        spectrum: complex [..., N, n_fft // 2 + 1].
        n_fft: samples.
        hop: samples.
        frame_mask: 1 where a frame is real, 0 where it is padding; padding frames enter neither
            sum, so the samples before them are what they would be without the padding.

    Returns:
        [..., N hop] samples; zero where no frame reaches.
    """
    window = jnp.broadcast_to(hann(n_fft), (*spectrum.shape[:-1], n_fft))
    if frame_mask is None:
        frame_mask = jnp.ones(spectrum.shape[:-1], window.dtype)
    frames = jnp.fft.irfft(spectrum, n_fft) * window * frame_mask[..., None]
    norm = overlap_add(frame_mask[..., None] * jnp.square(window), hop)
    return overlap_add(frames, hop) / jnp.maximum(norm, 1e-3)


def magnitude(spectrum: Array, floor: float = 1e-7) -> Float[Array, '...']:
    """|X| with a gradient that stays finite at zero: sqrt(re^2 + im^2 + floor^2)."""
    return jnp.sqrt(jnp.square(spectrum.real) + jnp.square(spectrum.imag) + floor**2)


def mid_side(audio: Float[Array, '*b 2']) -> Float[Array, '*b 2']:
    """Left and right to mid and side, ((l + r) / 2, (l - r) / 2), on the last axis."""
    left, right = audio[..., 0], audio[..., 1]
    return jnp.stack([(left + right) / 2, (left - right) / 2], axis=-1)


def left_right(audio: Float[Array, '*b 2']) -> Float[Array, '*b 2']:
    """Mid and side to left and right, the inverse of `mid_side`."""
    mid, side = audio[..., 0], audio[..., 1]
    return jnp.stack([mid + side, mid - side], axis=-1)


def rms_db(x: Float[Array, '*b S'], floor: float = -80.0) -> Float[Array, '*b']:
    """Root mean square in dB relative to full scale, not below `floor`."""
    power = jnp.mean(jnp.square(x), axis=-1)
    return 10 * jnp.log10(jnp.maximum(power, 10 ** (floor / 10)))


def _k_weighting(sample_rate: int, bins: int) -> np.ndarray:
    """Squared response of the loudness filters of ITU-R BS.1770, annex 1, at `bins` frequencies.

    A high shelf (1682 Hz, 4 dB) and a high-pass (38 Hz), as biquads for any rate.
    """
    z = np.exp(-1j * np.linspace(0.0, np.pi, bins))
    k, q = np.tan(np.pi * 1681.974450955533 / sample_rate), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    middle = high**0.4996667741545416
    shelf = np.polyval([high - middle * k / q + k * k, 2 * (k * k - high), 0], z)
    shelf = shelf + high + middle * k / q + k * k
    shelf /= (1 - k / q + k * k) * z**2 + 2 * (k * k - 1) * z + 1 + k / q + k * k
    k, q = np.tan(np.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    size = 1 + k / q + k * k
    pass_ = (1 - z) ** 2 / ((1 - k / q + k * k) / size * z**2 + 2 * (k * k - 1) / size * z + 1)
    return (np.abs(shelf * pass_) ** 2).astype(np.float32)


def loudness_lufs(
    audio: Float[Array, 'B S 2'], sample_rate: int, seconds: Float[Array, 'B'] | None = None
) -> Float[Array, 'B']:
    """Integrated loudness with both gates (ITU-R BS.1770-4, annex 1, eq. 2 to 7), in LUFS.

    The filters act on the spectrum of each 100 ms, four of which are a block, instead of the
    running signal: each sample is transformed once. On 135 recordings the difference was below
    0.03 LU for nine in ten, and 1.5 LU at most (a short click, where few blocks pass the gate).

    Args:
        audio: samples; silence follows what is shorter than one block of 0.4 s.
        sample_rate: Hz.
        seconds: duration of each sound, where samples after it are padding; blocks that begin in it
            and end after it do not count.

    Returns:
        -70 where nothing passes the absolute gate.
    """
    return gated_loudness(loudness_powers(audio, sample_rate), seconds)


def gated_loudness(
    power: Float[Array, 'B N'], seconds: Float[Array, 'B'] | None = None
) -> Float[Array, 'B']:
    """`loudness_lufs` from the `loudness_powers` of a sound."""
    count = power.shape[1] - 3
    power = sum(power[:, i : i + count] for i in range(4)) / 4  # [B, blocks]
    if seconds is not None:
        whole = jnp.maximum(jnp.floor(10 * seconds + 1e-3) - 3, 1)[:, None]
        power = jnp.where(jnp.arange(count)[None] < whole, power, 0.0)

    def gated(threshold):
        passed = (power > threshold).astype(power.dtype)
        return jnp.sum(power * passed, axis=-1) / jnp.maximum(jnp.sum(passed, axis=-1), 1.0)

    absolute = 10 ** ((-70.0 + 0.691) / 10)
    mean = gated(absolute)
    mean = gated(jnp.maximum(absolute, 0.1 * mean)[:, None])
    return -0.691 + 10 * jnp.log10(jnp.maximum(mean, absolute))


def loudness_powers(audio: Float[Array, 'B S 2'], sample_rate: int) -> Float[Array, 'B N']:
    """Power of each 100 ms behind the filters of ITU-R BS.1770, 4 of them or more.

    Args:
        audio: samples; a last 100 ms that is not whole is left out.
        sample_rate: Hz.
    """
    hop = sample_rate // 10
    parts = max(4, audio.shape[1] // hop)
    x = jnp.moveaxis(audio[:, : parts * hop], -1, 1)
    x = jnp.pad(x, [(0, 0), (0, 0), (0, parts * hop - x.shape[-1])])
    spectrum = jnp.fft.rfft(x.reshape(*x.shape[:2], parts, hop))
    bins = spectrum.shape[-1]
    edges = np.isin(np.arange(bins), (0, hop / 2))
    weight = _k_weighting(sample_rate, bins) * np.where(edges, 1.0, 2.0).astype(np.float32)
    energy = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return jnp.sum(energy @ weight, axis=1) / hop**2


def remove_offset(
    audio: Float[Array, 'B S 2'], inside: Float[Array, 'B S'], sample_rate: int
) -> Float[Array, 'B S 2']:
    """Removes the constant offset of a sound and drifts slower than some 6 Hz.

    What is taken is the mean of each 50 ms, smoothed over its neighbours and joined by straight
    lines, so that a pause beside a sound with an offset gets none.

    Args:
        audio: samples; 0 where they are padding.
        inside: 1 for samples of the sound, 0 for padding.
        sample_rate: Hz.
    """
    batch, samples, _ = audio.shape
    block = sample_rate // 20
    count = -(-samples // block)

    def smoothed(x):
        x = jnp.pad(x, [(0, 0), (0, count * block - samples)])
        before, here, after = _neighbours(jnp.sum(x.reshape(len(x), count, block), axis=-1), 1)
        return before + 2 * here + after

    channels = jnp.moveaxis(audio, -1, 1).reshape(2 * batch, samples)
    size = jnp.repeat(smoothed(inside), 2, axis=0)
    mean = join_blocks(smoothed(channels) / jnp.maximum(size, 1.0), block)[:, :samples]
    mean = jnp.moveaxis(mean.reshape(batch, 2, samples), 1, -1)
    return audio - mean * inside[..., None]


def fade_ends(
    audio: Float[Array, 'B S 2'],
    seconds: Float[Array, 'B'],
    sample_rate: int,
    fade_in_s: float,
    fade_out_s: Float[Array, 'B'],
) -> Float[Array, 'B S 2']:
    """Fades 3 x^2 - 2 x^3 at both ends of each sound; zero after its duration."""
    time = (jnp.arange(audio.shape[1], dtype=jnp.float32)[None] + 0.5) / sample_rate
    left = (seconds[:, None] - time) / fade_out_s[:, None]
    x = jnp.clip(jnp.minimum(time / fade_in_s, left), 0.0, 1.0)
    return audio * (x * x * (3.0 - 2.0 * x))[..., None]


@functools.cache
def _oversampling_filters(phases: int = 4, taps: int = 32) -> np.ndarray:
    """Polyphase interpolator for true peaks: sinc in a Kaiser window, float32 [phases, taps]."""
    n = np.arange(-taps // 2 + 1, taps // 2 + 1)[None, :] - np.arange(phases)[:, None] / phases
    window = np.i0(3.0 * np.sqrt(np.maximum(0.0, 1.0 - np.square(n / (taps / 2 + 0.5)))))
    return (np.sinc(n) * window / np.i0(3.0)).astype(np.float32)


def true_peaks(x: Float[Array, '*b S'], block: int) -> Float[Array, '*b N']:
    """True peak of each block: the largest |x| of samples and three points between (BS.1770).

    All points of a block are one matrix product of the samples in and around it.

    Args:
        x: samples; silence follows them.
        block: samples, at least 16; N = S / block, rounded up.
    """
    filters = _oversampling_filters()[1:]
    taps = filters.shape[1]
    left, right = taps // 2 - 1, taps // 2
    interpolate = np.zeros((block + taps - 1, len(filters), block), np.float32)
    for i in range(block):
        interpolate[i : i + taps, :, i] = filters.T
    count = -(-x.shape[-1] // block)
    lead = [(0, 0)] * (x.ndim - 1)
    padded = jnp.pad(x, [*lead, (block, (count + 1) * block - x.shape[-1])])
    blocks = padded.reshape(*x.shape[:-1], count + 2, block)
    here = blocks[..., 1:-1, :]
    around = [blocks[..., :-2, block - left :], here, blocks[..., 2:, :right]]
    points = jnp.concatenate(around, axis=-1) @ interpolate.reshape(len(interpolate), -1)
    return jnp.maximum(jnp.max(jnp.abs(here), axis=-1), jnp.max(jnp.abs(points), axis=-1))


def limit(
    audio: Float[Array, 'B S 2'], sample_rate: int, ceiling_db: float = -1.0
) -> Float[Array, 'B S 2']:
    """True-peak limiter with look-ahead, one gain for both channels.

    What has to be taken away, max(0, 1 - ceiling / true peak), is known once a millisecond: the
    largest in each, held over 5 ms on either side, averaged over 4 ms on either side and joined by
    straight lines. No average reaches beyond its hold, so no peak passes; and sound that stays
    below the ceiling passes unchanged. Of peaks that point to one side it takes away
    some mean, too: a sound 10 dB over keeps a constant part of about -60 dBFS. Of sound up to
    20 kHz the four points of a sample miss up to 0.28 dB of a peak, which is taken off the ceiling.

    Args:
        audio: samples; any level.
        sample_rate: Hz.
        ceiling_db: dB true peak.
    """
    samples = audio.shape[1]
    block = sample_rate // 1000
    ceiling = 10 ** ((ceiling_db - _PEAK_ERROR_DB) / 20)
    peak = jnp.max(true_peaks(jnp.moveaxis(audio, -1, 1), block), axis=1)
    excess = 1.0 - jnp.minimum(1.0, ceiling / jnp.maximum(peak, 1e-6))
    average = jnp.mean(_neighbours(jnp.max(_neighbours(excess, 5), axis=0), 4), axis=0)
    return audio * (1.0 - join_blocks(average, block)[:, :samples, None])


def join_blocks(values: Float[Array, 'B N'], block: int) -> Float[Array, 'B S']:
    """Interpolates linearly between the values of neighbouring blocks, placed at their middles."""
    before, here, after = _neighbours(values, 1)[..., None]
    place = jnp.expand_dims((jnp.arange(block) + 0.5) / block - 0.5, (0, 1))  # from the middle
    lines = (
        here + jnp.maximum(-place, 0.0) * (before - here) + jnp.maximum(place, 0.0) * (after - here)
    )
    return lines.reshape(len(values), -1)


def _neighbours(x: Float[Array, 'B N'], reach: int) -> Float[Array, 'R B N']:
    """x[n - reach] to x[n + reach], the ends repeated; R = 2 reach + 1."""
    padded = jnp.pad(x, [(0, 0), (reach, reach)], mode='edge')
    return jnp.stack([padded[:, i : i + x.shape[1]] for i in range(2 * reach + 1)])


def to_pcm16(audio: Array | np.ndarray) -> Array | np.ndarray:
    """Rounds float samples to 16-bit integers, saturating; 1.0 is 2^15, as in libsndfile.

    Args:
        audio: float, of any shape; numpy or JAX, as the result is.
    """
    return (audio * PCM_SCALE).round().clip(-PCM_SCALE, PCM_SCALE - 1).astype(np.int16)


def from_pcm16(pcm: Array | np.ndarray) -> Array | np.ndarray:
    """The inverse of `to_pcm16`: float32 in [-1, 1); numpy or JAX, as given."""
    return pcm.astype(np.float32) * np.float32(1 / PCM_SCALE)


def as_float(
    audio: np.ndarray, name: str = 'the sound', log: Callable[[str], None] | None = None
) -> np.ndarray:
    """Converts samples to float32 in [-1, 1]; integers are divided by their full scale.

    Args:
        audio: of any shape; floating point, or 8- to 32-bit integers (unsigned ones around their
            middle, as in WAV).
        name: for messages.
        log: called with one line where a peak above 1 was scaled to 1.

    Raises:
        ValueError: not numbers of such a type, not finite, or floats beyond `MAX_PEAK`.
    """
    audio = np.asarray(audio)
    if np.issubdtype(audio.dtype, np.integer) and audio.dtype.itemsize <= 4:
        scale = 2.0 ** (8 * audio.dtype.itemsize - 1)
        middle = scale if np.issubdtype(audio.dtype, np.unsignedinteger) else 0.0
        return ((audio - middle) / scale).astype(np.float32)
    if not np.issubdtype(audio.dtype, np.floating):
        raise ValueError(f'{name}: its type is {audio.dtype}; give floats in [-1, 1] or integers')
    peak = float(np.abs(audio).max(initial=0.0))
    if not math.isfinite(peak):
        raise ValueError(f'{name}: it holds NaN or infinite samples; leave it out or repair it')
    if peak > MAX_PEAK:
        raise ValueError(
            f'{name}: it holds samples up to {peak:.3g}, sound lies in [-1, 1]; divide it by its '
            'full scale'
        )
    audio = audio.astype(np.float32)
    if peak <= 1.0:
        return audio
    if log is not None:
        log(f'{name}: converted {PEAK_SCALED}')
    return audio / np.float32(peak)
