"""Sound of any length from a timeline: in chunks, whole, or as a loop.

    stream = generator.stream('rain on a roof')
    for chunk in stream:
        play(chunk.pcm)
        if knocked:
            at = stream.editable_s + 0.2
            stream.edit([('knock on wood', at, at + 0.4)])

How windows and chunks are made: `longform`.
"""

import dataclasses
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from realaudio_jax import longform, requests
from realaudio_jax.audio import from_pcm16, gated_loudness, to_pcm16
from realaudio_jax.finishing import FADE_OUT_S, SHORT_FADE_OUT_S, SILENT_LUFS
from realaudio_jax.longform import AHEAD, BEFORE, GRID, SETTLE, Place, Schedule
from realaudio_jax.models.autoencoder import samples_per_latent
from realaudio_jax.models.denoiser import latent_frames
from realaudio_jax.models.text_encoder import Tokenizer
from realaudio_jax.noise import time_grid
from realaudio_jax.program import (
    ProgramCache,
    grid_power,
    match_moments,
    seed_noise,
)
from realaudio_jax.program_io import CAPACITIES, Bucket, Request
from realaudio_jax.random import pinned_settings
from realaudio_jax.release_config import ReleaseConfig
from realaudio_jax.requests import Call
from realaudio_jax.timeline import MAX_CLIP_SECONDS, Event, Timeline, shown
from realaudio_jax.typing import (
    LATENT_RATE,
    MAX_EVENT_TOKENS,
    MAX_EVENTS,
    MAX_SECONDS,
    MAX_TEXT_TOKENS,
    MIN_SECONDS,
    Float,
)

MAX_STREAM_EVENTS = 10_000  # of a timeline
LOOP_FADE_S = 0.2  # in which the lines of a loop's end go over into those of its beginning
_NEVER = 2**30  # samples: further away than anything counts
_TOLERANCE_S = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class LongCall(Call):
    """The arguments of a sound of more than 10 s, or of a loop, checked.

    Attributes:
        loop: whether its end goes over into its beginning.
        is_endless: whether `seconds` is no more than what its timeline may last.
        schedule: of windows.
        bucket: the program of a window.
    """

    longest_s: ClassVar[float] = MAX_CLIP_SECONDS
    loop: bool = False
    schedule: Schedule = Schedule()
    is_endless: bool = False
    bucket: Bucket = dataclasses.field(init=False)

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.schedule, Schedule):
            raise ValueError(f'schedule is {shown(self.schedule)}; give a longform.Schedule')
        for name, given in (
            ('init_audio', self.init_audio is not None),
            ('negative_prompt', self.negative_prompt is not None),
            ('the sampler ping_pong', self.sampler == 'ping_pong'),
        ):
            if given:
                what = 'a loop' if self.loop else f'{self.seconds:g} s'
                raise ValueError(f'{name} is for sounds of up to 10 s, not {what}; leave it out')
        if self.loop:
            self._check_loop()
        bucket = Bucket(
            batch=1,
            length=self.schedule.window,
            steps=self.steps,
            sample_rate=self.sample_rate,
            student=self.model == 'student',
            init=True,
            sampler=self.sampler,
        )
        self._set('bucket', bucket)

    def parse_timeline(self, events: Any) -> Timeline:
        """A timeline of any length, of which no 10 s hold more events than a window."""
        timeline = Timeline.parse(
            events,
            self.seconds,
            MAX_STREAM_EVENTS,
            loudness_db=self.loudness_db,
            curves=self.curves,
            curves_may_end=self.is_endless,
        )
        check_density(timeline)
        return timeline

    def _check_loop(self) -> None:
        shortest, step = self.schedule.window / LATENT_RATE, GRID / LATENT_RATE
        if self.seconds < shortest:
            raise ValueError(
                f'a loop of {self.seconds:g} s is shorter than a window; give {shortest:g} or more'
            )
        if abs(self.seconds / step - round(self.seconds / step)) > 1e-6:
            raise ValueError(
                f'a loop of {self.seconds:g} s is no multiple of {step:g} s; give '
                f'{round(self.seconds / step) * step:g}'
            )


def check_call(
    prompt: str | Sequence[str] = '',
    events: Any = None,
    seconds: float | int = MAX_SECONDS,
    *args: Any,
    loop: bool = False,
    **settings: Any,
) -> Call:
    """The arguments of `Generator.generate`, checked.

    Args:
        prompt, events, seconds, args, loop, settings: of `generate`.

    Returns:
        A `LongCall` where the sound is made in windows, a loop or one of more than 10 s.

    Raises:
        ValueError: an argument out of range, named with its remedy.
    """
    requests.require_number('seconds', seconds, MIN_SECONDS, MAX_CLIP_SECONDS)
    if not isinstance(loop, bool):
        raise ValueError(f'loop is {shown(loop)}; give True or False')
    if loop or seconds > MAX_SECONDS:
        return LongCall(prompt, events, seconds, *args, loop=loop, **settings)
    return Call(prompt, events, seconds, *args, **settings)


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedLong:
    """A checked call of sounds that are made in windows.

    Attributes:
        call: the checked arguments.
        notes: lines on texts that are cut or cannot be read.
    """

    call: LongCall
    notes: list[str]


def prepare_long(
    call: LongCall, config: ReleaseConfig, tokenizer: Tokenizer, curves: Sequence[str] = ()
) -> PreparedLong:
    """Checks a call against a release and notes what is lost of its texts; see `requests.prepare`.

    Raises:
        ValueError: the release cannot do what is requested.
    """
    requests.check_release(call, config, curves)
    lines: list[str] = []
    tokenizer.encode(call.prompts, MAX_TEXT_TOKENS, log=lines.append)
    texts = dict.fromkeys(event.text for timeline in call.timelines for event in timeline.events)
    tokenizer.encode(list(texts), MAX_EVENT_TOKENS, log=lines.append)
    return PreparedLong(call, list(dict.fromkeys(lines)))


@dataclasses.dataclass(frozen=True, eq=False)
class Chunk:
    """A piece of a stream.

    Attributes:
        pcm: int16 [S, 2].
        start: of its first sample, in samples from the start of the stream.
        sample_rate: Hz.
        peak: 0 to 1.
        power: of each 100 ms behind the filters of ITU-R BS.1770, before the level is changed.
    """

    pcm: np.ndarray
    start: int
    sample_rate: int
    peak: float
    power: np.ndarray

    @property
    def start_s(self) -> float:
        """Seconds from the start of the stream."""
        return self.start / self.sample_rate

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.pcm) / self.sample_rate


def joined(chunks: Sequence[Chunk]) -> Chunk:
    """Chunks that follow each other as one; those without a sample only if all are so."""
    heard = [chunk for chunk in chunks if len(chunk.pcm)] or chunks[-1:]
    return dataclasses.replace(
        heard[0],
        pcm=np.concatenate([chunk.pcm for chunk in heard]),
        peak=max(chunk.peak for chunk in heard),
        power=np.concatenate([chunk.power for chunk in heard]),
    )


class Maker:
    """Windows and chunks of one sound of a call, on the device.

    Args:
        programs: networks and parameters.
        tokenizer: of the text encoder.
        config: of the release.
        call: the arguments, checked; `requests.check_release` too.
        which: of its sounds.
    """

    def __init__(
        self,
        programs: ProgramCache,
        tokenizer: Tokenizer,
        config: ReleaseConfig,
        call: LongCall,
        which: int = 0,
    ):
        scale = call.guidance_scale
        self.prompt, self.seed = call.prompts[which], call.seeds[which]
        self.target_lufs = call.target_lufs[which]
        self.sample_rate, self.schedule = call.sample_rate, call.schedule
        self.per_frame = samples_per_latent(call.sample_rate)
        self.bucket = call.bucket
        self._scale = config.default_guidance_scale(call.model) if scale is None else scale
        self.curves, self._config = programs.networks.denoiser.curves, config
        self.channels = programs.networks.channels
        self._tokenizer = tokenizer
        self._programs, self._params = programs, programs.weights_for(self.bucket)

    def check_curves(self, timeline: Timeline) -> None:
        """Refuses a curve that the release does not follow."""
        requests.check_curves(timeline, self._config, self.curves)

    @pinned_settings()
    def window(
        self,
        timeline: Timeline,
        frames: np.ndarray,
        known: Float[np.ndarray, 'L C'],
        known_mask: Float[np.ndarray, 'L'],
        seconds: float | int,
    ) -> Float[np.ndarray, 'L C']:
        """Latents of a window.

        Args:
            timeline: of the window.
            frames: latent frames from which noise is drawn.
            known, known_mask: latents where they are known, and where that is.
            seconds: duration.
        """
        bucket = dataclasses.replace(self.bucket, length=len(frames))
        request = self.request(timeline, len(frames), seconds)
        latents = self._programs.jitted(longform.sample_window, bucket=bucket)(
            self._params,
            request,
            self._programs.encoded_texts(request),
            frames.astype(np.int32),
            (known * known_mask[:, None])[None],
            known_mask[None],
        )
        return np.asarray(latents)[0]

    @pinned_settings()
    def predict(
        self, timeline: Timeline, x: Float[np.ndarray, 'L C'], time: float
    ) -> Float[np.ndarray, 'L C']:
        """What the denoiser predicts for a window, see `longform.predict_window`."""
        bucket = dataclasses.replace(self.bucket, length=len(x), init=False)
        request = self.request(timeline, len(x), len(x) / LATENT_RATE)
        program = self._programs.jitted(longform.predict_window, bucket=bucket)
        times = np.full(1, time, np.float32)
        texts = self._programs.encoded_texts(request)
        return np.asarray(program(self._params, request, texts, x[None], times))[0]

    def noise(self, length: int) -> Float[np.ndarray, 'L C']:
        """That of the sound's first latent frames."""
        return seed_noise(self.seed, length, self.channels)[0]

    @property
    def grid(self) -> Float[np.ndarray, 'bounds']:
        """Times of the sampler."""
        power = grid_power(self._programs.networks, self.bucket)
        return np.asarray(time_grid(self.bucket.steps, power=power))

    def matched(self, latents: Float[np.ndarray, 'L C']) -> Float[np.ndarray, 'L C']:
        """Sampled latents, see `program.match_moments`."""
        return np.asarray(
            match_moments(self._params, jax.numpy.asarray(latents[None]), self.bucket)
        )[0]

    def request(self, timeline: Timeline, length: int, seconds: float | int) -> Request:
        """Of one sound with the prompt of the call."""
        return requests.build_request(
            requests.tokenise(self._tokenizer, [self.prompt], [timeline]),
            [timeline],
            seconds,
            [self.seed],
            self._scale,
            length,
            CAPACITIES[-1],
            self._config.onset_lead_s,
            self.curves,
            target_lufs=self.target_lufs,
        )

    @pinned_settings()
    def chunk(
        self,
        latents: Float[np.ndarray, 'L C'],
        timeline: Timeline,
        place: Place,
        carry: longform.Carry,
    ) -> tuple[np.ndarray, longform.ChunkDiagnostics, longform.Carry]:
        """(PCM [S, 2], diagnostics, carry) of `longform.make_chunk`.

        Args:
            latents: of the chunk, with those around it.
            timeline: of these latents, from the first of them on.
            place: of the chunk.
            carry: of the chunk before.
        """
        request = self.request(timeline, len(latents), len(latents) / LATENT_RATE)
        lead = np.float32(BEFORE / LATENT_RATE)
        program = self._programs.jitted(longform.make_chunk, sample_rate=self.sample_rate)
        pcm, diagnostics, carry = program(
            self._params,
            latents[None],
            request.replace(onset_s=request.onset_s - lead, offset_s=request.offset_s - lead),
            place,
            carry,
        )
        pcm, diagnostics = jax.device_get((pcm[0], diagnostics))
        if not diagnostics.finite[0]:
            raise FloatingPointError(
                f'the sound for {self.prompt!r} is not finite; try another seed or a lower '
                'guidance scale'
            )
        return pcm, diagnostics, carry


class Stream:
    """Chunks of sound, made as they are asked for: an iterator, see `Generator.stream`.

    One thread iterates; others may edit meanwhile.

    Args:
        maker: of windows and chunks.
        timeline: what happens when.
        seconds: duration; None has no end.
    """

    def __init__(self, maker: Maker, timeline: Timeline, seconds: float | int | None):
        self.seconds, self.sample_rate = seconds, maker.sample_rate
        self._maker, self._per_frame = maker, maker.per_frame
        self._samples = math.inf if seconds is None else round(seconds * maker.sample_rate)
        self._frames = math.inf if seconds is None else latent_frames(seconds)
        self._lock = threading.Lock()
        self._timeline = self._made_of = timeline  # as it stands, and that of the last window
        self._final = self._begun = 0  # latent frames that are made, and with those being made
        self._latents = np.zeros((0, maker.channels), np.float32)  # the last final ones
        self._provisional = self._latents
        self._carry = longform.first_carry(1, maker.sample_rate)

    @property
    def timeline(self) -> Timeline:
        """The current timeline."""
        return self._timeline

    @property
    def prompt(self) -> str:
        """What is heard, as it stands."""
        return self._maker.prompt

    @property
    def editable_s(self) -> float:
        """From when on it may be edited: all before it is made, or being made."""
        return self._begun / LATENT_RATE

    def edit(self, events: Any, prompt: str | None = None) -> None:
        """Puts another timeline in place; it is heard from the next hop on.

        Args:
            events: the whole timeline in any form that `Timeline.parse` takes. A curve that it does
                not hold stays as it is; a mapping's 'loudness_db' or 'curves' of None ends it.
            prompt: another one from there on; None: as it is.

        Raises:
            ValueError: a timeline or a prompt that cannot be, or a timeline that changes what is
                already made.
        """
        if prompt is not None:
            if not isinstance(prompt, str):
                raise ValueError(f'prompt is {shown(prompt)}; a stream has one text')
            Call(prompt=prompt)
        longest = MAX_CLIP_SECONDS if self.seconds is None else self.seconds
        new = Timeline.parse(
            events, longest, MAX_STREAM_EVENTS, curves_may_end=self.seconds is None
        )
        named = events.keys() if isinstance(events, Mapping) else ()
        ended = {name for name in named if events[name] is None}
        check_density(new)
        self._maker.check_curves(new)
        keeps_loudness = new.loudness_db is None and 'loudness_db' not in ended
        with self._lock:
            old = self._timeline
            new = dataclasses.replace(
                new,
                loudness_db=old.loudness_db if keeps_loudness else new.loudness_db,
                curves=new.curves if 'curves' in ended else {**old.curves, **new.curves},
            )
            check_edit(old, new, self.editable_s)
            self._timeline = new
            if prompt is not None:
                self._maker.prompt = prompt

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        while (self._final - AHEAD - SETTLE) * self._per_frame < self._samples:
            chunk = self._advance()
            if len(chunk.pcm):
                return chunk
        raise StopIteration

    @property
    def latents(self) -> Float[np.ndarray, 'L C']:
        """The last final latent frames: those of the last hop, and some before."""
        return self._latents

    def _advance(self) -> Chunk:
        """Makes a window, and the chunk that is final with it; it may be empty at the end.

        Nothing goes on before both are made: what failed can be asked for again.
        """
        schedule, begin = self._maker.schedule, self._final
        hops = 1 if begin else schedule.first_hops
        new = hops * schedule.hop + (0 if begin else AHEAD)
        with self._lock:
            timeline, self._begun = self._timeline, begin + new
        known = min(begin, schedule.context)
        first, length = begin - known, schedule.window if begin else schedule.first_window
        values = np.zeros((length, self._maker.channels), np.float32)
        mask = np.zeros(length, np.float32)
        values[:known], mask[:known] = self._latents[len(self._latents) - known :], 1.0
        if timeline is self._made_of:
            count = len(self._provisional)
            values[known:][:count], mask[known:][:count] = self._provisional, swapped(begin, count)
        made = self._maker.window(
            window_timeline(timeline, first, length),
            first + np.arange(length),
            values,
            mask,
            min(length, self._frames - first) / LATENT_RATE,
        )
        latents = np.concatenate([self._latents, made[known : known + new]])
        carry, chunks = self._carry, []
        for after in range((hops - 1) * schedule.hop, -1, -schedule.hop):
            place = begin + new - AHEAD - schedule.hop - after
            chunk, carry = self._chunk(timeline, latents[: len(latents) - after], place, carry)
            chunks.append(chunk)
        kept = max(schedule.context, BEFORE + schedule.hop + AHEAD, new)
        self._latents, self._provisional = latents[-kept:], made[known + new :][: schedule.swap]
        self._final, self._made_of, self._carry = begin + new, timeline, carry
        return joined(chunks)

    def _chunk(
        self,
        timeline: Timeline,
        latents: Float[np.ndarray, 'L C'],
        first: int,
        carry: longform.Carry,
    ) -> tuple[Chunk, longform.Carry]:
        """The chunk that is decoded from a latent frame on, and what the next one takes over."""
        maker, per_frame = self._maker, self._per_frame
        length = BEFORE + maker.schedule.hop + AHEAD
        latents = latents[-length:]
        latents = np.pad(latents, [(length - len(latents), 0), (0, 0)])
        frames = first - BEFORE + np.arange(length)
        last = max((event.offset_s for event in timeline.events), default=0.0)
        sounds_to_end = self.seconds is not None and last > self.seconds - FADE_OUT_S
        place = Place(
            frames=frames.astype(np.int32),
            inside=(frames >= 0) & (frames < self._frames),
            is_first=np.bool_(first == 0),
            since=np.int32(min(first * per_frame, _NEVER)),
            left=np.int32(min(self._samples - first * per_frame, _NEVER)),
            fade_out_s=np.full(1, SHORT_FADE_OUT_S if sounds_to_end else FADE_OUT_S, np.float32),
            gain_db=np.zeros(1, np.float32),
        )
        part = window_timeline(timeline, first - BEFORE, length)
        pcm, diagnostics, carry = maker.chunk(latents, part, place, carry)
        start = (first - SETTLE) * per_frame
        begin, end = max(0, -start), min(len(pcm), self._samples - start)
        chunk = Chunk(
            pcm=pcm[begin : max(begin, end)],
            start=start + begin,
            sample_rate=self.sample_rate,
            peak=float(diagnostics.peak[0]),
            power=diagnostics.power[0, begin // (self.sample_rate // 10) :],
        )
        return chunk, carry


@dataclasses.dataclass(frozen=True, eq=False)
class LongSound:
    """A sound of any length.

    Attributes:
        pcm: int16 [S, 2].
        lufs: integrated loudness before it was changed.
        latents: [L, C].
    """

    pcm: np.ndarray
    lufs: float
    latents: np.ndarray


def make_sound(maker: Maker, timeline: Timeline, seconds: float | int) -> LongSound:
    """All chunks of a stream side by side."""
    stream = Stream(maker, timeline, seconds)
    pcm = np.zeros((round(seconds * maker.sample_rate), 2), np.int16)
    latents = np.zeros((latent_frames(seconds), maker.channels), np.float32)
    power, done = [], 0
    for chunk in stream:
        pcm[chunk.start :][: len(chunk.pcm)] = chunk.pcm
        power.append(chunk.power)
        end = round(stream.editable_s * LATENT_RATE)
        new = stream.latents[len(stream.latents) - (end - done) :]
        if done < len(latents):
            latents[done:end] = new[: len(latents) - done]
        done = end
    return LongSound(pcm, integrated_lufs(np.concatenate(power), seconds), latents)


def make_loop(maker: Maker, timeline: Timeline, seconds: float | int) -> LongSound:
    """A sound whose end goes over into its beginning: noise, windows and decoder are circular.

    One gain brings it to its loudness, which is measured once around.

    Args:
        maker: of windows and chunks.
        timeline: of one round; its events may not cross the end.
        seconds: of one round, see `LongCall`.
    """
    length = round(seconds * LATENT_RATE)
    latents = _loop_latents(maker, timeline, length)
    target, maker.target_lufs = maker.target_lufs, math.nan
    _, power = _around(maker, timeline, latents, 0.0)
    lufs = integrated_lufs(power, seconds)
    is_changed = not math.isnan(target) and lufs >= SILENT_LUFS
    pcm, _ = _around(maker, timeline, latents, target - lufs if is_changed else 0.0)
    return LongSound(pcm, lufs, latents)


def _loop_latents(maker: Maker, timeline: Timeline, length: int) -> Float[np.ndarray, 'L C']:
    """Latents of a loop, see `longform.sample_ring`."""
    window = maker.schedule.window

    def predict(first, x, time):
        return maker.predict(window_timeline(timeline, first, window, length), x, time)

    extrapolates = maker.bucket.sampler == 'dpm_solver_pp_2m'
    ring = longform.sample_ring(predict, maker.noise(length), maker.grid, window, extrapolates)
    return maker.matched(ring)


def _around(
    maker: Maker, timeline: Timeline, latents: Float[np.ndarray, 'L C'], gain_db: float
) -> tuple[np.ndarray, np.ndarray]:
    """PCM of one round, and the power of each of its 100 ms."""
    hop, per_frame, length = maker.schedule.hop, maker.per_frame, len(latents)
    fade = round(LOOP_FADE_S * LATENT_RATE) * per_frame
    carry = longform.first_carry(1, maker.sample_rate)
    pcm, powers = [], []
    # From a chunk before the beginning, whose phases count, to a cross-fade after the end.
    firsts = range(-hop, length + SETTLE + fade // per_frame, hop)
    for first in firsts:
        begin, count = first - BEFORE, BEFORE + hop + AHEAD
        frames = begin + np.arange(count)
        place = Place(
            frames=(frames % length).astype(np.int32),
            inside=np.ones(len(frames), bool),
            is_first=np.bool_(False),
            since=np.int32(_NEVER),
            left=np.int32(_NEVER),
            fade_out_s=np.full(1, FADE_OUT_S, np.float32),
            gain_db=np.full(1, gain_db, np.float32),
        )
        part = window_timeline(timeline, begin, count, length)
        made, diagnostics, carry = maker.chunk(latents[frames % length], part, place, carry)
        pcm.append(made)
        powers.append(diagnostics.power[0])
    start = (hop + SETTLE) * per_frame
    sound = np.concatenate(pcm)[start:]
    size = length * per_frame
    weight = np.linspace(1.0, 0.0, fade, dtype=np.float32)[:, None]
    over = weight * from_pcm16(sound[size:][:fade]) + (1 - weight) * from_pcm16(sound[:fade])
    sound[:fade] = to_pcm16(over)
    parts = start // (maker.sample_rate // 10)
    return sound[:size], np.concatenate(powers)[parts:][: size // (maker.sample_rate // 10)]


def integrated_lufs(power: Float[np.ndarray, 'N'], seconds: float | int) -> float:
    """Integrated loudness of a sound from the power of each of its 100 ms, see `Chunk`."""
    parts = max(4, min(len(power), round(10 * seconds)))
    power = np.pad(power[:parts], (0, parts - min(parts, len(power))))
    return float(gated_loudness(jax.numpy.asarray(power)[None])[0])


def swapped(first: int, count: int) -> Float[np.ndarray, 'L']:
    """1 for the frames of tokens that stay as the window before made them, 0 for the others.

    A token stays once its threshold, of eight that are spread evenly in any few tokens (van der
    Corput 1935), lies above its place among those that may be swapped, 0 to 1. So it is settled the
    earlier the higher its threshold, and then stays in the windows that follow.

    Args:
        first: latent frame of the whole sound with which they begin.
        count: frames.
    """
    token = (first + np.arange(count)) // 2
    threshold = (4 * (token & 1) + (token & 2) + (token >> 2 & 1) + 0.5) / 8
    place = 2 * (token - first // 2 + 0.5) / max(count, 1)
    return np.float32(threshold > place)


def check_density(timeline: Timeline) -> None:
    """Refuses more events within 10 s than a window holds.

    Raises:
        ValueError: when there are too many.
    """
    onsets = np.sort([event.onset_s for event in timeline.events])
    offsets = np.sort([event.offset_s for event in timeline.events])
    ended = np.searchsorted(offsets, onsets - MAX_SECONDS, 'right')
    counts = np.searchsorted(onsets, onsets, 'right') - ended
    if counts.max(initial=0) > MAX_EVENTS:
        end = onsets[counts.argmax()]
        raise ValueError(
            f'{counts.max()} events sound between {max(end - MAX_SECONDS, 0):g} and {end:g} s: 10 '
            f's hold {MAX_EVENTS}, so remove some'
        )


def window_timeline(
    timeline: Timeline, first: int, length: int, period: int | None = None
) -> Timeline:
    """The part of a timeline that falls into a window, its times counted from its start.

    Args:
        timeline: of the whole sound.
        first: latent frame with which the window begins.
        length: latent frames.
        period: of a loop, latent frames; None does not come round.
    """
    start, end = first / LATENT_RATE, (first + length) / LATENT_RATE
    rounds = (0,) if period is None else range(first // period, (first + length) // period + 1)
    events = []
    for event in timeline.events:
        for turn in rounds:
            shift = turn * (period or 0) / LATENT_RATE - start
            onset, offset = event.onset_s + shift, event.offset_s + shift
            if onset < end - start and offset > 0:
                times = max(onset, 0.0), min(offset, end - start)
                events.append(Event(event.text, *times, event.gain_db))
    index = first + np.arange(length)
    index = index if period is None else index % period
    loudness = timeline.loudness_db
    if loudness is not None:
        loudness = _values_at(loudness, index, loudness[-1])
    curves = {name: _values_at(curve, index, np.nan) for name, curve in timeline.curves.items()}
    return Timeline(tuple(events), loudness, curves)


def _values_at(
    curve: Float[np.ndarray, 'N'], index: np.ndarray, rest: float | np.floating
) -> Float[np.ndarray, 'L']:
    """A curve at latent frames, and `rest` outside of it."""
    inside = (index >= 0) & (index < len(curve))
    return np.where(inside, curve[np.clip(index, 0, len(curve) - 1)], rest).astype(np.float32)


def check_edit(old: Timeline, new: Timeline, editable_s: float) -> None:
    """Refuses a timeline that differs from another before a time.

    What ended more than 10 s before it may be left out, so that a timeline need not grow for ever.
    A curve may end at any time. One that is added is free before: None, but for loudness, whose
    values of the past count for nothing then.

    Raises:
        ValueError: which event or curve of the past is changed.
    """

    def past(timeline: Timeline) -> list[tuple]:
        return [
            (event.text, event.onset_s, min(event.offset_s, editable_s), event.gain_db)
            for event in timeline.events
            if event.onset_s < editable_s - _TOLERANCE_S
        ]

    before, after = past(old), past(new)
    removed = [e for e in before if e not in after and e[2] > editable_s - MAX_SECONDS]
    for entry, verb in [(e, 'changes') for e in after if e not in before] + [
        (e, 'removes') for e in removed
    ]:
        text, onset, offset, _ = entry
        raise ValueError(
            f'the edit {verb} {text!r} at {onset:g} to {offset:g} s, which is already made; edit '
            f'what comes from {editable_s:g} s on'
        )
    index = np.arange(round(editable_s * LATENT_RATE))
    free = np.full(1, np.nan, np.float32)
    pairs = {name: (old.curves.get(name, free), curve) for name, curve in new.curves.items()}
    if old.loudness_db is not None and new.loudness_db is not None:
        pairs['loudness_db'] = old.loudness_db, new.loudness_db
    for name, pair in pairs.items():
        before, after = (
            _values_at(curve, index, curve[-1] if name == 'loudness_db' else np.nan)
            for curve in pair
        )
        if not np.array_equal(before, after, equal_nan=True):
            raise ValueError(
                f'the edit changes {name} before {editable_s:g} s, which is already made; keep its '
                f'first {len(index)} values{", None" if np.isnan(before).all() else ""}'
            )
