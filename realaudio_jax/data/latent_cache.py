"""Scenes as latents and text states, computed once and kept as a folder of npy arrays."""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from realaudio_jax.data.scenes import Scene
from realaudio_jax.io import atomic_folder
from realaudio_jax.typing import (
    LATENT_RATE,
    MAX_EVENT_TOKENS,
    MAX_EVENTS,
    MAX_TEXT_TOKENS,
    MIN_SECONDS,
    SAMPLE_RATE,
    Float,
    PyTree,
)

FRAME_SAMPLES = SAMPLE_RATE // LATENT_RATE
LOUDNESS_FLOOR_DB = -80.0
INDEX_NAME = 'index.json'
VERSION = 1

EncodeAudio = Callable[[np.ndarray], Any]  # float32 [B, S, 2] -> [B, L, C]
# (texts, max_tokens) -> states [B, T, D], mask [B, T], sentence [B, D]
EncodeText = Callable[[list[str], int], tuple[Any, Any, Any]]


def fingerprint(*parts: Any) -> str:
    """A short stable hash of JSON-able values: what a cached set of latents was made from."""
    text = json.dumps([VERSION, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def weights_fingerprint(params: PyTree) -> str:
    """CRC-32 of all arrays of a tree: changes with any weight."""
    crc = 0
    for leaf in jax.tree.leaves(params):
        crc = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8), crc)
    return f'{crc:08x}'


def frame_loudness(audio: Float[np.ndarray, 'S 2']) -> Float[np.ndarray, ' L']:
    """RMS of the mono middle in each latent frame, dBFS, at least -80; S is cut to whole frames."""
    frames = len(audio) // FRAME_SAMPLES
    middle = audio[: frames * FRAME_SAMPLES].mean(axis=1).reshape(frames, FRAME_SAMPLES)
    power = np.square(middle, dtype=np.float64).mean(axis=1)
    return (10 * np.log10(np.maximum(power, 10 ** (LOUDNESS_FLOOR_DB / 10)))).astype(np.float32)


class ArrayWriter:
    """One npy file per name, grown batch by batch along its first axis."""

    def __init__(self, folder: Path, count: int):
        self.folder, self.count, self.arrays, self.filled = folder, count, {}, 0

    def write(self, batch: dict[str, np.ndarray]) -> None:
        size = len(next(iter(batch.values())))
        for name, rows in batch.items():
            if name not in self.arrays:
                path = self.folder / f'{name}.npy'
                shape = (self.count, *rows.shape[1:])
                self.arrays[name] = np.lib.format.open_memmap(path, 'w+', rows.dtype, shape)
                reserve(path)
            self.arrays[name][self.filled : self.filled + size] = rows
        self.filled += size

    def close(self) -> None:
        for array in self.arrays.values():
            array.flush()
        self.arrays.clear()


def reserve(path: Path) -> None:
    """Claims the disk space of a sparse file: a full disk is an error here, a crash later."""
    if hasattr(os, 'posix_fallocate'):
        with open(path, 'r+b') as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


class _EventTexts:
    """Sentence embeddings of event texts, each text encoded once, in batches of a fixed size."""

    def __init__(self, encode: EncodeText, batch_size: int):
        self.encode, self.batch_size, self.known = encode, batch_size, {}

    def __call__(self, texts: Sequence[str]) -> None:
        new = sorted(set(texts) - set(self.known))
        for i in range(0, len(new), self.batch_size):
            part = new[i : i + self.batch_size]
            padded = part + part[-1:] * (self.batch_size - len(part))
            sentence = np.asarray(self.encode(padded, MAX_EVENT_TOKENS)[2])
            self.known.update(zip(part, sentence.astype(np.float16), strict=False))


def _encode_batch(
    scenes: list[Scene],
    batch_size: int,
    frames: int,
    encode_audio: EncodeAudio,
    encode_text: EncodeText,
    event_texts: _EventTexts,
) -> dict[str, np.ndarray]:
    n = len(scenes)
    audio = np.zeros((batch_size, frames * FRAME_SAMPLES, 2), np.float32)
    for row, scene in zip(audio, scenes, strict=False):
        if len(scene.audio) > len(row):
            raise ValueError(
                f'a scene of {scene.seconds:g} s among latents of {len(row) / SAMPLE_RATE:g} s; '
                'raise seconds'
            )
        row[: len(scene.audio)] = scene.audio
    captions = [scene.caption for scene in scenes]
    padded = captions + captions[-1:] * (batch_size - n)  # one shape, so one compiled program
    states, mask, _ = encode_text(padded, MAX_TEXT_TOKENS)
    event_texts([event.text for scene in scenes for event in scene.events])
    width = np.asarray(states).shape[-1]
    out = {
        'latents': np.asarray(encode_audio(audio))[:n].astype(np.float16),
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
    for i, scene in enumerate(scenes):
        for e, event in enumerate(scene.events[:MAX_EVENTS]):
            out['event_text'][i, e] = event_texts.known[event.text]
            out['onset_s'][i, e], out['offset_s'][i, e] = event.onset_s, event.offset_s
            out['gain_db'][i, e], out['event_mask'][i, e] = event.gain_db, True
    return out


def build_latent_scenes(
    scenes: Iterable[Scene],
    count: int,
    seconds: float,
    encode_audio: EncodeAudio,
    encode_text: EncodeText,
    folder: str | Path,
    key: str,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> 'LatentScenes':
    """Encodes scenes into `folder`/`key`, or opens what an earlier call left there.

    Scenes are drawn and written batch by batch, so their number is not bounded by memory; the
    folder gets its name when everything is in it.

    Args:
      scenes: at least `count` scenes; not touched when the cache is there.
      count: how many to encode.
      seconds: of the longest scene; shorter ones are padded with silence.
      encode_audio: float32 [B, S, 2] at 48 kHz to latents [B, L, C].
      encode_text: (texts, max_tokens) to (states [B, T, D], mask [B, T], sentence [B, D]).
      folder: where caches lie.
      key: names what the latents depend on (source, configuration, weights); see `fingerprint`.
      batch_size: B of every call of the two encoders.
      progress: called with (done, count) after each batch.

    Raises:
      ValueError: fewer than `count` scenes, or one longer than `seconds`.
    """
    final = Path(folder) / key
    if (final / INDEX_NAME).exists():
        return LatentScenes(final)
    frames = round(seconds * LATENT_RATE)
    with atomic_folder(final, INDEX_NAME) as temporary:
        writer, captions, events = ArrayWriter(temporary, count), [], []
        event_texts, batch, drawn = _EventTexts(encode_text, 2 * batch_size), [], iter(scenes)
        while len(captions) < count:
            batch = [s for _, s in zip(range(min(batch_size, count - writer.filled)), drawn)]  # noqa: B905
            if not batch:
                raise ValueError(f'{len(captions)} scenes where {count} were announced')
            writer.write(
                _encode_batch(batch, batch_size, frames, encode_audio, encode_text, event_texts)
            )
            captions += [scene.caption for scene in batch]
            events += [[event.text for event in scene.events] for scene in batch]
            if progress:
                progress(len(captions), count)
        writer.close()
        index = {'version': VERSION, 'key': key, 'captions': captions, 'event_texts': events}
        (temporary / INDEX_NAME).write_text(json.dumps(index))
    return LatentScenes(final)


def crop_lengths(max_frames: int, min_seconds: float = MIN_SECONDS, count: int = 8) -> list[int]:
    """Up to `count` even lengths in latent frames from min_seconds to max_frames, evenly in log."""
    shortest = min(2 * int(np.ceil(min_seconds * LATENT_RATE / 2)), max_frames)
    lengths = np.geomspace(shortest, max_frames, count)
    return sorted({max(2, 2 * int(length / 2 + 1e-6)) for length in lengths})


def crop_batch(
    batch: dict[str, np.ndarray], starts: Sequence[int] | np.ndarray, frames: int
) -> dict[str, np.ndarray]:
    """Cuts every item of a batch to `frames` latent frames, and its timeline with it.

    Events that end before the crop or begin after it are dropped; those that reach over its edges
    are clipped to it (an onset before the crop becomes 0). A caption no longer holds where a whole
    event was dropped: there `text_mask` is all False, which is the condition "no text".

    Args:
      batch: arrays of `LatentScenes`, first axis B.
      starts: [B] first latent frame of each crop.
      frames: length of all crops.

    Returns:
      the batch with latents [B, frames, C], loudness_db [B, frames], times in seconds from the
      start of the crop, zeros in dropped events, and seconds = frames / 25.
    """
    starts = np.asarray(starts)
    span = starts[:, None] + np.arange(frames)[None, :]
    rows = np.arange(len(starts))[:, None]
    seconds, first = frames / LATENT_RATE, (starts / LATENT_RATE)[:, None]
    onset, offset = batch['onset_s'] - first, batch['offset_s'] - first
    kept = batch['event_mask'] & (offset > 0) & (onset < seconds)
    complete = (kept == batch['event_mask']).all(axis=1)
    zero = np.float32(0.0)
    return {
        **batch,
        'latents': batch['latents'][rows, span].astype(np.float32),
        'loudness_db': batch['loudness_db'][rows, span],
        'text': batch['text'].astype(np.float32),
        'text_mask': batch['text_mask'] & complete[:, None],
        'event_text': np.where(kept[:, :, None], batch['event_text'], 0).astype(np.float32),
        'onset_s': np.where(kept, onset.clip(0.0, seconds), zero).astype(np.float32),
        'offset_s': np.where(kept, offset.clip(0.0, seconds), zero).astype(np.float32),
        'gain_db': np.where(kept, batch['gain_db'], zero),
        'event_mask': kept,
        'seconds': np.full(len(starts), seconds, np.float32),
    }


def random_starts(
    rng: np.random.Generator, batch: dict[str, np.ndarray], frames: int
) -> np.ndarray:
    """[B] even first frames of crops; half of them chosen so that some event begins inside."""
    lasts = np.maximum(0, (batch['seconds'] * LATENT_RATE + 1e-3).astype(int) - frames)
    starts = rng.integers(lasts + 1)
    for i, mask in enumerate(batch['event_mask']):
        if mask.any() and rng.random() < 0.5:
            onset = int(rng.choice(batch['onset_s'][i][mask]) * LATENT_RATE)
            starts[i] = np.clip(onset - rng.integers(frames), 0, lasts[i])
    return starts // 2 * 2


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
        if not (self.folder / INDEX_NAME).is_file():
            raise FileNotFoundError(f'{folder}: no cached latents here; build them again')
        index = json.loads((self.folder / INDEX_NAME).read_text())
        self.captions: list[str] = index['captions']
        self.event_texts: list[list[str]] = index['event_texts']
        self.arrays = {
            path.stem: np.load(path, mmap_mode='r') for path in sorted(self.folder.glob('*.npy'))
        }

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def frames(self) -> int:
        """L, of the longest scene."""
        return self.arrays['latents'].shape[1]

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        return {name: np.array(array[i]) for name, array in self.arrays.items()}

    def rows(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """A batch of whole scenes, in float32."""
        batch = {name: np.array(array[np.asarray(indices)]) for name, array in self.arrays.items()}
        return crop_batch(batch, np.zeros(len(batch['seconds']), int), self.frames) | {
            'seconds': batch['seconds']
        }

    def sample_batch(
        self, rng: np.random.Generator, batch_size: int, seconds: float | None = None
    ) -> dict[str, np.ndarray]:
        """Random crops of random scenes, all of one length.

        Args:
          rng: chooses scenes, places and length.
          batch_size: B.
          seconds: length of the crops; None draws one of `crop_lengths`, the longest half the time.

        Returns:
          see `crop_batch`.
        """
        indices = rng.integers(len(self), size=batch_size)
        batch = {name: np.array(array[indices]) for name, array in self.arrays.items()}
        return RandomCrop(self.frames, seconds)(batch, rng)


class RandomCrop:
    """`transform(batch, rng)` for `loader.batches`: crops of one random length for each batch."""

    def __init__(self, max_frames: int, seconds: float | None = None, count: int = 8):
        if seconds is not None and not 0 < round(seconds * LATENT_RATE) <= max_frames:
            raise ValueError(
                f'crops of {seconds:g} s from scenes of {max_frames / LATENT_RATE:g} s; take less'
            )
        self.lengths = crop_lengths(max_frames, count=count)
        self.frames = None if seconds is None else max(2, round(seconds * LATENT_RATE / 2) * 2)

    def __call__(
        self, batch: dict[str, np.ndarray], rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        frames = self.frames
        if frames is None:
            longest = rng.random() < 0.5
            frames = self.lengths[-1] if longest else int(rng.choice(self.lengths))
        return crop_batch(batch, random_starts(rng, batch, frames), frames)
