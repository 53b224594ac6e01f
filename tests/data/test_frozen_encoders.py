"""The frozen networks: audio to latents, text to states."""

import numpy as np
import pytest

from realaudio_jax.data.frozen_encoders import load_frozen_encoders


@pytest.fixture(scope='module')
def encoders(tiny_release):
    return load_frozen_encoders(tiny_release)


def test_sound_to_latents_and_back(encoders):
    audio = 0.1 * np.random.default_rng(0).normal(size=(2, 6 * 1920, 2)).astype(np.float32)
    latents = encoders.encode_audio(audio)
    assert latents.shape == (2, 6, 64)
    decoded = np.asarray(encoders.decode_latents(np.asarray(latents)))
    assert decoded.shape == audio.shape and np.isfinite(decoded).all()


def test_text_to_states_and_unit_sentences(encoders):
    texts = ['a dog barks', 'rain', 'a dog barking']
    states, mask, sentences = encoders.encode_text(texts, 16)
    assert states.shape == (3, 16, 384) and mask.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(sentences, axis=1), 1, rtol=1e-4)
    near = np.asarray(sentences) @ np.asarray(sentences).T
    assert near[0, 2] > near[0, 1] + 0.1
