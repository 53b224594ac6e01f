"""Scenes as log-mel frames beside the embedding of their caption, computed once and kept."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import numpy as np

from realaudio_jax.data.scenes import Scene
from realaudio_jax.io import atomic_folder, resample
from realaudio_jax.models.audio_tower import BANDS, HOP, TOWER_RATE, tower_log_mel
from realaudio_jax.typing import MAX_TEXT_TOKENS, SAMPLE_RATE, TEXT_WIDTH

MEL_NAME, TEXT_NAME = 'log_mel.npy', 'text.npy'


class MelScenes:
    """Memory-mapped arrays log_mel f16 [count N 64] and text f16 [count 384]; items are dicts."""

    def __init__(self, folder: str | os.PathLike):
        self.log_mel = np.load(Path(folder) / MEL_NAME, mmap_mode='r')
        self.text = np.load(Path(folder) / TEXT_NAME, mmap_mode='r')

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
    key: str,
    progress: Callable[[int], None] | None = None,
    batch_size: int = 32,
) -> MelScenes:
    """Renders `count` scenes of `seconds` into `folder`/`key`, or opens what is there.

    Args:
      scenes: at least `count`, each of `seconds`; not touched when the cache is there.
      count, seconds: of the scenes.
      encode_text: (texts, max_tokens) to (states, mask, sentence embeddings [B 384]).
      folder: where caches lie.
      key: names what the cache was made from.
      progress: called with the number done.
      batch_size: scenes per call of the text encoder.

    Raises:
      ValueError: fewer than `count` scenes.
    """
    final = Path(folder) / key
    if (final / TEXT_NAME).is_file():
        return MelScenes(final)
    to_mel = jax.jit(tower_log_mel)
    samples = round(seconds * TOWER_RATE)
    with atomic_folder(final, TEXT_NAME) as temporary:
        shape = (count, samples // HOP, BANDS)
        mel = np.lib.format.open_memmap(temporary / MEL_NAME, 'w+', np.float16, shape)
        text = np.zeros((count, TEXT_WIDTH), np.float16)
        captions, done = [], 0
        for done, scene in zip(range(1, count + 1), scenes, strict=False):
            mono = np.zeros(samples, np.float32)
            part = resample(scene.audio.mean(axis=1), SAMPLE_RATE, TOWER_RATE)[:samples]
            mono[: len(part)] = part
            mel[done - 1] = to_mel(mono)
            captions.append(scene.caption)
            if len(captions) == batch_size or done == count:
                full = captions + captions[-1:] * (batch_size - len(captions))
                sentences = np.asarray(encode_text(full, MAX_TEXT_TOKENS)[2])
                text[done - len(captions) : done] = sentences[: len(captions)]
                captions = []
                if progress:
                    progress(done)
        if done < count:
            raise ValueError(f'{done} scenes where {count} were announced')
        mel.flush()
        del mel
        np.save(temporary / TEXT_NAME, text)
    return MelScenes(final)
