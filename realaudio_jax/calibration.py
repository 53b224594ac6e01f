"""Moment matching and onset compensation of a release, measured on training scenes."""

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from realaudio_jax.data.datasets import scene_source
from realaudio_jax.data.scenes import Scene, make_scenes
from realaudio_jax.generator import Generator
from realaudio_jax.integrity import digest
from realaudio_jax.io import atomic_path
from realaudio_jax.metrics.evaluation.generate import REFERENCE, SamplerConfig, generate_scenes
from realaudio_jax.metrics.onsets import onset_errors
from realaudio_jax.packing import save_params
from realaudio_jax.program import MOMENTS
from realaudio_jax.release import MOMENTS_NAME, STUDENT_NAME, load_moments
from realaudio_jax.release_config import ReleaseConfig
from realaudio_jax.training.loop import Progress, print_to_stderr
from realaudio_jax.training.run_folder import finished_run, record_seconds
from realaudio_jax.typing import SAMPLE_RATE, Array, Float

AnyArray = np.ndarray | Array

_MOST = 4.0  # ratio of two spreads; what is farther apart was not trained
LEAD_COLLAR_MS = 40.0  # a latent frame
CALIBRATION = 'calibration.json'  # in the folder of a run


def match_moments(
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
    ones = np.ones(generator.networks.channels, np.float32)
    same = {str(n): {'gain': ones, 'shift': 0 * ones} for n in generator.student_steps}
    as_it_is = generator.params | {MOMENTS: same}  # its programs serve the new moments, too
    generator = generator.with_networks(generator.networks, as_it_is)
    say = progress or (lambda _: None)

    finished = 0

    def moments(sampler: SamplerConfig) -> tuple[Float[np.ndarray, 'C'], Float[np.ndarray, 'C']]:
        nonlocal finished
        latents = generate_scenes(
            generator, scenes, sampler, seed, progress=lambda n: say(finished + n)
        ).latents
        finished += len(scenes)
        return latents.mean((0, 1)), latents.std((0, 1))

    wanted, spread = moments(REFERENCE)
    found = {}
    for steps in generator.student_steps:
        mean, own = moments(SamplerConfig('student', steps))
        gain = np.sqrt(np.clip(spread / np.maximum(own, 1e-6), 1 / _MOST, _MOST))
        found[str(steps)] = {'gain': gain, 'shift': wanted - gain * mean}
    save_params(folder / MOMENTS_NAME, found)


def compensate_onsets(
    folder: str | os.PathLike,
    scenes: Sequence[Scene],
    sampler: SamplerConfig,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> float:
    """Measures how early generated onsets are and stores the compensation in a release.

    Latent frames last 40 ms and windows of the decoder as long: what is smeared ahead of an attack
    is heard as its beginning, on average by the same some milliseconds in all sounds.

    Args:
        folder: of the release, whose config is written anew.
        scenes: of the training split, all of one duration.
        sampler: how the sounds are made.
        seed: of the first scene's noise.
        progress: called with the number of sounds made.

    Returns:
        The lead now in the config, s; never negative.

    Raises:
        OSError: the config cannot be written.
    """
    generator = Generator(folder)
    sounds = generate_scenes(generator, scenes, sampler, seed, progress=progress).floats()
    errors = [
        onset_errors(sound, SAMPLE_RATE, [event.onset_s for event in scene.events])
        for sound, scene in zip(sounds, scenes, strict=True)
        if scene.events
    ]
    lead = generator.config.onset_lead_s + onset_lead(np.concatenate([*errors, []]))
    lead = float(round(max(lead, 0.0), 4))
    dataclasses.replace(generator.config, onset_lead_s=lead).write(folder)
    return lead


def onset_lead(errors_ms: Float[AnyArray, 'E']) -> float:
    """Seconds by which onsets come early: minus the median of errors that are near zero.

    Errors beyond `LEAD_COLLAR_MS` are other sounds taken for the one requested, and have no say.

    Args:
        errors_ms: of `onsets.onset_errors`; NaN where an onset was missed.

    Returns:
        Negative where onsets are late on the whole; 0 where none is near its request.
    """
    errors = np.asarray(errors_ms, np.float64)
    near = errors[np.abs(errors) < LEAD_COLLAR_MS]  # NaN is not
    return -float(np.median(near)) / 1000 if near.size else 0.0


def calibrate_run(workdir: pathlib.Path) -> None:
    """Moments and onset compensation of a run's student, measured on scenes of the training split.

    They are kept in `calibration.json` of the run, and not measured again for the same student.

    Args:
        workdir: of a finished `experiments.distill`.

    Raises:
        FileNotFoundError: there is no such run, or it has no release yet.
    """
    run, release = finished_run(workdir)
    config, begin = run['config'], time.monotonic()
    settings = {name: config[name] for name in ('seed', 'calibration_scenes', 'eval_seconds')}
    measured_for = settings | {'student': digest(release / STUDENT_NAME)}
    path = pathlib.Path(workdir) / CALIBRATION
    kept = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
    if kept.get('measured_for') == measured_for:
        moments = jax.tree.map(np.float32, kept['moments'], is_leaf=lambda x: isinstance(x, list))
        save_params(release / MOMENTS_NAME, moments)
        given = dataclasses.replace(ReleaseConfig.read(release), onset_lead_s=kept['onset_lead_s'])
        given.write(release)
        print_to_stderr(f'calibration is that of {path}')
        return
    source = scene_source(run['inputs']['recordings'], config['foley_weight'], 'train')
    scenes = list(
        make_scenes(config['seed'], source, config['calibration_scenes'], config['eval_seconds'])
    )
    # measured anew, not on top of an earlier calibration
    dataclasses.replace(ReleaseConfig.read(release), onset_lead_s=0.0).write(release)
    few = SamplerConfig('student', min(4, max(config['student_steps'])))
    counts = len(ReleaseConfig.read(release).student.steps) + 1  # and the teacher
    with Progress((counts + 1) * len(scenes), 'calibration') as progress:
        match_moments(release, scenes, config['seed'], progress.update)
        lead = compensate_onsets(
            release,
            scenes,
            few,
            config['seed'],
            lambda n: progress.update(counts * len(scenes) + n),
        )
    found = {
        'measured_for': measured_for,
        'onset_lead_s': lead,
        'moments': jax.tree.map(np.ndarray.tolist, jax.device_get(load_moments(release))),
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(found), encoding='utf-8')
    record_seconds(workdir, 'calibration', time.monotonic() - begin)
