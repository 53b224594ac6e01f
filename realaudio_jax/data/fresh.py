"""Training batches whose scenes are mixed anew all along, in place of a set that is mixed once.

Scene i is a function of (seed, i) alone. A pool holds the latents of a window of consecutive
scenes; with each batch the window moves on, so that

    batch n  is drawn from  scenes first(n), ..., first(n) + pool - 1,   first(n) ~ n B / uses

by (seed, n). With `uses` 1 the pool is one batch and the batch is all of it: no scene ever comes
twice. With more, a scene is drawn that often on average, by another crop each time, and mixing
costs so much less. Worker processes mix ahead, and a thread encodes on the device what they made,
ahead of the batch that needs it. A run that is resumed at batch n makes the same window again, or
finds what an earlier run kept of it.

Mixing 10 s of recordings with all changes takes 15 ms of one core, 19 ms with 30% procedural foley:
some 600 s of sound a second and core; docs/making_a_release.md has the arithmetic for a GPU.
"""

import concurrent.futures
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import integrity
from realaudio_jax.data.augment import Augment
from realaudio_jax.data.latent_crops import crop_frames, drawing, scene_frames
from realaudio_jax.data.scene_encoder import SceneEncoder
from realaudio_jax.data.scenes import (
    Scene,
    SceneConfig,
    fitting,
    in_order,
    make_scene,
    scene_rng,
    unmixed_recording,
)
from realaudio_jax.data.sources import MixedSource, Recordings, Source
from realaudio_jax.io import atomic_path
from realaudio_jax.random import random_key
from realaudio_jax.typing import Array, Int

ENCODED_AT_ONCE = 8  # scenes, at most
_ENDLESS = 2**62
# Sounds end as they end: short ones are never cut, long ones seldom.
FRESH_SCENES = SceneConfig(
    max_event_seconds=10.0, cut=0.25, own_end_s=1.5, variants=0.5, augment=Augment()
)


class SceneMaker:
    """Scene i of an endless series: mixed, or a recording as it is; both augmented.

    Args:
        seed: scene i is a function of (seed, i).
        source: of sounds.
        seconds: of the longest scene.
        config: what scenes are drawn from.
        unmixed: share of recordings as they are, by their caption alone; 0 where the source has
            none of a fitting length.
    """

    def __init__(
        self,
        seed: int,
        source: Source,
        seconds: float,
        config: SceneConfig = FRESH_SCENES,
        unmixed: float = 0.0,
    ):
        self._seed, self._source, self._seconds, self._config = seed, source, seconds, config
        self._recordings = next(
            (part for part in _parts(source) if isinstance(part, Recordings)), None
        )
        fit = fitting(self._recordings, seconds) if self._recordings and unmixed else []
        self._unmixed = unmixed if fit else 0.0
        self._fit = np.array(fit, int)
        if fit:
            self._weights = np.cumsum(self._recordings.label_weights(fit))

    def __call__(self, i: int) -> Scene:
        rng = scene_rng(self._seed, i, self._source)
        if not self._unmixed or rng.random() >= self._unmixed:
            return make_scene(rng, self._source, self._seconds, self._config)
        choice = int(np.searchsorted(self._weights, rng.random(), side='right'))
        chosen = int(self._fit[min(choice, len(self._fit) - 1)])
        return unmixed_recording(rng, self._recordings, chosen, self._seconds, self._config)


def _parts(source: Source) -> Sequence[Source]:
    return source.sources if isinstance(source, MixedSource) else (source,)


class EveryNth:
    """Scenes first, first + step, first + 2 step, ... of a series."""

    def __init__(self, make: Callable[[int], Scene], first: int, step: int):
        self._make, self._first, self._step = make, first, step

    def __call__(self, i: int) -> Scene:
        return self._make(self._first + i * self._step)


class FreshCrops:
    """Endless batches of random crops of scenes that are mixed on the way; see the module.

    Like `latent_crops.RandomCrops` in what it gives, and in `get_state` and `set_state`.

    Args:
        make: scene i, a function of i alone; goes to the workers, so it can be pickled.
        encoder: of the scenes, at least `ENCODED_AT_ONCE` in a call.
        seconds: of the longest scene.
        batch_size: B.
        seed: of the crops.
        min_seconds: of crops, see `random_lengths`.
        pool: scenes to draw from, where `uses` is above 1; rounded up to whole calls of the
            encoder.
        uses: how often a scene is drawn on average, 1 or more.
        workers: processes that mix, see `scenes.in_order`.
        folder: keeps the encoded scenes of the window, so that a resumed run need not make them
            again; its name must change with all that they depend on. None keeps nothing.
        progress: called with (scenes in the pool, pool) while it is filled.

    Raises:
        ValueError: uses below 1, a pool smaller than a batch, or crops longer than the scenes.
    """

    def __init__(
        self,
        make: Callable[[int], Scene],
        encoder: SceneEncoder,
        seconds: float,
        batch_size: int,
        seed: int,
        min_seconds: float,
        pool: int,
        uses: float = 1.0,
        workers: int = 0,
        folder: str | Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ):
        if uses < 1:
            raise ValueError(f'a scene is used {uses:g} times; choose 1 or more')
        if uses > 1 and pool < batch_size:
            raise ValueError(f'batches of {batch_size} from a pool of {pool}; choose a larger one')
        self._make, self._encoder, self._workers = make, encoder, workers
        self._seconds = seconds
        self._batch_size, self._uses = batch_size, uses
        if uses == 1:  # whole calls of the encoder in a batch, so that the window moves by a batch
            self._chunk = max(n for n in range(1, ENCODED_AT_ONCE + 1) if batch_size % n == 0)
            self._chunks = batch_size // self._chunk
        else:
            self._chunk = min(ENCODED_AT_ONCE, pool)
            self._chunks = -(-pool // self._chunk)
        self._folder, self._progress = folder and Path(folder), progress
        self._key, self._next = random_key(seed), 0
        self._pool: dict[str, Array] = {}
        self._held: range = range(0)  # chunks in the pool; chunk c is in place c modulo _chunks
        self._stream: Iterator[Scene] | None = None
        self._stream_chunk = -1  # that the stream of scenes gives next
        # One thread alone makes chunks; where workers mix, some ahead, while the device trains.
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._coming: dict[int, concurrent.futures.Future] = {}
        self._ahead = -(-int(batch_size / uses) // self._chunk) + 1 if workers else 0
        bounds = crop_frames(scene_frames(seconds), min_seconds)
        self._draw = drawing(batch_size, (0, batch_size), *bounds, uses == 1)

    def __iter__(self) -> 'FreshCrops':
        return self

    def __next__(self) -> dict[str, Array]:
        first = int(self._next * self._batch_size / self._uses) // self._chunk
        self._fill(range(first, first + self._chunks))
        self._next += 1
        return self._draw(self._pool, jax.random.fold_in(self._key, self._next))

    def get_state(self) -> dict[str, int]:
        """The place of the next batch."""
        return {'next': self._next}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes on at a place that `get_state` gave."""
        self._next = state['next']

    def close(self) -> None:
        """Ends the worker processes and the thread."""
        self._thread.shutdown(cancel_futures=True)
        self._end_stream()

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _fill(self, window: range) -> None:
        """Makes the pool hold these chunks."""
        missing = [chunk for chunk in window if chunk not in self._held]
        for done, chunk in enumerate(missing, 1):
            self._request(missing[done - 1 : done + self._ahead])
            rows = self._coming.pop(chunk).result()
            if not self._pool:
                count = self._chunks * self._chunk
                self._pool = {
                    name: jnp.zeros((count, *array.shape[1:]), array.dtype)
                    for name, array in rows.items()
                }
            place = chunk % self._chunks * self._chunk
            self._pool = _replaced(self._pool, rows, place)
            if self._progress and len(missing) == self._chunks:
                self._progress(done * self._chunk, self._chunks * self._chunk)
        if self._folder and missing:  # a checkpoint may lie behind by as much as is kept
            for path in self._folder.glob('*.npz') if len(missing) == self._chunks else ():
                if path.stem.isdigit() and int(path.stem) < window.start - self._chunks:
                    path.unlink(missing_ok=True)
            for chunk in range(self._held.start, window.start):
                (self._folder / f'{chunk - self._chunks}.npz').unlink(missing_ok=True)
        self._held = window
        self._request(range(window.stop, window.stop + self._ahead))

    def _request(self, chunks: Sequence[int]) -> None:
        """Has the thread make these chunks, after those that it was asked for before."""
        for chunk in chunks:
            if chunk not in self._coming:
                self._coming[chunk] = self._thread.submit(self._rows, chunk)

    def _rows(self, chunk: int) -> dict[str, np.ndarray]:
        """The encoded scenes of a chunk, from the folder or made."""
        path = self._folder / f'{chunk}.npz' if self._folder else None
        if path and (kept := integrity.read_npz(path)) is not None:
            return kept
        if self._stream is None or self._stream_chunk != chunk:
            self._end_stream()
            self._stream = in_order(self._make, chunk * self._chunk, _ENDLESS, self._workers)
            self._stream_chunk = chunk
        made = [next(self._stream) for _ in range(self._chunk)]
        rows = self._encoder(made, self._seconds)
        self._stream_chunk += 1
        if path:
            with atomic_path(path, durable=False) as temporary, open(temporary, 'wb') as file:
                np.savez(file, **rows)
        return rows


@functools.partial(jax.jit, donate_argnums=0)
def _replaced(pool: dict[str, Array], rows: dict[str, Array], first: Int[Array, '']) -> dict:
    return {
        name: jax.lax.dynamic_update_slice_in_dim(array, rows[name], first, 0)
        for name, array in pool.items()
    }
