"""Whether a tone stays a tone: spectral lines and their skirts, roughness, and pitch by CREPE."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from realaudio_jax import io
from realaudio_jax.metrics.embedders import crepe
from realaudio_jax.typing import Array, Float, PyTree

AnyArray = np.ndarray | Array

SINES_HZ = (220.0, 440.0, 880.0, 1760.0, 3520.0)
CHORD_HZ = (440.0, 554.37, 659.26)  # A major
GLIDE_HZ = (440.0, 880.0)  # from, to
SIGNAL_S, EDGE_S = 2.0, 0.25  # of a test signal; at either end, left out of its spectrum
LINE_HZ, SKIRT = 4.0, 0.1  # half width of a line; of its skirt, as a share of the frequency

MODULATION_HZ = (20.0, 120.0)  # heard as roughness rather than as rhythm or as pitch
OCTAVES_HZ = 62.5 * 2.0 ** np.arange(9)  # the bands whose envelopes are measured
STEADIEST = 30  # clips whose roughness is compared

LINE_WINDOW_S = 0.17  # a steady sine is 15 Hz wide at -10 dB through it
LINE_RANGE_HZ = (100.0, 6_000.0)
LINE_REACH_HZ = 60.0  # a line is looked for this far from where the original has it
LINE_CONTEXT_HZ = 250.0  # on either side, over whose mean level a line stands out
LINE_PROMINENCE_DB = 20.0
LINE_BELOW_LOUDEST_DB = 40.0
WIDTH_DB = 10.0
STEADY_HZ = 30.0  # wide at most: a wider line of the original is a voice that glides, or noise
PITCHED_LINES = 12  # of which a recording needs so many to count as pitched

PITCH_CONFIDENCE = 0.8  # of CREPE, from which a frame of the original counts as a tone
PITCH_HOP = 4 * crepe.HOP  # samples at 16 kHz: 40 ms
PITCHED_FRAMES = 12  # half a second of tone makes a pitched recording


class TestSignal(NamedTuple):
    """A steady or gliding sound of sines.

    Attributes:
        name: what a table calls it.
        frequencies: in Hz of each sine at each sample, [F S].
        audio: stereo, both channels alike, RMS 0.1.
    """

    __test__ = False  # nothing for pytest to collect

    name: str
    frequencies: Float[np.ndarray, 'F S']
    audio: Float[np.ndarray, 'S 2']


class TonalLines(NamedTuple):
    """Lines of an original, and what has become of them.

    Attributes:
        width_before, width_after: median span in Hz at 10 dB below the peak.
        frequency_error: median size of the shift of the peak, in cents.
    """

    width_before: float
    width_after: float
    frequency_error: float


def test_signals(sample_rate: int) -> list[TestSignal]:
    """Five sines an octave apart, a chord and a glide of one octave, two seconds each."""
    time = np.arange(round(SIGNAL_S * sample_rate)) / sample_rate
    steady = np.ones_like(time)[None]
    glide = GLIDE_HZ[0] * (GLIDE_HZ[1] / GLIDE_HZ[0]) ** (time / SIGNAL_S)
    signals = [(f'{hz:g} Hz', hz * steady) for hz in SINES_HZ]
    signals += [('chord', np.array(CHORD_HZ)[:, None] * steady), ('glide', glide[None])]
    return [TestSignal(name, f, _sines(f, sample_rate)) for name, f in signals]


test_signals.__test__ = False


def line_over_skirt(
    audio: Float[AnyArray, 'S *A'], frequency: Float[AnyArray, 'S'] | float | int, sample_rate: int
) -> float:
    """Power within 4 Hz of a sine over the power around it, within 10% of its frequency, in dB.

    The sound is shifted so that the sine stands at 0 Hz, x(t) exp(-2 pi i int f), and its middle is
    weighted by a Blackman window (side lobes below -58 dB). White noise gives -6 dB at 220 Hz and
    -19 dB at 3520 Hz, the ratio of the two widths.

    Args:
        audio: [S] or [S A]; the mean of its channels is measured.
        frequency: of the sine in Hz, at each sample or steady.
        sample_rate: Hz.

    Returns:
        dB; NaN where there is no power.
    """
    mono = np.asarray(audio, np.float64).reshape(len(audio), -1).mean(1)
    frequency = np.broadcast_to(np.asarray(frequency, np.float64), mono.shape)
    phase = 2 * np.pi * np.cumsum(frequency) / sample_rate
    edge = round(EDGE_S * sample_rate)
    shifted = (mono * np.exp(-1j * phase))[edge:-edge]
    power = np.abs(np.fft.fft(shifted * np.blackman(len(shifted)))) ** 2
    distance = np.abs(np.fft.fftfreq(len(shifted), 1 / sample_rate))
    line = power[distance <= LINE_HZ].sum()
    skirt = power[(distance > LINE_HZ) & (distance <= SKIRT * frequency.mean())].sum()
    return float(10 * np.log10(line / skirt)) if skirt > 0 else float('nan')


def signal_purity(signal: TestSignal, audio: Float[AnyArray, 'S *A'], sample_rate: int) -> float:
    """`line_over_skirt` of what was made of a test signal, the mean over its sines in dB."""
    ratios = [line_over_skirt(audio, f, sample_rate) for f in signal.frequencies]
    return float(np.mean(ratios))


def roughness(audio: Float[AnyArray, 'S *A'], sample_rate: int) -> float:
    """Modulation of the envelope between 20 and 120 Hz, relative to its mean.

    Of the Hilbert envelope of each octave from 62.5 Hz to 16 kHz: the RMS of its part at 20 to 120
    Hz over its mean; joined over octaves by their energy, as the root of the mean square.

    Returns:
        0 for a steady sine, about 0.3 for noise; NaN for silence.
    """
    mono = np.asarray(audio, np.float64).reshape(len(audio), -1).mean(1)
    spectrum = np.fft.rfft(mono)
    seconds = len(mono) / sample_rate
    total = weight = 0.0
    for low, high in itertools.pairwise(OCTAVES_HZ):
        band = spectrum[round(low * seconds) : round(high * seconds)]
        energy = np.square(np.abs(band)).sum()
        if not energy:
            continue
        envelope = np.abs(np.fft.ifft(band, 2 * len(band)))
        modulation = np.fft.rfft(envelope)
        rate = np.arange(len(modulation)) / seconds
        inside = (rate >= MODULATION_HZ[0]) & (rate < MODULATION_HZ[1])
        depth = 2 * np.square(np.abs(modulation[inside])).sum() / np.abs(modulation[0]) ** 2
        total, weight = total + energy * depth, weight + energy
    return float(np.sqrt(total / weight)) if weight else float('nan')


def steadiest(roughness_of_originals: Sequence[float], count: int = STEADIEST) -> list[int]:
    """Indices of the clips with the least roughness, silent ones left out."""
    values = np.asarray(roughness_of_originals, np.float64)
    order = np.argsort(values, kind='stable')
    return [int(i) for i in order if np.isfinite(values[i]) and values[i] > 0][:count]


def tonal_lines(
    original: Float[AnyArray, 'S *A'], other: Float[AnyArray, 'S *A'], sample_rate: int
) -> TonalLines | None:
    """Width and frequency of the lines of an original, before and after.

    A line is a peak of the spectrum of 0.17 s (Hann) between 100 Hz and 6 kHz, the highest within
    60 Hz, 20 dB above the mean level within 250 Hz and at most 40 dB below the loudest one. Its
    width is that between the lowest and the highest frequency within 60 Hz of the original's peak
    that are at most 10 dB below the peak found there. Only lines that are at most 30 Hz wide in the
    original are measured.

    Returns:
        None for an original of fewer than 12 such lines.
    """
    before, hz = _line_spectrum(original, sample_rate)
    after, _ = _line_spectrum(other, sample_rate)
    step = hz[1] - hz[0]
    reach = round(LINE_REACH_HZ / step)
    context = 2 * round(LINE_CONTEXT_HZ / step) + 1
    highest = scipy.ndimage.maximum_filter1d(before, 2 * reach + 1, axis=1)
    around = scipy.ndimage.uniform_filter1d(before, context, axis=1, mode='nearest')
    inside = (hz >= LINE_RANGE_HZ[0]) & (hz <= LINE_RANGE_HZ[1])
    lines = (before == highest) & (before - around >= LINE_PROMINENCE_DB) & inside[None, :]
    lines[:, :reach] = lines[:, -reach:] = False
    if lines.any():
        lines &= before >= before[lines].max() - LINE_BELOW_LOUDEST_DB
    frames, bins = np.nonzero(lines)
    near = bins[:, None] + np.arange(-reach, reach + 1)[None]
    (width_before, hz_before), (width_after, hz_after) = (
        _widths(spectrum[frames[:, None], near], hz[near]) for spectrum in (before, after)
    )
    steady = width_before <= STEADY_HZ
    if steady.sum() < PITCHED_LINES:
        return None
    cents = np.abs(1200 * np.log2(hz_after / hz_before))
    medians = (np.median(values[steady]) for values in (width_before, width_after, cents))
    return TonalLines(*map(float, medians))


def pitch_error_cents(
    original: Float[AnyArray, 'S *A'],
    other: Float[AnyArray, 'S *A'],
    sample_rate: int,
    params: PyTree,
) -> float:
    """Pitch error in cents: median |1200 log2(f_other / f_original)| over tonal frames.

    A frame whose tone is lost counts by whatever pitch CREPE then reads: an octave off is 1200.

    Args:
        original, other: [S] or [S A] in [-1, 1], the same shape.
        sample_rate: Hz.
        params: of `crepe.load_crepe`.

    Returns:
        cents; NaN for an original with less than half a second of tone.
    """
    (before, sure), (after, _) = (_pitch(x, sample_rate, params) for x in (original, other))
    tonal = sure >= PITCH_CONFIDENCE
    if tonal.sum() < PITCHED_FRAMES:
        return float('nan')
    return float(np.median(np.abs(1200 * np.log2(after[tonal] / before[tonal]))))


def _widths(level, hz):
    """Span in Hz of what is at most 10 dB below the highest bin of each row, and that bin's Hz."""
    loud = level >= level.max(1, keepdims=True) - WIDTH_DB
    first, last = loud.argmax(1), loud.shape[1] - 1 - loud[:, ::-1].argmax(1)
    row = np.arange(len(hz))
    return hz[row, last] - hz[row, first], hz[row, level.argmax(1)]


def _sines(frequencies, sample_rate):
    phase = 2 * np.pi * np.cumsum(frequencies, axis=1) / sample_rate
    mono = np.sin(phase).sum(0)
    mono *= 0.1 / np.sqrt(np.square(mono).mean())
    return np.repeat(mono[:, None], 2, axis=1).astype(np.float32)


def _line_spectrum(audio, sample_rate):
    """Levels in dB [N K] of frames of 0.17 s, half a window apart, and the K frequencies in Hz."""
    mono = np.asarray(audio, np.float64).reshape(len(audio), -1).mean(1)
    window = round(LINE_WINDOW_S * sample_rate) // 2 * 2
    mono = np.pad(mono, (0, max(0, window - len(mono))))
    frames = np.lib.stride_tricks.sliding_window_view(mono, window)[:: window // 2]
    n_fft = 4 * window
    count = round((LINE_RANGE_HZ[1] + 2 * LINE_CONTEXT_HZ) * n_fft / sample_rate)
    hann = np.sin(np.pi * np.arange(window) / window) ** 2
    power = np.abs(np.fft.rfft(frames * hann[None], n_fft)[:, :count]) ** 2
    return 10 * np.log10(power + 1e-12), np.arange(power.shape[1]) * sample_rate / n_fft


def _pitch(audio, sample_rate, params):
    """(Hz, confidence) of the frames within a sound, padded to whole seconds: few programs."""
    audio = np.asarray(audio, np.float32)
    mono = audio.mean(axis=1) if audio.ndim == 2 else audio
    mono = io.resample(mono, sample_rate, crepe.SAMPLE_RATE)
    frames = 1 + len(mono) // PITCH_HOP
    padded = np.zeros(-(-len(mono) // crepe.SAMPLE_RATE) * crepe.SAMPLE_RATE, np.float32)
    padded[: len(mono)] = mono
    hz, confidence = crepe.pitch(params, jnp.asarray(padded)[None], PITCH_HOP)
    return np.asarray(hz[0, :frames], np.float64), np.asarray(confidence[0, :frames])
