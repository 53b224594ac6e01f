"""What people do to sound: the edits that a watermark is asked to survive.

The first fifteen are those of AudioSeal's table (San Roman et al. 2024, arXiv 2401.17264) with the
strengths of its published code where it states them; the next are what a sound meets on the way
into a game or a film; the last, `PUBLISHED`, some of the first with the greater strengths at which
that table was measured (its appendix D.2). Each takes samples [S, 2] and gives samples and their
rate.
"""

import dataclasses
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.ndimage
import scipy.signal
import soundfile

from realaudio_jax import audio as audio_lib
from realaudio_jax.io import resample
from realaudio_jax.typing import Float

Samples = Float[np.ndarray, 'S A']
_ZEROS = 8  # crossings of the windowed sinc of the filters on either side
_NOISE_DB = 20.0  # below the sound
_SPEED = 1.01
_TRIM_S = 0.5


@dataclasses.dataclass(frozen=True)
class Edit:
    """One edit.

    Attributes:
        name: in tables.
        apply: (samples, Hz, random generator) to (samples, Hz).
        ffmpeg: whether it runs that program.
    """

    name: str
    apply: Callable[[Samples, int, np.random.Generator], tuple[Samples, int]]
    ffmpeg: bool = False


def _same_rate(function: Callable[[Samples, int], Samples]) -> Callable:
    return lambda audio, rate, rng: (function(audio, rate).astype(np.float32), rate)


def _low_pass(audio: Samples, rate: int, hz: float) -> Samples:
    taps = scipy.signal.firwin(2 * int(_ZEROS * rate / hz / 2) + 1, hz, fs=rate)
    return scipy.signal.oaconvolve(audio, taps[:, None], mode='same', axes=0)


def _band_pass(audio: Samples, rate: int, low: float, high: float) -> Samples:
    return _low_pass(audio, rate, high) - _low_pass(audio, rate, low)


def _echo(audio: Samples, rate: int, delay_s: float = 0.3, volume: float = 0.5) -> Samples:
    delay, out = round(delay_s * rate), audio.copy()
    out[delay:] += volume * audio[: max(0, len(audio) - delay)]
    return out * (np.abs(audio).max() / max(np.abs(out).max(), 1e-9))


def _noise(
    audio: Samples, rate: int, rng: np.random.Generator, pink: bool, size: float | None = None
) -> tuple:
    """Adds noise of a deviation, or `_NOISE_DB` below the sound."""
    noise = rng.standard_normal(audio.shape)
    if pink:
        spectrum = np.fft.rfft(noise, axis=0)
        frequency = np.fft.rfftfreq(len(audio), 1 / rate)[:, None]
        noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequency, 20.0)), len(audio), axis=0)
    if size is None:
        size = np.sqrt(np.mean(np.square(audio))) * 10 ** (-_NOISE_DB / 20)
    return (audio + noise * (size / noise.std())).astype(np.float32), rate


def through_ffmpeg(audio: Samples, rate: int, suffix: str, *arguments: str) -> tuple[Samples, int]:
    """Encodes by ffmpeg and decodes again."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ('in.wav', f'coded{suffix}', 'out.wav')]
        soundfile.write(paths[0], audio, rate, subtype='PCM_16')
        for source, target, more in ((paths[0], paths[1], arguments), (paths[1], paths[2], ())):
            command = ['ffmpeg', '-v', 'error', '-nostdin', '-i', source, *more, target]
            subprocess.run(list(map(str, command)), check=True, timeout=60)
        return soundfile.read(paths[2], dtype='float32', always_2d=True)


def _coded(suffix: str, *arguments: str) -> Callable:
    return lambda audio, rate, rng: through_ffmpeg(audio, rate, suffix, *arguments)


def has_ffmpeg() -> bool:
    """Whether the edits that need ffmpeg can run."""
    return shutil.which('ffmpeg') is not None


def _limited(audio: Samples, rate: int) -> Samples:
    return np.asarray(audio_lib.limit(4.0 * audio[None].astype(np.float32), rate)[0])


def _quantised(audio: Samples, rate: int) -> Samples:
    return np.round(audio * 127) / 127


PUBLISHED = (
    Edit('band pass 500 to 5,000 Hz', _same_rate(lambda x, rate: _band_pass(x, rate, 500, 5_000))),
    Edit('high pass 1,500 Hz', _same_rate(lambda x, rate: x - _low_pass(x, rate, 1_500))),
    Edit('low pass 500 Hz', _same_rate(lambda x, rate: _low_pass(x, rate, 500))),
    Edit('pink noise of 0.1', functools.partial(_noise, pink=True, size=0.1)),
    Edit('white noise of 0.05', functools.partial(_noise, pink=False, size=0.05)),
    Edit('MP3, 32 kbit/s', _coded('.mp3', '-b:a', '32k'), True),
    Edit(
        'smooth over 40',
        _same_rate(lambda x, rate: scipy.ndimage.uniform_filter1d(x, 40, axis=0)),
    ),
)
EDITS = (
    Edit('none', lambda audio, rate, rng: (audio, rate)),
    Edit('band pass 300 to 8,000 Hz', _same_rate(lambda x, rate: _band_pass(x, rate, 300, 8_000))),
    Edit('high pass 500 Hz', _same_rate(lambda x, rate: x - _low_pass(x, rate, 500))),
    Edit('low pass 5,000 Hz', _same_rate(lambda x, rate: _low_pass(x, rate, 5_000))),
    Edit('boost by 20%', _same_rate(lambda x, rate: np.clip(1.2 * x, -1, 1))),
    Edit('duck by 20%', _same_rate(lambda x, rate: 0.8 * x)),
    Edit('echo', _same_rate(_echo)),
    Edit('pink noise, 20 dB', functools.partial(_noise, pink=True)),
    Edit('white noise, 20 dB', functools.partial(_noise, pink=False)),
    Edit('MP3, 128 kbit/s', _coded('.mp3', '-b:a', '128k'), True),
    Edit('MP3, 64 kbit/s', _coded('.mp3', '-b:a', '64k'), True),
    Edit('AAC, 64 kbit/s', _coded('.m4a', '-c:a', 'aac', '-b:a', '64k'), True),
    Edit('16 kHz', lambda x, rate, rng: (resample(x, rate, 16_000), 16_000)),
    Edit('8 bits', _same_rate(_quantised)),
    Edit('median of 3', _same_rate(lambda x, rate: scipy.signal.medfilt(x, (3, 1)))),
    Edit(
        'smooth over 6',
        _same_rate(lambda x, rate: scipy.ndimage.uniform_filter1d(x, 6, axis=0)),
    ),
    Edit(
        '1% faster',
        lambda x, rate, rng: (resample(x, round(_SPEED * rate), rate), rate),
    ),
    Edit('trim 0.5 s', _same_rate(lambda x, rate: x[round(_TRIM_S * rate) :])),
    Edit('polarity', _same_rate(lambda x, rate: -x)),
    Edit('mono', _same_rate(lambda x, rate: x.mean(axis=1, keepdims=True))),
    Edit('limiter, 12 dB', _same_rate(_limited)),
    Edit('Opus, 24 kbit/s', _coded('.ogg', '-c:a', 'libopus', '-b:a', '24k'), True),
    *PUBLISHED,
)
