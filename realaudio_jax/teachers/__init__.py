"""Published text-to-audio models as Flax modules, with strict import of their weights.

Each is a package of its own; those that can be distilled have a class that is `Distillable`.
"""

import importlib
import os
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from realaudio_jax.distillation.setup import DistillationSetup
from realaudio_jax.teachers.distilling import Student
from realaudio_jax.typing import Float
from realaudio_jax.weights import find_pretrained

DISTILLABLE = ('stable_audio_open', 'audioldm2', 'stable_audio_3')


@runtime_checkable
class Distillable(Protocol):
    """Interface of a published model that `experiments/distill` can distil."""

    sample_rate: int  # Hz

    def require_seconds(self, seconds: float) -> None:
        """Raises a ValueError for a duration that the model cannot generate."""

    def encode_scenes(
        self, audio: Float[np.ndarray, 'B S 2'], captions: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Sound at `sample_rate` and its captions as the arrays that `subject` takes."""

    def fingerprint(self) -> str:
        """Hash of the weights that `encode_scenes` uses."""

    def subject(self, **absence: float) -> DistillationSetup:
        """The teacher and its initial student; `absence` sets the condition dropout."""

    def load_student(self, folder: str | os.PathLike) -> Student:
        """Loads a distilled student from a run's folder; see `distilling.load_student`."""


def load_teacher(name: str, folder: str | os.PathLike) -> Distillable:
    """Loads a published model from its folder.

    Args:
      name: one of DISTILLABLE.
      folder: in the layout of its authors, or a name that `weights.find_pretrained` takes.

    Raises:
      ValueError: an unknown name, or the folder is not that model, in one line.
      FileNotFoundError: there is no such folder.
    """
    if name not in DISTILLABLE:
        raise ValueError(f'no teacher {name!r}; there are {", ".join(DISTILLABLE)}')
    module: Any = importlib.import_module(f'realaudio_jax.teachers.{name}.pipeline')
    return module.load(find_pretrained(folder))
