"""What is measured of a release once, on training scenes, and kept in its config."""

import os
from collections.abc import Sequence

import numpy as np

from realaudio_jax.data.scenes import Scene
from realaudio_jax.generator import LEAD_KEY, Generator
from realaudio_jax.metrics.evaluation import make_sounds
from realaudio_jax.metrics.events import onset_errors
from realaudio_jax.metrics.setting import Setting
from realaudio_jax.metrics.timing import onset_lead
from realaudio_jax.release import write_config
from realaudio_jax.typing import SAMPLE_RATE


def calibrate_onsets(
    folder: str | os.PathLike, scenes: Sequence[Scene], setting: Setting, seed: int = 0
) -> float:
    """Measures how early a release's sounds begin, and has it ask for them that much later.

    Latent frames last 40 ms and windows of the decoder as long: what is smeared ahead of an attack
    is heard as its beginning, on average by the same some milliseconds in all sounds.

    Args:
        folder: of the release, whose config is written anew.
        scenes: of the training split, all of one duration.
        setting: how the sounds are made.
        seed: of the first scene's noise.

    Returns:
        The lead now in the config, s; never negative.

    Raises:
        OSError: the config cannot be written.
    """
    generator = Generator(folder)
    sounds = make_sounds(generator, scenes, setting, seed).floats()
    errors = [
        onset_errors(sound, SAMPLE_RATE, [event.onset_s for event in scene.events])
        for sound, scene in zip(sounds, scenes, strict=True)
        if scene.events
    ]
    lead = generator.config.get(LEAD_KEY, 0.0) + onset_lead(np.concatenate([*errors, []]))
    lead = round(max(lead, 0.0), 4)
    write_config(folder, generator.config | {LEAD_KEY: lead})
    return lead
