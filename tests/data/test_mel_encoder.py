import numpy as np
import pytest

from realaudio_jax.data.cache import SceneSet, encode_scenes
from realaudio_jax.data.mel_encoder import MelEncoder
from realaudio_jax.data.scenes import Scene


def scenes(count):
    rng = np.random.default_rng(0)
    for i in range(count):
        audio = (0.1 * rng.normal(size=(24_000, 2))).astype(np.float32)
        yield Scene(audio, f'{i}', (), (), 0.5, None)


def encode_text(texts, max_tokens):
    return None, None, np.repeat(np.float32(texts)[:, None], 384, axis=1)


def encoded(made, folder, progress=None):
    encoder = MelEncoder(encode_text, 'text', batch_size=2)
    return encode_scenes(encoder, SceneSet(made, 5, 0.5, 'digest'), folder, progress)


def test_rows_follow_the_scenes_and_a_second_call_reads_what_is_there(tmp_path):
    done = []
    made = encoded(scenes(5), tmp_path, done.append)
    mel = made.arrays['log_mel']
    assert mel.shape == (5, 50, 64) and mel.dtype == np.float16
    np.testing.assert_array_equal(made.arrays['text'][:, 0], np.arange(5))
    assert done == [2, 4, 5]
    again = encoded(iter(()), tmp_path)
    np.testing.assert_array_equal(again[3]['log_mel'], mel[3])


def test_too_few_scenes_leave_nothing(tmp_path):
    with pytest.raises(ValueError, match='3 scenes where 5 were announced'):
        encoded(scenes(3), tmp_path)
    assert not list(tmp_path.iterdir())
