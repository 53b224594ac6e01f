"""What a machine with a GPU is used for, in calls of any length: tests, a release, times, parts.

    python tools/on_gpu.py --recordings=packed --workdir=runs/gpu --out=out --budget_s=540

Runs the tests marked `gpu`, then every piece of `experiments.make_release` with
`configs/release.py:gpu`, then the latency of the base model beside the release, each way to compute
it by itself (`systems.EXECUTIONS`), and leaves in --out what is to be brought home: summary.json, a
profile, and the new files of the release in parts below 16 MB. The same command goes on where it
stopped; its status is then 130. `--only=times` runs the pieces whose names begin so: the
latencies alone need no recordings, and some 15 minutes.
"""

import argparse
import json
import os
import pathlib
import shutil
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402

from configs import release as release_config  # noqa: E402
from experiments import make_release, systems  # noqa: E402
from realaudio_jax.training.loop import STOPPED, StopRequest  # noqa: E402
from realaudio_jax.training.pieces import PROGRESS_NAME, Piece, run_pieces  # noqa: E402


def pieces_of(config, workdir: pathlib.Path, recordings: str | None) -> list[Piece]:
    """Tests, the release, times of one sound, and parts of the release, in order."""
    tests, times, parts = workdir / 'tests.xml', workdir / 'benchmark', workdir / 'parts'
    release = workdir / 'release'
    return [
        Piece(
            'tests',
            (('pytest', '-n', '0', '-m', 'gpu', f'--junit-xml={tests}', str(ROOT / 'tests')),),
            tests,
            may_fail=True,
        ),
        *make_release.pieces_of(config, workdir, recordings, None),
        Piece(
            'release times',
            (
                (
                    'experiments.benchmark',
                    '--rows=student,teacher,base',
                    '--dtype=bfloat16',
                    f'--release={release}',
                    f'--workdir={times}',
                ),
            ),
            times / 'results.json',
            may_fail=True,
        ),
        *(
            Piece(f'times {name}', (times_of(name, workdir),), results, may_fail=True)
            for name, results in timed(workdir).items()
        ),
        Piece(
            'parts',
            (
                (
                    'experiments.parts',
                    f'--split={release}',
                    f'--new_to={config.base}',
                    '--part_mb=15',
                    f'--out={parts}',
                ),
            ),
            parts / 'SHA256SUMS',
        ),
    ]


def timed(workdir: pathlib.Path) -> dict[str, pathlib.Path]:
    """Rows that are timed one by one, each with its file of results."""
    names = (*systems.EXECUTIONS, 'student', 'student_int8')
    return {name: workdir / f'times_{name}' / 'results.json' for name in names}


def times_of(name: str, workdir: pathlib.Path) -> tuple[str, ...]:
    """The command that times a row and keeps a profile of it."""
    return (
        'experiments.benchmark',
        f'--rows={name}',
        '--dtype=bfloat16',
        '--evaluations=0',
        '--repeats=50',
        f'--profile={workdir / "profile"}',
        f'--workdir={timed(workdir)[name].parent}',
    )


def bring(workdir: pathlib.Path, out: pathlib.Path) -> None:
    """Copies parts and one summary, of progress and of all rows that were measured, to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    results = {name: workdir / name / 'results.json' for name in ('evaluation', 'benchmark')}
    rows = {
        name: json.loads(path.read_text())
        for name, path in (results | timed(workdir)).items()
        if path.is_file()
    }
    progress = json.loads((workdir / PROGRESS_NAME).read_text())
    summary = {'progress': progress, **rows}
    (out / 'summary.json').write_text(json.dumps(summary, indent=1) + '\n')
    for name in ('tests.xml', 'teacher/metrics.jsonl'):
        if (workdir / name).is_file():
            shutil.copy(workdir / name, out)
    for path in (workdir / 'parts').glob('*'):
        shutil.copy(path, out)
    for path in (workdir / 'profile').rglob('*.xplane.pb'):
        shutil.copy(path, out / f'{path.relative_to(workdir / "profile").parts[0]}.xplane.pb')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--recordings', help='folder of sounds, or of parts of one')
    parser.add_argument('--workdir', type=pathlib.Path, default=pathlib.Path('runs/gpu'))
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('out'))
    parser.add_argument('--budget_s', type=float, default=0.0, help='0: go on to the end')
    parser.add_argument('--only', default='', help='beginning of the names of pieces to run')
    parser.add_argument('--variant', default='gpu', help='of configs/release.py')
    given = parser.parse_args()
    jax.config.update('jax_platforms', 'cpu')  # the GPU's memory is for the processes begun here
    os.environ.setdefault('JAX_PLATFORMS', 'cuda,cpu')  # of those
    config = release_config.get_config(given.variant)
    given.workdir.mkdir(parents=True, exist_ok=True)
    make_release.keep_compiled(given.workdir)
    recordings = make_release.joined(given.recordings, given.workdir)
    pieces = pieces_of(config, given.workdir, recordings)
    pieces = [piece for piece in pieces if piece.name.startswith(given.only)]
    try:
        with StopRequest() as stop:
            stopped = run_pieces(
                pieces,
                given.workdir,
                stop,
                given.budget_s,
                config.stop_s,
            )
    finally:
        bring(given.workdir, given.out)
    print(f'stopped in {stopped!r}: go on with the same command' if stopped else 'done')
    sys.exit(STOPPED if stopped else 0)


if __name__ == '__main__':
    main()
