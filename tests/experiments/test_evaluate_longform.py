import json
import pathlib
import types

import numpy as np
import pytest
from absl import flags

from realaudio_jax.stream import Chunk

RATE = 48_000


class Noise:
    """A release whose sounds are noise, 6 dB louder from 2 s on, and a burst for each event."""

    folder = pathlib.Path()

    def generate(self, prompt, events=(), seconds=10.0, seed=0, loop=False):
        chunks = self.stream(prompt, events, seconds, seed)
        audio = np.concatenate([chunk.pcm for chunk in chunks]) / np.float32(32_768)
        return types.SimpleNamespace(audio=audio)

    def stream(self, prompt, events=(), seconds=None, seed=0):
        return Noises(list(events), seconds, seed)


class Noises:
    def __init__(self, events, seconds, seed):
        self.events, self.seconds, self._at = events, seconds, 0
        self._rng = np.random.default_rng(seed)

    @property
    def editable_s(self):
        return (self._at + 4_800) / RATE

    def edit(self, events):
        self.events = events

    def __iter__(self):
        return self

    def __next__(self):
        size = RATE if self.seconds is None else min(RATE, round(self.seconds * RATE) - self._at)
        if size <= 0:
            raise StopIteration
        time = (self._at + np.arange(size)) / RATE
        level = np.where(time < 2, 0.01, 0.02)
        for _, onset, offset in self.events:
            level = np.where((time >= onset) & (time < offset), 0.2, level)
        pcm = np.int16(32_767 * (level[:, None] * self._rng.normal(size=(size, 2))).clip(-1, 1))
        self._at += size
        return Chunk(pcm, self._at - size, RATE, 0.5, np.ones(10))


@pytest.fixture
def module(experiment, tmp_path, monkeypatch):
    module = experiment('evaluate_longform')
    monkeypatch.setattr(module, 'load', lambda name: Noise())
    monkeypatch.setattr(module, 'load_evaluators', lambda *_: (None, []))
    monkeypatch.setattr(module, 'enable_compilation_cache', lambda: None)
    flags.FLAGS(
        ['evaluate_longform', f'--workdir={tmp_path}', '--ambiences=2', '--seconds=11']
        + ['--events=2', '--minutes=0', '--chunks=4']
    )
    return module


def test_what_is_known_is_measured_and_once(module, tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'seams_of', lambda schedule, seconds: np.arange(2.0, seconds - 1))
    module.main([])
    rows = json.loads((tmp_path / 'results.json').read_text())
    value = {(row['name'], row.get('place')): row['value'] for row in rows}
    assert value['spectral step', 'seams'] > value['spectral step', 'between seams'] + 0.2  # at 2 s
    assert value['flux over the median', 'uncut'] == pytest.approx(1.2, abs=0.3)
    assert value['onset error, median', 'across seams'] < 10
    assert value['onsets within 50 ms', 'in sounds of 10 s'] == 100
    assert value['from the end of the last chunk to what may be edited', None] == pytest.approx(100)
    assert value['from there to the first change', None] == pytest.approx(40, abs=1)
    assert abs(value['onset error of an event put in', None]) < 10
    assert (
        0 < value['p95 of a chunk over its length', None] < 0.5 and value['first audio', None] > 0
    )
    monkeypatch.setattr(module, 'seam_means', None)  # its pieces are kept
    module.main([])
    assert json.loads((tmp_path / 'results.json').read_text()) == rows


def test_drift_is_told_from_none(module):
    rng = np.random.default_rng(0)

    def of(shift):
        sets = [rng.normal(size=(6, 20, 4)) + np.array([0, shift, 0])[i] for i in range(3)]
        return {'memory': [1e9, 1e9 + 2e6], 'vectors': {'tower': [x.tolist() for x in sets]}}

    ratios = []
    for shift in (0.0, 3.0):
        rows = module.drift_rows([of(shift), of(shift)], 10)
        value = {row['name']: row['value'] for row in rows}
        ratios.append(value['ratio of these'])
        assert value['growth after minute 1'] == pytest.approx(2.0)
    assert 0.3 < ratios[0] < 3
    assert ratios[1] > 20
