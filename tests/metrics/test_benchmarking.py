"""Timing waits for results and counts what it says."""

import time

import jax
import jax.numpy as jnp
import pytest

from realaudio_jax.memory import peak_memory
from realaudio_jax.metrics.benchmarking import benchmark, measure


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


def test_a_benchmark_tells_building_the_first_call_and_the_rest_apart():
    calls = []

    def build():
        time.sleep(0.06)

        def call():
            calls.append(1)
            time.sleep(0.03 if len(calls) == 1 else 0.002)

        return call

    parts = []

    def part():
        parts.append(1)
        time.sleep(0.05 if len(parts) == 1 else 0.004)

    found = benchmark(build, {'decode': part}, repeats=3)
    assert len(calls) == 4 and len(parts) == 4 and found.warm.n == found.stages['decode'].n == 3
    assert found.compile_ms >= 60 and found.cold_ms >= 30 > found.warm.median >= 2
    assert 4 <= found.stages['decode'].median < 50 and found.memory.host > 0


def test_memory_and_errors():
    memory = peak_memory()
    assert memory.host > 1e7 and (memory.device is None or memory.device > 0)
    with pytest.raises(ValueError, match='at least 1'):
        measure(lambda: None, repeats=0)
