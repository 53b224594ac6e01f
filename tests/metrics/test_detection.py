"""Event and segment scores against sed_eval: its published values, and by hand."""

import csv
import json
import math

import numpy as np
import pytest

from realaudio_jax.metrics.detection import event_scores, segment_scores
from realaudio_jax.timeline import Event

NAMES = {
    'f_measure': 'f1',
    'precision': 'precision',
    'recall': 'recall',
    'error_rate': 'error_rate',
    'substitution_rate': 'substitutions',
    'deletion_rate': 'deletions',
    'insertion_rate': 'insertions',
}


def _read(path):
    """Events by file name; rows end in onset, offset and label, or a file name stands alone."""
    files = {}
    with open(path, newline='') as file:
        for row in csv.reader(file, delimiter='\t'):
            name = row[0] if row and row[0].endswith('.wav') else ''
            events = files.setdefault(name, [])
            if len(row) >= 3:
                onset, offset, label = row[-3:]
                events.append(Event(label, float(onset), float(offset)))
    return files


@pytest.mark.parametrize('name', ['street_fold1', 'office_high', 'office_med', 'mini_a', 'mini_b'])
def test_values_of_sed_eval(sound_dir, name):
    folder = sound_dir / 'reference' / 'sed_eval'
    case = json.loads((folder / 'expected_values.json').read_text())[name]
    requested, found = _read(folder / case['reference']), _read(folder / case['estimated'])
    clips = [(requested[file], found.get(file, [])) for file in requested]
    scores = {
        'segment_1.0s': segment_scores(clips),
        'segment_0.1s': segment_scores(clips, 0.1),
        'event_onset_offset_c0.2_p0.5': event_scores(clips),
        'event_onset_only_c0.2': event_scores(clips, offset_share=None),
    }
    for setting, expected in case['results'].items():
        for group in ('overall_f', 'overall_er', 'class_avg_f'):
            for key, value in expected[group].items():
                field = ('class_' if group == 'class_avg_f' else '') + NAMES[key]
                found_value = getattr(scores[setting], field)
                assert found_value == pytest.approx(value, abs=1e-9), (setting, field)
        if 'accuracy' in expected:
            assert scores[setting].accuracy == pytest.approx(expected['accuracy'], abs=1e-9)


def test_most_hits_are_found_where_the_first_choice_would_block_another():
    requested = [Event('a', 1.0, 2.0), Event('a', 1.3, 2.3)]
    found = [Event('a', 1.15, 2.15), Event('a', 0.9, 1.9)]  # both are near the first
    assert event_scores([(requested, found)]).f1 == 1


def test_wrong_labels_are_substitutions_and_the_rest_insertions_and_deletions():
    requested = [Event('a', 1.0, 2.0), Event('b', 3.0, 4.0), Event('c', 6.0, 6.5)]
    found = [Event('a', 1.1, 2.1), Event('a', 3.1, 4.1), Event('c', 8.0, 8.5)]
    s = event_scores([(requested, found), ([], [Event('b', 0.0, 1.0)])])
    assert (s.precision, s.recall) == (0.25, pytest.approx(1 / 3))
    assert (s.substitutions, s.deletions, s.insertions) == pytest.approx((1 / 3, 1 / 3, 2 / 3))
    assert s.error_rate == pytest.approx(4 / 3) and (s.requested, s.found) == (3, 4)


def test_an_offset_counts_only_when_asked_and_by_a_share_of_the_length():
    pair = ([Event('a', 1.0, 3.0)], [Event('a', 1.0, 3.9)])
    assert event_scores([pair]).f1 == 1  # 0.9 s of 2 s
    assert event_scores([pair], offset_share=0.4).f1 == 0
    assert event_scores([pair], offset_share=None).f1 == 1


def test_segments_and_silence():
    pair = ([Event('a', 0.0, 2.0)], [Event('a', 1.0, 3.0)])
    s = segment_scores([pair], seconds=4.0)
    assert s.f1 == 0.5 and s.accuracy == 0.5
    nothing = event_scores([([Event('a', 0.0, 1.0)], [])])
    assert nothing.recall == 0 and math.isnan(nothing.precision) and nothing.deletions == 1
    with pytest.raises(ValueError, match='no requested events'):
        event_scores([([], [])])


def test_random_lists_agree_with_sed_eval_itself():
    sed_eval = pytest.importorskip('sed_eval')
    rng = np.random.default_rng(0)
    labels = ['a', 'b', 'c']
    for _ in range(5):
        onset = rng.uniform(0, 9, (2, 12))
        lists = [
            [Event(labels[rng.integers(3)], t, t + rng.uniform(0.1, 1.0)) for t in side]
            for side in onset
        ]
        as_dicts = [
            [{'event_label': e.text, 'onset': e.onset_s, 'offset': e.offset_s} for e in side]
            for side in lists
        ]
        names = sorted({e.text for e in lists[0]})
        if {e.text for e in lists[1]} - set(names):
            continue
        theirs = sed_eval.sound_event.EventBasedMetrics(names, t_collar=0.5)
        theirs.evaluate(*as_dicts)
        ours = event_scores([tuple(lists)], collar_s=0.5)
        assert ours.f1 == pytest.approx(theirs.overall_f_measure()['f_measure'])
        theirs = sed_eval.sound_event.SegmentBasedMetrics(names, time_resolution=0.3)
        theirs.evaluate(*as_dicts)
        ours = segment_scores([tuple(lists)], 0.3)
        assert ours.f1 == pytest.approx(theirs.overall_f_measure()['f_measure'])
        assert ours.error_rate == pytest.approx(theirs.overall_error_rate()['error_rate'])
