"""Scenes as latents and text states, computed once and kept as a folder of npy arrays."""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.data import array_cache
from realaudio_jax.data.curves import curve_arrays
from realaudio_jax.data.scenes import Scene
from realaudio_jax.random import random_key
from realaudio_jax.typing import (
    LATENT_RATE,
    MAX_EVENT_TOKENS,
    MAX_EVENTS,
    MAX_TEXT_TOKENS,
    SAMPLE_RATE,
    Array,
    Float,
    Int,
    Key,
)

FRAME_SAMPLES = SAMPLE_RATE // LATENT_RATE
LOUDNESS_FLOOR_DB = -80.0

EncodeAudio = Callable[[np.ndarray], Any]  # float32 [B, S, 2] -> [B, L, C]
# (texts, max_tokens) -> states [B, T, D], mask [B, T], sentence [B, D]
EncodeText = Callable[[list[str], int], tuple[Any, Any, Any]]


def frame_loudness(audio: Float[np.ndarray, 'S 2']) -> Float[np.ndarray, ' L']:
    """RMS of the mono middle in each latent frame, dBFS, at least -80; S is cut to whole frames."""
    frames = len(audio) // FRAME_SAMPLES
    audio = audio[: frames * FRAME_SAMPLES]
    middle = (0.5 * (audio[:, 0] + audio[:, 1])).reshape(frames, FRAME_SAMPLES)  # mean() takes 7 x
    power = np.square(middle, dtype=np.float64).mean(axis=1)
    return (10 * np.log10(np.maximum(power, 10 ** (LOUDNESS_FLOOR_DB / 10)))).astype(np.float32)


def scene_frames(seconds: float) -> int:
    """Latent frames that a scene is given in the arrays."""
    return round(seconds * LATENT_RATE)


class SceneEncoder:
    """Scenes as rows of the arrays of `LatentScenes`; every call of the two encoders has one size.

    Args:
      encode_audio: float32 [B, S, 2] at 48 kHz to latents [B, L, C].
      encode_text: (texts, max_tokens) to (states [B, T, D], mask [B, T], sentence [B, D]).
      seconds: of the longest scene; shorter ones are padded with silence.
      batch_size: B of every call; event texts go through it 2 B at a time, each once.
      curves: names of the curves besides loudness that are stored, see `curves.curve_arrays`.
    """

    def __init__(
        self,
        encode_audio: EncodeAudio,
        encode_text: EncodeText,
        seconds: float,
        batch_size: int,
        curves: tuple[str, ...] = (),
    ):
        self._curves = curves
        self._encode_audio, self._encode_text = encode_audio, encode_text
        self._frames, self._batch_size = scene_frames(seconds), batch_size
        self._event_texts: dict[str, np.ndarray] = {}
        # Filled again in every call: new pages for 31 MB would take half as long as mixing does.
        self._audio = np.zeros((batch_size, self._frames * FRAME_SAMPLES, 2), np.float32)

    def __call__(self, scenes: Sequence[Scene]) -> dict[str, np.ndarray]:
        """The rows of 1 to B scenes.

        Raises:
          ValueError: a scene is longer than `seconds`.
        """
        n, size = len(scenes), self._batch_size
        audio = self._audio
        audio[n:] = 0.0
        for row, scene in zip(audio, scenes, strict=False):
            if len(scene.audio) > len(row):
                raise ValueError(
                    f'a scene of {scene.seconds:g} s among latents of '
                    f'{len(row) / SAMPLE_RATE:g} s; raise seconds'
                )
            row[: len(scene.audio)] = scene.audio
            row[len(scene.audio) :] = 0.0
        captions = [scene.caption for scene in scenes]
        padded = captions + captions[-1:] * (size - n)  # one shape, so one compiled program
        states, mask, _ = self._encode_text(padded, MAX_TEXT_TOKENS)
        known = self._embedded(event.text for scene in scenes for event in scene.events)
        width = np.asarray(states).shape[-1]
        out = {
            'latents': np.asarray(self._encode_audio(audio))[:n].astype(np.float16),
            'text': np.asarray(states)[:n].astype(np.float16),
            'text_mask': np.asarray(mask)[:n].astype(bool),
            'event_text': np.zeros((n, MAX_EVENTS, width), np.float16),
            'onset_s': np.zeros((n, MAX_EVENTS), np.float32),
            'offset_s': np.zeros((n, MAX_EVENTS), np.float32),
            'gain_db': np.zeros((n, MAX_EVENTS), np.float32),
            'event_mask': np.zeros((n, MAX_EVENTS), bool),
            'loudness_db': np.stack([frame_loudness(row) for row in audio[:n]]),
            'seconds': np.array([scene.seconds for scene in scenes], np.float32),
        }
        if self._curves:
            found = [curve_arrays(row, self._curves) for row in audio[:n]]
            out |= {name: np.stack([curves[name] for curves in found]) for name in found[0]}
        for i, scene in enumerate(scenes):
            for e, event in enumerate(scene.events[:MAX_EVENTS]):
                out['event_text'][i, e] = known[event.text]
                out['onset_s'][i, e], out['offset_s'][i, e] = event.onset_s, event.offset_s
                out['gain_db'][i, e], out['event_mask'][i, e] = event.gain_db, True
        return out

    def _embedded(self, texts: Iterable[str]) -> dict[str, np.ndarray]:
        """Sentence embeddings by text, float16 [D]."""
        new, size = sorted(set(texts) - set(self._event_texts)), 2 * self._batch_size
        for i in range(0, len(new), size):
            part = new[i : i + size]
            padded = part + part[-1:] * (size - len(part))
            sentence = np.asarray(self._encode_text(padded, MAX_EVENT_TOKENS)[2])
            self._event_texts.update(zip(part, sentence.astype(np.float16), strict=False))
        return self._event_texts


def build_latent_scenes(
    scenes: Iterable[Scene],
    count: int,
    seconds: float,
    encode_audio: EncodeAudio,
    encode_text: EncodeText,
    folder: str | Path,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
    curves: tuple[str, ...] = (),
) -> 'LatentScenes':
    """Encodes scenes into a folder, or opens what an earlier call left there.

    Scenes are drawn and written batch by batch, so their number is not bounded by memory.

    Args:
      scenes: at least `count` scenes; not touched when the cache is there.
      count: how many to encode.
      seconds: of the longest scene; shorter ones are padded with silence.
      encode_audio: float32 [B, S, 2] at 48 kHz to latents [B, L, C].
      encode_text: (texts, max_tokens) to (states [B, T, D], mask [B, T], sentence [B, D]).
      folder: of this cache; its name says what the latents depend on, see `array_cache.cache_key`.
      batch_size: B of every call of the two encoders.
      progress: called with (done, count) after each batch.
      curves: see `SceneEncoder`.

    Raises:
      ValueError: fewer than `count` scenes, or one longer than `seconds`.
    """
    encoder = SceneEncoder(encode_audio, encode_text, seconds, batch_size, curves)

    def build(temporary: Path) -> None:
        captions, events, drawn = [], [], iter(scenes)

        def encoded():
            while len(captions) < count:
                batch = list(itertools.islice(drawn, min(batch_size, count - len(captions))))
                if not batch:
                    raise ValueError(f'{len(captions)} scenes where {count} were announced')
                yield encoder(batch)
                captions.extend(scene.caption for scene in batch)
                events.extend([event.text for event in scene.events] for scene in batch)
                if progress:
                    progress(len(captions), count)

        index = {'captions': captions, 'event_texts': events}
        array_cache.fill_arrays(temporary, count, encoded(), index)

    return LatentScenes(array_cache.ensure(folder, build))


def crop_batch(
    batch: dict[str, Array], starts: Int[Array, 'B'], lengths: Int[Array, 'B'], frames: int
) -> dict[str, Array]:
    """Cuts every item of a batch to a length of its own, and its timeline with it; pure.

    Events that end before the crop or begin after it are dropped; those that reach over its edges
    are clipped to it (an onset before the crop becomes 0). A caption no longer holds where a whole
    event was dropped: there `text_mask` is all False, which is the condition "no text".

    Args:
      batch: arrays of `LatentScenes`, first axis B.
      starts: first latent frame of each crop.
      lengths: latent frames of each crop, at most `frames`.
      frames: that the arrays returned have; what lies beyond a crop is padding, whatever it holds.

    Returns:
      the batch in float32 with latents [B, frames, C], loudness_db [B, frames], times in seconds
      from the start of the crop, zeros in dropped events, and seconds = lengths / 25.
    """
    span = starts[:, None] + jnp.arange(frames)[None, :]
    span = jnp.minimum(span, batch['latents'].shape[1] - 1)
    seconds, first = (lengths / LATENT_RATE)[:, None], (starts / LATENT_RATE)[:, None]
    onset, offset = batch['onset_s'] - first, batch['offset_s'] - first
    kept = batch['event_mask'] & (offset > 0) & (onset < seconds)
    complete = (kept == batch['event_mask']).all(axis=1)
    cropped = {
        **batch,
        'latents': jnp.take_along_axis(batch['latents'], span[..., None], axis=1),
        'loudness_db': jnp.take_along_axis(batch['loudness_db'], span, axis=1),
        'text_mask': batch['text_mask'] & complete[:, None],
        'event_text': jnp.where(kept[:, :, None], batch['event_text'], 0),
        'onset_s': jnp.where(kept, onset.clip(0.0, seconds), 0),
        'offset_s': jnp.where(kept, offset.clip(0.0, seconds), 0),
        'gain_db': jnp.where(kept, batch['gain_db'], 0),
        'event_mask': kept,
        'seconds': seconds[:, 0],
    }
    for name in ('curves', 'curve_mask'):
        if name in batch:
            cropped[name] = jnp.take_along_axis(batch[name], span[..., None], axis=1)
    return {k: x if x.dtype == bool else x.astype(jnp.float32) for k, x in cropped.items()}


def random_lengths(key: Key[Array, ''], size: int, shortest: int, longest: int) -> Int[Array, 'B']:
    """Even lengths of crops: half of them the longest, the others evenly in the logarithm."""
    keys = jax.random.split(key)
    low, high = jnp.log(jnp.array([shortest, longest + 2.0]))
    drawn = jnp.exp(jax.random.uniform(keys[0], (size,), minval=low, maxval=high)).astype(int)
    whole = jax.random.bernoulli(keys[1], 0.5, (size,))
    return jnp.where(whole, longest, jnp.minimum(drawn, longest)) // 2 * 2


def random_starts(
    key: Key[Array, ''], batch: dict[str, Array], lengths: Int[Array, 'B']
) -> Int[Array, 'B']:
    """Even first frames of crops; half of them chosen so that some event begins inside."""
    keys = jax.random.split(key, 4)
    last = jnp.maximum(0, _frames(batch['seconds']) - lengths)
    anywhere = jax.random.randint(keys[0], last.shape, 0, last + 1)
    mask = batch['event_mask']
    event = jax.random.categorical(keys[1], jnp.where(mask, 0.0, -jnp.inf))[:, None]
    onset = jnp.take_along_axis(batch['onset_s'], event, axis=1)[:, 0] * LATENT_RATE
    before = onset.astype(int) - jax.random.randint(keys[2], last.shape, 0, lengths - 1)
    by_event = mask.any(axis=1) & jax.random.bernoulli(keys[3], 0.5, last.shape)
    return jnp.where(by_event, jnp.clip(before, 0, last), anywhere) // 2 * 2


class LatentScenes:
    """Encoded scenes in memory-mapped arrays; a random-access source of examples.

    Attributes:
      arrays: latents f16 [N, L, C], text f16 [N, T, D], text_mask [N, T], event_text f16 [N, E, D],
        onset_s, offset_s, gain_db f32 [N, E], event_mask [N, E], loudness_db f32 [N, L], seconds
        f32 [N].
      captions, event_texts: the N captions, and the texts of the N lists of events.

    Raises:
      FileNotFoundError: the folder is not a complete cache.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.arrays, index = array_cache.open_arrays(folder)
        self.captions: list[str] = index['captions']
        self.event_texts: list[list[str]] = index['event_texts']

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def frames(self) -> int:
        """L, of the longest scene."""
        return self.arrays['latents'].shape[1]

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        return {name: np.array(array[i]) for name, array in self.arrays.items()}

    def rows(self, indices: Sequence[int] | np.ndarray) -> dict[str, Array]:
        """A batch of whole scenes, in float32."""
        chosen = np.asarray(indices)
        batch = {name: jnp.asarray(array[chosen]) for name, array in self.arrays.items()}
        starts, lengths = (jnp.full(len(chosen), n) for n in (0, self.frames))
        return crop_batch(batch, starts, lengths, self.frames) | {'seconds': batch['seconds']}


def _frames(seconds: Float[Array, 'B']) -> Int[Array, 'B']:
    """Whole latent frames of sounds."""
    return (seconds * LATENT_RATE + 1e-3).astype(int)


class Latents(NamedTuple):
    """What `RandomCrops` takes of `LatentScenes`; of several at once, or with arrays added."""

    arrays: Mapping[str, np.ndarray]
    frames: int


def joined(first: LatentScenes | Latents, *others: LatentScenes | Latents) -> Latents:
    """Several sets as one.

    Raises:
      ValueError: they differ in frames or in their arrays' names.
    """
    for other in others:
        if first.frames != other.frames or set(first.arrays) != set(other.arrays):
            raise ValueError(
                f'sets of {first.frames} and {other.frames} frames, with {sorted(first.arrays)} '
                f'and {sorted(other.arrays)}: only alike ones can be joined'
            )
    sets = (first, *others)
    arrays = {name: np.concatenate([s.arrays[name] for s in sets]) for name in first.arrays}
    return Latents(arrays, first.frames)


class RandomCrops:
    """Endless batches of random crops of random scenes, drawn on the device that holds the scenes.

    Crops are of many lengths in arrays of one, so that what takes them compiles once; none is
    longer than its scene. Batch i is a function of (seed, i) alone; `get_state` and `set_state`
    save and restore the place, as those of `loader.Batches` do.

    Args:
      scenes: all of them go to the device, 110 kB for one of 10 s.
      batch_size: B.
      seed: of everything random.
      min_seconds: of crops, see `random_lengths`; as long as the scenes, and all crops are so.

    Raises:
      ValueError: min_seconds is longer than the scenes, or no time at all.
    """

    def __init__(
        self, scenes: LatentScenes | Latents, batch_size: int, seed: int, min_seconds: float
    ):
        shortest, longest = crop_frames(scenes.frames, min_seconds)
        self._scenes = {name: jnp.asarray(array) for name, array in scenes.arrays.items()}
        self._key, self._next = random_key(seed), 0
        self._draw = jax.jit(functools.partial(draw_crops, batch_size, shortest, longest, False))

    def __iter__(self) -> 'RandomCrops':
        return self

    def __next__(self) -> dict[str, Array]:
        self._next += 1
        return self._draw(self._scenes, jax.random.fold_in(self._key, self._next))

    def get_state(self) -> dict[str, int]:
        return {'next': self._next}

    def set_state(self, state: dict[str, int]) -> None:
        self._next = state['next']


def crop_frames(frames: int, min_seconds: float) -> tuple[int, int]:
    """The fewest and the most latent frames of crops of scenes of `frames`; both even.

    Raises:
      ValueError: min_seconds is longer than the scenes, or no time at all.
    """
    longest = frames // 2 * 2
    shortest = min(2 * round(min_seconds * LATENT_RATE / 2), longest)
    if shortest < 2 or min_seconds * LATENT_RATE > frames + 1e-3:
        raise ValueError(
            f'crops of {min_seconds:g} s at least from scenes of {frames / LATENT_RATE:g} s; take '
            'shorter ones, of 0.08 s or more'
        )
    return shortest, longest


def draw_crops(
    size: int,
    shortest: int,
    longest: int,
    distinct: bool,
    scenes: dict[str, Array],
    key: Key[Array, ''],
) -> dict[str, Array]:
    """A batch of random crops of random scenes; pure.

    Args:
      size: of the batch.
      shortest, longest: of the crops, latent frames, see `random_lengths`.
      distinct: whether no scene may come twice; there must be `size` of them.
      scenes: arrays of `LatentScenes`.
      key: of everything random.
    """
    keys, count = jax.random.split(key, 3), len(scenes['seconds'])
    if distinct:
        chosen = jax.random.permutation(keys[0], count)[:size]
    else:
        chosen = jax.random.randint(keys[0], (size,), 0, count)
    batch = {name: array[chosen] for name, array in scenes.items()}
    lengths = random_lengths(keys[1], size, shortest, longest)
    lengths = jnp.minimum(lengths, _frames(batch['seconds']) // 2 * 2)
    return crop_batch(batch, random_starts(keys[2], batch, lengths), lengths, longest)
