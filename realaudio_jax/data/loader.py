"""Batches with Grain: shuffled without end, from a stream whose place can be saved and restored."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np

from realaudio_jax import processes
from realaudio_jax.audio import from_pcm16
from realaudio_jax.typing import MAX_EVENTS, SAMPLE_RATE

Batch = dict[str, np.ndarray]
Transform = Callable[[Any, np.random.Generator], Any]


@runtime_checkable
class RandomAccess(Protocol):
    """Interface of random-access sources: `len()` and indexing."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Any: ...


class Batches:
    """An iterator over dicts of numpy arrays with `get_state` and `set_state`.

    The state is a small dict of numbers that JSON can hold; a new `Batches` with the same
    arguments, given the state, goes on with exactly the batches the old one would have given.
    """

    def __init__(self, dataset: 'grain.IterDataset'):
        self._iterator = iter(dataset)

    def __iter__(self) -> 'Batches':
        return self

    def __next__(self) -> Batch:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        """The place of the next batch."""
        return self._iterator.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on at a place that `get_state` gave."""
        self._iterator.set_state(state)


def batches(
    data_source: RandomAccess,
    batch_size: int,
    seed: int,
    item_transform: Transform | None = None,
    epochs: int | None = None,
) -> Batches:
    """Shuffled batches of a random-access source, each epoch in another order.

    Args:
        data_source: its items are dicts of arrays.
        batch_size: B of all processes together; each gets its rows of every batch. What does not
            fill a batch at the end of the epochs is left out.
        seed: of the order and of the transform.
        item_transform: `(item, rng) -> item`; rng depends on the seed and the item's place alone.
        epochs: None is without end.

    Raises:
        ValueError: the source has fewer items than a batch, or the processes cannot share one.
    """
    if len(data_source) < batch_size:
        raise ValueError(
            f'batches of {batch_size} from {len(data_source)} items; make batch_size smaller'
        )
    dataset = grain.MapDataset.source(data_source).seed(seed).shuffle().repeat(epochs)
    if item_transform is not None:
        dataset = dataset.random_map(item_transform)
    rows = processes.share(batch_size)
    dataset = dataset[: len(dataset) // batch_size * batch_size]
    dataset = dataset.batch(rows.stop - rows.start)[processes.index() :: processes.count()]
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    return Batches(dataset.to_iter_dataset(options))


def scene_arrays(seconds: float, max_events: int = MAX_EVENTS) -> Transform:
    """Pads stored scenes (`tfds_builders`) to one shape; an `item_transform`.

    Args:
        seconds: length of the sound; longer ones are cut at a random place, shorter ones padded.
        max_events: E.

    Returns:
        a function from a stored example to audio float32 [S, 2], caption, onset_s, offset_s,
        gain_db [E], event_mask [E] and seconds (of real sound); times count from the start of the
        cut.
    """
    samples = round(seconds * SAMPLE_RATE)

    def transform(example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        stored = example['audio']
        first = int(rng.integers(max(0, len(stored) - samples) + 1))
        part = stored[first : first + samples]
        audio = np.zeros((samples, 2), np.float32)
        audio[: len(part)] = from_pcm16(part)
        onset, offset = (np.asarray(example['events'][k]) for k in ('onset_s', 'offset_s'))
        onset, offset = onset - first / SAMPLE_RATE, offset - first / SAMPLE_RATE
        length = len(part) / SAMPLE_RATE
        kept = np.flatnonzero((offset > 0) & (onset < length))[:max_events]
        return {
            'audio': audio,
            'caption': as_text(example['caption']),
            'onset_s': _padded(onset[kept].clip(0.0, length), max_events),
            'offset_s': _padded(offset[kept].clip(0.0, length), max_events),
            'gain_db': _padded(np.asarray(example['events']['gain_db'])[kept], max_events),
            'event_mask': np.arange(max_events) < len(kept),
            'seconds': np.float32(length),
        }

    return transform


def as_text(value: bytes | str) -> str:
    """Decodes text that TFDS returns as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    out = np.zeros(size, np.float32)
    out[: len(values)] = values
    return out
