"""Cosine figures against plain loops."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.metrics import similarity


def test_clap_score_is_the_cosine_of_each_pair():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 5))
    expected = [x @ y / np.sqrt((x @ x) * (y @ y)) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(similarity.clap_score(a * 7, b * 0.1), expected)
    np.testing.assert_allclose(similarity.clap_score(a, -a), -1)


def test_step_coherence_of_latents():
    a, b = np.random.default_rng(1).normal(size=(2, 2, 7, 5))
    expected = [
        (x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()) for x, y in zip(a, b, strict=True)
    ]
    found = similarity.step_coherence(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(similarity.step_coherence(a, 3 * a), 1)


def test_diversity_is_over_pairs():
    x = np.random.default_rng(2).normal(size=(6, 5))
    pairs = [similarity.cosine(x[[i]], x[[j]])[0] for i, j in itertools.combinations(range(6), 2)]
    assert similarity.diversity(x) == pytest.approx(1 - np.mean(pairs))
    assert similarity.diversity(np.ones((4, 3))) == pytest.approx(0, abs=1e-12)
    assert similarity.diversity(np.eye(5)) == pytest.approx(1)


def test_errors():
    with pytest.raises(ValueError, match='at least 2'):
        similarity.diversity(np.ones((1, 3)))
    with pytest.raises(ValueError, match='embedding 1 is all zeros'):
        similarity.clap_score(np.array([[1.0, 0], [0, 0]]), np.ones((2, 2)))
