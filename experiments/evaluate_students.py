"""The metrics of several students of one teacher on the same scenes, from the same noise.

python -m experiments.evaluate_students --students=runs/a/release,runs/b/release --workdir=DIR

What students share is made once: scenes, the teacher's sounds, compiled programs. Each student's
metrics are kept as they are made (DIR/students/NAME.json, NAME is the folder of its run), so the
same command goes on where it was stopped. They are evaluated as they were trained: a release with
moment matching is refused, but for the one of --shipped, which stands beside them as it is.
results.json has the rows of all, with their differences from the teacher's 50 steps and, with
--against, from some of them: scene by scene from the same noise, with paired intervals.
"""

import json
import pathlib
import sys

from absl import flags

from experiments.common import listed, run, say
from realaudio_jax import audio as audio_lib
from realaudio_jax.cache import enable_compilation_cache
from realaudio_jax.io import atomic_path, write_audio
from realaudio_jax.metrics.distances import DISTANCES, check_distances
from realaudio_jax.metrics.embedders.registry import embedders_in, load_embedder, load_evaluators
from realaudio_jax.metrics.evaluation.generate import (
    GeneratedBatch,
    SamplerConfig,
    SamplerSet,
)
from realaudio_jax.metrics.evaluation.scenes import held_out_scenes
from realaudio_jax.metrics.evaluation.students import SHIPPED, StudentEvaluator, labels_of
from realaudio_jax.release import find_release
from realaudio_jax.report.tables import write_results
from realaudio_jax.training.loop import STOPPED, Progress, StopRequest
from realaudio_jax.training.run_folder import run_folder
from realaudio_jax.typing import MAX_SECONDS, MIN_SECONDS, SAMPLE_RATE

_STUDENTS = flags.DEFINE_list('students', [], 'Releases of the students.')
_SHIPPED = flags.DEFINE_string(
    'shipped', None, 'A release whose student is evaluated as it is, moment matching included.'
)
_AGAINST = flags.DEFINE_list(
    'against',
    [],
    'Students from which the differences of all others are measured: names of the folders of their '
    'runs, or "shipped".',
)
_RECORDINGS = flags.DEFINE_string(
    'recordings', None, 'Folder of sounds, its held-out part; none: procedural foley.'
)
_WEIGHTS = flags.DEFINE_string(
    'embedder_weights', None, 'Folder with weights of embedders, in it or in folders below it.'
)
_EMBEDDER = flags.DEFINE_list('embedder', [], 'Which of them; none: all that are there.')
_SCENES = flags.DEFINE_integer('scenes', 64, 'Number of scenes.', lower_bound=2)
_SECONDS = flags.DEFINE_float('seconds', 5.0, 'Duration of each.', MIN_SECONDS, MAX_SECONDS)
_STEPS = flags.DEFINE_list('steps', ['8', '4', '2', '1'], 'Step counts of the students.')
_METRICS = flags.DEFINE_list('metrics', ['fad_inf', 'kad'], f'Distances: {", ".join(DISTANCES)}.')
_DIVERSITY = flags.DEFINE_integer(
    'diversity_prompts', 0, 'Scenes of which several sounds are made, for their diversity.', 0
)
_TIMES = flags.DEFINE_bool('times', False, 'Measure the time of a sound at each step count.')
_KEEP = flags.DEFINE_integer(
    'keep', 0, 'Scenes whose sounds are kept, of 4 steps or the nearest.', 0
)
_RESAMPLES = flags.DEFINE_integer('resamples', 100, 'Draws of the intervals.', lower_bound=2)
_SEED = flags.DEFINE_integer('seed', 0, 'Of scenes, noise and intervals.', lower_bound=0)
_WORKDIR = flags.DEFINE_string('workdir', 'runs/evaluate_students', 'Where results.json goes.')
SHARED = 'shared'  # the rows of the teacher and of real sounds


def main(argv):
    del argv
    students = dict(labels_of([pathlib.Path(folder) for folder in _STUDENTS.value]))
    if not students:
        raise ValueError('--students names no release')
    if _SHIPPED.value:
        students[SHIPPED] = find_release(_SHIPPED.value)
    for name in _AGAINST.value:
        if name not in students:
            raise ValueError(f'--against has no {name!r}: there are {", ".join(students)}')
    enable_compilation_cache()
    steps = listed(_STEPS)
    settings = {
        flag.name: flag.value
        for flag in (
            *(_SCENES, _SECONDS, _STEPS, _METRICS, _EMBEDDER, _DIVERSITY, _SEED, _RESAMPLES),
            _AGAINST,
        )
    }
    inputs = {
        'recordings': _RECORDINGS.value,
        'embedder_weights': _WEIGHTS.value,
        'shipped': _SHIPPED.value,
    }
    with run_folder(_WORKDIR.value, settings, inputs) as workdir, StopRequest() as stop:
        files = {name: workdir / 'students' / f'{name}.json' for name in (SHARED, *students)}
        left = [name for name, file in files.items() if not file.is_file()]
        if left:
            stopped = evaluate(students, files, left, workdir, steps, stop)
            if stopped:
                say('stopped; go on with the same command')
                sys.exit(STOPPED)
        rows = [row for file in files.values() for row in json.loads(file.read_text())]
        common = {'seed': _SEED.value, 'seconds': _SECONDS.value}
        write_results(workdir, [row | common for row in rows], 'Students of one teacher')


def evaluate(students, files, left, workdir, steps, stop) -> bool:
    """Evaluates those that are left, each into its file; whether it was stopped before the end."""
    first = next(iter(students.values()))
    tower, _ = load_evaluators(first)
    embedders = []
    if _WEIGHTS.value:
        found = embedders_in(_WEIGHTS.value, _EMBEDDER.value)
        embedders = [load_embedder(name, folder) for name, folder in found.items()]
    count, nearest = _SCENES.value, min(steps, key=lambda n: abs(n - 4))
    scenes, others = held_out_scenes(_RECORDINGS.value, count, _SECONDS.value, _SEED.value)

    def write(name, rows):
        files[name].parent.mkdir(exist_ok=True)
        with atomic_path(files[name]) as temporary:
            temporary.write_text(json.dumps(rows, indent=2) + '\n', encoding='utf-8')

    def keeper(name):
        def keep(sampler: SamplerConfig, made: GeneratedBatch) -> None:
            if sampler.steps == nearest:
                for i, sound in enumerate(made.sounds[: _KEEP.value]):
                    path = workdir / 'samples' / f'{i}-{name}.wav'
                    write_audio(path, audio_lib.from_pcm16(sound), SAMPLE_RATE)

        return keep

    teachers = SamplerSet.with_equal_teachers(steps, []).teachers if SHARED in left else ()
    rest = [name for name in left if name not in _AGAINST.value and name != SHARED]
    against = [name for name in _AGAINST.value if rest or name in left]
    order = [*([SHARED] if SHARED in left else []), *against, *rest]
    of_students = len(steps) * len([*against, *rest])
    sets = 1 + len(teachers) + of_students  # the reference first
    with Progress(sets * count, 'students') as progress:
        evaluator = StudentEvaluator(
            first,
            scenes,
            others,
            tower,
            embedders,
            steps,
            check_distances(_METRICS.value),
            _DIVERSITY.value,
            _SEED.value,
            _RESAMPLES.value,
            progress=progress.update_part,
        )
        for name in order:  # a student that others are compared with is measured again if need be
            if stop.requested:
                return True
            if name == SHARED:
                rows = evaluator.shared_rows()
                rows += evaluator.time_rows() if _TIMES.value else []
            else:
                rows = evaluator.student_rows(
                    students[name],
                    name,
                    keeper(name),
                    as_shipped=name == SHIPPED,
                    to_compare=name in _AGAINST.value,
                )
                rows = [row | {'student': name} for row in rows]
            if name in left:
                write(name, rows)
    return False


if __name__ == '__main__':
    run(main)
