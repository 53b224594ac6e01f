"""Tools of the visible training loop: progress, polite stop, finite-loss check, error lines."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

from realaudio_jax import processes
from realaudio_jax.typing import Array, PyTree

TRACEBACK_VARIABLE = 'REALAUDIO_TRACEBACK'
STOPPED = 130  # status after Ctrl-C, as shells give it
AGREE_EVERY = 10  # updates between two questions of the processes of a run whether to stop


class NonFiniteLossError(ArithmeticError):
    """The loss or the parameters became infinite or not a number."""


def print_to_stderr(line: str) -> None:
    """Prints a line to standard error, where no progress bar runs."""
    print(line, file=sys.stderr, flush=True)


class Progress:
    """Stage, step, loss and time left: a bar on a terminal, otherwise a plain line now and then.

    The loss may be a device array: it is fetched only when something is shown, so the loop keeps
    running ahead of the device.

    Args:
        total: step at which the stage ends.
        stage: name shown first.
        start: step at which this run starts (a resumed one: the restored step).
        silent: show nothing; so does every process of a run but the first.
        stream: text stream to write to; standard error by default.
        every_s: least time between two plain lines, in seconds.
    """

    def __init__(
        self,
        total: int,
        stage: str,
        start: int = 0,
        silent: bool = False,
        stream: Any = None,
        every_s: float = 10.0,
    ):
        silent = silent or not processes.is_first()
        self.total, self.stage, self.start, self.silent = total, stage, start, silent
        self._stream = sys.stderr if stream is None else stream
        self._begin = time.monotonic()
        self._bar = None
        self._every_s = every_s
        if not silent and self._stream.isatty():
            self._every_s = 0.25
            self._bar = tqdm(
                total=total,
                initial=start,
                desc=stage,
                file=self._stream,
                dynamic_ncols=True,
                bar_format='{desc} {n_fmt}/{total_fmt} |{bar}|{postfix} left {remaining}',
            )
        self._shown_at = -math.inf
        self._shown_step: int | None = None
        self._parts: dict[str, int] = {}

    def update(self, step: int, loss: Any = None) -> None:
        """Say that `step` updates are done.

        Args:
            step: updates applied so far, counted from the start of the stage.
            loss: latest loss, a float or a scalar array.
        """
        now = time.monotonic()
        due = now - self._shown_at >= self._every_s or step >= self.total
        if self.silent or not due or step == self._shown_step:
            return
        self._shown_at, self._shown_step = now, step
        shown_loss = '' if loss is None else f' loss {float(loss):.4g}'
        if self._bar is not None:
            self._bar.set_postfix_str(shown_loss.strip(), refresh=False)
            self._bar.n = step
            self._bar.refresh()
            return
        left = self._time_left(step, now)
        self._print(f'{self.stage} {step}/{self.total}{shown_loss} left {left}')

    def update_part(self, part: str, done: int, total: int | None = None) -> None:
        """Say that one of several parts has come to `done`; their sum is shown.

        Args:
            part: its name.
            done: of this part alone.
            total: of this part; what takes it is a plain callback of (part, done, total).
        """
        del total
        self._parts[part] = done
        self.update(sum(self._parts.values()))

    def say(self, line: str) -> None:
        """Print a line without tearing the bar; nothing when silent."""
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        elif not self.silent:
            self._print(line)

    def close(self) -> None:
        """Leave the bar as it stands and end its line."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _time_left(self, step: int, now: float) -> str:
        done = step - self.start
        if done <= 0:
            return '?'
        seconds = (now - self._begin) / done * max(0, self.total - step)
        return str(timedelta(seconds=round(seconds)))

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a request that the loop reads; the second raises.

    SIGTERM is what schedulers send some time before they kill. Usage: `with StopRequest() as stop:
    ... if stop.requested: save and leave`; in the loop of a run that may have several processes
    `stop.agreed(step)`. The earlier handlers are restored at the end. Outside the main thread,
    where Python allows no handlers, only setting `requested` by hand works.
    """

    def __init__(self) -> None:
        self.requested, self._agreed = False, False
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._earlier[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc_info: object) -> None:
        while self._earlier:
            number, handler = self._earlier.popitem()
            # None: the earlier handler was not set from Python and cannot be named again.
            signal.signal(number, handler or signal.SIG_DFL)

    def agreed(self, step: int) -> bool:
        """Whether to stop after this step: the same answer in every process of the run.

        One process stops at once. Several ask one another every `AGREE_EVERY` steps, and all stop
        where one of them was told to.

        Args:
            step: updates done, the same in every process.
        """
        if processes.count() == 1:
            return self.requested
        if step % AGREE_EVERY == 0:
            self._agreed = self._agreed or processes.any_process(self.requested)
        return self._agreed

    def _handle(self, signum: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        several = processes.count() > 1
        when = f'with all processes, within {AGREE_EVERY} steps' if several else 'after this step'
        # os.write, not print: a handler may interrupt a print of the same stream.
        os.write(2, f'\nstopping {when}; press Ctrl-C again to leave at once\n'.encode())


@contextlib.contextmanager
def stop_says(line: Callable[[], str]) -> Iterator[None]:
    """Makes Ctrl-C and SIGTERM end what has no loop with a line on what is kept.

    Args:
        line: gives it when the stop comes; the KeyboardInterrupt carries it to `main_guard`.
    """

    def interrupt(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()  # elsewhere: no handlers
    earlier = signal.signal(signal.SIGTERM, interrupt) if in_main else None
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(line()) from stop
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, earlier or signal.SIG_DFL)


def require_finite(
    loss: Any, step: int, checkpointer: Any = None, params: PyTree | None = None
) -> float:
    """The loss as a float, or an error naming the step and the last good checkpoint.

    Args:
        loss: scalar loss; a device array is fetched.
        step: step that gave this loss.
        checkpointer: a `Checkpointer`, to name its latest checkpoint.
        params: parameters after that step, where they are about to be saved. The loss is that of
            the parameters before it: a gradient that is not a number shows only here.

    Returns:
        The loss.

    Raises:
        NonFiniteLossError: the loss, or a parameter, is infinite or not a number.
    """
    value = float(loss)
    if not math.isfinite(value):
        what = f'the loss is {value}'
    elif not _all_finite(params):
        what = 'a parameter is not finite'
    else:
        return value
    latest = None if checkpointer is None else checkpointer.latest_step()
    kept = (
        'no checkpoint was saved yet'
        if latest is None
        else f'the last good checkpoint is step {latest} in {checkpointer.folder}'
    )
    raise NonFiniteLossError(
        f'{what} at step {step}; {kept}; lower the learning rate or clip gradients'
    )


@jax.jit
def _all_finite(tree: PyTree) -> Array:
    """Whether every value is a number, by one program for all shapes."""
    return jnp.all(jnp.array([True, *(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))]))


def main_guard(main: Callable[[Sequence[str]], Any]) -> Callable[[Sequence[str]], Any]:
    """Wrap an absl main: a user's mistake prints one line `error: ...` and exits with status 1.

    Mistakes are ValueError, OSError (so FileNotFoundError, a full disk), FloatingPointError (a
    sound that is not finite) and NonFiniteLossError. The environment variable REALAUDIO_TRACEBACK=1
    lets them through with their traceback. A second Ctrl-C exits with status 130.

    Args:
        main: function of the command line's remaining arguments.

    Returns:
        The wrapped function, for `absl.app.run`.
    """

    @functools.wraps(main)
    def guarded(argv: Sequence[str]) -> Any:
        try:
            return main(argv)
        except (
            ValueError,
            OSError,
            FloatingPointError,
            NonFiniteLossError,
            processes.OtherProcessError,
        ) as error:
            if os.environ.get(TRACEBACK_VARIABLE) == '1':
                raise
            print(f'error: {_one_line(error)}', file=sys.stderr, flush=True)
            sys.exit(1)
        except KeyboardInterrupt as stop:
            if os.environ.get(TRACEBACK_VARIABLE) == '1':
                raise
            print(str(stop) or 'stopped', file=sys.stderr, flush=True)
            sys.exit(STOPPED)

    return guarded


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        # 'No such file or directory: x' reads better than '[Errno 2] No such file ...'.
        return f'{error.strerror}: {error.filename}' if error.filename else error.strerror
    lines = str(error).strip().splitlines()
    if not lines:
        return f'{type(error).__name__} ({TRACEBACK_VARIABLE}=1 shows where)'
    more = f' ({TRACEBACK_VARIABLE}=1 shows the rest)' if len(lines) > 1 else ''
    return lines[0] + more
