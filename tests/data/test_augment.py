"""Augmentation: what each change does to a known sound, its range, and that times stay exact."""

import dataclasses

import numpy as np
import pytest
import scipy.signal
import soundfile

from realaudio_jax.data import augment, signal
from realaudio_jax.data.augment import Augment, Room
from realaudio_jax.data.scenes import SceneConfig, make_scene
from realaudio_jax.data.sources import Clip
from realaudio_jax.typing import SAMPLE_RATE

NOTHING = Augment(transpose=0.0, equalise=0.0, width=0.0, reverberate=0.0, scene_gain_db=(0.0, 0.0))


def sine(hertz, seconds):
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)


def peak_hertz(audio):
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 2**18))
    return spectrum.argmax() * SAMPLE_RATE / 2**18


def clip_of(audio, start=0.0):
    audio = np.asarray(audio, np.float32)
    end = len(audio) / SAMPLE_RATE
    return Clip(audio, SAMPLE_RATE, 'tone', 'tone', ((start, end),), 'CC0-1.0', 'event')


@pytest.mark.parametrize('semitones', [-3.0, 1.7])
def test_a_transposed_sine_moves_and_lasts_as_it_must(semitones):
    ratio = 2 ** (semitones / 12)
    out = augment.transposed(0.5 * sine(440.0, 0.5), semitones)
    assert len(out) == pytest.approx(24000 / ratio, abs=1)
    assert peak_hertz(out) == pytest.approx(440.0 * ratio, rel=1e-3)
    assert signal.rms(out[2000:-2000]) == pytest.approx(0.5 / np.sqrt(2), rel=1e-2)
    regions = augment.transposed_regions(((0.1, 0.5),), semitones)
    np.testing.assert_allclose(regions, [(0.1 / ratio, 0.5 / ratio)])


def test_transposition_is_drawn_evenly_within_its_range():
    change = dataclasses.replace(NOTHING, transpose=0.5, semitones=3.0)
    clip, rng = clip_of(sine(440.0, 0.05)), np.random.default_rng(0)
    lengths = np.array([len(change.clip(rng, clip).audio) for _ in range(400)])
    semitones = -12 * np.log2(lengths / 2400)
    changed = semitones[lengths != 2400]
    assert 0.4 < len(changed) / 400 < 0.6
    assert -3.02 < changed.min() < -2.7 and 2.7 < changed.max() < 3.02
    assert abs(changed.mean()) < 0.5 and abs(np.median(np.abs(changed)) - 1.5) < 0.3


def test_bands_have_the_gains_drawn_and_no_more():
    rng = np.random.default_rng(1)
    for _ in range(50):
        low, bell, high = augment.random_bands(rng, 6.0)
        _, each = scipy.signal.sosfreqz([low], [0.0, np.pi])
        assert np.abs(each[1]) == pytest.approx(1.0)  # a low shelf leaves the top alone
        _, each = scipy.signal.sosfreqz([high], [0.0, np.pi])
        assert np.abs(each[0]) == pytest.approx(1.0)
        for band in (low, bell, high):
            _, response = scipy.signal.sosfreqz([band], 4096)
            assert np.abs(20 * np.log10(np.abs(response))).max() < 6.001
            assert np.abs(np.roots(band[3:])).max() < 1.0
    for gain in (-6.0, 4.0):
        shelves = (augment._shelf(200.0, gain, -1), augment._shelf(5000.0, gain, 1))
        for shelf, at in zip(shelves, (0.0, np.pi), strict=True):
            _, response = scipy.signal.sosfreqz([shelf], [at])
            assert 20 * np.log10(np.abs(response[0])) == pytest.approx(gain)
        _, response = scipy.signal.sosfreqz(
            [augment._bell(1000.0, gain, 1.0)], [2 * np.pi * 1000 / SAMPLE_RATE]
        )
        assert 20 * np.log10(np.abs(response[0])) == pytest.approx(gain)


def test_an_equalised_sound_begins_where_it_began():
    audio = np.concatenate([np.zeros(3000), sine(300.0, 0.1)]).astype(np.float32)
    out = augment.equalised(audio, augment.random_bands(np.random.default_rng(2), 6.0))
    assert out.dtype == np.float32 and not out[:3000].any() and np.abs(out[3000:3500]).max() > 0.1
    assert not np.allclose(out, audio, atol=0.02)


def test_width_scales_the_side_alone():
    audio = np.random.default_rng(3).standard_normal((500, 2)).astype(np.float32)
    mono, same, wide = (augment.with_width(audio, w) for w in (0.0, 1.0, 1.5))
    np.testing.assert_allclose(mono[:, 0], mono[:, 1], atol=1e-6)
    np.testing.assert_allclose(same, audio, atol=1e-6)
    np.testing.assert_allclose(wide.sum(axis=1), audio.sum(axis=1), atol=1e-5)
    sides = [x[:, 0] - x[:, 1] for x in (wide, audio)]
    np.testing.assert_allclose(sides[0], 1.5 * sides[1], atol=1e-5)


def test_a_synthetic_room_has_the_decay_and_level_drawn():
    response = augment.synthetic_response(np.random.default_rng(4), 0.8)
    assert not response[: int(0.004 * SAMPLE_RATE)].any()
    assert np.square(response).sum() / 2 == pytest.approx(1.0, rel=1e-4)
    assert abs(np.corrcoef(response.T)[0, 1]) < 0.1
    low = scipy.signal.sosfilt(
        scipy.signal.butter(4, 500.0, fs=SAMPLE_RATE, output='sos'), response[:, 0]
    )
    energy = 10 * np.log10(np.cumsum(np.square(low)[::-1])[::-1])
    time = np.arange(len(energy)) / SAMPLE_RATE
    slope = np.polyfit(*(x[(time > 0.1) & (time < 0.5)] for x in (time, energy)), 1)[0]
    assert -60 / slope == pytest.approx(0.8, rel=0.15)
    impulse = np.zeros((2 * SAMPLE_RATE, 2), np.float32)
    impulse[5000] = 1.0
    tail = Room(response, -10.0).tail(impulse)
    assert np.abs(tail[:5000]).max() < 1e-5 and tail.shape == impulse.shape
    assert 10 * np.log10(np.square(tail).sum() / 2) == pytest.approx(-10.0, abs=0.01)


def test_a_measured_response_lends_its_reflections_and_not_its_direct_sound(tmp_path):
    response = np.zeros((9600, 2), np.float32)
    response[1000], response[1000 + 960, 0] = 0.8, 0.4  # direct after 21 ms, an echo 20 ms later
    soundfile.write(tmp_path / 'hall.wav', response, SAMPLE_RATE)
    (measured,) = augment.measured_responses(str(tmp_path))
    impulse = np.zeros((4000, 2), np.float32)
    impulse[100] = 1.0
    tail = Room(measured, 0.0).tail(impulse)
    assert np.abs(tail).argmax(axis=0)[0] == 100 + 960
    assert np.abs(tail[:, 1]).max() < 1e-5
    assert np.square(tail).sum() / 2 == pytest.approx(1.0, rel=1e-3)
    rng, change = np.random.default_rng(0), Augment(reverberate=1.0, responses=str(tmp_path))
    rooms = [change.room(rng) for _ in range(60)]
    assert 0.3 < np.mean([room.decay_s is None for room in rooms]) < 0.7
    assert all(-24 <= room.wet_db <= -6 for room in rooms)
    assert all(0.15 <= room.decay_s <= 1.6 for room in rooms if room.decay_s is not None)
    assert NOTHING.room(rng) is None


def test_a_folder_without_reverberation_is_an_error(tmp_path):
    soundfile.write(tmp_path / 'click.wav', np.eye(1, 5000)[0], SAMPLE_RATE)
    with pytest.raises(ValueError, match='no impulse response'):
        augment.measured_responses(str(tmp_path))


def test_gains_of_scenes_lie_in_their_range():
    rng = np.random.default_rng(5)
    gains = 20 * np.log10([Augment().scene_gain(rng) for _ in range(300)])
    assert -6.01 < gains.min() < -5 and 2 < gains.max() < 3.01


class Bursts:
    """A tone of 0.4 s between two pauses, every time."""

    labels, kinds, digest = ('tone',), ('event',), 'bursts'

    def pick(self, rng, kind, seconds=None):
        audio = np.concatenate([np.zeros(4800), sine(880.0, 0.4), np.zeros(4800)])
        clip = clip_of(0.5 * audio)
        return dataclasses.replace(clip, active=((0.1, 0.5),))


ONE_SOUND = SceneConfig(kinds=(1.0,), repeat=0.0, cut=0.0, ambience=0.0)


@pytest.mark.parametrize('reverberate', [0.0, 1.0])
def test_times_are_those_of_the_changed_sound(reverberate):
    change = dataclasses.replace(
        NOTHING, transpose=1.0, equalise=1.0, reverberate=reverberate, wet_db=(-24.0, -20.0)
    )
    config, durations = dataclasses.replace(ONE_SOUND, augment=change), []
    for seed in range(24):
        scene = make_scene(np.random.default_rng(seed), Bursts(), 2.0, config)
        (event,) = scene.events
        loud = np.abs(scene.audio).max(axis=1)
        begun = np.argmax(loud > loud.max() * 10 ** (-30 / 20)) / SAMPLE_RATE
        assert event.onset_s - 1e-4 <= begun <= event.onset_s + 0.002
        assert loud[: int(event.onset_s * SAMPLE_RATE)].max(initial=0.0) < 1e-5
        if event.offset_s < 1.9:
            durations.append(event.offset_s - event.onset_s)
            pitch = peak_hertz(scene.audio[int(event.onset_s * SAMPLE_RATE) :, :].mean(axis=1))
            assert pitch * durations[-1] == pytest.approx(880.0 * 0.4, rel=0.02)
            if not reverberate:
                end = len(loud) - np.argmax(loud[::-1] > loud.max() * 1e-2)
                assert end / SAMPLE_RATE == pytest.approx(event.offset_s, abs=0.012)
                assert not loud[round(event.offset_s * SAMPLE_RATE) :].max(initial=0.0) > 0
            else:  # the room rings on
                after = loud[round((event.offset_s + 0.002) * SAMPLE_RATE) :]
                assert after.max() > 1e-4
    assert min(durations) < 0.37 and max(durations) > 0.43


def test_short_sounds_keep_their_own_end():
    cut = dataclasses.replace(ONE_SOUND, cut=1.0, max_event_seconds=0.4)

    def durations(config):
        scenes = (
            make_scene(np.random.default_rng(seed), Bursts(), 5.0, config) for seed in range(30)
        )
        return [e.offset_s - e.onset_s for s in scenes for e in s.events if e.offset_s < 4.9]

    assert min(durations(cut)) < 0.38
    assert min(durations(dataclasses.replace(cut, own_end_s=0.5))) == pytest.approx(0.4, abs=2e-3)
