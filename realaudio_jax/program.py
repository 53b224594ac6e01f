"""The one XLA program: token ids and a timeline in, 16-bit PCM and a health record out.

Text encoder, optional VAE encode, every denoiser step, VAE decode, limiter and PCM conversion are
one function, compiled once per bucket (batch, latent frames, steps, sample rate, with or without
init audio) by `jax.jit` over a device mesh: batches are split over 'data', parameters are
arguments, placed by the caller. A call runs exactly one executable.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from realaudio_jax import audio as audio_lib
from realaudio_jax import noise, samplers
from realaudio_jax.cache import damaged_programs_removed
from realaudio_jax.models.autoencoder import Autoencoder, samples_per_latent
from realaudio_jax.models.denoiser import (
    PATH,
    Conditioning,
    Denoiser,
    as_student,
    as_teacher,
    frame_mask,
)
from realaudio_jax.models.text_encoder import TextEncoder, sentence_embedding
from realaudio_jax.random import pinned_settings, random_key
from realaudio_jax.typing import (
    LATENT_CHANNELS,
    MAX_EVENT_TOKENS,
    MAX_EVENTS,
    MAX_TEXT_TOKENS,
    Array,
    Float,
    Int,
    Int16,
    Key,
    Leaf,
    PyTree,
)

MOMENTS = 'student_moments'  # of the parameters, see `metrics.calibration.calibrate_moments`
SILENT_DB = -60.0  # RMS below which a sound counts as silent


@flax.struct.dataclass
class Request:
    """What to generate, as arrays; every leaf starts with the batch axis.

    Attributes:
      token_ids, token_mask: of the prompt.
      event_ids, event_token_mask: of each event's text.
      onset_s, offset_s, gain_db, event_mask: the timeline, see `timeline.Timeline.arrays`.
      loudness_db, loudness_mask: requested level per latent frame (dBFS), and whether it is
        requested.
      seconds: duration; frames beyond it are padding.
      seed: of each item; the same seed gives the same sound at any batch size and position,
        within one step of 16 bits: products are summed in another order.
      guidance_scale: 1 and above.
      strength: noise level to start from, in (0, 1]; below 1 the sound is a variation of init
        audio.
      init_mask: 1 for latent frames of the init audio that stay as they are.
      target_lufs: integrated loudness of the result, where the bucket normalises.
    """

    token_ids: Leaf['B T']
    token_mask: Leaf['B T']
    event_ids: Leaf['B E U']
    event_token_mask: Leaf['B E U']
    onset_s: Leaf['B E']
    offset_s: Leaf['B E']
    gain_db: Leaf['B E']
    event_mask: Leaf['B E']
    loudness_db: Leaf['B L']
    loudness_mask: Leaf['B']
    seconds: Leaf['B']
    seed: Leaf['B']
    guidance_scale: Leaf['B']
    strength: Leaf['B']
    init_mask: Leaf['B L']
    target_lufs: Leaf['B']


@flax.struct.dataclass
class Health:
    """What the program saw of its own result, before rounding to integers."""

    finite: Leaf['B']
    peak: Leaf['B']  # 0 to 1, after the limiter
    silent: Leaf['B']


@dataclasses.dataclass(frozen=True)
class Slots:
    """Room for what is asked: all of it passes through the text encoder, used or not.

    Attributes:
      events: of a timeline.
      event_tokens: of the text of one event.
      text_tokens: of a prompt.
    """

    events: int
    event_tokens: int
    text_tokens: int


# That are compiled: half the room is half the time of the text encoder.
SLOTS = (
    Slots(2, 8, 16), Slots(4, 8, 32), Slots(MAX_EVENTS, MAX_EVENT_TOKENS, MAX_TEXT_TOKENS),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Bucket:
    """The static shape of a program.

    Attributes:
      batch: sounds per call.
      length: latent frames, even.
      steps: sampling steps.
      sample_rate: Hz.
      student: one evaluation a step, guidance inside; otherwise the teacher, guided, two.
      init: whether the program takes init audio.
      normalise: whether the result is brought to `target_lufs` before the limiter.
      sampler: 'ddim' or 'dpm_solver_pp_2m' (teacher), 'ddim' or 'ping_pong' (student).
      slots: room for prompt and timeline, one of `SLOTS`.
    """

    batch: int
    length: int
    steps: int
    sample_rate: int
    student: bool = True
    init: bool = False
    normalise: bool = False
    sampler: str = 'ddim'
    slots: Slots = SLOTS[-1]


@dataclasses.dataclass(frozen=True)
class Networks:
    """The modules of a release; hashable, so they are constants of a program.

    Attributes:
      text_encoder, autoencoder, denoiser: the modules.
      grid_powers: of the student's time grid, as (steps, power), see `noise.time_grid`; a count of
        steps that is not named has even steps.
    """

    text_encoder: TextEncoder
    autoencoder: Autoencoder
    denoiser: Denoiser
    grid_powers: tuple[tuple[int, float], ...] = ()


def item_noise(key: Key[Array, ''], seed: Int[Array, 'B'], length: int) -> Float[Array, 'B L C']:
    """Standard normal noise, a function of (key, seed, frame) alone.

    Neither batch size nor position nor the length of the bucket changes the noise of a frame.
    """

    def frame_noise(item_key, index):
        return jax.random.normal(jax.random.fold_in(item_key, index), (LATENT_CHANNELS,))

    def one(item_seed):
        item_key = jax.random.fold_in(key, item_seed)
        return jax.vmap(functools.partial(frame_noise, item_key))(jnp.arange(length))

    return jax.vmap(one)(seed)


def condition(
    networks: Networks, params: PyTree, request: Request, init: Float[Array, 'B L C']
) -> Conditioning:
    """Encodes prompt and event texts, and joins them with the timeline."""
    encoder, weights = networks.text_encoder, {'params': params['text_encoder']}
    batch, events, tokens = request.event_ids.shape
    text = encoder.apply(weights, request.token_ids, request.token_mask)
    ids = request.event_ids.reshape(batch * events, tokens)
    mask = request.event_token_mask.reshape(batch * events, tokens)
    event_text = sentence_embedding(encoder.apply(weights, ids, mask), mask)
    return Conditioning(
        text=text,
        text_mask=request.token_mask,
        event_text=event_text.reshape(batch, events, -1),
        onset_s=request.onset_s,
        offset_s=request.offset_s,
        gain_db=request.gain_db,
        event_mask=request.event_mask,
        loudness_db=request.loudness_db,
        loudness_mask=request.loudness_mask,
        seconds=request.seconds,
        init=init,
        init_mask=request.init_mask,
    )


def sample_latents(
    networks: Networks, params: PyTree, request: Request, c: Conditioning, bucket: Bucket
) -> Float[Array, 'B L C']:
    """Runs the sampler from item noise (or noised init latents) to clean latents.

    Every item has its own strength, so the sampler runs in units of it: u from 1 to 0,
    t = u strength. A student walks its own grid, is told the length of each step, and what it made
    is then brought to `MOMENTS` of this count of steps, if there are any.
    """
    key_start, key_fresh = jax.random.split(random_key(0))
    start = item_noise(key_start, request.seed, bucket.length)
    if bucket.init:
        start = noise.diffuse(PATH, c.init, start, request.strength)
    scale, strength = request.guidance_scale, request.strength
    power = dict(networks.grid_powers).get(bucket.steps, 1.0) if bucket.student else 1.0

    def denoise(x, u):
        if not bucket.student:
            return as_teacher(networks.denoiser)(params['teacher'], c, scale)(x, u * strength)
        length = strength * noise.step_length(u, bucket.steps, power)
        return as_student(networks.denoiser)(params['student'], c, scale, length)(x, u * strength)

    path = StrengthPath(strength) if bucket.init else PATH
    grid = noise.time_grid(bucket.steps, power=power)
    if bucket.sampler == 'ddim':
        latents = samplers.ddim(denoise, path, start, grid)
    elif bucket.sampler == 'dpm_solver_pp_2m':
        latents = samplers.dpm_solver_pp_2m(denoise, path, start, grid)
    elif bucket.sampler == 'ping_pong':
        keys = samplers.item_keys(key_fresh, request.seed)
        latents = samplers.multistep_consistency(denoise, path, start, grid, keys)
    else:
        raise ValueError(
            f'unknown sampler {bucket.sampler!r}; use ddim, dpm_solver_pp_2m or ping_pong'
        )
    moments = params.get(MOMENTS, {}).get(str(bucket.steps)) if bucket.student else None
    if moments:  # as much of it as was made anew
        brought = latents * moments['gain'][None, None] + moments['shift'][None, None]
        latents += strength[:, None, None] * (brought - latents)
    keep = request.init_mask[..., None]
    return keep * c.init + (1.0 - keep) * latents if bucket.init else latents


@dataclasses.dataclass(frozen=True, eq=False)
class StrengthPath:
    """The noise path in units of a start level per item: alpha(u strength), sigma(u strength)."""

    strength: Float[Array, 'B']

    def _time(self, u):
        u = jnp.asarray(u)
        return u * self.strength.reshape((-1,) + (1,) * (u.ndim - 1))

    def alpha(self, u):
        return PATH.alpha(self._time(u))

    def sigma(self, u):
        return PATH.sigma(self._time(u))

    def rates(self, u):
        alpha, sigma = PATH.rates(self._time(u))
        scale = self._time(jnp.ones_like(jnp.asarray(u)))
        return scale * alpha, scale * sigma

    def time_at(self, log_snr):
        return PATH.time_at(log_snr) / self.strength


def finish(
    audio: Float[Array, 'B S 2'],
    seconds: Float[Array, 'B'],
    sample_rate: int,
    target_lufs: Float[Array, 'B'] | None = None,
) -> tuple[Int16[Array, 'B S 2'], Health]:
    """Cuts to the duration, limits, converts to PCM, records health; non-finite sound is zero."""
    samples = jnp.round(seconds * sample_rate)
    inside = jnp.arange(audio.shape[1])[None] < samples[:, None]
    audio = jnp.where(inside[..., None], audio, 0.0)
    finite = jnp.all(jnp.isfinite(audio), axis=(1, 2))
    audio = jnp.where(finite[:, None, None], audio, 0.0)
    if target_lufs is not None:
        audio = audio_lib.normalise_loudness(audio, sample_rate, target_lufs)
    audio = audio_lib.limit(audio, sample_rate)
    power = jnp.sum(jnp.square(audio), axis=(1, 2)) / (2 * sample_rate * seconds)
    health = Health(
        finite=finite,
        peak=jnp.max(jnp.abs(audio), axis=(1, 2)),
        silent=power < 10 ** (SILENT_DB / 10),
    )
    return audio_lib.to_pcm16(audio), health


def generate(
    params: PyTree,
    request: Request,
    init_audio: Float[Array, 'B S 2'] | None,
    *,
    networks: Networks,
    bucket: Bucket,
) -> tuple[Int16[Array, 'B S 2'], Health, Float[Array, 'B L C']]:
    """The whole program.

    Args:
      params: of text encoder, autoencoder, student and teacher, by those names; `MOMENTS` of the
        student, if it has some: {steps: {'gain': [C], 'shift': [C]}}.
      request: what to make.
      init_audio: sound to vary or to keep parts of; None where the bucket has no init.
      networks: the modules.
      bucket: the static shape.

    Returns:
      PCM of `length * samples_per_latent` samples, its health, and the latents it came from.
    """
    shape = (bucket.batch, bucket.length, LATENT_CHANNELS)
    autoencoder, weights = networks.autoencoder, params['autoencoder']
    init = jnp.zeros(shape)
    if bucket.init:
        init = autoencoder.apply(weights, init_audio, bucket.sample_rate, method='encode')
    c = condition(networks, params, request, init)
    latents = sample_latents(networks, params, request, c, bucket)
    mask = frame_mask(request.seconds, bucket.length).astype(latents.dtype)
    audio = autoencoder.apply(weights, latents, bucket.sample_rate, mask, method='decode')
    target = request.target_lufs if bucket.normalise else None
    pcm, health = finish(audio, request.seconds, bucket.sample_rate, target)
    return pcm, health, latents


def request_shapes(bucket: Bucket) -> tuple[Request, jax.ShapeDtypeStruct | None]:
    """The shapes a bucket's program takes: (request, init audio or None)."""
    b, length, slots = bucket.batch, bucket.length, bucket.slots
    e = slots.events

    def of(dtype, *shape):
        return jax.ShapeDtypeStruct((b, *shape), dtype)

    request = Request(
        token_ids=of(np.int32, slots.text_tokens),
        token_mask=of(np.bool_, slots.text_tokens),
        event_ids=of(np.int32, e, slots.event_tokens),
        event_token_mask=of(np.bool_, e, slots.event_tokens),
        onset_s=of(np.float32, e),
        offset_s=of(np.float32, e),
        gain_db=of(np.float32, e),
        event_mask=of(np.bool_, e),
        loudness_db=of(np.float32, length),
        loudness_mask=of(np.bool_),
        seconds=of(np.float32),
        seed=of(np.int32),
        guidance_scale=of(np.float32),
        strength=of(np.float32),
        init_mask=of(np.float32, length),
        target_lufs=of(np.float32),
    )
    samples = length * samples_per_latent(bucket.sample_rate)
    return request, of(np.float32, samples, 2) if bucket.init else None


class ProgramCache:
    """Compiled programs, one per bucket.

    Compilation is ahead of time: a call with a known bucket neither traces nor compiles.
    Executables also go through JAX's persistent compilation cache where that is enabled, so that a
    second process loads them from disk.

    Args:
      networks: the modules.
      params: placed on the mesh (replicated or split over 'model').
      mesh: with axes ('data', 'model').
    """

    def __init__(self, networks: Networks, params: PyTree, mesh: Mesh):
        self.networks, self.params, self.mesh = networks, params, mesh
        self._compiled: dict[Bucket, Callable] = {}

    def __len__(self) -> int:
        return len(self._compiled)

    def weights_for(self, bucket: Bucket) -> PyTree:
        """The parameters that bucket's program reads."""
        used = 'student' if bucket.student else 'teacher'
        names = ('text_encoder', 'autoencoder', used, *([MOMENTS] if bucket.student else []))
        return {name: self.params[name] for name in names if name in self.params}

    def batch_sharding(self, bucket: Bucket) -> NamedSharding:
        """Batches are split over 'data' where they divide it, otherwise held by every device."""
        splits = bucket.batch % self.mesh.shape['data'] == 0
        return NamedSharding(self.mesh, P('data') if splits else P())

    @pinned_settings()
    def lower(self, bucket: Bucket) -> jax.stages.Lowered:
        """Traces a bucket's program to StableHLO."""
        request, init_audio = request_shapes(bucket)
        sharding = self.batch_sharding(bucket)
        function = functools.partial(generate, networks=self.networks, bucket=bucket)
        jitted = jax.jit(
            function,
            in_shardings=(
                jax.tree.map(lambda x: x.sharding, self.weights_for(bucket)),
                sharding,
                sharding,
            ),
            out_shardings=sharding,
        )
        return jitted.lower(self.weights_for(bucket), request, init_audio)

    def get(self, bucket: Bucket) -> Callable:
        """The executable `(params, request, init_audio) -> (pcm, health, latents)` of a bucket."""
        if bucket not in self._compiled:
            with damaged_programs_removed():
                self._compiled[bucket] = self.lower(bucket).compile()
        return self._compiled[bucket]

    def __call__(
        self, bucket: Bucket, request: Request, init_audio: np.ndarray | None = None
    ) -> tuple[Array, Health, Array]:
        """Runs a bucket's program, compiling it first if this is its first call."""
        program = self.get(bucket)
        request, init_audio = jax.device_put((request, init_audio), self.batch_sharding(bucket))
        return program(self.weights_for(bucket), request, init_audio)

    @pinned_settings()
    def export(self, bucket: Bucket) -> bytes:
        """A serialised, version-stable StableHLO form of a bucket's program (`jax.export`)."""
        request, init_audio = request_shapes(bucket)
        function = functools.partial(generate, networks=self.networks, bucket=bucket)
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.weights_for(bucket)
        )
        flat, tree = jax.tree.flatten((shapes, request, init_audio))

        def on_leaves(*leaves):
            pcm, health, latents = function(*jax.tree.unflatten(tree, leaves))
            return pcm, health.finite, health.peak, health.silent, latents

        return bytes(jax.export.export(jax.jit(on_leaves))(*flat).serialize())
