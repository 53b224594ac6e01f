"""Makes a release from recordings: all experiments that it takes, in order, stopped and resumed.

python -m experiments.make_release --config=configs/release.py --recordings=DIR --workdir=DIR
python -m experiments.make_release --config=configs/release.py:gpu --recordings=DIR \
    --workdir=DIR --budget_s=540

Autoencoder, teacher, student, calibration and evaluation are the experiments of these names, each
in a process of its own whose command line is printed. With --budget_s, what runs when the time is
nearly over is told to save, and the same command goes on from there, to the same result.
--recordings is a folder of recordings, or of parts that `experiments.pack_data` made. The release
is WORKDIR/release.
"""

import os
import pathlib
import sys

import jax
from absl import flags

from experiments.common import define_config, define_workdir, run, run_workdir, say
from realaudio_jax.parts import is_split, join
from realaudio_jax.training.loop import STOPPED, StopRequest
from realaudio_jax.training.pieces import Command, Piece, given, run_pieces
from realaudio_jax.training.run_folder import run_folder

_CONFIG = define_config('configs/release.py')
define_workdir()
_RECORDINGS = flags.DEFINE_string(
    'recordings', None, 'Folder of sounds, packed or not; none: procedural foley alone.'
)
_WEIGHTS = flags.DEFINE_string(
    'embedder_weights', None, 'Folder of YAMNet weights, for an independent evaluator.'
)
_BUDGET = flags.DEFINE_float(
    'budget_s', 0.0, 'Stop cleanly before so many seconds; 0: go on to the end.', lower_bound=0.0
)


def pieces_of(
    config, workdir: pathlib.Path, recordings: str | None, embedder_weights: str | None
) -> list[Piece]:
    """What makes a release, in order.

    Args:
        config: see `configs/release.py`.
        workdir: of all of it.
        recordings, embedder_weights: folders, or None.
    """
    autoencoder = workdir / 'autoencoder' / 'autoencoder.safetensors'
    teacher = workdir / 'teacher' / 'teacher.safetensors'
    guided = workdir / 'guided'  # the teacher as a release, from which the student is distilled
    student = workdir / 'student' / 'release' / 'student.safetensors'
    release, evaluation = workdir / 'release', workdir / 'evaluation'
    sounds = given(recordings=recordings)
    mixing = given(workers=config.workers or None)

    def training(module: str, settings, folder: pathlib.Path) -> Command:
        return module, *config_of(settings), *sounds, *given(workdir=folder)

    train_autoencoder = training(
        'experiments.train_autoencoder', config.autoencoder, autoencoder.parent
    )
    train_teacher = (
        *training('experiments.train_teacher', config.teacher, teacher.parent),
        *given(release=config.base, autoencoder=autoencoder),
        *mixing,
    )
    pack_teacher = (
        'experiments.pack_release',
        *given(base=config.base, autoencoder=autoencoder, teacher=teacher),
        *given(labels=recordings, out=guided),
    )
    distill = (
        *training('experiments.distill', config.distill, workdir / 'student'),
        *given(release=guided),
        *mixing,
        '--noevaluate',
    )
    pack_student = (
        'experiments.pack_release',
        *given(base=student.parent, student=student, out=release),
    )
    calibrate = (
        'experiments.calibrate',
        *given(release=release),
        *sounds,
        *given(**config.calibration),
    )
    evaluate = (
        'experiments.evaluate',
        *given(release=release, embedder_weights=embedder_weights, workdir=evaluation),
        *sounds,
        *given(**config.evaluation),
    )
    return [
        Piece('autoencoder', (train_autoencoder,), autoencoder),
        Piece('teacher', (train_teacher,), teacher),
        Piece('packed teacher', (pack_teacher,), guided / 'config.json'),
        Piece('student', (distill,), student),
        # Calibration adds to what a release has, so one that was stopped begins with a new release.
        Piece('release', (pack_student, calibrate), release / 'config.json'),
        Piece('evaluation', (evaluate,), evaluation / 'results.json'),
    ]


def config_of(section) -> tuple[str, ...]:
    """--config of an experiment, and --config.KEY=VALUE of each of the nested settings."""

    def flat(settings, prefix):
        for name, value in settings.items():
            if hasattr(value, 'items'):
                yield from flat(value, f'{prefix}.{name}')
            else:
                yield f'--{prefix}.{name}={value}'

    return f'--config={section.config}', *flat(section.settings, 'config')


def joined(recordings: str | None, workdir: pathlib.Path) -> str | None:
    """The folder of recordings; joined in the workdir where `recordings` holds parts of it."""
    if not recordings or not is_split(recordings):
        return recordings
    folder = workdir / 'recordings'
    if not folder.exists():
        join(recordings, folder)
    return str(folder)


def keep_compiled(workdir: pathlib.Path) -> None:
    """Lets the processes begun from here share compiled programs: one that goes on has them."""
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(workdir.absolute() / 'compiled'))


def main(argv):
    del argv
    jax.config.update('jax_platforms', 'cpu')  # a GPU's memory is for the experiments alone
    config = _CONFIG.value
    inputs = {'recordings': _RECORDINGS.value, 'embedder_weights': _WEIGHTS.value}
    with run_folder(run_workdir(), config, inputs) as workdir, StopRequest() as stop:
        keep_compiled(workdir)
        recordings = joined(_RECORDINGS.value, workdir)
        pieces = pieces_of(config, workdir, recordings, _WEIGHTS.value)
        stopped = run_pieces(pieces, workdir, stop, _BUDGET.value, config.stop_s)
    if stopped:
        say(f'stopped in {stopped!r}: go on with the same command')
        sys.exit(STOPPED)
    say(f'done: the release is {workdir / "release"}, its metrics {workdir / "evaluation"}')


if __name__ == '__main__':
    run(main)
