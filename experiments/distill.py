"""Distils a teacher to a few steps, by the recipes that the config lists as stages.

python -m experiments.distill --config=configs/foley_distill.py --recordings=DIR --workdir=DIR
python -m experiments.distill --config=configs/distill_stable_audio_open.py --teacher=DIR

and likewise distill_audioldm2.py and distill_stable_audio_3.py. A finished student is evaluated by
experiments.evaluate --run=WORKDIR, which this command starts as its last step.
"""

import dataclasses
import functools
import pathlib
import re
import shlex
import time
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from experiments.common import (
    define_config,
    define_devices,
    define_workdir,
    define_workers,
    go_on_as,
    refuse_ignored,
    run,
    run_workdir,
    say,
)
from realaudio_jax import by_name, low_rank, processes
from realaudio_jax.cache import enable_compilation_cache
from realaudio_jax.data import DATASETS
from realaudio_jax.data.cache import EncodedScenes, SceneSet, encode_scenes, joined
from realaudio_jax.distillation.recipe import (
    STUDENT,
    all_networks,
    as_student_params,
    extra_rates,
)
from realaudio_jax.distillation.setup import DistillationSetup
from realaudio_jax.distillation.stages import (
    SAMPLES,
    SCENES,
    WITH_RECORDINGS,
    Stage,
    plan,
    stage_settings,
)
from realaudio_jax.distillation.teacher_samples import recordings_as_samples, sample_teacher
from realaudio_jax.memory import peak_memory
from realaudio_jax.random import random_key
from realaudio_jax.teachers import RELEASE, ConditionDropout, Teacher, load_teacher
from realaudio_jax.training.checkpoints import Checkpointer
from realaudio_jax.training.loop import Progress, StopRequest, require_finite
from realaudio_jax.training.run_folder import record_memory, record_seconds, run_folder
from realaudio_jax.training.sharding import (
    jit_update,
    place,
    replicate,
    shard_batch,
    training_mesh,
)
from realaudio_jax.training.state import apply_gradients, create_state, with_learning_rate
from realaudio_jax.training.writers import MetricWriter
from realaudio_jax.trees import named_leaves
from realaudio_jax.typing import Any, PyTree

_CONFIG = define_config('configs/foley_distill.py')
define_workdir()
_RECORDINGS = flags.DEFINE_string(
    'recordings', None, 'Folder of sounds, see docs/own_data.md; none: foley alone.'
)
_RELEASE = flags.DEFINE_string('release', 'foley', 'Gives the teacher and the frozen networks.')
_TEACHER = flags.DEFINE_string(
    'teacher',
    None,
    "A published model's folder in the layout of its authors, or its name, such as "
    'stable-audio-open (docs/weights.md); see the configs.',
)
_EMBEDDER_WEIGHTS = flags.DEFINE_string(
    'embedder_weights', None, 'Folder of YAMNet weights, for an independent evaluator.'
)
_STUDENT = flags.DEFINE_string(
    'student',
    None,
    'A student to go on from: a file, a release, whose adapter is trained on if the config has a '
    'rank, or a folder that a run left; none: the student begins as its teacher.',
)
_MULTI_TEACHER = flags.DEFINE_list(
    'multi_teacher',
    [],
    'Students, as for --student, whose trajectories the recipe of this name learns, counted from '
    '0.',
)
_LATENTS = flags.DEFINE_string(
    'latents',
    None,
    'Where encoded scenes and teacher samples are kept, for runs that share them; none: '
    'WORKDIR/latents.',
)
_EVALUATE = flags.DEFINE_bool('evaluate', True, 'Evaluate the student when it is finished.')
_WORKERS = define_workers()
_MODEL_PARALLEL = define_devices()


class StageData:
    """The batches of all stages, by `Stage.batches`; saved and restored together."""

    def __init__(self, iterators: Mapping[str, Any]):
        self._iterators = dict(iterators)

    def next(self, stage: Stage) -> dict[str, jax.Array]:
        """The next batch of a stage."""
        return next(self._iterators[stage.batches])

    def get_state(self) -> dict[str, Any]:
        """The place of the next batch."""
        return {name: data.get_state() for name, data in self._iterators.items()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on at a place that `get_state` gave."""
        for name, data in self._iterators.items():
            data.set_state(state[name])


def setup_of(
    config, teacher: Teacher, student: str | None = None, multi_teacher: Sequence[str] = ()
) -> DistillationSetup:
    """Teacher and initial student: as another run left it, or as the teacher."""
    parts = teacher.initial_student(student)
    base, trained = low_rank.trainable(random_key(config.seed), *parts, config.rank)
    others = [low_rank.merge(*teacher.initial_student(source)) for source in multi_teacher]
    return DistillationSetup(
        teacher=teacher.guided,
        student=teacher.student,
        path=teacher.path,
        teacher_params=teacher.teacher_params,
        student_params=trained,
        base=base,
        to_batch=teacher.to_batch,
        prepare=functools.partial(
            teacher.prepare,
            dropout=ConditionDropout(**config.condition_dropout),
            onset_weight=config.onset_weight,
        ),
        teachers=jax.tree.map(lambda *leaves: jnp.stack(leaves), *others) if others else None,
    )


def stage_data(
    config,
    teacher: Teacher,
    stages: Sequence[Stage],
    dataset: Any,
    unmixed: int,
    folder: pathlib.Path,
    workers: int = 0,
) -> StageData:
    """Encodes what the stages train on, and samples the teacher if one of them asks for that.

    Args:
        config, teacher, stages: of the run.
        dataset: of `data.DATASETS`.
        unmixed: recordings that it has unmixed at this length.
        folder: where caches lie.
        workers: processes that mix scenes.
    """
    seed = config.seed

    def encoded(name: str, scenes: SceneSet) -> EncodedScenes:
        with Progress(scenes.count, name) as progress:
            return encode_scenes(teacher, scenes, folder, progress.update)

    def sampled(scenes: EncodedScenes, dropout: ConditionDropout) -> EncodedScenes:
        c = config.teacher_samples
        with Progress(len(scenes), 'teacher samples') as progress:
            return sample_teacher(
                scenes,
                teacher,
                config.guidance_range,
                c.steps,
                c.batch_size,
                dropout,
                seed,
                folder,
                progress.update,
            )

    wanted = {stage.batches: stage for stage in stages if stage.updates}
    kinds = {stage.data for stage in wanted.values()}
    seconds = config.scene_seconds
    scenes = encoded('scenes', dataset.mixed('train', config.scenes, seconds, seed, workers))
    recorded = []
    if kinds - {SCENES} and config.recordings and unmixed:
        recorded = [encoded('recordings', dataset.unmixed(config.recordings, seconds, seed))]
    sets = {SCENES: scenes, WITH_RECORDINGS: joined(scenes, *recorded)}
    if SAMPLES in kinds:
        c = config.teacher_samples
        samples = [sampled(scenes, ConditionDropout(**c.condition_dropout))]
        for each in recorded:
            samples.append(recordings_as_samples(each, teacher, config.guidance_range, seed))
            if c.recordings:
                samples.append(sampled(each, ConditionDropout(text=0.0)))
        sets[SAMPLES] = joined(*samples)
    return StageData(
        {
            name: teacher.batches(
                sets[stage.data],
                stage.batch_size,
                seed + 1 if stage.data == SAMPLES else seed,
                config.crop_seconds,
            )
            for name, stage in wanted.items()
        }
    )


def train_step(
    state,
    previous,
    base,
    teacher_params,
    recipe,
    batch,
    key,
    learning_rate,
    mask,
    *,
    tx,
    prepare,
    ema_decay,
):
    """One update of the student, and of the further networks of its recipe.

    `previous` is the target where it is not the average. The student's parameters are what is
    trained of it joined with `base`, and its gradients are multiplied by `mask`, see
    `trainable_mask`.
    """
    key_batch, key_loss = jax.random.split(key)
    batch = prepare(batch, key_batch)
    target = low_rank.join(base, state.ema_params[STUDENT] if previous is None else previous)

    def loss_fn(trained):
        networks = trained | {STUDENT: low_rank.join(base, trained[STUDENT])}
        params = as_student_params(networks)
        loss, metrics = recipe.loss(params, target, teacher_params, batch, key_loss)
        return jnp.mean(loss), metrics

    grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params)
    grads = grads | {STUDENT: jax.tree.map(jnp.multiply, grads[STUDENT], mask)}
    return apply_gradients(state, grads, tx, ema_decay, learning_rate), metrics


def trainable_mask(params: PyTree, frozen: str) -> PyTree:
    """1 for each parameter that a stage trains, 0 for those whose name has `frozen` in it."""
    mask = [not (frozen and re.search(frozen, name)) for name, _ in named_leaves(params)]
    return jax.tree.unflatten(jax.tree.structure(params), map(jnp.float32, mask))


def optimizer(rates: Mapping[str, float]) -> optax.GradientTransformation:
    """Adam with clipping of each network by itself; the learning rate is given to each update.

    Args:
        rates: of the networks beside the student, over the learning rate; see `recipe`.
    """

    def adam(learning_rate):
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate, b2=0.99))

    def build(learning_rate):
        of_each = {name: adam(learning_rate * rate) for name, rate in rates.items()}
        of_each[STUDENT] = adam(learning_rate)
        return optax.multi_transform(of_each, {name: name for name in of_each})

    return with_learning_rate(build)


def distill(
    config,
    setup: DistillationSetup,
    stages: Sequence[Stage],
    data: StageData,
    workdir: pathlib.Path,
    model_parallel: int = 1,
) -> PyTree | None:
    """All stages. Returns the averaged student, None if stopped."""
    sizes = {stage.batch_size for stage in stages if stage.updates}
    mesh = training_mesh(*sizes, model_parallel=model_parallel)
    teacher_params, base, initial = (
        place(mesh, tree) for tree in (setup.teacher_params, setup.base, setup.student_params)
    )
    stages = [dataclasses.replace(s, recipe=replicate(mesh, s.recipe)) for s in stages]
    ends = np.cumsum([stage.updates for stage in stages])
    total = int(ends[-1])
    key = random_key(config.seed)

    @functools.cache
    def step_of(rates):
        """The optimizer and the compiled update of stages with these further networks."""
        tx = optimizer(dict(rates))
        settings = dict(tx=tx, prepare=setup.prepare, ema_decay=config.ema_decay)
        return tx, jit_update(functools.partial(train_step, **settings), mesh)

    def tools(stage):
        return step_of(tuple(sorted(extra_rates(stage.recipe).items())))

    def begun(stage, previous):
        """The state before the first update of a stage; it begins as the one before it ended."""
        example = setup.to_batch(data.next(stage)) if extra_rates(stage.recipe) else None
        student = low_rank.join(base, previous)
        networks = all_networks(stage.recipe, previous, student, example, key)
        return create_state(place(mesh, networks), tools(stage)[0])

    def template(step):
        """The structure of the state that was saved after so many updates."""
        stage = stages[int(np.searchsorted(ends, step))]
        return {'step': counted(0), 'previous': initial, 'student': begun(stage, initial)}

    def counted(step):
        return replicate(mesh, jnp.int32(step))

    state = {'step': counted(0), 'previous': initial}
    state['student'] = create_state({STUDENT: initial}, optimizer({}))  # it begins as its teacher

    with (
        MetricWriter(workdir) as writer,
        Checkpointer(workdir / 'checkpoints') as checkpointer,
        StopRequest() as stop,
    ):
        state = checkpointer.restore(template, data) or state
        begin = 0
        for stage in stages:
            end = begin + stage.updates
            mask, (_, update) = trainable_mask(initial, stage.frozen), tools(stage)
            with Progress(total, stage.name, int(state['step'])) as progress:
                for step in range(max(begin, int(state['step'])), end):
                    if step == begin:  # the student so far becomes the teacher of this stage
                        state['previous'] = state['student'].ema_params[STUDENT]
                        state['student'] = begun(stage, state['previous'])
                    previous = None if stage.target_is_average else state['previous']
                    rate = stage.learning_rate * min(1.0, (end - step) / (0.5 * stage.updates))
                    batch = shard_batch(mesh, setup.to_batch(data.next(stage)))
                    student, metrics = update(
                        state['student'],
                        previous,
                        base,
                        teacher_params,
                        stage.recipe,
                        batch,
                        jax.random.fold_in(key, step),
                        rate,
                        mask,
                    )
                    done = step + 1
                    state = {**state, 'student': student, 'step': counted(done)}
                    if done % config.log_every == 0:
                        require_finite(metrics['loss'], step, checkpointer)
                        writer.write(done, metrics, stage.name)
                    progress.update(done, metrics['loss'])
                    stopped = stop.agreed(done)
                    if done % config.save_every == 0 or done == total or stopped:
                        require_finite(
                            metrics['loss'], step, checkpointer, student.ema_params[STUDENT]
                        )
                        checkpointer.save(state, data)
                    if stopped:
                        return None
            begin = end
    before, after = (
        low_rank.join(base, trained)
        for trained in (state['previous'], state['student'].ema_params[STUDENT])
    )
    return interpolate(before, after, stages[-1])


def interpolate(before: PyTree, after: PyTree, stage: Stage) -> PyTree:
    """Weights between those before and after a stage (Wortsman et al. 2022, arXiv 2109.01903).

    What a stage gains is kept longer than what it loses: here timing, see the config.
    """
    if not stage.updates or stage.merge_weight == 1:
        return after
    weight = stage.merge_weight
    mean = jax.jit(lambda *trees: jax.tree.map(lambda a, b: (1 - weight) * a + weight * b, *trees))
    return mean(before, after)


def teacher_folder(config) -> str:
    """Where the config's teacher lies: --release or --teacher, whichever it asks for."""
    if config.teacher == RELEASE:
        if _TEACHER.value:
            raise ValueError(
                'this config distils the teacher of a release; leave out --teacher, or give a '
                'config such as configs/distill_stable_audio_open.py'
            )
        return _RELEASE.value
    if not _TEACHER.value:
        raise ValueError(f'this config distils {config.teacher}: give its folder with --teacher')
    refuse_ignored('--teacher', _RELEASE, _EMBEDDER_WEIGHTS)
    return _TEACHER.value


def main(argv):
    """Runs the command line."""
    del argv
    config, begun = _CONFIG.value, time.monotonic()
    for stage in config.stages:
        stage_settings(dict(stage), config.batch_size)
    enable_compilation_cache()
    folder, workdir = teacher_folder(config), pathlib.Path(run_workdir())
    dataset = by_name.find(config.dataset, DATASETS, 'dataset')(
        _RECORDINGS.value, config.foley_weight
    )
    unmixed = dataset.require(config.scene_seconds)
    inputs = {
        'teacher': folder,
        'recordings': _RECORDINGS.value,
        'student': _STUDENT.value,
        'multi_teacher': list(_MULTI_TEACHER.value),
    }
    with run_folder(workdir, config, inputs, folder_digest=dataset.folder_digest) as workdir:
        teacher = load_teacher(config.teacher, folder, config.dtype)
        teacher.require_seconds(config.scene_seconds)
        setup = setup_of(config, teacher, _STUDENT.value, _MULTI_TEACHER.value)
        stages = plan(config, setup)
        earlier = [*filter(None, [_STUDENT.value]), *_MULTI_TEACHER.value]
        starts = [teacher.student_folder(source) for source in earlier]
        processes.only_first(lambda: dataset.note_origins(workdir, starts), 'origins')
        latents = pathlib.Path(_LATENTS.value) if _LATENTS.value else workdir / 'latents'
        data = stage_data(config, teacher, stages, dataset, unmixed, latents, _WORKERS.value)
        student = distill(config, setup, stages, data, workdir, _MODEL_PARALLEL.value)

        def finish() -> pathlib.Path | None:
            record_seconds(workdir, 'training', time.monotonic() - begun, add=True)
            record_memory(workdir, peak_memory())
            if student is None:
                return None
            return teacher.save_student(
                workdir, student, config.student_steps, config.guidance_range
            )

        saved = processes.only_first(finish, 'student')
        if student is None:
            return
    arguments = [f'--run={workdir}']
    if _EMBEDDER_WEIGHTS.value:
        arguments.append(f'--embedder_weights={_EMBEDDER_WEIGHTS.value}')
    if processes.is_first():
        say(f'the student is in {saved}')
    if _EVALUATE.value:
        go_on_as('experiments.evaluate', *arguments)
    elif processes.is_first():
        say(f'evaluate it with python -m experiments.evaluate {shlex.join(arguments)}')


if __name__ == '__main__':
    run(main)
