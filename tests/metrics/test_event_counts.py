"""Counts of found events against sed_eval: its published values, and by hand."""

import csv
import json

import numpy as np
import pytest

from realaudio_jax.metrics.onsets import event_counts, f1_of_counts
from realaudio_jax.timeline import Event


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


def scores(counts):
    """Precision, recall and the error rates of sed_eval from summed counts."""
    hits, substitutions, requested, found = np.sum(counts, 0)
    deletions, insertions = requested - hits - substitutions, found - hits - substitutions
    return {
        'f_measure': f1_of_counts(counts),
        'precision': hits / found,
        'recall': hits / requested,
        'error_rate': (substitutions + deletions + insertions) / requested,
        'substitution_rate': substitutions / requested,
        'deletion_rate': deletions / requested,
        'insertion_rate': insertions / requested,
    }


@pytest.mark.parametrize('name', ['street_fold1', 'office_high', 'office_med', 'mini_a', 'mini_b'])
def test_values_of_sed_eval(sound_dir, name):
    folder = sound_dir / 'reference' / 'sed_eval'
    case = json.loads((folder / 'expected_values.json').read_text())[name]
    requested, found = _read(folder / case['reference']), _read(folder / case['estimated'])
    clips = [(requested[file], found.get(file, [])) for file in requested]
    for setting, share in (
        ('event_onset_offset_c0.2_p0.5', 0.5),
        ('event_onset_only_c0.2', None),
    ):
        ours = scores([event_counts(clip, 0.2, share) for clip in clips])
        expected = case['results'][setting]
        for key, value in (expected['overall_f'] | expected['overall_er']).items():
            assert ours[key] == pytest.approx(value, abs=1e-9), (setting, key)


def test_most_hits_are_found_where_the_first_choice_would_block_another():
    requested = [Event('a', 1.0, 2.0), Event('a', 1.3, 2.3)]
    found = [Event('a', 1.15, 2.15), Event('a', 0.9, 1.9)]  # both are near the first
    assert event_counts((requested, found)).tolist() == [2, 0, 2, 2]


def test_wrong_labels_are_substitutions_and_the_rest_insertions_and_deletions():
    requested = [Event('a', 1.0, 2.0), Event('b', 3.0, 4.0), Event('c', 6.0, 6.5)]
    found = [Event('a', 1.1, 2.1), Event('a', 3.1, 4.1), Event('c', 8.0, 8.5)]
    counts = [event_counts((requested, found)), event_counts(([], [Event('b', 0.0, 1.0)]))]
    assert [count.tolist() for count in counts] == [[1, 1, 3, 3], [0, 0, 0, 1]]
    assert f1_of_counts(counts) == pytest.approx(2 / 7)


def test_an_offset_counts_only_when_asked_and_by_a_share_of_the_length():
    pair = ([Event('a', 1.0, 3.0)], [Event('a', 1.0, 3.9)])
    for share, hits in ((0.5, 1), (0.4, 0), (None, 1)):  # 0.9 s of 2 s
        assert event_counts(pair, offset_share=share)[0] == hits


def test_nothing_found_and_nothing_requested():
    assert f1_of_counts([event_counts(([Event('a', 0.0, 1.0)], []))]) == 0
    assert np.isnan(f1_of_counts([event_counts(([], []))]))
