"""Whole recordings: as long as they are, named, without a timeline."""

import csv

import numpy as np
import pytest
import soundfile

from realaudio_jax.data import signal
from realaudio_jax.data.scenes import MAX_PEAK, SceneConfig, unmixed_recordings
from realaudio_jax.data.sources import Recordings
from realaudio_jax.typing import SAMPLE_RATE

SECONDS = {'door_slam': 0.5, 'Rooster': 4.5, 'rain': 6.0, 'bell': 5.0, 'siren': 12.0}


@pytest.fixture(scope='module')
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp('recordings')
    rng = np.random.default_rng(0)
    with open(folder / 'metadata.csv', 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['file', 'label'])
        for i, (label, seconds) in enumerate(SECONDS.items()):
            x = rng.normal(0.0, 0.02 * (i + 1), (round(seconds * SAMPLE_RATE), 1 + i % 2))
            if label == 'bell':
                x[: 2 * SAMPLE_RATE] = 0.0
            soundfile.write(folder / f'{label}.wav', x.clip(-0.9, 0.9), SAMPLE_RATE)
            writer.writerow([f'{label}.wav', label])
    return Recordings(folder, 'all', cache_dir=folder / 'cache')


def test_a_scene_is_a_recording_and_its_name(recordings):
    scenes = list(unmixed_recordings(0, recordings, 40, 10.0))
    assert {scene.labels for scene in scenes} == {('Rooster',), ('rain',), ('bell',)}
    for scene in scenes:
        (label,) = scene.labels
        assert scene.seconds == SECONDS[label] == len(scene.audio) / SAMPLE_RATE
        assert not scene.events and (scene.ambience is not None) == (label == 'rain')
        assert label.lower() in scene.caption.lower()
        assert scene.audio.dtype == np.float32 and scene.audio.shape[1] == 2
        if label == 'bell':  # it stands where it stood, silence before it
            assert not scene.audio[: round(1.9 * SAMPLE_RATE)].any()
    assert len({scene.caption for scene in scenes}) > 6


def test_the_part_that_sounds_has_the_level_of_an_event(recordings):
    config = SceneConfig(gain_sd_db=0.0)
    for scene in unmixed_recordings(1, recordings, 12, 10.0, config):
        sounding = scene.audio[2 * SAMPLE_RATE :]
        level = 20 * np.log10(signal.rms(sounding))
        assert abs(level - config.level_dbfs) < 0.3
        assert np.abs(scene.audio).max() <= MAX_PEAK
    spread = {
        round(20 * np.log10(signal.rms(s.audio[2 * SAMPLE_RATE :])))
        for s in unmixed_recordings(1, recordings, 12, 10.0)
    }
    assert len(spread) > 3


def test_a_scene_depends_on_its_number_alone(recordings):
    (*_, fourth) = unmixed_recordings(2, recordings, 4, 10.0)
    again = list(unmixed_recordings(2, recordings, 6, 10.0))
    np.testing.assert_array_equal(fourth.audio, again[3].audio)
    assert fourth.caption == again[3].caption
    assert any(scene.labels != again[3].labels for scene in again)


def test_recordings_that_do_not_fit_are_one_clear_line(recordings):
    with pytest.raises(ValueError, match='no recording of 4 to 4.2 s'):
        next(unmixed_recordings(0, recordings, 1, 4.2))
