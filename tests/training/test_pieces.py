"""Commands within a budget: told to save, resumed in the right piece, failures named."""

import json
import pathlib
import time

import pytest

from realaudio_jax.training.loop import StopRequest
from realaudio_jax.training.pieces import Piece, run_pieces, run_process


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """`fake(source)` is a piece of one command, whose process runs this source."""
    monkeypatch.chdir(tmp_path)

    def piece(source, **more):
        (tmp_path / 'fake.py').write_text(source)
        return Piece('fake', (('fake', str(tmp_path / 'made')),), tmp_path / 'made', **more)

    return piece


SAVES = """
import pathlib, signal, sys, time
saved = pathlib.Path('saved')
signal.signal(signal.SIGTERM, lambda *_: sys.exit(saved.write_text('1')and 0))
if not saved.exists():
    time.sleep(30)
pathlib.Path(sys.argv[1]).write_text('made')
"""


def test_a_piece_is_told_to_save_before_the_budget_ends_and_goes_on(fake, tmp_path):
    piece, begin = fake(SAVES), time.monotonic()
    assert run_pieces([piece], tmp_path, StopRequest(), budget_s=3.0, stop_s=2.0) == 'fake'
    assert time.monotonic() - begin < 3.0
    assert run_pieces([piece], tmp_path, StopRequest(), budget_s=30.0, stop_s=2.0) is None
    assert (tmp_path / 'made').read_text() == 'made'
    assert json.loads((tmp_path / 'progress.json').read_text())['fake']['starts'] == 2
    assert run_pieces([fake('1 / 0')], tmp_path, StopRequest()) is None  # it has ended


def test_a_piece_that_fails_or_leaves_nothing_is_an_error(fake, tmp_path):
    with pytest.raises(ValueError, match='fake ended with status 1'):
        run_pieces([fake('1 / 0')], tmp_path, StopRequest())
    with pytest.raises(ValueError, match='left no'):
        run_pieces([fake('')], tmp_path, StopRequest())


HAS_A_WORKER = """
import pathlib, subprocess, sys, time
worker = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
pathlib.Path('worker').write_text(str(worker.pid))
time.sleep(60)
"""


def test_workers_end_with_a_process_that_was_stopped(fake, tmp_path):
    assert run_pieces([fake(HAS_A_WORKER)], tmp_path, StopRequest(), 3.0, 2.0) == 'fake'
    worker = pathlib.Path('/proc') / (tmp_path / 'worker').read_text()
    for _ in range(50):  # until it has gone, or waits for somebody to ask for its status
        if not worker.exists() or (worker / 'stat').read_text().split()[2] == 'Z':
            return
        time.sleep(0.1)
    raise AssertionError('the worker still runs')


def test_nothing_is_begun_where_no_time_is_left(fake, tmp_path):
    piece = fake('raise SystemExit(1)')
    assert run_pieces([piece], tmp_path, StopRequest(), budget_s=1.0, stop_s=2.0) == 'fake'


APPENDS = """
import pathlib, sys
*given, out = map(pathlib.Path, sys.argv[1:])
out.write_text(''.join(path.read_text() for path in given) + out.name + '\\n')
"""


@pytest.mark.parametrize('stops', [False, True])
def test_stopped_after_every_command_it_goes_on_in_the_right_piece(fake, tmp_path, stops):
    """Each command writes what it was given and its own name; the second piece has two."""
    fake(APPENDS)
    a, b, c, d = (str(tmp_path / name) for name in 'abcd')
    pieces = [
        Piece('first', (('fake', a),), tmp_path / 'a'),
        Piece('second', (('fake', a, b), ('fake', a, b, c)), tmp_path / 'c'),
        Piece('third', (('fake', c, d),), tmp_path / 'd'),
    ]
    begun = []

    def run_command(command, seconds, stop):
        stop.requested = stops and command not in begun
        begun.append(command)
        return run_process(command, seconds, StopRequest())

    stopped = []
    while (
        name := run_pieces(pieces, tmp_path, StopRequest(), run_command=run_command)
    ) is not None:
        stopped.append(name)
    assert (tmp_path / 'd').read_text() == 'a\na\nb\nc\nd\n'
    assert stopped == (['second', 'second', 'third'] if stops else [])
    assert begun.count(('fake', a)) == begun.count(('fake', c, d)) == 1
