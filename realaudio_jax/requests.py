"""Arguments of `Generator.generate`, checked once, and the arrays that a program takes of them.

    Call(prompt, events, ...)       checks all that needs no release, and reads the timeline
    prepare(call, ...)              checks it against a release, tokenises, chooses the program

Every mistake is a ValueError of one line with its remedy, before anything is compiled.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import jax
import numpy as np

from realaudio_jax.audio import as_float
from realaudio_jax.io import printable
from realaudio_jax.models.autoencoder import samples_per_latent
from realaudio_jax.models.denoiser import latent_frames, octaves
from realaudio_jax.models.text_encoder import Tokenizer
from realaudio_jax.program_io import CAPACITIES, Bucket, Capacity, InitAudio, Request
from realaudio_jax.release_config import MAX_STEPS, ReleaseConfig
from realaudio_jax.timeline import Timeline, shown
from realaudio_jax.typing import (
    MAX_EVENT_TOKENS,
    MAX_EVENTS,
    MAX_SECONDS,
    MAX_TEXT_TOKENS,
    MIN_SECONDS,
    SAMPLE_RATE,
    Bool,
    Float,
    Int,
)

SAMPLE_RATES = (48_000, 44_100)
MAX_CHARACTERS = 10_000  # of a prompt
MAX_VARIATIONS = 64
LOUDNESS_LUFS = -23.0  # of a sound by default (EBU R 128)
BUCKET_SECONDS = (1.0, 2.0, 5.0, 10.0)  # a shorter sound is made in the next of these and cut
SPLICE_S = 0.01  # cross-fade within the edges of a region of init audio that is kept


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """The checked arguments of one call of `Generator.generate`, which says what they mean.

    Attributes:
        prompts, timelines, seeds: of each sound.
        target_lufs: loudness that each sound is brought to; NaN leaves its level.
        notes: lines on init audio that is changed or does not fit.
    """

    prompt: str | Sequence[str] = ''
    events: Any = None
    seconds: float | int = 10.0
    steps: int | float = 4
    seed: int | float | Sequence[int | float] = 0
    num_variations: int | float = 1
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    model: str = 'student'
    sampler: str = 'ddim'
    sample_rate: int | float = SAMPLE_RATE
    init_audio: np.ndarray | None = None
    strength: float = 1.0
    keep: Sequence[tuple[float, float]] = ()
    loudness_db: np.ndarray | None = None
    loudness: float | None | Literal['auto'] = 'auto'
    curves: Mapping[str, Sequence[float | None]] | None = None
    prompts: list[str] = dataclasses.field(init=False)
    timelines: list[Timeline] = dataclasses.field(init=False)
    seeds: list[int] = dataclasses.field(init=False)
    target_lufs: list[float] = dataclasses.field(init=False)
    notes: list[str] = dataclasses.field(init=False)
    longest_s: ClassVar[float] = MAX_SECONDS

    def __post_init__(self):
        prompts = _prompts(self.prompt)
        for name in ('steps', 'sample_rate', 'num_variations'):
            self._set(name, _whole_number(name, getattr(self, name)))
        require_number('num_variations', self.num_variations, 1, MAX_VARIATIONS)
        require_number('seconds', self.seconds, MIN_SECONDS, self.longest_s)
        if self.model not in ('student', 'teacher'):
            raise ValueError(f'model is {shown(self.model)}; choose student or teacher')
        if not 1 <= self.steps <= 1000:
            raise ValueError(f'steps is {shown(self.steps)}; choose 1 to 1000')
        if self.sample_rate not in SAMPLE_RATES:
            raise ValueError(f'sample_rate is {shown(self.sample_rate)}; choose 48000 or 44100')
        require_number('strength', self.strength, 0, 1)
        if self.strength == 0:
            raise ValueError('strength is 0; choose above 0')
        if self.loudness not in ('auto', None):
            require_number('loudness', self.loudness, -70, 0)
        if self.init_audio is None and (self.strength != 1 or self.keep):
            raise ValueError('strength and keep need init_audio; give it, or leave them out')
        if self.negative_prompt is not None:
            self._check_negative()
        timelines = self._timelines(len(prompts))
        self._set('prompts', [text for text in prompts for _ in range(self.num_variations)])
        self._set('timelines', [t for t in timelines for _ in range(self.num_variations)])
        self._set('seeds', self._seeds(len(self.prompts)))
        self._set('target_lufs', [self._target(t) for t in self.timelines])
        self._set('notes', [])
        self._set('keep', _spans(self.keep, self.seconds))
        if self.init_audio is not None:
            self._set('init_audio', self._checked_init())

    @property
    def is_single(self) -> bool:
        """Whether the result is a sound and no list."""
        return isinstance(self.prompt, str) and self.num_variations == 1

    def name(self, i: int) -> str:
        """How messages name a sound: by its prompt, or the texts of its events."""
        events = self.timelines[i].events
        return repr(self.prompts[i].strip() or '; '.join(event.text for event in events))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_negative(self) -> None:
        if self.model == 'student':
            raise ValueError(
                'a student has its guidance inside and takes no negative_prompt; leave it out, or '
                "give model='teacher'"
            )
        if not isinstance(self.negative_prompt, str):
            given = printable(repr(self.negative_prompt), 40)
            raise ValueError(f'negative_prompt is {given}; pass one text for all prompts')
        _check_length(self.negative_prompt, 'negative_prompt')

    def _timelines(self, count: int) -> list[Timeline]:
        """A timeline for each of `count` prompts: the one for all, or those of a list."""

        parse, events = self.parse_timeline, self.events
        is_list = not isinstance(self.prompt, str) and isinstance(events, (list, tuple)) and events
        if not (is_list and all(_may_be_timeline(entry) for entry in events)):
            return [parse(events)] * count
        if len(events) != count:
            raise ValueError(
                f'{len(events)} timelines for {count} prompts; give one for each, or one for all'
            )
        return [parse(spec) for spec in events]

    def parse_timeline(self, events: Any) -> Timeline:
        """A timeline of a sound of this call."""
        return Timeline.parse(
            events, self.seconds, loudness_db=self.loudness_db, curves=self.curves
        )

    def _seeds(self, count: int) -> list[int]:
        """A seed for each sound: those of a list, or consecutive ones."""
        if np.ndim(self.seed):
            seeds = [_whole_number('seed', seed) for seed in self.seed]
        else:
            first = _whole_number('seed', self.seed)
            seeds = [first + i for i in range(count)]
        if len(seeds) != count:
            sounds = 'prompts' if self.num_variations == 1 else 'sounds'
            raise ValueError(f'{len(seeds)} seeds for {count} {sounds}; give one for each')
        if not all(0 <= seed < 2**31 for seed in seeds):
            raise ValueError(
                f'seeds {shown(seeds[0])} to {shown(seeds[-1])}: choose whole numbers from 0 to '
                '2^31 - 1'
            )
        return seeds

    def _target(self, timeline: Timeline) -> float:
        """Loudness that a sound is brought to; NaN where it is given in another way, or is free."""
        given = self.init_audio is not None or timeline.loudness_db is not None
        if self.loudness == 'auto':
            return math.nan if given else LOUDNESS_LUFS
        return math.nan if self.loudness is None else self.loudness

    def _checked_init(self) -> Float[np.ndarray, 'S 2']:
        """Init audio in [-1, 1], no longer than the sound; notes say what is changed."""
        audio, notes = np.asarray(self.init_audio), self.notes
        if audio.ndim != 2 or audio.shape[1] != 2 or not len(audio):
            raise ValueError(f'init audio has shape {audio.shape}; give [samples, 2], not empty')
        audio = as_float(audio, 'init audio', notes.append)
        lasts, seconds = len(audio) / self.sample_rate, self.seconds
        samples = round(seconds * self.sample_rate)
        if len(audio) < samples:
            notes.append(f'the init audio lasts {lasts:.2f} s of {seconds:g} s; silence follows it')
        if len(audio) > samples:
            notes.append(
                f'the init audio lasts {lasts:.2f} s; all after its first {seconds:g} s is left out'
            )
        if self.strength == 1 and not self.keep:
            notes.append('init audio counts for nothing at strength 1 without keep; try 0.6')
        return audio[:samples]


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A checked call with its program's arguments, filled up to the batch of the program.

    Attributes:
        call: the checked arguments.
        bucket, request, init: the program, and its arguments besides parameters.
        notes: lines on texts that are cut or cannot be read, and on init audio.
    """

    call: Call
    bucket: Bucket
    request: Request
    init: InitAudio | None
    notes: list[str]

    def with_seeds(self, seeds: Sequence[int]) -> Request:
        """The request with a seed for each sound."""
        last = len(seeds) - 1
        filled = [seeds[min(i, last)] for i in range(self.bucket.batch)]
        return self.request.replace(seed=np.asarray(filled, np.int32))


def prepare(
    call: Call, config: ReleaseConfig, tokenizer: Tokenizer, curves: Sequence[str] = ()
) -> Prepared:
    """Checks a call against a release, tokenises its texts, and builds a program's arguments.

    Args:
        call: the checked arguments.
        config: of the release.
        tokenizer: of its text encoder.
        curves: names of the curves that its denoiser follows besides loudness.

    Raises:
        ValueError: the release cannot do what is requested.
    """
    check_release(call, config, curves)
    count = len(call.prompts)
    negative = [] if call.negative_prompt is None else [call.negative_prompt]
    texts = tokenise(tokenizer, call.prompts + negative, call.timelines)
    bucket = Bucket(
        # Programs are for a power of two of sounds: the last one fills it up.
        batch=2 ** math.ceil(math.log2(count)),
        length=latent_frames(next(s for s in BUCKET_SECONDS if s >= call.seconds)),
        steps=call.steps,
        sample_rate=call.sample_rate,
        student=call.model == 'student',
        init=call.init_audio is not None,
        sampler=call.sampler,
        capacity=texts.capacity,
        negative=bool(negative),
    )
    scale = call.guidance_scale
    request = build_request(
        texts,
        call.timelines,
        call.seconds,
        call.seeds,
        config.default_guidance_scale(call.model) if scale is None else scale,
        bucket.length,
        bucket.capacity,
        config.onset_lead_s,
        curves,
        strength=call.strength,
        target_lufs=call.target_lufs,
    )
    rows = np.minimum(np.arange(bucket.batch), count - 1)
    request = jax.tree.map(lambda x: x[rows], request)
    init = None if call.init_audio is None else _fit_init(call, bucket)
    return Prepared(call, bucket, request, init, call.notes + texts.notes)


@dataclasses.dataclass(frozen=True, eq=False)
class Texts:
    """Token ids of prompts and of the texts of their events, at the largest capacity.

    Attributes:
        ids, mask: of each prompt; one more than timelines: the last is the negative prompt.
        event_ids, event_mask: of each timeline's events; an empty text where there is none.
        events: most events in a timeline.
        notes: lines on texts that are cut or cannot be read.
    """

    ids: Int[np.ndarray, 'P T']
    mask: Bool[np.ndarray, 'P T']
    event_ids: Int[np.ndarray, 'B E U']
    event_mask: Bool[np.ndarray, 'B E U']
    events: int
    notes: list[str]

    @property
    def capacity(self) -> Capacity:
        """The smallest of `CAPACITIES` that holds these texts; longer ones are truncated."""
        needed = (
            self.events,
            self.event_mask.sum(axis=-1).max(initial=0),
            self.mask.sum(axis=-1).max(initial=0),
        )
        sizes = [dataclasses.astuple(capacity) for capacity in CAPACITIES]
        fits = [all(n <= m for n, m in zip(needed, size, strict=True)) for size in sizes]
        return CAPACITIES[fits.index(True)]


def tokenise(tokenizer: Tokenizer, prompts: Sequence[str], timelines: Sequence[Timeline]) -> Texts:
    """Tokenises prompts and the texts of events, each text once."""
    notes: list[str] = []
    ids, mask = tokenizer.encode(prompts, MAX_TEXT_TOKENS, log=notes.append)
    # An empty prompt is dropped text, as in training.
    mask &= np.array([bool(prompt.strip()) for prompt in prompts])[:, None]
    texts = [[event.text for event in timeline.events] for timeline in timelines]
    table = list(dict.fromkeys(['', *(text for row in texts for text in row)]))
    all_ids, all_mask = tokenizer.encode(table, MAX_EVENT_TOKENS, log=notes.append)
    place = {text: i for i, text in enumerate(table)}
    rows = [[place[text] for text in row] + [0] * (MAX_EVENTS - len(row)) for row in texts]
    which = np.array(rows, np.int32).reshape(len(texts), MAX_EVENTS)
    events = max(map(len, texts), default=0)
    lines = list(dict.fromkeys(notes))
    return Texts(ids, mask, all_ids[which], all_mask[which], events, lines)


def build_request(
    texts: Texts,
    timelines: Sequence[Timeline],
    seconds: float,
    seeds: Sequence[int],
    guidance_scale: float,
    length: int,
    capacity: Capacity,
    onset_lead_s: float = 0.0,
    curves: Sequence[str] = (),
    strength: float = 1.0,
    target_lufs: float | Sequence[float] = np.nan,
) -> Request:
    """The arrays of a request, one row for each timeline.

    Args:
        texts: of prompts and events, and perhaps of a negative prompt.
        timelines: of each sound.
        seconds: duration of all.
        seeds: of each sound.
        guidance_scale: of all.
        length: L, latent frames of the program.
        capacity: of the program; holds the texts.
        onset_lead_s: by which onsets are requested later, but for half of a short event.
        curves: names of those that the denoiser follows besides loudness.
        strength: noise level to start from.
        target_lufs: of all, or of each sound; NaN leaves the level.
    """
    batch = len(timelines)
    arrays = [timeline.arrays(capacity.events) for timeline in timelines]
    joined = {k: np.stack([a[k] for a in arrays]) for k in arrays[0]}
    middle = (joined['onset_s'] + joined['offset_s']) / 2
    onset = np.minimum(joined['onset_s'] + np.float32(onset_lead_s), middle)
    loudness = np.zeros((batch, length), np.float32)
    hertz = np.full((batch, length, len(curves)), np.nan, np.float32)
    for i, timeline in enumerate(timelines):
        if timeline.loudness_db is not None:
            curve = timeline.loudness_db[:length]
            loudness[i, : len(curve)], loudness[i, len(curve) :] = curve, curve[-1]
        for j, name in enumerate(curves):
            curve = timeline.curves.get(name, ())[:length]
            hertz[i, : len(curve), j] = curve
    requested = ~np.isnan(hertz)

    def full(value):
        return np.full(batch, value, np.float32)

    ids, mask = (x[:, : capacity.text_tokens] for x in (texts.ids, texts.mask))
    event_ids, event_mask = (
        x[:, : capacity.events, : capacity.event_tokens]
        for x in (texts.event_ids, texts.event_mask)
    )
    has_negative = len(ids) > batch
    return Request(
        token_ids=ids[:batch],
        token_mask=mask[:batch],
        event_ids=event_ids,
        event_token_mask=event_mask,
        onset_s=onset,
        offset_s=joined['offset_s'],
        gain_db=joined['gain_db'],
        event_mask=joined['mask'],
        loudness_db=loudness,
        loudness_mask=np.array([t.loudness_db is not None for t in timelines]),
        seconds=full(seconds),
        seed=np.asarray(seeds, np.int32),
        guidance_scale=full(guidance_scale),
        strength=full(strength),
        target_lufs=full(target_lufs),
        curves=octaves(np.where(requested, hertz, 1000.0)) if curves else None,
        curve_mask=requested if curves else None,
        negative_ids=np.repeat(ids[batch:], batch, axis=0) if has_negative else None,
        negative_mask=np.repeat(mask[batch:], batch, axis=0) if has_negative else None,
    )


def keep_weights(
    spans: Sequence[tuple[float, float]], seconds: float, samples: int, sample_rate: int
) -> Float[np.ndarray, 'S']:
    """`InitAudio.keep` of spans in seconds: 1 in each, with a cross-fade within its edges.

    At the ends of the sound, where there is nothing to fade into, there is none.

    Args:
        spans: (start, end) in seconds.
        seconds: duration of the sound.
        samples: S.
        sample_rate: Hz.
    """
    time = (np.arange(samples) + 0.5) / sample_rate
    weights = np.zeros(samples)
    for start, end in spans:
        since = time - start if start > 0 else np.full(samples, np.inf)
        left = end - time if end < seconds else np.full(samples, np.inf)
        rise = np.clip(np.minimum(since, left) / SPLICE_S, 0.0, 1.0)
        weights = np.maximum(weights, np.sin(np.pi / 2 * rise) ** 2)
    return np.float32(weights)


def check_release(call: Call, config: ReleaseConfig, curves: Sequence[str]) -> None:
    """Refuses steps, a guidance scale or a curve that the release was not trained for."""
    check_sampling(config, call.model, call.steps, call.guidance_scale)
    for timeline in call.timelines:
        check_curves(timeline, config, curves)


def check_curves(timeline: Timeline, config: ReleaseConfig, curves: Sequence[str]) -> None:
    """Refuses a curve that the release was not trained for."""
    for name in timeline.curves.keys() - set(curves):
        raise ValueError(
            f'the release {config.name or "loaded"} has no curve {name!r}: it follows '
            f'{", ".join(("loudness_db", *curves))}'
        )


def check_sampling(
    config: ReleaseConfig, model: str, steps: int, guidance_scale: float | None
) -> None:
    """Refuses steps or a guidance scale that a release was not trained for.

    Args:
        config: of the release.
        model: 'student' or 'teacher'.
        steps: of the sampler.
        guidance_scale: None is the release's own.

    Raises:
        ValueError: which, and what there is.
    """
    if model == 'student' and steps not in config.student.steps:
        counts = ', '.join(map(str, config.student.steps))
        raise ValueError(f'the student has no {steps} steps; choose one of {counts}')
    require_number('steps', steps, 1, MAX_STEPS)
    if guidance_scale is not None:
        trained = config.student.guidance_range if model == 'student' else (0, 100)
        require_number('guidance_scale', guidance_scale, *trained)


def _fit_init(call: Call, bucket: Bucket) -> InitAudio:
    """Init audio padded with silence to the bucket, one copy per item."""
    samples = bucket.length * samples_per_latent(bucket.sample_rate)
    audio = np.zeros((samples, 2), np.float32)
    audio[: len(call.init_audio)] = call.init_audio
    keep = keep_weights(call.keep, call.seconds, samples, bucket.sample_rate)
    return InitAudio(*(np.repeat(x[None], bucket.batch, axis=0) for x in (audio, keep)))


def _whole_number(name: str, value: Any) -> int:
    """A whole number, also one that is written 4.0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not value == value // 1:
        raise ValueError(f'{name} is {shown(value)}; give a whole number')
    return int(value)


def require_number(name: str, value: Any, low: float | int, high: float | int) -> None:
    """Refuses what is no number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not low <= value <= high:
        raise ValueError(f'{name} is {shown(value)}; choose {low:g} to {high:g}')


def _prompts(prompt: Any) -> list[str]:
    """The texts of a batch, checked."""
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, Sequence) or not all(isinstance(p, str) for p in prompts):
        given = printable(repr(prompt), 40)
        raise ValueError(f'prompt is {given}; pass a text or a list of texts')
    if not prompts:
        raise ValueError('no prompt given; pass a text or a list of texts')
    _check_length(max(prompts, key=len), 'a prompt')
    return list(prompts)


def _check_length(text: str, name: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f'{name} has {len(text):,} characters; of {MAX_TEXT_TOKENS} tokens it can have '
            f'{MAX_CHARACTERS:,} at most'
        )


def _may_be_timeline(entry: Any) -> bool:
    """Whether an entry of a list is a whole timeline rather than an event."""
    if isinstance(entry, Mapping):
        return 'text' not in entry
    if isinstance(entry, (list, tuple)):
        return not (entry and isinstance(entry[0], str))
    return entry is None or isinstance(entry, (str, Timeline))


def _spans(keep: Any, seconds: float | int) -> list[tuple[float, float]]:
    """The spans of `keep`, checked against the duration of the sound."""
    try:
        spans = [(float(start), float(end)) for start, end in keep]
    except (TypeError, ValueError):
        raise ValueError(
            f'keep is {printable(repr(keep), 40)}; give (start, end) pairs in seconds, such as '
            '[(0, 1.5)]'
        ) from None
    for start, end in spans:
        if not 0 <= start < end <= seconds:
            raise ValueError(
                f'cannot keep {start:g} to {end:g} s of a sound of {seconds:g} s; give start '
                '< end within it'
            )
    return spans
