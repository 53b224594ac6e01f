"""The setup of a distillation run: teacher, initial student, and how batches are prepared."""

import dataclasses
from collections.abc import Callable

import numpy as np

from realaudio_jax.distillation.recipe import Batch, Student, Teacher
from realaudio_jax.noise import NoisePath
from realaudio_jax.typing import Array, Key, PyTree


@dataclasses.dataclass(frozen=True)
class DistillationSetup:
    """Everything `experiments/distill` needs of the networks.

    Attributes:
        teacher, student: as `recipe` describes them.
        path: the noise path of both.
        teacher_params: frozen.
        student_params: what is trained of the initial student, whose predictions are those of the
            teacher: all its parameters, or an adapter.
        base: where that is an adapter, the student's other parameters, frozen; else None. The
            student's parameters are `low_rank.join(base, student_params)`.
        to_batch: converts stacked rows of encoded scenes to a recipe's batch.
        prepare: condition dropout and frame weights of each batch; pure, for use in a step.
        teachers: stacked parameters of several students, see `multi_teacher`; None without them.
    """

    teacher: Teacher
    student: Student
    path: NoisePath
    teacher_params: PyTree
    student_params: PyTree
    to_batch: Callable[[dict[str, np.ndarray]], Batch]
    prepare: Callable[[Batch, Key[Array, '']], Batch]
    base: PyTree = None
    teachers: PyTree | None = None
