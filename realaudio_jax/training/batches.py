"""From cached latents to training batches: absent conditions, given regions, weight of onsets."""

import flax.struct
import jax
import jax.numpy as jnp

from realaudio_jax.data.curves import random_median
from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.models.denoiser import Conditioning, frame_mask
from realaudio_jax.typing import LATENT_RATE, Array, Key

_NEAR_ONSET_S = 0.06  # the frame of an onset, and one on each side


@flax.struct.dataclass
class ConditionDropout:
    """How often a training item lacks a condition, or is given a part of the answer.

    Attributes:
      text, timeline: probability that it is dropped, independently.
      loudness: probability that the loudness curve is kept.
      init: probability that a random region of latents is given.
      curves: probability that each curve besides loudness is kept, independently of all else;
        where there are some, these and the loudness curve go through random median filters.
    """

    text: float = 0.1
    timeline: float = 0.15
    loudness: float = 0.15
    init: float = 0.15
    curves: float = 0.3


def to_batch(arrays: dict[str, Array]) -> Batch:
    """A recipe's batch from arrays of `LatentScenes`, everything present and nothing given.

    Args:
      arrays: latents [B, L, C] and the rest, L even; guidance, timeline_mask and loudness_mask [B]
        where a teacher made the latents, see `distillation.teacher_samples`.
    """
    latents = arrays['latents']

    def told(name):
        return arrays.get(name, jnp.ones(len(latents), bool))

    conditioning = Conditioning(
        text=arrays['text'],
        text_mask=arrays['text_mask'],
        event_text=arrays['event_text'],
        onset_s=arrays['onset_s'],
        offset_s=arrays['offset_s'],
        gain_db=arrays['gain_db'],
        event_mask=arrays['event_mask'] & told('timeline_mask')[:, None],
        loudness_db=arrays['loudness_db'],
        loudness_mask=told('loudness_mask'),
        seconds=arrays['seconds'],
        init=jnp.zeros_like(latents),
        init_mask=jnp.zeros(latents.shape[:2]),
        curves=arrays.get('curves'),
        curve_mask=arrays.get('curve_mask'),
    )
    mask = frame_mask(arrays['seconds'], latents.shape[1]).astype(jnp.float32)
    return Batch(latents, mask, conditioning, arrays.get('guidance'))


def with_absence(batch: Batch, key: Key[Array, ''], absence: ConditionDropout) -> Batch:
    """Drops conditions and gives regions at random, per item; pure, for use inside a step.

    Where a teacher made the latents, what it was not told was decided then, and stays so.
    """
    size, length = batch.mask.shape
    c = batch.conditioning
    keys = jax.random.split(key, 6 if c.curve_mask is None else 9)
    text, timeline, loudness, init = (
        jax.random.uniform(k, (size,)) < p
        for k, p in zip(
            keys[:4],
            (absence.text, absence.timeline, absence.loudness, absence.init),
            strict=True,
        )
    )
    if batch.guidance is None:
        curve_mask = c.curve_mask
        c = c.replace(loudness_mask=c.loudness_mask & loudness).without(text, timeline)
        if curve_mask is not None:
            kept = jax.random.bernoulli(keys[6], absence.curves, (size, 1, curve_mask.shape[2]))
            c = _sketched(c.replace(curve_mask=curve_mask & kept), keys[7:])
    # A given region is everything before or after a random time, or all but a span between two.
    low, high = jnp.sort(jax.random.uniform(keys[4], (2, size)), axis=0) * c.seconds[None]
    kind = jax.random.randint(keys[5], (size,), 0, 3)
    time = ((jnp.arange(length) + 0.5) / LATENT_RATE)[None]
    before, after = time < low[:, None], time > high[:, None]
    kind = kind[:, None]
    given = jnp.where(kind == 0, before, jnp.where(kind == 1, after, before | after))
    given = (given & init[:, None]).astype(batch.mask.dtype) * batch.mask
    return batch.replace(
        conditioning=c.replace(init=batch.latents * given[..., None], init_mask=given)
    )


def _sketched(c: Conditioning, keys: Key[Array, '2']) -> Conditioning:
    """The curves, each smoothed by a random median filter, as people draw them."""
    everywhere = jnp.ones(c.loudness_db.shape, bool)
    curves = [
        random_median(key, c.curves[..., i], c.curve_mask[..., i])
        for i, key in enumerate(jax.random.split(keys[0], c.curves.shape[2]))
    ]
    return c.replace(
        loudness_db=random_median(keys[1], c.loudness_db, everywhere),
        curves=jnp.stack(curves, axis=-1),
    )


def with_onset_weight(batch: Batch, weight: float) -> Batch:
    """Lets the frames around the onset of each event count `weight` times, by the mask.

    They are less than a tenth of all frames, and what is heard of timing is decided in them. What
    minimises the loss stays the same, since the weight depends on the conditioning alone.
    """
    c = batch.conditioning
    time = (jnp.arange(batch.mask.shape[1]) + 0.5) / LATENT_RATE
    near = jnp.abs(time[None, :, None] - c.onset_s[:, None]) < _NEAR_ONSET_S
    near = jnp.any(near & c.event_mask[:, None], axis=-1)
    return batch.replace(mask=batch.mask * jnp.where(near, weight, 1.0))


def prepare(
    batch: Batch, key: Key[Array, ''], absence: ConditionDropout, onset_weight: float
) -> Batch:
    """What training and distilling do to every batch: `with_absence`, then `with_onset_weight`."""
    return with_onset_weight(with_absence(batch, key, absence), onset_weight)
