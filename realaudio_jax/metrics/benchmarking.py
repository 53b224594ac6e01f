"""Time and memory of a call, its stages and its compilation; and of one sound of a release.

A call is timed with its result ready: JAX returns before its work is done.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import watermark
from realaudio_jax.data.scenes import Scene
from realaudio_jax.finishing import finish
from realaudio_jax.generator import Generator
from realaudio_jax.memory import PeakMemory, peak_memory
from realaudio_jax.metrics.bootstrap import paired_bootstrap
from realaudio_jax.metrics.evaluation.generate import SamplerConfig, bucket_of
from realaudio_jax.metrics.rows import TIME, difference_row
from realaudio_jax.models.autoencoder import samples_per_latent
from realaudio_jax.models.denoiser import frame_mask
from realaudio_jax.program import condition, decode_marked, sample_latents
from realaudio_jax.program_io import Capacity
from realaudio_jax.timeline import Timeline
from realaudio_jax.typing import SAMPLE_RATE, Array


@dataclasses.dataclass(frozen=True)
class LatencyStats:
    """Latency over n calls, in milliseconds."""

    median: float
    p95: float
    p99: float
    n: int


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


def latency_row(
    generator: Generator, scene: Scene, sampler: SamplerConfig, repeats: int = 9
) -> dict:
    """Time of one call at batch 1, PCM on the host, median of `repeats`."""
    bucket, request, columns = _single(generator, scene, sampler)
    generator = generator.in_precision(sampler.precision)
    found = benchmark(lambda: _whole(generator, bucket, request), repeats=repeats)
    return _stats_row(TIME, found.warm) | {'seconds': scene.seconds} | columns


@dataclasses.dataclass(frozen=True)
class Stages:
    """The program of one sound, and its stages compiled separately.

    Attributes:
        text: () -> conditioning, tokenising included.
        denoise: (conditioning, steps) -> latents.
        decode: latents -> PCM, limiter included.
        encode: () -> latents of as much silence: only a variation of given sound needs it.
        build: compiles the whole program and returns its call, which ends with PCM on the host.
    """

    text: Callable[[], Any]
    denoise: Callable[[Any, int], Array]
    decode: Callable[[Array], Array]
    encode: Callable[[], Array]
    build: Callable[[], Callable[[], Any]]


def stages(generator: Generator, scene: Scene, sampler: SamplerConfig) -> Stages:
    """Builds the timed stages of a release; nothing is compiled before it is called."""
    bucket, request, _ = _single(generator, scene, sampler)
    generator = generator.in_precision(sampler.precision)
    networks, weights = generator.networks, generator.programs.weights_for(bucket)
    zeros = jnp.zeros((1, bucket.length, networks.channels))
    silence = jnp.zeros((1, bucket.length * samples_per_latent(SAMPLE_RATE), 2))

    @jax.jit
    def text(weights, request):
        return condition(networks, weights, request, zeros, zeros[..., 0])

    @functools.partial(jax.jit, static_argnums=3)
    def denoise(weights, request, c, steps):
        part = dataclasses.replace(bucket, steps=steps)
        return sample_latents(networks, weights, request, c, part)

    @jax.jit
    def decode(weights, latents, request):
        mask = frame_mask(request.seconds, bucket.length).astype(latents.dtype)
        audio = decode_marked(
            networks, weights, latents, watermark.starts(request.seed), SAMPLE_RATE, mask
        )
        return finish(audio, request, SAMPLE_RATE)[0]

    @jax.jit
    def encode(weights, audio):
        params = weights['autoencoder']
        return networks.autoencoder.apply(params, audio, SAMPLE_RATE, method='encode')

    return Stages(
        text=lambda: text(weights, _single(generator, scene, sampler)[1]),
        denoise=lambda c, steps: denoise(weights, request, c, steps),
        decode=lambda latents: decode(weights, latents, request),
        encode=lambda: encode(weights, silence),
        build=lambda: _whole(generator, bucket, request),
    )


def latency_rows(
    generator: Generator, scene: Scene, sampler: SamplerConfig, repeats: int = 9
) -> list[dict]:
    """Rows of the cost of one sound: call, stages, first call, compilation, memory.

    Beside the `Stages`, which wait on the device, stands the transfer of the PCM to the host.
    """
    columns, parts = sampler.columns(generator), stages(generator, scene, sampler)
    c = parts.text()
    latents = parts.denoise(c, sampler.steps)
    pcm = parts.decode(latents)
    found = benchmark(
        parts.build,
        {
            'text': parts.text,
            'denoise': lambda: parts.denoise(c, sampler.steps),
            'decode': lambda: parts.decode(latents),
            'encode': parts.encode,
            # a copy first: an array that was fetched once keeps its host copy
            'transfer': lambda: np.asarray(jnp.copy(pcm)),
        },
        repeats,
    )
    rows = [_stats_row(TIME, found.warm)]
    rows += [_stats_row(f'time of {name}', stats) for name, stats in found.stages.items()]
    rows += [
        {'name': 'first call', 'value': found.cold_ms, 'unit': 'ms', 'n': 1},
        {'name': 'compilation', 'value': found.compile_ms, 'unit': 'ms', 'n': 1},
        {'name': 'peak memory, host', 'value': found.memory.host / 2**20, 'unit': 'MiB', 'n': 1},
    ]
    if found.memory.device is not None:
        device = found.memory.device / 2**20
        rows.append({'name': 'peak memory, device', 'value': device, 'unit': 'MiB', 'n': 1})
    return [row | {'seconds': scene.seconds} | columns for row in rows]


def in_turn_row(
    generator: Generator, scene: Scene, a: SamplerConfig, b: SamplerConfig, repeats: int = 25
) -> dict:
    """Time of one call by a minus that by b, called in turn, with the interval of the medians."""
    calls = []
    for sampler in (a, b):
        bucket, request, _ = _single(generator, scene, sampler)
        calls.append(_whole(generator.in_precision(sampler.precision), bucket, request))
    measure(lambda: [call() for call in calls], 1)
    pairs = [[measure(call, 1, warmup=0).median for call in calls] for _ in range(repeats)]
    found = paired_bootstrap(np.median, *zip(*pairs, strict=True))
    row = difference_row(TIME, b.label, found, 'ms')
    return row | {'seconds': scene.seconds} | a.columns(generator)


def _single(generator, scene, sampler):
    """Bucket, request and columns of one sound at batch 1."""
    columns = sampler.columns(generator)
    length = bucket_of(sampler, scene.seconds, 1).length
    request = generator.request(
        [scene.caption],
        Timeline(scene.events),
        scene.seconds,
        [0],
        columns['guidance'],
        length,
        capacity=None,
    )
    return bucket_of(sampler, scene.seconds, 1, Capacity.of(request)), request, columns


def _whole(generator, bucket, request):
    """The program, compiled, as a call that ends with its result on the host."""
    generator.programs.get(bucket)
    return lambda: jax.device_get(generator.programs(bucket, request))


def _stats_row(name, stats):
    return {
        'name': name,
        'value': stats.median,
        'unit': 'ms',
        'n': stats.n,
        'high': stats.p95,
        'p95': stats.p95,
        'p99': stats.p99,
    }
