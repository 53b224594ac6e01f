"""Sampler settings of an evaluation: model, steps, sampler, guidance."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from realaudio_jax.generator import Generator
from realaudio_jax.models.denoiser import latent_frames
from realaudio_jax.program import CAPACITIES, Bucket, Capacity
from realaudio_jax.typing import SAMPLE_RATE


@dataclasses.dataclass(frozen=True)
class Setting:
    """Sampler settings of a set of sounds.

    Attributes:
        model: 'student' or 'teacher'.
        steps: of the sampler.
        sampler: see `program.Bucket`.
        guidance: scale; None is the release's own.
    """

    model: str = 'student'
    steps: int = 4
    sampler: str = 'ddim'
    guidance: float | None = None

    @property
    def label(self) -> str:
        """For people: 'student, 4 steps'."""
        return f'{self.model}, {self.steps} step{"s" if self.steps > 1 else ""}'

    @property
    def nfe(self) -> int:
        """Evaluations of the denoiser for one sound: the teacher's guidance needs two a step."""
        return self.steps * (1 if self.model == 'student' else 2)

    def columns(self, generator: Generator) -> dict:
        """The columns that name this setting in a table."""
        guidance = (
            generator.default_guidance_scale(self.model) if self.guidance is None else self.guidance
        )
        return {
            'model': self.model,
            'steps': self.steps,
            'nfe': self.nfe,
            'sampler': self.sampler,
            'guidance': guidance,
        }


REFERENCE = Setting('teacher', 50)


def equal_evaluations(students: Sequence[Setting]) -> list[tuple[Setting, Setting]]:
    """Each student with the guided teacher of as many evaluations: half as many steps.

    Left out is a count of one step, and one of two, where the teacher has a single step.
    """
    return [
        (student, Setting('teacher', student.nfe // 2))
        for student in students
        if student.nfe >= 4 and student.nfe % 2 == 0
    ]


def bucket_of(
    setting: Setting, seconds: float, batch: int, capacity: Capacity = CAPACITIES[-1]
) -> Bucket:
    """The program that makes `batch` sounds of a duration, with so much room, in this way."""
    return Bucket(
        batch=batch,
        length=latent_frames(np.ceil(seconds)),
        steps=setting.steps,
        sample_rate=SAMPLE_RATE,
        student=setting.model == 'student',
        sampler=setting.sampler,
        capacity=capacity,
    )
