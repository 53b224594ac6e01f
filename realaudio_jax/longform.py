"""Sound of any length: windows over a timeline, decoded into chunks as they become final.

**Windows.** A window is a sound of up to 10 s by the denoiser as it is. The first frames of each
are known, final latents of the window before, and replace its predictions at every step
(`samplers.impose`). Beyond them lie `Schedule.swap` frames of which tokens are taken from what the
window before predicted there, nearly all at first and fewer and fewer: one window goes over into
the next without a frame at which it does. Frames are swapped, not averaged, for an average of two
textures is smoother than either. Noise is drawn by latent frame of the whole sound, so both windows
start from the same.

         known      swap          new               provisional
    |------------|--------|------------------|------------------------|     a window
                 ^ final so far              ^ final from now on

**Loops.** What comes round is made whole: windows all around are sampled together, see
`sample_ring`.

**Chunks.** The decoder reaches no further than `AHEAD` frames, but for the phases of its lines,
which a `Carry` hands on; so does the level. A chunk comes out `DELAY` frames behind what is final,
and chunks side by side are the sound that is decoded at once, to float32's rounding.

**Level.** A gain that follows the loudness so far, slowly: what is not yet made is not known.
"""

import dataclasses
import itertools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import audio as audio_lib
from realaudio_jax import noise, samplers, watermark
from realaudio_jax.finishing import (
    BACKGROUND_FRAMES,
    BACKGROUND_S,
    FADE_IN_S,
    GAIN_FRAME_RATE,
    SILENT_LUFS,
    block_powers,
    event_gains,
    gain_above,
)
from realaudio_jax.models.autoencoder import samples_per_latent
from realaudio_jax.models.denoiser import PATH
from realaudio_jax.models.synthesis import Phases, no_phases
from realaudio_jax.program import (
    WATERMARK,
    EncodedTexts,
    Networks,
    condition,
    sample_latents,
    sampled_denoiser,
    start_noise,
)
from realaudio_jax.program_io import Bucket, Request
from realaudio_jax.random import random_key
from realaudio_jax.typing import LATENT_RATE, Array, Bool, Float, Int, Int16, Leaf, PyTree

BEFORE, AHEAD = 12, 12  # latent frames that a chunk is decoded with at either end
SETTLE = 10  # latent frames by which offset, level and limiter lag behind the decoder
DELAY = AHEAD + SETTLE
GRID = 5  # latent frames: hops are multiples, so that blocks of 50 and 100 ms lie on them
_BLOCKS = GAIN_FRAME_RATE // LATENT_RATE  # of 10 ms in a latent frame
_PART_RATE = 10  # Hz, at which loudness is measured and followed
_PARTS = SETTLE * _PART_RATE // LATENT_RATE  # of 100 ms in SETTLE
_KNOWN_PARTS = 2 * _PARTS - 2  # levels that a carry holds; those of the last 200 ms come later
_BACKGROUND_MEMORY = 500  # blocks of 10 ms
_LEVEL_MEMORY = 100  # parts of 100 ms
_RISE_DB, _FALL_DB = 0.15, 0.3  # per part: 1.5 and 3 dB a second
_MOMENTARY_DB = 12.0  # above the target, of the loudest 400 ms
_MAX_GAIN_DB = 20.0
_COUNTS_FROM = 10 ** ((SILENT_LUFS + 0.691) / 10)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How windows follow each other; all in latent frames of 40 ms.

    Attributes:
        window: of a window, 250 or fewer.
        hop: new final frames of each window; a multiple of `GRID`.
        context: known frames at the start of a window.
        swap: frames beyond them of which tokens are the window's before, the later the fewer.
        tail: frames at the end of the first window that are provisional.

    Raises:
        ValueError: sizes that do not fit.
    """

    window: int = 250
    hop: int = 25
    context: int = 150
    swap: int = 75
    tail: int = 13

    def __post_init__(self):
        if self.hop < GRID or self.hop % GRID:
            raise ValueError(
                f'the hop is {self.hop} latent frames of 40 ms; give a multiple of {GRID}'
            )
        if self.context < BEFORE + DELAY:
            raise ValueError(f'the context is {self.context}; give {BEFORE + DELAY} or more')
        if self.window % 2:
            raise ValueError(f'the window is {self.window} latent frames; give an even number')
        room = self.window - self.context - max(self.swap, AHEAD)
        if self.hop > room:
            remedy = f'{GRID} to {room // GRID * GRID}' if room >= GRID else 'a longer window'
            raise ValueError(
                f'a hop of {self.hop} latent frames does not fit: beside a context of '
                f'{self.context} and a swap of {self.swap} a window of {self.window} has '
                f'{max(room, 0)} left; give {remedy}'
            )

    @property
    def first_hops(self) -> int:
        """Hops of the first window, of which something is heard at once."""
        return SETTLE // self.hop + 1

    @property
    def first_window(self) -> int:
        """Latent frames of the first window, which is short so that sound begins soon."""
        frames = self.first_hops * self.hop + AHEAD + self.tail
        return min(self.window, frames + frames % 2)


def sample_window(
    params: PyTree,
    request: Request,
    texts: EncodedTexts,
    frames: Int[Array, 'L'],
    known: Float[Array, 'B L C'],
    known_mask: Float[Array, 'B L'],
    *,
    networks: Networks,
    bucket: Bucket,
) -> Float[Array, 'B L C']:
    """Samples the latents of one window, of which some frames are known.

    Args:
        params: see `program.generate`.
        request: of the window; its times start with the window.
        texts: of the request; windows share them, so they are not encoded here.
        frames: latent frames of the whole sound, from which noise is drawn.
        known: latents where they are known; known_mask: 1 there, 0 elsewhere.
        networks: the modules.
        bucket: of the window, with init.
    """
    key, _ = jax.random.split(random_key(0))
    c = condition(networks, params, request, known, known_mask, texts)
    start = start_noise(key, request.seed, frames, networks.channels)
    return sample_latents(networks, params, request, c, bucket, start)


def predict_window(
    params: PyTree,
    request: Request,
    texts: EncodedTexts,
    x: Float[Array, 'B L C'],
    time: Float[Array, 'B'],
    *,
    networks: Networks,
    bucket: Bucket,
) -> Float[Array, 'B L C']:
    """The latents that the denoiser predicts for a window of which nothing is known.

    Args:
        params, request, texts, networks, bucket: see `sample_window`.
        x: noised latents of the window.
        time: of the sampler, 1 to 0.
    """
    nothing = jnp.zeros_like(x)
    c = condition(networks, params, request, nothing, nothing[..., 0], texts)
    return sampled_denoiser(networks, params, request, c, bucket)(x, time)


def sample_ring(
    predict: Callable[[int, Float[np.ndarray, 'L C'], float], Float[np.ndarray, 'L C']],
    x: Float[np.ndarray, 'N C'],
    grid: Float[np.ndarray, 'bounds'],
    window: int,
    extrapolates: bool,
) -> Float[np.ndarray, 'N C']:
    """Samples latents that come round, all windows together step by step.

    At every step each frame takes the prediction of the window in whose middle half it lies, so all
    that a frame hears of lies on both sides of it, and none is first or last. From step to step the
    windows move on by half of that, so no frame stays at the edge of what it was predicted with.

    Args:
        predict: (first frame, x of a window, time) to the window's predicted latents.
        x: noise.
        grid: of the sampler, see `noise.time_grid`.
        window: frames, at most N.
        extrapolates: as `samplers.dpm_solver_pp_2m`; else as `samplers.ddim`.
    """
    length = len(x)
    weights = np.asarray(samplers.extrapolation_weights(PATH, grid))[0] * np.float32(extrapolates)
    previous = np.zeros_like(x)
    for step, weight in enumerate(weights):
        x0 = np.empty_like(x)
        for first, count in ring_parts(length, window, step):
            begin = first - (window - count) // 2
            made = predict(begin, x[(begin + np.arange(window)) % length], float(grid[step]))
            x0[(first + np.arange(count)) % length] = made[first - begin :][:count]
        towards = x0 + weight * (x0 - previous)
        t, s = jnp.asarray(grid[step : step + 2])
        x = np.asarray(noise.ddim_step(PATH, jnp.asarray(x), jnp.asarray(towards), t, s))
        previous = x0
    return x


def ring_parts(length: int, window: int, step: int) -> list[tuple[int, int]]:
    """(first frame, count) of the parts of a ring that windows predict at a step of the sampler."""
    count = -(-length // (window // 2))
    move = step % 2 * (length // count // 2)
    bounds = move + np.arange(count + 1) * length // count
    return [(int(a), int(b - a)) for a, b in itertools.pairwise(bounds)]


@flax.struct.dataclass
class Place:
    """Where a chunk lies in the whole sound.

    Attributes:
        frames: latent frames of the sound that these are, from which noise is drawn.
        inside: whether they are part of it, or padding.
        is_first: whether the sound begins here.
        since, left: samples from its start, and to its end, from what is decoded on; at most 2^30.
        fade_out_s: at the end.
        gain_db: of all samples, where the level does not follow loudness.
    """

    frames: Leaf['L']
    inside: Leaf['L']
    is_first: Leaf['']
    since: Leaf['']
    left: Leaf['']
    fade_out_s: Leaf['B']
    gain_db: Leaf['B']


@flax.struct.dataclass
class Carry:
    """What a chunk hands on to the next.

    Attributes:
        phases: of the decoder's lines.
        audio: the last 2 SETTLE frames, decoded and no more.
        gains: of events, for each 10 ms of these.
        background, background_frames: mean log power away from events, and of how many 10 ms.
        levels: gain in dB of each 100 ms that is known of `audio`.
        power, parts: mean power of what counts as loud, and of how many 100 ms.
    """

    phases: Phases
    audio: Leaf['B S 2']
    gains: Leaf['B N']
    background: Leaf['B']
    background_frames: Leaf['B']
    levels: Leaf['B N']
    power: Leaf['B']
    parts: Leaf['B']


@flax.struct.dataclass
class ChunkDiagnostics:
    """Measured of a chunk.

    Attributes:
        finite: every decoded sample is a number.
        peak: 0 to 1, after the limiter.
        power: behind the filters of ITU-R BS.1770 of each 100 ms, before the level is changed.
    """

    finite: Leaf['B']
    peak: Leaf['B']
    power: Leaf['B N']


def first_carry(batch: int, sample_rate: int) -> Carry:
    """That of the first chunk."""
    zeros = jnp.zeros(batch)
    return Carry(
        phases=no_phases(batch),
        audio=jnp.zeros((batch, 2 * SETTLE * samples_per_latent(sample_rate), 2)),
        gains=jnp.ones((batch, 2 * SETTLE * _BLOCKS)),
        background=zeros,
        background_frames=zeros,
        levels=jnp.zeros((batch, _KNOWN_PARTS)),
        power=zeros,
        parts=zeros,
    )


def make_chunk(
    params: PyTree,
    latents: Float[Array, 'B L C'],
    request: Request,
    place: Place,
    carry: Carry,
    *,
    networks: Networks,
    sample_rate: int,
) -> tuple[Int16[Array, 'B S 2'], ChunkDiagnostics, Carry]:
    """Decodes L - BEFORE - AHEAD latent frames, and finishes as many, SETTLE frames earlier.

    Args:
        params: of the autoencoder, and the tape of the watermark, if there is one.
        latents: those frames with BEFORE and AHEAD others around them.
        request: timeline, its times counted from what is decoded on, and loudness count.
        place: in the whole sound.
        carry: of the chunk before.
        networks: the modules.
        sample_rate: Hz.

    Returns:
        PCM that begins SETTLE frames before what is decoded, its diagnostics, the next carry.
    """
    per_frame = samples_per_latent(sample_rate)
    batch, length, _ = latents.shape
    hop = length - BEFORE - AHEAD
    mask = jnp.broadcast_to(place.inside[None], (batch, length))
    tape, texture = params.get(WATERMARK), None
    if tape is not None:
        first = watermark.starts(request.seed)
        texture = watermark.stretch(tape['texture'], first, place.frames)
        latents += watermark.stretch(tape['latents'], first, place.frames)
    audio, phases = networks.autoencoder.apply(
        params['autoencoder'],
        latents,
        sample_rate,
        mask.astype(latents.dtype),
        place.frames,
        carry.phases,
        BEFORE - 2,  # where the levels of lines are as in the whole, and what they reach
        BEFORE + hop - 2,
        texture,
        method='decode_part',
    )
    audio = audio[:, BEFORE * per_frame :][:, : hop * per_frame]
    finite = jnp.all(jnp.isfinite(audio), axis=(1, 2))
    audio = jnp.where(finite[:, None, None], audio, 0.0)

    block = sample_rate // GAIN_FRAME_RATE
    inside = jnp.repeat(mask[:, BEFORE:][:, :hop], _BLOCKS, axis=1)
    gains, background = follow_background(audio, request, inside, carry, block)
    audio = jnp.concatenate([carry.audio, audio], axis=1)
    gains = jnp.concatenate([carry.gains, gains], axis=1)
    sample = jnp.arange(audio.shape[1])[None] - 2 * SETTLE * per_frame
    inside = jnp.repeat((sample + place.since >= 0) & (sample < place.left), batch, axis=0)
    gained = audio * (audio_lib.join_blocks(gains, block) * inside)[..., None]
    power = audio_lib.loudness_powers(gained, sample_rate)
    level, (loud, parts) = follow_level(power, request, place, carry)

    out = audio_lib.remove_offset(gained, inside.astype(gained.dtype), sample_rate)
    out = _faded(out, sample, place, sample_rate)
    factor = 10 ** (audio_lib.join_blocks(level, sample_rate // _PART_RATE) / 20)
    out = audio_lib.limit(out * factor[..., None], sample_rate)
    pcm = audio_lib.to_pcm16(out[:, SETTLE * per_frame :][:, : hop * per_frame])
    new = hop * _PART_RATE // LATENT_RATE
    return (
        pcm,
        ChunkDiagnostics(
            finite=finite,
            peak=jnp.max(jnp.abs(audio_lib.from_pcm16(pcm)), axis=(1, 2)),
            power=power[:, _PARTS : _PARTS + new],
        ),
        Carry(
            phases=phases,
            audio=audio[:, hop * per_frame :],
            gains=gains[:, hop * _BLOCKS :],
            background=background[0],
            background_frames=background[1],
            levels=level[:, new : new + _KNOWN_PARTS],
            power=loud,
            parts=parts,
        ),
    )


def follow_background(
    audio: Float[Array, 'B S 2'],
    request: Request,
    inside: Bool[Array, 'B N'],
    carry: Carry,
    block: int,
) -> tuple[Float[Array, 'B N'], tuple[Float[Array, 'B'], Float[Array, 'B']]]:
    """`finishing.apply_gains` from the sound so far: a factor for each 10 ms.

    The background is the mean level of the last 5 s that were away from events.

    Args:
        audio: decoded.
        request: its timeline counts.
        inside: whether 10 ms are part of the sound.
        carry: background so far.
        block: samples in 10 ms.

    Returns:
        The factors, and the new (background, background_frames).
    """
    power = block_powers(audio, block)
    gain_db, nearest = event_gains(request, power.shape[1])
    outside = ((nearest > BACKGROUND_S) & inside).astype(power.dtype)

    def step(state, now):
        mean, count = state
        level, away = now
        count = jnp.minimum(count + away, _BACKGROUND_MEMORY)
        mean += away * (level - mean) / jnp.maximum(count, 1.0)
        return (mean, count), jnp.where(count >= BACKGROUND_FRAMES, jnp.exp(mean), 0.0)

    state = carry.background, carry.background_frames
    state, background = jax.lax.scan(step, state, (jnp.log(power + 1e-12).T, outside.T))
    return gain_above(background.T, power, gain_db), state


def follow_level(
    power: Float[Array, 'B N'], request: Request, place: Place, carry: Carry
) -> tuple[Float[Array, 'B N'], tuple[Float[Array, 'B'], Float[Array, 'B']]]:
    """Gain in dB of each 100 ms, from the loudness up to it.

    The mean power of the last 10 s that count, gated as integrated loudness is, says which gain
    brings the sound to its target; the gain goes there by 1.5 dB a second, down twice as fast, and
    never makes 400 ms louder than 12 dB above the target. The first chunk is measured before it is
    heard.

    Args:
        power: of each 100 ms of the carry's audio and the new; those of the last 200 ms are not
            final.
        request: target_lufs; NaN is the fixed gain of `place`.
        place: in the whole sound.
        carry: level so far.

    Returns:
        The gains, those of the last 200 ms repeated, and the new (power, parts).
    """
    target = request.target_lufs
    around = jnp.stack([power[:, _KNOWN_PARTS - i : power.shape[1] - 2 - i] for i in range(4)])
    momentary = jnp.mean(around, axis=0)

    def decibels(power):
        return -0.691 + 10 * jnp.log10(jnp.maximum(power, 1e-10))

    def wanted(mean, count):
        return jnp.where(count > 0, jnp.clip(target - decibels(mean), -99.0, _MAX_GAIN_DB), 0.0)

    whole = jnp.min(around, axis=0) > 0.0  # nothing of it lies before the sound
    loud = ((momentary > _COUNTS_FROM) & whole).astype(power.dtype)
    count = jnp.sum(loud, axis=1)
    mean = jnp.sum(loud * momentary, axis=1) / jnp.maximum(count, 1.0)
    is_first = place.is_first
    mean = jnp.where(is_first, mean, carry.power)
    count = jnp.where(is_first, count, carry.parts)
    gain = jnp.where(is_first, wanted(mean, count), carry.levels[:, -1])

    def step(state, now):
        mean, count, gain = state
        counts = (now > _COUNTS_FROM) & (now > 0.1 * mean) & ~is_first
        count = jnp.minimum(count + counts, _LEVEL_MEMORY)
        mean = mean + jnp.where(counts, (now - mean) / jnp.maximum(count, 1.0), 0.0)
        gain = jnp.clip(wanted(mean, count), gain - _FALL_DB, gain + _RISE_DB)
        gain = jnp.minimum(gain, target + _MOMENTARY_DB - decibels(now))
        return (mean, count, gain), gain

    (mean, count, _), gains = jax.lax.scan(step, (mean, count, gain), momentary.T)
    before = jnp.where(is_first, gains[:1].T, carry.levels)
    levels = jnp.concatenate([before, gains.T, gains[-1:].T, gains[-1:].T], axis=1)
    fixed = jnp.broadcast_to(place.gain_db[:, None], levels.shape)
    return jnp.where(jnp.isnan(target)[:, None], fixed, levels), (mean, count)


def _faded(
    audio: Float[Array, 'B S 2'], sample: Int[Array, '1 S'], place: Place, sample_rate: int
) -> Float[Array, 'B S 2']:
    """`audio.fade_ends` of the whole sound."""
    since = (sample + place.since + 0.5) / sample_rate / FADE_IN_S
    left = (place.left - sample - 0.5) / sample_rate / place.fade_out_s[:, None]
    x = jnp.clip(jnp.minimum(since, left), 0.0, 1.0)
    return audio * (x * x * (3.0 - 2.0 * x))[..., None]
