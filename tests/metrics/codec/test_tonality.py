"""Lines and roughness of sounds whose spectra are known."""

import numpy as np
import pytest
import scipy.signal

from realaudio_jax.metrics import sensitivity as D
from realaudio_jax.metrics.codec import tonality as T

RATE = 24_000


def noise(seconds=2.0, seed=0, channels=2):
    shape = (round(seconds * RATE), channels)
    return 0.1 * np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope='module')
def signals():
    return T.test_signals(RATE)


def test_pure_signals_are_pure_at_one_level(signals):
    assert [s.name for s in signals][-2:] == ['chord', 'glide'] and len(signals) == 7
    for signal in signals:
        assert T.signal_purity(signal, signal.audio, RATE) > 60, signal.name
        assert np.sqrt(np.square(signal.audio).mean()) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize('hz', [220, 3520])
def test_white_noise_has_the_ratio_of_the_widths(hz):
    """A line of 8 Hz in a band of 20% of the frequency; seven takes, for a line holds few bins."""
    found = [T.line_over_skirt(noise(8, seed), hz, RATE) for seed in range(7)]
    want = 10 * np.log10(2 * T.LINE_HZ / (2 * T.SKIRT * hz - 2 * T.LINE_HZ))
    assert np.mean(found) == pytest.approx(want, abs=1)


def test_noise_beside_a_sine_sets_its_ratio(signals):
    """A tenth of its power within the skirt is 10 dB, whether the sine is steady or glides."""
    for signal in (signals[1], signals[-1]):
        frequency = signal.frequencies[0]
        time = np.arange(len(frequency)) / RATE
        other = np.sin(2 * np.pi * np.cumsum(frequency * 1.05) / RATE + 0 * time)
        mixed = signal.audio + np.sqrt(2) * 0.1 * np.sqrt(0.1) * other[:, None]
        assert T.signal_purity(signal, mixed, RATE) == pytest.approx(10, abs=0.7), signal.name


def test_a_sine_an_octave_off_is_no_line(signals):
    assert T.line_over_skirt(signals[0].audio, 440, RATE) < 0


def test_roughness_of_a_modulated_sine():
    """Amplitude 1 + m sin: the RMS of the modulation is m / sqrt 2, only from 20 to 120 Hz."""
    time = np.arange(4 * RATE) / RATE
    for rate, want in ((60, 0.5 / np.sqrt(2)), (8, 0.0), (160, 0.0)):
        audio = (1 + 0.5 * np.sin(2 * np.pi * rate * time)) * np.sin(2 * np.pi * 3000 * time)
        assert T.roughness(audio, RATE) == pytest.approx(want, abs=0.01), rate
    assert 0.1 < T.roughness(noise(), RATE) < 0.5
    assert np.isnan(T.roughness(np.zeros(RATE), RATE))


def test_the_steadiest_are_those_of_least_roughness():
    assert T.steadiest([0.3, np.nan, 0.1, 0.2, 0.0], 2) == [2, 3]


def tone(hz=440.0, seconds=2.0):
    time = np.arange(round(seconds * RATE)) / RATE
    mono = sum(0.1 / k * np.sin(2 * np.pi * k * hz * time) for k in range(1, 4))
    return np.repeat(mono[:, None], 2, axis=1).astype(np.float32)


def test_lines_of_a_tone_shifted_and_widened():
    clean = tone()
    same = T.tonal_lines(clean, clean, RATE)
    assert same.width_before == same.width_after == pytest.approx(15, abs=2)
    assert same.frequency_error == 0
    shifted = T.tonal_lines(clean, tone(440 * 2 ** (25 / 1200)), RATE)
    assert shifted.frequency_error == pytest.approx(25, abs=5)
    assert shifted.width_after == pytest.approx(15, abs=2)
    wide = T.tonal_lines(clean, D.widen_lines(clean, RATE, 12), RATE)
    assert 25 < wide.width_after < 90 and wide.width_before == same.width_before
    assert T.tonal_lines(noise(), noise(), RATE) is None


def test_degradations_do_to_a_sine_what_they_say(signals):
    sine = signals[2].audio
    power = np.square(sine).mean()
    for damaged in (D.widen_lines(sine, RATE, 10), D.vibrato(sine, RATE, 100)):
        assert np.square(damaged).mean() == pytest.approx(power, rel=0.35)
    spectrum = np.abs(np.fft.rfft(D.widen_lines(sine, RATE, 10)[:, 0])) ** 2
    hz = np.arange(len(spectrum)) * RATE / len(sine)
    centre = (spectrum @ hz) / spectrum.sum()
    spread = np.sqrt(spectrum @ (hz - centre) ** 2 / spectrum.sum())
    assert centre == pytest.approx(880, abs=8) and spread == pytest.approx(10, rel=0.4)
    phase = np.unwrap(np.angle(scipy.signal.hilbert(D.vibrato(sine, RATE, 100)[:, 0])))
    hz = np.diff(phase[RATE // 10 : -RATE // 10 : RATE // 100]) * 100 / (2 * np.pi)
    cents = 1200 * np.log2(hz / 880)
    assert cents.max() == pytest.approx(100, abs=5) and cents.min() == pytest.approx(-100, abs=8)
    turned = D.randomise_phases(sine, RATE, 0.0)
    np.testing.assert_allclose(turned, sine, atol=1e-5)
