"""Time, compilation and memory of one sound of a release, in total and by stage."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.data.scenes import Scene
from realaudio_jax.generator import Generator
from realaudio_jax.metrics.latency import benchmark
from realaudio_jax.metrics.setting import Setting, bucket_of
from realaudio_jax.models.autoencoder import samples_per_latent
from realaudio_jax.models.denoiser import frame_mask
from realaudio_jax.program import condition, finish, sample_latents
from realaudio_jax.timeline import Timeline
from realaudio_jax.typing import LATENT_CHANNELS, SAMPLE_RATE, Array


def latency_row(generator: Generator, scene: Scene, setting: Setting, repeats: int = 9) -> dict:
    """Time of one call at batch 1, PCM on the host, median of `repeats`."""
    bucket, request, columns = _single(generator, scene, setting)
    found = benchmark(lambda: _whole(generator, bucket, request), repeats=repeats)
    return _stats_row('time per sound', found.warm) | {'seconds': scene.seconds} | columns


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


def stages(generator: Generator, scene: Scene, setting: Setting) -> Stages:
    """Builds the timed stages of a release; nothing is compiled before it is called."""
    bucket, request, _ = _single(generator, scene, setting)
    networks, weights = generator.networks, generator.programs.weights_for(bucket)
    zeros = jnp.zeros((1, bucket.length, LATENT_CHANNELS))
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
        autoencoder, params = networks.autoencoder, weights['autoencoder']
        audio = autoencoder.apply(params, latents, SAMPLE_RATE, mask, method='decode')
        return finish(audio, request, SAMPLE_RATE)[0]

    @jax.jit
    def encode(weights, audio):
        params = weights['autoencoder']
        return networks.autoencoder.apply(params, audio, SAMPLE_RATE, method='encode')

    return Stages(
        text=lambda: text(weights, _single(generator, scene, setting)[1]),
        denoise=lambda c, steps: denoise(weights, request, c, steps),
        decode=lambda latents: decode(weights, latents, request),
        encode=lambda: encode(weights, silence),
        build=lambda: _whole(generator, bucket, request),
    )


def latency_rows(
    generator: Generator, scene: Scene, setting: Setting, repeats: int = 9
) -> list[dict]:
    """Rows of the cost of one sound: call, stages, first call, compilation, memory.

    Beside the `Stages`, which wait on the device, stands the transfer of the PCM to the host.
    """
    columns, parts = setting.columns(generator), stages(generator, scene, setting)
    c = parts.text()
    latents = parts.denoise(c, setting.steps)
    pcm = parts.decode(latents)
    found = benchmark(
        parts.build,
        {
            'text': parts.text,
            'denoise': lambda: parts.denoise(c, setting.steps),
            'decode': lambda: parts.decode(latents),
            'encode': parts.encode,
            # a copy first: an array that was fetched once keeps its host copy
            'transfer': lambda: np.asarray(jnp.copy(pcm)),
        },
        repeats,
    )
    rows = [_stats_row('time per sound', found.warm)]
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


def _single(generator, scene, setting):
    """Bucket, request and columns of one sound at batch 1."""
    columns = setting.columns(generator)
    timeline = Timeline(scene.events)
    capacity = generator.capacity([scene.caption], [timeline])
    bucket = bucket_of(setting, scene.seconds, 1, capacity)
    request = generator.request(
        [scene.caption],
        timeline,
        scene.seconds,
        [0],
        columns['guidance'],
        bucket.length,
        capacity=capacity,
    )
    return bucket, request, columns


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
