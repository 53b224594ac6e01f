"""Metrics of a folder of sounds against another, or of a release or a run on held-out scenes.

python -m experiments.evaluate --run=DIR
python -m experiments.evaluate --generated=DIR --reference=DIR --embedder_weights=DIR --workdir=DIR
python -m experiments.evaluate --recordings=DIR --embedder_weights=DIR --workdir=DIR

Two folders need nothing but the files. Their embeddings are kept under the workdir, so a run that
was stopped goes on where it was, and a second one with other metrics embeds nothing again. Files
that cannot be read are left out, and the table says which and why. docs/metrics.md says what each
metric means.
"""

import dataclasses
import datetime
import pathlib

from absl import flags

from experiments.common import listed, run
from realaudio_jax.cache import enable_compilation_cache
from realaudio_jax.generator import load
from realaudio_jax.metrics.benchmarking import in_turn_row, latency_rows
from realaudio_jax.metrics.distances import DISTANCES, compare_folders, sound_files
from realaudio_jax.metrics.embedders.registry import NAMES, load_embedders, load_evaluators
from realaudio_jax.metrics.evaluation.adherence import class_rows, loudness_rows
from realaudio_jax.metrics.evaluation.generate import REFERENCE, SamplerConfig, SamplerSet
from realaudio_jax.metrics.evaluation.precision import step_cosine_row
from realaudio_jax.metrics.evaluation.release import evaluate_release
from realaudio_jax.metrics.evaluation.run import finish_run
from realaudio_jax.metrics.evaluation.scenes import held_out_scenes
from realaudio_jax.metrics.probe import probe_of_recordings
from realaudio_jax.report.summary import summarise
from realaudio_jax.report.tables import wide_table, write_results
from realaudio_jax.training.loop import Progress
from realaudio_jax.typing import MAX_SECONDS, MIN_SECONDS

_RUN = flags.DEFINE_string(
    'run', None, 'Folder of a distillation run: its metrics and report are made again.'
)
_GENERATED = flags.DEFINE_string('generated', None, 'Folder of sounds to evaluate.')
_REFERENCE = flags.DEFINE_string('reference', None, 'Folder of sounds to compare them with.')
_METRICS = flags.DEFINE_list('metrics', list(DISTANCES), f'Distances: {", ".join(DISTANCES)}.')
_EMBEDDER = flags.DEFINE_list('embedder', [], f'Of {", ".join(NAMES)}; none: all that are at hand.')
_WEIGHTS = flags.DEFINE_string('embedder_weights', None, "Folder of the embedder's weights.")
_RELEASE = flags.DEFINE_string(
    'release', 'foley', 'Name or folder; with --generated only its audio tower is used.'
)
_RECORDINGS = flags.DEFINE_string(
    'recordings', None, 'Folder of sounds, its held-out part; none: procedural foley.'
)
_SCENES = flags.DEFINE_integer('scenes', 128, 'Number of scenes.', lower_bound=2)
_SECONDS = flags.DEFINE_float('seconds', 10.0, 'Duration of each.', MIN_SECONDS, MAX_SECONDS)
_STEPS = flags.DEFINE_list('steps', ['4'], 'Step counts of the student.')
_DIVERSITY = flags.DEFINE_integer(
    'diversity_prompts', 0, 'Scenes of which several sounds are made, for their diversity.', 0
)
_PROBE = flags.DEFINE_integer(
    'probe_clips', 0, 'Sounds of each ESC-10 class by its name alone, for a linear probe.', 0
)
_LOUDNESS = flags.DEFINE_integer(
    'loudness_scenes', 0, 'Scenes whose loudness curve is asked for, and compared.', 0
)
_TEACHER = flags.DEFINE_bool(
    'teacher', True, 'Also the guided teacher, and what is measured against it.'
)
_INT8 = flags.DEFINE_bool(
    'int8', False, 'Also the student with products in int8, and its differences from float32.'
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of scenes, noise, halves and intervals.', lower_bound=0)
_WORKDIR = flags.DEFINE_string('workdir', 'runs/evaluate', 'Where results.json and results.md go.')


def evaluate_folders(
    generated, reference, embedder_names, release, embedder_weights, metrics, seed, workdir
) -> list[dict]:
    """Distances of the sounds in one folder to those in another, with the floor."""
    files = sum(len(sound_files(folder)) for folder in (generated, reference))
    embedders = load_embedders(embedder_names, release, embedder_weights)
    with Progress(files * len(embedders), 'embed') as progress:
        return compare_folders(
            generated,
            reference,
            embedders,
            metrics,
            pathlib.Path(workdir) / 'embeddings',
            seed,
            progress=progress.update,
            say=progress.say,
        )


def evaluate_held_out(
    release,
    recordings,
    embedder_weights,
    count,
    seconds,
    steps,
    seed,
    metrics=('fad',),
    diversity_prompts=0,
    probe_clips=0,
    loudness_scenes=0,
    workdir='runs/evaluate',
    int8=False,
    teacher=True,
) -> list[dict]:
    """The student at each step count and the guided teacher at 4 and 50, floor and ceiling."""
    generator = load(release)
    further = [SamplerConfig('teacher', 4), REFERENCE]
    compared = SamplerSet.with_equal_teachers(steps, further)
    for sampler in compared.samplers:
        sampler.check(generator.config)
    tower, embedders = load_evaluators(generator.folder, embedder_weights)
    probe = None
    if probe_clips:
        if not (recordings and embedder_weights):
            raise ValueError('--probe_clips needs --recordings and --embedder_weights')
        kept = pathlib.Path(workdir) / 'embeddings'
        probe = probe_of_recordings(recordings, embedders[0], kept)
    scenes, others = held_out_scenes(recordings, count, seconds, seed)
    if not teacher:
        compared = SamplerSet(compared.students, ())
    samplers, equal = compared.samplers, compared.equal_pairs
    rounded = [
        (dataclasses.replace(student, precision='int8'), student)
        for student in compared.students
        if int8
    ]
    samplers += [sampler for sampler, _ in rounded]
    curved = scenes[:loudness_scenes]
    total = count * (len(samplers) + 2) + len(samplers) * len(curved)
    total += len(samplers) * probe_clips * (len(probe.classes) if probe else 0)
    total += len(equal) + len(samplers) + 2 * len(rounded)  # differences, times
    with Progress(total, 'evaluate') as progress:
        say = progress.update_part
        rows = evaluate_release(
            generator,
            scenes,
            samplers,
            tower,
            embedders,
            others,
            reference=REFERENCE if teacher else None,
            seed=seed,
            progress=say,
            latency_repeats=0,
            distances=metrics,
            diversity_prompts=diversity_prompts,
            comparisons=equal + rounded,
        )
        if curved:
            rows += loudness_rows(generator, curved, samplers, seed, say)
        if probe:
            rows += class_rows(
                generator,
                samplers,
                probe,
                embedders[0],
                probe_clips,
                seed=seed,
                progress=say,
                comparisons=rounded,
            )
        for i, sampler in enumerate(samplers, 1):
            rows += latency_rows(generator, scenes[0], sampler)
            say('times', i, len(samplers))
        for i, pair in enumerate(rounded, 1):
            rows.append(step_cosine_row(generator, scenes, *pair, seed=seed))
            rows.append(in_turn_row(generator, scenes[0], *pair))
            say('int8', i, len(rounded))
    return rows


def evaluate_run_folder() -> None:
    """Calibration, where it is not yet done, and evaluation of a run folder, without training."""
    for flag in (_GENERATED, _REFERENCE, _RECORDINGS, _RELEASE, _WORKDIR, _STEPS):
        if flag.present:
            raise ValueError(f'--{flag.name} and --run do not go together; the run has its own')
    workdir = pathlib.Path(_RUN.value).expanduser()
    names = {'seed': _SEED, 'eval_scenes': _SCENES, 'eval_seconds': _SECONDS}
    changes = {name: flag.value for name, flag in names.items() if flag.present}
    enable_compilation_cache()
    print(finish_run(workdir, _WEIGHTS.value, changes))


def main(argv):
    del argv
    if _RUN.value:
        evaluate_run_folder()
        return
    if (_GENERATED.value is None) != (_REFERENCE.value is None):
        raise ValueError('--generated and --reference go together; give both')
    if _GENERATED.value:
        rows = evaluate_folders(
            _GENERATED.value,
            _REFERENCE.value,
            _EMBEDDER.value,
            _RELEASE.value,
            _WEIGHTS.value,
            _METRICS.value,
            _SEED.value,
            _WORKDIR.value,
        )
    else:
        rows = evaluate_held_out(
            _RELEASE.value,
            _RECORDINGS.value,
            _WEIGHTS.value,
            _SCENES.value,
            _SECONDS.value,
            listed(_STEPS),
            _SEED.value,
            _METRICS.value,
            _DIVERSITY.value,
            _PROBE.value,
            _LOUDNESS.value,
            _WORKDIR.value,
            _INT8.value,
            _TEACHER.value,
        )
    common = {'seed': _SEED.value, 'date': datetime.date.today().isoformat()}
    rows = [row | common for row in rows]
    write_results(_WORKDIR.value, rows, 'Evaluation')
    print(wide_table(rows) if _GENERATED.value else summarise(rows).markdown())


if __name__ == '__main__':
    run(main)
