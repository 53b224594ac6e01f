"""From decoded samples to a finished sound: gains of events, ends, kept parts, loudness, PCM."""

import jax.numpy as jnp

from realaudio_jax import audio as audio_lib
from realaudio_jax.program_io import Diagnostics, InitAudio, Request
from realaudio_jax.typing import Array, Float, Int16

SILENT_LUFS = -60.0  # loudness, before it is changed, below which a sound counts as silent
FADE_IN_S = 0.001
FADE_OUT_S = 0.02  # where no event lasts to the end
SHORT_FADE_OUT_S = 0.003  # where one does: just enough for an end without a click
GAIN_FRAME_RATE = 100  # Hz, of the levels by which gains are applied
_GAIN_REACH_S = (0.1, 0.4)  # from an event: its gain holds, and from there fades to none
BACKGROUND_S = 0.2  # what is further from every event counts as background,
BACKGROUND_FRAMES = 30  # if there is so much of it


def finish(
    audio: Float[Array, 'B S 2'],
    request: Request,
    sample_rate: int,
    init: InitAudio | None = None,
) -> tuple[Int16[Array, 'B S 2'], Diagnostics]:
    """Post-processes decoded audio into 16-bit PCM; a sound that is not finite becomes zero.

    It is cut to its duration, events get their gains, an offset is taken away, and the ends are
    faded. What is kept of init audio is spliced in as it was. One gain brings the whole to the
    requested loudness, and the limiter holds its peaks below -1 dB.

    Args:
        audio: decoded samples.
        request: seconds, timeline and loudness count.
        sample_rate: Hz.
        init: of which parts are kept.
    """
    seconds = request.seconds
    inside = jnp.arange(audio.shape[1])[None] < jnp.round(seconds * sample_rate)[:, None]
    audio = jnp.where(inside[..., None], audio, 0.0)
    finite = jnp.all(jnp.isfinite(audio), axis=(1, 2))
    audio = jnp.where(finite[:, None, None], audio, 0.0)
    audio = apply_gains(audio, request, sample_rate)
    audio = audio_lib.remove_offset(audio, inside.astype(audio.dtype), sample_rate)
    last = jnp.max(jnp.where(request.event_mask, request.offset_s, 0.0), axis=1)
    fade = jnp.where(last > seconds - FADE_OUT_S, SHORT_FADE_OUT_S, FADE_OUT_S)
    audio = audio_lib.fade_ends(audio, seconds, sample_rate, FADE_IN_S, fade)
    if init is not None:
        keep = (init.keep * inside)[..., None]
        audio = keep * init.audio + (1.0 - keep) * audio

    lufs = audio_lib.loudness_lufs(audio, sample_rate, seconds)
    loudest = jnp.max(jnp.where(request.event_mask, request.gain_db, -jnp.inf), axis=1)
    loudest = jnp.where(jnp.any(request.event_mask, axis=1), jnp.minimum(loudest, 0.0), 0.0)
    silent = lufs - loudest < SILENT_LUFS
    change = jnp.where(jnp.isnan(request.target_lufs) | silent, 0.0, request.target_lufs - lufs)
    audio = audio_lib.limit(audio * (10 ** (change / 20))[:, None, None], sample_rate)
    pcm = audio_lib.to_pcm16(audio)
    peak = jnp.max(jnp.abs(audio_lib.from_pcm16(pcm)), axis=(1, 2))
    return pcm, Diagnostics(finite=finite, peak=peak, lufs=lufs, silent=silent)


def apply_gains(
    audio: Float[Array, 'B S 2'], request: Request, sample_rate: int
) -> Float[Array, 'B S 2']:
    """Applies the gains of events to the audio: scales what stands above the background.

    The network hardly follows a gain (-12 dB gives -3), so it generates the usual level, and the
    level of each 10 ms is changed afterwards: with P its power, B the background's and G
    the gain, from P to B + G^2 (P - B). B is the mean level of what is far from all events; where
    there is none, all of the sound is the events'. Events that overlap share their mean gain.

    Args:
        audio: samples.
        request: its timeline counts.
        sample_rate: Hz.
    """
    block = sample_rate // GAIN_FRAME_RATE
    power = block_powers(audio, block)
    gain_db, nearest = event_gains(request, power.shape[1])
    time = (jnp.arange(power.shape[1], dtype=jnp.float32) + 0.5) / GAIN_FRAME_RATE
    inside = time[None] < request.seconds[:, None]
    outside = ((nearest > BACKGROUND_S) & inside).astype(power.dtype)
    frames = jnp.sum(outside, axis=-1)
    level = jnp.sum(outside * jnp.log(power + 1e-12), axis=-1) / jnp.maximum(frames, 1.0)
    background = jnp.where(frames >= BACKGROUND_FRAMES, jnp.exp(level), 0.0)[:, None]
    gain = gain_above(background, power, gain_db)
    return audio * audio_lib.join_blocks(gain, block)[:, : audio.shape[1], None]


def block_powers(audio: Float[Array, 'B S 2'], block: int) -> Float[Array, 'B N']:
    """Mean power of both channels in each block of samples; silence follows the last."""
    count = -(-audio.shape[1] // block)
    power = jnp.sum(jnp.square(audio), axis=-1)
    power = jnp.pad(power, [(0, 0), (0, count * block - audio.shape[1])])
    return jnp.mean(power.reshape(len(audio), count, block), axis=-1)


def event_gains(request: Request, blocks: int) -> tuple[Float[Array, 'B N'], Float[Array, 'B N']]:
    """Gain of the nearest event in dB, and the distance to it in seconds, for each 10 ms."""
    time = ((jnp.arange(blocks, dtype=jnp.float32) + 0.5) / GAIN_FRAME_RATE)[None, :, None]
    onset, offset, mask = (
        x[:, None] for x in (request.onset_s, request.offset_s, request.event_mask)
    )
    away = jnp.maximum(jnp.maximum(onset - time, time - offset), 0.0)  # [B N E]
    away = jnp.where(mask, away, 1e3)
    nearest = jnp.min(away, axis=-1)
    counts = (mask & (away <= nearest[..., None])).astype(time.dtype)
    gain_db = jnp.sum(counts * request.gain_db[:, None], -1) / jnp.maximum(counts.sum(-1), 1.0)
    near, far = _GAIN_REACH_S
    return gain_db * jnp.clip((far - nearest) / (far - near), 0.0, 1.0), nearest


def gain_above(
    background: Float[Array, 'B #N'], power: Float[Array, 'B N'], gain_db: Float[Array, 'B N']
) -> Float[Array, 'B N']:
    """The factor of the samples that brings a power P to B + G^2 (P - B), see `apply_gains`."""
    below = jnp.minimum(power, background)
    wanted = below + 10 ** (gain_db / 10) * (power - below)
    return jnp.where(gain_db == 0, 1.0, jnp.sqrt(wanted / jnp.maximum(power, 1e-20)))
