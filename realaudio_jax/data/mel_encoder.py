"""Scenes as log-mel frames beside the embedding of their caption, to train an audio tower on."""

import itertools
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from realaudio_jax.data.scenes import Scene
from realaudio_jax.io import resample
from realaudio_jax.models.audio_tower import TOWER_RATE, tower_log_mel
from realaudio_jax.typing import MAX_TEXT_TOKENS, SAMPLE_RATE


class MelEncoder:
    """Encodes scenes for `cache.encode_scenes`.

    Args:
        encode_text: (texts, max_tokens) to (states, mask, sentence embeddings [B 384]).
        text_digest: of the text encoder.
        batch_size: scenes per call of it.
    """

    def __init__(self, encode_text: Callable, text_digest: str, batch_size: int = 32):
        self._encode_text, self._text_digest = encode_text, text_digest
        self._batch_size = batch_size
        self._to_mel = jax.jit(tower_log_mel)

    def fingerprint(self) -> str:
        """Of what decides the rows of a scene."""
        return f'log mel {self._text_digest}'

    def encode(self, scenes: Iterable[Scene], seconds: float) -> Iterator[dict[str, np.ndarray]]:
        """Yields rows log_mel f16 [B N 64] of `seconds`, and text f16 [B 384]."""
        drawn, samples = iter(scenes), round(seconds * TOWER_RATE)
        while batch := list(itertools.islice(drawn, self._batch_size)):
            captions = [scene.caption for scene in batch]
            missing = self._batch_size - len(batch)
            padded = captions + captions[-1:] * missing  # one shape, one program
            sentences = np.asarray(self._encode_text(padded, MAX_TEXT_TOKENS)[2])[: len(batch)]
            yield {
                'log_mel': np.stack([self._log_mel(scene, samples) for scene in batch]),
                'text': sentences.astype(np.float16),
            }

    def _log_mel(self, scene: Scene, samples: int) -> np.ndarray:
        mono = np.zeros(samples, np.float32)
        part = resample(scene.audio.mean(axis=1), SAMPLE_RATE, TOWER_RATE)[:samples]
        mono[: len(part)] = part
        return np.asarray(self._to_mel(mono), np.float16)
