"""Scenes as log-mel frames beside the embedding of their caption, computed once and kept."""

import itertools
import os
from collections.abc import Callable, Iterable

import jax
import numpy as np

from realaudio_jax.data import array_cache
from realaudio_jax.data.scenes import Scene
from realaudio_jax.io import resample
from realaudio_jax.models.audio_tower import TOWER_RATE, tower_log_mel
from realaudio_jax.typing import MAX_TEXT_TOKENS, SAMPLE_RATE


class MelScenes:
    """Memory-mapped arrays log_mel f16 [count N 64] and text f16 [count 384]; items are dicts."""

    def __init__(self, folder: str | os.PathLike):
        arrays, _ = array_cache.open_arrays(folder)
        self.log_mel, self.text = arrays['log_mel'], arrays['text']

    def __len__(self) -> int:
        return len(self.log_mel)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        return {'log_mel': np.array(self.log_mel[i]), 'text': np.array(self.text[i])}


def mel_scenes(
    scenes: Iterable[Scene],
    count: int,
    seconds: float,
    encode_text: Callable,
    folder: str | os.PathLike,
    progress: Callable[[int], None] | None = None,
    batch_size: int = 32,
) -> MelScenes:
    """Renders `count` scenes of `seconds` into a folder, or opens what is there.

    Args:
      scenes: at least `count`, each of `seconds`; not touched when the cache is there.
      count, seconds: of the scenes.
      encode_text: (texts, max_tokens) to (states, mask, sentence embeddings [B 384]).
      folder: of this cache; its name says what it was made from, see `array_cache.cache_key`.
      progress: called with the number done.
      batch_size: scenes per call of the text encoder.

    Raises:
      ValueError: fewer than `count` scenes.
    """
    to_mel = jax.jit(tower_log_mel)
    samples = round(seconds * TOWER_RATE)

    def log_mel(scene: Scene) -> np.ndarray:
        mono = np.zeros(samples, np.float32)
        part = resample(scene.audio.mean(axis=1), SAMPLE_RATE, TOWER_RATE)[:samples]
        mono[: len(part)] = part
        return np.asarray(to_mel(mono), np.float16)

    def encoded():
        done, drawn = 0, iter(scenes)
        while done < count:
            wanted = min(batch_size, count - done)
            batch = list(itertools.islice(drawn, wanted))
            if len(batch) < wanted:
                raise ValueError(f'{done + len(batch)} scenes where {count} were announced')
            captions = [scene.caption for scene in batch]
            padded = captions + captions[-1:] * (batch_size - wanted)  # one shape, one program
            sentences = np.asarray(encode_text(padded, MAX_TEXT_TOKENS)[2])[:wanted]
            yield {
                'log_mel': np.stack([log_mel(scene) for scene in batch]),
                'text': sentences.astype(np.float16),
            }
            done += wanted
            if progress:
                progress(done)

    return MelScenes(
        array_cache.ensure(
            folder, lambda temporary: array_cache.fill_arrays(temporary, count, encoded())
        )
    )
