"""What a distillation run is about: a teacher, the student that begins as it, and their batches."""

import dataclasses
from collections.abc import Callable

import numpy as np

from realaudio_jax.distillation.recipe import Batch, Student, Teacher
from realaudio_jax.noise import NoisePath
from realaudio_jax.typing import Array, Key, PyTree


@dataclasses.dataclass(frozen=True)
class Subject:
    """All that `experiments/distill` knows of the networks.

    Attributes:
      teacher, student: as `recipe` describes them.
      path: the noise path of both.
      teacher_params: frozen.
      student_params: where the student begins: it predicts what the teacher does.
      to_batch: stacked items of the data to a recipe's batch.
      prepare: of each batch: drops conditions at random, weighs frames; pure, for use in a step.
      experts: parameters of students to be imitated, see `imitation`; None: there are none.
    """

    teacher: Teacher
    student: Student
    path: NoisePath
    teacher_params: PyTree
    student_params: PyTree
    to_batch: Callable[[dict[str, np.ndarray]], Batch]
    prepare: Callable[[Batch, Key[Array, '']], Batch]
    experts: PyTree | None = None
