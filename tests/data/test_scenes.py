import dataclasses

import numpy as np
import pytest

from realaudio_jax.data import scenes
from realaudio_jax.data.scenes import SceneConfig, make_scene, make_scenes
from realaudio_jax.data.sources import Clip, FoleySource, Recordings
from realaudio_jax.typing import MAX_EVENTS, SAMPLE_RATE

ALONE = SceneConfig(ambience=0.0)


class Bursts:
    """Noise bursts inside silence, of several labels, with roughly known regions; and noise."""

    labels, kinds, digest = tuple('abcdefg'), ('event', 'ambience'), 'bursts'

    def pick(self, rng, kind, seconds=None):
        label = str(rng.choice(self.labels))
        if kind == 'ambience':
            noise = 0.1 * rng.standard_normal(round(1.3 * SAMPLE_RATE)).astype(np.float32)
            return Clip(noise, SAMPLE_RATE, 'hiss', 'hiss', ((0.0, 1.3),), 'CC0-1.0', kind)
        silence = np.zeros(int(rng.integers(3000, 30000)), np.float32)
        burst = rng.uniform(0.01, 1.0) * rng.uniform(-1, 1, int(rng.integers(2000, 60000)))
        decay = np.exp(-np.arange(len(burst)) / 9000)
        audio = np.concatenate([silence, (burst * decay).astype(np.float32), silence])
        begin, end = len(silence) / SAMPLE_RATE, (len(silence) + len(burst)) / SAMPLE_RATE
        # regions as a listener would note them, a little too wide
        region = (max(0.0, begin - 0.03), end + 0.04)
        return Clip(audio, SAMPLE_RATE, label, f'{label} bang', (region,), 'CC0-1.0', kind)


def level_db(audio):
    return 10 * np.log10(np.square(audio, dtype=np.float64).mean() + 1e-20)


def check_times(scene):
    """Nothing sounds outside the events, and each begins and ends where the annotation says."""
    silent = np.ones(len(scene.audio), bool)
    spans = [[round(t * SAMPLE_RATE) for t in (e.onset_s, e.offset_s)] for e in scene.events]
    checked = 0
    for i, (first, last) in enumerate(spans):
        silent[first:last] = False
        others = spans[:i] + spans[i + 1 :]
        if all(b <= first - 960 or a >= first + 480 for a, b in others):
            alone = min([last] + [a for a, _ in others if a >= first])  # until the next one
            assert not scene.audio[max(0, first - 960) : first].any()
            loudest = max(level_db(x) for x in np.array_split(scene.audio[first:alone], 50))
            assert level_db(scene.audio[first : first + 480]) > loudest - 40.0
            checked += 1
        assert scene.audio[max(first, last - 960) : last].any()
    assert not scene.audio[silent].any()
    return checked


@pytest.mark.parametrize('seconds', [0.5, 3.7, 10.0])
def test_times_are_exact_in_scenes_without_ambience(seconds):
    made = list(make_scenes(3, Bursts(), 25, seconds, ALONE))
    for scene in made:
        assert scene.audio.shape == (round(seconds * SAMPLE_RATE), 2)
        assert scene.audio.dtype == np.float32 and np.abs(scene.audio).max() <= 0.9501
        assert 1 <= len(scene.events) <= MAX_EVENTS
        assert all(0 <= e.onset_s < e.offset_s <= seconds for e in scene.events)
        assert [e.onset_s for e in scene.events] == sorted(e.onset_s for e in scene.events)
    assert sum(map(check_times, made)) > 20


def test_times_are_exact_with_recordings(sound_dir):
    source = Recordings(sound_dir, log=lambda line: None)
    assert sum(map(check_times, make_scenes(0, source, 40, 5.0, ALONE))) > 40


def test_a_scene_depends_on_its_number_alone():
    third = list(make_scenes(7, Bursts(), 3, 2.0))[2]
    alone = make_scene(np.random.default_rng([7, 2]), Bursts(), 2.0)
    assert np.array_equal(third.audio, alone.audio)
    assert dataclasses.replace(third, audio=alone.audio) == alone


def test_repetitions_are_events_of_their_own():
    config = SceneConfig(ambience=0.0, repeat=1.0, kinds=(1.0,), cut=1.0, max_event_seconds=0.4)
    for scene in make_scenes(1, Bursts(), 10, 8.0, config):
        assert len(scene.events) >= 2
        assert len({event.text for event in scene.events}) == 1
        assert max(e.offset_s - e.onset_s for e in scene.events) <= 0.4


def test_an_ambience_fills_the_scene_at_its_level():
    config = SceneConfig(ambience=1.0, ambience_alone=1.0)
    scene = make_scene(np.random.default_rng(0), Bursts(), 6.0, config)
    assert scene.events == () and scene.ambience == 'hiss' and 'hiss' in scene.caption
    middle = scene.audio[SAMPLE_RATE : 5 * SAMPLE_RATE]
    parts = [level_db(part) for part in np.array_split(middle, 80)]
    assert np.ptp(parts) < 1.6  # the loop has no gap and no bump
    assert np.mean(parts) == pytest.approx(config.level_dbfs, abs=1.5)


def test_gain_is_relative_to_the_other_events():
    config = SceneConfig(ambience=0.0, kinds=(1.0,), repeat=0.0, pan=0.0, cut=0.0)
    gains = set()
    for scene in make_scenes(11, Bursts(), 12, 4.0, config):
        (event,) = scene.events
        gains.add(event.gain_db)
        first, last = (round(t * SAMPLE_RATE) for t in (event.onset_s, event.offset_s))
        if np.abs(scene.audio).max() < 0.9:  # else the peak had to be lowered
            assert level_db(scene.audio[first:last]) == pytest.approx(event.gain_db - 20, abs=0.5)
    assert 0.0 in gains and len(gains) > 3


def test_panning_keeps_the_power_and_delays_the_far_side():
    x = np.random.default_rng(0).standard_normal(4800).astype(np.float32)
    for pan in (-1.0, -0.3, 0.0, 0.7, 1.0):
        out = scenes.place_in_stereo(x, pan)
        assert np.square(out).sum() == pytest.approx(2 * np.square(x).sum(), rel=0.02)
        assert (np.square(out[:, 0]).sum() > np.square(out[:, 1]).sum()) == (pan < 0) or pan == 0
    far = scenes.place_in_stereo(x, -0.5)[:, 1]
    lag = int(np.argmax(np.correlate(far, x, 'full'))) - (len(x) - 1)
    assert lag == round(0.5 * 0.0006 * SAMPLE_RATE)


def test_silent_sources_give_an_error_not_an_endless_loop():
    class Silent(Bursts):
        kinds = ('event',)

        def pick(self, rng, kind, seconds=None):
            return dataclasses.replace(super().pick(rng, kind), audio=np.zeros(90000, np.float32))

    with pytest.raises(ValueError, match='silent'):
        make_scene(np.random.default_rng(0), Silent(), 2.0)


def test_workers_make_the_same_scenes_in_the_same_order():
    alone = list(make_scenes(3, FoleySource(), 3, 1.0))
    shared = list(make_scenes(3, FoleySource(), 3, 1.0, workers=2))
    assert len(shared) == 3
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one.audio, other.audio)
        assert (one.caption, one.events) == (other.caption, other.events)
