"""Reconstruction figures: known values, an independent formula, and Opus at several rates."""

import librosa
import numpy as np
import pytest

from realaudio_jax.metrics.codec import reconstruction as R

RATE = 48_000


@pytest.fixture(scope='module')
def noise():
    return np.random.default_rng(0).normal(size=(2 * RATE, 2)).astype(np.float32) * 0.1


def test_log_mel_l1_agrees_with_librosa(noise):
    other = noise[::-1].copy() * 0.5

    def log_mel(x):
        mel = librosa.feature.melspectrogram(
            y=x.T, sr=RATE, n_fft=2048, hop_length=512, n_mels=80, power=1, pad_mode='reflect'
        )
        return np.log(np.maximum(mel, 1e-3))

    expected = np.abs(log_mel(noise) - log_mel(other)).mean()
    assert R.log_mel_l1(noise, other, RATE) == pytest.approx(expected, rel=1e-4)


def test_two_takes_of_white_noise_and_gain(noise):
    other = np.random.default_rng(1).normal(size=noise.shape).astype(np.float32) * 0.1
    assert R.log_mel_l1(noise, other, RATE) == pytest.approx(0.28, abs=0.01)
    assert R.log_mel_l1(noise, noise * np.float32(np.exp(-0.3)), RATE) == pytest.approx(
        0.3, rel=1e-3
    )
    assert R.log_mel_l1(noise, noise, RATE) == 0
    assert R.log_mel_l1(noise[:, 0], other[:, 0], RATE) > 0.2


def test_band_error_is_the_gain_of_that_band(noise):
    spectrum = np.fft.rfft(noise, axis=0)
    frequency = np.fft.rfftfreq(len(noise), 1 / RATE)
    spectrum[(frequency >= 1000) & (frequency < 2000)] *= 10 ** (-6 / 20)
    errors = R.band_energy_error(noise, np.fft.irfft(spectrum, axis=0).astype(np.float32), RATE)
    assert list(errors)[0] == '62.5-125 Hz' and list(errors)[-1] == '16000-20000 Hz'
    assert len(errors) == 9
    assert errors['1000-2000 Hz'] == pytest.approx(-6, abs=0.2)
    assert all(abs(v) < 0.3 for k, v in errors.items() if k != '1000-2000 Hz')


def test_an_empty_band_reads_zero():
    t = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 1500 * t).astype(np.float32) * 0.3
    faint = np.random.default_rng(2).normal(size=RATE).astype(np.float32) * 1e-5
    errors = R.band_energy_error(tone, tone + faint, RATE)
    assert all(abs(v) < 0.5 for v in errors.values())
    assert list(R.band_energy_error(tone[::2], tone[::2], 8_000))[-1] == '2000-4000 Hz'


def test_si_sdr_closed_form():
    """Orthogonal noise of a tenth the amplitude gives 20 dB, whatever the gain."""
    t = np.arange(1000) / 1000
    s, n = np.sin(2 * np.pi * 10 * t), np.cos(2 * np.pi * 10 * t)
    assert R.si_sdr(s, 3 * (s + 0.1 * n)) == pytest.approx(20, abs=1e-6)
    assert R.si_sdr(s, s) > 200
    with pytest.raises(ValueError, match='silent'):
        R.si_sdr(np.zeros(50), s[:50])


def test_multi_resolution_stft_of_a_gain_and_against_scipy(noise):
    g = np.float32(0.5)  # convergence 0.5, log magnitude ln 2 but for bins at the floor
    found = R.multi_resolution_stft(noise * 10, noise * 10 * g)
    assert found == pytest.approx(0.5 + np.log(2), rel=1e-2)
    x, y = noise[:8192, 0], noise[8192:16384, 0]
    expected = []
    for n in R.RESOLUTIONS:
        m = [
            np.abs(librosa.stft(z, n_fft=n, hop_length=n // 4, pad_mode='reflect')) for z in (x, y)
        ]
        logs = [np.log(np.maximum(z, 1e-3)) for z in m]
        expected.append(
            np.linalg.norm(m[0] - m[1]) / np.linalg.norm(m[0]) + np.abs(logs[0] - logs[1]).mean()
        )
    assert R.multi_resolution_stft(x, y) == pytest.approx(np.mean(expected), rel=1e-4)
    with pytest.raises(ValueError, match='silent'):
        R.multi_resolution_stft(x * 0, y)


def test_stereo_width(noise):
    mono = np.repeat(noise[:, :1], 2, axis=1)
    opposite = mono * np.array([1, -1], np.float32)
    assert R.stereo_width_error(noise, mono) == pytest.approx(-0.5, abs=0.01)
    assert R.stereo_width_error(mono, opposite) == pytest.approx(1)
    assert R.stereo_width_error(noise, noise * 0.3) == pytest.approx(0, abs=1e-6)
    assert np.isnan(R.stereo_width_error(noise * 0, noise))


def test_bandwidth_kept(noise):
    spectrum = np.fft.rfft(noise, axis=0)
    frequency = np.fft.rfftfreq(len(noise), 1 / RATE)
    spectrum[frequency > 6000] = 0
    low = np.fft.irfft(spectrum, axis=0).astype(np.float32)
    assert R.bandwidth(low, RATE) == pytest.approx(6000, abs=60)
    assert R.bandwidth_kept(noise, low, RATE) == pytest.approx(0.25, abs=0.01)
    assert R.bandwidth_kept(low, noise, RATE) > 3.9
    assert np.isnan(R.bandwidth_kept(noise * 0, noise, RATE))


def test_opus_comes_near_the_rate_asked_for(noise):
    rates = [R.opus_round_trip(noise, RATE, R.opus_level(k, 2))[1] for k in (16, 24, 32)]
    np.testing.assert_allclose(rates, (16, 24, 32), rtol=0.15)
    with pytest.raises(ValueError, match='choose 12 to 512'):
        R.opus_level(8, 2)


def test_opus_keeps_length_and_alignment():
    rng = np.random.default_rng(3)
    t = np.arange(2 * RATE) / RATE
    tones = np.stack([np.sin(2 * np.pi * f * t) for f in (440, 660)], 1) * 0.2
    audio = (tones + 0.001 * rng.normal(size=tones.shape)).astype(np.float32)
    low, low_rate = R.opus_round_trip(audio, RATE, 1.0)
    high, high_rate = R.opus_round_trip(audio, RATE, 0.8)
    assert low.shape == audio.shape and low.dtype == np.float32
    assert 8 < low_rate < 20 < high_rate
    assert R.log_mel_l1(audio, high, RATE) < R.log_mel_l1(audio, low, RATE)
    assert R.si_sdr(audio, high) > 10  # only if the codec's delay was taken out
    mono, _ = R.opus_round_trip(audio[:, 0], RATE)
    assert mono.shape == audio[:, 0].shape


def test_errors(noise):
    with pytest.raises(ValueError, match='44100.*resample'):
        R.opus_round_trip(noise, 44_100)
    with pytest.raises(ValueError, match='no sample|shapes'):
        R.log_mel_l1(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), RATE)
