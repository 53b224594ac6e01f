"""Packed recordings: the same labels, splits and sounds, in fewer bytes."""

import csv

import numpy as np
import pytest
import soundfile

from realaudio_jax.data.packed_recordings import encoded, pack_recordings
from realaudio_jax.data.sources import Recordings
from realaudio_jax.typing import SAMPLE_RATE


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two folders: one with a table, one whose files are named alike, with a copy in it."""
    monkeypatch.setenv('REALAUDIO_CACHE', str(tmp_path / 'cache'))
    rng = np.random.default_rng(0)
    rows = [('file', 'label', 'caption', 'split', 'licence', 'author', 'active_regions')]
    for i, (label, split) in enumerate([('gong', 'held_out'), ('gong', 'train'), ('rain', '')]):
        decay = np.exp(-np.arange(24_000) / 9_000)[:, None]
        noise = 0.3 * decay * rng.normal(size=(24_000, 1 + i % 2)).clip(-2, 2)
        (tmp_path / 'a' / label).mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / 'a' / label / f'{i}.wav', noise, SAMPLE_RATE)
        caption = 'A gong, far away' if i == 0 else ''
        rows.append((f'{label}/{i}.wav', label, caption, split, 'CC0-1.0', 'Ann', '0.01-0.4'))
    with open(tmp_path / 'a' / 'metadata.csv', 'w', newline='') as file:
        csv.writer(file).writerows(rows)
    (tmp_path / 'b' / 'gong').mkdir(parents=True)
    for i in range(2):
        tone = 0.3 * np.sin(np.arange(30_000) * (0.05 + 0.01 * i))
        soundfile.write(tmp_path / 'b' / 'gong' / f'{i}.wav', tone, SAMPLE_RATE)
    (tmp_path / 'b' / 'gong' / '7.wav').write_bytes((tmp_path / 'a/gong/0.wav').read_bytes())
    return [tmp_path / 'a', tmp_path / 'b']


def known(folder):
    """By file without its suffix, what a folder says of each recording."""
    facts = 'label captions licence author held_out texts channels'.split()
    return {
        clip.file.rsplit('.', 1)[0]: tuple(getattr(clip, fact) for fact in facts)
        for clip in Recordings(folder, 'all', log=lambda line: None).clips
    }


def test_packed_recordings_have_their_labels_splits_and_sounds(folders, tmp_path):
    said = []
    packed = pack_recordings(folders, tmp_path / 'packed', log=said.append)
    first, second = map(known, folders)
    del second['gong/7']  # a copy of gong/0 of the first folder
    second['gong/1-2'] = second.pop('gong/1')  # both folders have one of this name
    second['gong/0-2'] = second.pop('gong/0')
    assert known(tmp_path / 'packed') == first | second
    assert packed.files == 5 and 'left out 1 copies of others' in said
    assert '| Ann | CC0-1.0 |' in (tmp_path / 'packed' / 'ATTRIBUTION.md').read_text()
    source = Recordings(tmp_path / 'packed', 'all', log=lambda line: None)
    gong = next(i for i, clip in enumerate(source.clips) if clip.file == 'gong/0.opus')
    assert source.load(gong).active[0][0] == pytest.approx(0.01)


def test_a_lossy_file_that_is_smaller_is_not_coded_again(tmp_path, monkeypatch):
    monkeypatch.setenv('REALAUDIO_CACHE', str(tmp_path / 'cache'))
    (tmp_path / 'a').mkdir()
    tone = 0.3 * np.sin(np.arange(96_000) * 0.05)
    soundfile.write(tmp_path / 'a' / 'dull tone.ogg', tone, 8_000)
    soundfile.write(tmp_path / 'a' / 'tone.wav', tone[::2], SAMPLE_RATE)
    pack_recordings([tmp_path / 'a'], tmp_path / 'packed', log=lambda line: None)
    packed = {path.name: path.read_bytes() for path in (tmp_path / 'packed' / 'audio').iterdir()}
    assert set(packed) == {'dull tone.ogg', 'tone.opus'}
    assert packed['dull tone.ogg'] == (tmp_path / 'a' / 'dull tone.ogg').read_bytes()


@pytest.mark.parametrize(('form', 'most_db'), [('flac', -80), ('opus', -5)])
def test_sounds_keep_their_length_time_and_top_octave(form, most_db, tmp_path):
    rng = np.random.default_rng(0)
    sound = np.zeros((SAMPLE_RATE, 2), np.float32)
    sound[20_000:30_000] = 0.2 * rng.normal(size=(10_000, 2)).clip(-2, 2)
    (tmp_path / 'x').write_bytes(encoded(sound, form, 96.0))
    found, rate = soundfile.read(tmp_path / 'x')
    assert rate == SAMPLE_RATE and len(found) == len(sound)
    error = 20 * np.log10(np.std(found - sound) / np.std(sound))
    assert error < most_db

    def top(x):
        power = np.abs(np.fft.rfft(x, axis=0)) ** 2
        return 10 * np.log10(power[10_000:20_000].sum())

    assert abs(top(found) - top(sound)) < 1.0


def test_another_form_is_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="no form 'mp3'; use opus or flac"):
        pack_recordings(folders, tmp_path / 'packed', 'mp3')
