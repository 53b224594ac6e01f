"""Random crops of encoded scenes, cut on the device that holds them."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from realaudio_jax import processes
from realaudio_jax.data.cache import EncodedScenes
from realaudio_jax.random import random_key
from realaudio_jax.typing import LATENT_RATE, Array, Float, Int, Key


def scene_frames(seconds: float) -> int:
    """Latent frames that a scene is given in the arrays."""
    return round(seconds * LATENT_RATE)


def crop_batch(
    batch: dict[str, Array], starts: Int[Array, 'B'], lengths: Int[Array, 'B'], frames: int
) -> dict[str, Array]:
    """Cuts every item of a batch to a length of its own, and its timeline with it; pure.

    Events that end before the crop or begin after it are dropped; those that reach over its edges
    are clipped to it (an onset before the crop becomes 0). A caption no longer holds where a whole
    event was dropped: there `text_mask` is all False, which is the condition "no text".

    Args:
        batch: arrays of `SceneEncoder.encode`, first axis B.
        starts: first latent frame of each crop.
        lengths: latent frames of each crop, at most `frames`.
        frames: that the arrays returned have; what lies beyond a crop is padding, whatever it
            holds.

    Returns:
        the batch in float32 with latents [B, frames, C], loudness_db [B, frames], times in seconds
        from the start of the crop, zeros in dropped events, and seconds = lengths / 25.
    """
    span = starts[:, None] + jnp.arange(frames)[None, :]
    span = jnp.minimum(span, batch['latents'].shape[1] - 1)
    seconds, first = (lengths / LATENT_RATE)[:, None], (starts / LATENT_RATE)[:, None]
    onset, offset = batch['onset_s'] - first, batch['offset_s'] - first
    kept = batch['event_mask'] & (offset > 0) & (onset < seconds)
    complete = (kept == batch['event_mask']).all(axis=1)
    cropped = {
        **batch,
        'latents': jnp.take_along_axis(batch['latents'], span[..., None], axis=1),
        'loudness_db': jnp.take_along_axis(batch['loudness_db'], span, axis=1),
        'text_mask': batch['text_mask'] & complete[:, None],
        'event_text': jnp.where(kept[:, :, None], batch['event_text'], 0),
        'onset_s': jnp.where(kept, onset.clip(0.0, seconds), 0),
        'offset_s': jnp.where(kept, offset.clip(0.0, seconds), 0),
        'gain_db': jnp.where(kept, batch['gain_db'], 0),
        'event_mask': kept,
        'seconds': seconds[:, 0],
    }
    for name in ('curves', 'curve_mask'):
        if name in batch:
            cropped[name] = jnp.take_along_axis(batch[name], span[..., None], axis=1)
    return {k: x if x.dtype == bool else x.astype(jnp.float32) for k, x in cropped.items()}


def random_lengths(key: Key[Array, ''], size: int, shortest: int, longest: int) -> Int[Array, 'B']:
    """Even lengths of crops: half of them the longest, the others evenly in the logarithm."""
    keys = jax.random.split(key)
    low, high = jnp.log(jnp.array([shortest, longest + 2.0]))
    drawn = jnp.exp(jax.random.uniform(keys[0], (size,), minval=low, maxval=high)).astype(int)
    whole = jax.random.bernoulli(keys[1], 0.5, (size,))
    return jnp.where(whole, longest, jnp.minimum(drawn, longest)) // 2 * 2


def random_starts(
    key: Key[Array, ''], batch: dict[str, Array], lengths: Int[Array, 'B']
) -> Int[Array, 'B']:
    """Even first frames of crops; half of them chosen so that some event begins inside."""
    keys = jax.random.split(key, 4)
    last = jnp.maximum(0, _frames(batch['seconds']) - lengths)
    anywhere = jax.random.randint(keys[0], last.shape, 0, last + 1)
    mask = batch['event_mask']
    event = jax.random.categorical(keys[1], jnp.where(mask, 0.0, -jnp.inf))[:, None]
    onset = jnp.take_along_axis(batch['onset_s'], event, axis=1)[:, 0] * LATENT_RATE
    before = onset.astype(int) - jax.random.randint(keys[2], last.shape, 0, lengths - 1)
    by_event = mask.any(axis=1) & jax.random.bernoulli(keys[3], 0.5, last.shape)
    return jnp.where(by_event, jnp.clip(before, 0, last), anywhere) // 2 * 2


def _frames(seconds: Float[Array, 'B']) -> Int[Array, 'B']:
    """Whole latent frames of sounds."""
    return (seconds * LATENT_RATE + 1e-3).astype(int)


class RandomCrops:
    """Endless batches of random crops of random scenes, drawn on the device that holds the scenes.

    Crops are of many lengths in arrays of one, so that what takes them compiles once; none is
    longer than its scene. Batch i is a function of (seed, i) alone; `get_state` and `set_state`
    save and restore the place, as those of `loader.Batches` do. Every process draws the same batch
    and cuts its own rows of it.

    Args:
        scenes: all of them go to a device of each process, 110 kB for one of 10 s.
        batch_size: B of all processes together.
        seed: of everything random.
        min_seconds: of crops, see `random_lengths`; as long as the scenes, and all crops are so.

    Raises:
        ValueError: min_seconds is longer than the scenes, or no time at all; or the processes
            cannot share a batch.
    """

    def __init__(self, scenes: EncodedScenes, batch_size: int, seed: int, min_seconds: float):
        shortest, longest = crop_frames(scenes.arrays['latents'].shape[1], min_seconds)
        self._scenes = {name: jnp.asarray(array) for name, array in scenes.arrays.items()}
        self._key, self._next = random_key(seed), 0
        rows = processes.share(batch_size)
        self._draw = drawing(batch_size, (rows.start, rows.stop), shortest, longest, False)

    def __iter__(self) -> 'RandomCrops':
        return self

    def __next__(self) -> dict[str, Array]:
        self._next += 1
        return self._draw(self._scenes, jax.random.fold_in(self._key, self._next))

    def get_state(self) -> dict[str, int]:
        """The place of the next batch."""
        return {'next': self._next}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes on at a place that `get_state` gave."""
        self._next = state['next']


def crop_frames(frames: int, min_seconds: float) -> tuple[int, int]:
    """The fewest and the most latent frames of crops of scenes of `frames`; both even.

    Raises:
        ValueError: min_seconds is longer than the scenes, or no time at all.
    """
    longest = frames // 2 * 2
    shortest = min(2 * round(min_seconds * LATENT_RATE / 2), longest)
    if shortest < 2 or min_seconds * LATENT_RATE > frames + 1e-3:
        raise ValueError(
            f'crops of {min_seconds:g} s at least from scenes of {frames / LATENT_RATE:g} s; take '
            'shorter ones, of 0.08 s or more'
        )
    return shortest, longest


@functools.cache
def drawing(size: int, rows: tuple[int, int], *settings: int) -> Callable[..., dict[str, Array]]:
    """`draw_crops` with these settings, compiled once in a process."""
    return jax.jit(functools.partial(draw_crops, size, slice(*rows), *settings))


def draw_crops(
    size: int,
    rows: slice,
    shortest: int,
    longest: int,
    distinct: bool,
    scenes: dict[str, Array],
    key: Key[Array, ''],
) -> dict[str, Array]:
    """Rows of a batch of random crops of random scenes; pure.

    Args:
        size: of the batch.
        rows: that are cut; all are drawn.
        shortest, longest: of the crops, latent frames, see `random_lengths`.
        distinct: whether no scene may come twice; there must be `size` of them.
        scenes: arrays of `SceneEncoder.encode`.
        key: of everything random.
    """
    keys, count = jax.random.split(key, 3), len(scenes['seconds'])
    if distinct:
        chosen = jax.random.permutation(keys[0], count)[:size]
    else:
        chosen = jax.random.randint(keys[0], (size,), 0, count)
    drawn_by = {name: scenes[name][chosen] for name in ('seconds', 'event_mask', 'onset_s')}
    lengths = random_lengths(keys[1], size, shortest, longest)
    lengths = jnp.minimum(lengths, _frames(drawn_by['seconds']) // 2 * 2)
    starts = random_starts(keys[2], drawn_by, lengths)
    batch = {name: array[chosen[rows]] for name, array in scenes.items()}
    return crop_batch(batch, starts[rows], lengths[rows], longest)
