"""Pitch error of a reconstruction, by CREPE."""

import jax.numpy as jnp
import numpy as np

from realaudio_jax import io
from realaudio_jax.metrics.ports import crepe
from realaudio_jax.typing import Array, Float, PyTree

AnyArray = np.ndarray | Array

CONFIDENT = 0.8  # of CREPE, from which a frame of the original counts as a tone
HOP = 4 * crepe.HOP  # samples at 16 kHz: 40 ms
PITCHED_FRAMES = 12  # half a second of tone makes a pitched recording


def pitch_error_cents(
    original: Float[AnyArray, 'S *A'],
    other: Float[AnyArray, 'S *A'],
    sample_rate: int,
    params: PyTree,
) -> float:
    """Pitch error in cents: median |1200 log2(f_other / f_original)| over tonal frames.

    A frame whose tone is lost counts by whatever pitch CREPE then reads: an octave off is 1200.

    Args:
        original, other: [S] or [S A] in [-1, 1], the same shape.
        sample_rate: Hz.
        params: of `crepe.load_crepe`.

    Returns:
        cents; NaN for an original with less than half a second of tone.
    """
    (before, sure), (after, _) = (_pitch(x, sample_rate, params) for x in (original, other))
    tonal = sure >= CONFIDENT
    if tonal.sum() < PITCHED_FRAMES:
        return float('nan')
    return float(np.median(np.abs(1200 * np.log2(after[tonal] / before[tonal]))))


def _pitch(audio, sample_rate, params):
    """(Hz, confidence) of the frames within a sound, padded to whole seconds: few programs."""
    audio = np.asarray(audio, np.float32)
    mono = audio.mean(axis=1) if audio.ndim == 2 else audio
    mono = io.resample(mono, sample_rate, crepe.SAMPLE_RATE)
    frames = 1 + len(mono) // HOP
    padded = np.zeros(-(-len(mono) // crepe.SAMPLE_RATE) * crepe.SAMPLE_RATE, np.float32)
    padded[: len(mono)] = mono
    hz, confidence = crepe.pitch(params, jnp.asarray(padded)[None], HOP)
    return np.asarray(hz[0, :frames], np.float64), np.asarray(confidence[0, :frames])
