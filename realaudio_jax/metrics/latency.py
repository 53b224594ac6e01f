"""Wall-clock latency of a call with its result ready, and peak memory."""

import dataclasses
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class LatencyStats:
    """Latency over n calls, in milliseconds."""

    median: float
    p95: float
    p99: float
    n: int


@dataclasses.dataclass(frozen=True)
class PeakMemory:
    """Highest memory use since the process began, in bytes; device is None where unknown."""

    host: int
    device: int | None


def measure(fn: Callable[[], Any], repeats: int = 9, warmup: int = 1) -> LatencyStats:
    """Times `fn` from call to finished result, after `warmup` calls that are not counted.

    JAX returns before its work is done, so each call waits for every array it returns. Percentiles
    interpolate between calls: below about 100 repeats p99 is close to the slowest call.

    Args:
        fn: takes nothing; returns any pytree, numpy arrays and None included.
        repeats: calls counted, at least 1.
        warmup: calls before them, 0 to count compilation too.

    Raises:
        ValueError: `repeats` is below 1.
    """
    if repeats < 1:
        raise ValueError(f'repeats must be at least 1, got {repeats}')
    for _ in range(warmup):
        jax.block_until_ready(fn())
    elapsed = np.empty(repeats)
    for i in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(fn())
        elapsed[i] = (time.perf_counter() - start) * 1e3
    median, p95, p99 = (float(v) for v in np.percentile(elapsed, [50, 95, 99]))
    return LatencyStats(median, p95, p99, repeats)


def peak_memory(device: jax.Device | None = None) -> PeakMemory:
    """Peak resident memory of this process and peak use of one device (the first by default).

    A CPU device reports no statistics: its arrays are part of the host figure.
    """
    unit = 1 if sys.platform == 'darwin' else 1024  # getrusage counts kilobytes on Linux
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    stats = (device or jax.local_devices()[0]).memory_stats() or {}
    return PeakMemory(host, stats.get('peak_bytes_in_use'))
