"""Each metric puts known degradations in order, and is blind where the table says so."""

import librosa
import numpy as np
import pytest

from realaudio_jax.metrics.embedders.base import Embedder
from realaudio_jax.metrics.sensitivity import measure_sensitivity
from realaudio_jax.timeline import Event

RATE, CLIPS = 32_000, 4
BLIND = 1e-3  # of the metric's change on the damage it sees most
# metric: the degradations it must order by severity, and those it must not notice; the rest is open
TABLE = {
    'log-mel L1': ('noise low-pass', 'polarity'),
    'multi-resolution STFT': ('noise low-pass', 'polarity'),
    'SI-SDR (dB)': ('noise low-pass', 'polarity'),  # scale-invariant, a scale of -1 included
    'stereo width error': ('stereo', 'polarity'),
    'bandwidth kept (%)': ('low-pass', 'polarity'),
    'line over skirt (dB)': ('phases line-width vibrato', 'polarity'),
    'roughness ratio': ('line-width', 'polarity'),
    'onset error (ms)': ('delay', 'polarity'),
    'offset error (ms)': ('delay', 'polarity'),
    'fad, log-mel': ('noise low-pass', 'polarity'),
    # Far from the reference its kernel is flat: noise of 20 dB and of 10 dB are alike to it.
    'kad, log-mel': ('low-pass', 'polarity'),
}
# With damage these fall, the others rise.
FALLS = (
    'SI-SDR (dB)',
    'bandwidth kept (%)',
    'line over skirt (dB)',
)


def _scene(seed):
    """Three events of 0.3 s, each of a tone and noise, apart in stereo, over a faint hiss."""
    rng = np.random.default_rng(seed)
    audio = 1e-4 * rng.normal(size=(2 * RATE, 2))
    events = []
    for i in range(3):
        onset = 0.15 + 0.6 * i + rng.uniform(0, 0.05)
        t = np.arange(round(0.3 * RATE)) / RATE
        tone = np.sin(2 * np.pi * rng.uniform(200, 4000) * t)
        sound = 0.1 * (tone + rng.normal(size=t.size))
        pan = rng.uniform(0.2, 1.0, 2)
        start = round(onset * RATE)
        audio[start : start + t.size] += sound[:, None] * pan[None, :]
        events.append(Event('sound', onset, onset + 0.3))
    return audio.astype(np.float32), tuple(events)


def _log_mel(audio):
    """An embedder in the open: 24 log-mel bands of windows of 0.25 s."""
    basis = librosa.filters.mel(sr=RATE, n_fft=2048, n_mels=24)
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(audio), 2048, axis=1)[:, ::1024]
    power = np.abs(np.fft.rfft(frames * np.hanning(2048))) ** 2
    return np.log(power.mean(1, keepdims=True) @ basis.T + 1e-6)


EMBEDDER = Embedder('log-mel', RATE, 24, 0.25, 'none', _log_mel)


@pytest.fixture(scope='module')
def sensitivity():
    scenes = [_scene(seed) for seed in range(CLIPS)]
    return measure_sensitivity(*zip(*scenes, strict=True), RATE, [EMBEDDER])


@pytest.mark.parametrize('metric', TABLE)
def test_a_metric_orders_the_damage_it_sees(sensitivity, metric):
    sees, blind = (names.split() for names in TABLE[metric])
    most = 0.0
    for degradation in sees:
        values = [metrics[metric] for metrics in sensitivity[degradation].values()]
        damage = -np.array(values) if metric in FALLS else np.array(values)
        assert (np.diff(damage) > 0).all(), (degradation, values)
        most = max(most, np.ptp(values))
    for degradation in blind:
        values = [metrics[metric] for metrics in sensitivity[degradation].values()]
        assert np.ptp(values) <= BLIND * most, (degradation, values)


def test_shifts_of_events_are_measured_in_ms(sensitivity):
    for metric in ('onset error (ms)', 'offset error (ms)'):
        values = [metrics[metric] for metrics in sensitivity['delay'].values()]
        np.testing.assert_allclose(values[1:], (20, 50, 200), atol=8)
