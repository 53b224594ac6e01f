"""Long work as commands in processes of their own, within a budget of time, resumed where it was.

    stopped = run_pieces(pieces, workdir, stop, budget_s=540, stop_s=45)

Each piece names the file that is there when it has ended. When the budget is nearly over, the
command that runs is sent SIGTERM, at which training saves; the next call gives it once more.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from realaudio_jax.io import atomic_path
from realaudio_jax.training.loop import STOPPED, StopRequest, print_to_stderr

PROGRESS_NAME = 'progress.json'
KILL_AFTER_S = 30.0  # that a process may go on for after it was told to save
_LOOK_S = 0.1  # between two looks at a process

Command = tuple[str, ...]  # a module that `python -m` runs, and its arguments
# (command, seconds it has, None: no end; stop) -> status, None where it was told to stop
Runner = Callable[[Command, float | None, StopRequest], int | None]


@dataclasses.dataclass(frozen=True)
class Piece:
    """Commands that run one after another; a piece that was stopped begins with the first again.

    Attributes:
        name: of the piece.
        commands: modules with their arguments. One that trains goes on where it was.
        made: file that is there when the last one has ended.
        may_fail: a failure is noted, and what follows runs all the same.
    """

    name: str
    commands: tuple[Command, ...]
    made: pathlib.Path
    may_fail: bool = False


def run_pieces(
    pieces: Sequence[Piece],
    workdir: pathlib.Path,
    stop: StopRequest,
    budget_s: float = 0.0,
    stop_s: float = 0.0,
    run_command: Runner | None = None,
) -> str | None:
    """Runs the pieces that have not ended, and notes in progress.json how far they are.

    Args:
        pieces: in order.
        workdir: holds progress.json.
        stop: a request to stop.
        budget_s: of this call, seconds; 0 is without end.
        stop_s: so long before the end of the budget a command is told to save, and none is begun.
        run_command: runs one command; None is `run_process`.

    Returns:
        The name of the piece with which the next call goes on; None where all have ended.

    Raises:
        ValueError: a command failed, or left nothing.
    """
    run_command = run_command or run_process
    end = time.monotonic() + budget_s - stop_s if budget_s else None
    path = workdir / PROGRESS_NAME
    progress = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}

    def keep() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(progress, indent=2) + '\n', encoding='utf-8')

    def seconds_left() -> float | None:
        return None if end is None else end - time.monotonic()

    def no_time() -> bool:
        return stop.requested or (end is not None and seconds_left() <= 0)

    def ends(piece: Piece) -> bool:
        for command in piece.commands:
            if no_time():
                return False
            print_to_stderr(f'{piece.name}: {shlex.join(("python", "-m", *command))}')
            status = run_command(command, seconds_left(), stop)
            if status is None:
                return False
            if status:
                raise ValueError(
                    f'{piece.name}: {command[0]} ended with status {status}; what it said stands '
                    'above, and the same command tries again'
                )
        if not piece.made.exists() and not no_time():  # else it saved, and left
            raise ValueError(f'{piece.name}: {command[0]} ended and left no {piece.made}')
        return piece.made.exists()

    for piece in pieces:
        known = progress.setdefault(piece.name, {'ended': False, 'seconds': 0.0, 'starts': 0})
        if known['ended'] and (piece.made.exists() or piece.may_fail):
            continue
        known['starts'] += 1
        keep()
        begin = time.monotonic()
        try:
            known['ended'] = ends(piece)
        except ValueError as error:
            if not piece.may_fail:
                raise
            print_to_stderr(str(error))
            known |= {'ended': True, 'failed': str(error)}
        known['seconds'] = round(known['seconds'] + time.monotonic() - begin, 1)
        keep()
        if not known['ended']:
            return piece.name
    return None


def run_process(command: Command, seconds: float | None, stop: StopRequest) -> int | None:
    """Runs a module; tells it to save when its seconds are over or this process shall stop.

    Args:
        command: the module's name and its arguments.
        seconds: until then; None is without end.
        stop: of this process.

    Returns:
        Its status, or None where it was told to stop and did not end by itself.
    """
    begin, told = time.monotonic(), None
    # A group of its own: Ctrl-C reaches it through this process alone, and so once.
    process = subprocess.Popen([sys.executable, '-m', *command], process_group=0)
    try:
        while process.poll() is None:
            now = time.monotonic()
            if told is None and (stop.requested or (seconds is not None and now - begin > seconds)):
                process.terminate()
                told = now
            if told is not None and now - told > KILL_AFTER_S:
                break
            time.sleep(_LOOK_S)
    finally:
        with contextlib.suppress(ProcessLookupError):  # workers outlive a process that was killed
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if told is not None and process.returncode in (-signal.SIGTERM, -signal.SIGKILL, STOPPED):
        return None
    return process.returncode


def given(**values: object) -> Command:
    """--NAME=VALUE of each value that is not None."""
    return tuple(f'--{name}={value}' for name, value in values.items() if value is not None)
