"""The processes of one training run: how they meet, wait for one another, agree, and end together.

    processes.connect('host0:1234', count=2, index=0)
    processes.first_then_all(lambda: make_cache(folder))
    if processes.any_process(stop_requested): ...
    processes.leave()

Every process runs the same program on its own devices and JAX makes one mesh of all. What is
computed from a seed each of them computes; what is written process 0 writes. A run of one process
needs no `connect`, and every function here is then what its name says of one process.

All processes must call the functions of this module in the same order.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import itertools
import os
import re
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

AUTO = 'auto'
LOST_AFTER_S = 30.0
_MEETING_S = 300.0  # that processes have to meet
_SILENT_S = 10.0  # of them, until a line says what is waited for
_LONGEST_WAIT_MS = 7 * 24 * 3600 * 1000  # a cache of many recordings takes hours to build
# How launchers say how many tasks there are, and what of theirs JAX can read.
_LAUNCHERS = (
    ('SLURM_NTASKS', ('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_PROCID', 'SLURM_LOCALID')),
    ('OMPI_COMM_WORLD_SIZE', ('OMPI_MCA_orte_hnp_uri',)),
)
# Says a line when its standard input ends without a byte: JAX's own watch aborts a process whose
# coordinator is gone at once, and nothing of that process can speak any more.
_LAST_WORDS = 'import os, sys\nos.read(0, 1) or os.write(2, sys.argv[1].encode())'
# What JAX's errors have in them where another process is gone, by Gloo (CPU) or NCCL (GPU).
_BROKEN = re.compile('Gloo|NCCL|coordination service', re.IGNORECASE)
_Result = TypeVar('_Result')


class OtherProcessError(RuntimeError):
    """Another process of the run failed or is gone; its own lines say why."""


class _Run:
    """This process's place in the run."""

    count, index = 1, 0
    meetings = itertools.count()
    ended = threading.Event()
    last_words: subprocess.Popen | None = None


_alone = contextvars.ContextVar('alone', default=False)  # in a part that one process runs by itself


def connect(
    coordinator: str = '',
    count: int | None = None,
    index: int | None = None,
    lost_after_s: float = LOST_AFTER_S,
) -> None:
    """Joins the other processes of the run; before any computation of JAX.

    Args:
        coordinator: 'HOST:PORT' of process 0; 'auto': as SLURM, Open MPI or a TPU pod slice tell
            JAX; '': the same where one of them has started several tasks, else one process.
        count, index: how many processes, and which this is; left out where JAX finds them.
        lost_after_s: a process that gives no sign of life for so long ends the run, s.

    Raises:
        ValueError: a part is missing, or none of these systems started the process.
        ConnectionError: no such host, or a port that is taken. Where the others do not come, the
            process ends with a line and status 1.
    """
    by_hand = coordinator not in ('', AUTO)
    if by_hand != (count is not None) or by_hand != (index is not None):
        raise ValueError(
            '--coordinator=HOST:PORT, --processes and --process go together; leave all three out '
            f'for one process, or give --coordinator={AUTO} under SLURM, Open MPI or on a TPU slice'
        )
    if by_hand and not 0 <= index < count:
        raise ValueError(f'--process={index}: processes are counted from 0 to {count - 1}')
    port = re.fullmatch(r'.+:(\d{1,5})', coordinator)
    if by_hand and not (port and 0 < int(port[1]) < 2**16):
        raise ValueError(
            f'--coordinator={coordinator}: write HOST:PORT, of process 0, a port from 1 to 65535'
        )
    if count == 1 or (not coordinator and not _several_tasks(os.environ)):
        return
    if by_hand:
        _check_address(coordinator, is_own=index == 0)
    jax.config.update('jax_enable_preemption_service', False)  # SIGTERM is `StopRequest`'s
    who = f'process {index} of {count}' if by_hand else 'this process'
    try:
        with _meeting(f'{who}: the others at {coordinator if by_hand else "the coordinator"}'):
            jax.distributed.initialize(
                coordinator if by_hand else None,
                count,
                index,
                # By hand each process takes the devices that it sees.
                cluster_detection_method='deactivate' if by_hand else None,
                # Behind our own ends, which say what happened; JAX's are stack traces. It counts
                # from the last heartbeat, up to half of this before.
                initialization_timeout=int(2 * _MEETING_S),
                heartbeat_timeout_seconds=int(10 + 3 * lost_after_s),
                shutdown_timeout_seconds=max(5, int(lost_after_s)),
            )
    except ValueError as error:
        raise ValueError(
            f'--coordinator={AUTO}: neither SLURM, Open MPI nor a TPU slice started this; give '
            '--coordinator=HOST:PORT, --processes and --process'
        ) from error
    _Run.count, _Run.index = jax.process_count(), jax.process_index()
    if _Run.count > 1:
        command = [sys.executable, '-S', '-E', '-c', _LAST_WORDS, f'error: {_lost(lost_after_s)}\n']
        # In a session of its own, which Ctrl-C does not reach.
        _Run.last_words = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )
        atexit.register(has_spoken)
        threading.Thread(target=_watch, args=(lost_after_s,), daemon=True).start()


def _check_address(coordinator: str, is_own: bool) -> None:
    """Refuses what JAX's coordinator would end on with a signal, or its clients wait for in vain.

    Args:
        coordinator: HOST:PORT.
        is_own: whether this process is to listen there.

    Raises:
        ConnectionError: there is no such host, or the port is taken.
    """
    host, _, port = coordinator.rpartition(':')
    if is_own:
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind(('', int(port)))
            except OSError as error:
                raise ConnectionError(
                    f'--coordinator={coordinator}: process 0 cannot listen there '
                    f'({error.strerror}); choose another port, and start one process 0'
                ) from None
    try:
        socket.getaddrinfo(host.strip('[]'), int(port))
    except OSError as error:
        raise ConnectionError(
            f'--coordinator={coordinator}: no such host is known here ({error.strerror})'
        ) from None


@contextlib.contextmanager
def _meeting(what: str) -> Iterator[None]:
    """Around JAX's meeting of the processes, which says nothing and ends in a stack trace.

    After some seconds a line says what is waited for; where it never comes, another one, and this
    process ends.
    """
    met = threading.Event()

    def watch() -> None:
        if met.wait(_SILENT_S):
            return
        minutes = f'{_MEETING_S / 60:.2g} minutes'
        os.write(2, f'{what} have not all come yet; waiting, {minutes} at most\n'.encode())
        if met.wait(_MEETING_S - _SILENT_S):
            return
        line = (
            f'error: {what} did not all come within {minutes}: start all of them within that time, '
            'with the same --coordinator and --processes, a --process each, and a port that is open'
        )
        os.write(2, f'{line}\n'.encode())
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        met.set()


def _several_tasks(environment: Mapping[str, str]) -> bool:
    """Whether a launcher that JAX can read has started more than one task."""
    for size, needed in _LAUNCHERS:
        if int(environment.get(size) or 1) > 1 and all(name in environment for name in needed):
            return True
    return ',' in environment.get('TPU_WORKER_HOSTNAMES', '')


@contextlib.contextmanager
def lost_is_one_line() -> Iterator[None]:
    """Around a run: what devices say of a connection that broke becomes an `OtherProcessError`."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if _Run.count > 1 and _BROKEN.search(str(error)):
            raise OtherProcessError(_lost()) from error
        raise


def count() -> int:
    """How many processes the run has."""
    return _Run.count


def index() -> int:
    """Which of them this is, from 0."""
    return _Run.index


def is_first() -> bool:
    """Whether this process writes files and speaks for the run."""
    return _Run.index == 0


def share(size: int) -> slice:
    """The rows of a batch that this process holds: as many as every other, in its order.

    Raises:
        ValueError: the batch cannot be split evenly.
    """
    if size % _Run.count:
        raise ValueError(
            f'a batch of {size} cannot be split evenly over {_Run.count} processes; make its size '
            'a multiple of that'
        )
    part = size // _Run.count
    return slice(_Run.index * part, (_Run.index + 1) * part)


def meet(name: str) -> None:
    """Waits for all processes, by the network of hosts alone: devices would give up.

    Args:
        name: of the place, the same in every process.

    Raises:
        OtherProcessError: one of them is gone.
    """
    if _Run.count == 1 or _alone.get():
        return
    key = f'realaudio_jax {next(_Run.meetings)}'
    try:
        multihost.get_barrier_sync_fn()(key=key, timeout_ms=_LONGEST_WAIT_MS)
    except jax.errors.JaxRuntimeError as error:
        raise OtherProcessError(_lost()) from error
    names = multihost_utils.process_allgather(np.uint32(zlib.crc32(name.encode())))
    if len(set(names.tolist())) > 1:
        raise RuntimeError(f'process {_Run.index} is at {name!r}, another process elsewhere')


def only_first(task: Callable[[], _Result], name: str = '') -> _Result | None:
    """Process 0 runs a task; all go on when it has ended.

    Args:
        task: may call this module's functions, which then concern process 0 alone.
        name: of the task, for messages.

    Returns:
        What the task returns, in process 0; else None.

    Raises:
        OtherProcessError: it failed in process 0, where its own error is raised.
    """
    if _Run.count == 1 or _alone.get():
        return task()
    result, error = None, None
    if is_first():
        try:
            result = _by_itself(task)
        except BaseException as raised:  # the others must hear of Ctrl-C, too
            error = raised
    meet(name)
    failed = any_process(error is not None)
    if error is not None:
        raise error
    if failed:
        raise OtherProcessError(f'process 0 failed ({name or "see there"}); its line says why')
    return result


def first_then_all(task: Callable[[], _Result], name: str = '') -> _Result:
    """Process 0 runs a task, then all others do: what it wrote they find.

    Where they share no disk, each makes its own. Arguments and errors as `only_first`.
    """
    result = only_first(task, name)
    return result if is_first() or _alone.get() else _by_itself(task)


def from_first(task: Callable[[], int], name: str = '') -> int:
    """A whole number that process 0 determines; raises as `only_first`."""
    number = only_first(task, name)
    if _Run.count == 1 or _alone.get():
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number or 0)))


def any_process(flag: bool) -> bool:
    """Whether the flag is true in any process."""
    if _Run.count == 1 or _alone.get():
        return flag
    return bool(multihost_utils.process_allgather(np.int32(flag)).any())


def has_spoken() -> None:
    """What ends this process has been said; nothing is added to it."""
    if _Run.last_words is not None:
        with contextlib.suppress(OSError):
            os.write(_Run.last_words.stdin.fileno(), b'.')


def leave() -> None:
    """Waits for the others and ends the connection; a run that ends otherwise is a lost process."""
    if _Run.count == 1 or _Run.ended.is_set():
        return
    meet('end')
    _Run.ended.set()
    has_spoken()
    jax.distributed.shutdown()


def _by_itself(task: Callable[[], _Result]) -> _Result:
    token = _alone.set(True)
    try:
        return task()
    finally:
        _alone.reset(token)


def _watch(lost_after_s: float) -> None:
    """Meets the threads of the other processes again and again; ends this one if one stays away.

    A thread of its own, since the main one may wait for a device that waits for the lost process.
    """
    meet = multihost.get_barrier_sync_fn()
    for turn in itertools.count():
        try:
            meet(key=f'realaudio_jax alive {turn}', timeout_ms=int(1000 * lost_after_s))
        except Exception:  # of jaxlib; the time is over, or the coordinator is gone
            if _Run.ended.wait(1.0):
                return
            sys.stdout.flush()
            has_spoken()
            os.write(2, f'error: {_lost(lost_after_s)}\n'.encode())
            os._exit(1)
        if _Run.ended.wait(lost_after_s / 6):
            return


def _lost(lost_after_s: float | None = None) -> str:
    silent = '' if lost_after_s is None else f' or gave no sign of life for {lost_after_s:g} s'
    return (
        f'another process of this run has ended{silent} (this is process {_Run.index} of '
        f'{_Run.count}): see its lines, then give all processes their commands again; the run goes '
        'on from its last checkpoint'
    )
