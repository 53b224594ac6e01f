"""Memory that a process has freed is kept for its next call."""

import os
import platform
import subprocess
import sys

import pytest


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='the allocator of glibc alone')
def test_memory_that_was_freed_is_not_mapped_anew():
    """Page faults of five arrays of 40 MB, one after another, in processes of their own."""
    code = """if True:
        import resource, sys
        import numpy as np
        from realaudio_jax.memory import keep_freed_memory
        if sys.argv[1] == 'kept':
            keep_freed_memory()
        faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(5_000_000)
        before = faults()
        for _ in range(5):
            np.ones(5_000_000)
        print(faults() - before)
    """

    def count(how):
        run = [sys.executable, '-c', code, how]
        small_pages = os.environ | {'NUMPY_MADVISE_HUGEPAGE': '0'}
        done = subprocess.run(run, capture_output=True, text=True, check=True, env=small_pages)
        return int(done.stdout)

    assert count('kept') < 1_000 < 40_000 < count('mapped')
