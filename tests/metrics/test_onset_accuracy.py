"""Offsets, spurious onsets and energy outside the events of sounds made to measure."""

import numpy as np
import pytest

from realaudio_jax.metrics.onsets import event_counts, f1_of_counts, onset_accuracy
from realaudio_jax.timeline import Event

RATE = 16_000
EVENTS = (Event('a', 0.5, 0.9), Event('b', 1.6, 2.2), Event('c', 2.9, 3.3))


def _onset_f1(events, timing, collar_s=0.2):
    return f1_of_counts([event_counts((events, timing.found), collar_s, None)])


def _sound(events=EVENTS, late_s=0.0, longer_s=0.0, bed=0.0, seconds=4, seed=0):
    """Noise bursts in stereo, `late_s` after their time, over a bed."""
    rng = np.random.default_rng(seed)
    audio = bed * rng.normal(size=(seconds * RATE, 2))
    for event in events:
        start = round((event.onset_s + late_s) * RATE)
        stop = round((event.offset_s + late_s + longer_s) * RATE)
        audio[start:stop] += 0.1 * rng.normal(size=(stop - start, 2))
    return audio


@pytest.mark.parametrize('bed', [0.0, 0.005])
@pytest.mark.parametrize('longer_ms', [0, 20, -50, 200])
def test_offsets_are_found_where_they_are(bed, longer_ms):
    found = onset_accuracy(_sound(longer_s=longer_ms / 1000, bed=bed), RATE, EVENTS)
    np.testing.assert_allclose(found.offset_ms, longer_ms, atol=8)
    np.testing.assert_allclose(found.onset_ms, 0, atol=3)


def test_an_offset_that_cannot_be_heard_is_not_measured():
    over = (Event('a', 0.5, 1.0), Event('b', 0.8, 1.5), Event('c', 1.52, 2.0), Event('d', 3.0, 4.0))
    found = onset_accuracy(_sound(over), RATE, over)
    assert len(found.onset_ms) == 4 and len(found.offset_ms) == 1  # c alone ends in the clear
    assert abs(found.offset_ms[0]) < 8


def test_a_sound_that_never_ends_has_missed_its_offset():
    endless = _sound((Event('a', 0.5, 3.9),))
    found = onset_accuracy(endless, RATE, [Event('a', 0.5, 0.9)])
    assert np.isnan(found.offset_ms).all() and not np.isnan(found.onset_ms).any()


def test_unasked_onsets_and_energy_outside():
    asked, unasked = EVENTS[:2], EVENTS[2]
    clean = onset_accuracy(_sound(asked), RATE, asked)
    assert not clean.spurious_s.size and clean.outside_db < -20
    both = onset_accuracy(_sound(), RATE, asked)
    np.testing.assert_allclose(both.spurious_s, [unasked.onset_s], atol=0.01)
    # 0.4 s of 1.4 s of like noise lie outside
    assert both.outside_db == pytest.approx(10 * np.log10(0.4 / 1.4), abs=0.3)
    assert _onset_f1(asked, clean) == 1
    assert _onset_f1(asked, both) == pytest.approx(2 * (2 / 3) / (1 + 2 / 3))
    late = onset_accuracy(_sound(asked, late_s=0.22), RATE, asked)
    assert _onset_f1(asked, late) == 0 and _onset_f1(asked, late, 0.25) == 1


def test_silence_and_no_events():
    silent = onset_accuracy(np.zeros(RATE), RATE, [Event('a', 0.2, 0.5)])
    assert np.isnan(silent.onset_ms).all() and np.isnan(silent.offset_ms).all()
    assert np.isnan(silent.outside_db) and not silent.spurious_s.size
    assert np.isnan(_onset_f1([], silent))
    none = onset_accuracy(_sound(), RATE, [])
    assert len(none.spurious_s) == 3 and none.outside_db == pytest.approx(0, abs=1e-6)
