"""Procedural foley: what every sound promises, and the order physics puts them in."""

import pickle

import numpy as np
import pytest
import scipy.signal

from realaudio_jax.data import foley
from realaudio_jax.data.foley.primitives import blast, partials, place, shaped, slope
from realaudio_jax.typing import SAMPLE_RATE

ALL = {**foley.EVENTS, **foley.AMBIENCES}
# A clip of these may start and end at different points of a slow cycle.
SLOW = {'siren', 'sea_waves'}


def synthesize(name, seed=3, seconds=None):
    return ALL[name].synthesize(np.random.default_rng(seed), seconds)


def rms_db(x):
    return 10 * np.log10(np.mean(np.square(x, dtype=np.float64)) + 1e-20)


def centroid(name, seeds=range(8)):
    """Mean over draws of sum(f |X|^2) / sum(|X|^2), Hz."""
    values = []
    for seed in seeds:
        power = np.abs(np.fft.rfft(synthesize(name, seed))) ** 2
        frequency = np.fft.rfftfreq(2 * (len(power) - 1), 1 / SAMPLE_RATE)
        values.append(np.sum(frequency * power) / np.sum(power))
    return np.mean(values)


def ring(name, seeds=range(8)):
    """Mean over draws of the natural length in seconds, which ends 60 dB down."""
    return np.mean([len(synthesize(name, seed)) for seed in seeds]) / SAMPLE_RATE


def test_registries_are_large_and_names_and_texts_are_unique():
    assert len(foley.EVENTS) >= 24 and len(foley.AMBIENCES) >= 8
    assert len(ALL) == len(foley.EVENTS) + len(foley.AMBIENCES)
    texts = [text for sound in ALL.values() for text in sound.texts]
    assert len(set(texts)) == len(texts)
    for name, sound in ALL.items():
        assert sound.name == name
        assert 3 <= len(sound.texts) <= 6
        assert all(text == text.strip().lower() and text for text in sound.texts)


def test_sounds_cross_a_process_boundary():
    copied = pickle.loads(pickle.dumps(foley.EVENTS['dog_bark']))
    np.testing.assert_array_equal(
        copied.synthesize(np.random.default_rng(3), None), synthesize('dog_bark')
    )


@pytest.mark.parametrize('name', sorted(foley.EVENTS))
def test_event_contract(name):
    draws = [synthesize(name, seed) for seed in range(4)]
    for x in draws:
        assert x.dtype == np.float32 and x.ndim == 1
        assert np.isfinite(x).all()
        assert 0.05 <= len(x) / SAMPLE_RATE <= 3.0
        assert 0 < np.abs(x).max() <= 1
        assert abs(x.mean(dtype=np.float64)) < 1e-6
        # The onset is at sample 0: the first 5 ms are no quieter than 35 dB below the loudest.
        frames = x[: len(x) // 240 * 240].reshape(-1, 240)
        loudest = max(rms_db(frame) for frame in frames)
        assert rms_db(x[:240]) > loudest - 35
        assert rms_db(x[:96]) > loudest - 40
        # And the end has decayed: no click when it stops.
        assert np.abs(x[-24:]).max() < 0.1 * np.abs(x).max()
    np.testing.assert_array_equal(draws[3], synthesize(name))
    shortest = min(map(len, draws[:2]))
    assert not np.allclose(draws[0][:shortest], draws[1][:shortest], atol=1e-2)


@pytest.mark.parametrize('name', sorted(foley.EVENTS))
def test_event_cut_to_length(name):
    x = synthesize(name, seconds=0.2)
    assert len(x) <= 0.2 * SAMPLE_RATE
    assert abs(x[-1]) < 1e-2 and np.abs(x).max() <= 1


@pytest.mark.parametrize('name', sorted(foley.AMBIENCES))
def test_ambience_contract(name):
    x = synthesize(name, seconds=5.0)
    assert x.shape == (5 * SAMPLE_RATE, 2) and x.dtype == np.float32
    assert np.isfinite(x).all()
    assert 0 < np.abs(x).max() <= 1
    assert np.abs(x.mean(axis=0, dtype=np.float64)).max() < 1e-6
    np.testing.assert_array_equal(x, synthesize(name, seconds=5.0))
    other = synthesize(name, seed=4, seconds=5.0)
    assert abs(np.corrcoef(x[:, 0], other[:, 0])[0, 1]) < 0.95
    if name not in SLOW:
        assert abs(rms_db(x[:SAMPLE_RATE]) - rms_db(x[-SAMPLE_RATE:])) < 6
    # Present from end to end: no quarter second is silent.
    for piece in np.split(x, 20):
        assert rms_db(piece) > rms_db(x) - 30


@pytest.mark.parametrize('name', ['rain', 'wind', 'fire', 'sea_waves', 'stream', 'applause'])
def test_diffuse_ambiences_are_decorrelated_stereo(name):
    x = synthesize(name, seconds=4.0)
    assert abs(np.corrcoef(x.T)[0, 1]) < 0.6
    assert abs(rms_db(x[:, 0]) - rms_db(x[:, 1])) < 6


def test_ambiences_default_to_ten_seconds():
    assert synthesize('rain').shape == (10 * SAMPLE_RATE, 2)


@pytest.mark.parametrize(
    'longer, shorter',
    [
        ('metal_impact', 'wood_impact'),
        ('glass_clink', 'stone_impact'),
        ('church_bell', 'small_bell'),
        ('explosion', 'gunshot'),
        ('cymbal', 'snare_drum'),
    ],
)
def test_rings_longer(longer, shorter):
    assert ring(longer) > 1.3 * ring(shorter)


@pytest.mark.parametrize(
    'brighter, duller',
    [
        ('footstep_gravel', 'footstep_grass'),
        ('footstep_concrete', 'footstep_wood'),
        ('gunshot', 'explosion'),
        ('coin', 'metal_impact'),
        ('glass_break', 'door_slam'),
        ('snare_drum', 'bass_drum'),
        ('small_bell', 'church_bell'),
        ('bird_chirp', 'dog_bark'),
        ('dog_bark', 'cow'),
    ],
)
def test_is_brighter(brighter, duller):
    assert centroid(brighter) > 1.3 * centroid(duller)


def test_a_gunshot_starts_with_its_blast():
    for seed in range(5):
        x = synthesize('gunshot', seed)
        frames = x[: len(x) // 240 * 240].reshape(-1, 240)
        assert rms_db(frames[0]) > max(rms_db(frame) for frame in frames[1:])


def test_a_phone_rings_at_its_clapper_rate():
    envelope = np.abs(scipy.signal.hilbert(synthesize('telephone')))[: SAMPLE_RATE // 2]
    spectrum = np.abs(np.fft.rfft(envelope - envelope.mean()))[:30]  # 2 Hz bins
    assert 8 <= 2 * np.argmax(spectrum) <= 26


def test_partials_equal_the_direct_sum():
    frequency, t60 = np.array([150.0, 1234.5, 9000.0, 30_000.0]), np.array([0.1, 0.5, 2.0, 1.0])
    gains, phases = np.array([1.0, 0.5, 0.3, 9.0]), np.array([0.0, 1.0, 2.0, 3.0])
    t = np.arange(1000) / SAMPLE_RATE
    expected = sum(  # the last partial is above Nyquist and has to be left out
        g * 10 ** (-3 * t / d) * np.sin(2 * np.pi * f * t + p)
        for f, d, g, p in zip(frequency[:3], t60, gains, phases, strict=False)
    )
    np.testing.assert_allclose(partials(frequency, t60, gains, 1000, phases), expected, atol=1e-5)


def test_blast_crosses_zero_after_its_positive_phase():
    wave = blast(480, 0.005)
    assert wave[0] == 1.0 and wave[239] > 0 > wave[241]


def test_shaped_noise_has_the_band_asked_for():
    x = shaped(np.random.default_rng(0), SAMPLE_RATE, slope(500, 2000), 2)
    power = np.mean(np.abs(np.fft.rfft(x, axis=0)) ** 2, axis=1)
    inside, above, below = power[700:1500].mean(), power[8000:].mean(), power[20:100].mean()
    assert inside > 100 * above and inside > 100 * below
    assert abs(x.std() - 1) < 1e-3


def test_place_clips_at_both_ends():
    out = np.zeros((48, 2))
    place(out, np.ones(24), -0.25e-3, np.array([1.0, 0.5]))
    place(out, np.ones(24), 0.75e-3, np.array([0.0, 2.0]))
    assert out[:, 0].sum() == 12 and out[:, 1].sum() == 6 + 2 * 12
