"""Systems of the benchmark: their separately timed stages, and this model's.

A system with random weights takes the time and the memory of the real one. Each part returns with
device arrays not yet ready, as `metrics.benchmarking` expects.
"""

import dataclasses
import functools
import os
import pathlib
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import base_autoencoder, base_teacher
from realaudio_jax.data.scenes import Scene
from realaudio_jax.generator import Generator, load
from realaudio_jax.io import resample
from realaudio_jax.metrics import benchmarking
from realaudio_jax.metrics.evaluation.generate import SamplerConfig, bucket_of, generate_scenes
from realaudio_jax.models.autoencoder import Autoencoder
from realaudio_jax.models.denoiser import Denoiser
from realaudio_jax.models.text_encoder import TextEncoder
from realaudio_jax.program import WATERMARK, Networks
from realaudio_jax.quantisation import quantise_products
from realaudio_jax.release import autoencoder_template, denoiser_template
from realaudio_jax.timeline import Timeline
from realaudio_jax.typing import SAMPLE_RATE, Array, PyTree

PROMPT, EVENTS = 'a dog barks in the rain', 'bark@0.2-0.4'
RANDOM = 'random'


@dataclasses.dataclass(frozen=True)
class System:
    """A model with its separately callable stages.

    Attributes:
        name: in the table.
        weights: where from.
        steps: of the whole sampler.
        guided: whether each step takes two evaluations.
        parameters: of the networks that a sound takes.
        sample_rate: Hz; channels: of the sound; made_s: seconds made, which may exceed those asked.
        text: () -> conditioning.
        sample: (conditioning, steps) -> latents after so many steps, each as long as any.
        decode: latents -> sound.
        encode: () -> latents of a sound of the same length.
        whole: () -> sound in one program; None chains the parts.
        sounds: (scenes, seed) -> float [S 2] at 48 kHz for each; None with random weights.
        flag: that names the folder of its weights; empty where there are none to be had.
        device: what computes it; None is JAX's.
        peak: () -> bytes of that device that it has used at most, where JAX does not know.
    """

    name: str
    weights: str
    steps: int
    guided: bool
    parameters: int
    sample_rate: int
    channels: int
    made_s: float
    text: Callable[[], Any]
    sample: Callable[[Any, int], Any]
    decode: Callable[[Any], Any]
    encode: Callable[[], Any]
    whole: Callable[[], Any] | None = None
    sounds: Callable[[Sequence[Scene], int], Iterable[np.ndarray]] | None = None
    flag: str = 'release'
    device: str | None = None
    peak: Callable[[], int | None] = lambda: None

    @property
    def evaluations_per_step(self) -> int:
        """Denoiser evaluations in one sampling step."""
        return 2 if self.guided else 1

    def run(self) -> Any:
        """Generates one sound from its prompt."""
        if self.whole is not None:
            return self.whole()
        return self.decode(self.sample(self.text(), self.steps))


def this_model(
    release: str, seconds: float, student: bool, steps: int, precision: str = 'float32'
) -> System:
    """The system of a release's student, or of its guided teacher."""
    generator = load(release, precision=precision)
    sampler = SamplerConfig('student' if student else 'teacher', steps)
    system = generator_system(generator, seconds, sampler)
    return dataclasses.replace(
        system,
        name=('this model' if student else 'its teacher')
        + ('' if precision == 'float32' else f', {precision}'),
        weights=generator.config.name or release,
        sounds=lambda scenes, seed: generate_scenes(generator, scenes, sampler, seed).floats(),
    )


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the model at paper size is computed; each is a row, so that each is measured alone.

    Attributes:
        attention: of the denoiser, see `Denoiser`.
        text: whether the text encoder computes in the row's dtype, too.
        decode: whether the decoder does.
        int8: products of the denoiser, the text encoder and the decoder, see `quantisation`.
        xla_flags: of the row's process.
    """

    attention: str | None = None
    text: bool = False
    decode: bool = False
    int8: bool = False
    xla_flags: str = ''


# One CUDA graph for the whole program: the loop over steps is part of it, unrolled, and what is
# independent (both texts and the noise) may run side by side.
GRAPH = ' '.join(
    (
        '--xla_gpu_enable_command_buffer=+WHILE',
        '--xla_gpu_command_buffer_unroll_loops=true',
        '--xla_gpu_command_buffer_scheduling_mode=CONCURRENT',
    )
)
EXECUTIONS = {
    'base': Execution(),
    'base_cudnn': Execution(attention='cudnn'),
    'base_text': Execution(text=True),
    'base_decode': Execution(decode=True),
    'base_graph': Execution(xla_flags=GRAPH),
    'base_int8': Execution(int8=True),
    'base_all': Execution('cudnn', True, True, False, GRAPH),
    'base_all_int8': Execution('cudnn', True, True, True, GRAPH),
}


def paper_size(
    release: str,
    seconds: float,
    dtype: str,
    steps: int,
    variant: str = '',
    execution: str = 'base',
) -> System:
    """A student of configs/base_teacher.py and base_autoencoder.py with random weights.

    Args:
        release: gives the text encoder.
        seconds: of sound.
        dtype: of the weights, and of the denoiser's products.
        steps: of the sampler.
        variant: of the two configs.
        execution: one of EXECUTIONS.
    """
    generator, how = load(release), EXECUTIONS[execution]
    networks = paper_networks(dtype, variant, how)
    text = generator.params['text_encoder']
    params = {
        'text_encoder': jax.tree.map(lambda x: x.astype(dtype), text) if how.text else text,
        'autoencoder': random_params(autoencoder_template(networks.autoencoder), dtype),
        'student': random_params(denoiser_template(networks.denoiser), dtype),
    }
    other = generator.with_networks(networks, quantise_products(params) if how.int8 else params)
    system = generator_system(other, seconds, SamplerConfig('student', steps))
    name = f'this model, paper size{execution.removeprefix("base").replace("_", ", ", 1)}'
    return dataclasses.replace(system, name=name, flag='')


def paper_networks(dtype: str, variant: str = '', how: Execution = EXECUTIONS['base']) -> Networks:
    """The modules of `paper_size`."""
    autoencoder = Autoencoder(
        **base_autoencoder.get_config(variant).model.to_dict(), dtype=dtype if how.decode else None
    )
    return Networks(
        text_encoder=TextEncoder(),
        autoencoder=autoencoder,
        denoiser=Denoiser(
            **base_teacher.get_config(variant).model,
            dtype=dtype,
            attention=how.attention,
            channels=autoencoder.channels,
        ),
    )


def generator_system(generator: Generator, seconds: float, sampler: SamplerConfig) -> System:
    """The parts of a generator's program."""
    events = Timeline.parse(EVENTS, seconds).events
    scene = Scene(np.zeros((0, 2), np.float32), PROMPT, tuple(events), (), seconds, None)
    parts = benchmarking.stages(generator, scene, sampler)
    build = functools.cache(parts.build)  # not before it is called
    weights = generator.programs.weights_for(bucket_of(sampler, seconds, 1))
    return System(
        name=sampler.model,
        weights=RANDOM,
        steps=sampler.steps,
        guided=sampler.model == 'teacher',
        parameters=count(weights) - count(weights.get(WATERMARK)),
        sample_rate=SAMPLE_RATE,
        channels=2,
        made_s=seconds,
        text=parts.text,
        sample=parts.denoise,
        decode=parts.decode,
        encode=parts.encode,
        whole=lambda: build()(),
    )


def published_sounds(loaded: Any, sample_rate: int, steps: int, **kwargs) -> Callable:
    """`System.sounds` of a published model, from its `generate`."""

    def sounds(scenes, seed):
        for i, scene in enumerate(scenes):
            sound = loaded.generate([scene.caption], scene.seconds, steps, seed=seed + i, **kwargs)
            sound = sound[0].reshape(sound.shape[1], -1)
            sound = resample(sound, sample_rate, SAMPLE_RATE)
            yield np.broadcast_to(sound, (len(sound), 2))

    return sounds


class CannotMeasure(ValueError):
    """Raised where a row cannot be measured; its message stands in the table."""


def require_memory(needed: float) -> None:
    """Raises CannotMeasure unless 1.5 times the bytes of the parameters are free.

    Unknown, and so not checked, where neither the device nor /proc/meminfo tells.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    meminfo = pathlib.Path('/proc/meminfo')
    if 'bytes_limit' in stats:
        free = stats['bytes_limit'] - stats.get('bytes_in_use', 0)
    elif meminfo.is_file():
        free = 1024 * int(re.search(r'MemAvailable:\s*(\d+)', meminfo.read_text())[1])
    else:
        return
    if 1.5 * needed > free:
        raise CannotMeasure(
            f'too little memory: needs about {1.5 * needed / 1e9:.1f} GB, {free / 1e9:.1f} are free'
        )


def device_name() -> str:
    """Name of JAX's device; for a CPU its model and the number of usable cores."""
    device = jax.local_devices()[0]
    if device.platform != 'cpu':
        return device.device_kind
    info = pathlib.Path('/proc/cpuinfo')
    found = re.search(r'model name\s*: (.+)', info.read_text()) if info.is_file() else None
    name = found[1].strip() if found else platform.processor() or 'CPU'
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return f'{name}, {cores} cores'


def count(params: PyTree) -> int:
    """Number of parameters in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def require_memory_for(folder: str) -> None:
    """`require_memory` of the weights in a folder."""
    files = pathlib.Path(folder).rglob('*.safetensors')
    require_memory(sum(path.stat().st_size for path in files))


def weights_name(folder: str | None) -> str:
    """Name of weights in the table: their folder's name, or RANDOM without one."""
    return pathlib.Path(folder).name if folder else RANDOM


def random_params(shapes: PyTree, dtype: str) -> PyTree:
    """Small random parameters: outputs stay finite, and no product is of zeros."""
    require_memory(count(shapes) * jnp.dtype(dtype).itemsize)
    block = np.random.default_rng(0).standard_normal(2**20, np.float32) * np.float32(0.02)

    def one(leaf) -> Array:  # the block again and again: a billion draws would take a minute
        values = np.resize(block, leaf.shape)
        return jnp.asarray(values if len(leaf.shape) > 1 else 1.0 + values, dtype)

    return jax.tree.map(one, shapes)


# By the name of a row: (folders, seconds, dtype) -> the system at its steps in the table.
Builder = Callable[[dict[str, str | None], float, str], System]
OWN: dict[str, Builder] = {
    'student': lambda folders, seconds, dtype: this_model(folders['release'], seconds, True, 4),
    'teacher': lambda folders, seconds, dtype: this_model(folders['release'], seconds, False, 50),
}
# Timed only where they are named: another precision, and what is too large for a small machine.
NAMED: dict[str, Builder] = {
    'student_int8': lambda folders, seconds, dtype: this_model(
        folders['release'], seconds, True, 4, 'int8'
    ),
    **{
        name: lambda folders, seconds, dtype, name=name: paper_size(
            folders['release'], seconds, dtype, 4, execution=name
        )
        for name in EXECUTIONS
    },
}
