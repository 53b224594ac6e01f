import numpy as np
import pytest

from realaudio_jax.metrics.judges import held_out_scenes, load_judges


def test_two_disjoint_sets_of_scenes():
    scenes, others = held_out_scenes(None, 2, 1.0, seed=3)
    assert len(scenes) == len(others) == 2
    again, _ = held_out_scenes(None, 2, 1.0, seed=3)
    np.testing.assert_array_equal(scenes[1].audio, again[1].audio)
    assert not any(np.array_equal(a.audio, b.audio) for a in scenes for b in others)


def test_the_judges_at_hand(tiny_release, tower_release, tmp_path):
    assert load_judges(tiny_release) == (None, [])
    assert load_judges(tower_release)[0].embedder.dimension == 256
    with pytest.raises(FileNotFoundError, match='YAMNet weights not found'):
        load_judges(tiny_release, tmp_path)
