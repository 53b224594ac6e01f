"""Signal arithmetic against independent float64 formulas, and what the limiter promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from realaudio_jax import audio

RATES = (48_000, 44_100)
CEILING = 10 ** (-1 / 20)
INTERNAL = 10 ** (-1.3 / 20)  # with room for what true peaks miss
limit = jax.jit(audio.limit, static_argnums=1)


def white(*shape, seed=0, scale=0.3):
    x = scale * np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(x, jnp.float32)


def slow_stft(x, n_fft, hop):
    """Frame n starts (n_fft - hop) // 2 before sample n hop; zeros beyond the ends; float64."""
    x = np.asarray(x, np.float64)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    rows = []
    for n in range(len(x) // hop):
        places = n * hop - (n_fft - hop) // 2 + np.arange(n_fft)
        inside = (places >= 0) & (places < len(x))
        row = np.where(inside, x[places.clip(0, len(x) - 1)], 0.0)
        rows.append(np.fft.fft(row * window)[: n_fft // 2 + 1])
    return np.array(rows)


@pytest.mark.parametrize('rate', RATES)
def test_stft_is_the_formula_and_istft_inverts_it(rate):
    n_fft, hop = audio.stft_size(rate)
    assert rate / n_fft == 25 and rate / hop == 100
    x = white(2, 7 * hop)
    spectrum = audio.stft(x, n_fft, hop)
    assert spectrum.shape == (2, 7, n_fft // 2 + 1)
    np.testing.assert_allclose(spectrum[1], slow_stft(x[1], n_fft, hop), atol=1e-4)
    np.testing.assert_allclose(audio.istft(spectrum, n_fft, hop), x, atol=2e-6)


def test_overlap_add_is_the_adjoint_of_frame():
    n_fft, hop, x = 20, 4, white(2, 28, scale=1.0)
    y = white(2, 7, n_fft, seed=1, scale=1.0)
    frames, back = audio.frame(x, n_fft, hop), audio.overlap_add(y, hop)
    assert frames.shape == y.shape and back.shape == x.shape
    np.testing.assert_allclose(np.vdot(frames, y), np.vdot(x, back), rtol=1e-5)


def test_padding_frames_do_not_reach_the_samples_before_them():
    n_fft, hop = 20, 5
    spectrum = audio.stft(white(2, 5 * hop), n_fft, hop)
    longer = jnp.pad(spectrum, [(0, 0), (0, 3), (0, 0)], constant_values=9.0)
    mask = jnp.asarray(np.repeat([[1.0] * 5 + [0.0] * 3], 2, axis=0), jnp.float32)
    got = audio.istft(longer, n_fft, hop, mask)[:, : 5 * hop]
    np.testing.assert_allclose(got, audio.istft(spectrum, n_fft, hop), atol=1e-6)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='22051'):
        audio.stft_size(22_050 + 1)
    with pytest.raises(ValueError, match='hop 5'):
        audio.frame(jnp.zeros(20), 12, 5)
    with pytest.raises(ValueError, match='length 21'):
        audio.frame(jnp.zeros(21), 20, 5)


def test_magnitude_has_a_finite_gradient_at_zero():
    gradient = jax.grad(lambda x: jnp.sum(audio.magnitude(audio.stft(x, 20, 5))))(jnp.zeros(30))
    assert np.isfinite(gradient).all()


def test_mid_side_and_back():
    x = white(3, 7, 2)
    turned = audio.mid_side(x)
    np.testing.assert_allclose(turned[..., 0], (x[..., 0] + x[..., 1]) / 2, atol=1e-7)
    np.testing.assert_allclose(turned[..., 1], (x[..., 0] - x[..., 1]) / 2, atol=1e-7)
    np.testing.assert_allclose(audio.left_right(turned), x, atol=1e-7)


def test_level_of_a_sine_and_of_silence():
    sine = jnp.sin(2 * np.pi * 5 * jnp.arange(1000) / 1000)
    np.testing.assert_allclose(audio.rms_db(jnp.stack([sine, 0 * sine])), [-3.0103, -80], atol=1e-3)


def sine(level_db, seconds=1.0, rate=48_000):
    x = 10 ** (level_db / 20) * np.sin(2 * np.pi * 997 * np.arange(round(seconds * rate)) / rate)
    return jnp.asarray(x, jnp.float32)


@pytest.mark.parametrize('rate', RATES)
def test_loudness_of_the_reference_tone(rate):
    """997 Hz at full scale in one channel reads -3.01 LUFS (BS.1770); pauses do not count."""
    loud, half = sine(0, 1.0, rate), sine(-20, 1.0, rate)
    pause, quiet = 0 * loud, sine(-60, 1.0, rate)
    left = jnp.concatenate([jnp.stack([loud, half]), jnp.stack([pause, quiet])], axis=1)
    audio_in = jnp.stack([left, jnp.zeros_like(left).at[1].set(left[1])], axis=-1)
    got = audio.loudness_lufs(audio_in, rate)
    # Blocks across the end hold 1/4 to 3/4 of the tone and pass the gate: they lower the mean.
    blocks = np.array([1.0] * 7 + [0.75, 0.5, 0.25])
    drop = 10 * np.log10(blocks.mean())
    np.testing.assert_allclose(got, [-3.01 + drop, -20 + drop], atol=0.05)
    np.testing.assert_allclose(audio.loudness_lufs(0 * audio_in, rate), -70, atol=1e-3)


def test_true_peak_sees_between_samples():
    """A sine at a quarter of the rate, 45 degrees off, has samples of 0.707 and peaks of 1."""
    x = jnp.sin(np.pi / 2 * jnp.arange(400) + np.pi / 4)
    assert abs(x).max() < 0.7072
    peak = np.asarray(audio.true_peaks(x, 48))[1:-1].max()
    np.testing.assert_allclose(peak, 1.0, atol=0.01)


def test_true_peaks_against_interpolation_of_the_whole():
    """Blocks of 17: the interpolated points do not depend on where blocks end."""
    x = white(2, 102)
    want = np.array(jnp.abs(x))
    for row, peak in zip(np.asarray(x), want, strict=True):
        for taps in audio._oversampling_filters()[1:]:
            points = np.correlate(np.pad(row, (15, 16)), taps, 'valid')
            np.maximum(peak, np.abs(points), out=peak)
    want = want.reshape(2, 6, 17).max(axis=-1)
    np.testing.assert_allclose(audio.true_peaks(x, 17), want, rtol=1e-5)
    assert audio.true_peaks(x[:, :93], 17).shape == (2, 6)
    assert (want > np.abs(x).reshape(2, 6, 17).max(axis=-1)).any()


def oversampled_peak(x):
    """Highest value of the band-limited signal through the samples, at eight times the rate."""
    return np.abs(scipy.signal.resample(np.asarray(x, np.float64), 8 * len(x))).max()


def test_what_stays_below_the_ceiling_passes_bit_for_bit():
    x = white(2, 2400, 2)
    x *= 0.999 * INTERNAL / audio.true_peaks(jnp.moveaxis(x, -1, 1), 48).max()
    np.testing.assert_array_equal(limit(x, 48_000), x)


def test_the_limiter_keeps_true_peaks_below_the_ceiling():
    """Bursts, clicks and a sine below 15 kHz."""
    rng = np.random.default_rng(3)
    filters = scipy.signal.firwin(101, 15_000, fs=48_000)
    x = scipy.signal.lfilter(filters, 1, rng.normal(size=(2, 9600)))
    x *= np.repeat(rng.uniform(0.1, 8.0, (1, 16)), 600, axis=1)
    x[:, 4000] = 30.0
    x[1, 6000:9000] = 1.4 * np.sin(np.pi / 2 * np.arange(3000) + np.pi / 4)
    x = scipy.signal.lfilter(filters, 1, x)
    out = np.asarray(limit(jnp.asarray(x.T[None], jnp.float32), 48_000))[0]
    assert np.abs(out).max() <= CEILING * (1 + 1e-6)
    for channel in out.T:
        assert oversampled_peak(channel) <= CEILING
    assert np.abs(out).max() > 0.8 * CEILING  # and it does not simply turn everything down


def test_one_gain_for_both_channels_and_only_around_the_peak():
    x = np.full((1, 4800, 2), 0.1, np.float32)
    x[0, 2400, 0] = 4.0  # left only
    out = np.asarray(limit(jnp.asarray(x), 48_000))
    gain = out / x
    np.testing.assert_allclose(gain[..., 0], gain[..., 1], rtol=1e-6)
    np.testing.assert_allclose(gain[0, 2400, 1], INTERNAL / 4, rtol=1e-4)
    far = np.abs(np.arange(4800) - 2400) > 2 * 240 + 48 + 32  # 10 ms, a block, the interpolation
    np.testing.assert_array_equal(out[:, far], x[:, far])
    assert np.abs(np.diff(gain[0, :, 0])).max() < 0.01  # smooth: no click


def test_pcm_round_trip_and_saturation():
    pcm = np.arange(-32768, 32768, dtype=np.int16)
    np.testing.assert_array_equal(audio.to_pcm16(audio.from_pcm16(pcm)), pcm)
    np.testing.assert_array_equal(audio.to_pcm16(audio.from_pcm16(jnp.asarray(pcm))), pcm)
    np.testing.assert_array_equal(audio.to_pcm16(jnp.asarray([2.0, -2.0])), [32767, -32768])


def test_arrays_are_scaled_by_their_type():
    for dtype in (np.int8, np.int16, np.int32):
        low = np.iinfo(dtype).min
        got = audio.as_float(np.array([low, 0, -(low // 2)], dtype))
        np.testing.assert_allclose(got, [-1.0, 0.0, 0.5])
        assert got.dtype == np.float32
    unsigned = audio.as_float(np.array([0, 128, 255], np.uint8))
    np.testing.assert_allclose(unsigned, [-1, 0, 0.992], 1e-2)
    np.testing.assert_allclose(audio.as_float(np.array([2.0, -0.5])), [1.0, -0.25])
    for samples, part in (
        (np.array([1e6, 0.1]), '1e\\+06'),
        (np.array([np.nan]), 'NaN'),
        (np.array(['a']), 'type'),
    ):
        with pytest.raises(ValueError, match=part):
            audio.as_float(samples)
