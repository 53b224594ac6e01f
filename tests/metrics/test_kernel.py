"""Kernel distance: a plain loop, unbiasedness, order, blocks, and sets without a bandwidth."""

import itertools

import numpy as np
import pytest

from realaudio_jax.metrics import kernel
from realaudio_jax.metrics.kernel import kernel_difference, kernel_interval


def _clips(seed, lengths, shift=0.0, spread=0.0):
    """Frames about a centre of their clip, `spread` the size of what they share."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, 5)) + spread * rng.normal(size=(1, 5)) + shift for n in lengths]


def _by_loop(a, b):
    def mean(pairs):
        return np.mean([np.exp(-((x - y) @ (x - y)) / (2 * s * s)) for x, y in pairs])

    def within(clips):
        return [
            (x, y)
            for i, j in itertools.permutations(range(len(clips)), 2)
            for x in clips[i]
            for y in clips[j]
        ]

    s = np.median([np.linalg.norm(x - y) for x, y in within(a)])
    across = [(x, y) for c in a for x in c for d in b for y in d]
    return 100 * (mean(within(a)) + mean(within(b)) - 2 * mean(across))


@pytest.mark.parametrize('block', [4, 1000])
def test_value_equals_a_plain_loop_in_any_block_size_and_order(monkeypatch, block):
    monkeypatch.setattr(kernel, 'BLOCK', block)
    a, b = _clips(0, (3, 1, 4, 2, 3)), _clips(1, (2, 5, 3), 0.7)
    expected = _by_loop(a, b)
    for x, y in ((a, b), (a[::-1], b[::-1])):
        found = kernel_interval(x, [*y, np.zeros((0, 5))], resamples=5)
        assert found.value == pytest.approx(expected, rel=1e-3)
        assert found.clips == (5, 3)


def test_like_sets_give_zero_on_average_though_their_frames_are_alike():
    """With every pair within a clip counted, these sets of four clips would give about 30."""
    values = [
        kernel_interval(_clips(2 * i, [6] * 4, spread=3), _clips(2 * i + 1, [6] * 4, spread=3), 2)
        for i in range(60)
    ]
    values = np.array([v.value for v in values])
    assert abs(values.mean()) < 3 * values.std() / len(values) ** 0.5


def test_a_shift_is_seen_and_its_interval_excludes_zero():
    a, b, c = _clips(0, [4] * 30), _clips(1, [4] * 30), _clips(2, [4] * 30, 1.0)
    near, far = kernel_interval(a, b), kernel_interval(a, c)
    assert near.low < 0 < near.high < far.low < far.value < far.high
    assert far == kernel_interval(a, c)


def test_paired_sets_leave_each_clip_and_its_copy_out():
    a = _clips(3, [4] * 20, spread=3)
    copy = kernel_interval(a, a, paired=True)
    assert copy.value == pytest.approx(0, abs=1e-6) and copy.high == pytest.approx(0, abs=1e-6)
    assert kernel_interval(a, a).value < -1  # unpaired, a copy counts as nearer than its own kind


def test_errors_name_the_set():
    with pytest.raises(ValueError, match='all alike'):
        kernel_interval([np.ones((3, 5))] * 3, _clips(0, (3, 3)))
    with pytest.raises(ValueError, match='2 clips a set, got 1 and 2'):
        kernel_interval(_clips(0, (3,)), _clips(0, (3, 3)))
    with pytest.raises(ValueError, match='paired'):
        kernel_interval(_clips(0, (3, 3)), _clips(0, (3, 3, 3)), paired=True)


def test_a_difference_is_that_of_the_two_distances_and_narrower_for_like_clips():
    rng = np.random.default_rng(3)
    real = [rng.normal(size=(n, 6)) for n in rng.integers(2, 5, 30)]
    a = [clip + rng.normal(0.3, 0.2, clip.shape) for clip in real]
    b = [clip + rng.normal(0.0, 0.05, clip.shape) + 0.1 for clip in a]  # clip by clip like a
    found = kernel_difference(real, a, b, resamples=60)
    first, second = (kernel_interval(real, clips, resamples=60) for clips in (a, b))
    np.testing.assert_allclose(found.value, first.value - second.value, atol=1e-4)
    assert found.low < found.value < found.high < 0
    assert found.high - found.low < 0.7 * (second.high - second.low)
    same = kernel_difference(real, a, a, resamples=5)
    assert (same.low, same.value, same.high) == (0, 0, 0)
    with pytest.raises(ValueError, match='got 30, 29 and 30'):
        kernel_difference(real, a[1:], b)
