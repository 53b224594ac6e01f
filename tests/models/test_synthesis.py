"""Sounds made from levels: tone stays tone, noise stays noise, attacks stay where they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax import audio as audio_lib
from realaudio_jax.metrics.codec.tonality import line_over_skirt
from realaudio_jax.models import synthesis
from realaudio_jax.models.band_levels import (
    BANDS,
    LEVELS,
    STRIDE,
    band_levels,
    band_shapes,
    band_to_bin,
    bin_to_band,
    mid_side_spectrum,
    samples_per_latent,
)

RATE = 48_000
LENGTH = 25  # latent frames, a second
SINES_HZ = (233.0, 931.0, 2750.0)


@pytest.fixture(scope='module')
def make():
    """`make(levels, rate, mask, expected)`, compiled once for each shape and rate."""
    return jax.jit(synthesis.synthesize, static_argnums=1)


def levels_of(mono, rate=RATE):
    audio = jnp.asarray(np.stack([mono, mono], axis=-1)[None], jnp.float32)
    return band_levels(mid_side_spectrum(audio, rate))


def sine(hz, rate=RATE, length=LENGTH):
    return 0.2 * np.sin(2 * np.pi * hz * np.arange(length * samples_per_latent(rate)) / rate)


def noise(seed=0):
    return 0.1 * np.random.default_rng(seed).normal(size=LENGTH * samples_per_latent(RATE))


def line_db(audio, hz, rate=RATE):
    """Line over skirt of the middle of a second; its Blackman window is 6 Hz wide."""
    return line_over_skirt(np.asarray(audio[0]), hz, rate)


def test_bands_and_bins_are_inverse():
    bins = np.array([0.0, 3.7, 40.0, 960.0])
    np.testing.assert_allclose(band_to_bin(bin_to_band(bins)), bins, atol=1e-9)
    np.testing.assert_allclose(bin_to_band(np.array([0.0, 960.0])), [0, BANDS - 1], atol=1e-9)
    # triangles that sum to one: the centroid of bands is that of what lies beneath them
    shapes = band_shapes()
    np.testing.assert_allclose(shapes.sum(0), 1, atol=1e-5)
    np.testing.assert_allclose(np.arange(BANDS) @ shapes, bin_to_band(np.arange(961)), atol=1e-3)


def test_the_lobe_is_the_transform_of_the_window():
    """Of a sine between two bins, against numpy."""
    n_fft, offset = 1920, 0.3
    wave = np.cos(2 * np.pi * (100 + offset) * np.arange(n_fft) / n_fft)
    power = np.abs(np.fft.rfft(wave * audio_lib.hann(n_fft))) ** 2
    got = synthesis._lobe(jnp.arange(97.0, 104.0) - 100 - offset)
    np.testing.assert_allclose(got, power[97:104] / power.sum(), atol=1.5e-3)
    at_limits = synthesis._lobe(jnp.array([0.0, 1.0, -1.0, 2.5]))
    np.testing.assert_allclose(at_limits, [2 / 3, 1 / 6, 1 / 6, 0], atol=1e-3)


def find(levels):
    mask = jnp.ones((levels.shape[0], 2, levels.shape[1] * STRIDE))
    return synthesis._find_lines(synthesis._steady_levels(synthesis._powers(levels), mask))


@pytest.mark.parametrize('hz', SINES_HZ)
def test_a_line_is_found_at_its_frequency(hz):
    lines = find(levels_of(sine(hz)))
    present = np.asarray(lines.present[0, 0, 8:-8])
    assert present.sum(axis=1).min() >= 1
    loudest = np.where(present, lines.power[0, 0, 8:-8], 0).argmax(axis=1)
    found = np.asarray(lines.frequency[0, 0, 8:-8])[np.arange(len(loudest)), loudest]
    np.testing.assert_allclose(25 * found, hz, atol=max(2.0, 0.004 * hz))
    power = np.asarray(lines.power[0, 0, 8:-8])[np.arange(len(loudest)), loudest]
    want = np.square(0.2 / 2) * 1920**2 * 1.5 / 4  # of a Hann window's transform, over bins
    np.testing.assert_allclose(power, want, rtol=0.1)
    assert not np.asarray(lines.present[0, 1]).any()  # the side is silent


def test_smooth_spectra_hold_no_line():
    levels = np.log(0.3) + 0.3 * np.random.default_rng(0).normal(size=(1, LENGTH, LEVELS))
    assert np.asarray(find(jnp.asarray(levels, jnp.float32)).present).mean() < 0.01


@pytest.mark.parametrize('hz', SINES_HZ)
def test_a_sine_stays_a_sine(make, hz):
    levels = levels_of(sine(hz))
    made = make(levels, RATE)
    assert np.asarray(made).std() == pytest.approx(0.2 / np.sqrt(2), rel=0.1)
    # of noise with these levels it is about -7 dB
    spectrum = np.abs(np.fft.rfft(np.asarray(made[0, 9600:-9600, 0]) * np.hanning(28_800)))
    peak = spectrum.argmax() * RATE / 28_800
    assert peak == pytest.approx(hz, abs=max(3.0, 0.004 * hz))
    assert line_db(made, peak) > 15


def test_tone_is_taken_from_what_is_expected_and_noise_from_the_draw(make):
    """Levels drawn about those of a sine: the draw roughens noise, and not the tone."""
    expected = levels_of(sine(931.0))
    drawn = expected + 0.6 * np.random.default_rng(0).normal(size=expected.shape)
    drawn = jnp.asarray(drawn, jnp.float32)
    kept, lost = (line_db(make(drawn, RATE, None, e), 931.0) for e in (expected, drawn))
    assert kept > 15 and kept > lost + 6
    plain = levels_of(noise())
    other = make(plain + 0.3, RATE, None, plain)
    assert np.asarray(other).std() == pytest.approx(0.1 * np.exp(0.3), rel=0.1)


def test_padding_of_a_tone_is_not_heard(make):
    levels = levels_of(sine(931.0) + 0.1 * noise())
    tail = levels_of(sine(2750.0))[:, :7]
    padded = jnp.concatenate([levels[:, :18], tail], axis=1)
    mask = jnp.asarray(np.float32([[1] * 18 + [0] * 7]))
    want = np.asarray(make(levels[:, :18], RATE))
    got = np.asarray(make(padded, RATE, mask))[:, : want.shape[1]]
    np.testing.assert_allclose(got, want, atol=2e-4 * np.abs(want).max())


def test_a_line_remembers_nothing_before_its_beginning(make):
    """Tone, a gap, tone: what comes after the gap is the same without the first tone."""
    levels = levels_of(sine(931.0))
    silence = jnp.full((1, 8, LEVELS), np.log(1e-2), jnp.float32)
    gap = jnp.concatenate([levels[:, :8], silence, levels[:, :9]], axis=1)
    alone = jnp.concatenate([silence, silence, levels[:, :9]], axis=1)
    both, one = (np.asarray(make(x, RATE))[:, 14 * 1920 :] for x in (gap, alone))
    np.testing.assert_allclose(both, one, atol=1e-4)
    assert np.abs(one).max() > 0.1


@pytest.mark.parametrize('rate', [48_000, 44_100])
def test_an_attack_stays_where_it_is(make, rate):
    """Energy within 20 ms ahead of a burst of noise; -10 dB where the window's spread is left."""
    mono = 0.1 * np.random.default_rng(0).normal(size=LENGTH * samples_per_latent(rate))
    start = round(0.504 * rate)
    mono[:start] *= 1e-3
    made = np.asarray(make(levels_of(mono, rate), rate))[0, :, 0]

    def decibels(begin_s, end_s):
        part = made[start + round(begin_s * rate) : start + round(end_s * rate)]
        return 10 * np.log10(np.square(part).mean())

    burst = decibels(0.02, 0.4)
    assert decibels(-0.02, -0.0025) - burst < -18
    assert decibels(0.0025, 0.02) == pytest.approx(burst, abs=2.5)
    power = synthesis._powers(levels_of(noise()))
    near = synthesis._near_attacks(power, jnp.ones(power.shape[:3]))
    assert not np.asarray(near).any()
    gain = synthesis._attack_gain(power, near, jnp.ones(power.shape[:3]), 480)
    np.testing.assert_allclose(gain[0, 0], 1, atol=1e-6)


def test_noise_that_swells_and_fades_keeps_its_depth(make):
    """Every 80 ms by 7.8 dB, no attack: overlap takes 6% of that, and its undoing adds 8%."""
    time = np.arange(LENGTH * samples_per_latent(RATE)) / RATE
    levels = levels_of(noise() * np.exp(0.45 * np.sin(2 * np.pi * 12.5 * time)))
    power = synthesis._powers(levels)
    assert not np.asarray(synthesis._near_attacks(power, jnp.ones(power.shape[:3]))).any()
    made = band_levels(mid_side_spectrum(make(levels, RATE), RATE))
    wanted, got = (
        np.asarray(x).reshape(-1, 2, BANDS)[8:-8, 0].mean(axis=-1) for x in (levels, made)
    )
    assert 1.0 < np.polyfit(wanted, got, 1)[0] < 1.1


def test_overlap_is_left_about_attacks_and_in_lines():
    """The envelope of an attack is found from these powers, and a line's are those of a lobe."""
    lines = find(levels_of(sine(931.0)))
    levels = np.random.default_rng(0).normal(size=(1, 2, LENGTH * STRIDE, BANDS))
    power = jnp.asarray(np.exp(levels), jnp.float32)
    attacks = jnp.zeros(power.shape[:3], bool).at[:, 0, 40:45].set(True)
    changed = np.asarray(synthesis._less_overlap(power, attacks, lines) != power)
    assert not changed[0, 0, 40:45].any()
    present = np.asarray(lines.present[0, 0])
    assert present.any() and not changed[0, 0, :, : present.shape[-1]][present].any()
    assert changed[0, 0, :40, 90:].mean() > 0.9 and changed[0, 1].mean() > 0.9


def test_parts_side_by_side_are_the_whole():
    """Tone, noise and an attack in parts of 5 frames; the phases of tone go from part to part."""
    burst = np.where(np.arange(LENGTH * samples_per_latent(RATE)) > 0.7 * RATE, 1.0, 1e-3)
    levels = levels_of(sine(931.0) + burst * noise())
    whole = np.asarray(jax.jit(synthesis.synthesize, static_argnums=1)(levels, RATE))
    around, hop = 8, 5
    part = jax.jit(
        lambda *given: synthesis.synthesize_part(
            given[0], RATE, given[1], None, *given[2:], around - 2, around + hop - 2
        )
    )
    padded = jnp.pad(levels, [(0, 0), (around, around), (0, 0)])
    phases, size = synthesis.no_phases(1), samples_per_latent(RATE)
    for first in range(0, LENGTH, hop):
        frames = jnp.arange(first - around, first + hop + around)
        mask = ((frames >= 0) & (frames < LENGTH)).astype(jnp.float32)[None]
        audio, phases = part(padded[:, first : first + hop + 2 * around], mask, frames, phases)
        got = np.asarray(audio)[:, around * size : (around + hop) * size]
        np.testing.assert_allclose(
            got, whole[:, first * size : (first + hop) * size], atol=3e-6, err_msg=f'{first}'
        )


@pytest.mark.parametrize('part', ['', 'middle', 'beginning'])
def test_phases_composed_at_once_are_those_of_frame_after_frame(part):
    """Of lines that come, go, move by a band and begin anew; bands and frames of odd counts."""
    rng = np.random.default_rng(0)
    shape, bands = (37, 2, 2, 11), 11
    present = np.pad(rng.random(shape) < 0.3, [(0, 0)] * 3 + [(1, 1)])
    angle = rng.uniform(0, 6, shape)
    replaced, begins = np.zeros(37, bool), np.zeros(37, bool)
    if part:
        replaced[5], begins[20], begins[5] = True, True, part == 'beginning'
    frames = [
        replaced,
        begins,
        *(np.float32(x) for x in (np.cos(angle), np.sin(angle))),
        *(rng.normal(size=(2, *shape)).astype(np.float32)),
        *(present[..., 1:-1], present[..., :-2], present[..., 2:]),
    ]
    given = (
        synthesis.Phases(*rng.normal(size=(2, 2, 2, bands)).astype(np.float32)) if part else None
    )
    frames = [jnp.asarray(x) for x in frames]
    want = jax.jit(synthesis._phases_in_turn)(frames, given)
    got = jax.jit(synthesis._phases_at_once)(frames, given)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert len(np.unique(np.round(want[0], 5))) > 100
