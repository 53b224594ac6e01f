"""The function that is exported: a request of plain arrays in, one finished sound out.

It is `program.generate` for one sound by the student, with what other programs find hard left to
the caller: noise comes in as an array, token 0 is padding and stands for the masks.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import audio as audio_lib
from realaudio_jax.program import Bucket, Networks, Request, generate
from realaudio_jax.typing import LATENT_CHANNELS, PyTree

PADDING = 0  # token id; every text starts with another


def input_shapes(bucket: Bucket) -> dict[str, jax.ShapeDtypeStruct]:
    """The arguments of the exported function by name.

    token_ids: of the prompt, 0 after its end; all 0 for no prompt.
    event_ids: of each event's text; a row of 0 is no event.
    onset_s, offset_s: of the events, seconds. gain_db: of the events.
    seconds: duration. guidance_scale: 1 to 4. target_lufs: loudness; NaN leaves it.
    noise: standard normal.
    """
    slots, b = bucket.slots, bucket.batch
    shapes = {
        'token_ids': (np.int32, (b, slots.text_tokens)),
        'event_ids': (np.int32, (b, slots.events, slots.event_tokens)),
        'onset_s': (np.float32, (b, slots.events)),
        'offset_s': (np.float32, (b, slots.events)),
        'gain_db': (np.float32, (b, slots.events)),
        'seconds': (np.float32, (b,)),
        'guidance_scale': (np.float32, (b,)),
        'target_lufs': (np.float32, (b,)),
        'noise': (np.float32, (b, bucket.length, LATENT_CHANNELS)),
    }
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (dtype, shape) in shapes.items()}


def portable(
    networks: Networks, bucket: Bucket, onset_lead_s: float
) -> Callable[[PyTree, Mapping[str, jax.Array]], dict[str, jax.Array]]:
    """The function `(params, inputs) -> {'audio', 'lufs'}` of a bucket.

    audio: [B, S, 2] in [-1, 1], on the steps of 16 bits. lufs: loudness before it was changed, [B];
    below -60 the sound came out silent: take other noise.

    Args:
        networks: of the release.
        bucket: of the student, without init audio.
        onset_lead_s: of the release's config.
    """

    def function(params: PyTree, inputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        pcm, health, _ = generate(
            params,
            request(inputs, bucket, onset_lead_s),
            None,
            networks=networks,
            bucket=bucket,
            start=inputs['noise'],
        )
        return {'audio': audio_lib.from_pcm16(pcm), 'lufs': health.lufs}

    return function


def request(inputs: Mapping[str, jax.Array], bucket: Bucket, onset_lead_s: float) -> Request:
    """The request that `Generator.request` makes of the same texts and events."""
    ids, event_ids = inputs['token_ids'], inputs['event_ids']
    onset, offset = inputs['onset_s'], inputs['offset_s']
    event_mask = event_ids[:, :, 0] != PADDING
    batch, length = bucket.batch, bucket.length
    return Request(
        token_ids=ids,
        token_mask=ids != PADDING,
        event_ids=event_ids,
        event_token_mask=event_ids != PADDING,
        onset_s=jnp.minimum(onset + np.float32(onset_lead_s), (onset + offset) / 2),
        offset_s=offset,
        gain_db=inputs['gain_db'],
        event_mask=event_mask,
        loudness_db=jnp.zeros((batch, length)),
        loudness_mask=jnp.zeros(batch, bool),
        seconds=inputs['seconds'],
        seed=jnp.zeros(batch, jnp.int32),
        guidance_scale=inputs['guidance_scale'],
        strength=jnp.ones(batch),
        target_lufs=inputs['target_lufs'],
    )
