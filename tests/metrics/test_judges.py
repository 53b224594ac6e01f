import numpy as np

from realaudio_jax.metrics.judges import held_out_scenes


def test_two_disjoint_sets_of_scenes():
    scenes, others = held_out_scenes(None, 2, 1.0, seed=3)
    assert len(scenes) == len(others) == 2
    again, _ = held_out_scenes(None, 2, 1.0, seed=3)
    np.testing.assert_array_equal(scenes[1].audio, again[1].audio)
    assert not any(np.array_equal(a.audio, b.audio) for a in scenes for b in others)
