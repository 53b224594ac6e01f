"""Cache of scenes encoded by a pretrained teacher's own networks, as npy arrays."""

import copy
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from realaudio_jax.data import array_cache
from realaudio_jax.data.scenes import Scene

Encode = Callable[[list[Scene]], dict[str, np.ndarray]]


class TeacherScenes:
    """Memory-mapped arrays of a teacher's encoders; items are dicts of rows.

    Attributes:
      folder: where they lie.
      arrays: by name, N rows each.

    Raises:
      FileNotFoundError: the folder is not a complete cache.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.arrays, _ = array_cache.open_arrays(folder)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        return self.rows(i)

    def rows(self, which: int | np.ndarray) -> dict[str, np.ndarray]:
        """Rows of one item, or of several, stacked."""
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
    batch_size: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> TeacherScenes:
    """Encodes scenes into a folder, or opens what an earlier call left there.

    Args:
      scenes: at least `count`, of one duration; not touched when the cache is there.
      count: how many to encode.
      encode: `batch_size` scenes to arrays with as many rows.
      folder: of this cache; its name says what the arrays depend on, see `array_cache.cache_key`.
      batch_size: scenes of every call, so that one program serves all.
      progress: called with (done, count) after each batch.

    Raises:
      ValueError: fewer than `count` scenes.
    """

    def encoded():
        done, drawn = 0, iter(scenes)
        while done < count:
            wanted = min(batch_size, count - done)
            batch = list(itertools.islice(drawn, wanted))
            if len(batch) < wanted:
                raise ValueError(f'{done + len(batch)} scenes where {count} were announced')
            arrays = encode(batch + batch[-1:] * (batch_size - wanted))
            yield {name: rows[:wanted] for name, rows in arrays.items()}
            done += wanted
            if progress:
                progress(done, count)

    return TeacherScenes(
        array_cache.ensure(
            folder, lambda temporary: array_cache.fill_arrays(temporary, count, encoded())
        )
    )
