import shutil

import jax
import numpy as np
import pytest
from watched_batches import watch_batches

from configs.foley_audio_tower import get_config
from realaudio_jax.metrics.embedders.tower import tower_template
from realaudio_jax.models.audio_tower import AudioTower
from realaudio_jax.release import TOWER_NAME, load_params


def test_training_resumes_exactly_and_leaves_loadable_weights(
    experiment, tmp_path, monkeypatch, capfd
):
    run = experiment('train_audio_tower')
    config, devices = get_config('test'), watch_batches(run)
    traced = []
    windows = run.cut_windows
    monkeypatch.setattr(run, 'cut_windows', lambda *a: traced.append(a) or windows(*a))
    straight = run.train(config, tmp_path, None, 'foley')
    assert devices == [4] * config.steps
    assert len(traced) == 3  # of the first parameters, the step, and all evaluations
    assert 'held-out recall@1 of 4' in capfd.readouterr().err
    written = load_params(tmp_path / TOWER_NAME, tower_template(AudioTower(**config.model)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), written, straight)
    shutil.rmtree(tmp_path / 'checkpoints' / '4')
    resumed = run.train(config, tmp_path, None, 'foley')
    jax.tree.map(np.testing.assert_array_equal, resumed, straight)


def test_augmentation_keeps_shape_text_and_the_seed(experiment):
    run = experiment('train_audio_tower')
    rng = np.random.default_rng(0)
    item = {
        'log_mel': rng.normal(size=(120, 64)).astype(np.float16),
        'text': rng.normal(size=384).astype(np.float16),
    }
    one = run.augment(item, np.random.default_rng(1), 6.0)
    two = run.augment(item, np.random.default_rng(1), 6.0)
    np.testing.assert_array_equal(one['log_mel'], two['log_mel'])
    np.testing.assert_array_equal(one['text'], np.float32(item['text']))
    assert one['log_mel'].shape == (120, 64) and one['log_mel'].dtype == np.float32
    silence = item | {'log_mel': np.full((120, 64), -11.516, np.float16)}
    quieter = run.augment(silence, np.random.default_rng(5), 6.0)['log_mel']
    assert np.log(1e-5) - 1e-3 < quieter.min() and quieter.max() < np.log(1e-5) + 0.7


def test_config_is_locked_and_names_its_variants():
    with pytest.raises(AttributeError):
        get_config().stepz = 1
    with pytest.raises(ValueError, match='no variant'):
        get_config('tset')
