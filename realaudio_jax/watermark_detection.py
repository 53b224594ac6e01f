"""Finds the watermark in a sound: whether it is there, how surely, and what it says.

Of a sound of any rate, the log band levels of the autoencoder, every 5 ms, less each band's mean
(so a filter or a gain changes nothing), are projected on the decoder's directions and on its
latents by the linear estimator of least squared error for levels e = z D + n U + noise:

    n^ = (e - mean) (D^T D + U^T U + s^2 I)^-1 U^T,                                           (1)

z^ likewise by the encoder, less the mean of its neighbours in time. Estimates are brought to unit
variance in every column and frame, clipped, weighted by the correlation with n that eq. 1 expects
of each column, and correlated with the pilots of the key's tape at every start, at eight phases of
a latent frame, and at speeds from -1.5% to +1.5%:

    T(start) = sum n^[f, j] x[start + f, j] / sqrt(sum n^[f, j]^2).                           (2)

Whatever the sound is, T is standard normal over the draw of the key: without the mark, the largest
of N such numbers passes t with probability below p = N Q(t), which is the p-value; N counts every
start, phase, speed, statistic and window that was tried. Statistics are six: of texture, of latents
and of both, once from all levels and once from those that stand out of each band's floor, with
frames weighted by the square of how many do: noise that was added in the pauses of a sound, which
may be all but a tenth of a second of it, does not drown it.
"""

import dataclasses
import functools
import itertools
import math
import numbers
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import scipy.fft
import scipy.sparse
from scipy.special import log_ndtr, logsumexp

from realaudio_jax import watermark
from realaudio_jax.audio import as_float
from realaudio_jax.models.band_levels import BANDS, BINS, LEVEL_FLOOR, STRIDE, bin_to_band
from realaudio_jax.release import AUTOENCODER_NAME, find_release, read_tensors
from realaudio_jax.sound_files import stream_windows
from realaudio_jax.typing import LATENT_RATE, SAMPLE_RATE, Any, Float

WINDOW_S = 10.0  # s that are searched at once; of a longer sound one after the other
MIN_SECONDS = 0.5  # of sound, below which nothing can be said
MIN_RATE = 8_000  # Hz
FALSE_ALARM = 1e-3  # p-value below which the mark is called present
SURE = 0.9  # probability from which a payload is given
_STEP_S = 0.005  # between frames of the search
_PHASES = round(1 / LATENT_RATE / _STEP_S)
_MAX_SPEED = 0.015
_DRIFT_S = 0.02  # of a window's ends between neighbouring speeds
_NOISE = 0.05  # s^2 of eq. 1, nepers^2
_CLIP = 3.0
_STATISTICS = 6  # of texture, of latents, of both; twice
_SHARPNESS = 4  # power of the share of loud bands, for the square of the weight of a frame
_ABOVE_FLOOR = 1.5  # nepers over which a level comes to count among the loud ones
_FLOOR_QUANTILE = 0.1
_LEVEL = 0.07  # RMS that a sound is brought to
LEAST_LOG_P = -690.0  # ln p below which no double holds p: it is given as this
_CERTAIN = -25.0  # ln p at which the search ends
_BLOCK = 500  # frames transformed at once


@dataclasses.dataclass(frozen=True)
class Detection:
    """What was found.

    Attributes:
        present: whether the mark of the key is there; None where that cannot be told.
        p_value: probability of as clear a mark in a sound without it; 1 where nothing was searched.
        score: the largest statistic, in standard deviations.
        payload: 32 bits, of a sound made with up to 2 s 16; None where not read surely.
        payload_bits: 32 or 16; 0 without a payload.
        payload_probability: that the payload is right, if the mark is there.
        speed: of the sound over that of the marked one.
        at_s: where the window with the largest statistic starts, s.
        reason: why it cannot be told; empty otherwise.
    """

    present: bool | None
    p_value: float = 1.0
    score: float = 0.0
    payload: int | None = None
    payload_bits: int = 0
    payload_probability: float = 0.0
    speed: float = 1.0
    at_s: float = 0.0
    reason: str = ''


@dataclasses.dataclass(frozen=True)
class _Match:
    """The best place of a search."""

    score: float
    loud: bool
    phase: int
    start: int
    speed: float


@dataclasses.dataclass(frozen=True)
class _Columns:
    """What the key gives for one part of the tape."""

    project: Float[np.ndarray, 'E R']
    expected: Float[np.ndarray, 'R']
    carrier: Float[np.ndarray, 'P R']
    chips: dict[int, np.ndarray]  # by halves of the payload
    roles: dict[int, np.ndarray]
    pilots: np.ndarray

    @classmethod
    def of(cls, key: bytes, name: str, project: np.ndarray, expected: np.ndarray) -> '_Columns':
        count = project.shape[1]
        carrier, forms = watermark.carrier(key, name, count), (1, watermark.HALVES)
        roles = {halves: watermark.roles(count, halves) for halves in forms}
        chips = {halves: watermark.chips(key, name, count, halves) for halves in forms}
        return cls(project, expected, carrier, chips, roles, roles[1] < 0)


class Detector:
    """Finds the marks of one key.

    Args:
        key: its bytes.
        autoencoder: the safetensors file of the release's autoencoder.
    """

    def __init__(self, key: bytes, autoencoder: str | os.PathLike):
        watermark.Watermark(key)  # or ValueError
        texture, latents = _projections(os.fspath(autoencoder))
        self._parts = (
            _Columns.of(key, 'texture', *texture),
            _Columns.of(key, 'latents', *latents),
        )

    def __call__(self, audio: np.ndarray, sample_rate: int | float) -> Detection:
        """Searches a sound in memory.

        Args:
            audio: [S] or [S, A], floats or integers; of several channels the first two count.
            sample_rate: Hz, 8,000 or more.

        Raises:
            ValueError: another shape or rate, or samples that `audio.as_float` refuses.
        """
        audio = _checked(audio, sample_rate)
        rate = round(sample_rate)
        return self.search(windows(audio, rate), rate)

    def search(
        self, parts: Iterable[tuple[float, Float[np.ndarray, 'S A']]], sample_rate: int
    ) -> Detection:
        """Searches windows of one sound, one after the other.

        Args:
            parts: (seconds at which it starts, samples), none longer than WINDOW_S.
            sample_rate: Hz.
        """
        best, tests, longest = None, 0, 0.0
        for at_s, audio in parts:
            longest = max(longest, len(audio) / sample_rate)
            power = _power(audio, sample_rate)
            if power is None:
                continue
            match, count = self._search_window(power, sample_rate)
            tests += count
            if best is None or match.score > best[0].score:
                best = match, at_s, power
            if _log_p(match.score, tests) < _CERTAIN:
                break
        if best is None:
            short = longest < MIN_SECONDS
            return Detection(
                None,
                reason=f'too short to tell, {longest:.2f} s of {MIN_SECONDS:g}'
                if short
                else 'silent',
            )
        match, at_s, power = best
        p_value = float(np.exp(max(min(_log_p(match.score, tests), 0.0), LEAST_LOG_P)))
        found = Detection(p_value < FALSE_ALARM, p_value, match.score, speed=match.speed, at_s=at_s)
        if not found.present:
            return found
        payload, bits, sure = self._payload(power, sample_rate, match)
        read = {'payload': payload, 'payload_bits': bits} if sure >= SURE else {}
        return dataclasses.replace(found, payload_probability=sure, **read)

    def _search_window(self, power: np.ndarray, sample_rate: int) -> tuple[_Match, int]:
        """The best match of a window, and how many places were or would have been tried."""
        speeds = _speeds(power.shape[-1] * _STEP_S)
        tests = len(speeds) * _STATISTICS * _PHASES * watermark.TAPE_FRAMES
        best = None
        for speed in speeds:
            match = self._match(power, sample_rate, speed)
            if best is None or match.score > best.score:
                best = match
            if _log_p(best.score, tests) < _CERTAIN:
                break
        return best, tests

    def _match(self, power: np.ndarray, sample_rate: int, speed: float) -> _Match:
        """The best start and phase at one speed."""
        rows = _frames(power.shape[-1], speed)
        best = _Match(-np.inf, False, 0, 0, speed)
        for loud, levels, weight in _both_levels(power, sample_rate, speed):
            of_parts = []
            for part, estimate in self._estimates(levels, weight, rows, True):
                of_parts.append(_correlations(estimate, part.carrier[:, part.pilots]))
            for scores in (*of_parts, (of_parts[0] + of_parts[1]) / np.sqrt(2)):
                phase, start = np.unravel_index(np.argmax(scores), scores.shape)
                if scores[phase, start] > best.score:
                    score = float(scores[phase, start])
                    best = _Match(score, loud, int(phase), int(start), speed)
        return best

    def _estimates(
        self, levels: np.ndarray, weight: np.ndarray, rows: np.ndarray, pilots: bool
    ) -> Iterator[tuple[_Columns, np.ndarray]]:
        """n^ of eq. 1, then z^, standardised; [phases, L, R] of pilots alone or of all columns."""
        for i, part in enumerate(self._parts):
            project = part.project[:, part.pilots] if pilots else part.project
            project = project.reshape(STRIDE, 2 * BANDS, -1)
            estimate = sum((levels @ project[j])[rows[..., j]] for j in range(STRIDE))
            if i == 1:  # what neighbours in time tell of a latent is the sound's own
                around = np.pad(estimate, [(0, 0), (1, 1), (0, 0)], mode='edge')
                estimate = estimate - (around[:, :-2] + around[:, 2:]) / 2
            expected = part.expected[part.pilots] if pilots else part.expected
            yield part, expected * _standardised(estimate, weight[rows].mean(axis=-1)[..., None])

    def _payload(
        self, power: np.ndarray, sample_rate: int, match: _Match
    ) -> tuple[int, int, float]:
        """The likeliest payload at a match, its bits, and its probability."""
        step = _speed_step(power.shape[-1] * _STEP_S)
        near = [match.speed + step * offset for offset in (-0.5, -0.25, 0.25, 0.5)]
        *payload, sure = self._decode(power, sample_rate, match)
        if sure < 1 - 1e-3:
            best = max((self._match(power, sample_rate, s) for s in near), key=lambda m: m.score)
            if best.score > match.score:
                *payload, sure = self._decode(power, sample_rate, best)
        return *payload, sure

    def _decode(self, power: np.ndarray, sample_rate: int, match: _Match) -> tuple[int, int, float]:
        rows = _frames(power.shape[-1], match.speed)[match.phase][None]
        both = _both_levels(power, sample_rate, match.speed)
        levels, weight = next(rest for loud, *rest in both if loud == match.loud)
        place = (match.start + np.arange(rows.shape[1])) % watermark.TAPE_FRAMES
        soft = {n: np.zeros((n, watermark.CHIPS)) for n in (1, watermark.HALVES)}
        for part, estimate in self._estimates(levels, weight, rows, False):
            product, square = estimate[0] * part.carrier[place], np.square(estimate[0])
            # Of the estimate of a frame that counts fully; that of others is less by their weight.
            slope = product[:, part.pilots].sum() / max(square[:, part.pilots].sum(), 1e-9)
            slope = np.clip(slope, 0.0, 0.95)
            noise = 1 - slope**2 * np.minimum(square.mean(axis=1), 1.0)
            product *= (slope / noise)[:, None]  # halves of log likelihood ratios
            for halves, i in ((1, 0), *((watermark.HALVES, i) for i in range(watermark.HALVES))):
                mine = part.roles[halves] == i
                soft[halves][i] += np.bincount(
                    part.chips[halves][place][:, mine].ravel(),
                    product[:, mine].ravel(),
                    watermark.CHIPS,
                )
        found = []
        for halves, values in soft.items():
            scores = _hadamard(values)
            scores = np.concatenate([scores, -scores], axis=1)
            best, total = scores.argmax(axis=1), logsumexp(scores, axis=1)
            payload = sum(int(value) << 16 * i for i, value in enumerate(best))
            # All payloads of both forms are as likely beforehand.
            evidence = float(np.sum(total - np.log(scores.shape[1])))
            sure = float(np.sum(scores.max(axis=1) - total))
            found.append((evidence, payload, 16 * halves, sure))
        evidence, payload, bits, sure = max(found)
        return payload, bits, float(np.exp(evidence + sure - logsumexp([f[0] for f in found])))


def _correlations(
    estimate: Float[np.ndarray, 'H L R'], tape: Float[np.ndarray, 'P R']
) -> Float[np.ndarray, 'H P']:
    """T of eq. 2 at every start on a tape that comes round."""
    phases, length, columns = estimate.shape
    around = tape[np.arange(len(tape) + length - 1) % len(tape)]
    products = (estimate.reshape(-1, columns) @ around.T).reshape(phases, length, -1)
    # Frame f meets the tape at start + f: the sums run along diagonals.
    phase, frame, place = products.strides
    diagonals = np.lib.stride_tricks.as_strided(
        products, (phases, length, len(tape)), (phase, frame + place, place), writeable=False
    )
    size = np.sqrt(np.sum(np.square(estimate), axis=(1, 2)))
    return diagonals.sum(axis=1) / np.maximum(size, 1e-9)[:, None]


def _hadamard(x: Float[np.ndarray, 'H K']) -> Float[np.ndarray, 'H K']:
    """Products with every row of the Hadamard matrix, by the fast transform."""
    half = 1
    while half < x.shape[1]:
        pairs = x.reshape(len(x), -1, 2, half)
        x = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2)
        x = x.reshape(len(x), -1)
        half *= 2
    return x


def detect(
    audio: np.ndarray,
    key: bytes = watermark.PUBLIC_KEY,
    sample_rate: int | float = SAMPLE_RATE,
    release: str | os.PathLike = 'foley',
) -> Detection:
    """Looks for the mark of a key in a sound; for many sounds keep a `Detector`.

    Args:
        audio: [S] or [S, A], floats or integers; of several channels the first two count.
        key: its bytes, see `watermark.read_key`.
        sample_rate: Hz, 8,000 or more.
        release: that may have made the sound, by name or folder.

    Raises:
        ValueError: another shape or rate, samples that `audio.as_float` refuses, or a key of the
            wrong size.
        FileNotFoundError: no such release.
    """
    return Detector(key, find_release(release) / AUTOENCODER_NAME)(audio, sample_rate)


def detect_file(
    path: str | os.PathLike,
    detector: Detector,
    watch: Callable[[float], None] = lambda at_s: None,
) -> Detection:
    """Looks for a mark in a sound file of any length, one window in memory at a time.

    Args:
        path: see `sound_files.read_sound`; of any length.
        detector: of the key.
        watch: called with the second at which each window starts, before it is searched.

    Raises:
        FileNotFoundError, OSError, ValueError: as `sound_files.stream_windows`.
    """
    parts = stream_windows(path, WINDOW_S)
    rate, *first = next(parts)

    def watched():
        for at_s, audio in itertools.chain([first], ((at_s, audio) for _, at_s, audio in parts)):
            watch(at_s)
            yield at_s, audio

    return detector.search(watched(), rate)


def windows(
    audio: Float[np.ndarray, 'S A'], sample_rate: int
) -> Iterator[tuple[float, Float[np.ndarray, 'S A']]]:
    """Cuts a sound into windows of WINDOW_S; the last one reaches back to be as long."""
    size = round(WINDOW_S * sample_rate)
    for first in range(0, max(len(audio) - round(MIN_SECONDS * sample_rate), 1), size):
        first = max(0, min(first, len(audio) - size))
        yield first / sample_rate, audio[first : first + size]


def _checked(audio: Any, sample_rate: Any) -> Float[np.ndarray, 'S A']:
    audio = np.asarray(audio)
    channels = audio.shape[1] if audio.ndim == 2 else 1
    swapped = 0 < len(audio) < channels > 2 if audio.ndim else False
    if audio.ndim not in (1, 2) or channels == 0 or swapped:
        raise ValueError(f'audio has shape {audio.shape}; give [samples] or [samples, channels]')
    is_number = isinstance(sample_rate, numbers.Real) and not isinstance(sample_rate, bool)
    if not is_number or not MIN_RATE <= sample_rate < math.inf:
        raise ValueError(f'sample rate {sample_rate!r} Hz; give 8000 or more')
    return as_float(audio[:, :2] if audio.ndim == 2 else audio[:, None], 'audio')


@functools.cache
def _projections(path: str) -> list[tuple[Float[np.ndarray, 'E R'], Float[np.ndarray, 'R']]]:
    """The estimators of eq. 1, and the correlation of each estimate with what it estimates.

    First those of a decoder's directions, then those of latents, taken to be alike.
    """
    tensors = read_tensors(path)
    decoder, encoder = 'params/decoder', 'params/encoder'
    directions = np.float64(tensors[f'{decoder}/residual'])
    kernel = np.float64(tensors[f'{decoder}/kernel'])
    covariance = kernel.T @ kernel + directions.T @ directions + _NOISE * np.eye(len(kernel.T))
    project = np.linalg.solve(covariance, directions.T)
    expected = np.sqrt(np.sum(directions.T * project, axis=0))
    latents = np.float32(tensors[f'{encoder}/kernel'])
    return [
        (np.float32(project), np.float32(expected)),
        (latents, np.ones(latents.shape[1], np.float32)),
    ]


def _power(audio: Float[np.ndarray, 'S A'], sample_rate: int) -> Float[np.ndarray, 'K 2 N'] | None:
    """Powers of mid and side in bins of about 25 Hz, every 5 ms; None for too little sound."""
    count = int(len(audio) / sample_rate / _STEP_S)
    left, right = audio[:, 0], audio[:, -1]
    channels = np.stack([left + right, left - right]) / 2
    size = np.sqrt(np.mean(np.square(channels))) if audio.size else 0.0
    if count * _STEP_S < MIN_SECONDS - _STEP_S or size < 1e-6:
        return None
    n_fft = round(sample_rate / 25)
    window = np.float32(np.sin(np.pi * np.arange(n_fft) / n_fft) ** 2)
    window *= SAMPLE_RATE / sample_rate * _LEVEL / size
    padded = np.pad(channels, [(0, 0), (n_fft, n_fft)])
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft, axis=1)
    middle = np.round(np.arange(1, count + 1) * _STEP_S * sample_rate).astype(int)
    first = middle + n_fft - n_fft // 2  # within the padding
    power = np.empty((min(n_fft // 2 + 1, BINS), 2, count), np.float32)
    for i in range(0, count, _BLOCK):
        spectrum = scipy.fft.rfft(frames[:, first[i : i + _BLOCK]] * window)[..., : len(power)]
        square = np.square(spectrum.real) + np.square(spectrum.imag)
        power[..., i : i + _BLOCK] = np.moveaxis(square, -1, 0)
    return power


def _both_levels(
    power: Float[np.ndarray, 'K 2 N'], sample_rate: int, speed: float
) -> Iterator[tuple[bool, np.ndarray, np.ndarray]]:
    """Levels [N, 2 BANDS] about their means, and what each frame counts; all, then loud ones."""
    bin_hz = sample_rate / round(sample_rate / 25)
    position = bin_to_band(np.arange(len(power)) * (bin_hz / 25 / speed))
    shapes = np.maximum(0, 1 - np.abs(position[None] - np.arange(BANDS)[:, None]))
    area = shapes.sum(axis=1, keepdims=True)
    averages = scipy.sparse.csr_matrix(np.float32(shapes / np.maximum(area, 1e-6)))
    mean = averages @ power.reshape(len(power), -1)  # a bin lies in two bands at most
    level = np.log(np.sqrt(mean + 1e-12) + LEVEL_FLOOR).reshape(BANDS, 2, -1)
    level = level.transpose(2, 1, 0).reshape(-1, 2 * BANDS)
    known = np.tile(area[:, 0] > 0.3, 2)
    heard = (level > np.log(LEVEL_FLOOR) + 0.7) & known
    active = np.mean(heard, axis=1) > 0.05
    if not active.any():
        active[:] = True
    weight = active.astype(np.float32)
    about = (level - level[active].mean(axis=0)) * (known & active[:, None])
    yield False, about, weight
    floor = np.quantile(level[active][::4], _FLOOR_QUANTILE, axis=0)
    above = np.clip((level - floor) / _ABOVE_FLOOR, 0.0, 1.0) * (known & active[:, None])
    mean = np.sum(above * level, axis=0) / np.maximum(np.sum(above, axis=0), 1e-3)
    share = above[:, known].mean(axis=1)
    yield True, np.float32((level - mean) * above), np.float32(share**_SHARPNESS)


def _standardised(
    estimate: Float[np.ndarray, 'H L R'], weight: Float[np.ndarray, 'H L 1']
) -> Float[np.ndarray, 'H L R']:
    """Estimates of unit variance in columns and frames, clipped, times the weight of frames."""
    total = np.maximum(weight.sum(axis=1, keepdims=True), 1e-6)
    estimate = estimate - np.sum(weight * estimate, axis=1, keepdims=True) / total
    for _ in range(2):
        column = np.sum(weight * np.square(estimate), axis=1, keepdims=True) / total
        estimate = estimate / np.sqrt(column + 1e-9)
        frame = np.mean(np.square(estimate), axis=2, keepdims=True)
        estimate = estimate / np.sqrt(frame + 1e-9)
    return np.clip(estimate, -_CLIP, _CLIP) * np.sqrt(weight)


def _frames(count: int, speed: float) -> np.ndarray:
    """Which of `count` frames are those of each latent frame at each phase; [phases, L, STRIDE]."""
    length = int((count * speed - _PHASES) // _PHASES)
    phase = np.arange(_PHASES)[:, None, None]
    latent = np.arange(length)[:, None] * _PHASES
    inside = (np.arange(STRIDE) + 0.5) * (_PHASES / STRIDE)
    place = (phase + latent + inside) / speed - 1
    return np.round(place).astype(int).clip(0, count - 1)


def _speed_step(seconds: float) -> float:
    return float(np.clip(_DRIFT_S / seconds, 0.002, 0.0075))


def _speeds(seconds: float) -> list[float]:
    """Speeds to try, the nearest to 1 first."""
    step = _speed_step(seconds)
    count = int(np.ceil(_MAX_SPEED / step - 1e-6))
    speeds = 1 + np.arange(-count, count + 1) * (_MAX_SPEED / count)
    return sorted(map(float, speeds), key=lambda speed: abs(speed - 1))


def _log_p(score: float, tests: int) -> float:
    return float(log_ndtr(-score) + np.log(tests))
