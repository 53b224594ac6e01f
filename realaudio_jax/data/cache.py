"""Folders that are computed once: their keys say what went in, their digests what came out.

    folder = ensure(parent / cache_key('latents', count=8, source=source.digest), build)
    arrays, index = open_arrays(folder)
    encoded = encode_scenes(teacher, dataset.mixed('train', 8, 5.0, 0), parent)

A key is a hash of everything that decides the content: sounds and weights by digest (never where
they lie), every setting, number formats, and the code that makes it (`code_digest`). A folder gets
its name when all is in it, with a manifest of digests (see `integrity`): one that is damaged later
is made anew, with a line. `.partial-*` folders of killed processes are swept. Of several processes
of a run the first makes it, while the others wait.
"""

import functools
import hashlib
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from realaudio_jax import integrity, processes
from realaudio_jax.io import atomic_folder
from realaudio_jax.trees import named_leaves
from realaudio_jax.typing import PyTree

VERSION = 2  # of the layout; part of every key
INDEX_NAME = 'index.json'
STALE_S = 24 * 3600  # a partial folder this old belongs to no process that still runs


def cache_key(kind: str, **parts: Any) -> str:
    """A short hash of what a cache's content depends on.

    Args:
        kind: of the content.
        parts: JSON-able values by name; tuples count as lists.

    Raises:
        TypeError: a value that JSON cannot hold: its text might leave out what matters.
    """
    text = json.dumps([VERSION, kind, parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def weights_digest(params: PyTree) -> str:
    """SHA-256 of all arrays of a tree, with their names, dtypes and shapes."""
    digest = hashlib.sha256()
    for name, leaf in named_leaves(params):
        array = np.ascontiguousarray(jax.device_get(leaf))
        digest.update(f'{name} {array.dtype} {array.shape}\n'.encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def code_digest(*modules: ModuleType) -> str:
    """SHA-256 of the source text of modules: what they make may change with any line of it."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()


def ensure(
    folder: str | os.PathLike,
    build: Callable[[Path], None],
    say: Callable[[str], None] | None = None,
    remedy: str = 'free some space',
) -> Path:
    """Makes a folder that is not there or not what was written; else leaves it as it is.

    Args:
        folder: its last part is the `cache_key`.
        build: called with the temporary folder that it fills.
        say: takes a line where the folder is damaged; None prints it.
        remedy: for the message when the disk is full.

    Returns:
        The folder.

    Raises:
        OSError: it cannot be written; a full disk is named with the remedy.
    """
    folder = Path(folder)
    processes.first_then_all(lambda: _make(folder, build, say, remedy), f'cache {folder.name}')
    return folder


def _make(
    folder: Path,
    build: Callable[[Path], None],
    say: Callable[[str], None] | None,
    remedy: str,
) -> None:
    if folder.is_dir():
        try:
            if _verified(folder, _stamps(folder)):
                return
            problem = 'it has no manifest'
        except integrity.IntegrityError as error:
            problem = str(error).removeprefix(f'{folder}: ').rsplit(';', 1)[0]
        line = f'{folder} is damaged ({problem}) and is made anew'
        say(line) if say else print(line, file=sys.stderr, flush=True)
        shutil.rmtree(folder)
    _sweep(folder.parent)
    with atomic_folder(folder, integrity.MANIFEST_NAME, remedy) as temporary:
        build(temporary)
        integrity.write_manifest(temporary)


def content_digest(folder: str | os.PathLike) -> str:
    """Of all that a folder made by `ensure` holds; equal where the content is."""
    return integrity.digest(Path(folder) / integrity.MANIFEST_NAME)


def open_arrays(folder: str | os.PathLike) -> tuple[dict[str, np.ndarray], Any]:
    """The npy files of a folder, memory-mapped, by name; and what its index holds.

    Raises:
        FileNotFoundError: the folder is not a complete cache.
    """
    folder = Path(folder)
    if not (folder / INDEX_NAME).is_file():
        raise FileNotFoundError(f'{folder}: no complete cache here; build it again')
    index = json.loads((folder / INDEX_NAME).read_text(encoding='utf-8'))
    arrays = {path.stem: np.load(path, mmap_mode='r') for path in sorted(folder.glob('*.npy'))}
    return arrays, index


def write_index(folder: Path, index: Any) -> None:
    """The last file of a folder that `open_arrays` opens."""
    (folder / INDEX_NAME).write_text(json.dumps(index), encoding='utf-8')


def fill_arrays(
    folder: Path, count: int, batches: Iterable[dict[str, np.ndarray]], index: Any = None
) -> None:
    """Writes batches of rows into npy files, and the index: a `build` of `ensure`.

    Args:
        folder: see `ensure`.
        count: rows of all batches.
        batches: rows by the array's name; all have the same names.
        index: JSON-able; may be filled while the batches come.
    """
    writer = ArrayWriter(folder, count)
    for batch in batches:
        writer.write(batch)
    writer.close()
    write_index(folder, index)


class ArrayWriter:
    """One npy file per name, grown batch by batch along its first axis.

    The space of each is claimed at its first batch: a full disk is an error there, where writing
    through the memory map would end the process with a bus error.
    """

    def __init__(self, folder: Path, count: int):
        self.folder, self.count, self.arrays, self.filled = folder, count, {}, 0

    def write(self, batch: dict[str, np.ndarray]) -> None:
        """Appends rows."""
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
        """Writes what is still in memory."""
        for array in self.arrays.values():
            array.flush()
        self.arrays.clear()


def reserve(path: Path) -> None:
    """Claims the disk space of a sparse file: a full disk is an error here, a crash later."""
    if hasattr(os, 'posix_fallocate'):
        with open(path, 'r+b') as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


class SceneSet(NamedTuple):
    """Scenes, and what decides them.

    Attributes:
        scenes: of `data.scenes.Scene`; not touched where their arrays are there already.
        count, seconds: how many, and of the longest one.
        digest: of the sounds, how they are mixed, and the seed; not of where they lie.
    """

    scenes: Iterable[Any]
    count: int
    seconds: float
    digest: str


@runtime_checkable
class Encoder(Protocol):
    """What makes arrays of scenes, a teacher for one."""

    def encode(self, scenes: Iterable[Any], seconds: float) -> Iterator[dict[str, np.ndarray]]:
        """Rows of the scenes by the array's name, some scenes at a time, in their order."""

    def fingerprint(self) -> str:
        """Hash of all that decides the rows of a scene."""


class EncodedScenes:
    """Scenes as arrays with a row for each; a random-access source of examples.

    Attributes:
        arrays: by name; memory-mapped where they come from one folder.
        folder: where they lie; None for arrays of several.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], folder: str | os.PathLike | None = None):
        self.arrays, self.folder = dict(arrays), folder and Path(folder)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        return self.rows(i)

    def rows(self, which: Any) -> dict[str, np.ndarray]:
        """Rows of one item, or of several, stacked."""
        return {name: np.array(array[which]) for name, array in self.arrays.items()}

    def replacing(self, arrays: Mapping[str, np.ndarray]) -> 'EncodedScenes':
        """The same scenes with other, or further, arrays."""
        return EncodedScenes(self.arrays | dict(arrays), self.folder)


def open_scenes(folder: str | os.PathLike) -> EncodedScenes:
    """What `encode_scenes` left in a folder; raises as `open_arrays`."""
    return EncodedScenes(open_arrays(folder)[0], folder)


def joined(first: EncodedScenes, *others: EncodedScenes) -> EncodedScenes:
    """Several sets as one.

    Raises:
        ValueError: their arrays differ in names, or in what a row is.
    """

    def form(scenes: EncodedScenes) -> dict[str, tuple[int, ...]]:
        return {name: array.shape[1:] for name, array in sorted(scenes.arrays.items())}

    for other in others:
        if form(other) != form(first):
            raise ValueError(f'{form(first)} and {form(other)}: only alike sets can be joined')
    if not others:
        return first
    sets = (first, *others)
    return EncodedScenes({k: np.concatenate([s.arrays[k] for s in sets]) for k in first.arrays})


def encode_scenes(
    encoder: Encoder,
    scenes: SceneSet,
    folder: str | os.PathLike,
    progress: Callable[[int], None] | None = None,
) -> EncodedScenes:
    """Encodes scenes into a folder of their own, or opens what an earlier call left there.

    Scenes are drawn and written batch by batch, so their number is not bounded by memory.

    Args:
        encoder: makes the rows.
        scenes: see `SceneSet`.
        folder: where caches lie.
        progress: called with the number done.

    Raises:
        ValueError: fewer scenes than announced, or one longer than announced.
    """

    def batches() -> Iterator[dict[str, np.ndarray]]:
        done = 0
        for rows in encoder.encode(itertools.islice(scenes.scenes, scenes.count), scenes.seconds):
            yield rows
            done += len(next(iter(rows.values())))
            if progress:
                progress(done)
        if done < scenes.count:
            raise ValueError(f'{done} scenes where {scenes.count} were announced')

    key = cache_key('scenes', scenes=scenes.digest, encoder=encoder.fingerprint())
    return open_scenes(
        ensure(Path(folder) / key, lambda new: fill_arrays(new, scenes.count, batches()))
    )


@functools.lru_cache(1000)  # a run opens one folder several times
def _verified(folder: Path, stamps: tuple) -> bool:
    del stamps
    return integrity.verify(folder)


def _stamps(folder: Path) -> tuple:
    """What changes when a file is written to."""
    found = ((path, path.stat()) for path in sorted(folder.rglob('*')))
    return tuple((path, about.st_size, about.st_mtime_ns) for path, about in found)


def _sweep(parent: Path) -> None:
    """Removes old partial folders; new ones may be another process's."""
    for left in list(parent.glob('.partial-*')):
        try:
            if time.time() - left.stat().st_mtime > STALE_S:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        except OSError:
            pass  # gone in the meantime, or not ours
