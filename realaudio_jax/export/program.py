"""The function that is exported: a request of plain arrays in, one finished sound out.

It is `program.generate` for one sound by the student, with what other programs find hard left to
the caller: noise comes in as an array, token 0 is padding and stands for the masks.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import audio as audio_lib
from realaudio_jax import watermark
from realaudio_jax.generator import Generator
from realaudio_jax.program import Networks, generate, seed_noise
from realaudio_jax.program_io import Bucket, Capacity, Request
from realaudio_jax.timeline import Timeline
from realaudio_jax.typing import PyTree

PADDING = 0  # token id; every text starts with another


def input_shapes(bucket: Bucket, channels: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The arguments of the exported function by name.

    token_ids: of the prompt, 0 after its end; all 0 for no prompt.
    event_ids: of each event's text; a row of 0 is no event.
    onset_s, offset_s: of the events, seconds. gain_db: of the events.
    seconds: duration. guidance_scale: 1 to 4. target_lufs: loudness; NaN leaves it.
    noise: standard normal.
    tape_start: frame at which the watermark starts, 0 to 1023, see `watermark.starts`.
    """
    room, b = bucket.capacity, bucket.batch
    shapes = {
        'token_ids': (np.int32, (b, room.text_tokens)),
        'event_ids': (np.int32, (b, room.events, room.event_tokens)),
        'onset_s': (np.float32, (b, room.events)),
        'offset_s': (np.float32, (b, room.events)),
        'gain_db': (np.float32, (b, room.events)),
        'seconds': (np.float32, (b,)),
        'guidance_scale': (np.float32, (b,)),
        'target_lufs': (np.float32, (b,)),
        'noise': (np.float32, (b, bucket.length, channels)),
        'tape_start': (np.int32, (b,)),
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
        pcm, diagnostics, _ = generate(
            params,
            request(inputs, bucket, onset_lead_s),
            None,
            networks=networks,
            bucket=bucket,
            start=inputs['noise'],
            tape_start=inputs['tape_start'],
        )
        return {'audio': audio_lib.from_pcm16(pcm), 'lufs': diagnostics.lufs}

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


def inputs_of(
    generator: Generator, about: Mapping[str, Any], program: Mapping[str, Any], call: Mapping
) -> dict[str, np.ndarray]:
    """The inputs of an exported program for a call of `Generator.generate`.

    Args:
        generator: gives the tokenizer.
        about, program: of program.json.
        call: 'prompt', 'events', 'seconds' and 'seed'.
    """
    capacity, frames = Capacity(**about['capacity']), program['frames']
    timeline = Timeline.parse(call['events'], call['seconds'])
    arrays = {name: x[None] for name, x in timeline.arrays(capacity.events).items()}
    texts = [event.text for event in timeline.events]
    event_ids = np.zeros((capacity.events, capacity.event_tokens), np.int32)
    if texts:
        event_ids[: len(texts)] = generator.tokenizer.encode(texts, capacity.event_tokens)[0]
    ids = np.zeros((1, capacity.text_tokens), np.int32)
    if call['prompt'].strip():
        ids = generator.tokenizer.encode([call['prompt']], capacity.text_tokens)[0]
    return {
        'token_ids': ids,
        'event_ids': event_ids[None],
        'onset_s': arrays['onset_s'],
        'offset_s': arrays['offset_s'],
        'gain_db': arrays['gain_db'],
        'seconds': np.array([call['seconds']], np.float32),
        'guidance_scale': np.array([about['guidance_scale']], np.float32),
        'target_lufs': np.array([about['loudness']], np.float32),
        'noise': seed_noise(call['seed'], frames, about['latent_channels']),
        'tape_start': np.asarray(watermark.starts(jnp.array([call['seed']]))),
    }
