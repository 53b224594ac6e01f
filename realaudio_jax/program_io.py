"""What the program takes and gives: arrays of requests and results, and their static shape."""

import dataclasses

import flax.struct
import jax
import numpy as np

from realaudio_jax.models.autoencoder import samples_per_latent
from realaudio_jax.typing import (
    LATENT_RATE,
    MAX_EVENT_TOKENS,
    MAX_EVENTS,
    MAX_TEXT_TOKENS,
    Leaf,
)

# A student's steps were trained as they are; ping-pong gives it fresh noise between them.
SAMPLERS = {'student': ('ddim', 'ping_pong'), 'teacher': ('ddim', 'dpm_solver_pp_2m')}


@flax.struct.dataclass
class Request:
    """What to generate, as arrays; every leaf starts with the batch axis.

    Attributes:
        token_ids, token_mask: of the prompt.
        event_ids, event_token_mask: of each event's text.
        onset_s, offset_s, gain_db, event_mask: the timeline, see `timeline.Timeline.arrays`.
        loudness_db, loudness_mask: requested level per latent frame (dBFS), and whether it is
            requested.
        curves, curve_mask: see `Conditioning`; None where the denoiser has none.
        seconds: duration; frames beyond it are padding.
        seed: of each item; the same seed gives the same sound at any batch size and position,
            within one step of 16 bits: products are summed in another order.
        guidance_scale: 1 and above.
        strength: noise level to start from, in (0, 1]; below 1 the sound is a variation of init
            audio.
        target_lufs: integrated loudness of the result (ITU-R BS.1770); NaN leaves its level.
        negative_ids, negative_mask: tokens of the text that a teacher's guidance leads away from;
            None where the bucket has none.
    """

    token_ids: Leaf['B T']
    token_mask: Leaf['B T']
    event_ids: Leaf['B E U']
    event_token_mask: Leaf['B E U']
    onset_s: Leaf['B E']
    offset_s: Leaf['B E']
    gain_db: Leaf['B E']
    event_mask: Leaf['B E']
    loudness_db: Leaf['B L']
    loudness_mask: Leaf['B']
    seconds: Leaf['B']
    seed: Leaf['B']
    guidance_scale: Leaf['B']
    strength: Leaf['B']
    target_lufs: Leaf['B']
    curves: Leaf['B L K'] = None
    curve_mask: Leaf['B L K'] = None
    negative_ids: Leaf['B T'] = None
    negative_mask: Leaf['B T'] = None


@flax.struct.dataclass
class InitAudio:
    """Init audio: a sound to vary, or to keep parts of.

    Attributes:
        audio: samples at the rate of the bucket.
        keep: 1 for samples that stay, 0 for those that are made anew, between them where one fades
            into the other; see `requests.keep_weights`.
    """

    audio: Leaf['B S 2']
    keep: Leaf['B S']


@flax.struct.dataclass
class Diagnostics:
    """Diagnostics of a result, measured inside the program.

    Attributes:
        finite: every sample is a number.
        peak: 0 to 1, after the limiter.
        lufs: integrated loudness before it was changed and limited; -70 for silence.
        silent: below `SILENT_LUFS`, and not because all events have negative gains; the level is
            then left as it is.
        marked: it carries a watermark.
    """

    finite: Leaf['B']
    peak: Leaf['B']
    lufs: Leaf['B']
    silent: Leaf['B']
    marked: Leaf['B'] = None


@dataclasses.dataclass(frozen=True)
class Capacity:
    """Padded capacity of a program: all of it passes through the text encoder, used or not.

    Attributes:
            events: events of a timeline.
            event_tokens: tokens of the text of one event.
            text_tokens: tokens of a prompt.
    """

    events: int
    event_tokens: int
    text_tokens: int

    @classmethod
    def of(cls, request: Request) -> 'Capacity':
        """The capacity of a request's arrays."""
        return cls(*request.event_ids.shape[1:], request.token_ids.shape[1])


# Those that programs have: half the capacity is half the time of the text encoder.
CAPACITIES = (
    Capacity(2, 8, 16),
    Capacity(4, 8, 32),
    Capacity(MAX_EVENTS, MAX_EVENT_TOKENS, MAX_TEXT_TOKENS),
)


@dataclasses.dataclass(frozen=True)
class Bucket:
    """The static shape of a program.

    Attributes:
        batch: sounds per call.
        length: latent frames, even.
        steps: sampling steps.
        sample_rate: Hz.
        student: one evaluation a step, guidance inside; otherwise the teacher, guided, two.
        init: whether the program takes init audio.
        sampler: one of `SAMPLERS` of the model.
        capacity: of prompt and timeline, one of `CAPACITIES`.
        negative: whether a teacher is guided away from a negative prompt.
    """

    batch: int
    length: int
    steps: int
    sample_rate: int
    student: bool = True
    init: bool = False
    sampler: str = 'ddim'
    capacity: Capacity = CAPACITIES[-1]
    negative: bool = False

    def __post_init__(self):
        model = 'student' if self.student else 'teacher'
        if self.sampler not in SAMPLERS[model]:
            raise ValueError(
                f'the {model} is not sampled with {self.sampler!r}; choose '
                f'{" or ".join(SAMPLERS[model])}'
            )


def request_shapes(bucket: Bucket, curves: int = 0) -> tuple[Request, InitAudio | None]:
    """The shapes a bucket's program takes: (request, init audio or None).

    Args:
        bucket: see `Bucket`.
        curves: K, that the denoiser has besides loudness.
    """
    b, length, capacity = bucket.batch, bucket.length, bucket.capacity
    e = capacity.events

    def of(dtype, *shape):
        return jax.ShapeDtypeStruct((b, *shape), dtype)

    request = Request(
        token_ids=of(np.int32, capacity.text_tokens),
        token_mask=of(np.bool_, capacity.text_tokens),
        event_ids=of(np.int32, e, capacity.event_tokens),
        event_token_mask=of(np.bool_, e, capacity.event_tokens),
        onset_s=of(np.float32, e),
        offset_s=of(np.float32, e),
        gain_db=of(np.float32, e),
        event_mask=of(np.bool_, e),
        loudness_db=of(np.float32, length),
        loudness_mask=of(np.bool_),
        seconds=of(np.float32),
        seed=of(np.int32),
        guidance_scale=of(np.float32),
        strength=of(np.float32),
        target_lufs=of(np.float32),
        curves=of(np.float32, length, curves) if curves else None,
        curve_mask=of(np.bool_, length, curves) if curves else None,
        negative_ids=of(np.int32, capacity.text_tokens) if bucket.negative else None,
        negative_mask=of(np.bool_, capacity.text_tokens) if bucket.negative else None,
    )
    samples = length * samples_per_latent(bucket.sample_rate)
    init = InitAudio(audio=of(np.float32, samples, 2), keep=of(np.float32, samples))
    return request, init if bucket.init else None


def describe(bucket: Bucket) -> str:
    """A bucket in words, for a log line."""
    seconds = bucket.length // LATENT_RATE
    return (
        f'{"a sound" if bucket.batch == 1 else f"{bucket.batch} sounds"} of up to {seconds} s at '
        f'{bucket.sample_rate} Hz, {"student" if bucket.student else "teacher"}, '
        f'{bucket.steps} steps of {bucket.sampler}{", from init audio" if bucket.init else ""}'
    )
