"""A release whose latents have other than 64 channels, and whose decoder has no networks."""

import numpy as np
import pytest
import tiny

from realaudio_jax import calibration
from realaudio_jax.data.scenes import Scene
from realaudio_jax.export.program import input_shapes
from realaudio_jax.generator import Generator
from realaudio_jax.longform import Schedule
from realaudio_jax.program import seed_noise
from realaudio_jax.program_io import Bucket
from realaudio_jax.release import load_moments
from realaudio_jax.timeline import Event

CHANNELS = 10
CONFIG = tiny.CONFIG | {
    'autoencoder': {'decoder': {'width': 0, 'directions': 12}, 'channels': CHANNELS},
    'denoiser': tiny.CONFIG['denoiser'] | {'channels': CHANNELS},
    'student': {'steps': [1], 'guidance_range': [1.0, 4.0]},
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp('wide') / 'wide', CONFIG)


@pytest.fixture(scope='module')
def generator(folder):
    return Generator(folder, log=lambda line: None)


def test_a_sound_and_a_variation_of_it(generator):
    first = generator.generate('rain', seconds=1.0, steps=1, seed=3)
    assert first.audio.shape == (48_000, 2) and np.abs(first.audio).max() > 1e-3
    other = generator.generate(
        'rain', seconds=1.0, steps=1, seed=4, init_audio=first.audio, strength=0.3
    )
    assert np.abs(other.audio).max() > 1e-3 and np.abs(other.audio - first.audio).max() > 1e-3


def test_a_stream(generator):
    short = {'steps': 1, 'schedule': Schedule(window=60, hop=10, context=34, swap=6, tail=4)}
    stream = generator.stream('rain', seconds=2.0, seed=3, **short)
    assert sum(len(chunk.pcm) for chunk in stream) == 96_000
    assert stream.latents.shape[1] == CHANNELS


def test_moments_have_its_channels(generator, folder):
    events = (Event('dog', 0.2, 0.6),)
    scenes = [Scene(np.zeros((0, 2), np.float32), 'rain', events, (), 1.0, None)] * 2
    calibration.match_moments(folder, scenes)
    assert load_moments(folder)['1']['gain'].shape == (CHANNELS,)


def test_noise_of_an_exported_program_has_its_channels(generator):
    shapes = input_shapes(Bucket(1, 26, 1, 48_000), generator.networks.channels)
    assert shapes['noise'].shape == seed_noise(3, 26, CHANNELS).shape == (1, 26, CHANNELS)
