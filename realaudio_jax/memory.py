"""Memory of a process: its peak, and a setting of the C library that makes calls faster."""

import ctypes
import dataclasses
import os
import sys

import jax

_MALLOC_TRIM_THRESHOLD, _MALLOC_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Lets the C library (glibc; no other) keep freed memory for the next call.

    XLA takes the intermediate arrays of every call on a CPU from the C library, which maps blocks
    of this size anew each time, page by page: a tenth or more of the time of a sound. The price is
    that the whole process holds on to the memory of its largest call. All experiments call this;
    `realaudio_jax.load` does not.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_MALLOC_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_MALLOC_MMAP_MAX, 0)


@dataclasses.dataclass(frozen=True)
class PeakMemory:
    """Highest memory use since the process began, in bytes; device is None where unknown."""

    host: int
    device: int | None


def peak_memory(device: jax.Device | None = None) -> PeakMemory:
    """Peak resident memory of this process and peak use of one device (the first by default).

    A CPU device reports no statistics: its arrays are part of the host's memory.
    """
    import resource  # not on Windows, where all else of this module works

    unit = 1 if sys.platform == 'darwin' else 1024  # getrusage counts kilobytes on Linux
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    stats = (device or jax.local_devices()[0]).memory_stats() or {}
    return PeakMemory(host, stats.get('peak_bytes_in_use'))


def resident_bytes() -> int:
    """Memory of this process that is resident now; on other systems than Linux its peak."""
    try:
        with open('/proc/self/statm', encoding='ascii') as file:
            return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
    except OSError:
        return peak_memory().host
