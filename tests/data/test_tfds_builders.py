import json
import sys

import numpy as np
import pytest
import soundfile

from realaudio_jax import by_name
from realaudio_jax.audio import to_pcm16
from realaudio_jax.data import DATASETS, tfds_builders
from realaudio_jax.data.datasets import MixedScenes
from realaudio_jax.data.loader import batches, scene_arrays
from realaudio_jax.data.scenes import make_scenes
from realaudio_jax.data.tfds_builders import AudioFolder, FoleyScenes, RecordedScenes, prepared
from realaudio_jax.timeline import Event
from realaudio_jax.typing import SAMPLE_RATE


@pytest.fixture
def sounds(tmp_path):
    folder = tmp_path / 'mine'
    (folder / 'deep').mkdir(parents=True)
    noise = 0.1 * np.random.default_rng(0).standard_normal(round(2.3 * SAMPLE_RATE))
    soundfile.write(folder / 'door_slam-02.wav', noise[:24000], SAMPLE_RATE)
    soundfile.write(folder / 'deep' / 'long rain.flac', noise, SAMPLE_RATE)
    soundfile.write(folder / 'old.wav', noise[:8000], 8000, subtype='PCM_U8')
    (folder / 'broken.wav').write_bytes(b'RIFF, but no sound')
    return folder


def test_foley_scenes_are_stored_and_read_without_tensorflow(tmp_path):
    builder = FoleyScenes(count=4, seconds=1.0, seed=3, data_dir=tmp_path)
    assert builder.name == 'foley_scenes'
    stored = prepared(builder)
    assert len(stored) == 4 and len(prepared(builder, 'held_out')) == 1
    expected = list(make_scenes(3, tfds_builders.FoleySource(), 4, 1.0))
    for example, scene in zip(stored, expected, strict=True):
        np.testing.assert_array_equal(example['audio'], to_pcm16(scene.audio))
        assert example['audio'].dtype == np.int16
        assert example['caption'].decode() == scene.caption and example['seconds'] == 1.0
        events = example['events']
        assert [text.decode() for text in events['text']] == [e.text for e in scene.events]
        np.testing.assert_allclose(events['onset_s'], [e.onset_s for e in scene.events], atol=1e-6)
        np.testing.assert_allclose(events['gain_db'], [e.gain_db for e in scene.events], atol=1e-6)
    assert 'tensorflow' not in sys.modules
    assert list(tmp_path.rglob('*.array_record*'))
    batch = next(batches(stored, 2, 0, item_transform=scene_arrays(0.8)))
    assert batch['audio'].shape == (2, 38400, 2) and isinstance(str(batch['caption'][0]), str)


def test_a_run_reads_its_scenes_from_a_builder_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv('REALAUDIO_CACHE', str(tmp_path))
    dataset = by_name.find('tfds', DATASETS)(None, 0.4)
    stored = {split: dataset.mixed(split, 2, 1.0, 3) for split in ('train', 'held_out')}
    assert not list(tmp_path.rglob('*.array_record*'))  # not before a scene is asked for
    scenes = {split: list(each.scenes) for split, each in stored.items()}
    assert [len(each) for each in scenes.values()] == [2, 2]
    expected = make_scenes(3, tfds_builders.FoleySource(), 2, 1.0)
    for scene, wanted in zip(scenes['train'], expected, strict=True):
        np.testing.assert_allclose(scene.audio, wanted.audio, atol=1e-4)
        assert scene.caption == wanted.caption and len(scene.events) == len(wanted.events)
        for a, b in zip(scene.events, wanted.events, strict=True):
            assert a.text == b.text and abs(a.onset_s - b.onset_s) < 1e-6
    assert len({each.digest for each in stored.values()}) == 2
    assert dataset.mixed('train', 2, 1.0, 4).digest != stored['train'].digest
    assert MixedScenes(None, 0.4).mixed('train', 2, 1.0, 3).digest != stored['train'].digest


def test_other_arguments_never_find_old_data(tmp_path):
    folders = {
        str(FoleyScenes(count=n, seconds=s, data_dir=tmp_path).data_dir)
        for n, s in ((2, 1.0), (3, 1.0), (2, 1.5))
    }
    assert len(folders) == 3


def test_recorded_scenes_keep_held_out_recordings_apart(sound_dir, tmp_path):
    builder = RecordedScenes(sound_dir, count=10, seconds=0.5, data_dir=tmp_path)
    assert builder.name == 'recorded_scenes'
    train, held_out = builder._sources()
    assert (train.split, held_out.split) == ('train', 'held_out')
    assert len(prepared(builder)) == 10 and len(prepared(builder, 'held_out')) == 1


def test_a_folder_of_files_speaks_through_their_names(sounds, tmp_path):
    lines = []
    builder = AudioFolder(sounds, seconds=1.0, data_dir=tmp_path / 'data', log=lines.append)
    examples = [(e['caption'].decode(), len(e['audio'])) for e in prepared(builder)]
    # the last 0.3 s of the long one are too short to be an example
    assert examples == [('long rain', 48000)] * 2 + [('door slam', 24000), ('old', 48000)]
    assert sum('left out' in line and 'broken.wav' in line for line in lines) == 1
    assert any('old.wav' in line and '8-bit' in line for line in lines)


def test_captions_and_events_come_from_a_table(sounds, tmp_path):
    rows = [
        {'file': 'door_slam-02.wav', 'caption': 'a door', 'events': 'slam@0.1-0.2'},
        {'file': 'deep/long rain.flac', 'caption': 'rain', 'events': 'drop@0.9-1.2; hiss@2.0-2.2'},
    ]
    (sounds / 'captions.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    stored = list(prepared(AudioFolder(sounds, seconds=1.0, data_dir=tmp_path / 'data')))
    assert [e['caption'] for e in stored] == [b'rain', b'rain', b'a door']
    assert [e['events']['text'] for e in stored] == [[b'drop'], [b'drop'], [b'slam']]
    np.testing.assert_allclose([e['events']['onset_s'][0] for e in stored], [0.9, 0.0, 0.1])
    np.testing.assert_allclose([e['events']['offset_s'][0] for e in stored], [1.0, 0.2, 0.2])
    (sounds / 'captions.csv').write_text('file,caption\nold.wav,an old thing\n')
    other = AudioFolder(sounds, data_dir=tmp_path / 'data', log=lambda line: None)
    assert [e['caption'] for e in prepared(other)] == [b'an old thing']


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('captions.csv', 'file,caption\nnowhere.wav,x\n', 'nowhere.wav'),
        ('captions.csv', 'name,caption\nold.wav,x\n', 'entry 1'),
        ('captions.csv', 'file,caption\n', 'no entries'),
        ('captions.csv', 'file,caption\n../x.wav,x\n', 'entry 1 names'),
        ('captions.csv', 'file;caption\nold.wav;"x\n', 'line 2: unexpected end'),
        ('captions.jsonl', '{"file": \n', 'line 1'),
    ],
)
def test_a_bad_table_is_one_clear_line(sounds, tmp_path, name, text, message):
    (sounds / name).write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        AudioFolder(sounds, data_dir=tmp_path / 'data')
    assert '\n' not in str(raised.value)


def test_a_folder_without_sounds_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='no sound files'):
        AudioFolder(tmp_path)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        AudioFolder(tmp_path / 'nowhere')


def test_a_part_of_a_timeline_is_clipped_to_it():
    events = (Event('a', 0.0, 1.0), Event('b', 1.5, 2.5, -6.0), Event('c', 3.0, 4.0))
    assert tfds_builders.shifted(events, 1.0, 1.0) == (Event('b', 0.5, 1.0, -6.0),)
