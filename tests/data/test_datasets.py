"""Scenes through the frozen networks, once, and where their sounds come from."""

import csv
import shutil

import numpy as np
import pytest
import soundfile

from realaudio_jax.data.cache import encode_scenes
from realaudio_jax.data.datasets import MixedScenes, scene_source, scenes_digest
from realaudio_jax.data.frozen_encoders import load_frozen_encoders
from realaudio_jax.data.scene_encoder import SceneEncoder
from realaudio_jax.data.sources import FoleySource, MixedSource, Recordings


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    monkeypatch.setenv('REALAUDIO_CACHE', str(tmp_path / 'cache'))
    folder = tmp_path / 'mine'
    (folder / 'audio').mkdir(parents=True)
    rows = []
    for i in range(60):
        x = 0.5 * np.sin(0.01 * (i + 1) * np.arange(2_400))
        soundfile.write(folder / 'audio' / f'{i}.wav', x, 48_000)
        rows.append({'file': f'{i}.wav', 'label': 'bell'})
    with open(folder / 'metadata.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, ['file', 'label'])
        writer.writeheader()
        writer.writerows(rows)
    return str(folder)


def test_scenes_are_encoded_once(tiny_release, tmp_path):
    encoder = SceneEncoder(load_frozen_encoders(tiny_release))
    calls = []

    def make(seed):
        scenes = MixedScenes().mixed('train', 2, 1.0, seed)
        return encode_scenes(encoder, scenes, tmp_path, calls.append)

    first = make(0)
    assert len(first) == 2 and first.arrays['latents'].shape[1] == 25 and calls == [2]
    again = make(0)
    assert len(calls) == 1 and again.folder == first.folder
    np.testing.assert_array_equal(again.arrays['latents'], first.arrays['latents'])
    assert np.isfinite(first.arrays['latents']).all()
    assert make(1).folder != first.folder and len(calls) == 2
    curved = SceneEncoder(load_frozen_encoders(tiny_release), curves=('pitch',))
    assert curved.fingerprint() != encoder.fingerprint()


def test_where_scenes_take_their_sounds_from(recordings):
    assert isinstance(scene_source(None, 0.3), FoleySource)
    assert isinstance(scene_source(recordings, 0.0), Recordings)
    assert isinstance(scene_source(recordings, 1.0), FoleySource)
    mixed = scene_source(recordings, 0.25)
    assert isinstance(mixed, MixedSource) and mixed.weights == (0.25, 0.75)
    train, held_out = (scene_source(recordings, 0.0, split) for split in ('train', 'held_out'))
    names = [{clip.file for clip in source.clips} for source in (train, held_out)]
    assert len(names[0] | names[1]) == 60 and not names[0] & names[1]


def test_a_key_says_what_the_sounds_are_and_not_where_they_lie(recordings, tmp_path):
    def key(folder, split='train', weight=0.25, seed=0):
        return MixedScenes(folder, weight).mixed(split, 2, 1.0, seed).digest

    copy = tmp_path / 'elsewhere' / 'copy'
    shutil.copytree(recordings, copy)
    before = key(recordings)
    assert key(str(copy)) == before
    others = [
        key(None),
        key(None, 'held_out'),
        key(recordings, 'held_out'),
        key(recordings, weight=0.5),
        key(recordings, seed=1),
        scenes_digest('unmixed', scene_source(recordings, 0.25), 2, 1.0, 0),
    ]
    sound = next(iter(Recordings(copy).clips)).file
    soundfile.write(copy / 'audio' / sound, np.full(2_400, 0.25), 48_000)  # of the same size
    others.append(key(str(copy)))
    shutil.copytree(recordings, copy.with_name('captioned'))
    table = copy.with_name('captioned') / 'metadata.csv'
    table.write_text(table.read_text().replace(f'{sound},bell', f'{sound},gong'))
    others.append(key(str(table.parent)))
    assert len({before, *others}) == 1 + len(others)


def test_damaged_recordings_are_decoded_anew(recordings, tmp_path):
    said = []
    sounds = [clip.audio for clip in map(Recordings(recordings).load, range(3))]
    (array,) = (tmp_path / 'cache' / 'recordings').glob('*/audio.npy')
    content = bytearray(array.read_bytes())
    content[len(content) // 2] ^= 64
    array.write_bytes(content)
    again = Recordings(recordings, log=said.append)
    assert [line for line in said if 'is damaged (audio.npy is damaged' in line]
    for i, sound in enumerate(sounds):
        np.testing.assert_array_equal(again.load(i).audio, sound)
    assert array.read_bytes() != content


def test_what_a_run_needs_of_its_recordings_is_tried_first(recordings, tmp_path):
    assert MixedScenes(recordings).require(1.0) == 0  # none is long enough to be taken unmixed
    assert MixedScenes(None, 0.3).require(1.0) == 0
    one = tmp_path / 'one'
    one.mkdir()
    x = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * 48_000)
    soundfile.write(one / 'steady rain 1.wav', x, 48_000)
    with pytest.raises(ValueError, match='nothing is left for the split'):
        MixedScenes(str(one)).require(1.0)
    soundfile.write(one / 'steady rain 2.wav', x[::-1], 48_000)
    assert MixedScenes(str(one)).require(5.0) == 1  # backgrounds alone are scenes, too


def test_unmixed_recordings_are_of_the_training_split(tiny_release, tmp_path, monkeypatch):
    monkeypatch.setenv('REALAUDIO_CACHE', str(tmp_path / 'cache'))
    folder = tmp_path / 'long'
    folder.mkdir()
    lines = ['file,label']
    for i in range(30):
        name = f'{chr(97 + i % 26)}{i}x.wav'
        soundfile.write(folder / name, np.full(4_100 * 8, 0.1 + i / 100), 8_000)
        lines.append(f'{name},sound {i}')
    (folder / 'metadata.csv').write_text('\n'.join(lines))
    held_out = {clip.label for clip in Recordings(folder, 'held_out').clips}
    encoder = SceneEncoder(load_frozen_encoders(tiny_release))
    dataset = MixedScenes(str(folder))
    got = encode_scenes(encoder, dataset.unmixed(40, 5.0, 0), tmp_path)
    assert len(got) == 40 and not got.arrays['event_mask'].any()
    assert got.arrays['latents'].shape[1] == 125
    np.testing.assert_allclose(got.arrays['seconds'], 4.1)
    captions = (scene.caption for scene in dataset.unmixed(40, 5.0, 0).scenes)
    heard = ' '.join(captions).lower()
    assert held_out and not any(f'{label} ' in f'{heard} ' for label in held_out)
    again = encode_scenes(encoder, dataset.unmixed(40, 5.0, 0), tmp_path)
    assert again.folder == got.folder
