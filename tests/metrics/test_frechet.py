"""Frechet distance: closed forms, rank deficiency, invariance and the bootstrap interval."""

import numpy as np
import pytest
import scipy.linalg

from realaudio_jax.metrics import frechet
from realaudio_jax.metrics.frechet import (
    GaussianStatistics,
    frechet_difference,
    frechet_distance,
    frechet_infinity_interval,
    frechet_interval,
)


def _gaussian(mean, cov, count=1_000_000):
    return GaussianStatistics(count, mean, cov * (count - 1))


def test_statistics_equal_numpy_in_any_split_and_order():
    frames = np.random.default_rng(0).normal(size=(23, 5)) + 1e6
    whole = GaussianStatistics.of(frames)
    np.testing.assert_allclose(whole.covariance, np.cov(frames.T), rtol=1e-9)
    parts = [frames[16:], frames[:0], frames[:1], frames[1:16]]
    split = GaussianStatistics.stream(parts)
    assert split.count == 23
    np.testing.assert_allclose(split.mean, frames.mean(0), rtol=1e-14)
    np.testing.assert_allclose(split.covariance, np.cov(frames.T), rtol=1e-8)


def test_one_dimension_closed_form():
    """d^2 = (m_a - m_b)^2 + (s_a - s_b)^2."""
    a, b = (_gaussian(np.array([m]), np.array([[s**2]])) for m, s in ((1.5, 2.0), (-0.5, 0.7)))
    assert frechet_distance(a, b) == pytest.approx(2.0**2 + 1.3**2, rel=1e-12)


def test_full_rank_agrees_with_the_matrix_square_root():
    rng = np.random.default_rng(1)
    roots = rng.normal(size=(2, 5, 5))
    covs = roots @ roots.transpose(0, 2, 1)
    means = rng.normal(size=(2, 5))
    cross = np.trace(scipy.linalg.sqrtm(covs[0] @ covs[1]).real)
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covs.sum(0)) - 2 * cross
    found = frechet_distance(*(_gaussian(m, c) for m, c in zip(means, covs, strict=True)))
    assert found == pytest.approx(expected, rel=1e-9)


def test_rank_deficient_covariances():
    """Frames on one line each: along unit u and v the trace is s_a s_b |u.v|."""
    rng = np.random.default_rng(2)
    u, v = rng.normal(size=(2, 11))
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    a, b = _gaussian(np.zeros(11), 9 * np.outer(u, u)), _gaussian(np.zeros(11), 4 * np.outer(v, v))
    expected = 9 + 4 - 2 * 3 * 2 * abs(u @ v)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)
    point = GaussianStatistics.of(np.zeros((3, 11)))
    assert frechet_distance(a, point) == pytest.approx(9, rel=1e-9)


def test_identical_sets_are_zero_even_with_fewer_frames_than_dimensions():
    frames = np.random.default_rng(3).normal(size=(7, 40))
    a = GaussianStatistics.of(frames)
    assert frechet_distance(a, GaussianStatistics.of(frames[::-1])) == pytest.approx(0, abs=1e-6)


def test_interval_brackets_the_value_and_is_reproducible():
    rng = np.random.default_rng(4)
    a = [rng.normal(size=(n, 6)) for n in (3, 0, 4, 5, 6, 3, 4, 5)]
    b = [rng.normal(size=(n, 6)) + 1 for n in (5, 4, 3, 6, 5, 4)]
    first = frechet_interval(a, b, resamples=50)
    assert first == frechet_interval(a, b, resamples=50)
    whole = (GaussianStatistics.stream(x) for x in (a, b))
    assert first.value == pytest.approx(frechet_distance(*whole))
    assert 0 <= first.low < first.value < first.high and first.clips == (7, 6)


def test_paired_interval_is_tighter():
    rng = np.random.default_rng(5)
    a = [rng.normal(size=(4, 6)) * 3 + rng.normal(size=(1, 6)) * 5 for _ in range(20)]
    b = [x + 0.3 * rng.normal(size=x.shape) for x in a]
    paired, free = (frechet_interval(a, b, 60, paired=p) for p in (True, False))
    assert paired.high - paired.low < 0.5 * (free.high - free.low)


def _clips(seed, count):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(3, 6)) for _ in range(count)]


def test_extrapolation_takes_out_the_bias_of_a_small_set():
    """The true distance is 0; that of 40 clips is biased by about D / N."""
    a, sets = _clips(0, 3000), [_clips(i, 40) for i in range(1, 9)]
    plain = np.mean([frechet_interval(a, b, 2).value for b in sets])
    infinite = np.mean([frechet_infinity_interval(a, b, 2).value for b in sets])
    assert plain > 0.08 and abs(infinite) < 0.25 * plain


def test_extrapolation_is_that_of_a_line_and_the_order_of_clips_is_nothing_to_it():
    a, b = _clips(1, 30), [c + 1 for c in _clips(2, 24)]
    found = frechet_infinity_interval(a, b, 40)
    assert found.low < found.value < found.high and found.clips == (30, 24)
    turned = frechet_infinity_interval(a, b[::-1], 40)
    assert turned.value == pytest.approx(found.value, rel=1e-9)
    line = [5 + 0.25 * k for k in frechet.PARTS]
    assert frechet._intercept(np.array(line)) == pytest.approx(5)
    with pytest.raises(ValueError, match='at least 8 clips, got 7'):
        frechet_infinity_interval(a, b[:7])


def test_a_difference_of_two_codecs_is_sharper_than_either_distance():
    real = _clips(1, 40)
    near, far = ([clip * gain for clip in real] for gain in (1.3, 1.4))
    found = frechet_difference(real, near, far, 60)
    first, second = (frechet_interval(real, made, 60, paired=True) for made in (near, far))
    assert found.value == pytest.approx(second.value - first.value, rel=1e-9)
    assert 0 < found.low <= found.value <= found.high
    assert found.high - found.low < 0.5 * (second.high - second.low) + 1e-9
    swapped = frechet_difference(real, far, near, 60)
    assert (swapped.value, swapped.low) == pytest.approx((-found.value, -found.high))
    noisy = [clip + np.random.default_rng(i).normal(size=clip.shape) for i, clip in enumerate(real)]
    again = [
        clip + np.random.default_rng(99 - i).normal(size=clip.shape) for i, clip in enumerate(real)
    ]
    same = frechet_difference(real, noisy, again, 60)
    assert same.low < 0 < same.high


def test_joining_blocks_changes_nothing(monkeypatch):
    clips = _clips(3, 20)
    whole = GaussianStatistics.stream(clips)
    monkeypatch.setattr(frechet, 'BLOCK', 7)
    parts = GaussianStatistics.stream(clips)
    assert whole.count == parts.count == 60
    np.testing.assert_allclose(whole.covariance, parts.covariance, rtol=1e-9)


def test_errors_name_the_remedy():
    one, other = GaussianStatistics.of(np.zeros((2, 3))), GaussianStatistics.of(np.zeros((2, 4)))
    with pytest.raises(ValueError, match='one embedder'):
        frechet_distance(one, other)
    with pytest.raises(ValueError, match='at least 2'):
        frechet_distance(GaussianStatistics.of(np.zeros((1, 3))), one)
    with pytest.raises(ValueError, match='empty'):
        GaussianStatistics.stream([])
    with pytest.raises(ValueError, match='NaN'):
        GaussianStatistics.of(np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match='paired'):
        frechet_interval([np.zeros((2, 3))], [np.zeros((2, 3))] * 2, paired=True)
