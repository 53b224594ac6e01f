"""What makes a finished sound of decoded samples: gains, ends, kept parts, level, peaks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from realaudio_jax import audio as audio_lib
from realaudio_jax.finishing import finish
from realaudio_jax.program import overlap_gains
from realaudio_jax.program_io import Bucket, InitAudio, request_shapes
from realaudio_jax.requests import keep_weights

RATE = 48_000
_finish = jax.jit(finish, static_argnums=2)


def request(seconds, events=(), lufs=np.nan):
    """A request of one item per entry of `seconds`, all with the same (onset, offset, gain)."""
    shapes, _ = request_shapes(Bucket(len(seconds), 26, 1, RATE))
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    for i, (onset, offset, gain) in enumerate(events):
        empty.onset_s[:, i], empty.offset_s[:, i], empty.gain_db[:, i] = onset, offset, gain
        empty.event_mask[:, i] = True
    lufs = np.full(len(seconds), lufs, np.float32)
    return empty.replace(seconds=np.asarray(seconds, np.float32), target_lufs=lufs)


def noise(seconds=1.0, level=0.1, seed=0):
    size = (1, round(seconds * RATE), 2)
    return np.float32(level * np.random.default_rng(seed).normal(size=size))


def run(audio, asked, init=None):
    pcm, diagnostics = jax.device_get(_finish(jnp.asarray(audio), asked, RATE, init))
    return audio_lib.from_pcm16(pcm), diagnostics


def db(x):
    return 10 * np.log10(np.mean(np.square(x, dtype=np.float64)) + 1e-20)


def test_items_are_cut_and_judged_apart():
    audio = np.repeat(noise(0.6), 4, axis=0)
    audio[1, 100] = np.inf
    audio[2] *= 1e-4
    audio[3] *= 50
    audio[0, 24_100] = np.nan  # what lies beyond the end is not part of the sound
    out, diagnostics = run(audio, request([0.5, 0.6, 0.6, 0.6]))
    assert out[0, 20_000:23_000].any() and not out[0, 24_000:].any() and not out[1].any()
    np.testing.assert_array_equal(diagnostics.finite, [True, False, True, True])
    np.testing.assert_array_equal(diagnostics.silent, [False, True, True, False])
    np.testing.assert_allclose(diagnostics.peak, np.abs(out).max(axis=(1, 2)), atol=5e-5)
    assert 0.8 < diagnostics.peak[3] < 10 ** (-1 / 20)
    alone = audio_lib.loudness_lufs(jnp.asarray(audio[:1, :24_000]), RATE)
    np.testing.assert_allclose(diagnostics.lufs[0], alone[0], atol=0.3)  # padding does not count


def test_a_sound_is_brought_to_its_loudness_by_one_gain_and_silence_is_not():
    part = np.where(np.arange(RATE) < 30_000, 1.0, 0.3)[None, :, None]
    loud = 0.2 * part * noise(level=1)
    audio = np.concatenate([0.1 * loud, loud, noise() / 1e4])
    for target in (-23.0, -40.0):
        out, diagnostics = run(audio, request([1.0] * 3, lufs=target))
        reached = np.asarray(audio_lib.loudness_lufs(jnp.asarray(out[:2]), RATE))
        np.testing.assert_allclose(reached, target, atol=0.1)
        np.testing.assert_array_equal(diagnostics.silent, [False, False, True])
        np.testing.assert_allclose(out[2], audio[2], atol=4e-5)
        np.testing.assert_allclose(db(out[0, :29_000]) - db(out[0, 32_000:47_000]), 10.46, atol=0.1)
    np.testing.assert_allclose(
        diagnostics.lufs[1] - diagnostics.lufs[0], 20, atol=0.1
    )  # before any gain
    kept, _ = run(audio, request([1.0] * 3))
    np.testing.assert_allclose(db(kept[0, :20_000]), db(audio[0, :20_000]), atol=0.1)


def test_ends_fade_unless_the_timeline_asks_for_sound_there():
    level, last = db(noise()), slice(RATE - 240, RATE)  # 5 ms
    free, _ = run(noise(), request([1.0], [(0.2, 0.5, 0.0)]))
    to_the_end, _ = run(noise(), request([1.0], [(0.2, 1.0, 0.0)]))
    assert db(free[0, last]) < level - 10 and db(to_the_end[0, last]) > level - 6
    for out in (free, to_the_end):
        assert np.abs(out[0, [0, -1]]).max() < 0.002
        np.testing.assert_allclose(db(out[0, 100:-1000]), level, atol=0.1)


def test_an_offset_goes_and_leaves_none_in_a_pause():
    time = np.arange(2 * RATE) / RATE
    tone = 0.1 * np.sin(2 * np.pi * 60 * time) + 0.03 + 0.01 * np.sin(2 * np.pi * 0.5 * time)
    audio = np.float32(np.stack([tone, -tone], -1) * (time < 1)[:, None])[None]
    out, _ = run(audio, request([2.0]))
    assert np.abs(out[0, :RATE].mean(axis=0)).max() < 1e-3  # -60 dBFS
    middle, wanted = out[0, 9_600:38_400, 0], 0.1 * np.sin(2 * np.pi * 60 * time[9_600:38_400])
    assert np.abs(middle - wanted).max() < 3e-3
    assert not out[0, RATE + 12_000 :].any()


@pytest.mark.parametrize('gain', [-24.0, -12.0, -3.0, 6.0])
def test_a_gain_is_what_it_says(gain):
    """A burst 30 ms longer than its event at both sides, alone and over a background."""
    active = np.zeros((1, 3 * RATE, 1), np.float32)
    active[:, 46_560:73_440] = 1.0  # 0.97 to 1.53 s
    burst, events = 0.1 * active * noise(3.0, 1.0), [(1.0, 1.5, gain), (2.5, 2.8, 0.0)]
    alone, _ = run(burst, request([3.0], events))
    inside, floor = slice(50_000, 70_000), noise(3.0, 0.005, 1)
    np.testing.assert_allclose(db(alone[0, inside]) - db(burst[0, inside]), gain, atol=0.5)
    ahead = slice(46_600, 47_900)
    np.testing.assert_allclose(db(alone[0, ahead]) - db(burst[0, ahead]), gain, atol=1.0)
    over, _ = run(burst + floor, request([3.0], events))
    wanted = 10 * np.log10(10 ** (db(floor) / 10) + 10 ** ((db(burst[0, inside]) + gain) / 10))
    np.testing.assert_allclose(db(over[0, inside]), wanted, atol=0.7)
    np.testing.assert_allclose(db(over[0, 76_000:100_000]), db(floor), atol=0.7)


def test_without_gains_nothing_is_changed_and_overlapping_events_share_theirs():
    plain, _ = run(noise(), request([1.0]))
    zero, _ = run(noise(), request([1.0], [(0.1, 0.4, 0.0), (0.5, 0.6, 0.0)]))
    np.testing.assert_array_equal(zero, plain)
    events = [(0.0, 0.5, -12.0), (0.3, 1.0, 0.0), (0.5, 0.7, 6.0)]
    asked = request([1.0], events)
    np.testing.assert_allclose(overlap_gains(asked)[0, :4], [-6, 2, 3, 0], atol=1e-5)
    out, _ = run(noise(), asked)
    for middle, gain in ((0.15, -12), (0.4, -6), (0.6, 3), (0.8, 0)):
        where = slice(round(RATE * (middle - 0.05)), round(RATE * (middle + 0.05)))
        np.testing.assert_allclose(db(out[0, where]) - db(plain[0, where]), gain, atol=0.3)


def test_kept_parts_are_the_input_itself():
    time = np.arange(RATE) / RATE
    init = np.zeros((1, RATE, 2), np.float32)
    init[0, :, 0] = 0.2 * np.sin(2 * np.pi * 440 * time) + 0.02  # hard left, with an offset
    init[0, 30_000] = 0.85
    keep = keep_weights([(0.0, 0.25), (0.5, 1.0)], 1.0, RATE, RATE)[None]
    out, _ = run(noise(), request([1.0], [(0.6, 0.9, -12.0)]), InitAudio(audio=init, keep=keep))
    for part in (slice(0, 11_500), slice(24_500, RATE)):
        np.testing.assert_allclose(out[0, part], init[0, part], atol=2e-5)
    made = slice(12_100, 23_900)
    np.testing.assert_allclose(out[0, made], run(noise(), request([1.0]))[0][0, made], atol=0.03)
    edge = np.abs(np.diff(keep[0]))
    assert 0 < edge.max() < 0.01 and set(np.unique(keep[0, 13_000:23_000])) == {0}


def test_no_true_peak_passes_the_ceiling():
    """Of hard cases below 20 kHz, by interpolation of the whole sound at eight times the rate."""
    samples = 12_000
    rng, time = np.random.default_rng(0), np.arange(samples) / RATE
    white = rng.normal(size=samples)
    cases = [
        2 * white,
        2 * np.sign(rng.normal(size=samples)),
        np.clip(5 * white, -1, 1),
        2 * np.sign(np.sin(2 * np.pi * 997 * time)),
        3 * np.sin(2 * np.pi * 12_000 * time + np.pi / 4),
        3 * np.sin(2 * np.pi * 19_000 * time + 0.3),
        2 * scipy.signal.chirp(time, 20, time[-1], 19_000),
        np.where(np.arange(samples) // 3000 % 2, 4.0, 0.01) * white,
        3 * (rng.random(samples) < 0.001) * white,
        0.89 * np.sin(2 * np.pi * 12_000 * time + np.pi / 4) * np.hanning(samples),
    ]
    low_pass = scipy.signal.firwin(255, 20_000, fs=RATE)
    audio = np.stack([np.convolve(case, low_pass, 'same') for case in cases])
    audio = np.float32(np.stack([audio, np.roll(0.9 * audio, 7, axis=1)], axis=-1))
    out = np.asarray(audio_lib.limit(jnp.asarray(audio), RATE))
    padded = np.pad(out.astype(np.float64), [(0, 0), (1000, 1000), (0, 0)])
    peaks = np.abs(scipy.signal.resample(padded, 8 * padded.shape[1], axis=1)).max(axis=(1, 2))
    assert (peaks < 10 ** (-1 / 20)).all(), 20 * np.log10(peaks)
    assert (peaks[:9] > 10 ** (-2 / 20)).all()
    quiet = 0.5 * audio[-1:]
    np.testing.assert_array_equal(audio_lib.limit(jnp.asarray(quiet), RATE), quiet)
