"""A release is measured, and from then on asks for later onsets and spreads as its teacher does."""

import dataclasses

import numpy as np
import pytest

from realaudio_jax import calibration
from realaudio_jax.data.scenes import make_scenes
from realaudio_jax.data.sources import FoleySource
from realaudio_jax.generator import Generator
from realaudio_jax.metrics.evaluation.generate import GeneratedBatch, SamplerConfig
from realaudio_jax.program import MOMENTS
from realaudio_jax.release import load_moments
from realaudio_jax.release_config import ReleaseConfig
from realaudio_jax.timeline import Timeline
from realaudio_jax.typing import LATENT_CHANNELS

STUDENT = SamplerConfig('student', 1)


@pytest.fixture(scope='module')
def scenes():
    return list(make_scenes(0, FoleySource(), 8, 2.0))


def played(lead_s):
    """A generator whose every sound is the scene's own, `lead_s` too early."""

    def make(generator, scenes, sampler, seed, progress=None):
        shift = round(48_000 * (lead_s - generator.config.onset_lead_s))
        early = [np.roll(scene.audio, -shift, axis=0) for scene in scenes]
        return GeneratedBatch([np.int16(32767 * x) for x in early], np.zeros((len(scenes), 1, 1)))

    return make


def test_the_lead_is_measured_and_kept(own_release, scenes, monkeypatch):
    monkeypatch.setattr(calibration, 'generate_scenes', played(0.012))
    before = ReleaseConfig.read(own_release)
    assert calibration.compensate_onsets(own_release, scenes, STUDENT) == pytest.approx(
        0.012, abs=2e-3
    )
    after = ReleaseConfig.read(own_release)
    assert after.onset_lead_s == pytest.approx(0.012, abs=2e-3)
    assert after == dataclasses.replace(before, onset_lead_s=after.onset_lead_s)
    again = calibration.compensate_onsets(own_release, scenes, STUDENT)
    assert again == pytest.approx(0.012, abs=2e-3)  # what is left is nothing
    monkeypatch.setattr(calibration, 'generate_scenes', played(-0.02))
    assert calibration.compensate_onsets(own_release, scenes, STUDENT) == 0


def test_moments_take_the_mean_and_half_of_the_spread_of_the_teacher(
    own_release, scenes, monkeypatch
):
    """As a ratio: from a deviation of 1 to one of 4 half of the way is 2."""

    def make(generator, scenes, sampler, seed, progress=None):
        for moments in generator.params[MOMENTS].values():  # as it is, the second time too
            assert (moments['gain'] == 1).all() and (moments['shift'] == 0).all()
        mean, deviation = (3.0, 4.0) if sampler.model == 'teacher' else (1.0, 1.0)
        if sampler == SamplerConfig('student', 8):
            deviation = 0.0  # a network that is not trained
        latents = np.random.default_rng(seed).normal(size=(8, 50, LATENT_CHANNELS))
        latents = (latents - latents.mean((0, 1))) / latents.std((0, 1))
        return GeneratedBatch([], mean + deviation * latents)

    monkeypatch.setattr(calibration, 'generate_scenes', make)
    with np.errstate(all='raise'):
        for _ in range(2):
            calibration.match_moments(own_release, scenes)
    found = load_moments(own_release)
    assert set(found) == {'1', '2', '4', '8'}
    for steps in ('1', '2', '4', '8'):
        gain, shift = found[steps]['gain'], found[steps]['shift']
        np.testing.assert_allclose(gain * 1.0 + shift, 3.0, rtol=1e-5)
        np.testing.assert_allclose(gain, 2.0, rtol=1e-5)
    assert Generator(own_release).params[MOMENTS].keys() == found.keys()


def test_onsets_are_asked_for_later_but_short_events_keep_half(own_release):
    config = dataclasses.replace(ReleaseConfig.read(own_release), onset_lead_s=0.01)
    config.write(own_release)
    timeline = Timeline.parse('bell@0.5-0.8; tick@0.9-0.906', 1.0)
    request = Generator(own_release).request(['rain'], timeline, 1.0, [0], 2.0, 26)
    np.testing.assert_allclose(request.onset_s[0, :2], [0.51, 0.903], rtol=1e-6)
    np.testing.assert_allclose(request.offset_s[0, :2], [0.8, 0.906], rtol=1e-6)
    assert not np.asarray(request.onset_s)[0, 2:].any()
    assert timeline.events[0].onset_s == 0.5  # what was asked for is not touched


def test_the_lead_is_the_median_of_near_errors_alone():
    errors = np.array([-12.0, -9.0, -8.0, np.nan, 200.0, -45.0, 3.0])
    assert calibration.onset_lead(errors) == pytest.approx(0.0085)
    assert calibration.onset_lead(-errors) == pytest.approx(-0.0085)
    assert (
        calibration.onset_lead(np.array([np.nan, 90.0])) == calibration.onset_lead(np.empty(0)) == 0
    )
