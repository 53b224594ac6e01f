"""The public face: load a release and make sound with it."""

import base64
import copy
import ctypes
import dataclasses
import io
import math
import numbers
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import soundfile
from jax.sharding import Mesh

from realaudio_jax.audio import as_float, from_pcm16
from realaudio_jax.cache import cache_dir
from realaudio_jax.io import printable, write_audio
from realaudio_jax.mesh import make_mesh, param_sharding
from realaudio_jax.models import text_encoder as text_lib
from realaudio_jax.models.autoencoder import Autoencoder, samples_per_latent
from realaudio_jax.models.denoiser import Denoiser, latent_frames, octaves
from realaudio_jax.program import (
    CAPACITIES,
    MOMENTS,
    Bucket,
    Capacity,
    InitAudio,
    Networks,
    ProgramCache,
    Request,
    keep_weights,
)
from realaudio_jax.random import pinned_settings
from realaudio_jax.release import (
    AUTOENCODER_NAME,
    STUDENT_NAME,
    TEACHER_NAME,
    autoencoder_template,
    denoiser_template,
    find_release,
    load_denoiser,
    load_moments,
    load_params,
    read_release,
)
from realaudio_jax.timeline import Timeline
from realaudio_jax.typing import (
    MAX_EVENT_TOKENS,
    MAX_SECONDS,
    MAX_TEXT_TOKENS,
    MIN_SECONDS,
    SAMPLE_RATE,
    Float,
    PyTree,
)
from realaudio_jax.vocabulary import load_vocabulary

_MALLOC_TRIM_THRESHOLD, _MALLOC_MMAP_MAX = -1, -4  # of glibc's malloc.h
SAMPLE_RATES = (48_000, 44_100)
MAX_CHARACTERS = 10_000  # of a prompt
LOUDNESS_LUFS = -23.0  # of a sound by default (EBU R 128)
BUCKET_SECONDS = (1.0, 2.0, 5.0, 10.0)  # a shorter sound is made in the next of these and cut
RETRIES = 4  # of a silent sound, each with a seed derived from the one asked for


@dataclasses.dataclass(frozen=True)
class Sound:
    """One generated sound.

    A notebook shows it as a player.

    Attributes:
      pcm: int16 [S, 2].
      sample_rate: Hz.
      peak: 0 to 1.
      lufs: integrated loudness before it was changed (ITU-R BS.1770); -70 for silence.
      silent: that is below -60 LUFS.
      seed: of its noise; not the one asked for where that gave silence.
      latents: [L, C], what the decoder was given.
    """

    pcm: np.ndarray
    sample_rate: int
    peak: float
    lufs: float
    silent: bool
    seed: int
    latents: np.ndarray

    @property
    def audio(self) -> np.ndarray:
        """float32 [S, 2] in [-1, 1]."""
        return from_pcm16(self.pcm)

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.pcm) / self.sample_rate

    def save(self, path: str | os.PathLike) -> None:
        """Writes 16-bit WAV or FLAC, or Ogg Vorbis, whole or not at all."""
        write_audio(path, self.pcm, self.sample_rate)

    def __repr__(self) -> str:
        level = 'silent' if self.silent else f'{self.lufs:.1f} LUFS as generated'
        return (
            f'Sound({self.seconds:g} s at {self.sample_rate} Hz, peak {self.peak:.2f}, '
            f'{level}, seed {self.seed})'
        )

    def _repr_html_(self) -> str:
        buffer = io.BytesIO()
        soundfile.write(buffer, self.pcm, self.sample_rate, format='WAV', subtype='PCM_16')
        data = base64.b64encode(buffer.getvalue()).decode()
        return f'<audio controls src="data:audio/wav;base64,{data}"></audio><br>{self!r}'


class Generator:
    """A loaded release.

    Args:
      folder: the release.
      model_parallel: devices among which one copy of the parameters is split.
      log: called with one line for each program that is compiled, or loaded from disk; by default
        it goes to the standard error output.
    """

    @pinned_settings()
    def __init__(
        self,
        folder: pathlib.Path,
        model_parallel: int = 1,
        log: Callable[[str], None] | None = None,
    ):
        self.folder = folder
        self.log = _print_to_stderr if log is None else log
        self.config = config = read_release(folder)
        networks = Networks(
            text_encoder=text_lib.TextEncoder(),
            autoencoder=Autoencoder(**config.autoencoder.to_dict()),
            denoiser=Denoiser(**config.denoiser.to_dict()),
            grid_powers=config.student.grid_powers,
        )
        self.tokenizer = text_lib.Tokenizer(folder / text_lib.TOKENIZER_NAME)
        denoiser = denoiser_template(networks.denoiser)
        params = {
            'text_encoder': load_params(
                folder / text_lib.WEIGHTS_NAME, text_lib.parameter_shapes()
            ),
            'autoencoder': load_params(
                folder / AUTOENCODER_NAME, autoencoder_template(networks.autoencoder)
            ),
            'student': load_denoiser(folder, STUDENT_NAME, denoiser),
            'teacher': load_denoiser(folder, TEACHER_NAME, denoiser),
            MOMENTS: load_moments(folder),
        }
        self._hold(networks, params, make_mesh(model_parallel))

    def default_guidance_scale(self, model: str) -> float:
        """Default guidance scale of 'student' or 'teacher', as the release's config has it."""
        own = self.config.student.guidance if model == 'student' else None
        return self.config.guidance if own is None else own

    def with_networks(self, networks: Networks, params: PyTree) -> 'Generator':
        """A copy of this generator with other networks, such as random ones of another size.

        Args:
          networks: the modules.
          params: as `params` gives them; 'student' and 'teacher' only where they are used.
        """
        other = copy.copy(self)
        other._hold(networks, params, self.programs.mesh)
        return other

    def _hold(self, networks: Networks, params: PyTree, mesh: Mesh) -> None:
        self.networks = networks
        params = jax.device_put(params, param_sharding(mesh, params))
        self.programs = ProgramCache(networks, params, mesh, lambda line: self.log(line))

    def __repr__(self) -> str:
        count = sum(x.size for x in jax.tree.leaves(self.params)) / 1e6
        steps = ', '.join(map(str, self.student_steps))
        return (
            f'Generator({self.folder.name!r}, {count:.1f} M parameters, student of {steps} steps)'
        )

    @property
    def params(self) -> PyTree:
        """Parameters of text encoder, autoencoder, student, its moments and teacher, by name."""
        return self.programs.params

    @property
    def student_steps(self) -> tuple[int, ...]:
        """Step counts the student was trained for."""
        return self.config.student.steps

    def generate(
        self,
        prompt: str | Sequence[str],
        events=None,
        seconds: float = 10.0,
        steps: int | float = 4,
        seed: int | float | Sequence[int | float] = 0,
        *,
        guidance_scale: float | None = None,
        model: str = 'student',
        sampler: str = 'ddim',
        sample_rate: int | float = SAMPLE_RATE,
        init_audio: np.ndarray | None = None,
        strength: float = 1.0,
        keep: Sequence[tuple[float, float]] = (),
        loudness_db: np.ndarray | None = None,
        loudness: float | None | Literal['auto'] = 'auto',
        curves: Mapping[str, Sequence[float | None]] | None = None,
    ) -> Sound | list[Sound]:
        """Makes sound from text and a timeline in one compiled program.

        Args:
          prompt: what is heard; '' for nothing said. A list makes a batch.
          events: the timeline in any form `Timeline.parse` takes; for a batch of prompts, one for
            all, or a list with one for each.
          seconds: duration, 0.5 to 10.
          steps: denoiser steps; of the student's counts, or any for the teacher.
          seed: of the noise; for a batch, a list, or the first of consecutive seeds. One seed gives
            the same sound at any batch size, within one step of 16 bits.
          guidance_scale: None: the release's, see `default_guidance_scale`.
          model: 'student' or 'teacher'.
          sampler: 'ddim', 'dpm_solver_pp_2m' or 'ping_pong'.
          sample_rate: Hz of the result, 48000 or 44100.
          init_audio: [S, 2] at `sample_rate`, floats in [-1, 1] or integers, to vary (`strength`)
            or to keep parts of (`keep`). It is scaled to a peak of 1, padded or cut where needed.
          strength: noise level to start from, (0, 1]; small values stay close to init audio.
          keep: (start, end) in seconds of the regions of init audio that stay.
          loudness_db: requested level in dBFS, one value per latent frame (25 a second).
          loudness: integrated loudness that the result is brought to, LUFS (ITU-R BS.1770), by one
            gain for the whole sound before the limiter; a sound that comes out silent is made again
            with a seed derived from its own. None leaves the level as it was made, silence
            included. 'auto' is -23, and None where init audio or `loudness_db` state a level.
          curves: requested 'brightness' or 'pitch' in Hz, one value per latent frame, None where it
            is free; only what the release has.

        Returns:
          A `Sound`, or a list of them where `prompt` is a list.

        Raises:
          ValueError: an argument out of range, named with its remedy; or the sound stays silent.
          UserWarning: words that cannot be read, a text that is cut (see `text_notes`), init audio
            that is scaled, cut or too short, a sound that came out silent and is made again, or one
            that is silent and left so.
          FloatingPointError: the program's result is not finite.
          RuntimeError: this process is a fork of the one that loaded the release.
        """
        call = self._call(
            prompt,
            events,
            seconds,
            steps,
            seed,
            guidance_scale,
            model,
            sampler,
            sample_rate,
            init_audio,
            strength,
            keep,
            loudness_db,
            loudness,
            curves,
        )
        for line in call.notes + self.text_notes(call.prompts, call.timelines):
            warnings.warn(line, stacklevel=2)
        sounds = self._run(call, call.seeds)
        for attempt in range(1, RETRIES + 1):
            silent = [i for i in range(len(sounds)) if sounds[i].silent and call.levelled[i]]
            if not silent:
                break
            seeds = list(call.seeds)
            for i in silent:
                seeds[i] = derived_seed(call.seeds[i], attempt)
                warnings.warn(
                    f'{call.name(i)} came out silent with seed {sounds[i].seed}; '
                    f'made again with seed {seeds[i]}',
                    stacklevel=2,
                )
            again = self._run(call, seeds)
            sounds = [again[i] if i in silent else sounds[i] for i in range(len(sounds))]
        for i, sound in enumerate(sounds):
            if sound.silent and call.levelled[i]:
                raise ValueError(
                    f'{call.name(i)} stays silent with {RETRIES + 1} seeds; say it in other words, '
                    'or pass loudness=None to have it as it is'
                )
            if sound.silent:
                if loudness is None:
                    remedy = 'with loudness on, silence is made again'
                elif init_audio is not None:
                    remedy = 'give louder init audio or more strength, or ask for a loudness'
                else:
                    remedy = 'raise its loudness curve, or ask for a loudness'
                warnings.warn(
                    f'{call.name(i)} is silent ({sound.lufs:.0f} LUFS); {remedy}', stacklevel=2
                )
        return sounds[0] if isinstance(prompt, str) else sounds

    def warmup(self, prompt: str | Sequence[str] = '', *args, **kwargs) -> None:
        """Compiles the program that `generate` runs for the same arguments, and runs nothing.

        How long texts are, how many events there are, which duration, steps, batch and sampler:
        only what belongs to another program is compiled anew. Seeds, gains, times and words do not.

        Args:
          prompt: as for `generate`.
          args, kwargs: as for `generate`.

        Raises:
          ValueError: an argument out of range, named with its remedy.
        """
        self.programs.get(self._call(prompt, *args, **kwargs).bucket)

    def _call(
        self,
        prompt: str | Sequence[str],
        events: Any = None,
        seconds: float = 10.0,
        steps: int | float = 4,
        seed: int | float | Sequence[int | float] = 0,
        guidance_scale: float | None = None,
        model: str = 'student',
        sampler: str = 'ddim',
        sample_rate: int | float = SAMPLE_RATE,
        init_audio: np.ndarray | None = None,
        strength: float = 1.0,
        keep: Sequence[tuple[float, float]] = (),
        loudness_db: np.ndarray | None = None,
        loudness: float | None | Literal['auto'] = 'auto',
        curves: Mapping[str, Sequence[float | None]] | None = None,
    ) -> '_Call':
        """The checked arguments of `generate` as what its program takes."""
        prompts = _prompts(prompt)
        steps, sample_rate = whole_number('steps', steps), whole_number('sample_rate', sample_rate)
        self._check(seconds, steps, model, sample_rate, strength, guidance_scale, loudness)
        if init_audio is None and (strength != 1 or keep):
            raise ValueError('strength and keep need init_audio; give it, or leave them out')
        count = len(prompts)
        seeds = [whole_number('seed', s) for s in (seed if np.ndim(seed) else [seed])]
        seeds = seeds if np.ndim(seed) else [seeds[0] + i for i in range(count)]
        if len(seeds) != count:
            raise ValueError(f'{len(seeds)} seeds for {count} prompts; give one for each')
        if not all(0 <= s < 2**31 for s in seeds):
            raise ValueError(
                f'seeds {seeds[0]} to {seeds[-1]}: choose whole numbers from 0 to 2^31 - 1'
            )
        specs = [events] * count if isinstance(prompt, str) else _one_for_each(events, count)
        timelines = [
            Timeline.parse(spec, seconds, loudness_db=loudness_db, curves=curves) for spec in specs
        ]
        for timeline in timelines:
            self._check_curves(timeline)
        level = LOUDNESS_LUFS if loudness == 'auto' else loudness
        stated = [init_audio is not None or t.loudness_db is not None for t in timelines]
        left = [level is None or (loudness == 'auto' and is_stated) for is_stated in stated]
        # Programs are for a power of two of sounds: the last is made as often as fills it up.
        rows = [min(i, count - 1) for i in range(2 ** math.ceil(math.log2(count)))]
        bucket = Bucket(
            batch=len(rows),
            length=latent_frames(next(s for s in BUCKET_SECONDS if s >= seconds)),
            steps=steps,
            sample_rate=sample_rate,
            student=model == 'student',
            init=init_audio is not None,
            sampler=sampler,
            capacity=self.capacity(prompts, timelines),
        )
        request = self.request(
            [prompts[i] for i in rows],
            [timelines[i] for i in rows],
            seconds,
            [seeds[i] for i in rows],
            self.default_guidance_scale(model) if guidance_scale is None else guidance_scale,
            bucket.length,
            strength,
            [np.nan if left[i] else level for i in rows],
            bucket.capacity,
        )
        init, notes = None, []
        if init_audio is not None:
            init_audio = _check_init(init_audio, sample_rate, seconds, notes.append)
            if strength == 1 and not keep:
                notes.append('init audio counts for nothing at strength 1 without keep; try 0.6')
            init = _fit_init(init_audio, keep, seconds, bucket)
        levelled = [not x for x in left]
        return _Call(prompts, timelines, seconds, seeds, levelled, bucket, request, init, notes)

    def _run(self, call: '_Call', seeds: Sequence[int]) -> list[Sound]:
        """One run of the program; a sound for each prompt."""
        bucket, count = call.bucket, len(call.prompts)
        filled = np.asarray([seeds[min(i, count - 1)] for i in range(bucket.batch)], np.int32)
        result = self.programs(bucket, call.request.replace(seed=filled), call.init)
        pcm, diagnostics, latents = jax.device_get(result)
        for i in range(count):
            if not diagnostics.finite[i]:
                raise FloatingPointError(
                    f'the sound for {call.name(i)} is not finite; '
                    'try another seed or a lower guidance scale'
                )
        samples, frames = round(call.seconds * bucket.sample_rate), latent_frames(call.seconds)
        return [
            Sound(
                pcm=pcm[i, :samples],
                sample_rate=bucket.sample_rate,
                peak=float(diagnostics.peak[i]),
                lufs=float(diagnostics.lufs[i]),
                silent=bool(diagnostics.silent[i]),
                seed=seeds[i],
                latents=latents[i, :frames],
            )
            for i in range(count)
        ]

    def text_notes(self, prompts: Sequence[str], timelines: Sequence[Timeline]) -> list[str]:
        """Lines on words that have no token and on texts that are cut, of prompts and events."""
        notes, longest = [], max(map(len, prompts), default=0)
        if longest > MAX_CHARACTERS:
            raise ValueError(
                f'a prompt has {longest:,} characters; of {MAX_TEXT_TOKENS} tokens it can have '
                f'{MAX_CHARACTERS:,} at most'
            )
        events = [event.text for timeline in timelines for event in timeline.events]
        self.tokenizer.encode(prompts, MAX_TEXT_TOKENS, log=notes.append)
        self.tokenizer.encode(events, MAX_EVENT_TOKENS, log=notes.append)
        return list(dict.fromkeys(notes))

    def nearest_labels(self, text: str, count: int = 3) -> list[tuple[str, float]]:
        """The labels of the release's training sounds that are nearest to a text.

        The first call compiles the text encoder by itself.

        Returns:
          (label, similarity) pairs, the nearest first; below `vocabulary.FAR` nothing like it was
          trained on. Empty where the release has no vocabulary.
        """
        vocabulary = load_vocabulary(self.folder)
        if vocabulary is None:
            return []
        ids, mask = self.tokenizer.encode([text], MAX_TEXT_TOKENS)
        embedding = np.asarray(_embed_text(self.params['text_encoder'], ids, mask))[0]
        return vocabulary.nearest(embedding, count)

    def capacity(self, prompts: Sequence[str], timelines: Sequence[Timeline]) -> Capacity:
        """The smallest of `CAPACITIES` that holds these; longer texts are truncated."""
        events = [event.text for timeline in timelines for event in timeline.events]
        needed = (
            max(len(timeline.events) for timeline in timelines),
            self.tokenizer.encode(events, MAX_EVENT_TOKENS)[1].sum(axis=1).max(initial=0),
            self.tokenizer.encode(prompts, MAX_TEXT_TOKENS)[1].sum(axis=1).max(initial=0),
        )
        rooms = (dataclasses.astuple(capacity) for capacity in CAPACITIES)
        fits = [all(n <= m for n, m in zip(needed, room, strict=True)) for room in rooms]
        return CAPACITIES[fits.index(True)]

    def request(
        self,
        prompts: Sequence[str],
        timelines: Timeline | Sequence[Timeline],
        seconds: float,
        seeds: Sequence[int],
        guidance: float,
        length: int,
        strength: float = 1.0,
        target_lufs: float | Sequence[float] = np.nan,
        capacity: Capacity = CAPACITIES[-1],
    ) -> Request:
        """The arrays of a program's request; one timeline for all prompts, or one for each.

        Without `target_lufs` a sound keeps the level it was made at, as figures need it.
        """
        batch = len(prompts)
        if isinstance(timelines, Timeline):
            timelines = [timelines] * batch
        ids, mask = self.tokenizer.encode(list(prompts), capacity.text_tokens)
        event_ids, event_mask = [], []
        for timeline in timelines:
            texts = [event.text for event in timeline.events]
            texts += [''] * (capacity.events - len(texts))
            one_ids, one_mask = self.tokenizer.encode(texts, capacity.event_tokens)
            event_ids.append(one_ids)
            event_mask.append(one_mask)
        arrays = [timeline.arrays(capacity.events) for timeline in timelines]
        joined = {k: np.stack([a[k] for a in arrays]) for k in arrays[0]}
        onset, middle = joined['onset_s'], (joined['onset_s'] + joined['offset_s']) / 2
        later = onset + np.float32(self.config.onset_lead_s)
        joined['onset_s'] = np.minimum(later, middle)  # a short event keeps half of its time
        loudness = np.zeros((batch, length), np.float32)
        for row, timeline in zip(loudness, timelines, strict=True):
            if timeline.loudness_db is not None:
                curve = timeline.loudness_db[:length]
                row[: len(curve)], row[len(curve) :] = curve, curve[-1]

        def full(value):
            return np.full(batch, value, np.float32)

        names = self.networks.denoiser.curves
        hertz = np.full((batch, length, len(names)), np.nan, np.float32)
        for row, timeline in zip(hertz, timelines, strict=True):
            for i, name in enumerate(names):
                curve = timeline.curves.get(name, ())[:length]
                row[: len(curve), i] = curve
        asked = ~np.isnan(hertz)
        return Request(
            token_ids=ids,
            # An empty prompt asks for nothing: dropped text, as in training.
            token_mask=mask & np.array([bool(p.strip()) for p in prompts])[:, None],
            event_ids=np.stack(event_ids),
            event_token_mask=np.stack(event_mask),
            onset_s=joined['onset_s'],
            offset_s=joined['offset_s'],
            gain_db=joined['gain_db'],
            event_mask=joined['mask'],
            loudness_db=loudness,
            loudness_mask=np.array([t.loudness_db is not None for t in timelines]),
            seconds=full(seconds),
            seed=np.asarray(seeds, np.int32),
            guidance_scale=full(guidance),
            strength=full(strength),
            target_lufs=full(target_lufs),
            curves=octaves(np.where(asked, hertz, 1000.0)) if names else None,
            curve_mask=asked if names else None,
        )

    def _check_curves(self, timeline: Timeline) -> None:
        """Refuses a curve that the release was not trained on."""
        known = self.networks.denoiser.curves
        for name in timeline.curves:
            if name not in known:
                raise ValueError(
                    f'the release {self.folder.name} has no curve {name!r}: it follows '
                    f'{", ".join(("loudness_db", *known))}'
                )

    def _check(self, seconds, steps, model, sample_rate, strength, guidance_scale, loudness):
        _require_number('seconds', seconds, MIN_SECONDS, MAX_SECONDS)
        if model not in ('student', 'teacher'):
            raise ValueError(f'model is {model!r}; choose student or teacher')
        if model == 'student' and steps not in self.student_steps:
            counts = ', '.join(map(str, self.student_steps))
            raise ValueError(f'the student has no {steps} steps; choose one of {counts}')
        if not 1 <= steps <= 1000:
            raise ValueError(f'steps is {steps}; choose 1 to 1000')
        if sample_rate not in SAMPLE_RATES:
            raise ValueError(f'sample_rate is {sample_rate}; choose 48000 or 44100')
        _require_number('strength', strength, 0, 1)
        if strength == 0:
            raise ValueError('strength is 0; choose above 0')
        if loudness not in ('auto', None):
            _require_number('loudness', loudness, -70, 0)
        if guidance_scale is not None:  # a student was trained for its range
            trained = self.config.student.guidance_range
            _require_number(
                'guidance_scale', guidance_scale, *(trained if model == 'student' else (0, 100))
            )


@jax.jit
def _embed_text(params, ids, mask):
    return text_lib.sentence_embedding(text_lib.encode_tokens(params, ids, mask), mask)


def whole_number(name: str, value: Any) -> int:
    """A whole number, also one that is written 4.0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not value == value // 1:
        raise ValueError(f'{name} is {value!r}; give a whole number')
    return int(value)


def _require_number(name: str, value: Any, low: float | int, high: float | int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not low <= value <= high:
        shown = f'{value:g}' if isinstance(value, float) else repr(value)
        raise ValueError(f'{name} is {shown}; choose {low:g} to {high:g}')


@dataclasses.dataclass(frozen=True)
class _Call:
    """The checked arguments of one `generate`.

    Attributes:
      prompts, timelines, seeds: of each sound.
      seconds: duration.
      levelled: whether the loudness of each is changed.
      bucket, request, init: what the program takes; filled up to the batch of the bucket.
      notes: lines on init audio that is changed or does not fit.
    """

    prompts: list[str]
    timelines: list[Timeline]
    seconds: float
    seeds: list[int]
    levelled: list[bool]
    bucket: Bucket
    request: Request
    init: InitAudio | None
    notes: list[str]

    def name(self, i: int) -> str:
        """How messages name a sound: by its prompt, or the texts of its events."""
        events = self.timelines[i].events
        return repr(self.prompts[i].strip() or '; '.join(event.text for event in events))


def derived_seed(seed: int, attempt: int) -> int:
    """Another seed, a function of a seed and the number of the attempt."""
    return int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0] >> 1)


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _prompts(prompt: Any) -> list[str]:
    """The texts of a batch, checked."""
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, Sequence) or not all(isinstance(p, str) for p in prompts):
        shown = printable(repr(prompt), 40)
        raise ValueError(f'prompt is {shown}; pass a text or a list of texts')
    if not prompts:
        raise ValueError('no prompt given; pass a text or a list of texts')
    return list(prompts)


def _one_for_each(events: Any, count: int) -> list:
    """A timeline for each of `count` prompts: the one for all, or those of a list."""
    is_list = isinstance(events, (list, tuple)) and events
    if not (is_list and all(_may_be_timeline(entry) for entry in events)):
        return [events] * count
    if len(events) != count:
        raise ValueError(
            f'{len(events)} timelines for {count} prompts; give one for each, or one for all'
        )
    return list(events)


def _may_be_timeline(entry: Any) -> bool:
    """Whether an entry of a list is a timeline of its own, and no event."""
    if isinstance(entry, Mapping):
        return 'text' not in entry
    if isinstance(entry, (list, tuple)):
        return not (entry and isinstance(entry[0], str))
    return entry is None or isinstance(entry, (str, Timeline))


def _check_init(
    audio: np.ndarray, sample_rate: int, seconds: float, log: Callable[[str], None]
) -> Float[np.ndarray, 'S 2']:
    """Init audio in [-1, 1] and no longer than the sound; a line for each thing that is changed."""
    audio = np.asarray(audio)
    if audio.ndim != 2 or audio.shape[1] != 2 or not len(audio):
        raise ValueError(f'init audio has shape {audio.shape}; give [samples, 2], not empty')
    audio = as_float(audio, 'init audio', log)
    given, samples = len(audio) / sample_rate, round(seconds * sample_rate)
    if len(audio) < samples:
        log(f'the init audio lasts {given:.2f} s of {seconds:g} s; silence follows it')
    if len(audio) > samples:
        log(f'the init audio lasts {given:.2f} s; all after its first {seconds:g} s is left out')
    return audio[:samples]


def _fit_init(
    audio: np.ndarray, keep: Sequence[tuple[float, float]], seconds: float, bucket: Bucket
) -> InitAudio:
    """Init audio padded with silence to the bucket, one copy per item."""
    samples = bucket.length * samples_per_latent(bucket.sample_rate)
    out = np.zeros((samples, 2), np.float32)
    out[: len(audio)] = audio
    weights = keep_weights(_spans(keep, seconds), seconds, samples, bucket.sample_rate)
    return InitAudio(
        audio=np.repeat(out[None], bucket.batch, axis=0),
        keep=np.repeat(weights[None], bucket.batch, axis=0),
    )


def _spans(keep: Any, seconds: float) -> list[tuple[float, float]]:
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


def load(
    name: str | os.PathLike = 'foley',
    model_parallel: int = 1,
    log: Callable[[str], None] | None = None,
) -> Generator:
    """Loads a release, shipped or from a folder.

    The process is set up for speed besides: `enable_compilation_cache`, `keep_freed_memory`.

    Args:
      name: 'foley', or a folder.
      model_parallel: devices among which one copy of the parameters is split.
      log: see `Generator`.

    Raises:
      FileNotFoundError: no such release. ValueError: a damaged one.
    """
    enable_compilation_cache()
    keep_freed_memory()
    return Generator(find_release(name), model_parallel, log)


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that a second process starts without compiling."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update('jax_compilation_cache_dir', str(cache_dir() / 'xla'))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def keep_freed_memory() -> None:
    """Lets the C library keep what it frees for the next call; without glibc nothing happens.

    XLA takes the intermediate arrays of every call on a CPU from the C library, which maps blocks
    of this size anew each time, page by page: a tenth or more of the time of a sound. The price is
    that the process holds on to the memory of its largest call.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_MALLOC_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_MALLOC_MMAP_MAX, 0)
