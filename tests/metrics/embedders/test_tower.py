import numpy as np
import pytest

from realaudio_jax.metrics.embedders.base import embed_clips
from realaudio_jax.metrics.embedders.tower import has_tower, load_tower, remembered


@pytest.fixture(scope='module')
def tower(tower_release):
    return load_tower(tower_release)


def test_vectors_every_half_second_and_scores_in_range(tower):
    rng = np.random.default_rng(0)
    clips = [0.1 * rng.normal(size=n).astype(np.float32) for n in (16_000, 40_000, 3_000)]
    windows = embed_clips(tower.embedder, clips)
    assert [w.shape for w in windows] == [(1, 256), (4, 256), (1, 256)]
    texts = ['rain', 'a dog barks twice', 'wind']
    scores = tower.clap_scores(windows, texts)
    vectors, sentences = tower.pool(windows), tower.embed_text(texts)
    np.testing.assert_allclose(scores, (vectors * sentences).sum(1), atol=1e-5)
    # neither order nor company changes a sound's figure
    turned = tower.clap_scores(windows[::-1], texts[::-1])
    np.testing.assert_allclose(turned[::-1], scores, atol=1e-5)


def test_missing_texts_and_missing_towers_are_named(tower, tiny_release):
    with pytest.raises(ValueError, match='1 texts for 2 sounds'):
        tower.clap_scores([np.ones((1, 256))] * 2, ['rain'])
    assert not has_tower(tiny_release)
    with pytest.raises(FileNotFoundError, match='train one with'):
        load_tower(tiny_release)


def test_each_text_is_read_once():
    seen = []

    def embed(texts):
        seen.extend(texts)
        return np.array([[float(len(text))] for text in texts])

    of = remembered(embed)
    np.testing.assert_array_equal(of(['rain', 'wind up', 'rain']), [[4.0], [7.0], [4.0]])
    np.testing.assert_array_equal(of(['a dog', 'wind up']), [[5.0], [7.0]])
    assert seen == ['rain', 'wind up', 'a dog']
