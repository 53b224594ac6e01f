"""The folder of a training run: used by one process at a time, and for one configuration.

    with run_folder(workdir, config, inputs={'recordings': recordings}) as workdir:
        ...

`run.json` in it keeps the resolved config, what else the run was given, and for each start its
command, revision of the code, date and device. A later start goes on under the same configuration
or not at all: a checkpoint of another one would be trained on as if nothing had changed. So it
would with other sounds or weights under the same name, so their digests are kept, too.
"""

import contextlib
import dataclasses
import errno
import fnmatch
import itertools
import json
import os
import pathlib
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: there the lock is left out
    fcntl = None

from realaudio_jax import integrity, processes
from realaudio_jax.io import atomic_path, printable
from realaudio_jax.memory import PeakMemory
from realaudio_jax.provenance import describe_run
from realaudio_jax.training.loop import print_to_stderr

RUN_NAME, LOCK_NAME = 'run.json', '.lock'
# Left by a distillation: its student as a release, or alone where the teacher is a published model.
RELEASE, STUDENT, SECONDS, MEMORY = 'release', 'student', 'seconds.json', 'memory.json'
FORMAT = 1
# Settings that a run can go on with when they change: they say what is shown, not what is trained.
FREE = ('config.log_every', 'config.save_every', 'config.eval_*', 'config.report_*')
FolderDigest = Callable[[pathlib.Path], str]
_LEFT_OVERS = ('.partial-*', '*.orbax-checkpoint-tmp*')
_NAMED = 3  # differences that an error names; it counts the others


@contextlib.contextmanager
def run_folder(
    path: str | os.PathLike,
    config: Any,
    inputs: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print_to_stderr,
    folder_digest: FolderDigest | None = None,
) -> Iterator[pathlib.Path]:
    """Locks the folder of a run, sweeps what a killed process left, and checks its configuration.

    Of several processes of the run the first does so for all.

    Args:
        path: of the folder, made if it is missing; '~' is the home folder.
        config: an ml_collections `ConfigDict`, or a dict.
        inputs: what else decides what is trained, by name: folders, files, None.
        say: takes one line of text.
        folder_digest: of what counts in a folder without a manifest, such as recordings; None: its
            content is not compared.

    Yields:
        The folder.

    Raises:
        BlockingIOError: another process uses the folder.
        ValueError: the folder holds a run of another configuration, or what it was given is no
            longer the same; the message names what differs.
        OSError: the folder cannot be written.
    """
    folder = pathlib.Path(path).expanduser()
    with contextlib.ExitStack() as held:

        def begin() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder))
            _sweep(folder)
            _record(
                folder, _settings(config, inputs or {}), _contents(inputs or {}, folder_digest), say
            )

        processes.only_first(begin, 'run folder')
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def read_run(folder: str | os.PathLike) -> dict[str, Any] | None:
    """What `run.json` of a folder says: 'config', 'inputs', 'starts'; None where there is none.

    Raises:
        ValueError: the file is damaged.
    """
    path = pathlib.Path(folder) / RUN_NAME
    if not path.is_file():
        return None
    try:
        run = json.loads(path.read_text(encoding='utf-8'))
        if not {'config', 'inputs', 'starts'} <= set(run):
            raise ValueError('a part is missing')
    except (ValueError, TypeError) as error:
        raise ValueError(
            f'{path} cannot be read ({error}); take another folder, or delete that file to go on '
            'with the configuration given now'
        ) from error
    return run


def finished_run(workdir: pathlib.Path) -> tuple[dict[str, Any], pathlib.Path]:
    """What `run.json` of a finished distillation says, and the folder of its student.

    Raises:
        FileNotFoundError: there is no such run, or it has no student yet.
    """
    workdir = pathlib.Path(workdir)
    run = read_run(workdir)
    if run is None or 'stages' not in run['config']:
        raise FileNotFoundError(
            f'{workdir} is no run of experiments.distill: it has no {RUN_NAME} of one'
        )
    student = workdir / (RELEASE if run['config']['teacher'] == RELEASE else STUDENT)
    if not (student / 'config.json').is_file():
        raise FileNotFoundError(
            f'{workdir} has no finished student; give experiments.distill the same command again '
            'and it goes on'
        )
    return run, student


def record_seconds(workdir: pathlib.Path, step: str, seconds: float, add: bool = False) -> None:
    """Keeps how long a step of a run took.

    Args:
        workdir: of the run.
        step: 'training', 'calibration' or 'evaluation'.
        seconds: wall time.
        add: to what was kept, as for a training that goes on.
    """
    path = workdir / SECONDS
    kept = read_seconds(workdir)
    kept[step] = round(seconds + (kept.get(step, 0.0) if add else 0.0), 1)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(kept), encoding='utf-8')


def read_seconds(workdir: pathlib.Path) -> dict[str, float]:
    """How long each step of a run took, s; see `record_seconds`."""
    path = workdir / SECONDS
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}


def record_memory(workdir: pathlib.Path, memory: PeakMemory) -> None:
    """Keeps the peak memory of a run's training, the largest of its starts."""
    kept = read_memory(workdir)
    found = {name: value for name, value in dataclasses.asdict(memory).items() if value}
    with atomic_path(workdir / MEMORY) as temporary:
        most = {name: max(value, kept.get(name, 0)) for name, value in found.items()}
        temporary.write_text(json.dumps(kept | most), encoding='utf-8')


def read_memory(workdir: pathlib.Path) -> dict[str, int]:
    """Peak memory of a run's training, bytes, of 'host' and 'device'; see `record_memory`."""
    path = workdir / MEMORY
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Holds the lock of a folder; the system releases it when the process ends, however it ends.

    Raises:
        BlockingIOError: another process holds it.
    """
    with open(folder / LOCK_NAME, 'a+', encoding='utf-8') as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = file.read().strip() or 'unknown'
                raise BlockingIOError(
                    errno.EWOULDBLOCK,
                    f'{folder} is in use by another process ({owner}); wait for it or choose '
                    'another folder',
                ) from None
            except OSError:
                pass  # a file system that knows no locks
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
        file.flush()
        yield


def _sweep(folder: pathlib.Path) -> None:
    """Removes what writes that never ended left; whoever holds the lock is the only writer."""
    for pattern in _LEFT_OVERS:
        for left in list(folder.rglob(pattern)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _settings(config: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    config = config.to_dict() if hasattr(config, 'to_dict') else config
    places = {name: _place(value) for name, value in inputs.items()}
    # Through text and back: what is compared is what is stored, lists for tuples.
    return json.loads(json.dumps({'config': config, 'inputs': places}, default=str))


def _place(value: Any) -> Any:
    """A file or folder by its whole path, so that it may be named from elsewhere."""
    if isinstance(value, (list, tuple)):
        return [_place(each) for each in value]
    if isinstance(value, (str, os.PathLike)) and os.path.exists(value):
        return os.path.abspath(value)
    return value


def _contents(inputs: Mapping[str, Any], folder_digest: FolderDigest | None) -> dict[str, str]:
    """A digest of each file and folder that a run was given, by its whole path."""
    flat = itertools.chain(*(v if isinstance(v, (list, tuple)) else [v] for v in inputs.values()))
    given = [value for value in flat if isinstance(value, (str, os.PathLike))]
    paths = [pathlib.Path(os.path.abspath(value)) for value in given if os.path.exists(value)]
    found = {str(path): _content(path, folder_digest) for path in paths}
    return {path: digest for path, digest in found.items() if digest}


def _content(path: pathlib.Path, folder_digest: FolderDigest | None) -> str | None:
    """Digest of a file, of a folder's manifest, or what `folder_digest` says of it."""
    if path.is_file():
        return integrity.digest(path)
    if (path / integrity.MANIFEST_NAME).is_file():
        return integrity.digest(path / integrity.MANIFEST_NAME)
    return folder_digest(path) if folder_digest else None


def _record(
    folder: pathlib.Path,
    settings: dict[str, Any],
    contents: dict[str, str],
    say: Callable[[str], None],
) -> None:
    run = read_run(folder)
    if run is not None:
        _require_same(folder, run, settings)
        known = run.get('contents', {})  # a run of before has none
        for name in sorted(contents.keys() & known.keys()):
            if contents[name] != known[name]:
                raise ValueError(
                    f'{printable(name)} has changed since the run in {folder} began: restore what '
                    'was there, or choose another folder'
                )
        contents = known | contents
    elif any(folder.glob('*/[0-9]*/_CHECKPOINT_METADATA')):
        say(f'{folder} has checkpoints and no {RUN_NAME}; taken as a run of this configuration')
    starts = [*run['starts'], describe_run()] if run else [describe_run()]
    with atomic_path(folder / RUN_NAME) as temporary:
        text = json.dumps(
            {'format': FORMAT, **settings, 'contents': contents, 'starts': starts}, indent=2
        )
        temporary.write_text(text + '\n', encoding='utf-8')


def _require_same(folder: pathlib.Path, run: dict[str, Any], settings: dict[str, Any]) -> None:
    old, new = (dict(_flat({k: s[k] for k in ('config', 'inputs')})) for s in (run, settings))
    changed = [
        f'{name.removeprefix("inputs.")} {_shown(old, name)}, now {_shown(new, name)}'
        for name in sorted(old.keys() | new.keys())
        if (name not in old or name not in new or old[name] != new[name])
        and not any(fnmatch.fnmatch(name, free) for free in FREE)
    ]
    if changed:
        more = f' and {len(changed) - _NAMED} more' if len(changed) > _NAMED else ''
        raise ValueError(
            f'{folder} holds a run with {"; ".join(changed[:_NAMED])}{more}: give what it had, or '
            f'another --workdir (where a file only moved, correct {RUN_NAME})'
        )


def _flat(value: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _flat(below, f'{name}.{key}' if name else key)
    elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        for i, below in enumerate(value):
            yield from _flat(below, f'{name}[{i}]')
    else:
        yield name, value


def _shown(values: dict[str, Any], name: str) -> str:
    text = json.dumps(values[name], ensure_ascii=False) if name in values else 'not set'
    return text if len(text) <= 80 else f'{text[:77]}...'
