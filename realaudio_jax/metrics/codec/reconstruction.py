"""Reconstruction errors against an original, and Opus as a reference codec."""

import functools
import io

import librosa
import numpy as np
import soundfile

from realaudio_jax.typing import Array, Float

AnyArray = np.ndarray | Array

N_FFT, HOP, MELS, FLOOR = 2048, 512, 80, 1e-3
# Octaves from 62.5 Hz; the last band ends at 20 kHz, the limit of hearing.
BAND_EDGES = (62.5, 125.0, 250.0, 500.0, 1e3, 2e3, 4e3, 8e3, 16e3, 20e3)  # Hz
BAND_RANGE_DB = 60.0  # energy further below a clip's total counts as none
OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # Hz
OPUS_KBIT = (6.0, 256.0)  # bit rate of libsndfile's levels 1 and 0, per channel
RESOLUTIONS = (512, 1024, 2048)  # n_fft of `multi_resolution_stft`, hop a quarter
BANDWIDTH_DB = 60.0  # below the loudest bin: where the spectrum of a sound ends


def log_mel_l1(
    original: Float[AnyArray, 'S *A'], other: Float[AnyArray, 'S *A'], sample_rate: int
) -> float:
    """Mean absolute difference of log-mel magnitudes, in nepers (1 neper = 8.7 dB).

    mean over channels, frames and bands of |ln max(M(x), f) - ln max(M(y), f)|, with M the 80-band
    Slaney mel basis applied to the magnitude of an STFT (periodic Hann, n_fft 2048, hop 512,
    centred, reflected at the ends) and f = 1e-3. For scale: two independent takes of white noise
    differ by 0.28.

    Args:
        original, other: [S] or [S A] in [-1, 1], the same shape.
        sample_rate: Hz.

    Raises:
        ValueError: the shapes differ or there is no sample.
    """
    _same_shape(original, other)
    return float(np.abs(_log_mel(original, sample_rate) - _log_mel(other, sample_rate)).mean())


def band_energy_error(
    original: Float[AnyArray, 'S *A'], other: Float[AnyArray, 'S *A'], sample_rate: int
) -> dict[str, float]:
    """Level of `other` minus that of `original` in each octave from 62.5 Hz to 20 kHz, in dB.

    10 log10 (E_other / E_original) of the energy in the band over the whole clip. Energy more than
    60 dB below the original's total is raised to that level first, so that an empty band reads 0
    and not the ratio of two roundings. Bands above half the sample rate are left out.

    Args:
        original, other: [S] or [S A], the same shape.
        sample_rate: Hz.

    Returns:
        {'62.5-125 Hz': dB, ...}. The value of a set is the mean of the magnitudes.

    Raises:
        ValueError: the shapes differ or there is no sample.
    """
    _same_shape(original, other)
    power = [(np.abs(_stft(x)) ** 2).sum((0, 1)) for x in (original, other)]
    frequency = np.fft.rfftfreq(N_FFT, 1 / sample_rate)
    floor = max(power[0].sum() * 10 ** (-BAND_RANGE_DB / 10), 1e-12)
    errors = {}
    for low, high in zip(BAND_EDGES[:-1], BAND_EDGES[1:], strict=True):
        if low >= sample_rate / 2:
            break
        inside = (frequency >= low) & (frequency < high)
        before, after = (max(p[inside].sum(), floor) for p in power)
        errors[f'{low:g}-{high:g} Hz'] = float(10 * np.log10(after / before))
    return errors


def si_sdr(original: Float[AnyArray, 'S *A'], other: Float[AnyArray, 'S *A']) -> float:
    """Scale-invariant signal-to-distortion ratio, in dB (Le Roux et al. 2019, 1811.02508, eq. 3).

    10 log10 (|a s|^2 / |a s - y|^2) with a = <y, s> / |s|^2, over all channels together after
    removing each channel's mean. Blind to gain, harsh to a phase change that no ear notices.

    Raises:
        ValueError: the shapes differ, there is no sample, or the original is silent.
    """
    _same_shape(original, other)
    s, y = (np.asarray(x, np.float64) for x in (original, other))
    s, y = s - s.mean(0, keepdims=True), y - y.mean(0, keepdims=True)
    energy = (s * s).sum()
    if energy == 0:
        raise ValueError('SI-SDR is undefined for a silent original: leave the clip out')
    target = s * ((y * s).sum() / energy)
    distortion = ((target - y) ** 2).sum()
    with np.errstate(divide='ignore'):
        return float(10 * np.log10((target**2).sum() / distortion)) if distortion else float('inf')


def multi_resolution_stft(
    original: Float[AnyArray, 'S *A'], other: Float[AnyArray, 'S *A']
) -> float:
    """Distance of magnitude spectra, mean over n_fft 512, 1024 and 2048, hop a quarter.

    |M_x - M_y|_F / |M_x|_F + mean |ln max(M_x, f) - ln max(M_y, f)|, f = 1e-3: spectral convergence
    and log magnitude of Yamamoto et al. 2020 (arXiv 1910.11480, eq. 3 to 5), whose floor is lower.
    The first term weighs loud bins, the second all alike. Blind to phase and to the swap of
    channels' signs.

    Raises:
        ValueError: the shapes differ, there is no sample, or the original is silent.
    """
    _same_shape(original, other)
    distances = []
    for n_fft in RESOLUTIONS:
        x, y = (np.abs(_stft(audio, n_fft, n_fft // 4)) for audio in (original, other))
        norm = np.linalg.norm(x)
        if norm == 0:
            raise ValueError('the distance is undefined for a silent original: leave the clip out')
        logs = np.abs(np.log(np.maximum(x, FLOOR)) - np.log(np.maximum(y, FLOOR)))
        distances.append(np.linalg.norm(x - y) / norm + logs.mean())
    return float(np.mean(distances))


def stereo_width_error(original: Float[AnyArray, 'S 2'], other: Float[AnyArray, 'S 2']) -> float:
    """Share of energy in the side signal of `other` minus that of `original`, in [-1, 1].

    Width = E_side / (E_mid + E_side) with mid and side (l + r) / 2 and (l - r) / 2: 0 for mono, 0.5
    for two independent channels, 1 for opposite ones. NaN where either sound is silent.

    Raises:
        ValueError: the shapes differ or are not stereo.
    """
    _same_shape(original, other)
    widths = []
    for audio in (np.asarray(original, np.float64), np.asarray(other, np.float64)):
        mid, side = ((audio[:, 0] + sign * audio[:, 1]) / 2 for sign in (1, -1))
        total = mid @ mid + side @ side
        widths.append(side @ side / total if total else np.nan)
    return float(widths[1] - widths[0])


def bandwidth(audio: Float[AnyArray, 'S *A'], sample_rate: int) -> float:
    """Frequency in Hz above which a sound's mean spectrum stays 60 dB below its peak; 0: silent.

    The Hann window falls by 60 dB within six bins: of 8192 samples, 35 Hz at 48 kHz.
    """
    n_fft = 4 * N_FFT
    power = (np.abs(_stft(audio, n_fft, n_fft // 4)) ** 2).mean(0)
    if len(power) > 8:  # the reflected ends have a corner, so a spectrum of their own
        power = power[2:-2]
    power = power.mean(0)
    if not power.max() > 0:
        return 0.0
    loud = np.flatnonzero(power > power.max() * 10 ** (-BANDWIDTH_DB / 10))
    return float((loud[-1] + 1) * sample_rate / n_fft)


def bandwidth_kept(
    original: Float[AnyArray, 'S *A'], other: Float[AnyArray, 'S *A'], sample_rate: int
) -> float:
    """`bandwidth` of `other` over that of `original`; above 1 where something was added on top.

    NaN where the original is silent.
    """
    _same_shape(original, other)
    before = bandwidth(original, sample_rate)
    return bandwidth(other, sample_rate) / before if before else float('nan')


def opus_level(kbit_per_s: float | int, channels: int) -> float:
    """`compression_level` for a target rate; libsndfile maps its levels linearly to bit rates.

    Opus varies its rate with the sound, so the rate that comes back is what a table should print.

    Raises:
        ValueError: the rate is outside 6 to 256 kbit/s per channel.
    """
    low, high = (channels * rate for rate in OPUS_KBIT)
    if not low <= kbit_per_s <= high:
        raise ValueError(f'{kbit_per_s:g} kbit/s: choose {low:g} to {high:g} for {channels} ch')
    return (high - kbit_per_s) / (high - low)


def opus_round_trip(
    audio: Float[AnyArray, 'S *A'], sample_rate: int, compression_level: float = 1.0
) -> tuple[Float[np.ndarray, 'S *A'], float]:
    """Encodes and decodes by Opus; returns the sound and its rate in kbit/s, headers included.

    Args:
        audio: [S] or [S A] in [-1, 1].
        sample_rate: one of 8, 12, 16, 24 or 48 kHz.
        compression_level: libsndfile's scale, 0 (highest rate) to 1 (lowest, about 13 kbit/s for
            stereo).

    Raises:
        ValueError: Opus does not take the sample rate.
    """
    if sample_rate not in OPUS_RATES:
        raise ValueError(f'Opus takes {OPUS_RATES} Hz, not {sample_rate}: resample the sound first')
    audio = np.asarray(audio, np.float32)
    file = io.BytesIO()
    soundfile.write(
        file, audio, sample_rate, format='OGG', subtype='OPUS', compression_level=compression_level
    )
    kbit_per_s = file.tell() * 8 / 1000 / (len(audio) / sample_rate)
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype='float32')
    decoded = decoded[: len(audio)]
    missing = len(audio) - len(decoded)
    return np.pad(decoded, [(0, missing)] + [(0, 0)] * (audio.ndim - 1)), kbit_per_s


def _same_shape(original, other):
    if np.shape(original) != np.shape(other) or not np.size(original):
        raise ValueError(
            f'shapes {np.shape(original)} and {np.shape(other)}: give two clips of one length, '
            'rate and number of channels'
        )


def _stft(audio, n_fft=N_FFT, hop=HOP):
    """Complex STFT [A N K] with periodic Hann, centred frames, reflected ends."""
    audio = np.asarray(audio, np.float32)
    channels = audio[None] if audio.ndim == 1 else audio.T
    mode = 'reflect' if channels.shape[1] > n_fft // 2 else 'constant'
    padded = np.pad(channels, ((0, 0), (n_fft // 2, n_fft // 2)), mode)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft, axis=1)[:, ::hop]
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)
    return np.fft.rfft(frames * window)


def _log_mel(audio, sample_rate):
    return np.log(np.maximum(np.abs(_stft(audio)) @ _mel_basis(sample_rate), FLOOR))


@functools.cache
def _mel_basis(sample_rate):
    basis = librosa.filters.mel(sr=sample_rate, n_fft=N_FFT, n_mels=MELS)
    return np.ascontiguousarray(basis.T, np.float32)
