"""Latent similarity of a student's samples to its teacher's from the same noise."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.distillation.setup import DistillationSetup
from realaudio_jax.metrics.agreement import step_coherence
from realaudio_jax.noise import time_grid
from realaudio_jax.random import random_key
from realaudio_jax.samplers import ddim
from realaudio_jax.typing import PyTree


def coherence_rows(
    subject: DistillationSetup,
    student_params: PyTree,
    batch: Batch,
    counts: Sequence[int],
    teacher_steps: int,
    guidance: float,
    seed: int,
) -> list[dict[str, Any]]:
    """Mean latent cosine to the guided teacher's DDIM, of the student and of the teacher itself.

    Args:
      subject: teacher and student.
      student_params: of the trained student.
      batch: whose conditions are sampled; its latents give the shape alone.
      counts: steps to sample with.
      teacher_steps: of the reference.
      guidance: scale of both.
      seed: of the noise.

    Returns:
      Rows for `results.write_results`: one of each model and count.
    """
    c = jax.tree.map(jnp.asarray, batch.conditioning)
    x = jax.random.normal(random_key(seed), batch.latents.shape)
    scale = jnp.full(len(x), guidance, jnp.float32)

    def teacher(params, c, grid):
        return ddim(subject.teacher(params, c, scale), subject.path, x, grid)

    def student(params, c, grid):
        step_size = jnp.full(len(x), 1.0 / (len(grid) - 1))
        return ddim(subject.student(params, c, scale, step_size), subject.path, x, grid)

    models = {
        'student': (jax.jit(student), student_params),
        'teacher': (jax.jit(teacher), subject.teacher_params),
    }

    def latents(model, steps):
        run, params = models[model]
        return run(params, c, time_grid(steps))

    reference = latents('teacher', teacher_steps)
    rows = []
    for model in models:
        for steps in counts:
            cosines = step_coherence(latents(model, steps), reference)
            rows.append(
                {
                    'name': 'latent cosine',
                    'value': float(cosines.mean()),
                    'n': len(cosines),
                    'model': model,
                    'steps': steps,
                    'to': f'teacher, {teacher_steps} steps',
                    'guidance': guidance,
                    'seed': seed,
                }
            )
    return rows
