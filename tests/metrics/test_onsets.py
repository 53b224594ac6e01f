"""Onset errors on sounds whose onsets are known."""

import numpy as np
import pytest

from realaudio_jax.metrics.onsets import onset_errors, summarise_onsets

RATE = 48_000


def _event(rng, kind):
    """Half a second of a sound with an attack of at most 5 ms, rms 0.1 in its first 50 ms."""
    t = np.arange(RATE // 2) / RATE
    if kind == 'burst':
        x = rng.normal(size=t.size) * np.exp(-t / 0.08)
    elif kind == 'bell':
        x = sum(np.sin(2 * np.pi * f * t) for f in rng.uniform(300, 5000, 4)) * np.exp(-t / 0.2)
    elif kind == 'thump':
        x = np.sin(2 * np.pi * rng.uniform(50, 120) * t) * np.exp(-t / 0.15)
    else:
        x = np.sin(2 * np.pi * (3000 * t + 4000 * t * t)) * np.minimum(1, t / 0.005)
    return x * 0.1 / np.sqrt((x[: RATE // 20] ** 2).mean())


def _scene(seed, bed_db=None, shift_s=0.0, seconds=6):
    """Six events 0.9 s apart; a white bed of `bed_db` relative to the events."""
    rng = np.random.default_rng(seed)
    audio = np.zeros(seconds * RATE)
    onsets = 0.35 + 0.9 * np.arange(6) + rng.uniform(0, 0.2, 6)
    for i, onset in enumerate(onsets):
        event = _event(rng, ('burst', 'bell', 'thump', 'chirp')[i % 4])
        start = round((onset + shift_s) * RATE)
        audio[start : start + len(event)] += event[: len(audio) - start]
    if bed_db is not None:
        audio += rng.normal(size=audio.size) * 0.1 * 10 ** (bed_db / 20)
    return audio, onsets


def _errors(**settings):
    return np.concatenate(
        [onset_errors(a, RATE, o) for a, o in (_scene(seed, **settings) for seed in range(4))]
    )


@pytest.mark.parametrize('bed_db, p90_ms', [(None, 1.5), (-20, 2), (-10, 3)])
def test_true_onsets_are_found_clean_and_over_a_bed(bed_db, p90_ms):
    summary = summarise_onsets(_errors(bed_db=bed_db))
    assert summary.missed == 0 and summary.median_ms < 1.5 and summary.p90_ms < p90_ms
    assert summary.hit_rate[25] == 1 and summary.count == 24


@pytest.mark.parametrize('shift_ms', [20, 50, 200, -50])
def test_shifts_are_measured_as_such(shift_ms):
    errors = _errors(bed_db=-15, shift_s=shift_ms / 1000)
    assert np.median(errors) == pytest.approx(shift_ms, abs=2)
    hits = summarise_onsets(errors).hit_rate
    assert hits[25] == (shift_ms == 20) and hits[100] == (abs(shift_ms) <= 50)


def test_a_stationary_bed_or_silence_holds_no_onset():
    bed = np.random.default_rng(0).normal(size=(4 * RATE, 2)) * 0.1
    requests = [0.02, 0.1, 1.0, 2.0, 3.9]
    assert np.isnan(onset_errors(bed, RATE, requests[1:])).all()
    assert np.isnan(onset_errors(np.zeros(4 * RATE), RATE, requests)).all()


def test_an_event_at_the_very_start_stereo_and_another_rate():
    event = _event(np.random.default_rng(1), 'bell')[:, None] * np.array([[1.0, 0.2]])
    assert abs(onset_errors(event, RATE, [0.0])[0]) <= 1
    slow = np.concatenate([np.zeros((4000, 2)), event])
    assert onset_errors(slow, 16_000, [0.25])[0] == pytest.approx(0, abs=2)


def test_neighbours_answer_their_own_requests():
    rng = np.random.default_rng(2)
    audio = np.zeros(2 * RATE)
    requests = [0.5, 0.62, 0.8]
    for onset in requests:
        start = round(onset * RATE)
        audio[start : start + 2400] += rng.normal(size=2400) * np.exp(-np.arange(2400) / 400)
    errors = onset_errors(audio, RATE, requests)
    np.testing.assert_allclose(errors, 0, atol=2)
    np.testing.assert_array_equal(onset_errors(audio, RATE, requests[::-1]), errors[::-1])


def test_gain_changes_nothing():
    audio, onsets = _scene(5, bed_db=-15)
    np.testing.assert_array_equal(
        onset_errors(audio, RATE, onsets), onset_errors(audio * 0.05, RATE, onsets)
    )


def test_summary_counts_the_missed_as_misses():
    summary = summarise_onsets(np.array([10.0, -30.0, np.nan, 90.0, -5.0]))
    assert summary.median_ms == 20 and summary.missed == pytest.approx(0.2) and summary.count == 5
    assert summary.hit_rate == {25: 0.4, 50: 0.6, 100: 0.8, 250: 0.8}
    assert np.isnan(summarise_onsets(np.array([np.nan])).median_ms)


def test_errors_name_the_onset():
    with pytest.raises(ValueError, match='onset 2 s lies outside'):
        onset_errors(np.zeros(RATE), RATE, [0.5, 2.0])
    with pytest.raises(ValueError, match='no events'):
        summarise_onsets(np.zeros(0))
    with pytest.raises(ValueError, match='NaN'):
        onset_errors(np.full(RATE, np.nan), RATE, [0.5])
