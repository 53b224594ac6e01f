"""What one sound costs a release: time in all and by stage, compilation, memory."""

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
from realaudio_jax.typing import LATENT_CHANNELS, SAMPLE_RATE


def latency_row(generator: Generator, scene: Scene, setting: Setting, repeats: int = 9) -> dict:
    """Time of one call at batch 1, PCM on the host, median of `repeats`."""
    bucket, request, columns = _single(generator, scene, setting)
    found = benchmark(lambda: _whole(generator, bucket, request), repeats=repeats)
    return _stats_row('time per sound', found.warm) | {'seconds': scene.seconds} | columns


def latency_rows(
    generator: Generator, scene: Scene, setting: Setting, repeats: int = 9
) -> list[dict]:
    """The whole cost of one sound at batch 1: call, stages, first call, compilation, memory.

    Stages are the program's own functions, each compiled alone: text (tokenising included),
    denoise, decode (limiter and PCM included), encode (only a variation of given sound needs it)
    and transfer of the PCM to the host.
    """
    bucket, request, columns = _single(generator, scene, setting)
    networks, weights = generator.networks, generator.programs.weights_for(bucket)
    zeros = jnp.zeros((1, bucket.length, LATENT_CHANNELS))
    silence = np.zeros((1, bucket.length * samples_per_latent(SAMPLE_RATE), 2), np.float32)

    @jax.jit
    def text(weights, request):
        return condition(networks, weights, request, zeros)

    @jax.jit
    def denoise(weights, request, c):
        return sample_latents(networks, weights, request, c, bucket)

    @jax.jit
    def decode(weights, latents, seconds):
        mask = frame_mask(seconds, bucket.length).astype(latents.dtype)
        autoencoder, params = networks.autoencoder, weights['autoencoder']
        audio = autoencoder.apply(params, latents, SAMPLE_RATE, mask, method='decode')
        return finish(audio, seconds, SAMPLE_RATE)[0]

    @jax.jit
    def encode(weights, audio):
        params = weights['autoencoder']
        return networks.autoencoder.apply(params, audio, SAMPLE_RATE, method='encode')

    c = text(weights, request)
    latents = denoise(weights, request, c)
    pcm = decode(weights, latents, request.seconds)
    found = benchmark(
        lambda: _whole(generator, bucket, request),
        {
            'text': lambda: text(weights, _single(generator, scene, setting)[1]),
            'denoise': lambda: denoise(weights, request, c),
            'decode': lambda: decode(weights, latents, request.seconds),
            'encode': lambda: encode(weights, silence),
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
    slots = generator.slots([scene.caption], [timeline])
    bucket = bucket_of(setting, scene.seconds, 1, slots)
    request = generator.request(
        [scene.caption], timeline, scene.seconds, [0], columns['guidance'], bucket.length,
        slots=slots,
    )  # fmt: skip
    return bucket, request, columns


def _whole(generator, bucket, request):
    """The program, compiled, as a call that ends with its result on the host."""
    generator.programs.get(bucket)
    return lambda: jax.device_get(generator.programs(bucket, request))


def _stats_row(name, stats):
    return {
        'name': name, 'value': stats.median, 'unit': 'ms', 'n': stats.n, 'high': stats.p95,
        'p95': stats.p95, 'p99': stats.p99,
    }  # fmt: skip
