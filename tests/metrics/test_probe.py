"""The linear probe on clouds that can and cannot be told apart, and classes named by prompts."""

import numpy as np
import pytest
from toy_embedder import toy

from realaudio_jax.io import write_audio
from realaudio_jax.metrics.probe import (
    class_scores,
    fit_probe,
    named_classes,
    probe_of_recordings,
)

NAMES = ('Dog', 'Bark', 'Chicken, rooster', 'Rain', 'Glass', 'Breaking')


def _clouds(seed, spread, clips=24):
    """Three classes about three corners, in four groups."""
    rng = np.random.default_rng(seed)
    labels = [('cat', 'dog', 'hen')[i % 3] for i in range(clips)]
    corners = np.eye(3, 5)
    vectors = np.stack([corners[i % 3] for i in range(clips)]) + spread * rng.normal(
        size=(clips, 5)
    )
    return vectors, labels, [f'fold{i // 3 % 4}' for i in range(clips)]


def test_classes_far_apart_are_told_and_noise_is_not():
    probe = fit_probe(*_clouds(0, 0.1))
    assert probe.accuracy == 1 and (probe.clips, probe.groups) == (24, 4)
    vectors, labels, _ = _clouds(1, 0.1)
    assert probe.hits(vectors, labels).all()
    assert not probe.hits(vectors, labels[1:] + labels[:1]).any()
    np.testing.assert_allclose(probe.probabilities(vectors).sum(1), 1)
    assert fit_probe(*_clouds(2, 50.0, 120)).accuracy < 0.5


def test_a_group_that_is_left_out_is_not_seen():
    """Clips are copies within their group, and labels are noise between groups: chance at best."""
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(size=(30, 20)), 4, axis=0)
    labels = np.repeat([('a', 'b')[i % 2] for i in range(30)], 4).tolist()
    groups = np.repeat(np.arange(30), 4).tolist()
    probe = fit_probe(vectors, labels, groups)
    assert probe.hits(vectors, labels).mean() > 0.85 and probe.accuracy < 0.6  # 0.90 and 0.47


def test_recordings_of_a_folder(tmp_path):
    lines = ['file,label,group']
    rng = np.random.default_rng(0)
    for i in range(12):
        label, level = (('loud', 0.3), ('faint', 0.003))[i % 2]
        write_audio(tmp_path / 'set' / f'{i}.wav', level * rng.normal(size=(2000, 2)), 16_000)
        lines.append(f'set/{i}.wav,{label},fold{i // 2 % 3}')
    (tmp_path / 'metadata.csv').write_text('\n'.join([*lines, 'other/x.wav,loud,fold1']))
    probe = probe_of_recordings(tmp_path, toy(), tmp_path / 'cache', 'set/')
    assert probe.classes == ('faint', 'loud') and probe.clips == 12
    assert probe.accuracy > 0.8
    with pytest.raises(ValueError, match="begins with 'absent/'"):
        probe_of_recordings(tmp_path, toy(), tmp_path / 'cache', 'absent/')
    with pytest.raises(FileNotFoundError, match='no metadata.csv'):
        probe_of_recordings(tmp_path / 'set', toy(), tmp_path / 'cache')


def test_bad_sets_are_named():
    vectors, labels, groups = _clouds(0, 0.1)
    with pytest.raises(ValueError, match='only'):
        fit_probe(vectors, ['cat'] * 24, groups)
    with pytest.raises(ValueError, match="'hen' is in one group only"):
        fit_probe(
            vectors,
            labels,
            ['g' if label == 'hen' else str(i % 4) for i, label in enumerate(labels)],
        )
    with pytest.raises(ValueError, match="no class 'owl'; the probe knows cat, dog, hen"):
        fit_probe(vectors, labels, groups).hits(vectors[:1], ['owl'])


def test_prompts_name_classes():
    def named(prompt):
        return [NAMES[i] for i in named_classes(prompt, NAMES)]

    assert named('A dog barks twice, then RAIN') == ['Dog', 'Bark', 'Rain']
    assert named('a rooster crowing') == ['Chicken, rooster']
    assert named('breaking glass') == ['Glass', 'Breaking']
    assert named('a train passes') == []


def test_a_class_score_is_the_mean_over_named_classes_of_the_highest_score():
    scores = [np.array([[0.1, 0.2, 0, 0.9, 0, 0], [0.5, 0.0, 0, 0.1, 0, 0]])] * 2
    found = class_scores(scores, ['dog barks', 'a quiet room'], NAMES)
    assert found[0] == pytest.approx((0.5 + 0.2) / 2) and np.isnan(found[1])
