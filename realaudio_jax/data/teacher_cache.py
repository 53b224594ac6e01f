"""Scenes as a foreign teacher takes them, encoded by its own networks once, kept as npy arrays."""

import copy
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from realaudio_jax.data.latent_cache import INDEX_NAME, ArrayWriter
from realaudio_jax.data.scenes import Scene
from realaudio_jax.io import atomic_folder

Encode = Callable[[list[Scene]], dict[str, np.ndarray]]


class TeacherScenes:
    """Memory-mapped arrays, whatever the teacher's encoder gave; items are dicts of rows.

    Attributes:
      folder: where they lie.
      arrays: by name, N rows each.

    Raises:
      FileNotFoundError: the folder is not a complete cache.
    """

    def __init__(self, folder: str | os.PathLike):
        if not (Path(folder) / INDEX_NAME).is_file():
            raise FileNotFoundError(f'{folder}: no cached scenes here; encode them again')
        self.folder = Path(folder)
        self.arrays = {
            path.stem: np.load(path, mmap_mode='r') for path in sorted(Path(folder).glob('*.npy'))
        }

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        return self.rows(i)

    def rows(self, which: int | np.ndarray) -> dict[str, np.ndarray]:
        """One item, or several stacked."""
        return {name: np.array(array[which]) for name, array in self.arrays.items()}

    def replacing(self, arrays: Mapping[str, np.ndarray]) -> 'TeacherScenes':
        """The same scenes with other arrays of these names."""
        other = copy.copy(self)
        other.arrays = self.arrays | arrays
        return other


def build_teacher_scenes(
    scenes: Iterable[Scene],
    count: int,
    encode: Encode,
    folder: str | os.PathLike,
    key: str,
    batch_size: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> TeacherScenes:
    """Encodes scenes into `folder`/`key`, or opens what an earlier call left there.

    Args:
      scenes: at least `count`, of one duration; not touched when the cache is there.
      count: how many to encode.
      encode: `batch_size` scenes to arrays with as many rows.
      folder: where caches lie.
      key: names what the arrays depend on; see `latent_cache.fingerprint`.
      batch_size: scenes of every call, so that one program serves all.
      progress: called with (done, count) after each batch.

    Raises:
      ValueError: fewer than `count` scenes.
    """
    final = Path(folder) / key
    if (final / INDEX_NAME).exists():
        return TeacherScenes(final)
    with atomic_folder(final, INDEX_NAME) as temporary:
        writer, drawn = ArrayWriter(temporary, count), iter(scenes)
        while writer.filled < count:
            wanted = min(batch_size, count - writer.filled)
            batch = [scene for _, scene in zip(range(wanted), drawn, strict=False)]
            if len(batch) < wanted:
                found = writer.filled + len(batch)
                raise ValueError(f'{found} scenes where {count} were announced')
            arrays = encode(batch + batch[-1:] * (batch_size - wanted))
            writer.write({name: rows[:wanted] for name, rows in arrays.items()})
            if progress:
                progress(writer.filled, count)
        writer.close()
        (temporary / INDEX_NAME).write_text(json.dumps({'key': key}))
    return TeacherScenes(final)
