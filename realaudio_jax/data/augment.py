"""Variation of recordings while scenes are mixed: pitch, tone, stereo image, room and level.

A sound is changed before it is placed, so a scene's times are those of the changed sound: a
transposed one lasts 2^(-semitones / 12) times as long, and its event with it. A room is added to
all events of a scene at once; its tail rings on beyond the offset of an event, which is where the
dry sound ends. What is drawn comes from the generator alone.
"""

import dataclasses
import functools
import os

import numpy as np
import scipy.fft
import scipy.signal
import soxr

from realaudio_jax.data.signal import Regions
from realaudio_jax.data.sources import Clip
from realaudio_jax.sound_files import find_sounds, read_audio
from realaudio_jax.typing import SAMPLE_RATE, Float

DIRECT_S = 0.0025  # of a measured impulse response, from its peak: the direct sound
LONGEST_RESPONSE_S = 2.5
_DAMPING = 0.4  # how long the top of a synthetic room rings, against its bottom
_CROSSOVER_HZ = 2_500.0


@dataclasses.dataclass(frozen=True)
class Room:
    """A room as the reverberation that it adds.

    Attributes:
        response: [N, 2] at 48 kHz without the direct sound, of energy 1 in a channel on average.
        wet_db: energy of the reverberation against the direct sound, dB.
        decay_s: time in which it decays by 60 dB; None where it was not measured.
    """

    response: Float[np.ndarray, 'N 2']
    wet_db: float
    decay_s: float | None = None

    def tail(self, audio: Float[np.ndarray, 'S 2']) -> Float[np.ndarray, 'S 2']:
        """The reverberation of a sound, without the sound, as long as the sound."""
        samples = len(audio)
        size = scipy.fft.next_fast_len(samples + len(self.response) - 1, real=True)
        dry = scipy.fft.rfft(middle(audio), size)
        wet = scipy.fft.rfft(self.response, size, axis=0) * dry[:, None]
        gain = np.float32(10 ** (self.wet_db / 20))
        return gain * scipy.fft.irfft(wet, size, axis=0)[:samples].astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Augment:
    """What is drawn for each sound and each scene. Probabilities in [0, 1].

    Attributes:
        transpose: probability that a sound is played faster or slower.
        semitones: the most that its pitch moves, up or down, evenly drawn.
        equalise: probability of two shelves and a bell.
        equalise_db: the most that each of them changes, up or down.
        width: probability that a stereo sound's side is scaled.
        width_range: by what.
        reverberate: probability that a scene's events are in a room.
        wet_db: range of the room's energy against the direct sound, dB.
        decay_s: range of the decay by 60 dB of a synthetic room.
        responses: folder of measured impulse responses, which are taken in half of the rooms.
        scene_gain_db: range of the gain of a whole scene.
    """

    transpose: float = 0.6
    semitones: float = 3.0
    equalise: float = 0.5
    equalise_db: float = 6.0
    width: float = 0.5
    width_range: tuple[float, float] = (0.2, 1.5)
    reverberate: float = 0.3
    wet_db: tuple[float, float] = (-24.0, -6.0)
    decay_s: tuple[float, float] = (0.15, 1.6)
    responses: str | None = None
    scene_gain_db: tuple[float, float] = (-6.0, 3.0)

    def clip(self, rng: np.random.Generator, clip: Clip) -> Clip:
        """A sound changed in pitch, tone and width, its active regions with it."""
        audio, active = clip.audio, clip.active
        if rng.random() < self.transpose:
            semitones = float(rng.uniform(-self.semitones, self.semitones))
            audio, active = transposed(audio, semitones), transposed_regions(active, semitones)
        if rng.random() < self.equalise:
            audio = equalised(audio, random_bands(rng, self.equalise_db))
        if audio.ndim == 2 and rng.random() < self.width:
            audio = with_width(audio, float(rng.uniform(*self.width_range)))
        return dataclasses.replace(clip, audio=audio, active=active)

    def room(self, rng: np.random.Generator) -> Room | None:
        """The room of a scene's events, or None for no room."""
        if rng.random() >= self.reverberate:
            return None
        wet_db = float(rng.uniform(*self.wet_db))
        if self.responses and rng.random() < 0.5:
            measured = measured_responses(self.responses)
            return Room(measured[rng.integers(len(measured))], wet_db)
        low, high = np.log(self.decay_s)
        decay_s = float(np.exp(rng.uniform(low, high)))
        return Room(synthetic_response(rng, decay_s), wet_db, decay_s)

    def scene_gain(self, rng: np.random.Generator) -> np.float32:
        """A factor for a whole scene."""
        return np.float32(10 ** (rng.uniform(*self.scene_gain_db) / 20))


def transposed(audio: Float[np.ndarray, '...'], semitones: float) -> np.ndarray:
    """The sound played 2^(semitones / 12) times as fast, band-limited: pitch and duration change.

    Args:
        audio: [S] or [S, A] at 48 kHz.
        semitones: of the change of pitch.

    Returns:
        float32 of about S 2^(-semitones / 12) samples.
    """
    ratio = 2.0 ** (semitones / 12)
    return soxr.resample(np.asarray(audio, np.float32), SAMPLE_RATE * ratio, SAMPLE_RATE, 'HQ')


def transposed_regions(regions: Regions, semitones: float) -> Regions:
    """Times of a sound, in seconds, after `transposed`."""
    factor = 2.0 ** (-semitones / 12)
    return tuple((start * factor, end * factor) for start, end in regions)


def random_bands(rng: np.random.Generator, most_db: float) -> Float[np.ndarray, '3 6']:
    """A low shelf, a bell and a high shelf as second-order sections; see `equalised`."""
    low, bell, high = (
        np.exp(rng.uniform(*np.log(hertz))) for hertz in ((80, 400), (300, 6000), (2500, 10_000))
    )
    gains = rng.uniform(-most_db, most_db, 3)
    quality = rng.uniform(0.5, 2.0)
    return np.array(
        [_shelf(low, gains[0], -1), _bell(bell, gains[1], quality), _shelf(high, gains[2], 1)]
    )


def _shelf(hertz: float, gain_db: float, side: int) -> list[float]:
    """A second-order shelf of slope 1, below (side -1) or above a frequency.

    Source: R. Bristow-Johnson, Cookbook formulae for audio equalizer biquad filter coefficients.
    """
    a, w = 10 ** (gain_db / 40), 2 * np.pi * hertz / SAMPLE_RATE
    cos, alpha = side * np.cos(w), np.sin(w) / np.sqrt(2)
    root = 2 * np.sqrt(a) * alpha
    b0 = a * (a + 1 + (a - 1) * cos + root)
    b1 = -side * 2 * a * (a - 1 + (a + 1) * cos)
    b2 = a * (a + 1 + (a - 1) * cos - root)
    a0 = a + 1 - (a - 1) * cos + root
    a1 = side * 2 * (a - 1 - (a + 1) * cos)
    a2 = a + 1 - (a - 1) * cos - root
    return [b0 / a0, b1 / a0, b2 / a0, 1.0, a1 / a0, a2 / a0]


def _bell(hertz: float, gain_db: float, quality: float) -> list[float]:
    """A peaking filter; source as of `_shelf`."""
    a, w = 10 ** (gain_db / 40), 2 * np.pi * hertz / SAMPLE_RATE
    alpha = np.sin(w) / (2 * quality)
    a0 = 1 + alpha / a
    middle = -2 * np.cos(w) / a0
    return [(1 + alpha * a) / a0, middle, (1 - alpha * a) / a0, 1.0, middle, (1 - alpha / a) / a0]


def equalised(audio: Float[np.ndarray, '...'], bands: Float[np.ndarray, 'N 6']) -> np.ndarray:
    """The sound through second-order sections: causal, so that an onset stays where it is."""
    return scipy.signal.sosfilt(bands, audio, axis=0).astype(np.float32)


def middle(audio: Float[np.ndarray, 'S 2']) -> Float[np.ndarray, ' S']:
    """(L + R) / 2; to the bit what mean(axis=1) gives, in a seventh of its time."""
    return np.float32(0.5) * (audio[:, 0] + audio[:, 1])


def with_width(audio: Float[np.ndarray, 'S 2'], width: float) -> Float[np.ndarray, 'S 2']:
    """The side (L - R) / 2 scaled, the middle kept: 0 is mono, 1 leaves the sound as it is."""
    mid, side = middle(audio), np.float32(width / 2) * (audio[:, 0] - audio[:, 1])
    return np.stack([mid + side, mid - side], axis=1)


def synthetic_response(rng: np.random.Generator, decay_s: float) -> Float[np.ndarray, 'N 2']:
    """Decaying noise, different in both channels, after a gap; its top decays faster.

    Args:
        rng: of gap and noise.
        decay_s: time in which the bottom decays by 60 dB.

    Returns:
        as `Room.response`.
    """
    gap = int(rng.uniform(0.004, 0.03) * SAMPLE_RATE)
    time = np.arange(int(min(decay_s, LONGEST_RESPONSE_S) * SAMPLE_RATE)) / SAMPLE_RATE
    noise = rng.standard_normal((len(time), 2), np.float32)
    pole = np.exp(-2 * np.pi * _CROSSOVER_HZ / SAMPLE_RATE)
    low = scipy.signal.lfilter([1 - pole], [1, -pole], noise, axis=0)
    rate = np.log(1000.0) / decay_s  # 60 dB in amplitude
    slow, fast = np.exp(-rate * time)[:, None], np.exp(-rate / _DAMPING * time)[:, None]
    response = np.concatenate([np.zeros((gap, 2)), slow * low + fast * (noise - low)])
    return _of_energy_1(response)


def _of_energy_1(response: np.ndarray) -> Float[np.ndarray, 'N 2']:
    energy = np.square(response).sum() / response.shape[1]
    return (response / np.sqrt(energy + 1e-20)).astype(np.float32)


@functools.lru_cache(maxsize=4)
def measured_responses(folder: str | os.PathLike) -> tuple[Float[np.ndarray, 'N 2'], ...]:
    """The impulse responses of a folder, each without its direct sound and what is before it.

    Args:
        folder: of sound files, one impulse response each, at any depth.

    Returns:
        one `Room.response` for each file that has reverberation in it.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: none of its files is an impulse response.
    """
    found = []
    for path in find_sounds(folder).sounds:
        audio = read_audio(path, SAMPLE_RATE)
        first = int(np.abs(audio).max(axis=1).argmax())
        direct = int(DIRECT_S * SAMPLE_RATE)
        response = audio[first : first + int(LONGEST_RESPONSE_S * SAMPLE_RATE)].copy()
        response[:direct] = 0.0
        if len(response) > 2 * direct and np.square(response).sum() > 0:
            found.append(_of_energy_1(response))
    if not found:
        raise ValueError(f'{folder}: no impulse response with reverberation; give another folder')
    return tuple(found)
