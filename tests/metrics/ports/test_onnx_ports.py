"""DNSMOS and basic-pitch against their ONNX files under onnxruntime, which is for checking only."""

import numpy as np
import pytest

from realaudio_jax.metrics.ports import basic_pitch, dnsmos
from realaudio_jax.metrics.ports.onnx import read_initializers
from realaudio_jax.sound_files import read_audio


@pytest.fixture(scope='module')
def weights(sound_dir):
    return sound_dir / 'weights'


@pytest.fixture(scope='module')
def speech(weights):
    return read_audio(weights / 'gpvad' / 'example_16k.wav', dnsmos.SAMPLE_RATE).mean(1)


@pytest.fixture(scope='module')
def singing(weights):
    path = weights / 'basic_pitch' / 'vocadito_10.wav'
    return read_audio(path, basic_pitch.SAMPLE_RATE).mean(1)


@pytest.fixture(scope='module')
def pitch(weights):
    return basic_pitch.load_basic_pitch(weights / 'basic_pitch')[0]


def _run(path, audio):
    runtime = pytest.importorskip('onnxruntime', reason='no onnxruntime: install it to check ports')
    session = runtime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return session.run(None, {session.get_inputs()[0].name: audio})


def test_dnsmos(weights, speech):
    scorer = dnsmos.load_dnsmos(weights / 'dnsmos')
    window = np.tile(speech, 4)[: dnsmos.WINDOW]
    expected = _run(weights / 'dnsmos' / dnsmos.WEIGHTS, window[None])[0]
    np.testing.assert_allclose(dnsmos.raw_scores(scorer.params, window[None]), expected, atol=1e-3)
    scores = scorer(window)
    mean = [np.polyval(p, x) for p, x in zip(dnsmos.POLYNOMIALS, expected[0], strict=True)]
    np.testing.assert_allclose(list(scores.values()), mean, atol=1e-3)
    noise = np.random.default_rng(0).normal(size=window.size).astype(np.float32)
    noisy = scorer(window + 0.05 * noise)
    assert all(noisy[name] < scores[name] - 0.5 for name in ('BAK', 'OVRL'))


def test_windows_of_dnsmos(monkeypatch):
    seen = []

    def raw(params, audio):
        seen.append(audio[0])
        return np.full((1, 3), len(seen), np.float32)

    monkeypatch.setattr(dnsmos, 'raw_scores', raw)
    clip = np.arange(60_000, dtype=np.float32)  # repeated to 180,000: starts at 0, 1 and 2 s
    scores = dnsmos.Scorer('', {})(clip)
    assert [(x[0], x.size) for x in seen] == [(0, 144_160), (16_000, 144_160), (32_000, 144_160)]
    assert seen[0][60_000] == 0
    a, b, c = dnsmos.POLYNOMIALS[0]
    assert scores['SIG'] == pytest.approx(a * 14 / 3 + b * 2 + c)
    with pytest.raises(ValueError, match='at least one sample'):
        dnsmos.Scorer('', {})(np.zeros(0, np.float32))


def test_basic_pitch(weights, singing, pitch):
    window = singing[None, 20_000 : 20_000 + basic_pitch.WINDOW]
    found = basic_pitch.window_probabilities(pitch, window)
    order = _run(weights / 'basic_pitch' / basic_pitch.WEIGHTS, window[..., None])
    onset, note, contour = order  # :2, :1, :0
    for ours, theirs in zip(found, (contour, note, onset), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_published_transcription(weights, singing, pitch):
    published = np.load(weights / 'basic_pitch' / 'vocadito_10_model_output.npz')
    note, onset, time = basic_pitch.probabilities(pitch, singing)
    assert note.shape == onset.shape == (len(time), 88)
    count = min(len(time), len(published['note']))
    for ours, name in ((note, 'note'), (onset, 'onset')):
        difference = np.abs(ours[:count] - published[name][:count])
        assert np.mean(difference) < 0.005 and np.mean(difference > 0.1) < 0.005
    onsets = basic_pitch.note_onsets(pitch, singing)
    assert onsets and all(21 <= key <= 108 for _, key in onsets)


def test_onset_of_a_tone(pitch):
    time = np.arange(2 * basic_pitch.SAMPLE_RATE) / basic_pitch.SAMPLE_RATE
    fade = np.exp(-2 * np.clip(time - 0.7, 0, None)) * (time > 0.7)
    tone = fade * sum(0.2 / k * np.sin(2 * np.pi * 440 * k * time) for k in range(1, 5))
    found = [t for t, key in basic_pitch.note_onsets(pitch, tone) if key == 69]
    assert len(found) == 1 and found[0] == pytest.approx(0.7, abs=0.03)


def test_initializers(weights, tmp_path):
    path = weights / 'dnsmos' / dnsmos.WEIGHTS
    arrays = read_initializers(path)
    assert arrays['conv2d_1/kernel:0'].shape == (64, 128, 3, 3)
    assert arrays['shape_tensor'].tolist() == [-1, 900, 160]
    (tmp_path / dnsmos.WEIGHTS).write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match='no ONNX file, or a truncated one'):
        dnsmos.load_dnsmos(tmp_path)
    (tmp_path / dnsmos.WEIGHTS).write_bytes((weights / 'basic_pitch' / 'nmp.onnx').read_bytes())
    with pytest.raises(ValueError, match='missing conv2d/bias:0'):
        dnsmos.load_dnsmos(tmp_path)
    with pytest.raises(FileNotFoundError, match='nmp.onnx'):
        basic_pitch.load_basic_pitch(weights / 'dnsmos')
