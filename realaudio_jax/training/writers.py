"""Metrics on disk: one JSON line per record, and TensorBoard events beside it."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

from realaudio_jax import processes

RESERVED = ('step', 'stage', 'time', 'wall_s', 'cpu_s')


class MetricWriter:
    """Appends metrics to `metrics.jsonl` and to TensorBoard events in `tensorboard/`.

    A resumed run appends; where it repeats steps, the last line of a step counts. Of several
    processes the first alone writes.

    Args:
        workdir: folder of the run, made when missing.
    """

    def __init__(self, workdir: str | Path):
        self.workdir = Path(workdir)
        self._writes = processes.is_first()
        if not self._writes:
            return
        self.workdir.mkdir(parents=True, exist_ok=True)
        self.path = self.workdir / 'metrics.jsonl'
        _drop_partial_line(self.path)
        self._lines = open(self.path, 'a', encoding='utf-8')
        # Without tensorboardX's queue: on a full disk its thread ends in a traceback of its own.
        folder = self.workdir / 'tensorboard'
        folder.mkdir(exist_ok=True)
        self._events = EventsWriter(str(folder / 'events'), f'.{time.time_ns()}')
        self._clocks: tuple[float, float] | None = None

    def write(self, step: int, metrics: Mapping[str, Any], stage: str = '') -> None:
        """Write one record: {"step", "stage", "time" (seconds since 1970), "wall_s", "cpu_s"}.

        The metrics follow. "wall_s" and "cpu_s" are the seconds since this writer's record before,
        of the clock and of this process's computing on all cores, which other processes hardly
        change; null in its first, before which lie the start and a compilation. A value that is
        not finite is null in the JSON line, which stays valid JSON.

        Args:
            step: updates applied so far.
            metrics: scalars by name; device arrays are fetched.
            stage: phase of the run, e.g. 'train'; prefixes the TensorBoard tag.

        Raises:
            ValueError: a metric has the name of a field of every record, or is not a scalar.
            OSError: the disk is full, named with the remedy.
        """
        if not self._writes:
            return
        step, now = int(step), time.time()
        values = {name: _scalar(name, value) for name, value in metrics.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        record = {
            'step': step,
            'stage': stage,
            'time': round(now, 3),
            **self._since_last(),
            **finite,
        }
        with self._named_if_full():
            self._lines.write(json.dumps(record) + '\n')
            self._lines.flush()
            for name, value in values.items():
                scalar = summary.scalar(f'{stage}/{name}' if stage else name, value)
                self._events.write_event(Event(wall_time=now, step=step, summary=scalar))
            self._events.flush()

    def _since_last(self) -> dict[str, float | None]:
        """Seconds since the last call, by the clock and of computing."""
        before, self._clocks = self._clocks, (time.monotonic(), time.process_time())
        names = ('wall_s', 'cpu_s')
        if before is None:
            return dict.fromkeys(names)
        took = (round(b - a, 4) for a, b in zip(before, self._clocks, strict=True))
        return dict(zip(names, took, strict=True))

    def close(self) -> None:
        """Flush and close both files; a second call does nothing."""
        if self._writes and not self._lines.closed:
            with self._named_if_full():
                try:
                    self._lines.close()
                finally:
                    self._events.close()

    @contextlib.contextmanager
    def _named_if_full(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                error.errno,
                f'cannot write metrics in {self.workdir}: {error.strerror}; free some space and '
                'start the same command again',
            ) from error

    def __enter__(self) -> MetricWriter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _scalar(name: str, value: Any) -> float:
    if name in RESERVED:
        raise ValueError(f"a metric may not be named '{name}'; it is a field of every record")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"metric '{name}' is not a scalar; reduce it before writing") from None


def _drop_partial_line(path: Path) -> None:
    """Cut what a killed run left of its last line, so that the next record starts a line."""
    if not path.exists():
        return
    with open(path, 'rb+') as file:
        content = file.read()
        if content and not content.endswith(b'\n'):
            file.truncate(content.rfind(b'\n') + 1)
