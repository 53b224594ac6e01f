"""Moment matching and onset compensation of a release, measured on training scenes."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from realaudio_jax.data.scenes import Scene
from realaudio_jax.generator import Generator
from realaudio_jax.metrics.evaluation import make_sounds
from realaudio_jax.metrics.events import onset_errors
from realaudio_jax.metrics.setting import REFERENCE, Setting
from realaudio_jax.metrics.timing import onset_lead
from realaudio_jax.packing import save_params
from realaudio_jax.program import MOMENTS
from realaudio_jax.release import MOMENTS_NAME
from realaudio_jax.typing import LATENT_CHANNELS, SAMPLE_RATE, Float

_MOST = 4.0  # ratio of two spreads; what is farther apart was not trained


def calibrate_moments(
    folder: str | os.PathLike,
    scenes: Sequence[Scene],
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Measures moment-matching gains and shifts for each step count and stores them in a release.

    What a student cannot tell apart it answers with the mean, so the fewer its steps, the less its
    latents spread about theirs. In each channel, with mean m and deviation d over all frames,

        z' = m_teacher + g (z - m_student),    g = sqrt(d_teacher / d_student)

    takes all of the mean and half of the spread, as a ratio. All of the spread would be too much:
    it raises a student's errors with the rest. The teacher has 50 steps.

    Args:
        folder: of the release, whose moments are written anew.
        scenes: of the training split, all of one duration.
        seed: of the first scene's noise, the same for all.
        progress: called with the number of sounds made, of `len(scenes)` for the teacher and for
            each step count of the student.

    Raises:
        OSError: the moments cannot be written.
    """
    folder = pathlib.Path(folder)
    generator = Generator(folder)
    ones = np.ones(LATENT_CHANNELS, np.float32)
    same = {str(n): {'gain': ones, 'shift': 0 * ones} for n in generator.student_steps}
    as_it_is = generator.params | {MOMENTS: same}  # its programs serve the new moments, too
    generator = generator.with_networks(generator.networks, as_it_is)
    say = progress or (lambda _: None)

    finished = 0

    def moments(setting: Setting) -> tuple[Float[np.ndarray, 'C'], Float[np.ndarray, 'C']]:
        nonlocal finished
        latents = make_sounds(
            generator, scenes, setting, seed, progress=lambda n: say(finished + n)
        ).latents
        finished += len(scenes)
        return latents.mean((0, 1)), latents.std((0, 1))

    wanted, spread = moments(REFERENCE)
    found = {}
    for steps in generator.student_steps:
        mean, own = moments(Setting('student', steps))
        gain = np.sqrt(np.clip(spread / np.maximum(own, 1e-6), 1 / _MOST, _MOST))
        found[str(steps)] = {'gain': gain, 'shift': wanted - gain * mean}
    save_params(folder / MOMENTS_NAME, found)


def calibrate_onsets(
    folder: str | os.PathLike,
    scenes: Sequence[Scene],
    setting: Setting,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> float:
    """Measures how early generated onsets are and stores the compensation in a release.

    Latent frames last 40 ms and windows of the decoder as long: what is smeared ahead of an attack
    is heard as its beginning, on average by the same some milliseconds in all sounds.

    Args:
        folder: of the release, whose config is written anew.
        scenes: of the training split, all of one duration.
        setting: how the sounds are made.
        seed: of the first scene's noise.
        progress: called with the number of sounds made.

    Returns:
        The lead now in the config, s; never negative.

    Raises:
        OSError: the config cannot be written.
    """
    generator = Generator(folder)
    sounds = make_sounds(generator, scenes, setting, seed, progress=progress).floats()
    errors = [
        onset_errors(sound, SAMPLE_RATE, [event.onset_s for event in scene.events])
        for sound, scene in zip(sounds, scenes, strict=True)
        if scene.events
    ]
    lead = generator.config.onset_lead_s + onset_lead(np.concatenate([*errors, []]))
    lead = float(round(max(lead, 0.0), 4))
    dataclasses.replace(generator.config, onset_lead_s=lead).write(folder)
    return lead
