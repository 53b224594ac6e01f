import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.audio import loudness_lufs
from realaudio_jax.metrics.distilled import PLAYED_LUFS, _played, calibrate_run, evaluate_run
from realaudio_jax.training.run_folder import run_folder
from realaudio_jax.typing import SAMPLE_RATE


def test_players_have_one_loudness_and_silence_stays_silent():
    noise = np.random.default_rng(0).normal(size=(SAMPLE_RATE, 2)).astype(np.float32)
    for level in (1e-3, 0.05, 0.3):
        played = _played(level * noise)
        assert played.shape == noise.shape and np.abs(played).max() < 1
        lufs = float(loudness_lufs(jnp.asarray(played)[None], SAMPLE_RATE)[0])
        np.testing.assert_allclose(lufs, PLAYED_LUFS, atol=0.1)
    assert not _played(0 * noise).any()


@pytest.mark.parametrize('step', [calibrate_run, evaluate_run])
def test_a_folder_without_a_finished_run_is_named(step, tmp_path):
    with pytest.raises(FileNotFoundError, match='is no run of experiments.distill'):
        step(tmp_path)
    with run_folder(tmp_path, {'consistency': {'segments': [1]}}, {'recordings': None}):
        pass
    with pytest.raises(FileNotFoundError, match='has no finished student; give'):
        step(tmp_path)
