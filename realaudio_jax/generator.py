"""Load a release and make sound with it: `load` and `Generator.generate`."""

import base64
import copy
import dataclasses
import inspect
import io
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

from realaudio_jax import requests, watermark
from realaudio_jax.audio import from_pcm16
from realaudio_jax.cache import enable_compilation_cache
from realaudio_jax.finishing import SILENT_LUFS
from realaudio_jax.io import write_audio
from realaudio_jax.longform import Schedule
from realaudio_jax.mesh import make_mesh, param_sharding
from realaudio_jax.models import text_encoder as text_lib
from realaudio_jax.models.autoencoder import Autoencoder
from realaudio_jax.models.denoiser import Denoiser, latent_frames
from realaudio_jax.program import MOMENTS, Networks, ProgramCache
from realaudio_jax.program_io import CAPACITIES, Capacity, Request
from realaudio_jax.quantisation import PRECISIONS, quantise_products
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
from realaudio_jax.requests import Prepared
from realaudio_jax.stream import (
    LongCall,
    Maker,
    PreparedLong,
    Stream,
    check_call,
    make_loop,
    make_sound,
    prepare_long,
)
from realaudio_jax.timeline import MAX_CLIP_SECONDS, Timeline, shown
from realaudio_jax.typing import SAMPLE_RATE, PyTree
from realaudio_jax.watermark import Watermark

_PUBLIC = Watermark()
RETRIES = 4  # of a silent sound, each with a seed derived from the requested one


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
        seed: of its noise; a derived one where the requested seed gave silence.
        latents: [L, C], what the decoder was given, before the mark on them.
        watermark: which key marks it, 'public key' or 'private key DIGEST'; '' for none.
    """

    pcm: np.ndarray
    sample_rate: int
    peak: float
    lufs: float
    silent: bool
    seed: int
    latents: np.ndarray
    watermark: str = ''

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
            f'{level}, seed {self.seed}{f", {self.watermark}" if self.watermark else ""})'
        )

    def _repr_html_(self) -> str:
        buffer = io.BytesIO()
        soundfile.write(buffer, self.pcm, self.sample_rate, format='WAV', subtype='PCM_16')
        data = base64.b64encode(buffer.getvalue()).decode()
        return f'<audio controls src="data:audio/wav;base64,{data}"></audio><br>{self!r}'


class Generator:
    """A loaded release: makes sound from text and a timeline.

    Args:
        folder: the release.
        model_parallel: devices among which one copy of the parameters is split.
        log: called with one line for each program that is compiled, or loaded from disk; by default
            it goes to the standard error output.
        mark: with which sounds are marked; None: they are not.
        precision: of the products of tokens and weights, one of `quantisation.PRECISIONS`.

    Attributes:
        mark: as given.
        precision: of the products of `params`.
        config: the release's settings.
        networks, params: modules and parameters of text encoder, autoencoder, student and teacher.
        programs: the compiled programs, `program.ProgramCache`.
    """

    @pinned_settings()
    def __init__(
        self,
        folder: pathlib.Path,
        model_parallel: int = 1,
        log: Callable[[str], None] | None = None,
        mark: Watermark | None = _PUBLIC,
        precision: str = 'float32',
    ):
        _check_precision(precision)
        self.folder, self.mark = folder, _checked_mark(mark)
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
        if precision == 'int8':
            params = quantise_products(params)
        self._set_networks(networks, params, make_mesh(model_parallel))

    def with_networks(self, networks: Networks, params: PyTree) -> 'Generator':
        """A copy of this generator with other networks, such as random ones of another size.

        Args:
            networks: the modules.
            params: as `params` gives them; 'student' and 'teacher' only where they are used.
        """
        other = copy.copy(self)
        other._set_networks(networks, params, self.programs.mesh)
        return other

    def with_student(self, params: PyTree) -> 'Generator':
        """A copy with other parameters of the student; nothing is compiled anew for it."""
        other = copy.copy(self)
        other._int8 = None
        params = quantise_products(params) if self.precision == 'int8' else params
        other.programs = self.programs.with_params({'student': params})
        return other

    def in_precision(self, precision: str | None) -> 'Generator':
        """This generator, or the one with its products in int8, which is made once.

        Args:
            precision: one of `quantisation.PRECISIONS`; None: as it is.

        Raises:
            ValueError: no such precision, or float32 of what is int8.
        """
        _check_precision(self.precision if precision is None else precision)
        if precision in (None, self.precision):
            return self
        if precision != 'int8':
            raise ValueError('int8 weights cannot become float32 again: load the release anew')
        if self._int8 is None:
            self._int8 = self.with_networks(self.networks, quantise_products(self.params))
        return self._int8

    def _set_networks(self, networks: Networks, params: PyTree, mesh: Mesh) -> None:
        self.networks, self._int8 = networks, None
        is_int8 = any(leaf.dtype == np.int8 for leaf in jax.tree.leaves(params))
        self.precision = 'int8' if is_int8 else 'float32'
        params = jax.device_put(params, param_sharding(mesh, params))
        self.programs = ProgramCache(
            networks, params, mesh, lambda line: self.log(line), self._tapes(networks)
        )

    def _tapes(self, networks: Networks) -> dict[int, dict[str, np.ndarray]] | None:
        sizes = networks.autoencoder.directions, networks.autoencoder.channels
        if self.mark is None:
            return None
        return {n: watermark.tape(self.mark, *sizes, n) for n in (1, watermark.HALVES)}

    def with_watermark(self, mark: Watermark | None) -> 'Generator':
        """A copy that marks with another key or payload; nothing is compiled anew for it.

        Args:
            mark: None for no mark: textures are one fixed take of noise, by programs of their own.
        """
        other = copy.copy(self)
        other.mark, other._int8 = _checked_mark(mark), None
        other.programs = self.programs.with_tapes(other._tapes(self.networks))
        return other

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
        """Step counts that the student was trained for."""
        return self.config.student.steps

    def default_guidance_scale(self, model: str) -> float:
        """Guidance scale of 'student' or 'teacher' where none is given."""
        return self.config.default_guidance_scale(model)

    def generate(
        self,
        prompt: str | Sequence[str],
        events: Any = None,
        seconds: float | int = 10.0,
        steps: int | float = 4,
        seed: int | float | Sequence[int | float] = 0,
        *,
        num_variations: int | float = 1,
        negative_prompt: str | None = None,
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
        loop: bool = False,
    ) -> Sound | list[Sound]:
        """Makes sound from text and a timeline: up to 10 s in one program, more in windows.

        Args:
            prompt: what is heard, in English; '' for no text. A list makes a batch.
            events: the timeline in any form that `Timeline.parse` takes; for a batch of prompts,
                one for all, or a list with one for each.
            seconds: duration, 0.5 to 86,400; of more than 10 see `stream`, without init audio.
            steps: denoiser steps; one of the student's counts, or any for the teacher.
            seed: of the noise; for several sounds, a list, or the first of consecutive seeds. One
                seed gives the same sound at any batch size, within one step of 16 bits.
            num_variations: sounds for each prompt, one after another, each with its own seed.
            negative_prompt: what is not heard: guidance leads away from it rather than from no
                text. The teacher alone takes one; a student has learnt its guidance, away from no
                text, and evaluates its network once a step.
            guidance_scale: None: the release's own, see `default_guidance_scale`.
            model: 'student' or 'teacher'.
            sampler: 'ddim', 'dpm_solver_pp_2m' (teacher) or 'ping_pong' (student).
            sample_rate: Hz of the result, 48000 or 44100.
            init_audio: [S, 2] at `sample_rate`, floats in [-1, 1] or integers, to vary (`strength`)
                or to keep parts of (`keep`). Scaled to a peak of 1, padded or cut where needed.
            strength: noise level to start from, (0, 1]; small values stay close to init audio.
            keep: (start, end) in seconds of the regions of init audio that stay.
            loudness_db: requested level in dBFS, one value per latent frame (25 a second).
            loudness: integrated loudness of the result, LUFS (ITU-R BS.1770), reached by one gain
                for the whole sound before the limiter; a silent sound is generated again with a
                seed derived from its own. None leaves the level as generated, silence included.
                'auto' is -23, and None where init audio or `loudness_db` set a level.
            curves: requested 'brightness' or 'pitch' in Hz, one value per latent frame, None where
                it is free; those that the release follows.
            loop: its end goes over into its beginning; of 10 s or more, in steps of 0.2 s.

        Returns:
            A `Sound`; a list of them where `prompt` is a list or there are several variations.

        Raises:
            ValueError: an argument out of range, named with its remedy; or the sound stays silent.
            UserWarning: words that cannot be read, a text that is cut, init audio that is scaled,
                cut or too short, a silent sound that is generated again or left so.
            FloatingPointError: the program's result is not finite.
            RuntimeError: this process is a fork of the one that loaded the release.
        """
        prepared = self._prepare(
            prompt,
            events,
            seconds,
            steps,
            seed,
            num_variations=num_variations,
            negative_prompt=negative_prompt,
            guidance_scale=guidance_scale,
            model=model,
            sampler=sampler,
            sample_rate=sample_rate,
            init_audio=init_audio,
            strength=strength,
            keep=keep,
            loudness_db=loudness_db,
            loudness=loudness,
            curves=curves,
            loop=loop,
        )
        return self.run(prepared)

    def stream(
        self,
        prompt: str,
        events: Any = None,
        seconds: float | int | None = None,
        steps: int | float = 4,
        seed: int | float = 0,
        *,
        guidance_scale: float | None = None,
        model: str = 'student',
        sample_rate: int | float = SAMPLE_RATE,
        loudness_db: np.ndarray | None = None,
        loudness: float | None | Literal['auto'] = 'auto',
        curves: Mapping[str, Sequence[float | None]] | None = None,
        schedule: Schedule | None = None,
    ) -> Stream:
        """Sound of any length in chunks, from a timeline that may be edited while it plays.

        The chunks of a sound of `seconds` side by side are what `generate` makes, of more than
        10 s. The level follows the loudness so far, see `longform`.

        Args:
            prompt: what is heard, in English; one text.
            events: the timeline; 10 s hold 16 events.
            seconds: duration, 0.5 to 86,400; None has no end, and takes events of a day. Its curves
                may be shorter: loudness then holds its last value, others are free.
            steps, seed, guidance_scale, model, sample_rate, loudness_db, loudness, curves: see
                `generate`.
            schedule: of windows and hops; None: a hop of 1 s.

        Returns:
            An iterator over chunks, `stream.Stream`; `edit` puts another timeline in place.

        Raises:
            ValueError: an argument out of range, named with its remedy.
            UserWarning: words that cannot be read, a text that is cut.
        """
        stream, notes = self.open_stream(
            prompt=prompt,
            events=events,
            seconds=seconds,
            steps=steps,
            seed=seed,
            guidance_scale=guidance_scale,
            model=model,
            sample_rate=sample_rate,
            loudness_db=loudness_db,
            loudness=loudness,
            curves=curves,
            schedule=schedule or Schedule(),
        )
        for line in notes:
            _warn(line)
        return stream

    def open_stream(self, seconds: float | int | None = None, **given: Any) -> tuple[Stream, list]:
        """A stream, and what `stream` would warn of, as lines.

        Args:
            seconds, given: arguments of `stream`.

        Raises:
            ValueError: see `stream`.
        """
        longest = MAX_CLIP_SECONDS if seconds is None else seconds
        call = LongCall(seconds=longest, is_endless=seconds is None, **given)
        if not call.is_single:
            raise ValueError('a stream is of one prompt; open one for each')
        notes = self._prepare_long(call).notes
        return Stream(self._maker(call), call.timelines[0], seconds), notes

    def prepare(
        self,
        prompt: str | Sequence[str] = '',
        events: Any = None,
        seconds: float | int = 10.0,
        steps: int | float = 4,
        seed: int | float | Sequence[int | float] = 0,
        **settings: Any,
    ) -> Prepared | PreparedLong:
        """Checks the arguments of `generate` and compiles the program that it runs for them.

        Another program is compiled for another padded capacity of texts and events, duration,
        count of steps, batch or sampler; not for other seeds, gains, times or words. Those of a
        sound that is made in windows are compiled when it is run.

        Args:
            prompt, events, seconds, steps, seed, settings: as for `generate`.

        Returns:
            What `run` takes; nothing is generated.

        Raises:
            ValueError: an argument out of range, named with its remedy.
            TypeError: an argument that `generate` does not have.
        """
        known = inspect.signature(self.generate).parameters
        for name in settings.keys() - known.keys():
            raise TypeError(f'generate has no argument {name!r}; it has {", ".join(known)}')
        prepared = self._prepare(prompt, events, seconds, steps, seed, **settings)
        if isinstance(prepared, Prepared):
            self.programs.get(prepared.bucket)
        return prepared

    def run(self, prepared: Prepared | PreparedLong) -> Sound | list[Sound]:
        """Runs a prepared call: `run(prepare(...))` is `generate(...)`."""
        for line in prepared.notes:
            _warn(line)
        is_long = isinstance(prepared, PreparedLong)
        sounds = self._run_long(prepared) if is_long else self._run_with_retries(prepared)
        return sounds[0] if prepared.call.is_single else sounds

    def _prepare(self, *args: Any, **settings: Any) -> Prepared | PreparedLong:
        call = check_call(*args, **settings)
        if isinstance(call, LongCall):
            return self._prepare_long(call)
        return requests.prepare(call, self.config, self.tokenizer, self.networks.denoiser.curves)

    def _prepare_long(self, call: LongCall) -> PreparedLong:
        return prepare_long(call, self.config, self.tokenizer, self.networks.denoiser.curves)

    def _maker(self, call: LongCall, which: int = 0) -> Maker:
        return Maker(self.programs, self.tokenizer, self.config, call, which)

    def _run_long(self, prepared: PreparedLong) -> list[Sound]:
        """Sounds that are made in windows, one after another."""
        call, sounds = prepared.call, []
        make = make_loop if call.loop else make_sound
        for i, timeline in enumerate(call.timelines):
            maker = self._maker(call, i)
            made = make(maker, timeline, call.seconds)
            if made.lufs < SILENT_LUFS:
                _warn(f'{maker.prompt!r} is silent ({made.lufs:.0f} LUFS); try another seed')
            sounds.append(
                Sound(
                    pcm=made.pcm,
                    sample_rate=maker.sample_rate,
                    peak=float(np.abs(from_pcm16(made.pcm)).max(initial=0.0)),
                    lufs=made.lufs,
                    silent=made.lufs < SILENT_LUFS,
                    seed=maker.seed,
                    latents=made.latents,
                    watermark=str(self.mark) if self.mark else '',
                )
            )
        return sounds

    def request(
        self,
        prompts: Sequence[str],
        timelines: Timeline | Sequence[Timeline],
        seconds: float,
        seeds: Sequence[int],
        guidance_scale: float,
        length: int,
        capacity: Capacity | None = CAPACITIES[-1],
    ) -> Request:
        """The request of a program whose sounds keep their generated level, as metrics need it.

        Args:
            prompts: of each sound.
            timelines: one for all, or one for each prompt.
            seconds, seeds, guidance_scale, length: see `requests.build_request`.
            capacity: of the program; None: the smallest that holds the texts.
        """
        if isinstance(timelines, Timeline):
            timelines = [timelines] * len(prompts)
        texts = requests.tokenise(self.tokenizer, prompts, timelines)
        return requests.build_request(
            texts,
            timelines,
            seconds,
            seeds,
            guidance_scale,
            length,
            capacity or texts.capacity,
            self.config.onset_lead_s,
            self.networks.denoiser.curves,
        )

    def _run_with_retries(self, prepared: Prepared) -> list[Sound]:
        """Runs the program, and again for silent sounds that have a loudness to reach."""
        call = prepared.call
        sounds = self._run(prepared, call.seeds)
        levelled = ~np.isnan(call.target_lufs)
        for attempt in range(1, RETRIES + 1):
            silent = [i for i in range(len(sounds)) if sounds[i].silent and levelled[i]]
            if not silent:
                break
            seeds = list(call.seeds)
            for i in silent:
                seeds[i] = derived_seed(call.seeds[i], attempt)
                _warn(
                    f'{call.name(i)} came out silent with seed {sounds[i].seed}; '
                    f'made again with seed {seeds[i]}'
                )
            again = self._run(prepared, seeds)
            sounds = [again[i] if i in silent else sounds[i] for i in range(len(sounds))]
        for i, sound in enumerate(sounds):
            if sound.silent and levelled[i]:
                raise ValueError(
                    f'{call.name(i)} stays silent with {RETRIES + 1} seeds; say it in other words, '
                    'or pass loudness=None to have it as it is'
                )
            if sound.silent:
                if call.loudness is None:
                    remedy = 'with loudness on, silence is made again'
                elif call.init_audio is not None:
                    remedy = 'give louder init audio or more strength, or ask for a loudness'
                else:
                    remedy = 'raise its loudness curve, or ask for a loudness'
                _warn(f'{call.name(i)} is silent ({sound.lufs:.0f} LUFS); {remedy}')
        return sounds

    def _run(self, prepared: Prepared, seeds: Sequence[int]) -> list[Sound]:
        """One run of the program; a sound for each seed."""
        call, bucket = prepared.call, prepared.bucket
        result = self.programs(bucket, prepared.with_seeds(seeds), prepared.init)
        pcm, diagnostics, latents = jax.device_get(result)
        for i in range(len(seeds)):
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
                watermark=str(self.mark) if self.mark else '',
            )
            for i in range(len(seeds))
        ]


def load(
    name: str | os.PathLike = 'foley',
    model_parallel: int = 1,
    log: Callable[[str], None] | None = None,
    compilation_cache: bool = True,
    mark: Watermark | None = _PUBLIC,
    precision: str = 'float32',
) -> Generator:
    """Loads a release, shipped or from a folder.

    Args:
        name: 'foley', a folder, or a name that `weights.fetch` takes.
        model_parallel: devices among which one copy of the parameters is split.
        log: see `Generator`.
        compilation_cache: keep compiled programs on disk, so that a second process starts without
            compiling. It is JAX's own cache, for all that this process compiles, in the folder of
            `cache.cache_dir`; one that is already set stays. False changes no setting.
        mark: the watermark of its sounds, by default the public one; None for none.
        precision: 'float32', or 'int8' for products of 8-bit integers, see docs/precision.md.

    Raises:
        FileNotFoundError: no such release. ValueError: a damaged one, no such precision, or a mark
            that is no `Watermark`.
    """
    _check_precision(precision)
    if compilation_cache:
        enable_compilation_cache()
    return Generator(find_release(name), model_parallel, log, mark, precision)


def _checked_mark(mark: Any) -> Watermark | None:
    if mark is not None and not isinstance(mark, Watermark):
        raise ValueError(f'the mark is {shown(mark)}; give a watermark.Watermark, or None')
    return mark


def _check_precision(precision: Any) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f'no precision {precision!r}; choose {" or ".join(PRECISIONS)}')


def derived_seed(seed: int, attempt: int) -> int:
    """Seed of another attempt: a function of the requested seed and the number of the attempt."""
    return int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0] >> 1)


def _warn(line: str) -> None:
    """A warning at the line that called this module."""
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_code.co_filename == __file__:
        frame, level = frame.f_back, level + 1
    warnings.warn(line, stacklevel=level)


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
