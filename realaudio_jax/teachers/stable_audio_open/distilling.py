"""A student of Stable Audio Open: the same networks, told guidance scale and step size besides."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.distillation.subject import Subject
from realaudio_jax.noise import Denoise, time_grid
from realaudio_jax.samplers import ddim
from realaudio_jax.teachers.stable_audio_open import conditioners, transformer
from realaudio_jax.teachers.stable_audio_open.conditioners import Conditioning
from realaudio_jax.teachers.stable_audio_open.denoise import PATH, Networks, as_teacher, bind
from realaudio_jax.typing import Array, Float, Key, PyTree

STUDENT_PARAMS = ('step_size', 'guidance_scale')  # of the transformer, that a teacher lacks


def as_student(networks: Networks) -> Callable[..., Denoise]:
    """What `student_networks` gives, as a recipe's `student`; see `distillation.recipe`."""
    return functools.partial(bind, networks)


def student_networks(networks: Networks) -> Networks:
    """The networks with what a student is told besides."""
    transformer = dataclasses.replace(networks.transformer, distilled=True)
    return dataclasses.replace(networks, transformer=transformer)


def student_params(networks: Networks, params: PyTree) -> PyTree:
    """A student's parameters that predict what the teacher's `params` do, whatever it is told."""
    shapes = student_shapes(networks)['transformer']
    added = {name: shapes[name] for name in STUDENT_PARAMS}
    added = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), added)
    return {**params, 'transformer': {**params['transformer'], **added}}


def student_shapes(networks: Networks) -> PyTree:
    """Parameter shapes of `student_networks(networks)`, for strict loading."""
    model = student_networks(networks).transformer
    return {
        'transformer': transformer.parameter_shapes(model),
        'projection': conditioners.parameter_shapes(networks.projection),
    }


def sample_student(
    networks: Networks,
    params: PyTree,
    conditioning: Conditioning,
    x: Float[Array, 'B L C'],
    steps: int,
    guidance_scale: float | Float[Array, ''],
) -> Float[Array, 'B L C']:
    """Latents by DDIM in a student's few even steps, one evaluation each; pure.

    Args:
      networks: of the teacher.
      params: of the student.
      conditioning: what to make.
      x: standard normal noise.
      steps: one of the counts that the student was trained for.
      guidance_scale: within the range that it was trained for.
    """
    denoise = bind(
        student_networks(networks), params, conditioning,
        guidance_scale=jnp.full(len(x), guidance_scale, jnp.float32),
        step_size=jnp.full(len(x), 1.0 / steps, jnp.float32),
    )  # fmt: skip
    return ddim(denoise, PATH, x, time_grid(steps))


def to_batch(arrays: dict[str, np.ndarray]) -> Batch:
    """A recipe's batch from arrays of `StableAudioOpen.encode_scenes`, everything present.

    The whole window counts, silence after the sound included: the student is sampled over it too.
    """
    latents = np.asarray(arrays['latents'], np.float32)
    conditioning = Conditioning(
        text=np.asarray(arrays['text'], np.float32),
        text_mask=arrays['text_mask'],
        start_s=np.zeros_like(arrays['seconds']),
        end_s=arrays['seconds'],
        present=np.ones(len(latents), bool),
    )
    return Batch(latents, np.ones(latents.shape[:2], np.float32), conditioning)


def with_absence(batch: Batch, key: Key[Array, ''], text: float) -> Batch:
    """Makes the condition of an item "nothing said" with probability `text`; pure."""
    c = batch.conditioning
    kept = jax.random.uniform(key, c.present.shape) >= text
    return batch.replace(conditioning=c.replace(present=c.present & kept))


def subject(networks: Networks, params: PyTree, text: float = 0.0) -> Subject:
    """What `experiments/distill` distils.

    Args:
      networks, params: of the teacher.
      text: probability that an item of a batch is asked for nothing.
    """
    return Subject(
        teacher=as_teacher(networks),
        student=as_student(student_networks(networks)),
        path=PATH,
        teacher_params=params,
        student_params=student_params(networks, params),
        to_batch=to_batch,
        prepare=functools.partial(with_absence, text=text),
    )
