"""A setting of the C library that makes generation on a CPU faster."""

import ctypes

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
