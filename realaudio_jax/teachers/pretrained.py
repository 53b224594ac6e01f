"""What published models have in common as teachers: scenes, condition dropout, students.

A student is its teacher's networks with `models.denoiser.student_embedding` in them: guidance scale
and step size are further inputs, at first to no effect.
"""

import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import integrity
from realaudio_jax.data.cache import EncodedScenes, cache_key, weights_digest
from realaudio_jax.data.loader import Batches, batches
from realaudio_jax.distillation import recipe
from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.io import resample
from realaudio_jax.noise import NoisePath, time_grid
from realaudio_jax.packing import save_params
from realaudio_jax.release import STUDENT_NAME, load_params
from realaudio_jax.release_config import CONFIG_NAME, PretrainedStudentConfig, StudentConfig
from realaudio_jax.samplers import ddim
from realaudio_jax.teachers import ConditionDropout
from realaudio_jax.training.run_folder import STUDENT
from realaudio_jax.typing import SAMPLE_RATE, Array, Bool, Float, Key, PyTree

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


class PretrainedTeacher:
    """A published model as a `Teacher`; its subclass loads it and says what it is made of.

    Attributes:
        name: in `teachers.PRETRAINED`.
        predictors: names in `params` of the networks that a denoise function is made of.
        encoders: names in `params` of those that `encode_scenes` uses.
        networks: dataclass of modules; params: of each, by name.
        to_batch, guided, student, student_shapes: set by the subclass, see `Teacher`.
    """

    name: str
    predictors: tuple[str, ...]
    encoders: tuple[str, ...]
    networks: Any
    params: PyTree
    sample_rate: int
    _encoded_at_once = 4

    @property
    def network(self) -> str:
        """Settings of the networks."""
        return repr(self.networks)

    @property
    def teacher_params(self) -> PyTree:
        """Parameters of the networks that predict."""
        return {name: self.params[name] for name in self.predictors}

    @functools.cached_property
    def _sample_student(self) -> Callable[..., Array]:
        """`sample_student` of this model, compiled for each count of steps."""
        sample = functools.partial(sample_student, self.student, self.path)
        return jax.jit(sample, static_argnums=3)

    def encode(self, scenes: Iterable[Any], seconds: float) -> Iterator[dict[str, np.ndarray]]:
        """Rows of scenes, four at a time, so that one program serves all; see `encode_scenes`.

        Shorter scenes are padded with silence to `seconds`; their own durations are kept where the
        model takes one.
        """
        drawn, length = iter(scenes), round(seconds * self.sample_rate)
        while batch := list(itertools.islice(drawn, self._encoded_at_once)):
            count = len(batch)
            batch += batch[-1:] * (self._encoded_at_once - count)
            audio = np.zeros((len(batch), length, 2), np.float32)
            for row, scene in zip(audio, batch, strict=True):
                sound = resample(scene.audio, SAMPLE_RATE, self.sample_rate)[:length]
                row[: len(sound)] = sound
            arrays = self.encode_scenes(audio, [scene.caption for scene in batch])
            if 'seconds' in arrays:
                own = [min(scene.seconds, seconds) for scene in batch]
                arrays['seconds'] = np.array(own, np.float32)
            yield {name: rows[:count] for name, rows in arrays.items()}

    def fingerprint(self) -> str:
        """Hash of the weights that `encode` uses."""
        return cache_key(
            'teacher',
            networks=repr(self.networks),
            weights=weights_digest([self.params[name] for name in self.encoders]),
        )

    def batches(
        self, scenes: EncodedScenes, batch_size: int, seed: int, crop_seconds: float | None
    ) -> Batches:
        """Shuffled batches of whole scenes.

        Raises:
            ValueError: fewer scenes than a batch, or crops are asked for.
        """
        if crop_seconds is not None:
            raise ValueError('this teacher takes no crops of scenes: leave crop_seconds at None')
        return batches(scenes, batch_size, seed)

    def prepare(
        self,
        batch: Batch,
        key: Key[Array, ''],
        dropout: ConditionDropout,
        onset_weight: float = 1.0,
    ) -> Batch:
        """Makes items unconditional with probability `dropout.text`; pure.

        Where a teacher made the latents, conditions were dropped then, and are as they were.

        Raises:
            ValueError: an onset weight other than 1: there are no onsets.
        """
        if onset_weight != 1:
            raise ValueError('this teacher has no timeline: leave onset_weight at 1')
        if batch.guidance is not None:
            return batch
        dropped = jax.random.uniform(key, batch.latents.shape[:1]) < dropout.text
        return batch.replace(conditioning=without(batch.conditioning, dropped))

    def drop_rows(
        self, arrays: Mapping[str, np.ndarray], dropout: ConditionDropout, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Marks rows as unconditional with probability `dropout.text`."""
        return {'unconditional': rng.uniform(size=len(arrays['latents'])) < dropout.text}

    def initial_student(self, source: str | None = None) -> tuple[PyTree, None]:
        """The teacher's parameters with those of the further inputs, or those of a student."""
        if source is not None:
            return self.load_student(source).params, None
        return student_params(self.teacher_params, self.student_shapes()), None

    def student_folder(self, source: str) -> pathlib.Path:
        """Where an earlier student lies."""
        return pathlib.Path(source)

    def save_student(
        self,
        workdir: pathlib.Path,
        params: PyTree,
        steps: tuple[int, ...],
        guidance_range: tuple[float, float],
    ) -> pathlib.Path:
        """Writes what `load_student` reads into the folder `student` of a run."""
        folder = workdir / STUDENT
        save_params(folder / STUDENT_NAME, params, {'teacher': self.name})
        facts = StudentConfig(tuple(steps), tuple(guidance_range))
        PretrainedStudentConfig(self.name, facts).write(folder)
        integrity.write_manifest(folder, [STUDENT_NAME, CONFIG_NAME])
        return folder

    def load_student(self, folder: str | os.PathLike) -> Student:
        """Loads a distilled student; see `load_student`."""
        return load_student(folder, self.name, self.student_shapes())


def load_student(folder: str | os.PathLike, teacher: str, shapes: PyTree) -> Student:
    """Loads the student that `experiments/distill` wrote into `folder`.

    Args:
        folder: with the weights and a config.
        teacher: the name, in `teachers.PRETRAINED`, of the model that it must be a student of.
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


def whole_batch(arrays: Mapping[str, np.ndarray], conditioning: PyTree) -> Batch:
    """A recipe's batch in which every latent frame counts.

    Args:
        arrays: latents [B, L, C]; where a teacher made them guidance [B], and `unconditional` [B],
            items that it was given nothing for.
        conditioning: of the rows.
    """
    latents = np.asarray(arrays['latents'], np.float32)
    mask = np.ones(latents.shape[:2], np.float32)
    if 'unconditional' in arrays:
        conditioning = without(conditioning, jnp.asarray(arrays['unconditional']))
    return Batch(latents, mask, conditioning, arrays.get('guidance'))


def without(conditioning: PyTree, dropped: Bool[Array, 'B']) -> PyTree:
    """The conditioning with that of `unconditional()` in the items marked True."""

    def choose(kept, empty):
        return jnp.where(dropped.reshape(-1, *[1] * (kept.ndim - 1)), empty, kept)

    return jax.tree.map(choose, conditioning, conditioning.unconditional())


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
