"""Metrics on disk: one JSON line per record, and TensorBoard events beside it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

RESERVED = ('step', 'stage', 'time')


class MetricWriter:
    """Appends metrics to `metrics.jsonl` and to TensorBoard events in `tensorboard/`.

    A resumed run appends; where it repeats steps, the last line of a step counts.

    Args:
        workdir: folder of the run, made when missing.
    """

    def __init__(self, workdir: str | Path):
        self.workdir = Path(workdir)
        self.workdir.mkdir(parents=True, exist_ok=True)
        self.path = self.workdir / 'metrics.jsonl'
        _drop_partial_line(self.path)
        self._lines = open(self.path, 'a', encoding='utf-8')
        self._events = SummaryWriter(str(self.workdir / 'tensorboard'), flush_secs=30)

    def write(self, step: int, metrics: Mapping[str, Any], stage: str = '') -> None:
        """Write one record: {"step", "stage", "time" (seconds since 1970), then the metrics}.

        A value that is not finite is null in the JSON line, which stays valid JSON.

        Args:
            step: updates applied so far.
            metrics: scalars by name; device arrays are fetched.
            stage: phase of the run, e.g. 'train'; prefixes the TensorBoard tag.

        Raises:
            ValueError: a metric is named 'step', 'stage' or 'time', or is not a scalar.
        """
        step, now = int(step), time.time()
        values = {name: _scalar(name, value) for name, value in metrics.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        record = {'step': step, 'stage': stage, 'time': round(now, 3), **finite}
        self._lines.write(json.dumps(record) + '\n')
        self._lines.flush()
        for name, value in values.items():
            self._events.add_scalar(f'{stage}/{name}' if stage else name, value, step, now)

    def close(self) -> None:
        """Flush and close both files; a second call does nothing."""
        if not self._lines.closed:
            self._lines.close()
            self._events.close()

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
