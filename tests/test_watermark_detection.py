"""The detector on sounds of a decoder, marked and not."""

import functools
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from realaudio_jax import watermark
from realaudio_jax import watermark_detection as detection
from realaudio_jax.io import resample
from realaudio_jax.models.autoencoder import Autoencoder
from realaudio_jax.models.band_levels import BINS, LEVEL_FLOOR, band_averages, band_shapes
from realaudio_jax.release import AUTOENCODER_NAME, RELEASES, autoencoder_template, load_params
from realaudio_jax.watermark import Watermark

KEY, PAYLOAD, LENGTH = bytes(range(16)), 0xC0FFEE42, 75
FILE = RELEASES / 'foley' / AUTOENCODER_NAME


@functools.cache
def sound(marked: bool = True, halves: int = watermark.HALVES) -> np.ndarray:
    """3 s of smoothly changing latents, decoded; float32 [S, 2]."""
    model = Autoencoder()
    params = load_params(FILE, autoencoder_template(model))
    rng = np.random.default_rng(0)
    slow = np.cumsum(rng.normal(size=(1, LENGTH, 64)), axis=1) * 0.1 + rng.normal(size=(1, 1, 64))
    tape = jax.tree.map(jnp.asarray, watermark.tape(Watermark(KEY, PAYLOAD), 512, 64, halves))
    seed = jnp.array([3])
    texture, mark = (
        watermark.stretch(tape[x], watermark.starts(seed), LENGTH) for x in ('texture', 'latents')
    )
    if not marked:
        texture, mark = None, 0.0
    decode = jax.jit(lambda p, z, t: model.apply(p, z, 48_000, None, t, method='decode'))
    audio = np.asarray(decode(params, jnp.float32(slow) + mark, texture))[0]
    return np.float32(0.3 * audio / np.abs(audio).max())


@functools.cache
def detector(key: bytes = KEY) -> detection.Detector:
    return detection.Detector(key, FILE)


def test_a_marked_sound_is_found_and_says_its_payload():
    found = detector()(sound(), 48_000)
    assert found.present and found.p_value < 1e-50 and found.score > 30
    assert found.payload == PAYLOAD and found.payload_probability > 0.999 and found.speed == 1
    assert found.payload_bits == 32


def test_a_short_sound_says_half_of_its_payload():
    found = detector()(sound(halves=1)[:24_960], 48_000)
    assert found.present and found.payload == PAYLOAD % 2**16 and found.payload_bits == 16


def test_a_hit_in_seconds_of_noise_is_found(monkeypatch):
    """0.24 s of sound, 9 s of nothing, white noise 20 dB below the whole."""
    monkeypatch.setattr(detection, '_speeds', lambda seconds: [1.0])
    hit = np.zeros((9 * 48_000, 2), np.float32)
    hit[96_000 : 96_000 + 11_520] = sound()[:11_520]
    noise = np.random.default_rng(0).standard_normal(hit.shape)
    noise *= 0.1 * np.sqrt(np.mean(np.square(hit)))
    found = detector()(np.float32(hit + noise), 48_000)
    assert found.present and found.payload == PAYLOAD


def test_statistics_at_every_start_are_eq_2():
    """Sums written out in float64; the tape comes round."""
    rng = np.random.default_rng(2)
    estimate, tape = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 5, 3), (7, 3)))
    wanted = [
        [sum(e[f] @ np.float64(tape[(s + f) % 7]) for f in range(5)) for s in range(7)]
        for e in np.float64(estimate)
    ] / np.linalg.norm(np.float64(estimate).reshape(2, -1), axis=1)[:, None]
    np.testing.assert_allclose(detection._correlations(estimate, tape), wanted, atol=1e-6)


def test_levels_are_means_of_the_autoencoders_bands():
    power = np.random.default_rng(3).uniform(size=(BINS, 2, 6)).astype(np.float32)
    _, level, weight = next(detection._both_levels(power, 48_000, 1.0))
    mean = np.einsum('bk,kcn->ncb', band_averages(band_shapes()), power)
    wanted = np.log(np.sqrt(mean) + LEVEL_FLOOR).reshape(6, -1)
    np.testing.assert_allclose(level, wanted - wanted.mean(axis=0), atol=1e-5)
    assert (weight == 1).all()


def test_an_unmarked_sound_and_another_key_find_nothing():
    for audio, key in ((sound(False), KEY), (sound(), KEY[::-1])):
        found = detector(key)(audio, 48_000)
        assert found.present is False and found.p_value > 0.01 and found.payload is None


def test_found_after_a_cut_a_change_of_speed_and_of_rate_in_mono():
    edited = resample(sound()[12_345:], 48_480, 32_000).mean(axis=1)
    found = detector()(edited, 32_000)
    assert found.present and found.payload == PAYLOAD


def test_p_values_of_wrong_keys_are_no_smaller_than_they_claim(monkeypatch):
    monkeypatch.setattr(detection, '_speeds', lambda seconds: [1.0])
    short, keys = sound(False)[:48_000], [bytes([i]) * 16 for i in range(4)]
    p_values = [detection.Detector(key, FILE)(short, 48_000).p_value for key in keys]
    assert min(p_values) > 0.01 and max(p_values) > 0.2


@pytest.mark.parametrize(
    ('audio', 'reason'),
    [
        (np.zeros((9_600, 2)), 'too short'),
        (np.zeros((0, 2)), 'too short'),
        (np.zeros((96_000, 2)), 'silent'),
    ],
)
def test_says_that_it_cannot_tell(audio, reason):
    found = detector()(audio, 48_000)
    assert found.present is None and reason in found.reason and found.p_value == 1


@pytest.mark.parametrize(
    ('audio', 'rate', 'reason'),
    [
        (np.full((48_000, 2), np.nan), 48_000, 'NaN'),
        (np.zeros((1, 48_000, 2)), 48_000, 'shape'),
        (np.zeros((48_000, 2)), 4_000, '8000'),
        (np.zeros((48_000, 2)), np.nan, 'nan'),
        (np.zeros((48_000, 0)), 48_000, 'shape'),
        (np.zeros((2, 48_000)), 48_000, 'shape'),
        (np.zeros(()), 48_000, 'shape'),
        (np.zeros((48_000, 2), bool), 48_000, 'bool'),
        (np.zeros((48_000, 2), complex), 48_000, 'complex'),
        (np.full((48_000, 2), 2e6), 48_000, '2e\\+06'),
    ],
)
def test_bad_sound_is_one_line(audio, rate, reason):
    with pytest.raises(ValueError, match=reason):
        detector()(audio, rate)


def test_a_rate_is_a_number():
    with pytest.raises(ValueError, match="sample rate '48000' Hz"):
        detection._checked(np.zeros((48_000, 2)), '48000')


def test_unsigned_samples_lie_around_their_middle():
    found = detector()(np.full((48_000, 2), 128, np.uint8), 48_000)
    assert found.present is None and 'silent' in found.reason


def test_a_long_file_is_judged_window_by_window_in_bounded_memory(tmp_path, monkeypatch):
    path, rng = tmp_path / 'long.wav', np.random.default_rng(1)
    with soundfile.SoundFile(path, 'w', 48_000, 2) as file:
        for _ in range(3):
            file.write(0.01 * rng.normal(size=(600_000, 2)))
        file.write(sound())
    monkeypatch.setattr(detection, '_speeds', lambda seconds: [1.0])
    watched = []
    tracemalloc.start()
    found = detection.detect_file(path, detector(), watched.append)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.present and found.payload == PAYLOAD and found.at_s > 25
    assert peak < 250e6
    assert watched[:4] == [0.0, 10.0, 20.0, 30.0]
