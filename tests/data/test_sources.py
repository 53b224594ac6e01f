import csv
import pickle

import numpy as np
import pytest
import soundfile

from realaudio_jax.data import label_text, signal
from realaudio_jax.data.scenes import make_scene
from realaudio_jax.data.sources import (
    Clip,
    FoleySource,
    MixedSource,
    Recordings,
    held_out_files,
    is_held_out,
)
from realaudio_jax.typing import SAMPLE_RATE


def tone(seconds, rate=SAMPLE_RATE, hertz=440.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def write_metadata(folder, rows):
    with open(folder / 'metadata.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, sorted({key for row in rows for key in row}))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def small(tmp_path):
    """Five files of different kinds, one of them not sound."""
    folder = tmp_path / 'mine'
    (folder / 'audio').mkdir(parents=True)
    audio = folder / 'audio'
    gap = np.concatenate([np.zeros(9600), tone(0.5), np.zeros(24000), tone(0.25)])
    soundfile.write(audio / 'gap.wav', gap, SAMPLE_RATE)
    soundfile.write(audio / 'old.wav', tone(0.5, 8000), 8000, subtype='PCM_U8')
    soundfile.write(audio / 'fine.flac', np.stack([tone(1, 96000), -tone(1, 96000)], 1), 96000)
    soundfile.write(audio / 'steady.wav', tone(4.0), SAMPLE_RATE)
    (audio / 'broken.ogg').write_bytes(b'this is not sound')
    names = ('gap.wav', 'old.wav', 'fine.flac', 'steady.wav', 'broken.ogg')
    labels = ('dog bark', 'bell', 'zap', 'rain', 'dog bark')
    write_metadata(folder, [{'file': f, 'label': x} for f, x in zip(names, labels, strict=True)])
    return folder


def test_decodes_every_kind_of_file_and_names_the_unreadable(small, tmp_path):
    lines = []
    recordings = Recordings(small, 'all', tmp_path / 'cache', lines.append)
    assert {r.file: (r.channels, round(r.seconds, 3), r.kind) for r in recordings.clips} == {
        'gap.wav': (1, 1.45, 'event'),
        'old.wav': (1, 0.5, 'event'),
        'fine.flac': (2, 1.0, 'event'),
        'steady.wav': (1, 4.0, 'ambience'),
    }
    left_out = [line for line in lines if 'left out' in line]
    assert len(left_out) == 1 and 'broken.ogg' in left_out[0] and '\n' not in left_out[0]
    assert any('8-bit to float (1), 8000 Hz to 48000 Hz (1), 96000 Hz' in line for line in lines)
    old = recordings.load(1).audio
    np.testing.assert_allclose(old[5000:15000], tone(0.5)[5000:15000], atol=0.02)


def test_the_cache_is_used_again_and_follows_the_contents(small, tmp_path):
    first, second, third = [], [], []
    Recordings(small, 'all', tmp_path / 'cache', first.append)
    Recordings(small, 'all', tmp_path / 'cache', second.append)
    soundfile.write(small / 'audio' / 'old.wav', tone(0.7), SAMPLE_RATE)
    changed = Recordings(small, 'all', tmp_path / 'cache', third.append)
    decoding = [sum('decoding' in line for line in lines) for lines in (first, second, third)]
    assert decoding == [1, 0, 1]
    assert changed.clips[1].seconds == pytest.approx(0.7)
    assert not list((tmp_path / 'cache').rglob('.partial-*'))


def test_files_may_lie_beside_the_metadata(small, tmp_path):
    (small / 'audio').rename(tmp_path / 'flat')
    (small / 'metadata.csv').rename(tmp_path / 'flat' / 'metadata.csv')
    assert len(Recordings(tmp_path / 'flat', 'all', tmp_path / 'cache', print)) == 4


def test_active_regions_are_where_the_sound_is():
    audio = np.concatenate([np.zeros(9600), tone(0.5), np.zeros(24000), tone(0.25)])
    np.testing.assert_allclose(signal.active_regions(audio), [(0.2, 0.7), (1.2, 1.45)], atol=1e-9)
    assert signal.active_regions(np.zeros(5000)) == ()


def test_regions_of_the_metadata_are_used_and_cut_with_an_excerpt(small, tmp_path):
    row = {'file': 'steady.wav', 'label': 'dog', 'active_regions': '0.5-1.0;2.0-3.5'}
    write_metadata(small, [row])
    recordings = Recordings(small, 'all', tmp_path / 'cache', print)
    assert recordings.clips[0].active == ((0.5, 1.0), (2.0, 3.5))
    clip = recordings.load(0, 0.75, 2.0)
    assert len(clip.audio) == 2 * SAMPLE_RATE
    np.testing.assert_allclose(clip.active, [(0.0, 0.25), (1.25, 2.0)])


@pytest.mark.parametrize(
    ('metadata', 'error', 'names'),
    [
        (None, ValueError, 'no sound files'),
        ('file,text\na.wav,dog\n', ValueError, 'label'),
        ('file,label\nmissing.wav,dog\n', ValueError, 'no readable recordings'),
        ('file,label\n../a.wav,dog\n', ValueError, 'line 2 names'),
    ],
)
def test_a_bad_folder_is_one_clear_line(tmp_path, metadata, error, names):
    if metadata:
        (tmp_path / 'metadata.csv').write_text(metadata)
    with pytest.raises(error, match=names) as raised:
        Recordings(tmp_path, 'all', tmp_path / 'cache', lambda line: None)
    assert '\n' not in str(raised.value)


def test_copies_silence_and_what_cannot_be_read_are_counted_and_named(small, tmp_path):
    audio = small / 'audio'
    (audio / 'again.wav').write_bytes((audio / 'gap.wav').read_bytes())
    soundfile.write(audio / 'still.wav', np.zeros(9000), SAMPLE_RATE)
    names = ('gap.wav', 'again.wav', 'still.wav', 'broken.ogg', 'old.wav', 'fine.flac')
    write_metadata(small, [{'file': name, 'label': 'x'} for name in names])
    lines = []
    recordings = Recordings(small, 'all', tmp_path / 'cache', lines.append)
    assert [r.file for r in recordings.clips] == ['gap.wav', 'old.wav', 'fine.flac']
    said = [line.split('left out ')[1] for line in lines if 'left out' in line]
    assert said[0] == '1 of 6 files, copies of others: again.wav'
    assert said[1].startswith('1 of 5 files, not readable: broken.ogg (damaged or not')
    assert said[2] == '1 of 5 files, silent or of less than 20 ms: still.wav'


def test_labels_and_captions_reach_scenes(small, tmp_path):
    caption = 'A small dog barks at the postman.'
    write_metadata(small, [{'file': 'gap.wav', 'label': 'dog bark', 'caption': caption}])
    recordings = Recordings(small, 'all', tmp_path / 'cache', print)
    rng = np.random.default_rng(0)
    picks = {recordings.pick(rng, 'event').caption for _ in range(20)}
    assert picks == {'', 'a small dog barks at the postman'}
    scenes = [make_scene(np.random.default_rng(seed), recordings, 2.0) for seed in range(30)]
    told = ['postman' in scene.caption for scene in scenes]
    assert any(told) and not all(told)
    for scene in scenes:
        assert {event.text for event in scene.events} <= set(recordings.clips[0].texts)


def test_the_digest_follows_contents_labels_and_captions(small, tmp_path):
    def digest(**changed):
        row = {'file': 'old.wav', 'label': 'bell', 'caption': 'a bell'} | changed
        write_metadata(small, [row, {'file': 'gap.wav', 'label': 'dog'}])
        return Recordings(small, 'all', tmp_path / 'cache', lambda line: None).digest

    digests = [digest(), digest(label='zap'), digest(caption='a gong')]
    soundfile.write(small / 'audio' / 'old.wav', tone(0.5, 8000, 441.0), 8000, subtype='PCM_U8')
    assert len({*digests, digest()}) == 4
    (small / 'audio').rename(tmp_path / 'audio')
    (tmp_path / 'audio').rename(tmp_path / 'mine' / 'audio')  # where it lies changes nothing
    assert digest() not in digests and digest() == digest()


def held_out(files):
    return held_out_files([(*file, '')[:4] for file in files])


def test_every_label_of_two_takes_is_in_both_splits():
    rng = np.random.default_rng(0)
    for _ in range(30):
        labels = rng.integers(0, 6, 40)
        takes = labels * 100 + rng.integers(0, 4, 40)
        files = [
            (f'{i}.wav', f'{x}', f'take {t}')
            for i, (x, t) in enumerate(zip(labels, takes, strict=True))
        ]
        out = held_out(files)
        assert out == held_out(files[::-1])  # the order of files decides nothing
        by_take = {}
        for name, label, take in files:
            by_take.setdefault(label, {}).setdefault(take, set()).add(name in out)
        for takes_of_label in by_take.values():
            assert all(len(where) == 1 for where in takes_of_label.values())
            if len(takes_of_label) > 1:
                assert {True, False} == set().union(*takes_of_label.values())


def test_neither_split_is_empty_where_there_are_two_sounds():
    for n in (2, 3, 8):
        variants = held_out([(f'dog-{i}.wav', 'dog', '/dog') for i in range(n)])
        singles = held_out([(f'{i}.wav', f'{i}', f'/{i}') for i in range(n)])
        assert 0 < len(variants) < n and 0 < len(singles) < n
    assert len(held_out([('dog.wav', 'dog', '/dog')])) in (0, 1)


def test_a_given_split_wins():
    files = [(f'{i}.wav', 'dog', f'/{i}', 'held_out' if i % 2 else 'train') for i in range(6)]
    assert held_out_files(files) == {'1.wav', '3.wav', '5.wav'}


def test_a_folder_of_one_sound_is_refused_before_anything_is_trained(small, tmp_path):
    write_metadata(small, [{'file': 'gap.wav', 'label': 'dog', 'split': 'train'}])
    with pytest.raises(ValueError, match="nothing is left for the split 'held_out'"):
        Recordings(small, 'held_out', tmp_path / 'cache', print)


def test_a_tenth_is_held_out():
    share = np.mean([is_held_out(f'set/{i}') for i in range(4000)])
    assert 0.08 < share < 0.12


def test_splits_share_no_take(sound_dir):
    lines = []
    whole, train, held_out = (
        Recordings(sound_dir, split, log=lines.append) for split in ('all', 'train', 'held_out')
    )
    assert len(train) + len(held_out) == len(whole)
    assert 0.05 < len(held_out) / len(whole) < 0.15
    for label in whole.labels:
        if len({r.take for r in whole.clips if r.label == label}) > 1:
            assert label in train.labels and label in held_out.labels
    assert not {r.take for r in train.clips} & {r.take for r in held_out.clips}
    assert {'rain', 'sea waves', 'fire crackling'} <= {
        r.label for r in train.clips if r.kind == 'ambience'
    }


def test_pick_gives_the_kind_and_length_asked_for(sound_dir):
    train, rng = Recordings(sound_dir, log=print), np.random.default_rng(0)
    for kind in ('event', 'ambience'):
        clips = [train.pick(rng, kind, 4.0) for _ in range(30)]
        assert {clip.kind for clip in clips} == {kind}
        assert max(len(clip.audio) for clip in clips) <= 4 * SAMPLE_RATE
        assert all(clip.active and np.abs(clip.audio).max() <= 1 for clip in clips)
        assert len({clip.label for clip in clips}) > 3


def test_random_crops_are_stereo_bounded_and_reproducible(small, tmp_path):
    recordings = Recordings(small, 'all', tmp_path / 'cache', print)
    first, again = (recordings.random_crops(np.random.default_rng(5), 16, 30000) for _ in range(2))
    assert first.shape == (16, 30000, 2) and first.dtype == np.float32
    assert np.array_equal(first, again)
    assert np.abs(first).max() <= 1.0
    assert (first.std(axis=(1, 2)) > 1e-3).all()
    side = first[..., 0] - first[..., 1]
    assert (side.std(axis=1) > 1e-3).mean() > 0.8


def test_a_mono_sound_keeps_its_energy_when_panned():
    x = np.random.default_rng(0).standard_normal(24000).astype(np.float32)
    for seed in range(20):
        out = signal.random_stereo(np.random.default_rng(seed), x)
        energy = np.square(out).sum() / (2 * np.square(x).sum())
        assert 0.97 < energy < 1.0 + 0.8**2 + 0.05  # widening by w adds w^2, w at most 0.8


def test_labels_become_english():
    assert label_text.readable('walk t gravel')[0] == 'footstep on gravel'
    assert label_text.readable('556 auto rifle shot')[0] == 'automatic rifle shot'
    assert label_text.readable('bd', 'sonic_pi/bd_fat.flac')[0] == 'bass drum hit'
    assert label_text.readable('doorslam') == ('door slam',)
    assert label_text.readable('My_own sound') == ('my own sound',)
    assert label_text.readable('default') == ('default',)
    assert label_text.is_ambience('sea waves') and not label_text.is_ambience('train brakes')


class Constant:
    """A source of one label that is always the same."""

    def __init__(self, label, kinds=('event',)):
        self.labels, self.kinds, self.digest = (label,), kinds, label

    def pick(self, rng, kind, seconds=None):
        return Clip(np.ones(9, np.float32), 48000, *self.labels * 2, ((0.0, 1.0),), 'CC0-1.0', kind)


def test_a_mixture_follows_its_weights_and_knows_its_kinds():
    mixed = MixedSource((Constant('a'), Constant('b', ('event', 'ambience'))), (3.0, 1.0))
    rng = np.random.default_rng(0)
    assert np.mean([mixed.pick(rng, 'event').label == 'a' for _ in range(400)]) == pytest.approx(
        0.75, abs=0.07
    )
    assert mixed.pick(rng, 'ambience').label == 'b'
    assert mixed.kinds == ('event', 'ambience') and mixed.labels == ('a', 'b')
    with pytest.raises(ValueError, match='ambience'):
        MixedSource((Constant('a'),), (1.0,)).pick(rng, 'ambience')
    with pytest.raises(ValueError, match='weight'):
        MixedSource((Constant('a'),), (0.0,))


def test_foley_is_a_source():
    source, rng = FoleySource(), np.random.default_rng(1)
    event, ambience = source.pick(rng, 'event', 2.0), source.pick(rng, 'ambience', 1.5)
    assert event.label in source.labels and len(event.audio) <= 2 * SAMPLE_RATE
    assert len(ambience.audio) == 1.5 * SAMPLE_RATE and ambience.kind == 'ambience'


def test_another_process_opens_the_cache_and_is_not_sent_it(small, tmp_path):
    recordings = Recordings(small, 'all', tmp_path / 'cache', lambda line: None)
    sent = pickle.dumps(recordings)
    assert len(sent) < 2000
    again = pickle.loads(sent)
    assert again.clips == recordings.clips
    np.testing.assert_array_equal(again.load(0).audio, recordings.load(0).audio)
