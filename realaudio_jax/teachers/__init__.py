"""Other people's models as Flax modules, with strict import of their published weights.

Each is a package of its own; those that can be distilled have a class that is `Distillable`.
"""

import importlib
import os
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from realaudio_jax.distillation.subject import Subject
from realaudio_jax.teachers.distilling import Student
from realaudio_jax.typing import Float

DISTILLABLE = ('stable_audio_open', 'audioldm2', 'stable_audio_3')


@runtime_checkable
class Distillable(Protocol):
    """What `experiments/distill` asks of a foreign model."""

    sample_rate: int  # Hz

    def require_seconds(self, seconds: float) -> None:
        """ValueError for a duration that the model does not make."""

    def encode_scenes(
        self, audio: Float[np.ndarray, 'B S 2'], captions: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Sound at `sample_rate` and its captions as the arrays that `subject` takes."""

    def fingerprint(self) -> str:
        """Changes with any weight that `encode_scenes` uses."""

    def subject(self, **absence: float) -> Subject:
        """The teacher and a student for a run; how often each condition is dropped."""

    def load_student(self, folder: str | os.PathLike) -> Student:
        """What a run left in `folder`; see `distilling.load_student`."""


def load_teacher(name: str, folder: str | os.PathLike) -> Distillable:
    """A foreign model from its published folder.

    Args:
      name: one of DISTILLABLE.
      folder: in the layout of its authors.

    Raises:
      ValueError: an unknown name, or the folder is not that model, in one line.
      FileNotFoundError: there is no such folder.
    """
    if name not in DISTILLABLE:
        raise ValueError(f'no teacher {name!r}; there are {", ".join(DISTILLABLE)}')
    module: Any = importlib.import_module(f'realaudio_jax.teachers.{name}.pipeline')
    return module.load(folder)
