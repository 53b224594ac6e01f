"""Generates sounds of a release for prompts and scenes, by sampler configs that can be compared.

Sounds of several configs are made from the same noise, so that they differ by the config alone.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np

from realaudio_jax import audio as audio_lib
from realaudio_jax.data.scenes import Scene
from realaudio_jax.generator import Generator
from realaudio_jax.models.autoencoder import samples_per_latent
from realaudio_jax.models.denoiser import latent_frames
from realaudio_jax.program_io import CAPACITIES, Bucket, Capacity
from realaudio_jax.release_config import ReleaseConfig
from realaudio_jax.requests import check_sampling
from realaudio_jax.timeline import Timeline
from realaudio_jax.typing import MAX_SECONDS, SAMPLE_RATE, Float, Int16

BATCH = 8  # sounds per call


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """How a set of sounds is sampled.

    Attributes:
        model: 'student' or 'teacher'.
        steps: of the sampler.
        method: 'ddim' or another `sampler` of `program_io.Bucket`.
        guidance: scale; None is the release's own.
        precision: of the products, see `Generator.in_precision`; None is the generator's own.
    """

    model: str = 'student'
    steps: int = 4
    method: str = 'ddim'
    guidance: float | None = None
    precision: str | None = None

    @property
    def label(self) -> str:
        """For people: 'student, 4 steps'."""
        precision = f', {self.precision}' if self.precision else ''
        return f'{self.model}, {self.steps} step{"s" if self.steps > 1 else ""}{precision}'

    @property
    def nfe(self) -> int:
        """Evaluations of the denoiser for one sound: the teacher's guidance needs two a step."""
        return self.steps * (1 if self.model == 'student' else 2)

    def check(self, config: ReleaseConfig) -> None:
        """Refuses what the models of a release are not sampled with.

        Raises:
            ValueError: steps, a method or a guidance scale that the model does not have.
        """
        check_sampling(config, self.model, self.steps, self.guidance)
        bucket_of(self, MAX_SECONDS, 1)  # which has the methods

    def columns(self, generator: Generator) -> dict:
        """The columns of a table that name this config."""
        guidance = (
            generator.default_guidance_scale(self.model) if self.guidance is None else self.guidance
        )
        return {
            'model': self.model,
            'steps': self.steps,
            'nfe': self.nfe,
            'sampler': self.method,
            'guidance': guidance,
        } | ({'precision': self.precision} if self.precision else {})


REFERENCE = SamplerConfig('teacher', 50)


def equal_evaluations(
    students: Sequence[SamplerConfig],
) -> list[tuple[SamplerConfig, SamplerConfig]]:
    """Each student with the guided teacher of as many evaluations: half as many steps.

    Left out is a count of one step, and one of two, where the teacher has a single step.
    """
    return [
        (student, SamplerConfig('teacher', student.nfe // 2))
        for student in students
        if student.nfe >= 4 and student.nfe % 2 == 0
    ]


@dataclasses.dataclass(frozen=True)
class SamplerSet:
    """The sampler configs that an evaluation compares.

    Attributes:
        students, teachers: in the order of its table.
    """

    students: tuple[SamplerConfig, ...]
    teachers: tuple[SamplerConfig, ...]

    @classmethod
    def of_steps(
        cls, students: Sequence[int], teachers: Sequence[int], methods: Sequence[str] = ('ddim',)
    ) -> 'SamplerSet':
        """The student and the teacher at counts of steps, the teacher by these methods."""
        both = itertools.product(methods, teachers)
        return cls(
            tuple(SamplerConfig('student', steps) for steps in students),
            tuple(SamplerConfig('teacher', steps, method) for method, steps in both),
        )

    @classmethod
    def with_equal_teachers(
        cls, steps: Sequence[int], further: Sequence[SamplerConfig]
    ) -> 'SamplerSet':
        """The student at counts of steps, teachers of as many evaluations, and further teachers."""
        students = cls.of_steps(steps, []).students
        equal = [teacher for _, teacher in equal_evaluations(students)]
        return cls(students, tuple(dict.fromkeys([*equal, *further])))

    @property
    def samplers(self) -> list[SamplerConfig]:
        """All of them, students first."""
        return [*self.students, *self.teachers]

    @property
    def equal_pairs(self) -> list[tuple[SamplerConfig, SamplerConfig]]:
        """Student and teacher of as many evaluations, where both are there."""
        return [pair for pair in equal_evaluations(self.students) if pair[1] in self.teachers]


def bucket_of(
    sampler: SamplerConfig, seconds: float, batch: int, capacity: Capacity = CAPACITIES[-1]
) -> Bucket:
    """The program that makes `batch` sounds of a duration, with so much room, in this way."""
    return Bucket(
        batch=batch,
        length=latent_frames(np.ceil(seconds)),
        steps=sampler.steps,
        sample_rate=SAMPLE_RATE,
        student=sampler.model == 'student',
        sampler=sampler.method,
        capacity=capacity,
    )


@dataclasses.dataclass(frozen=True)
class GeneratedBatch:
    """Sounds generated by one config: int16 [S 2] each, with their latents [N L C]."""

    sounds: list[Int16[np.ndarray, 'S 2']]
    latents: Float[np.ndarray, 'N L C']

    def floats(self) -> Iterable[np.ndarray]:
        """The sounds as float32 in [-1, 1], one at a time."""
        return map(audio_lib.from_pcm16, self.sounds)


def generate_scenes(
    generator: Generator,
    scenes: Sequence[Scene],
    sampler: SamplerConfig,
    seed: int = 0,
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
    loudness_db: Sequence[np.ndarray] | None = None,
) -> GeneratedBatch:
    """Generates a sound for the caption and timeline of each scene; see `generate_prompts`.

    Args:
        scenes: all of one duration.
        loudness_db: a curve for each scene, see `Timeline`; None asks for none.

    Raises:
        ValueError: scenes of several durations, or none.
    """
    seconds = one_duration(scenes)
    curves = loudness_db or [None] * len(scenes)
    timelines = [Timeline(s.events, curve) for s, curve in zip(scenes, curves, strict=True)]
    captions = [scene.caption for scene in scenes]
    return generate_prompts(generator, captions, timelines, seconds, sampler, seed, batch, progress)


def generate_prompts(
    generator: Generator,
    prompts: Sequence[str],
    timelines: Sequence[Timeline],
    seconds: float,
    sampler: SamplerConfig,
    seed: int = 0,
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
) -> GeneratedBatch:
    """Generates a sound for each prompt and timeline; sound i has seed `seed + i`.

    Args:
        generator: the release.
        prompts, timelines: what is asked for; one timeline for each prompt.
        seconds: of each sound.
        sampler: how they are sampled.
        seed: of the first sound's noise.
        batch: sounds per call, of fewer prompts as many; the last call is filled up with the last
            prompt.
        progress: called with the number of sounds made.

    Raises:
        ValueError: see `SamplerConfig.check`.
        FloatingPointError: a sound is not finite.
    """
    sampler.check(generator.config)
    batch = min(batch, len(prompts))
    bucket = bucket_of(sampler, seconds, batch)
    programs = generator.in_precision(sampler.precision).programs
    guidance = sampler.columns(generator)['guidance']
    samples = round(seconds * SAMPLE_RATE)
    sounds, latents = [], []
    for first in range(0, len(prompts), batch):
        rows = [min(first + i, len(prompts) - 1) for i in range(batch)]
        request = generator.request(
            [prompts[i] for i in rows],
            [timelines[i] for i in rows],
            seconds,
            [seed + i for i in rows],
            guidance,
            bucket.length,
        )
        pcm, diagnostics, z = jax.device_get(programs(bucket, request))
        count = min(batch, len(prompts) - first)
        for i in range(count):
            if not diagnostics.finite[i]:
                raise FloatingPointError(
                    f'{sampler.model} at {sampler.steps} steps: the sound for '
                    f'{prompts[first + i]!r} is not finite; lower the guidance scale'
                )
        sounds.extend(pcm[i, :samples].copy() for i in range(count))
        latents.append(z[:count, : latent_frames(seconds)])
        if progress:
            progress(len(sounds))
    return GeneratedBatch(sounds, np.concatenate(latents))


def reconstruct(
    generator: Generator, scenes: Sequence[Scene], batch: int = BATCH
) -> GeneratedBatch:
    """Reconstructs scenes by the release's autoencoder, limited as in the program."""
    seconds, batch = one_duration(scenes), min(batch, len(scenes))
    length, samples = latent_frames(np.ceil(seconds)), round(seconds * SAMPLE_RATE)
    model, params = generator.networks.autoencoder, generator.params['autoencoder']

    @jax.jit
    def through(params, audio):
        z = model.apply(params, audio, SAMPLE_RATE, method='encode')
        sound = model.apply(params, z, SAMPLE_RATE, method='decode')
        return audio_lib.to_pcm16(audio_lib.limit(sound, SAMPLE_RATE)), z

    sounds, latents = [], []
    for first in range(0, len(scenes), batch):
        part = scenes[first : first + batch]
        audio = np.zeros((batch, length * samples_per_latent(SAMPLE_RATE), 2), np.float32)
        for row, scene in zip(audio, part, strict=False):
            row[:samples] = scene.audio
        pcm, z = jax.device_get(through(params, audio))
        sounds.extend(pcm[i, :samples].copy() for i in range(len(part)))
        latents.append(z[: len(part), : latent_frames(seconds)])
    return GeneratedBatch(sounds, np.concatenate(latents))


def one_duration(scenes: Sequence[Scene]) -> float:
    """The duration that all scenes have, s.

    Raises:
        ValueError: there is none, or there are several.
    """
    found = sorted({scene.seconds for scene in scenes})
    if len(found) != 1:
        raise ValueError(f'scenes last {found} seconds; give scenes of one duration')
    return found[0]
