"""The one XLA program: token ids and a timeline in, 16-bit PCM and diagnostics out.

Text encoder, optional VAE encode, every denoiser step, VAE decode, and what makes a finished sound
of it (gains of events, offset, fades, kept regions, loudness, limiter, PCM) are one function,
compiled once per bucket (batch, latent frames, steps, sample rate, with or without init audio) by
`jax.jit` over a device mesh: batches are split over 'data', parameters are arguments, placed by the
caller. A call runs exactly one executable.
"""

import collections
import copy
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from realaudio_jax import noise, samplers, watermark
from realaudio_jax.cache import damaged_programs_removed
from realaudio_jax.finishing import finish
from realaudio_jax.mesh import param_sharding
from realaudio_jax.models.autoencoder import Autoencoder
from realaudio_jax.models.denoiser import (
    PATH,
    Conditioning,
    Denoiser,
    as_denoiser,
    encode_context,
    frame_mask,
)
from realaudio_jax.models.text_encoder import TextEncoder, sentence_embedding
from realaudio_jax.program_io import (
    Bucket,
    Diagnostics,
    InitAudio,
    Request,
    describe,
    request_shapes,
)
from realaudio_jax.random import pinned_settings, random_key
from realaudio_jax.typing import (
    LATENT_CHANNELS,
    MAX_EVENT_TOKENS,
    MAX_TEXT_TOKENS,
    Any,
    Array,
    Bool,
    Float,
    Int,
    Int16,
    Key,
    Leaf,
    PyTree,
)

WATERMARK = 'watermark'  # of the parameters, see `watermark.tape`
MOMENTS = 'student_moments'  # of the parameters, see `calibration.match_moments`
MAX_TEXTS = 256  # that a `ProgramCache` keeps encoded for long sounds, 100 kB at most each
TEXT_SIZES = (MAX_EVENT_TOKENS, MAX_TEXT_TOKENS)  # tokens of the programs that encode these
MAX_PROGRAMS = 8  # kept by a `ProgramCache`; an executable for 10 s holds some 70 MiB


@dataclasses.dataclass(frozen=True)
class Networks:
    """The modules of a release; hashable, so they are constants of a program.

    Attributes:
        text_encoder, autoencoder, denoiser: the modules.
        grid_powers: of the student's time grid, as (steps, power), see `noise.time_grid`; steps
            are even for a count that is not named.
    """

    text_encoder: TextEncoder
    autoencoder: Autoencoder
    denoiser: Denoiser
    grid_powers: tuple[tuple[int, float], ...] = ()

    @property
    def channels(self) -> int:
        """C, of the latents."""
        return self.autoencoder.channels


def start_noise(
    key: Key[Array, ''],
    seed: Int[Array, 'B'],
    frames: int | Int[Array, 'L'],
    channels: int = LATENT_CHANNELS,
) -> Float[Array, 'B L C']:
    """Standard normal noise of each item, a function of (key, seed, frame) alone.

    Neither batch size nor position nor the length of the bucket changes the noise of a frame.

    Args:
        key: of the draw.
        seed: of each item.
        frames: which latent frames, or how many from the first one on.
        channels: C, of the latents.
    """
    index = jnp.arange(frames) if isinstance(frames, int) else frames

    def frame_noise(item_key, index):
        return jax.random.normal(jax.random.fold_in(item_key, index), (channels,), jnp.float32)

    def one(item_seed):
        item_key = jax.random.fold_in(key, item_seed)
        return jax.vmap(functools.partial(frame_noise, item_key))(index)

    return jax.vmap(one)(seed)


@pinned_settings()
def seed_noise(
    seed: int, frames: int, channels: int = LATENT_CHANNELS
) -> Float[np.ndarray, '1 L C']:
    """The noise that `generate` draws for a seed, of the first latent frames."""
    key, _ = jax.random.split(random_key(0))
    return np.asarray(start_noise(key, jnp.array([seed]), frames, channels))


@flax.struct.dataclass
class EncodedTexts:
    """Texts of a request as the denoiser reads them.

    Attributes:
        prompt: of each token.
        events: of each event's text as a whole.
    """

    prompt: Leaf['B T D']
    events: Leaf['B E D']


def encode_texts(networks: Networks, params: PyTree, request: Request) -> EncodedTexts:
    """Encodes the prompts and the texts of events."""
    batch, events, tokens = request.event_ids.shape
    prompt, _ = encode_text(params, request.token_ids, request.token_mask, networks=networks)
    ids = request.event_ids.reshape(batch * events, tokens)
    mask = request.event_token_mask.reshape(batch * events, tokens)
    _, sentences = encode_text(params, ids, mask, networks=networks)
    return EncodedTexts(prompt, sentences.reshape(batch, events, -1))


def encode_text(
    params: PyTree, ids: Int[Array, 'B T'], mask: Bool[Array, 'B T'], *, networks: Networks
) -> tuple[Float[Array, 'B T D'], Float[Array, 'B D']]:
    """Embeddings of the tokens of texts, and of each text as a whole."""
    states = networks.text_encoder.apply({'params': params['text_encoder']}, ids, mask)
    return states, sentence_embedding(states, mask)


def condition(
    networks: Networks,
    params: PyTree,
    request: Request,
    init: Float[Array, 'B L C'],
    init_mask: Float[Array, 'B L'],
    texts: EncodedTexts | None = None,
) -> Conditioning:
    """Joins prompt and events' texts, which are encoded unless they are given, with the timeline.

    The network is conditioned on the gains of overlapping events relative to their mean;
    `finishing.apply_gains` applies the gains themselves.
    """
    texts = texts or encode_texts(networks, params, request)
    return Conditioning(
        text=texts.prompt,
        text_mask=request.token_mask,
        event_text=texts.events,
        onset_s=request.onset_s,
        offset_s=request.offset_s,
        gain_db=overlap_gains(request),
        event_mask=request.event_mask,
        loudness_db=request.loudness_db,
        loudness_mask=request.loudness_mask,
        curves=request.curves,
        curve_mask=request.curve_mask,
        seconds=request.seconds,
        init=init,
        init_mask=init_mask,
    )


def negative_conditioning(
    networks: Networks, params: PyTree, request: Request, c: Conditioning
) -> Conditioning:
    """Negative input of a teacher's guidance: the negative prompt or no text, and no timeline."""
    if request.negative_ids is None:
        return c.unconditional()
    ids, mask = request.negative_ids, request.negative_mask
    text, _ = encode_text(params, ids, mask, networks=networks)
    return c.unconditional().replace(text=text, text_mask=mask)


def sample_latents(
    networks: Networks,
    params: PyTree,
    request: Request,
    c: Conditioning,
    bucket: Bucket,
    start: Float[Array, 'B L C'] | None = None,
) -> Float[Array, 'B L C']:
    """Runs the sampler from noise (or noised init latents) to clean latents.

    Every item has its own strength, so the sampler runs in units of it: u from 1 to 0,
    t = u strength. A student has its own time grid and is conditioned on the size of each step; its
    latents are then matched to `MOMENTS` of this count of steps, if there are any. Known latents
    replace predicted ones at every step, so that new parts fit those that are kept.
    `start`, standard normal, stands in for the noise of the seeds.
    """
    key_start, key_fresh = jax.random.split(random_key(0))
    if start is None:
        start = start_noise(key_start, request.seed, bucket.length, networks.channels)
    if bucket.init:
        start = noise.diffuse(PATH, c.init, start, request.strength)
    denoise = sampled_denoiser(networks, params, request, c, bucket)
    if bucket.init:
        denoise = samplers.impose(denoise, c.init, c.init_mask)
    path = StrengthPath(request.strength) if bucket.init else PATH
    grid = noise.time_grid(bucket.steps, power=grid_power(networks, bucket))
    if bucket.sampler == 'ddim':
        latents = samplers.ddim(denoise, path, start, grid)
    elif bucket.sampler == 'dpm_solver_pp_2m':
        latents = samplers.dpm_solver_pp_2m(denoise, path, start, grid)
    else:  # ping_pong
        keys = samplers.item_keys(key_fresh, request.seed)
        latents = samplers.multistep_consistency(denoise, path, start, grid, keys)
    brought = match_moments(params, latents, bucket)  # as much of it as was made anew
    latents += request.strength[:, None, None] * (brought - latents)
    keep = c.init_mask[..., None]
    return keep * c.init + (1.0 - keep) * latents if bucket.init else latents


def grid_power(networks: Networks, bucket: Bucket) -> float:
    """The power of the time grid of a bucket's steps, see `noise.time_grid`."""
    return dict(networks.grid_powers).get(bucket.steps, 1.0) if bucket.student else 1.0


def sampled_denoiser(
    networks: Networks, params: PyTree, request: Request, c: Conditioning, bucket: Bucket
) -> noise.Denoise:
    """The denoiser that the sampler calls: guided, and in units of each item's strength.

    Texts are encoded for its attention once, before all steps.
    """
    scale, strength = request.guidance_scale, request.strength
    away = None if bucket.student else negative_conditioning(networks, params, request, c)
    weights = params['student' if bucket.student else 'teacher']
    inputs = [
        (a, encode_context(networks.denoiser, weights, a)) for a in (c, away) if a is not None
    ]

    def denoise(x, u):
        if bucket.student:
            step_size = strength * noise.step_size(u, bucket.steps, grid_power(networks, bucket))
            ((a, context),) = inputs
            at = as_denoiser(networks.denoiser, weights, a, scale, step_size, context)
        else:
            both = (
                as_denoiser(networks.denoiser, weights, a, context=context) for a, context in inputs
            )
            at = samplers.classifier_free_guidance(*both, scale)
        return at(x, u * strength)

    return denoise


def match_moments(
    params: PyTree, latents: Float[Array, 'B L C'], bucket: Bucket
) -> Float[Array, 'B L C']:
    """A student's latents with the `MOMENTS` of its count of steps, if there are any."""
    moments = params.get(MOMENTS, {}).get(str(bucket.steps)) if bucket.student else None
    if not moments:
        return latents
    return latents * moments['gain'][None, None] + moments['shift'][None, None]


@dataclasses.dataclass(frozen=True, eq=False)
class StrengthPath:
    """The noise path in units of a start level per item: alpha(u strength), sigma(u strength)."""

    strength: Float[Array, 'B']

    def _time(self, u):
        u = jnp.asarray(u)
        return u * self.strength.reshape((-1,) + (1,) * (u.ndim - 1))

    def alpha(self, u):
        """The scale of the data."""
        return PATH.alpha(self._time(u))

    def sigma(self, u):
        """The scale of the noise."""
        return PATH.sigma(self._time(u))

    def derivatives(self, u):
        """Derivatives of alpha and sigma by u."""
        alpha, sigma = PATH.derivatives(self._time(u))
        scale = self._time(jnp.ones_like(jnp.asarray(u)))
        return scale * alpha, scale * sigma

    def time_of_log_snr(self, log_snr):
        """The time u of a log-SNR."""
        return PATH.time_of_log_snr(log_snr) / self.strength


def overlap_gains(request: Request) -> Float[Array, 'B E']:
    """Gain of each event over the mean gain of all events that overlap it in time, dB."""
    first = jnp.maximum(request.onset_s[:, :, None], request.onset_s[:, None])
    last = jnp.minimum(request.offset_s[:, :, None], request.offset_s[:, None])
    both = request.event_mask[:, :, None] & request.event_mask[:, None]
    overlap = ((last > first) & both).astype(request.gain_db.dtype)
    mean = jnp.einsum('bef,bf->be', overlap, request.gain_db)
    return request.gain_db * request.event_mask - mean / jnp.maximum(overlap.sum(-1), 1.0)


def generate(
    params: PyTree,
    request: Request,
    init: InitAudio | None,
    *,
    networks: Networks,
    bucket: Bucket,
    start: Float[Array, 'B L C'] | None = None,
    tape_start: Int[Array, 'B'] | None = None,
) -> tuple[Int16[Array, 'B S 2'], Diagnostics, Float[Array, 'B L C']]:
    """The whole program: a request in, PCM, diagnostics and latents out.

    Args:
        params: of text encoder, autoencoder, student and teacher, by those names; `MOMENTS` of the
            student, if it has some: {steps: {'gain': [C], 'shift': [C]}}; and `WATERMARK`, without
            which textures are one fixed take.
        request: what to make.
        init: sound to vary or to keep parts of; None where the bucket has no init.
        networks: the modules.
        bucket: the static shape.
        start: standard normal noise in place of what the seeds give.
        tape_start: frames of the tape in place of those of the seeds, see `watermark.starts`.

    Returns:
        PCM of `length * samples_per_latent` samples, its diagnostics, and the latents it came from,
        before they are marked.
    """
    autoencoder, weights = networks.autoencoder, params['autoencoder']
    known = jnp.zeros((bucket.batch, bucket.length, networks.channels), jnp.float32)
    known_mask = jnp.zeros(known.shape[:2], jnp.float32)
    if init is not None:
        known = autoencoder.apply(weights, init.audio, bucket.sample_rate, method='encode')
        kept = init.keep.reshape(*known_mask.shape, -1)
        known_mask = (jnp.mean(kept, axis=-1) > 0.5).astype(jnp.float32)
    c = condition(networks, params, request, known, known_mask)
    latents = sample_latents(networks, params, request, c, bucket, start)
    mask = frame_mask(request.seconds, bucket.length).astype(latents.dtype)
    first = watermark.starts(request.seed) if tape_start is None else tape_start
    audio = decode_marked(networks, params, latents, first, bucket.sample_rate, mask)
    pcm, diagnostics = finish(audio, request, bucket.sample_rate, init)
    marked = jnp.full(bucket.batch, WATERMARK in params)
    return pcm, diagnostics.replace(marked=marked), latents


def decode_marked(
    networks: Networks,
    params: PyTree,
    latents: Float[Array, 'B L C'],
    first: Int[Array, 'B'],
    sample_rate: int,
    mask: Float[Array, 'B L'],
) -> Float[Array, 'B S 2']:
    """Decodes latents, marked and with the texture of `WATERMARK` from its frames `first` on."""
    tape, texture = params.get(WATERMARK), None
    if tape is not None:
        length = latents.shape[1]
        texture = watermark.stretch(tape['texture'], first, length)
        latents += watermark.stretch(tape['latents'], first, length)
    decode = functools.partial(networks.autoencoder.apply, method='decode')
    return decode(params['autoencoder'], latents, sample_rate, mask, texture)


class ProgramCache:
    """Compiled programs, one per bucket; of too many the least recently used go.

    Compilation is ahead of time: a call with a known bucket neither traces nor compiles.
    Executables also go through JAX's persistent compilation cache where that is enabled, so that a
    second process starts without compiling, and one that was dropped comes back from disk.

    Args:
        networks: the modules.
        params: placed on the mesh (replicated or split over 'model').
        mesh: with axes ('data', 'model').
        log: called with one line for each program that is compiled or loaded.
        tapes: of the watermark by the halves of the payload that they say, see `watermark.tape`;
            without them, textures are one fixed take.

    Attributes:
        max_programs: how many are kept; at first `MAX_PROGRAMS`.
    """

    def __init__(
        self,
        networks: Networks,
        params: PyTree,
        mesh: Mesh,
        log: Callable[[str], None] = lambda line: None,
        tapes: Mapping[int, PyTree] | None = None,
    ):
        self.networks, self.params, self.mesh, self.log = networks, params, mesh, log
        self._tapes = self._replicated(tapes)
        self._compiled: collections.OrderedDict[Bucket, Callable] = collections.OrderedDict()
        self._jitted: dict[tuple, Callable] = {}
        self._texts = functools.lru_cache(MAX_TEXTS)(self._encode)
        self._process = os.getpid()
        self.max_programs = MAX_PROGRAMS

    def __len__(self) -> int:
        return len(self._compiled)

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """Buckets of the compiled programs, the most recently used last."""
        return tuple(self._compiled)

    def __contains__(self, bucket: Bucket) -> bool:
        return bucket in self._compiled

    def _replicated(self, tree: PyTree) -> PyTree:
        return jax.device_put(tree, NamedSharding(self.mesh, P()))

    def with_tapes(self, tapes: Mapping[int, PyTree] | None) -> 'ProgramCache':
        """A copy with another watermark; it shares the compiled programs, if both have one."""
        other = copy.copy(self)
        other._tapes = self._replicated(tapes)
        if (tapes is None) != (self._tapes is None):
            other._compiled = collections.OrderedDict()
        return other

    def with_params(self, params: PyTree) -> 'ProgramCache':
        """A copy with other parameters of the same shapes; it shares the compiled programs.

        Args:
            params: by the same names; what is not given stays.
        """
        other = copy.copy(self)
        placed = jax.device_put(params, param_sharding(self.mesh, params))
        other.params = {**self.params, **placed}
        other._texts = functools.lru_cache(MAX_TEXTS)(other._encode)
        return other

    def weights_for(self, bucket: Bucket) -> PyTree:
        """The parameters that bucket's program reads, and the tape of the watermark."""
        used = 'student' if bucket.student else 'teacher'
        names = ('text_encoder', 'autoencoder', used, *([MOMENTS] if bucket.student else []))
        tape = {}
        if self._tapes is not None:
            tape = {WATERMARK: self._tapes[watermark.said_halves(bucket.length)]}
        return {name: self.params[name] for name in names if name in self.params} | tape

    def batch_sharding(self, bucket: Bucket) -> NamedSharding:
        """Batches are split over 'data' where they divide it, otherwise held by every device."""
        splits = bucket.batch % self.mesh.shape['data'] == 0
        return NamedSharding(self.mesh, P('data') if splits else P())

    @pinned_settings()
    def lower(self, bucket: Bucket) -> jax.stages.Lowered:
        """Traces a bucket's program to StableHLO."""
        request, init = request_shapes(bucket, len(self.networks.denoiser.curves))
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
        return jitted.lower(self.weights_for(bucket), request, init)

    def get(self, bucket: Bucket) -> Callable:
        """The executable `(params, request, init) -> (pcm, diagnostics, latents)` of a bucket.

        Raises:
            RuntimeError: this process was forked from the one that holds the release.
        """
        if os.getpid() != self._process:
            raise RuntimeError(
                'this process was forked from one that runs JAX, where every call hangs; start '
                "it with multiprocessing.get_context('spawn') and load the release in it"
            )
        if bucket not in self._compiled:
            self.log(f'preparing the program for {describe(bucket)}')
            with damaged_programs_removed():
                self._compiled[bucket] = self.lower(bucket).compile()
        self._compiled.move_to_end(bucket)
        while len(self._compiled) > self.max_programs:
            self._compiled.popitem(last=False)
        return self._compiled[bucket]

    def jitted(self, function: Callable, **static: Any) -> Callable:
        """A function of these networks, compiled when it is first called with new shapes.

        Args:
            function: takes arrays, and `networks` and `static` by name.
            static: hashable.
        """
        key = function, *sorted(static.items())
        if key not in self._jitted:
            self.log(f'preparing a program of longer sound: {function.__name__}')
            self._jitted[key] = jax.jit(
                functools.partial(function, networks=self.networks, **static)
            )
        return self._jitted[key]

    def encoded_texts(self, request: Request) -> EncodedTexts:
        """Texts of the request of one sound; those of any earlier one are not encoded again."""
        if not self._texts.cache_info().currsize:
            for size in TEXT_SIZES:  # so that none waits for a compilation later
                self._texts(bytes(4 * size), bytes(size))
        prompt, _ = self._text(request.token_ids[0], request.token_mask[0])
        prompt = np.pad(prompt, [(0, request.token_ids.shape[1] - len(prompt)), (0, 0)])
        events = zip(request.event_ids[0], request.event_token_mask[0], strict=True)
        wholes = [whole for _, whole in itertools.starmap(self._text, events)]
        return EncodedTexts(prompt[None], np.stack(wholes)[None])

    def _text(self, ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(states, that of the whole) of one text, by the smallest program that holds it."""
        size = next(size for size in TEXT_SIZES if not mask[size:].any())
        return self._texts(ids[:size].tobytes(), mask[:size].tobytes())

    def _encode(self, ids: bytes, mask: bytes) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.frombuffer(ids, np.int32)[None], np.frombuffer(mask, bool)[None]
        params = {'text_encoder': self.params['text_encoder']}
        states, whole = self.jitted(encode_text)(params, *tokens)
        return np.asarray(states)[0], np.asarray(whole)[0]

    def __call__(
        self, bucket: Bucket, request: Request, init: InitAudio | None = None
    ) -> tuple[Array, Diagnostics, Array]:
        """Runs a bucket's program, compiling it first if this is its first call."""
        program = self.get(bucket)
        request, init = jax.device_put((request, init), self.batch_sharding(bucket))
        return program(self.weights_for(bucket), request, init)
