import dataclasses
import shutil
from unittest.mock import create_autospec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax import calibration
from realaudio_jax.audio import loudness_lufs
from realaudio_jax.calibration import calibrate_run
from realaudio_jax.metrics.evaluation import run as evaluation
from realaudio_jax.metrics.evaluation.run import evaluate_run
from realaudio_jax.packing import save_params
from realaudio_jax.release import MOMENTS_NAME, load_moments
from realaudio_jax.release_config import ReleaseConfig
from realaudio_jax.report.page import PLAYED_LUFS, played
from realaudio_jax.training.run_folder import run_folder
from realaudio_jax.typing import LATENT_CHANNELS, SAMPLE_RATE


def test_players_have_one_loudness_and_silence_stays_silent():
    noise = np.random.default_rng(0).normal(size=(SAMPLE_RATE, 2)).astype(np.float32)
    for level in (1e-3, 0.05, 0.3):
        sound = played(level * noise, SAMPLE_RATE)
        assert sound.shape == noise.shape and np.abs(sound).max() < 1
        lufs = float(loudness_lufs(jnp.asarray(sound)[None], SAMPLE_RATE)[0])
        np.testing.assert_allclose(lufs, PLAYED_LUFS, atol=0.1)
    assert not played(0 * noise, SAMPLE_RATE).any()


@pytest.mark.parametrize('step', [calibrate_run, evaluate_run])
def test_a_folder_without_a_finished_run_is_named(step, tmp_path):
    with pytest.raises(FileNotFoundError, match='is no run of experiments.distill'):
        step(tmp_path)
    with run_folder(tmp_path, {'stages': [], 'teacher': 'release'}, {'recordings': None}):
        pass
    with pytest.raises(FileNotFoundError, match='has no finished student; give'):
        step(tmp_path)


def test_calibration_is_kept_and_not_made_twice(run, monkeypatch):
    made = []

    def moments(folder, scenes, seed, progress):
        made.append(len(scenes))
        values = np.random.default_rng(len(made)).normal(size=LATENT_CHANNELS).astype(np.float32)
        steps = ReleaseConfig.read(folder).student.steps
        found = {str(n): {'gain': n * values, 'shift': values} for n in steps}
        save_params(folder / MOMENTS_NAME, found)

    def onsets(folder, scenes, sampler, seed, progress):
        dataclasses.replace(ReleaseConfig.read(folder), onset_lead_s=0.007).write(folder)
        return 0.007

    def stopped(*args):
        raise KeyboardInterrupt

    def state():
        return load_moments(run / 'release'), ReleaseConfig.read(run / 'release').onset_lead_s

    for name, measure in (('match_moments', moments), ('compensate_onsets', onsets)):
        fake = create_autospec(getattr(calibration, name), side_effect=measure)
        monkeypatch.setattr(calibration, name, fake)
    monkeypatch.setattr(evaluation, 'evaluate_run', stopped)
    with pytest.raises(KeyboardInterrupt, match='student and its calibration are kept: go on with'):
        evaluation.finish_run(run)
    measured = state()
    assert made == [2] and measured[1] == 0.007

    (run / 'release' / MOMENTS_NAME).unlink()  # training saves its release without
    dataclasses.replace(ReleaseConfig.read(run / 'release'), onset_lead_s=0.0).write(
        run / 'release'
    )
    calibrate_run(run)
    assert made == [2]
    jax.tree.map(np.testing.assert_array_equal, state(), measured)

    teacher, student = (run / 'release' / f'{name}.safetensors' for name in ('teacher', 'student'))
    shutil.copyfile(teacher, student)
    calibrate_run(run)
    assert made == [2, 2]  # another student is measured
    monkeypatch.setattr(evaluation, 'calibrate_run', stopped)
    with pytest.raises(KeyboardInterrupt, match='the student is kept: go on with .* --run='):
        evaluation.finish_run(run)
