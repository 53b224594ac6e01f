"""Interface of embedding networks, and streaming of clips through them.

An embedder sees windows of fixed length. `embed_clips` cuts clips of any length into such windows
and runs them in batches of one shape that cross clip boundaries: one compiled program serves all
clips, memory stays constant, and the result does not depend on order or batch size.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from realaudio_jax.audio import as_float
from realaudio_jax.io import printable, resample
from realaudio_jax.sound_files import read_audio
from realaudio_jax.typing import Array, Float


@dataclasses.dataclass(frozen=True)
class Embedder:
    """A named embedding network.

    Attributes:
        name: what a table prints, checkpoint included.
        sample_rate: rate of the audio it takes, Hz.
        dimension: D of its vectors.
        window_s: seconds of sound behind one vector.
        licence: licence of the weights.
        embed: mono audio [B S] at `sample_rate`, range [-1, 1], S at least one window, to
            [B frames D] with frames = 1 + (S - window) // hop.
        hop_s: seconds between vectors; None means one window.
        source: where the weights come from.
        repeat_short: whether a clip shorter than one window is repeated as often as it fits before
            zeros fill the rest.
        class_names: of a network that also classifies, the names of its classes.
        class_scores: vectors [N D] to the scores of those classes [N K], 0 to 1; None without.
    """

    name: str
    sample_rate: int
    dimension: int
    window_s: float
    licence: str
    embed: Callable[[Float[Array, 'B S']], Float[Array, 'B N D']]
    hop_s: float | None = None
    source: str = ''
    repeat_short: bool = False
    class_names: tuple[str, ...] = ()
    class_scores: Callable[[Float[np.ndarray, 'N D']], Float[np.ndarray, 'N K']] | None = None

    @property
    def window(self) -> int:
        """Samples of one window."""
        return round(self.window_s * self.sample_rate)

    @property
    def hop(self) -> int:
        """Samples from one window to the next."""
        return round((self.window_s if self.hop_s is None else self.hop_s) * self.sample_rate)


def embed_stream(
    embedder: Embedder,
    clips: Iterable[np.ndarray | str | os.PathLike],
    sample_rate: int | None = None,
    batch: int = 32,
) -> Iterator[Float[np.ndarray, '_ D']]:
    """Yields the vectors [frames D] of each clip in order, holding few clips at a time.

    A clip shorter than one window is padded with zeros at its end to one window (after repetition,
    where the embedder asks for it); samples past the last whole window are left out, as the
    published networks do.

    Args:
        clips: arrays [S] or [S A] in [-1, 1], or paths of sound files.
        sample_rate: rate of the arrays, Hz; None means the embedder's own. Files know theirs.
        batch: windows per call of the network.

    Raises:
        ValueError: a clip is empty or no sound, see `sound_files`; the message names it.
    """
    counts: list[int] = []  # windows of each clip not yet yielded
    queue: list[np.ndarray] = []  # windows not yet embedded
    done: list[np.ndarray] = []  # vectors not yet yielded
    for index, clip in enumerate(clips):
        audio = _mono(clip, index, sample_rate or embedder.sample_rate, embedder.sample_rate)
        windows = _windows(audio, embedder)
        counts.append(len(windows))
        queue.extend(windows)
        while len(queue) >= batch:
            done.extend(_embed_batch(embedder, queue[:batch], batch))
            del queue[:batch]
        while counts and counts[0] <= len(done):
            yield _take(counts, done)
    if queue:
        done.extend(_embed_batch(embedder, queue, batch))
    while counts:
        yield _take(counts, done)


def embed_clips(
    embedder: Embedder,
    clips: Iterable[np.ndarray | str | os.PathLike],
    sample_rate: int | None = None,
    batch: int = 32,
) -> list[Float[np.ndarray, '_ D']]:
    """The vectors [frames D] of each clip, in order; arguments as for `embed_stream`."""
    return list(embed_stream(embedder, clips, sample_rate, batch))


def _mono(clip, index, clip_rate, rate):
    if isinstance(clip, (str, os.PathLike)):
        name, audio = printable(clip), read_audio(clip, rate)
    else:
        name = f'clip {index}'
        audio = as_float(clip, name)
    if audio.ndim == 2:
        audio = audio.mean(1)
    if audio.ndim != 1 or not audio.size:
        raise ValueError(f'{name} has shape {list(audio.shape)}: give at least one sample, [S, A]')
    if not isinstance(clip, (str, os.PathLike)) and clip_rate != rate:
        audio = resample(audio, clip_rate, rate)
    return np.asarray(audio, np.float32)


def _windows(audio, embedder):
    window = embedder.window
    if len(audio) < window:
        if embedder.repeat_short:
            audio = np.tile(audio, window // len(audio))
        audio = np.pad(audio, (0, window - len(audio)))
    return np.lib.stride_tricks.sliding_window_view(audio, window)[:: embedder.hop]


def _embed_batch(embedder, windows, batch):
    """Vectors of up to `batch` windows; a short last batch is filled so that no shape is new."""
    full = np.zeros((batch, embedder.window), np.float32)
    full[: len(windows)] = windows
    vectors = np.asarray(embedder.embed(full))
    return list(vectors[: len(windows), 0])


def _take(counts, done):
    count = counts.pop(0)
    vectors = np.stack(done[:count])
    del done[:count]
    return vectors
