"""Synthesis of audio from band levels: magnitudes with these levels, phases of tone and noise.

**Magnitudes.** Band levels e become bin magnitudes that have these levels in their bands and their
frames, by the multiplicative updates of Lee & Seung 1999 for one fixed factor, B:

    P <- P . (B^T (e^2 / B P)).                                                               (1)

B is that of bands. Frames overlap as well, which smears what rises and falls: one update with the B
of frames makes up for it where no line is, and about attacks, which the window spreads ahead of
them, more updates do for the envelope of the sound.

**Tone** is where a band stands out of its neighbours, with at least 7.4 times their power, in the
levels that are expected of a sound rather than drawn, smoothed over 70 ms where they are steady.
Its frequency f is the centroid of the bands' energies: triangles that sum to one have the centroid
of what lies beneath them, which is right to a tenth of a Hz where levels are exact. Levels from a
code are not: above 700 Hz, where a line lies in two or three bands, the centroid of their
amplitudes is nearer (3 Hz by the code of 64 numbers, where that of energies is off by 6 to 9).
About a line the magnitudes are those of the window's transform, W, and phases advance (Beauregard
et al. 2015, sec. 3):

    X_n(k) = W(k - f) exp(i (theta_n + pi k)),        theta_n = theta_(n-1) + 2 pi f R / rate,  (2)

with R the hop; pi k, since frames start half a window before their centre. A line's phase remembers
its own beginning, and nothing before: it starts from noise.

**Noise** elsewhere: phases of white noise, drawn for each latent frame. Last, an iteration towards
a consistent spectrum (Griffin & Lim 1984, sec. III) for all bins below 8 kHz:

    X <- |X| STFT(iSTFT(X)) / |STFT(iSTFT(X))|.                                               (3)

They are transformed at a rate of 16 kHz, which takes a third of the time of all bins; what lies
above has wide bands of noise.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import audio as audio_lib
from realaudio_jax.models.band_levels import (
    BANDS,
    LEVEL_FLOOR,
    STRIDE,
    band_averages,
    band_shapes,
    band_to_bin,
    bin_to_band,
)
from realaudio_jax.random import random_key
from realaudio_jax.typing import SAMPLE_RATE, Array, Bool, Float, Int, Key

_LEVEL_RANGE = (-4.6, 8.0)  # of decoded levels: from silence to above full scale
_SHARP_BINS = 320  # 8 kHz: wider bands hold no single partial to be found
_TONE_BINS = 240  # 6 kHz: above it, a line looks like a narrow band of noise
_TONE_BANDS = int(np.ceil(bin_to_band(np.arange(_TONE_BINS))[-1])) + 1
_OVERLAP_REACH = 2  # frames on either side; windows further away barely meet
SHARPENING = 4  # iterations of eq. 1 along frequency
ATTACK_RATIO = 10.0  # of power within 40 ms, from which frames count as about an attack
ATTACK_UPDATES = 30  # iterations of eq. 1 along time
_BLOCKS = 4  # of 2.5 ms in a hop, of an attack's envelope
_MOST_GAIN = 2.0
CONSISTENCY = 1  # of eq. 3: a second one costs a fifth of decoding
_NOISE_SEED = 0
NOISE_PERIOD = 64  # latent frames, 2.56 s
# Of levels, in frames: nothing is left of what comes round with every latent frame.
_SMOOTHING = np.convolve(np.ones(STRIDE), np.ones(STRIDE)) / STRIDE**2
_STEADY = 0.5  # nepers: a level that moves by as much within the smoothing is no longer steady
_NEIGHBOURS = 6  # bands on either side of which a line stands out
_PROMINENCE = 1.0  # nepers: 7.4 times the power
_CENTROID_REACH = 2  # bands on either side of a line
_CENTROID_BINS = 5.5  # but no further from it
_NARROW_BINS = 1.5  # bands closer than that count by their energies in a centroid
_LOBE_BINS = 2.0  # half width of the window's main lobe
_LOBE_BANDS = 3  # the same in bands, where these are narrowest
_VALLEY = 0.03  # of what lies between lines is left under a line's skirt


class Lines(NamedTuple):
    """Spectral lines (partials of tone) by band, each leaf [B 2 N M].

    Attributes:
        present: whether a band is the middle of a line.
        frequency: in bins.
        power: of the whole line, as the sum over its bins.
    """

    present: Array
    frequency: Array
    power: Array


class Phases(NamedTuple):
    """Phases of lines by band at the end of a latent frame; each leaf [B 2 M].

    Attributes:
        cosine, sine: of theta_n of eq. 2, or of noise in bands without a line.
    """

    cosine: Array
    sine: Array


def no_phases(batch: int) -> Phases:
    """Those that nobody needs, as before the first frame of a sound."""
    return Phases(*(jnp.zeros((batch, 2, _TONE_BANDS)) for _ in range(2)))


def synthesize(
    levels: Float[Array, 'B L E'],
    sample_rate: int,
    latent_mask: Float[Array, 'B L'] | None = None,
    expected: Float[Array, 'B L E'] | None = None,
) -> Float[Array, 'B S 2']:
    """Synthesises audio whose bands have the given levels.

    Args:
        levels: as `band_levels` gives them.
        sample_rate: Hz.
        latent_mask: 1 for real frames, 0 for padding at the end.
        expected: mean levels, where `levels` are a draw about them: tone is found in these, and has
            them. None: the levels are exact.
    """
    audio, _ = synthesize_part(levels, sample_rate, latent_mask, expected)
    return audio


def synthesize_part(
    levels: Float[Array, 'B L E'],
    sample_rate: int,
    latent_mask: Float[Array, 'B L'] | None = None,
    expected: Float[Array, 'B L E'] | None = None,
    frames: Int[Array, 'L'] | None = None,
    phases: Phases | None = None,
    begin: int = 0,
    end: int = 0,
) -> tuple[Float[Array, 'B S 2'], Phases]:
    """`synthesize` for a part of a longer sound: its middle is as if the whole were made at once.

    What a frame sounds like depends on frames within some 0.2 s of it, and on the phases of lines,
    which go on from frame to frame: these are an argument and a result.

    Args:
        levels: see `synthesize`.
        sample_rate: Hz.
        latent_mask: 1 for frames of the sound, 0 for padding at either end.
        expected: see `synthesize`.
        frames: which latent frames of the whole sound these are, for noise; None: the first ones.
        phases: of lines before frame `begin` of the part. Where padding ends, they start anew.
        begin: frame of the part at which `phases` count.
        end: frame of the part before which phases are returned; 0 is the end.

    Returns:
        The sound of the part, and the phases of its lines before frame `end`.
    """
    n_fft, hop = audio_lib.stft_size(sample_rate)
    batch, length, _ = levels.shape
    frame_mask = jnp.ones((batch, length)) if latent_mask is None else latent_mask
    frame_mask = jnp.repeat(jnp.repeat(frame_mask, STRIDE, axis=1)[:, None], 2, axis=1)
    power = _powers(levels)
    steady = _steady_levels(power if expected is None else _powers(expected), frame_mask)
    lines = _find_lines(steady)
    power = _with_lines(power, lines, steady) * frame_mask[..., None]
    attacks = _near_attacks(power, frame_mask)
    low, high = _bin_magnitudes(_less_overlap(power, attacks, lines), n_fft // 2 + 1)
    noise = _noise_phases(length, n_fft // 2 + 1, frames)
    state = None if phases is None else (phases, begin * STRIDE, frame_mask)
    low_noise = (x[..., :_SHARP_BINS] for x in noise)
    high_noise = [x[..., _SHARP_BINS:] for x in noise]
    low, real, imaginary, found = _with_tone(low, *low_noise, lines, state)
    real_frames = None if latent_mask is None else frame_mask
    for _ in range(CONSISTENCY):
        real, imaginary = _more_consistent(low, real, imaginary, real_frames)
    real, imaginary = (
        jnp.concatenate([low * below, high * above], axis=-1)
        for below, above in zip((real, imaginary), high_noise, strict=True)
    )
    spectrum = jax.lax.complex(real, imaginary)
    channels = audio_lib.istft(spectrum, n_fft, hop, real_frames)
    channels = (
        channels * _attack_gain(power, attacks, frame_mask, hop) * (sample_rate / SAMPLE_RATE)
    )
    last = (end or length) * STRIDE - 1
    found = Phases(*(x[:, :, last] for x in found))
    return audio_lib.left_right(jnp.moveaxis(channels, 1, -1)), found


def _powers(levels: Float[Array, 'B L E']) -> Float[Array, 'B 2 N M']:
    batch, length, _ = levels.shape
    levels = jnp.moveaxis(levels.reshape(batch, length * STRIDE, 2, BANDS), 2, 1)
    level = jnp.exp(jnp.clip(levels, *_LEVEL_RANGE)) - LEVEL_FLOOR
    return jnp.square(jnp.maximum(level, 1e-5))


def _steady_levels(
    power: Float[Array, 'B 2 N M'], frame_mask: Float[Array, 'B 2 N']
) -> Float[Array, 'B 2 N T']:
    """Log levels of the bands that may hold a line, smoothed in time where they are steady."""
    level = 0.5 * jnp.log(power[..., : _TONE_BANDS + _CENTROID_REACH])
    mask = frame_mask[..., None]
    reach = len(_SMOOTHING) // 2

    def smooth(x):
        x = jnp.pad(x, [(0, 0), (0, 0), (reach, reach), (0, 0)])
        count = level.shape[2]
        return sum(w * x[:, :, i : i + count] for i, w in enumerate(_SMOOTHING.tolist()))

    # Frames beyond either end and padding have no weight.
    smoothed = smooth(level * mask) / jnp.maximum(smooth(mask), 1e-3)
    steady = jnp.clip(1.5 - jnp.abs(level - smoothed) / _STEADY, 0.0, 1.0)
    return steady * smoothed + (1.0 - steady) * level


def _find_lines(level: Float[Array, 'B 2 N T']) -> Lines:
    """Lines in the log levels of the lowest bands; see the module's text."""
    count = _TONE_BANDS
    side = [(0, 0)] * 3
    around = jnp.pad(level, [*side, (_NEIGHBOURS, _NEIGHBOURS)], mode='edge')
    width = 2 * _NEIGHBOURS + 1
    around = sum(around[..., i : i + count] for i in range(width)) / width
    here = level[..., :count]
    lower = jnp.pad(here, [*side, (1, 0)], constant_values=jnp.inf)[..., :count]
    present = (here >= lower) & (here > level[..., 1 : count + 1])
    present &= here - around > _PROMINENCE

    areas = band_shapes().sum(axis=1)[: level.shape[-1]]
    energy = jnp.exp(2 * level) * jnp.broadcast_to(areas, level.shape)
    weight = jnp.where(
        jnp.broadcast_to(jnp.asarray(_narrow_bands()), level.shape), energy, jnp.sqrt(energy)
    )
    weight, energy = (jnp.pad(x, [*side, (_CENTROID_REACH, 0)]) for x in (weight, energy))
    total = moment = power = 0.0
    for step, near in _centroid_window().items():
        near = jnp.broadcast_to(near, here.shape)
        part = weight[..., _CENTROID_REACH + step :][..., :count] * near
        total, moment = total + part, moment + step * part
        power = power + energy[..., _CENTROID_REACH + step :][..., :count] * near
    bands = jnp.broadcast_to(jnp.arange(count, dtype=level.dtype), total.shape)
    frequency = band_to_bin(bands + moment / jnp.maximum(total, 1e-12))
    return Lines(present, frequency, power)


def _narrow_bands() -> np.ndarray:
    """Whether a main lobe spans several bands, of those that may hold a line and those beside."""
    spacing = np.gradient(band_to_bin(np.arange(float(BANDS))))
    return spacing[: _TONE_BANDS + _CENTROID_REACH] < _NARROW_BINS


def _centroid_window() -> dict[int, np.ndarray]:
    """Which bands are a line's in each: those that its main lobe can reach, the next at least."""
    bands = np.arange(_TONE_BANDS)
    peaks = band_to_bin(np.arange(float(BANDS)))
    window = {}
    for step in range(-_CENTROID_REACH, _CENTROID_REACH + 1):
        span = np.abs(peaks[np.clip(bands + step, 0, BANDS - 1)] - peaks[bands])
        window[step] = ((span <= _CENTROID_BINS) | (abs(step) <= 1)).astype(np.float32)
    return window


def _with_lines(
    power: Float[Array, 'B 2 N M'], lines: Lines, level: Float[Array, 'B 2 N T']
) -> Float[Array, 'B 2 N M']:
    """Powers with the steady ones in the bands of lines: a draw is for texture alone."""
    steady = jnp.exp(2 * level[..., :_TONE_BANDS])
    low = jnp.where(_bands_of_lines(lines), steady, power[..., :_TONE_BANDS])
    return jnp.concatenate([low, power[..., _TONE_BANDS:]], axis=-1)


def _bands_of_lines(lines: Lines) -> Bool[Array, 'B 2 N M']:
    """The bands in which lines are, and those next to them."""
    present = jnp.pad(lines.present, [(0, 0)] * 3 + [(1, 1)])
    return present[..., :-2] | present[..., 1:-1] | present[..., 2:]


def _less_overlap(
    power: Float[Array, 'B 2 N M'], attacks: Bool[Array, 'B 2 N'], lines: Lines
) -> Float[Array, 'B 2 N M']:
    """Powers that are nearer to `power` once frames overlap: one update of eq. 1 along time.

    Those about attacks, whose envelope is found from powers as they are, and those of lines stay.
    """
    count = power.shape[2]

    def overlapped(x):
        x = jnp.pad(x, [(0, 0), (0, 0), (_OVERLAP_REACH, _OVERLAP_REACH), (0, 0)])
        return sum(w * x[:, :, i : i + count] for i, w in enumerate(_frame_overlap()))

    edges = [(0, 0)] * 3 + [(0, power.shape[-1] - _TONE_BANDS)]
    stays = jnp.pad(_bands_of_lines(lines), edges) | attacks[..., None]
    return jnp.where(stays, power, power * overlapped(power / (overlapped(power) + 1e-12)))


def _frame_overlap() -> list[float]:
    """How much of the power set in one frame is found in it and its neighbours; sums to one."""
    n_fft, hop = audio_lib.stft_size(SAMPLE_RATE)
    power = np.square(audio_lib.hann(n_fft))
    shifts = np.abs(np.arange(-_OVERLAP_REACH, _OVERLAP_REACH + 1)) * hop
    products = np.array([power[shift:] @ power[: n_fft - shift] for shift in shifts])
    return (products / products.sum()).tolist()


def _with_tone(
    size: Float[Array, 'B 2 N K'],
    real: Float[Array, '1 2 N K'],
    imaginary: Float[Array, '1 2 N K'],
    lines: Lines,
    state: tuple[Phases, int, Array] | None = None,
) -> tuple[Array, Array, Array, tuple[Array, Array]]:
    """Magnitudes and phases with those of eq. 2 about every line, [B 2 N K]; and `_line_phases`."""
    count = _TONE_BINS
    turned = jnp.asarray(1.0 - 2.0 * (np.arange(count) % 2), size.dtype)  # exp(i pi k)
    turned = jnp.broadcast_to(turned, (1, 1, 1, count))
    middles = np.round(band_to_bin(np.arange(float(_TONE_BANDS)))).astype(int).clip(0, count - 1)
    start = (x[..., middles] * turned[..., middles] for x in (real, imaginary))
    found = cosine, sine = _line_phases(lines, *start, state)
    distance, tone, power, cosine, sine = _by_bin(lines, cosine, sine)

    # Padded and chosen, which is part of the next pass; side by side would be a pass of its own.
    edges = [(0, 0)] * 3 + [(0, size.shape[-1] - count)]
    line = jnp.pad(power * _lobe(distance), edges)
    turned = jnp.broadcast_to(turned, tone.shape)
    cosine, sine = (jnp.pad(phase * turned, edges) for phase in (cosine, sine))
    tone = jnp.pad(tone, edges)
    size = jnp.where(tone, jnp.sqrt(line + jnp.square(_VALLEY * size)), size)
    real, imaginary = (
        jnp.where(tone, phase, jnp.broadcast_to(noise, tone.shape))
        for phase, noise in ((cosine, real), (sine, imaginary))
    )
    return size, real, imaginary, found


def _line_phases(
    lines: Lines,
    real: Float[Array, '1 2 N M'],
    imaginary: Float[Array, '1 2 N M'],
    given: tuple[Phases, int, Array] | None = None,
) -> tuple[Float[Array, 'B 2 N M'], Float[Array, 'B 2 N M']]:
    """cos and sin of theta_n of eq. 2 of the line in each band, or of noise where there is none.

    A line hands its phase on to the band above and below, for it may be there in the next frame.
    Before the first frame of a sound there is the noise of that frame. `given` are phases, the
    frame before which they count, and the mask of frames, where a sound begins after padding.
    """
    advance = 2 * np.pi * (audio_lib.BIN_HZ / audio_lib.FRAME_RATE) * lines.frequency
    present = jnp.pad(lines.present, [(0, 0)] * 3 + [(1, 1)])
    noise = [jnp.broadcast_to(x, advance.shape) for x in (real, imaginary)]
    here_below_above = present[..., 1:-1], present[..., :-2], present[..., 2:]
    frames = (jnp.cos(advance), jnp.sin(advance), *noise, *here_below_above)
    count = advance.shape[2]
    if given is None:
        replaced = begins = jnp.zeros(count, bool)
    else:
        phases, begin, mask = given
        replaced = jnp.arange(count) == begin
        begins = jnp.pad((mask[0, 0, 1:] > 0) & (mask[0, 0, :-1] == 0), (1, 0))
    frames = [replaced, begins, *(jnp.moveaxis(x, 2, 0) for x in frames)]
    # A loop over frames costs a GPU a launch for each: there all are composed in ten rounds.
    found = jax.lax.platform_dependent(
        frames, None if given is None else phases, cpu=_phases_in_turn, default=_phases_at_once
    )
    return tuple(jnp.moveaxis(x, 0, 2) for x in found)


def _phases_in_turn(frames: list[Array], given: Phases | None) -> tuple[Array, Array]:
    """`_line_phases` frame by frame, [N B 2 M]; `frames` are what changes each."""

    def step(state, frame):
        replaced, begins, cosine, sine, *noise, here, below, above = frame
        if given is not None:
            state = [jnp.where(replaced, x, y) for x, y in zip(given, state, strict=True)]
            state = [jnp.where(begins, x, y) for x, y in zip(noise, state, strict=True)]
        turned = (state[0] * cosine - state[1] * sine, state[0] * sine + state[1] * cosine)

        def handed_on(x, noise):
            padded = jnp.pad(x, [(0, 0), (0, 0), (1, 1)])
            other = jnp.where(below, padded[..., :-2], jnp.where(above, padded[..., 2:], noise))
            return jnp.where(here, x, other)

        state = tuple(map(handed_on, turned, noise))
        return state, state

    return jax.lax.scan(step, (frames[4][0], frames[5][0]), frames)[1]


def _phases_at_once(frames: list[Array], given: Phases | None) -> tuple[Array, Array]:
    """`_phases_in_turn` by composing the maps of frames, each with the one 1, 2, 4, ... before it.

    A frame maps the phases z of bands before it to a(m) z(s(m)) + b(m), where s is the band that a
    line comes from, and a is 0 where it begins. So does one frame after another:
    a(m) a'(s(m)), s'(s(m)) and b(m) + a(m) b'(s(m)) (Hillis & Steele 1986: the scan by doubling).
    """
    replaced, begins, cosine, sine, real, imaginary, here, below, above = frames
    turn, noise = jax.lax.complex(cosine, sine), jax.lax.complex(real, imaginary)
    band = jnp.broadcast_to(jnp.arange(turn.shape[-1]), turn.shape)
    source = jnp.where(here, band, jnp.where(below, band - 1, jnp.where(above, band + 1, band)))
    goes_on = here | below | above

    def taken(x, index):
        return jnp.take_along_axis(x, index, axis=-1)

    factor = jnp.where(goes_on, taken(turn, source), 0)
    offset = jnp.where(goes_on, 0, noise)
    first = jnp.arange(len(turn)) == 0
    start = noise
    if given is not None:
        start = jnp.where(_of_frames(replaced, turn), jax.lax.complex(*given)[None], noise)
        start = jnp.where(_of_frames(begins, turn), noise, start)
        first = first | replaced | begins
    first = _of_frames(first, turn)
    offset = jnp.where(first, offset + factor * taken(start, source), offset)
    factor = jnp.where(first, 0, factor)
    reach = 1
    while reach < len(turn):
        # Nothing lies before the first frame, which no longer asks what did.
        a, b, s = (
            jnp.pad(x, [(reach, 0)] + [(0, 0)] * 3)[:-reach] for x in (factor, offset, source)
        )
        offset = offset + factor * taken(b, source)
        factor, source = factor * taken(a, source), taken(s, source)
        reach *= 2
    return jnp.real(offset), jnp.imag(offset)


def _of_frames(mask: Bool[Array, 'N'], like: Array) -> Array:
    """A mask of frames as one of frames, sounds, channels and bands."""
    return jnp.broadcast_to(mask[:, None, None, None], like.shape)


def _by_bin(lines: Lines, cosine: Array, sine: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Of each of the lowest bins, from its nearest line: distance, ownership, power and phase.

    A line owns what is within its main lobe, or within one band of it where bands are wider.
    """
    bins = np.arange(_TONE_BINS)
    position = bin_to_band(bins)
    spacing = np.gradient(band_to_bin(np.arange(float(BANDS))))
    reach = np.maximum(_LOBE_BINS, spacing[np.round(position).astype(int)]).astype(np.float32)
    frequency = jnp.where(lines.present, lines.frequency, -1e3)
    # The nearest line at a band or below it, and that at a band or above it.
    below = above = (lines.present, frequency, lines.power, cosine, sine)
    for _ in range(_LOBE_BANDS):
        below, above = (_or_neighbour(found, step) for found, step in ((below, 1), (above, -1)))
    band = np.floor(position).astype(int).clip(0, _TONE_BANDS - 2)
    below, above = (
        [x[..., i] for x in found[1:]] for found, i in ((below, band), (above, band + 1))
    )
    of_bins = jnp.broadcast_to(jnp.asarray(bins, frequency.dtype), below[0].shape)
    closer = jnp.abs(of_bins - above[0]) < jnp.abs(of_bins - below[0])
    nearest, *rest = (jnp.where(closer, a, b) for a, b in zip(above, below, strict=True))
    distance = of_bins - nearest
    return distance, jnp.abs(distance) <= jnp.broadcast_to(reach, distance.shape), *rest


def _or_neighbour(found: tuple[Array, ...], step: int) -> tuple[Array, ...]:
    """What is found in each band, or else in the one `step` below."""
    edges = [(0, 0)] * 3 + [(max(step, 0), max(-step, 0))]
    start = max(-step, 0)
    here, count = found[0], found[0].shape[-1]
    beside = [jnp.pad(x, edges, mode='edge')[..., start : start + count] for x in found]
    return here | beside[0], *(
        jnp.where(here, x, y) for x, y in zip(found[1:], beside[1:], strict=True)
    )


def _lobe(distance: Float[Array, '*b']) -> Float[Array, '*b']:
    """Squared transform of the Hann window at a distance in bins; sums to one over bins.

    (sinc(x) / (1 - x^2))^2 / 1.5, as a polynomial in x^2; nothing beyond the main lobe.
    """
    square = jnp.square(distance)
    value = sum(weight * square**power for power, weight in enumerate(_lobe_polynomial()))
    return jnp.where(square < _LOBE_BINS**2, jnp.square(value), 0.0)


@functools.cache
def _lobe_polynomial() -> list[float]:
    x = np.linspace(0, _LOBE_BINS, 1001)[1:-1] + 1e-6  # never 1, where it has a limit
    lobe = np.sinc(x) / (1 - np.square(x)) / np.sqrt(1.5)
    return np.polynomial.polynomial.polyfit(np.square(x), lobe, 6).tolist()


def _more_consistent(
    size: Float[Array, 'B 2 N K'],
    real: Float[Array, 'B 2 N K'],
    imaginary: Float[Array, 'B 2 N K'],
    frame_mask: Float[Array, 'B 2 N'] | None,
) -> tuple[Float[Array, 'B 2 N K'], Float[Array, 'B 2 N K']]:
    """Phases of the lowest bins after an iteration of eq. 3, at the rate that holds these alone."""
    n_fft, hop = audio_lib.stft_size(2 * size.shape[-1] * audio_lib.BIN_HZ)
    audio = audio_lib.istft(jax.lax.complex(size * real, size * imaginary), n_fft, hop, frame_mask)
    if frame_mask is not None:
        audio = audio * jnp.repeat(frame_mask, hop, axis=-1)
    found = _phases(audio_lib.stft(audio, n_fft, hop))
    return tuple(x[..., : size.shape[-1]] for x in found)


def _phases(spectrum: Array) -> tuple[Float[Array, '*b'], Float[Array, '*b']]:
    """Real and imaginary part of X / |X|."""
    # Two real products: a complex division takes longer than the transform.
    gain = 1.0 / audio_lib.magnitude(spectrum, 1e-6)
    return spectrum.real * gain, spectrum.imag * gain


def _noise_phases(
    length: int, bins: int, frames: Int[Array, 'L'] | None = None
) -> tuple[Float[Array, '1 2 N K'], Float[Array, '1 2 N K']]:
    """`_phases` of one fixed take of white noise that comes round every NOISE_PERIOD.

    Transforming 10 s of it would take as long as an iteration of eq. 3. It is noise of the highest
    rate, of which others have the lowest bins: a sound is the same noise at every rate.
    """
    n_fft, hop = audio_lib.stft_size(SAMPLE_RATE)
    noise = _frame_signs(NOISE_PERIOD, 2 * hop * STRIDE).reshape(-1, 2).T
    around = jnp.concatenate([noise[:, -n_fft:], noise, noise[:, :n_fft]], axis=1)
    margin, period = n_fft // hop, NOISE_PERIOD * STRIDE
    spectrum = audio_lib.stft(around, n_fft, hop)[:, margin : margin + period, :bins]
    parts = _phases(spectrum)
    if frames is None:
        times = -(-length // NOISE_PERIOD)
        return tuple(jnp.tile(x, (1, times, 1))[None, :, : length * STRIDE] for x in parts)
    blocks = (x.reshape(2, NOISE_PERIOD, STRIDE, -1)[:, frames % NOISE_PERIOD] for x in parts)
    return tuple(x.reshape(1, 2, length * STRIDE, -1) for x in blocks)


def _near_attacks(
    power: Float[Array, 'B 2 N M'], frame_mask: Float[Array, 'B 2 N']
) -> Bool[Array, 'B 2 N']:
    """Frames within two of an attack, where a channel's energy grows by 10 dB within 40 ms."""
    energy = _energies(power)
    count = energy.shape[2]
    inside = frame_mask > 0

    def shifted(x, reach, value):
        x = jnp.pad(x, [(0, 0), (0, 0), (reach, reach)], constant_values=value)
        return [x[..., i : i + count] for i in range(2 * reach + 1)]

    # A sound's first frame is no attack.
    known = jnp.where(inside, energy, jnp.inf)
    before = functools.reduce(jnp.minimum, shifted(known, STRIDE, jnp.inf)[:STRIDE])
    rises = (energy > ATTACK_RATIO * before) & inside
    return functools.reduce(jnp.logical_or, shifted(rises, _OVERLAP_REACH, False))


def _energies(power: Float[Array, 'B 2 N M']) -> Float[Array, 'B 2 N']:
    return power @ band_shapes().sum(axis=1) + 1e-6


def _attack_gain(
    power: Float[Array, 'B 2 N M'],
    attacks: Bool[Array, 'B 2 N'],
    frame_mask: Float[Array, 'B 2 N'],
    hop: int,
) -> Float[Array, 'B 2 S']:
    """Gain that takes back what the window has spread ahead of attacks; one elsewhere.

    Frames of 40 ms hold an attack before it comes. What envelope x, in blocks of 2.5 ms, has the
    frames' energies y is found by eq. 1 with B the square of the window; noise with these energies
    has the envelope B^T y. The gain is the root of x over B^T y in the frames of `attacks`.
    """
    energy = _energies(power)
    count, blocks = energy.shape[2], energy.shape[2] * _BLOCKS

    n_fft, _ = audio_lib.stft_size(SAMPLE_RATE)
    weight = np.square(audio_lib.hann(n_fft)).reshape(_BLOCKS * STRIDE, -1).mean(axis=1)
    weight /= weight.sum()
    margin = _BLOCKS * (STRIDE - 1) // 2
    kernel = jnp.asarray(weight[:, None, None], energy.dtype)
    dimensions = ('NHC', 'HIO', 'NHC')

    def spread(y):  # B^T: of frames into blocks
        edges = [(kernel.shape[0] - 1 - margin, _BLOCKS - 1 + margin)]
        return jax.lax.conv_general_dilated(
            y, kernel[::-1], (1,), edges, (_BLOCKS,), dimension_numbers=dimensions
        )[:, :blocks]

    def gathered(x):  # B: of blocks into frames
        return jax.lax.conv_general_dilated(
            x, kernel, (_BLOCKS,), [(margin, margin)], dimension_numbers=dimensions
        )

    # Frames beyond the end and padding must not change what is before them.
    mask = frame_mask.reshape(-1, count, 1)
    within = jnp.repeat(mask, _BLOCKS, axis=1)
    flat = energy.reshape(-1, count, 1) * mask
    reached = jnp.maximum(spread(mask), 1e-6)
    smooth = spread(flat) / reached * within
    envelope = smooth
    for _ in range(ATTACK_UPDATES):
        ratio = flat / jnp.maximum(gathered(envelope), 1e-9)
        envelope = envelope * spread(ratio) / reached
    gain = jnp.sqrt((envelope + 1e-9) / (smooth + 1e-9)).reshape(*energy.shape, _BLOCKS)
    gain = jnp.where(attacks[..., None], jnp.minimum(gain, _MOST_GAIN), 1.0)
    return _interpolated(gain, frame_mask, hop)


def _interpolated(
    x: Float[Array, 'B 2 N M'], frame_mask: Float[Array, 'B 2 N'], hop: int
) -> Float[Array, 'B 2 S']:
    """Straight lines between the middles of a frame's blocks, level at the ends of the sound."""
    edges = [(0, 0), (0, 0), (1, 1), (0, 0)]
    around = jnp.pad(x, edges, mode='edge')
    inside = jnp.pad(frame_mask, edges[:3])[..., None] > 0
    before = jnp.where(inside[:, :, :-2], around[:, :, :-2, -1:], x[..., :1])
    after = jnp.where(inside[:, :, 2:], around[:, :, 2:, :1], x[..., -1:])
    knots = jnp.concatenate([before, x, after], axis=-1)
    position = (np.arange(hop) + 0.5) * (_BLOCKS / hop) + 0.5
    weights = np.maximum(0, 1 - np.abs(position[None] - np.arange(_BLOCKS + 2)[:, None]))
    return (knots @ weights.astype(np.float32)).reshape(*x.shape[:2], -1)


def _bin_magnitudes(
    wanted: Float[Array, 'B 2 N M'], bins: int
) -> tuple[Float[Array, 'B 2 N J'], Float[Array, 'B 2 N I']]:
    """Magnitudes that have the wanted powers in their bands, below 8 kHz and above; eq. 1."""
    shapes = band_shapes()[:, :bins]
    # Only the bands below 8 kHz are sharpened: wider ones hold no single partial to be found.
    low = int(np.argmax(shapes[:, _SHARP_BINS:].any(axis=1)))
    high = int(np.argmin(shapes[:, :_SHARP_BINS].any(axis=1)))
    above = wanted[..., low:] @ shapes[low:, _SHARP_BINS:]
    sharp = wanted[..., :high] @ shapes[:high, :_SHARP_BINS]
    shapes = shapes[:low, :_SHARP_BINS]
    averages, others = band_averages(shapes), 1.0 - shapes.sum(0)
    others = jnp.expand_dims(jnp.asarray(others), (0, 1, 2))
    for _ in range(SHARPENING):
        ratio = wanted[..., :low] / (sharp @ averages.T + 1e-12)
        sharp = sharp * (ratio @ shapes + others)
    return jnp.sqrt(sharp + 1e-12), jnp.sqrt(above + 1e-12)


def _frame_signs(length: int, count: int) -> Float[Array, 'L S']:
    """One fixed take of random signs: as white as normal noise, and 32 for the price of one."""

    def signs(key):
        words = jax.random.bits(key, (-(-count // 32), 1), 'uint32')
        bits = (words >> jnp.arange(32, dtype='uint32')[None]) & 1
        return 2.0 * bits.reshape(-1)[:count].astype(jnp.float32) - 1.0

    return jax.vmap(signs)(frame_keys(1, length))


def frame_keys(stream: int, frames: int | Int[Array, 'L']) -> Key[Array, 'L']:
    """A key for each latent frame, so a longer sound starts with the noise of a shorter one.

    Args:
        stream: 0 for levels, 1 for phases.
        frames: which latent frames, or how many from the first one on.
    """
    index = jnp.arange(frames) if isinstance(frames, int) else frames
    # Behind the barrier, or the compiler would spend its time drawing the noise itself.
    seed = jax.lax.optimization_barrier(jnp.asarray(_NOISE_SEED))
    key = jax.random.fold_in(random_key(seed), stream)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
