import numpy as np
import pytest

from realaudio_jax.metrics.bootstrap import (
    bootstrap,
    draw_counts,
    mean_interval,
    paired_bootstrap,
    spread_about,
)


def test_draws_keep_the_size_of_their_set_and_pairs_together():
    a, b = draw_counts(7, 5, 20, seed=3)
    assert a.shape == (20, 7) and b.shape == (20, 5)
    assert (a.sum(1) == 7).all() and (b.sum(1) == 5).all()
    paired = draw_counts(7, 7, 20, paired=True, seed=3)
    np.testing.assert_array_equal(*paired)
    assert (paired[0] == 0).any() and (paired[0] > 1).any()


def test_the_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(0).normal(size=400)
    found = mean_interval(values, resamples=2000)
    reach = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean()) and found.clips == (400,)
    assert found.high - found.value == pytest.approx(reach, rel=0.1)
    assert found.value - found.low == pytest.approx(reach, rel=0.1)


def test_undefined_draws_are_left_out():
    found = bootstrap(lambda x: np.nan if 1 in x else 2.0, [0, 1, 0, 0], resamples=50)
    assert np.isnan(found.value) and found.low == found.high == 2
    with pytest.raises(ValueError, match='no clips'):
        mean_interval([])


def test_a_spread_is_laid_around_the_value():
    low, high = spread_about(1.0, np.linspace(5, 6, 101), 0.9)
    assert (low, high) == (pytest.approx(0.55), pytest.approx(1.45))
    assert spread_about(1.0, np.array([np.nan, 3.0])) == (1.0, 1.0)
    assert spread_about(1.0, np.full(3, np.nan)) == (1.0, 1.0)


def test_a_paired_interval_knows_that_hard_requests_are_hard_for_both():
    rng = np.random.default_rng(5)
    hard = rng.normal(0, 10, 60)
    a, b = ((hard + rng.normal(mean, 1, 60)).tolist() for mean in (2.0, 0.0))
    mean = lambda drawn: float(np.mean(drawn))  # noqa: E731
    found = paired_bootstrap(mean, a, b)
    np.testing.assert_allclose(found.value, np.mean(a) - np.mean(b))
    assert 1 < found.low < found.high < 3  # the means alone are known to 2.6 each
    assert mean_interval(a).high - mean_interval(a).low > 4
    with pytest.raises(ValueError, match='got 60 and 59 clips'):
        paired_bootstrap(mean, a, b[1:])
