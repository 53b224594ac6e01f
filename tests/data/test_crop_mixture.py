"""Crops that are a function of the seed and the number of the batch."""

import csv

import numpy as np
import pytest
import soundfile

from realaudio_jax.data import crop_mixture
from realaudio_jax.data.crop_mixture import CropMixture

SAMPLES = 9600


@pytest.fixture(autouse=True)
def small_pool(monkeypatch):
    monkeypatch.setattr(crop_mixture, '_POOL', 10)


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    """One recording: a loud sine of 440 Hz."""
    monkeypatch.setenv('REALAUDIO_CACHE', str(tmp_path / 'cache'))
    (tmp_path / 'audio').mkdir()
    x = 0.9 * np.sin(2 * np.pi * 440 * np.arange(96_000) / 48_000)
    for i in range(20):
        soundfile.write(tmp_path / 'audio' / f'{i}.wav', x, 48_000)
    with open(tmp_path / 'metadata.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, ['file', 'label'])
        writer.writeheader()
        writer.writerows({'file': f'{i}.wav', 'label': 'sine'} for i in range(20))
    return str(tmp_path)


def pitch(crop):
    spectrum = np.abs(np.fft.rfft(crop[:, 0] * np.hanning(SAMPLES)))
    return spectrum.argmax() * 48_000 / SAMPLES, spectrum.max()


def test_foley_crops_have_their_shape_and_stay_in_range():
    mixture = CropMixture(None, 0.0, 5, seed=0)
    for index in range(4):
        crops = mixture.crops(index, SAMPLES)
        assert crops.shape == (5, SAMPLES, 2) and crops.dtype == np.float32
        assert np.isfinite(crops).all() and np.abs(crops).max() <= 1.0 + 1e-6
        assert (np.abs(crops).max(axis=(1, 2)) > 1e-4).mean() > 0.5


def test_a_batch_is_a_function_of_seed_and_number():
    first, again = (CropMixture(None, 1.0, 3, seed=4) for _ in range(2))
    first.crops(0, SAMPLES)
    np.testing.assert_array_equal(first.crops(7, SAMPLES), again.crops(7, SAMPLES))
    assert not np.array_equal(first.crops(7, SAMPLES), first.crops(8, SAMPLES))
    other = CropMixture(None, 1.0, 3, seed=5)
    assert not np.array_equal(other.crops(7, SAMPLES), first.crops(7, SAMPLES))


@pytest.mark.parametrize('fraction', [0.0, 0.5, 1.0])
def test_the_share_of_foley(recordings, fraction):
    """Of 40 crops; the sine of the recordings is told by its pitch."""
    mixture = CropMixture(recordings, fraction, 40, seed=1)
    crops = mixture.crops(0, SAMPLES)
    assert np.abs(crops).max() <= 1.0 + 1e-6
    sines = np.mean([abs(pitch(crop)[0] - 440) < 6 for crop in crops])
    if fraction in (0.0, 1.0):
        assert sines == 1 - fraction
    else:
        assert 0.25 < sines < 0.75
