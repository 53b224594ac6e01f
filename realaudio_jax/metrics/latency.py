"""Wall-clock latency of a call with its result ready, its stages, first call and peak memory."""

import dataclasses
import resource
import sys
import time
from collections.abc import Callable, Mapping
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


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Latency, first call and compilation of a program and its stages.

    Attributes:
        compile_ms: to build it, or to load it where a cache holds it.
        cold_ms: its first call after that.
        warm: the calls after the first.
        stages: parts of it, each run alone. A program in one piece overlaps and fuses them, so
            their sum is not its time.
        memory: peak of the process so far, whatever ran before included.
    """

    compile_ms: float
    cold_ms: float
    warm: LatencyStats
    stages: dict[str, LatencyStats]
    memory: PeakMemory


def benchmark(
    build: Callable[[], Callable[[], Any]],
    stages: Mapping[str, Callable[[], Any]] | None = None,
    repeats: int = 9,
    device: jax.Device | None = None,
) -> Benchmark:
    """Builds a program, calls it once, then `repeats` times, then each of its stages as often.

    Args:
        build: compiles and returns the call, which takes nothing and returns any pytree.
        stages: name to a call of that part; its own compilation is not counted.
        repeats: calls counted, at least 1.
        device: whose peak memory is read; the first by default.

    Raises:
        ValueError: `repeats` is below 1.
    """
    start = time.perf_counter()
    call = build()
    compile_ms = (time.perf_counter() - start) * 1e3
    cold = measure(call, 1, warmup=0).median
    warm = measure(call, repeats, warmup=0)
    timed = {name: measure(part, repeats) for name, part in (stages or {}).items()}
    return Benchmark(compile_ms, cold, warm, timed, peak_memory(device))


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
