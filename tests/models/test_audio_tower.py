import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.models.audio_tower import (
    AudioTower,
    contrastive_loss,
    cut_windows,
    recall_at_1,
    tower_log_mel,
)

SMALL = dict(width=12, blocks=1, deep_width=20, deep_blocks=1, head_width=16)


@pytest.fixture(scope='module')
def tower():
    model = AudioTower(**SMALL)
    x = jax.random.normal(jax.random.key(1), (2, 3, 100, 64))
    return model, jax.jit(model.init)(jax.random.key(0), x), x


def test_size():
    shapes = jax.eval_shape(AudioTower().init, jax.random.key(0), jnp.zeros((1, 1, 100, 64)))
    count = sum(x.size for x in jax.tree.leaves(shapes))
    assert 2.3e6 < count < 3.2e6


def test_windows_are_seen_one_by_one(tower):
    model, params, x = tower
    windows = jax.jit(lambda x: model.apply(params, x, method='windows'))
    whole, alone = windows(x), windows(x[:, 1:2])
    np.testing.assert_allclose(whole[:, 1:2], alone, atol=1e-5)


def test_padding_windows_do_not_change_the_pooled_unit_vector(tower):
    model, params, x = tower
    w = jax.jit(lambda x: model.apply(params, x, method='windows'))(x)
    pool = jax.jit(lambda w, mask: model.apply(params, w, mask, method='pool'))
    plain = pool(w, jnp.ones((2, 3), bool))
    padded = jnp.concatenate([w, 50 * jnp.ones((2, 4, w.shape[-1]))], axis=1)
    mask = jnp.arange(7)[None] < jnp.array([[3], [3]])
    np.testing.assert_allclose(pool(padded, mask), plain, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(plain, axis=1), 1.0, atol=1e-5)


def test_log_mel_has_100_frames_a_second_and_moves_with_level():
    noise = 0.1 * jnp.float32(np.random.default_rng(0).normal(size=(2, 16_079)))
    log_mel = jax.jit(tower_log_mel)
    mel = np.asarray(log_mel(noise))
    assert mel.shape == (2, 100, 64)
    np.testing.assert_allclose(log_mel(noise / 2), mel - np.log(2), atol=1e-3)


def test_windows_start_every_half_second():
    mel = jnp.arange(210.0)[None, :, None] * jnp.ones((1, 1, 64))
    windows = cut_windows(mel)
    assert windows.shape == (1, 3, 100, 64)
    np.testing.assert_array_equal(windows[0, :, 0, 0], [0, 50, 100])
    with pytest.raises(ValueError, match='less than a window'):
        cut_windows(mel[:, :99])


def test_loss_against_the_formula_in_float64():
    rng = np.random.default_rng(0)
    a, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 5, 7)))
    logits = np.exp(1.3) * a @ t.T
    expected = 0.0
    for matrix in (logits, logits.T):
        p = np.exp(matrix) / np.exp(matrix).sum(1, keepdims=True)
        expected -= np.log(np.diag(p)).mean() / 2
    found = contrastive_loss(jnp.float32(a), jnp.float32(t), jnp.float32(1.3))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_recall():
    text = jnp.eye(4, 6)
    assert recall_at_1(text, text) == 1.0
    assert recall_at_1(text[jnp.array([1, 0, 2, 3])], text) == 0.5
