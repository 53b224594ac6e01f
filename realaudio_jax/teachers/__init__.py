"""Teachers by name: the release's own network, and published text-to-audio models.

    teacher = load_teacher('stable_audio_open', 'models/stable-audio-open-1.0')

Each is a `Teacher`, so that `experiments/distill` distils all of them in one way. The published
models are packages of their own, Flax modules with strict import of their authors' weights; their
classes can be imported from here, and each is loaded when it is asked for.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from realaudio_jax import by_name
from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.noise import Denoise, NoisePath
from realaudio_jax.typing import Array, Float, Key, PyTree
from realaudio_jax.weights import find_pretrained

RELEASE = 'release'  # the teacher of a release of this project
PRETRAINED = ('stable_audio_open', 'audioldm2', 'stable_audio_3')
TEACHERS = {RELEASE: 'realaudio_jax.teachers.release:load'} | {
    name: f'realaudio_jax.teachers.{name}.pipeline:load' for name in PRETRAINED
}
_CLASSES = {
    'AudioLDM2': 'realaudio_jax.teachers.audioldm2.pipeline:AudioLDM2',
    'ReleaseTeacher': 'realaudio_jax.teachers.release:ReleaseTeacher',
    'StableAudio3': 'realaudio_jax.teachers.stable_audio_3.pipeline:StableAudio3',
    'StableAudioOpen': 'realaudio_jax.teachers.stable_audio_open.pipeline:StableAudioOpen',
}
__all__ = ['PRETRAINED', 'TEACHERS', 'ConditionDropout', 'Teacher', 'load_teacher', *_CLASSES]
__getattr__, __dir__ = by_name.lazy_attributes(__name__, _CLASSES)


@dataclasses.dataclass(frozen=True)
class ConditionDropout:
    """How often a training item lacks a condition, or is given a part of its latents.

    A teacher makes use of what it has: a pretrained one of `text` alone.

    Attributes:
        text, timeline: probability that it is dropped, independently.
        loudness: probability that the loudness curve is kept.
        init: probability that a random region of latents is given.
        curves: probability that each curve besides loudness is kept, independently of all else;
            where there are some, these and the loudness curve go through random median filters.
    """

    text: float = 0.1
    timeline: float = 0.15
    loudness: float = 0.15
    init: float = 0.15
    curves: float = 0.3


@runtime_checkable
class Teacher(Protocol):
    """Interface of a model that `experiments/distill` can distil.

    Attributes:
        sample_rate: of its sound, Hz.
        path: its noise path.
        network: settings of its networks, number formats included; with the digest of the weights
            it names the teacher in the keys of caches.
        teacher_params: parameters of the networks that predict, frozen.
    """

    sample_rate: int
    path: NoisePath
    network: str
    teacher_params: PyTree

    def require_seconds(self, seconds: float) -> None:
        """Raises a ValueError for a duration that the model cannot generate."""

    def encode(self, scenes: Iterable[Any], seconds: float) -> Iterator[dict[str, np.ndarray]]:
        """Rows of `data.scenes.Scene` of at most `seconds`, some scenes at a time."""

    def fingerprint(self) -> str:
        """Hash of all that decides what `encode` gives."""

    def batches(
        self, scenes: Any, batch_size: int, seed: int, crop_seconds: float | None
    ) -> Iterator[dict[str, Array]]:
        """Endless batches of encoded scenes, or of crops of at least `crop_seconds`.

        They have `get_state` and `set_state`, for an exact resume.
        """

    def to_batch(self, arrays: dict[str, Array]) -> Batch:
        """A recipe's batch from stacked rows, every condition present and nothing given."""

    def prepare(
        self,
        batch: Batch,
        key: Key[Array, ''],
        dropout: ConditionDropout,
        onset_weight: float = 1.0,
    ) -> Batch:
        """Condition dropout, and weights of the frames around onsets; pure, for use in a step.

        Where a teacher made the latents, conditions were dropped then, and are as they were.
        """

    def drop_rows(
        self, arrays: Mapping[str, np.ndarray], dropout: ConditionDropout, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Condition dropout of stored rows: the arrays that replace some of them, or are added."""

    def guided(
        self, params: PyTree, conditioning: Any, guidance_scale: Float[Array, 'B']
    ) -> Denoise:
        """The teacher with classifier-free guidance, as a recipe takes it."""

    def student(
        self,
        params: PyTree,
        conditioning: Any,
        guidance_scale: Float[Array, 'B'],
        step_size: Float[Array, 'B'],
    ) -> Denoise:
        """The student's networks, as a recipe takes them."""

    def initial_student(self, source: str | None = None) -> tuple[PyTree, PyTree | None]:
        """Parameters that a student begins with, and an adapter of theirs or None.

        Args:
            source: an earlier student; None: one with the predictions of the teacher.
        """

    def student_folder(self, source: str) -> pathlib.Path:
        """Folder of an earlier student."""

    def save_student(
        self,
        workdir: pathlib.Path,
        params: PyTree,
        steps: tuple[int, ...],
        guidance_range: tuple[float, float],
    ) -> pathlib.Path:
        """Writes a finished student under a run's folder; returns where."""


def load_teacher(name: str, folder: str | os.PathLike, dtype: str | None = None) -> Teacher:
    """Loads a teacher.

    Args:
        name: of TEACHERS, or the dotted path of a function of (folder, dtype).
        folder: of a release, or its name; of a published model in the layout of its authors, or a
            name that `weights.find_pretrained` takes.
        dtype: of a release's arithmetic, or of a published model's parameters and arithmetic; None
            is that of the weights' config, or float32.

    Raises:
        ValueError: an unknown name, or the folder is not that model, in one line.
        FileNotFoundError: there is no such folder.
    """
    load = by_name.find(name, TEACHERS, 'teacher')
    found = folder if name == RELEASE else find_pretrained(folder)
    return load(found) if dtype is None else load(found, dtype)
