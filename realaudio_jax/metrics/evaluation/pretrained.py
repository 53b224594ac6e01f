"""Evaluates the student of a published model: latent cosine to its teacher from the same noise."""

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from realaudio_jax import by_name
from realaudio_jax.data import DATASETS
from realaudio_jax.data.cache import encode_scenes
from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.metrics.rows import LATENT_COSINE
from realaudio_jax.metrics.similarity import step_coherence
from realaudio_jax.noise import time_grid
from realaudio_jax.random import random_key
from realaudio_jax.report.tables import write_results
from realaudio_jax.samplers import ddim
from realaudio_jax.teachers import Teacher, load_teacher
from realaudio_jax.training.loop import Progress
from realaudio_jax.training.run_folder import finished_run, record_seconds
from realaudio_jax.typing import PyTree


def evaluate_pretrained_run(
    workdir: pathlib.Path, changes: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Latent cosines of a run's student to its teacher; writes `results.json` and `results.md`.

    Args:
        workdir: of a finished `experiments.distill` of a published model.
        changes: of the run's settings for its evaluation: seed, eval_scenes.

    Returns:
        Rows of each model and step count, see `coherence_rows`.

    Raises:
        FileNotFoundError: there is no such run, or it has no student yet.
    """
    run, folder = finished_run(workdir)
    config, begin = run['config'] | dict(changes or {}), time.monotonic()
    teacher = load_teacher(config['teacher'], run['inputs']['teacher'], config['dtype'])
    student = teacher.load_student(folder)
    dataset = by_name.find(config['dataset'], DATASETS, 'dataset')(
        run['inputs']['recordings'], config['foley_weight']
    )
    count, seed = config['eval_scenes'], config['seed']
    with Progress(count, 'scenes, held_out') as progress:
        scenes = encode_scenes(
            teacher,
            dataset.mixed('held_out', count, config['scene_seconds'], seed + 1),
            workdir / 'latents',
            progress.update,
        )
    counts = config['student_steps']
    with Progress(2 * len(counts) + 1, 'evaluation') as progress:
        rows = coherence_rows(
            teacher,
            student.params,
            teacher.to_batch(scenes.rows(slice(None))),
            counts,
            config['eval_teacher_steps'],
            config['eval_guidance'],
            seed,
            progress.update,
        )
    write_results(workdir, rows, f'Student of {config["teacher"]} against its teacher')
    record_seconds(workdir, 'evaluation', time.monotonic() - begin)
    return rows


def coherence_rows(
    teacher: Teacher,
    student_params: PyTree,
    batch: Batch,
    counts: Sequence[int],
    teacher_steps: int,
    guidance: float,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Mean latent cosine to the guided teacher's DDIM, of the student and of the teacher itself.

    Args:
        teacher: and the networks of its student.
        student_params: of the trained student.
        batch: whose conditions are sampled; its latents give the shape alone.
        counts: steps to sample with.
        teacher_steps: of the reference.
        guidance: scale of both.
        seed: of the noise.
        progress: called with the number of sample sets made, one and two of each count.

    Returns:
        Rows for `report.tables.write_results`: one of each model and count.
    """
    c = jax.tree.map(jnp.asarray, batch.conditioning)
    x = jax.random.normal(random_key(seed), batch.latents.shape)
    scale = jnp.full(len(x), guidance, jnp.float32)

    def guided(params, c, grid):
        return ddim(teacher.guided(params, c, scale), teacher.path, x, grid)

    def student(params, c, grid):
        step_size = jnp.full(len(x), 1.0 / (len(grid) - 1))
        return ddim(teacher.student(params, c, scale, step_size), teacher.path, x, grid)

    models = {
        'student': (jax.jit(student), student_params),
        'teacher': (jax.jit(guided), teacher.teacher_params),
    }

    def latents(model, steps):
        run, params = models[model]
        return run(params, c, time_grid(steps))

    reference = latents('teacher', teacher_steps)
    say = progress or (lambda _: None)
    say(1)
    rows = []
    for model in models:
        for steps in counts:
            cosines = step_coherence(latents(model, steps), reference)
            rows.append(
                {
                    'name': LATENT_COSINE,
                    'value': float(cosines.mean()),
                    'n': len(cosines),
                    'model': model,
                    'steps': steps,
                    'to': f'teacher, {teacher_steps} steps',
                    'guidance': guidance,
                    'seed': seed,
                }
            )
            say(len(rows) + 1)
    return rows
