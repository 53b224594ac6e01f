import numpy as np
import pytest

from realaudio_jax.data.mel_cache import mel_scenes
from realaudio_jax.data.scenes import Scene


def scenes(count):
    rng = np.random.default_rng(0)
    for i in range(count):
        audio = (0.1 * rng.normal(size=(24_000, 2))).astype(np.float32)
        yield Scene(audio, f'{i}', (), (), 0.5, None)


def encode_text(texts, max_tokens):
    return None, None, np.repeat(np.float32(texts)[:, None], 384, axis=1)


def test_rows_follow_the_scenes_and_a_second_call_reads_what_is_there(tmp_path):
    done = []
    made = mel_scenes(scenes(5), 5, 0.5, encode_text, tmp_path / 'key', done.append, batch_size=2)
    assert made.log_mel.shape == (5, 50, 64) and made.log_mel.dtype == np.float16
    np.testing.assert_array_equal(made.text[:, 0], np.arange(5))
    assert done == [2, 4, 5]
    again = mel_scenes(iter(()), 5, 0.5, encode_text, tmp_path / 'key')
    np.testing.assert_array_equal(again[3]['log_mel'], made.log_mel[3])


def test_too_few_scenes_leave_nothing(tmp_path):
    with pytest.raises(ValueError, match='3 scenes where 5 were announced'):
        mel_scenes(scenes(3), 5, 0.5, encode_text, tmp_path / 'key')
    assert not list(tmp_path.iterdir())
