"""The vocabulary that a release is packed with."""

import numpy as np
import pytest

from realaudio_jax.io import write_audio
from realaudio_jax.release import RELEASES


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    monkeypatch.setenv('REALAUDIO_CACHE', str(tmp_path / 'cache'))
    rng = np.random.default_rng(0)
    for label in ('theremin wobble', 'goat'):
        for take in range(2):
            noise = rng.normal(size=(9_600, 2)) / 9
            write_audio(tmp_path / 'sounds' / label / f'{take}.wav', noise, 48_000)
    return tmp_path / 'sounds'


def test_the_labels_of_recordings_and_of_procedural_sounds_are_the_vocabulary(
    experiment, recordings, monkeypatch
):
    pack = experiment('pack_release')
    few = dict(list(pack.foley.EVENTS.items())[:3])
    monkeypatch.setattr(pack.foley, 'EVENTS', few)
    monkeypatch.setattr(pack.foley, 'AMBIENCES', {})
    labels = pack.vocabulary_of(str(recordings), RELEASES / 'foley').labels
    assert {'theremin wobble', 'goat', *(kind.texts[0] for kind in few.values())} == set(labels)
