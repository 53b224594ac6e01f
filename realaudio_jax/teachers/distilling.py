"""Shared code for distilling published models: initial student, loading, sampling.

A student is its teacher's networks with `models.denoiser.student_embedding` in them: it is told
guidance scale and step size besides, at first to no effect.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import integrity
from realaudio_jax.distillation import recipe
from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.distillation.setup import DistillationSetup
from realaudio_jax.noise import Denoise, NoisePath, time_grid
from realaudio_jax.release import STUDENT_NAME, load_params
from realaudio_jax.release_config import PretrainedStudentConfig
from realaudio_jax.samplers import ddim
from realaudio_jax.typing import Array, Bool, Float, Key, PyTree

CAPTION_TOKENS = 128  # the most of a caption, where a model takes longer texts


@dataclasses.dataclass(frozen=True)
class Student:
    """Distilled parameters of the predicting networks, and what they were trained for."""

    params: PyTree
    steps: tuple[int, ...]
    guidance_range: tuple[float, float]

    def require(self, steps: int, guidance: float, negative: str | None = None) -> None:
        """Raises a ValueError for steps, guidance or a negative prompt outside its training."""
        low, high = self.guidance_range
        if steps not in self.steps or not low <= guidance <= high:
            raise ValueError(
                f'{steps} steps with guidance {guidance:g}: the student was trained for '
                f'{", ".join(map(str, self.steps))} steps and guidance {low:g} to {high:g}'
            )
        if negative is not None:
            raise ValueError(
                'a student has its guidance inside and takes no negative prompt; leave it out'
            )


def load_student(folder: str | os.PathLike, teacher: str, shapes: PyTree) -> Student:
    """Loads the student that `experiments/distill` wrote into `folder`.

    Args:
      folder: with the weights and a config.
      teacher: the name, in `teachers.DISTILLABLE`, of the model that it must be a student of.
      shapes: of the student's parameters.

    Raises:
      FileNotFoundError, ValueError: not such a folder; see `release.load_params`.
    """
    try:
        integrity.verify(folder, remedy='copy it again from the run that left it')
        config = PretrainedStudentConfig.read(folder)
    except ValueError as error:
        raise ValueError(
            f'{folder} describes no student that can be read ({error}); give the folder that a '
            'run left'
        ) from error
    if config.teacher != teacher:
        raise ValueError(
            f'{folder} holds a student of {config.teacher}, not of {teacher}; '
            'give the folder that a run of that teacher left'
        )
    params = load_params(pathlib.Path(folder) / STUDENT_NAME, shapes)
    return Student(params, config.student.steps, config.student.guidance_range)


def student_networks(networks: Any, name: str) -> Any:
    """Adds guidance and step-size embeddings to one of the teacher's networks.

    Args:
      networks: a dataclass of modules.
      name: of the one that has `distilled`.
    """
    return dataclasses.replace(networks, **{name: getattr(networks, name).clone(distilled=True)})


def guided_teacher(guided: Callable[..., Denoise], networks: Any) -> recipe.Teacher:
    """A recipe's teacher with classifier-free guidance against the empty condition.

    Args:
      guided: (networks, params, conditioning, away, guidance_scale) -> denoise; None is away from
        `conditioning.unconditional()`.
      networks: of the teacher.
    """

    def teacher(params, conditioning, guidance_scale):
        return guided(networks, params, conditioning, None, guidance_scale)

    return teacher


def student_params(params: PyTree, shapes: PyTree) -> PyTree:
    """Initial student parameters: same predictions as the teacher for any guidance and step size.

    Args:
      params: a tree of dicts.
      shapes: of the student: the same tree, with what the teacher lacks, which becomes zero.
    """
    if not isinstance(shapes, Mapping):
        return params
    return {
        name: student_params(params[name], below)
        if name in params
        else jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), below)
        for name, below in shapes.items()
    }


def sample_student(
    student: recipe.Student,
    path: NoisePath,
    params: PyTree,
    conditioning: PyTree,
    x: Float[Array, 'B L C'],
    steps: int,
    guidance_scale: float | Float[Array, ''],
) -> Float[Array, 'B L C']:
    """Samples latents by DDIM in even steps, one evaluation each; pure.

    Args:
      student: as a recipe takes it.
      path: the noise path.
      params: of the student.
      conditioning: what to make.
      x: standard normal noise.
      steps: one of the counts that the student was trained for.
      guidance_scale: within the range that it was trained for.
    """
    scale = jnp.full(len(x), guidance_scale, jnp.float32)
    step_size = jnp.full(len(x), 1.0 / steps, jnp.float32)
    return ddim(student(params, conditioning, scale, step_size), path, x, time_grid(steps))


def whole_batch(arrays: dict[str, np.ndarray], conditioning: PyTree) -> Batch:
    """A recipe's batch in which every latent frame counts.

    Args:
      arrays: latents [B, L, C]; guidance [B] where the teacher made them, see
        `distillation.teacher_samples`.
      conditioning: what they are of.
    """
    latents = np.asarray(arrays['latents'], np.float32)
    mask = np.ones(latents.shape[:2], np.float32)
    return Batch(latents, mask, conditioning, arrays.get('guidance'))


def with_absence(batch: Batch, key: Key[Array, ''], text: float) -> Batch:
    """Condition dropout: makes an item unconditional with probability `text`; pure.

    What the teacher was asked for when it made the latents stays so.
    """
    if batch.guidance is not None:
        return batch
    asked = batch.conditioning
    dropped = jax.random.uniform(key, batch.latents.shape[:1]) < text

    def choose(kept, without):
        return jnp.where(dropped.reshape(-1, *[1] * (kept.ndim - 1)), without, kept)

    return batch.replace(conditioning=jax.tree.map(choose, asked, asked.unconditional()))


def padded(
    states: Float[Array, 'B T W'],
    mask: Bool[np.ndarray, 'B T'] | Bool[Array, 'B T'],
    most: int,
) -> tuple[Float[np.ndarray, 'B N W'], Bool[np.ndarray, 'B N']]:
    """Pads the states and mask of captions to one length.

    Args:
      states: of the text encoder.
      mask: real tokens, before the padding.
      most: tokens that the model takes; N is that, or CAPTION_TOKENS if it is less.

    Raises:
      ValueError: a caption has more tokens than N.
    """
    tokens = min(most, CAPTION_TOKENS)
    states, mask = np.asarray(states), np.asarray(mask)
    longest = int(mask.sum(axis=1).max())
    if longest > tokens:
        raise ValueError(f'a caption has {longest} tokens, {tokens} at most; shorten it')
    states, mask = states[:, :tokens], mask[:, :tokens]
    behind = (0, tokens - mask.shape[1])
    return np.pad(states, [(0, 0), behind, (0, 0)]), np.pad(mask, [(0, 0), behind])


def make_subject(
    teacher: recipe.Teacher,
    student: recipe.Student,
    path: NoisePath,
    params: PyTree,
    shapes: PyTree,
    to_batch: Callable[[dict[str, np.ndarray]], Batch],
    text: float,
    network: str,
) -> DistillationSetup:
    """Builds the teacher and its initial student for `experiments/distill`.

    Args:
      teacher, student, path: see `DistillationSetup`.
      params: of the teacher's predicting networks.
      shapes: of the student's parameters.
      to_batch: from what the teacher's `encode_scenes` gives, everything asked for.
      text: probability that an item of a batch is asked for nothing.
      network: see `DistillationSetup`.
    """
    return DistillationSetup(
        teacher=teacher,
        student=student,
        path=path,
        teacher_params=params,
        student_params=student_params(params, shapes),
        to_batch=to_batch,
        prepare=functools.partial(with_absence, text=text),
        network=network,
    )
