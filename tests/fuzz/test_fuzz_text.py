"""Timelines and releases at random, in short; the scripts beside this file run the long forms."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import releases  # noqa: E402
import timelines  # noqa: E402


def test_timelines_are_read_or_one_short_line():
    found = timelines.run(400, seed=1)
    assert min(found.values()) > 10


def test_the_longest_timelines_take_little_memory():
    assert timelines.peak_bytes() < timelines.MOST_BYTES


def test_damaged_releases_are_one_line():
    found = releases.run(12, seed=1)
    assert found['by the manifest'] >= 10 and found['without one'] > 0
