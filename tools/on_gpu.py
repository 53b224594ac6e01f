"""What a machine with a GPU is used for, in calls of any length: tests, a release, times, parts.

    python tools/on_gpu.py --recordings=packed --workdir=runs/gpu --out=out --budget_s=540

Runs the tests marked `gpu`, then every piece of `experiments.make_release` with
`configs/release.py:gpu`, then the latency of the base model beside the release, and leaves in --out
what is to be brought home: summary.json, and the new files of the release in parts below 16 MB.
The same command goes on where it stopped; its status is then 130.
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
from experiments import make_release  # noqa: E402
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
            'times',
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


def bring(workdir: pathlib.Path, out: pathlib.Path) -> None:
    """Copies parts and one summary, of progress and of all rows that were measured, to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    rows = {
        name: json.loads((workdir / name / 'results.json').read_text())
        for name in ('evaluation', 'benchmark')
        if (workdir / name / 'results.json').is_file()
    }
    progress = json.loads((workdir / PROGRESS_NAME).read_text())
    summary = {'progress': progress, **rows}
    (out / 'summary.json').write_text(json.dumps(summary, indent=1) + '\n')
    for name in ('tests.xml', 'teacher/metrics.jsonl'):
        if (workdir / name).is_file():
            shutil.copy(workdir / name, out)
    for path in (workdir / 'parts').glob('*'):
        shutil.copy(path, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--recordings', help='folder of sounds, or of parts of one')
    parser.add_argument('--workdir', type=pathlib.Path, default=pathlib.Path('runs/gpu'))
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('out'))
    parser.add_argument('--budget_s', type=float, default=0.0, help='0: go on to the end')
    parser.add_argument('--variant', default='gpu', help='of configs/release.py')
    given = parser.parse_args()
    jax.config.update('jax_platforms', 'cpu')  # the GPU's memory is for the processes begun here
    os.environ.setdefault('JAX_PLATFORMS', 'cuda,cpu')  # of those
    config = release_config.get_config(given.variant)
    given.workdir.mkdir(parents=True, exist_ok=True)
    make_release.keep_compiled(given.workdir)
    recordings = make_release.joined(given.recordings, given.workdir)
    try:
        with StopRequest() as stop:
            stopped = run_pieces(
                pieces_of(config, given.workdir, recordings),
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
