"""Disk cache of the embeddings of a folder of sounds; an interrupted run continues.

A file's vectors lie under a name made of its bytes and of the embedder, checkpoint included: a file
that is renamed or copied keeps them, one that is edited loses them. Only one clip's vectors are in
memory at a time, so sets of any size can be compared.
"""

import collections
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from realaudio_jax.integrity import digest, read_npz
from realaudio_jax.io import atomic_path
from realaudio_jax.metrics.embedders.base import Embedder, embed_stream
from realaudio_jax.sound_files import read_sound, reason

FORMAT = 2  # of the stored files; part of their name
SILENT = 10 ** (-60 / 20)  # peak below which a file counts as silent


class StoredVectors(collections.abc.Sequence):
    """Vectors [frames D] of each clip, read from disk when asked for."""

    def __init__(self, paths: Sequence[pathlib.Path]):
        self.paths = tuple(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int | np.integer) -> np.ndarray:
        with np.load(self.paths[index]) as stored:
            return stored['vectors']

    def take(self, indices: Sequence[int]) -> 'StoredVectors':
        """These clips alone, in this order."""
        return StoredVectors([self.paths[i] for i in indices])

    def by_content(self) -> 'StoredVectors':
        """The clips in an order that no file name decides, so that a set has one value."""
        return StoredVectors(sorted(self.paths))


@dataclasses.dataclass(frozen=True)
class EmbeddedFiles:
    """Result of embedding a list of files: vectors, and files left out.

    Attributes:
        vectors: of the files that could be read, in the order of the list.
        files: those files.
        left_out: files that could not, each with the reason.
        short: how many are shorter than the embedder's window, so padded with silence.
        silent: how many never rise above -60 dBFS; they are kept.
        sample_rates: of the files, Hz, each once.
    """

    vectors: StoredVectors
    files: tuple[pathlib.Path, ...]
    left_out: tuple[tuple[pathlib.Path, str], ...]
    short: int
    silent: int
    sample_rates: tuple[int, ...]


def embed_files(
    embedder: Embedder,
    files: Sequence[str | os.PathLike],
    cache_dir: str | os.PathLike,
    batch: int = 32,
    progress: Callable[[int], None] | None = None,
) -> EmbeddedFiles:
    """Vectors of each file, from the cache or computed and stored there.

    Args:
        embedder: the network.
        files: sound files; those that cannot be read are left out, with the reason.
        cache_dir: folder of the cache, made if missing; several embedders can share it.
        batch: windows per call of the network.
        progress: called with the number of files done.
    """
    folder = pathlib.Path(cache_dir) / _embedder_key(embedder)
    stored: dict[pathlib.Path, pathlib.Path] = {}
    left_out: list[tuple[pathlib.Path, str]] = []
    pending: collections.deque = collections.deque()  # read, not yet stored

    def done():
        if progress:
            progress(len(stored) + len(left_out))

    def unknown() -> Iterator[np.ndarray]:
        for file in map(pathlib.Path, files):
            try:
                path = folder / f'{digest(file)[:32]}.npz'
                if read_npz(path) is not None:  # else it is not there, or damaged
                    stored[file] = path
                    done()
                    continue
                sound = read_sound(file, embedder.sample_rate)
            except (OSError, ValueError) as error:
                left_out.append((file, reason(file, error)))
                done()
                continue
            peak = float(np.abs(sound.audio).max())
            pending.append((file, path, sound.sample_rate, len(sound.audio), peak))
            yield sound.audio

    for vectors in embed_stream(embedder, unknown(), batch=batch):
        file, path, rate, samples, peak = pending.popleft()
        with atomic_path(path) as temporary, open(temporary, 'wb') as out:
            np.savez(out, vectors=vectors, rate=rate, short=samples < embedder.window, peak=peak)
        stored[file] = path
        done()
    kept = [file for file in map(pathlib.Path, files) if file in stored]
    return _summary(kept, stored, tuple(left_out))


def _summary(kept, stored, left_out):
    short, silent, rates = 0, 0, set()
    for file in kept:
        with np.load(stored[file]) as about:
            short += bool(about['short'])
            silent += bool(about['peak'] < SILENT)
            rates.add(int(about['rate']))
    vectors = StoredVectors([stored[file] for file in kept])
    return EmbeddedFiles(vectors, tuple(kept), left_out, short, silent, tuple(sorted(rates)))


def _embedder_key(embedder):
    parts = (
        FORMAT,
        embedder.name,
        embedder.sample_rate,
        embedder.dimension,
        embedder.window,
        embedder.hop,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
