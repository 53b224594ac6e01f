"""Scenes as latents and text states of a release's frozen encoders."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from realaudio_jax.data.curves import curve_arrays
from realaudio_jax.data.latent_crops import scene_frames
from realaudio_jax.data.scenes import Scene
from realaudio_jax.typing import (
    LATENT_RATE,
    MAX_EVENT_TOKENS,
    MAX_EVENTS,
    MAX_TEXT_TOKENS,
    SAMPLE_RATE,
    Float,
)

FRAME_SAMPLES = SAMPLE_RATE // LATENT_RATE
LOUDNESS_FLOOR_DB = -80.0


def frame_loudness(audio: Float[np.ndarray, 'S 2']) -> Float[np.ndarray, ' L']:
    """RMS of the mono middle in each latent frame, dBFS, at least -80; S is cut to whole frames."""
    frames = len(audio) // FRAME_SAMPLES
    audio = audio[: frames * FRAME_SAMPLES]
    middle = (0.5 * (audio[:, 0] + audio[:, 1])).reshape(frames, FRAME_SAMPLES)  # mean() takes 7 x
    power = np.square(middle, dtype=np.float64).mean(axis=1)
    return (10 * np.log10(np.maximum(power, 10 ** (LOUDNESS_FLOOR_DB / 10)))).astype(np.float32)


@runtime_checkable
class SoundAndTextEncoders(Protocol):
    """What a `SceneEncoder` takes of a release's frozen networks."""

    def encode_audio(self, audio: np.ndarray) -> Any:
        """Float32 sound [B, S, 2] at 48 kHz to latents [B, L, C]."""

    def encode_text(self, texts: list[str], max_tokens: int) -> tuple[Any, Any, Any]:
        """Texts to states [B, T, D], mask [B, T] and sentence embeddings [B, D]."""

    def fingerprint(self) -> str:
        """Hash of the weights of the networks."""


class SceneEncoder:
    """Scenes as latents and text states; every call of the two encoders has one size.

    Args:
        encoders: of sound and text.
        batch_size: B of every call; event texts go through it 2 B at a time, each once.
        curves: names of the curves besides loudness that are stored, see `curves.curve_arrays`.
    """

    def __init__(
        self, encoders: SoundAndTextEncoders, batch_size: int = 8, curves: Sequence[str] = ()
    ):
        self._encoders, self._curves = encoders, tuple(curves)
        self._batch_size = batch_size
        self._event_texts: dict[str, np.ndarray] = {}
        # Filled again in every call: new pages for 31 MB would take half as long as mixing does.
        self._audio = np.zeros((0, 0, 2), np.float32)

    def fingerprint(self) -> str:
        """Hash of all that decides the arrays of a scene."""
        return ' '.join((self._encoders.fingerprint(), *self._curves))

    def encode(self, scenes: Iterable[Scene], seconds: float) -> Iterator[dict[str, np.ndarray]]:
        """Rows of all scenes, at most B at a time.

        Args:
            scenes: any number.
            seconds: of the longest; shorter ones are padded with silence.

        Yields:
            latents f16 [N, L, C], text f16 [N, T, D], text_mask [N, T], event_text f16 [N, E, D],
            onset_s, offset_s, gain_db f32 [N, E], event_mask [N, E], loudness_db f32 [N, L],
            seconds f32 [N], and the curves.

        Raises:
            ValueError: a scene is longer than `seconds`.
        """
        drawn = iter(scenes)
        while batch := list(itertools.islice(drawn, self._batch_size)):
            yield self(batch, seconds)

    def __call__(self, scenes: Sequence[Scene], seconds: float) -> dict[str, np.ndarray]:
        """The rows of 1 to B scenes; see `encode`."""
        n, size = len(scenes), self._batch_size
        shape = (size, scene_frames(seconds) * FRAME_SAMPLES, 2)
        if self._audio.shape != shape:
            self._audio = np.zeros(shape, np.float32)
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
        states, mask, _ = self._encoders.encode_text(padded, MAX_TEXT_TOKENS)
        known = self._embedded(event.text for scene in scenes for event in scene.events)
        width = np.asarray(states).shape[-1]
        out = {
            'latents': np.asarray(self._encoders.encode_audio(audio))[:n].astype(np.float16),
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
            sentence = np.asarray(self._encoders.encode_text(padded, MAX_EVENT_TOKENS)[2])
            self._event_texts.update(zip(part, sentence.astype(np.float16), strict=False))
        return self._event_texts
