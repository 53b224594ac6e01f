"""Distils a teacher to a few steps: progressive stages, consistency across step counts, the energy
score of the sound made; and multi-teacher distillation.

python -m experiments.distill --config=configs/foley_distill.py --recordings=DIR --workdir=DIR
python -m experiments.distill --config=configs/distill_stable_audio_open.py --teacher=DIR

and likewise distill_audioldm2.py and distill_stable_audio_3.py.
"""

import dataclasses
import functools
import pathlib
import re
import time
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from absl import flags

from experiments.common import (
    define_config,
    define_workdir,
    define_workers,
    refuse_ignored,
    run,
    run_workdir,
)
from realaudio_jax import low_rank
from realaudio_jax.cache import enable_compilation_cache
from realaudio_jax.data.attribution import note_recordings, write_attribution
from realaudio_jax.data.frozen_encoders import load_frozen_encoders
from realaudio_jax.data.latent_cache import Latents, LatentScenes, RandomCrops, joined
from realaudio_jax.data.loader import InTurn, batches
from realaudio_jax.data.prepared import (
    latent_scenes,
    require_data,
    scene_source,
    teacher_scenes,
    whole_latents,
)
from realaudio_jax.distillation import progressive, registry
from realaudio_jax.distillation.recipe import Recipe, Student, Teacher
from realaudio_jax.distillation.setup import DistillationSetup
from realaudio_jax.distillation.teacher_samples import (
    recordings_as_samples,
    sample_pretrained_teacher,
    sample_teacher,
)
from realaudio_jax.generator import Generator
from realaudio_jax.integrity import write_manifest
from realaudio_jax.metrics.evaluation.run import finish_run
from realaudio_jax.models.denoiser import PATH, Denoiser, as_denoiser
from realaudio_jax.packing import save_params, save_release, starting_parts, weights_of
from realaudio_jax.random import random_key
from realaudio_jax.release import STUDENT_NAME, find_release, named_leaves
from realaudio_jax.release_config import CONFIG_NAME, PretrainedStudentConfig, StudentConfig
from realaudio_jax.samplers import classifier_free_guidance
from realaudio_jax.teachers import load_teacher
from realaudio_jax.training.batches import ConditionDropout, prepare, to_batch
from realaudio_jax.training.checkpoints import Checkpointer
from realaudio_jax.training.loop import Progress, StopRequest, require_finite
from realaudio_jax.training.run_folder import record_seconds, run_folder
from realaudio_jax.training.sharding import data_mesh, replicate, shard_batch
from realaudio_jax.training.state import apply_gradients, create_state, with_learning_rate
from realaudio_jax.training.writers import MetricWriter
from realaudio_jax.typing import Any, PyTree

_CONFIG = define_config('configs/foley_distill.py')
define_workdir()
_RECORDINGS = flags.DEFINE_string(
    'recordings', None, 'Folder of sounds, see docs/own_data.md; none: foley alone.'
)
_RELEASE = flags.DEFINE_string('release', 'foley', 'Gives the teacher and the frozen networks.')
_TEACHER = flags.DEFINE_string(
    'teacher', None, "A foreign model's folder, in the layout of its authors; see the configs."
)
_EMBEDDER_WEIGHTS = flags.DEFINE_string(
    'embedder_weights', None, 'Folder of YAMNet weights, for an independent judge.'
)
_STUDENT = flags.DEFINE_string(
    'student', None,
    'A student.safetensors to go on from, or a release, whose adapter is trained on if the config '
    'has a rank; none: the student begins as its teacher.',
)  # fmt: skip
_MULTI_TEACHER = flags.DEFINE_list(
    'multi_teacher',
    [],
    'Students (files, or releases) whose trajectories the recipe of this name '
    'learns, counted from 0.',
)
_WORKERS = define_workers()


SAMPLES = 'teacher_samples'  # data of a stage


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of the run: a recipe, how many updates, at which learning rate."""

    name: str
    updates: int
    learning_rate: float
    target_is_average: bool  # else the student as it was when the stage began
    merge_weight: float = 1.0  # of the student after the stage against the one before it
    frozen: str = ''  # what stays as it was: a regular expression of parameters' names; '': nothing
    recipe: Recipe | None = None


def networks_of(model: Denoiser) -> tuple[Teacher, Student]:
    """The denoiser as a recipe's guided teacher and as its student; see `recipe`."""

    def teacher(params, conditioning, guidance_scale):
        both = (conditioning, conditioning.unconditional())
        return classifier_free_guidance(
            *(as_denoiser(model, params, c) for c in both), guidance_scale
        )

    return teacher, functools.partial(as_denoiser, model)


def subject_of(
    generator: Generator, config, student: str | None = None, multi_teacher: Sequence[str] = ()
) -> DistillationSetup:
    """The teacher of a release, and its student: as another run left it, or as the teacher."""
    model = generator.networks.denoiser.clone(dtype=config.dtype)
    params = generator.params['teacher']
    teacher, bound = networks_of(model)
    begin, adapter = params, None
    if student:
        begin, adapter = starting_parts(student, STUDENT_NAME, params)
    learnt = [
        low_rank.merge(*starting_parts(source, STUDENT_NAME, params)) for source in multi_teacher
    ]
    base, trainable = low_rank.trainable(random_key(config.seed), begin, adapter, config.rank)
    return DistillationSetup(
        teacher=teacher,
        student=bound,
        path=PATH,
        teacher_params=params,
        student_params=trainable,
        base=base,
        to_batch=to_batch,
        prepare=functools.partial(
            prepare, absence=ConditionDropout(**config.absence), onset_weight=config.onset_weight
        ),
        network=repr(model),
        teachers=jax.tree.map(lambda *leaves: jnp.stack(leaves), *learnt) if learnt else None,
    )


def crops(
    config, subject: DistillationSetup, scenes: LatentScenes, recorded: LatentScenes | None,
    workdir: pathlib.Path,
) -> RandomCrops | InTurn:  # fmt: skip
    """Crops of the scenes; for the energy score, of what the guided teacher makes of them.

    Beside those, if there are any, recordings as they are, and its answers to their captions. A run
    of several teachers that has no answers takes recordings beside the scenes.
    """
    c = config.energy
    if not takes_samples(config) and recorded is not None:
        scenes = joined(scenes, recorded)
    mixed = RandomCrops(scenes, config.batch_size, config.seed, config.crop_seconds)
    if not takes_samples(config):
        return mixed

    def sampled(scenes: LatentScenes, dropout: ConditionDropout) -> Latents:
        with Progress(len(scenes), 'teacher samples') as progress:
            return sample_teacher(
                scenes, subject, config.guidance_range, c.answer_steps, c.answer_batch_size,
                dropout, config.seed, workdir / 'latents', progress.update,
            )  # fmt: skip

    samples = [sampled(scenes, ConditionDropout(**c.absence))]
    if recorded is not None:
        samples.append(recordings_as_samples(recorded, config.guidance_range, config.seed))
        if c.answer_recordings:
            samples.append(sampled(recorded, ConditionDropout(text=0.0)))
    scored = RandomCrops(joined(*samples), c.batch_size, config.seed + 1, config.crop_seconds)
    return InTurn(mixed, updates_on_scenes(config), scored)


def takes_samples(config) -> bool:
    """Whether a stage trains on samples of the guided teacher."""
    return any(s.get('data') == SAMPLES and s.get('updates') for s in settings_of(config))


def updates_on_scenes(config) -> int:
    """Updates of the stages before the first that trains on samples of the guided teacher."""
    stages = [stage for stage in settings_of(config) if stage.get('updates')]
    first = [stage.get('data') for stage in stages].index(SAMPLES)
    return sum(stage['updates'] for stage in stages[:first])


def settings_of(config) -> Sequence[Mapping[str, Any]]:
    """`config.stages`, or what its progressive, consistency, energy, multi_teacher describe.

    Each stage is a dict:

        recipe: name or dotted path (see `distillation.registry`), or {name: {'weight': 1.0, ...}}
            with the settings of each recipe of a weighted sum.
        updates, learning_rate: of the stage.
        name: under which its metrics are written; none: the recipe's.
        target: 'average' of the student, or 'previous', the student of the stage before.
        data: 'scenes', or 'teacher_samples', made as config.energy says.
        merge_weight: of the student after the last stage against the one before it, 0 to 1.
        frozen: regular expression of the parameters that are not trained.
        anything else: settings of the recipe.
    """
    if config.get('stages'):
        return config.stages
    c = config.progressive
    stages = [
        dict(
            name=f'progressive {steps}',
            recipe='progressive',
            student_steps=steps,
            ratio=ratio,
            from_teacher=i == 0,
            target='previous',
            updates=c.updates,
            learning_rate=c.learning_rate,
        )
        for i, (steps, ratio) in enumerate(progressive.stages(c.steps))
    ]
    c = config.consistency
    consistency = dict(teacher_step=c.teacher_step, segments=c.segments)
    rates = dict(updates=c.updates, learning_rate=c.learning_rate)
    stages.append(dict(recipe='consistency', **rates, **consistency))
    c = config.energy
    kept = dict(consistency, weight=c.consistency_weight, segments=c.consistency_segments)
    stages.append(
        dict(
            name='energy',
            recipe={'energy': dict(segments=c.segments), 'consistency': kept},
            data=SAMPLES,
            updates=c.updates,
            learning_rate=c.learning_rate,
            merge_weight=c.share,
            frozen=c.frozen,
        )
    )
    c = config.get('multi_teacher')
    if c and c.updates:
        stages.append(
            dict(
                recipe='multi_teacher',
                trajectories=c.trajectories,
                data=SAMPLES if config.energy.updates else 'scenes',
                updates=c.updates,
                learning_rate=c.learning_rate,
                frozen=c.frozen,
            )
        )
    return stages


def plan(config, subject: DistillationSetup) -> list[Stage]:
    """The stages of `settings_of` with their recipes."""
    available = dict(
        student=subject.student,
        teacher=subject.teacher,
        path=subject.path,
        guidance_range=config.guidance_range,
        teachers=subject.teachers,
    )
    stages, data = [], 'scenes'
    for given in settings_of(config):
        settings = dict(given)
        before, data = data, settings.pop('data', 'scenes')
        if not settings.get('updates'):
            data = before
        if data not in ('scenes', SAMPLES) or (before, data) == (SAMPLES, 'scenes'):
            raise ValueError(
                f"a stage's data are {data!r} after {before!r}: stages on 'scenes' come first, "
                f'then those on {SAMPLES!r}'
            )
        stages.append(stage_of(settings, available))
    for stage in stages[:-1]:
        if stage.updates and stage.merge_weight != 1:
            raise ValueError(
                f'merge_weight of stage {stage.name!r} (energy.share) is not 1: only the last '
                'stage goes part of the way'
            )
    return stages


def stage_of(settings: dict[str, Any], available: Mapping[str, Any]) -> Stage:
    """One stage of `settings_of`, without its data."""
    lacking = {'recipe', 'updates', 'learning_rate'} - set(settings)
    if lacking:
        raise ValueError(f'a stage {settings} lacks {", ".join(sorted(lacking))}')
    recipe, target = settings.pop('recipe'), settings.pop('target', 'average')
    name = settings.pop('name', recipe if isinstance(recipe, str) else ' + '.join(recipe))
    if target not in ('average', 'previous'):
        raise ValueError(f"stage {name!r}: target is {target!r}, use 'average' or 'previous'")
    stage = Stage(
        name,
        settings.pop('updates'),
        settings.pop('learning_rate'),
        target == 'average',
        settings.pop('merge_weight', 1.0),
        settings.pop('frozen', ''),
    )
    if isinstance(recipe, str):
        made = registry.make(recipe, available, **settings)
    elif settings:
        raise ValueError(f'stage {name!r}: {", ".join(settings)} belongs to one recipe of the sum')
    else:
        made = registry.make_sum(recipe, available)
    return dataclasses.replace(stage, recipe=made)


def train_step(
    state, previous, base, teacher_params, recipe, batch, key, learning_rate, mask, *, tx,
    prepare, ema_decay,
):  # fmt: skip
    """One update of the student. `previous` is the target where it is not the average.

    The student's parameters are what is trained joined with `base`. Gradients are multiplied by
    `mask`, see `trainable_mask`.
    """
    key_batch, key_loss = jax.random.split(key)
    batch = prepare(batch, key_batch)
    target = low_rank.join(base, state.ema_params if previous is None else previous)

    def loss_fn(trained):
        params = low_rank.join(base, trained)
        loss, metrics = recipe.loss(params, target, teacher_params, batch, key_loss)
        return jnp.mean(loss), metrics

    grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params)
    grads = jax.tree.map(jnp.multiply, grads, mask)
    return apply_gradients(state, grads, tx, ema_decay, learning_rate), metrics


def trainable_mask(params: PyTree, frozen: str) -> PyTree:
    """1 for each parameter that a stage trains, 0 for those whose name has `frozen` in it."""
    mask = [not (frozen and re.search(frozen, name)) for name, _ in named_leaves(params)]
    return jax.tree.unflatten(jax.tree.structure(params), map(jnp.float32, mask))


def optimizer(learning_rate) -> optax.GradientTransformation:
    """Adam with clipping."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate, b2=0.99))


def distill(config, subject: DistillationSetup, data, workdir: pathlib.Path) -> PyTree | None:
    """All stages. Returns the averaged student, None if stopped."""
    sizes = [config.batch_size, *([config.energy.batch_size] if takes_samples(config) else [])]
    mesh = data_mesh(*sizes)
    places = ('teacher_params', 'student_params', 'base', 'teachers')
    subject = dataclasses.replace(
        subject, **{name: replicate(mesh, getattr(subject, name)) for name in places}
    )
    stages = plan(config, subject)
    total = sum(stage.updates for stage in stages)
    tx = with_learning_rate(optimizer)
    step_fn = jax.jit(
        functools.partial(train_step, tx=tx, prepare=subject.prepare, ema_decay=config.ema_decay)
    )
    state = {'step': jnp.zeros((), jnp.int32), 'previous': subject.student_params}
    state['student'] = create_state(subject.student_params, tx)  # it begins as its teacher
    key = random_key(config.seed)

    with (
        MetricWriter(workdir) as writer,
        Checkpointer(workdir / 'checkpoints') as checkpointer,
        StopRequest() as stop,
    ):
        state = checkpointer.restore(state, data) or state
        begin = 0
        for stage in stages:
            end = begin + stage.updates
            mask = trainable_mask(subject.student_params, stage.frozen)
            with Progress(total, stage.name, int(state['step'])) as progress:
                for step in range(max(begin, int(state['step'])), end):
                    if step == begin:  # the student so far becomes the teacher of this stage
                        state['previous'] = state['student'].ema_params
                        state['student'] = create_state(state['previous'], tx)
                    previous = None if stage.target_is_average else state['previous']
                    rate = stage.learning_rate * min(1.0, (end - step) / (0.5 * stage.updates))
                    batch = shard_batch(mesh, subject.to_batch(next(data)))
                    student, metrics = step_fn(
                        state['student'],
                        previous,
                        subject.base,
                        subject.teacher_params,
                        stage.recipe,
                        batch,
                        jax.random.fold_in(key, step),
                        rate,
                        mask,
                    )
                    done = step + 1
                    state = {**state, 'student': student, 'step': jnp.int32(done)}
                    if done % config.log_every == 0:
                        require_finite(metrics['loss'], step, checkpointer)
                        writer.write(done, metrics, stage.name)
                    progress.update(done, metrics['loss'])
                    if done % config.save_every == 0 or done == total or stop.requested:
                        require_finite(metrics['loss'], step, checkpointer, student.ema_params)
                        checkpointer.save(state, data)
                    if stop.requested:
                        return None
            begin = end
    before, after = (
        low_rank.join(subject.base, p) for p in (state['previous'], state['student'].ema_params)
    )
    return interpolate(before, after, stages[-1])


def interpolate(before: PyTree, after: PyTree, stage: Stage) -> PyTree:
    """Weights between those before and after a stage (Wortsman et al. 2022, arXiv 2109.01903).

    What a stage gains is kept longer than what it loses: here timing, see the config.
    """
    if not stage.updates or stage.merge_weight == 1:
        return after
    return jax.tree.map(
        lambda a, b: (1 - stage.merge_weight) * a + stage.merge_weight * b, before, after
    )


def main(argv):
    del argv
    config = _CONFIG.value
    workdir = pathlib.Path(run_workdir())
    enable_compilation_cache()
    if config.get('teacher') and not _TEACHER.value:
        raise ValueError(f'this config distils {config.teacher}: give its folder with --teacher')
    c = config.energy
    whole = require_data(_RECORDINGS.value, config.foley_weight, config.scene_seconds)
    if _TEACHER.value:
        refuse_ignored('--teacher', _STUDENT, _MULTI_TEACHER, _RELEASE, _EMBEDDER_WEIGHTS, _WORKERS)
        inputs = {'teacher': _TEACHER.value, 'recordings': _RECORDINGS.value}
        with run_folder(workdir, config, inputs) as workdir:
            if distill_foreign(config, workdir, _TEACHER.value, _RECORDINGS.value):
                print(finish_run(workdir))
        return
    trains_on_captions = takes_samples(config) or any(
        s.get('recipe') == 'multi_teacher' and s.get('updates') for s in settings_of(config)
    )
    takes_recordings = bool(trains_on_captions and c.recordings and whole)
    inputs = {
        'release': _RELEASE.value,
        'recordings': _RECORDINGS.value,
        'student': _STUDENT.value,
        'multi_teacher': list(_MULTI_TEACHER.value),
    }
    with run_folder(workdir, config, inputs) as workdir:
        if not train_release(config, workdir, takes_recordings):
            return
        print(finish_run(workdir, _EMBEDDER_WEIGHTS.value))


def train_release(config, workdir: pathlib.Path, takes_recordings: bool) -> bool:
    """Distils a release's teacher and saves the student as a release; False if stopped before."""
    began = time.monotonic()
    generator = Generator(find_release(_RELEASE.value))
    begun = [*filter(None, [_STUDENT.value]), *_MULTI_TEACHER.value]
    starts = [weights_of(name, STUDENT_NAME) for name in begun]
    note_recordings(workdir, _RECORDINGS.value, starts)
    encoders = load_frozen_encoders(_RELEASE.value)
    with Progress(config.scenes, 'scenes') as progress:
        source = scene_source(_RECORDINGS.value, config.foley_weight)
        scenes = latent_scenes(
            encoders, source, config.scenes, config.scene_seconds, config.seed,
            workdir / 'latents', lambda done, _: progress.update(done), _WORKERS.value,
        )  # fmt: skip
    recorded = None
    if takes_recordings:
        with Progress(config.energy.recordings, 'recordings') as progress:
            recorded = whole_latents(
                encoders,
                _RECORDINGS.value,
                config.energy.recordings,
                config.scene_seconds,
                config.seed,
                workdir / 'latents',
                lambda done, _: progress.update(done),
            )
    subject = subject_of(generator, config, _STUDENT.value, _MULTI_TEACHER.value)
    data = crops(config, subject, scenes, recorded, workdir)
    student = distill(config, subject, data, workdir)
    record_seconds(workdir, 'training', time.monotonic() - began, add=True)
    if student is None:
        return False
    release = dataclasses.replace(
        generator.config,
        student=StudentConfig(tuple(config.consistency.segments), tuple(config.guidance_range)),
        onset_lead_s=0.0,
    )
    save_release(workdir / 'release', release, {'student': student}, _RELEASE.value)
    write_attribution(workdir / 'release', [workdir], generator.folder)
    return True


def distill_foreign(config, workdir: pathlib.Path, folder: str, recordings: str | None) -> bool:
    """Distils a published model in its own latents and text states; False if stopped before."""
    if not config.get('teacher'):
        raise ValueError(
            'this config distils the teacher of a release; leave out --teacher, or give a config '
            'such as configs/distill_stable_audio_open.py'
        )
    teacher = load_teacher(config.teacher, folder)
    subject = teacher.subject(**config.absence)

    source = scene_source(recordings, config.foley_weight)
    with Progress(config.scenes, 'scenes') as progress:
        mixed = teacher_scenes(
            teacher, source, config.scenes, config.scene_seconds, config.seed,
            workdir / 'latents', lambda done, _: progress.update(done),
        )  # fmt: skip
    c = config.energy
    data = batches(mixed, config.batch_size, config.seed)
    if takes_samples(config):
        with Progress(config.scenes, 'teacher samples') as progress:
            samples = sample_pretrained_teacher(
                mixed, subject, config.guidance_range, c.answer_steps, c.answer_batch_size,
                config.seed, workdir / 'latents', progress.update,
            )  # fmt: skip
        scored = batches(samples, c.batch_size, config.seed + 1)
        data = InTurn(data, updates_on_scenes(config), scored)
    student = distill(config, subject, data, workdir)
    if student is None:
        return False
    facts = StudentConfig(tuple(config.consistency.segments), tuple(config.guidance_range))
    save_params(workdir / 'student' / STUDENT_NAME, student, {'teacher': config.teacher})
    PretrainedStudentConfig(config.teacher, facts).write(workdir / 'student')
    write_manifest(workdir / 'student', [STUDENT_NAME, CONFIG_NAME])
    return True


if __name__ == '__main__':
    run(main)
