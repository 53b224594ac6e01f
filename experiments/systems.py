"""The systems of the benchmark table, each as the parts that are timed one by one.

A system with random weights takes the time and the memory of the real one. Each of the parts
returns with device arrays not yet ready, as `metrics.latency` expects.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import noise, program, samplers
from realaudio_jax.generator import load
from realaudio_jax.models import denoiser
from realaudio_jax.models.autoencoder import samples_per_latent
from realaudio_jax.program import Bucket
from realaudio_jax.teachers import audioldm2, t5
from realaudio_jax.teachers.audioldm2 import model as audioldm2_model
from realaudio_jax.teachers.audioldm2 import pipeline as audioldm2_pipeline
from realaudio_jax.teachers.stable_audio_open import conditioners, denoise, oobleck, transformer
from realaudio_jax.teachers.stable_audio_open.pipeline import PREDICTORS, StableAudioOpen
from realaudio_jax.timeline import Timeline
from realaudio_jax.typing import SAMPLE_RATE, Array, PyTree

PROMPT, EVENTS = 'a dog barks in the rain', 'bark@0.2-0.4'
TOKENS = 16  # of a prompt where there is no tokenizer
RANDOM = 'random'


@dataclasses.dataclass(frozen=True)
class System:
    """A model and how its parts are called.

    Attributes:
      name: in the table.
      weights: where from.
      steps: of the whole sampler; guided: whether each takes two evaluations.
      parameters: of the networks that a sound takes.
      sample_rate: Hz; channels: of the sound; made_s: seconds made, which may exceed those asked.
      text: () -> conditioning.
      sample: (conditioning, steps) -> latents after so many of the whole sampler's steps.
      decode: latents -> sound.
      encode: () -> latents of a sound of the same length.
      whole: () -> sound in one program, where there is one; None chains the parts.
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
    sample: Callable[[Any, int], Array]
    decode: Callable[[Array], Any]
    encode: Callable[[], Any]
    whole: Callable[[], Any] | None = None

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of the denoiser."""
        return 2 if self.guided else 1

    def run(self) -> Any:
        """A sound from its prompt."""
        if self.whole is not None:
            return self.whole()
        return self.decode(self.sample(self.text(), self.steps))


def this_model(release: str, seconds: float, student: bool, steps: int) -> System:
    """A release's student, or its teacher with guidance."""
    generator = load(release)
    networks = generator.networks
    bucket = Bucket(1, denoiser.latent_frames(np.ceil(seconds)), steps, SAMPLE_RATE, student)
    params = generator.programs.weights_for(bucket)
    timeline = Timeline.parse(EVENTS, seconds)
    guidance = generator.config['guidance']
    request = generator.request([PROMPT], timeline, seconds, [0], guidance, bucket.length)
    shape = (1, bucket.length, denoiser.LATENT_CHANNELS)
    start = jax.random.normal(jax.random.key(0), shape)
    silence = np.zeros((1, bucket.length * samples_per_latent(SAMPLE_RATE), 2), np.float32)

    @jax.jit
    def text(params, request):
        return program.condition(networks, params, request, jnp.zeros(shape))

    @jax.jit
    def sample(params, conditioning, grid):
        scale = jnp.full(1, guidance, jnp.float32)
        if student:
            bound = denoiser.as_student(networks.denoiser)(
                params['student'], conditioning, scale, jnp.full(1, 1 / steps)
            )
        else:
            bound = denoiser.as_teacher(networks.denoiser)(params['teacher'], conditioning, scale)
        return samplers.ddim(bound, denoiser.PATH, start, grid)

    @jax.jit
    def decode(params, latents):
        mask = denoiser.frame_mask(jnp.full(1, seconds), bucket.length).astype(latents.dtype)
        sound = networks.autoencoder.apply(
            params['autoencoder'], latents, SAMPLE_RATE, mask, method='decode'
        )
        return program.finish(sound, jnp.full(1, seconds), SAMPLE_RATE)

    @jax.jit
    def encode(params):
        return networks.autoencoder.apply(
            params['autoencoder'], silence, SAMPLE_RATE, method='encode'
        )

    grid = noise.time_grid(steps)
    return System(
        name='this model' if student else 'its teacher',
        weights=generator.config.get('name', release),
        steps=steps,
        guided=not student,
        parameters=count(params),
        sample_rate=SAMPLE_RATE,
        channels=2,
        made_s=seconds,
        text=lambda: text(params, request),
        sample=lambda conditioning, taken: sample(params, conditioning, grid[: taken + 1]),
        decode=lambda latents: decode(params, latents),
        encode=lambda: encode(params),
        whole=lambda: generator.programs(bucket, request),
    )


def audioldm2_system(
    folder: str | None,
    seconds: float,
    dtype: str,
    steps: int,
    networks: audioldm2.Networks | None = None,
) -> System:
    """AudioLDM 2 from its folder, or with random weights (of the published size by default)."""
    if folder:
        require_memory(weight_bytes(folder))
        loaded = audioldm2.load(folder, dtype)
        networks, params, tokens = loaded.networks, loaded.params, loaded.tokens([PROMPT])
    else:
        networks = networks or audioldm2.Networks()
        params = random_params(audioldm2_model.parameter_shapes(networks), dtype)
        ids, real = np.ones((2, TOKENS), np.int32), np.ones((2, TOKENS), bool)
        tokens = audioldm2_model.Tokens(ids, real, ids, real, np.full(2, TOKENS, np.int32))
    frames = networks.latent_frames(seconds)
    start = jax.random.normal(jax.random.key(0), (1, frames, int(np.prod(networks.cells))))
    silence = jnp.zeros((1, frames * networks.latent_samples))
    times, path = networks.schedule.times(steps), networks.schedule.path
    condition = jax.jit(functools.partial(audioldm2_model.condition, networks))
    decode = jax.jit(functools.partial(audioldm2_model.decode, networks))
    encode = jax.jit(functools.partial(audioldm2_model.encode, networks))

    @jax.jit
    def sample(params, conditioning, grid):
        scale = jnp.full(1, audioldm2_pipeline.GUIDANCE, jnp.float32)
        teacher = audioldm2.as_teacher(networks)(params, conditioning, scale)
        return samplers.ddim(teacher, path, start, grid)

    return System(
        name='AudioLDM 2',
        weights=pathlib.Path(folder).name if folder else RANDOM,
        steps=steps,
        guided=True,
        parameters=count(params),
        sample_rate=networks.sample_rate,
        channels=1,
        made_s=frames * networks.latent_samples / networks.sample_rate,
        text=lambda: condition(params, tokens),
        sample=lambda conditioning, taken: sample(params, conditioning, times[: taken + 1]),
        decode=lambda latents: decode(params, latents),
        encode=lambda: encode(params, silence),
    )


@dataclasses.dataclass(frozen=True)
class OpenNetworks:
    """The networks of Stable Audio Open; the defaults are the published ones."""

    predictors: denoise.Networks = denoise.Networks(
        transformer.Transformer(), conditioners.Projection()
    )
    autoencoder: oobleck.Oobleck = oobleck.Oobleck()
    text_encoder: t5.T5Encoder = t5.T5Encoder()
    schedule: denoise.Schedule = denoise.Schedule()


def stable_audio_open_system(
    folder: str | None,
    seconds: float,
    dtype: str,
    steps: int,
    networks: OpenNetworks | None = None,
) -> System:
    """Stable Audio Open from its folder, or with random weights; it makes its whole window."""
    if folder:
        require_memory(weight_bytes(folder))
        loaded = StableAudioOpen(folder, dtype)
        loaded.require_seconds(seconds)
        networks = OpenNetworks(
            loaded.networks, loaded.autoencoder, loaded.text_encoder, loaded.schedule
        )
        params, (ids, real) = loaded.params, loaded.tokenizer.encode([PROMPT])
    else:
        networks = networks or OpenNetworks()
        parts = networks.predictors
        shapes = {
            'transformer': transformer.parameter_shapes(parts.transformer),
            'projection': conditioners.parameter_shapes(parts.projection),
            'autoencoder': oobleck.parameter_shapes(networks.autoencoder),
            'text_encoder': t5.parameter_shapes(networks.text_encoder),
        }
        params = random_params(shapes, dtype)
        ids, real = np.ones((1, 128), np.int32), np.ones((1, 128), bool)
    predictors, autoencoder = networks.predictors, networks.autoencoder
    kind = params['transformer']['embed']['kernel'].dtype
    frames, channels = predictors.transformer.frames, predictors.transformer.channels
    samples = frames * autoencoder.samples_per_latent
    start, fresh = denoise.noises(jax.random.key(0)[None], steps, (frames, channels))
    silence = jnp.zeros((1, samples, autoencoder.audio_channels), kind)
    times = networks.schedule.times(steps)
    encode_text = jax.jit(networks.text_encoder.apply)
    sample = jax.jit(functools.partial(denoise.sample, predictors))
    apply = autoencoder.apply
    decode = jax.jit(functools.partial(apply, method='decode'))
    encode = jax.jit(functools.partial(apply, method='encode'))
    own = {name: params[name] for name in PREDICTORS}

    def text():
        states = encode_text({'params': params['text_encoder']}, ids, real)
        begin, end = jnp.zeros(1), jnp.full(1, seconds)
        return conditioners.Conditioning(states, jnp.asarray(real), begin, end, jnp.ones(1, bool))

    return System(
        name='Stable Audio Open',
        weights=pathlib.Path(folder).name if folder else RANDOM,
        steps=steps,
        guided=True,
        parameters=count(params),
        sample_rate=autoencoder.sample_rate,
        channels=autoencoder.audio_channels,
        made_s=samples / autoencoder.sample_rate,
        text=text,
        sample=lambda conditioning, taken: sample(
            own, conditioning, start, times[: taken + 1], fresh[:taken], 7.0
        ),
        decode=lambda latents: decode({'params': params['autoencoder']}, latents.astype(kind)),
        encode=lambda: encode({'params': params['autoencoder']}, silence),
    )


class TooLittleMemory(ValueError):
    """A system does not fit into the memory that is free."""


def require_memory(needed: float) -> None:
    """TooLittleMemory where parameters of so many bytes, and half as much again, are not free.

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
        raise TooLittleMemory(
            f'too little memory: needs about {1.5 * needed / 1e9:.1f} GB, {free / 1e9:.1f} are free'
        )


def count(params: PyTree) -> int:
    """Numbers in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def weight_bytes(folder: str) -> int:
    """Size of the weights in a folder."""
    return sum(path.stat().st_size for path in pathlib.Path(folder).rglob('*.safetensors'))


def random_params(shapes: PyTree, dtype: str) -> PyTree:
    """Parameters of small random size: outputs stay finite, and no time is saved on zeros."""
    require_memory(count(shapes) * jnp.dtype(dtype).itemsize)
    rng = np.random.default_rng(0)

    def one(leaf):
        values = rng.standard_normal(leaf.shape, np.float32) * 0.02
        return jnp.asarray(values if len(leaf.shape) > 1 else 1.0 + values, dtype)

    return jax.tree.map(one, shapes)


def build(name: str, folders: dict[str, str | None], seconds: float, dtype: str) -> System:
    """The system of a row, at its number of steps in the table."""
    return {
        'student': lambda: this_model(folders['release'], seconds, True, 4),
        'teacher': lambda: this_model(folders['release'], seconds, False, 50),
        'audioldm2': lambda: audioldm2_system(folders['audioldm2'], seconds, dtype, 50),
        'stable_audio_open': lambda: stable_audio_open_system(
            folders['stable_audio_open'], seconds, dtype, 20
        ),
    }[name]()


NAMES: Sequence[str] = ('student', 'teacher', 'audioldm2', 'stable_audio_open')
