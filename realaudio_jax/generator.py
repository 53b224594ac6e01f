"""The public face: load a release and make sound with it."""

import copy
import ctypes
import dataclasses
import numbers
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from realaudio_jax.audio import from_pcm16
from realaudio_jax.cache import cache_dir
from realaudio_jax.components import (
    AUTOENCODER_NAME,
    STUDENT_NAME,
    TEACHER_NAME,
    autoencoder_template,
    denoiser_template,
    find_release,
    load_denoiser,
    load_moments,
    read_release,
)
from realaudio_jax.io import write_audio
from realaudio_jax.models import text_encoder as text_lib
from realaudio_jax.models.autoencoder import Autoencoder, samples_per_latent
from realaudio_jax.models.denoiser import Denoiser, latent_frames
from realaudio_jax.program import (
    MOMENTS,
    SLOTS,
    Bucket,
    Networks,
    ProgramCache,
    Request,
    Slots,
)
from realaudio_jax.random import pinned_settings
from realaudio_jax.release import load_params
from realaudio_jax.timeline import Timeline
from realaudio_jax.training.sharding import make_mesh, param_sharding
from realaudio_jax.typing import (
    LATENT_RATE,
    MAX_EVENT_TOKENS,
    MAX_SECONDS,
    MAX_TEXT_TOKENS,
    MIN_SECONDS,
    SAMPLE_RATE,
    PyTree,
)
from realaudio_jax.vocabulary import load_vocabulary

_MALLOC_TRIM_THRESHOLD, _MALLOC_MMAP_MAX = -1, -4  # of glibc's malloc.h
SAMPLE_RATES = (48_000, 44_100)
MAX_CHARACTERS = 10_000  # of a prompt
SAMPLERS = {'student': ('ddim', 'ping_pong'), 'teacher': ('ddim', 'dpm_solver_pp_2m')}


@dataclasses.dataclass(frozen=True)
class Sound:
    """One generated sound.

    Attributes:
      pcm: int16 [S, 2].
      sample_rate: Hz.
      peak: 0 to 1.
      silent: RMS below -60 dBFS.
      latents: [L, C], what the decoder was given.
    """

    pcm: np.ndarray
    sample_rate: int
    peak: float
    silent: bool
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


class Generator:
    """A loaded release.

    Args:
      folder: the release.
      model_parallel: devices among which one copy of the parameters is split.
    """

    @pinned_settings()
    def __init__(self, folder: pathlib.Path, model_parallel: int = 1):
        self.folder = folder
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

    def guidance(self, model: str) -> float:
        """The scale where none is asked for: the student's own if the release has one."""
        own = self.config.student.guidance if model == 'student' else None
        return self.config.guidance if own is None else own

    def with_networks(self, networks: Networks, params: PyTree) -> 'Generator':
        """This release around other networks, such as random ones of another size.

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
        self.programs = ProgramCache(networks, params, mesh)

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
        guidance: float | None = None,
        model: str = 'student',
        sampler: str = 'ddim',
        sample_rate: int = SAMPLE_RATE,
        init_audio: np.ndarray | None = None,
        strength: float = 1.0,
        keep: Sequence[tuple[float, float]] = (),
        loudness_db: np.ndarray | None = None,
        target_lufs: float | None = None,
    ) -> Sound | list[Sound]:
        """Makes sound from text and a timeline in one compiled program.

        Args:
          prompt: what is heard; '' for nothing said. A list makes a batch.
          events: the timeline in any form `Timeline.parse` takes; for a batch of prompts, one for
            all.
          seconds: duration, 0.5 to 10.
          steps: denoiser steps; of the student's counts, or any for the teacher.
          seed: of the noise; for a batch, a list, or the first of consecutive seeds. One seed gives
            the same sound at any batch size, within one step of 16 bits.
          guidance: scale; None is the release's own choice, see `guidance`.
          model: 'student' or 'teacher'.
          sampler: 'ddim', 'dpm_solver_pp_2m' or 'ping_pong'.
          sample_rate: Hz of the result, 48000 or 44100.
          init_audio: float [S, 2] at `sample_rate`, to vary (`strength`) or to keep parts of
            (`keep`).
          strength: noise level to start from, (0, 1]; small values stay close to init audio.
          keep: (start, end) in seconds of the regions of init audio that stay.
          loudness_db: requested level in dBFS, one value per latent frame (25 a second).
          target_lufs: integrated loudness to bring the result to (ITU-R BS.1770); None leaves it.

        Returns:
          A `Sound`, or a list of them where `prompt` is a list.

        Raises:
          ValueError: an argument out of range, named with its remedy.
          UserWarning: words that cannot be read, or a text that is cut, see `text_notes`.
          FloatingPointError: the program's result is not finite.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise ValueError('no prompt given; pass a text or a list of texts')
        steps = _whole('steps', steps)
        self._check(seconds, steps, model, sampler, sample_rate, strength, guidance, target_lufs)
        if init_audio is None and (strength != 1 or keep):
            raise ValueError('strength and keep need init_audio; give it, or leave them out')
        first = None if np.ndim(seed) else _whole('seed', seed)
        seeds = range(first, first + len(prompts)) if first is not None else seed
        seeds = [_whole('seed', one) for one in seeds]
        if len(seeds) != len(prompts):
            raise ValueError(f'{len(seeds)} seeds for {len(prompts)} prompts; give one for each')
        if not all(0 <= s < 2**31 for s in seeds):
            raise ValueError(
                f'seeds {seeds[0]} to {seeds[-1]}: choose whole numbers from 0 to 2^31 - 1'
            )
        guidance = self.guidance(model) if guidance is None else guidance
        timeline = Timeline.parse(events, seconds, loudness_db=loudness_db)
        for line in self.text_notes(prompts, [timeline]):
            warnings.warn(line, stacklevel=2)
        bucket = Bucket(
            batch=len(prompts),
            length=latent_frames(np.ceil(seconds)),
            steps=steps,
            sample_rate=sample_rate,
            student=model == 'student',
            init=init_audio is not None,
            normalise=target_lufs is not None,
            sampler=sampler,
            slots=self.slots(prompts, [timeline]),
        )
        request = self.request(
            prompts,
            timeline,
            seconds,
            seeds,
            guidance,
            bucket.length,
            strength,
            keep,
            0.0 if target_lufs is None else target_lufs,
            bucket.slots,
        )
        init = None
        if init_audio is not None:
            init = _fit_init(init_audio, bucket)
        pcm, health, latents = self.programs(bucket, request, init)
        pcm, health, latents = jax.device_get((pcm, health, latents))
        if not health.finite.all():
            bad = [p for p, ok in zip(prompts, health.finite, strict=True) if not ok]
            raise FloatingPointError(
                f'the sound for {bad[0]!r} is not finite; '
                'try another seed or a lower guidance scale'
            )
        samples, frames = round(seconds * sample_rate), latent_frames(seconds)
        sounds = [
            Sound(
                pcm[i, :samples], sample_rate, float(health.peak[i]), bool(health.silent[i]),
                latents[i, :frames],
            )
            for i in range(len(prompts))
        ]  # fmt: skip
        return sounds[0] if isinstance(prompt, str) else sounds

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

    def slots(self, prompts: Sequence[str], timelines: Sequence[Timeline]) -> Slots:
        """The smallest of `SLOTS` that holds these; a longer text fills the largest and is cut."""
        events = [event.text for timeline in timelines for event in timeline.events]
        needed = (
            max(len(timeline.events) for timeline in timelines),
            self.tokenizer.encode(events, MAX_EVENT_TOKENS)[1].sum(axis=1).max(initial=0),
            self.tokenizer.encode(prompts, MAX_TEXT_TOKENS)[1].sum(axis=1).max(initial=0),
        )
        rooms = (dataclasses.astuple(slots) for slots in SLOTS)
        fits = [all(n <= m for n, m in zip(needed, room, strict=True)) for room in rooms]
        return SLOTS[fits.index(True)]

    def request(
        self,
        prompts: Sequence[str],
        timelines: Timeline | Sequence[Timeline],
        seconds: float,
        seeds: Sequence[int],
        guidance: float,
        length: int,
        strength: float = 1.0,
        keep: Sequence[tuple[float, float]] = (),
        target_lufs: float = 0.0,
        slots: Slots = SLOTS[-1],
    ) -> Request:
        """The arrays of a program's request; one timeline for all prompts, or one for each."""
        batch = len(prompts)
        if isinstance(timelines, Timeline):
            timelines = [timelines] * batch
        ids, mask = self.tokenizer.encode(list(prompts), slots.text_tokens)
        event_ids, event_mask = [], []
        for timeline in timelines:
            texts = [event.text for event in timeline.events]
            texts += [''] * (slots.events - len(texts))
            one_ids, one_mask = self.tokenizer.encode(texts, slots.event_tokens)
            event_ids.append(one_ids)
            event_mask.append(one_mask)
        arrays = [timeline.arrays(slots.events) for timeline in timelines]
        joined = {k: np.stack([a[k] for a in arrays]) for k in arrays[0]}
        onset, middle = joined['onset_s'], (joined['onset_s'] + joined['offset_s']) / 2
        later = onset + np.float32(self.config.onset_lead_s)
        joined['onset_s'] = np.minimum(later, middle)  # a short event keeps half of its time
        loudness = np.zeros((batch, length), np.float32)
        for row, timeline in zip(loudness, timelines, strict=True):
            if timeline.loudness_db is not None:
                curve = timeline.loudness_db[:length]
                row[: len(curve)], row[len(curve) :] = curve, curve[-1]
        time = (np.arange(length) + 0.5) / LATENT_RATE
        kept = np.zeros(length, np.float32)
        for start, end in keep:
            if not 0 <= start < end <= seconds:
                raise ValueError(
                    f'cannot keep {start:g} to {end:g} s of a sound of {seconds:g} s; give start '
                    '< end within it'
                )
            kept[(time >= start) & (time < end)] = 1.0

        def full(value):
            return np.full(batch, value, np.float32)

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
            init_mask=np.repeat(kept[None], batch, axis=0),
            target_lufs=full(target_lufs),
        )

    def _check(self, seconds, steps, model, sampler, sample_rate, strength, guidance, target_lufs):
        _require_number('seconds', seconds, MIN_SECONDS, MAX_SECONDS)
        if model not in ('student', 'teacher'):
            raise ValueError(f'model is {model!r}; choose student or teacher')
        if sampler not in SAMPLERS[model]:
            known = ' or '.join(SAMPLERS[model])
            raise ValueError(f'the {model} is not sampled with {sampler!r}; choose {known}')
        if model == 'student' and steps not in self.student_steps:
            counts = ', '.join(map(str, self.student_steps))
            raise ValueError(f'the student has no {steps} steps; choose one of {counts}')
        if not 1 <= steps <= 1000:
            raise ValueError(f'steps is {steps}; choose 1 to 1000')
        if sample_rate not in SAMPLE_RATES:
            raise ValueError(f'sample_rate is {sample_rate}; choose 48000 or 44100')
        _require_number('strength', strength, 0, 1)
        if strength == 0:
            raise ValueError('strength is 0; choose above 0 and up to 1')
        if target_lufs is not None:
            _require_number('target_lufs', target_lufs, -70, 0)
        if guidance is not None:
            _require_number('guidance', guidance, 0, 100)
        low, high = self.config.student.guidance_range
        if guidance is not None and model == 'student' and not low <= guidance <= high:
            raise ValueError(
                f'guidance is {guidance:g}; the student was trained for {low:g} to {high:g}'
            )


@jax.jit
def _embed_text(params, ids, mask):
    return text_lib.sentence_embedding(text_lib.encode_tokens(params, ids, mask), mask)


def _whole(name: str, value: Any) -> int:
    """A whole number, also one that is written 4.0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not value == value // 1:
        raise ValueError(f'{name} is {value!r}; give a whole number')
    return int(value)


def _require_number(name: str, value: Any, low: float | int, high: float | int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not low <= value <= high:
        shown = f'{value:g}' if isinstance(value, float) else repr(value)
        raise ValueError(f'{name} is {shown}; choose {low:g} to {high:g}')


def _fit_init(audio: np.ndarray, bucket: Bucket) -> np.ndarray:
    """Init audio cut or padded with silence to the bucket, one copy per item."""
    audio = np.asarray(audio, np.float32)
    if audio.ndim != 2 or audio.shape[1] != 2 or not len(audio):
        raise ValueError(f'init audio has shape {audio.shape}; give [samples, 2], not empty')
    if not np.isfinite(audio).all():
        raise ValueError('init audio holds NaN or infinite samples; repair it or leave it out')
    samples = bucket.length * samples_per_latent(bucket.sample_rate)
    out = np.zeros((bucket.batch, samples, 2), np.float32)
    out[:, : len(audio)] = audio[None, :samples]
    return out


def load(name: str | os.PathLike = 'foley', model_parallel: int = 1) -> Generator:
    """Loads a release, shipped or from a folder.

    The process is set up for speed besides: `enable_compilation_cache`, `keep_freed_memory`.

    Args:
      name: 'foley', or a folder.
      model_parallel: devices among which one copy of the parameters is split.

    Raises:
      FileNotFoundError: no such release. ValueError: a damaged one.
    """
    enable_compilation_cache()
    keep_freed_memory()
    return Generator(find_release(name), model_parallel)


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
