"""Timing waits for results and counts what it says."""

import time

import jax
import jax.numpy as jnp
import pytest

from realaudio_jax.metrics.latency import measure, peak_memory


def test_percentiles_and_counts():
    calls = []

    def fn():
        calls.append(1)
        time.sleep(0.03 if len(calls) == 4 else 0.005)

    stats = measure(fn, repeats=5, warmup=2)
    assert len(calls) == 7 and stats.n == 5
    assert 5 <= stats.median < 25 < stats.p95 <= stats.p99


def test_the_result_is_waited_for():
    """A call that returns at once but finishes 20 ms later takes 20 ms."""

    def slow(x):
        time.sleep(0.02)
        return x

    fn = jax.jit(lambda x: jax.pure_callback(slow, jax.ShapeDtypeStruct((3,), x.dtype), x))
    assert measure(lambda: fn(jnp.ones(3)), repeats=3).median >= 20


def test_memory_and_errors():
    memory = peak_memory()
    assert memory.host > 1e7 and (memory.device is None or memory.device > 0)
    with pytest.raises(ValueError, match='at least 1'):
        measure(lambda: None, repeats=0)
