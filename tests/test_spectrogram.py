import re

import numpy as np
import pytest
from matplotlib import image as mpl_image

from realaudio_jax.provenance import describe_run
from realaudio_jax.spectrogram import (
    BANDS,
    HOP_S,
    draw_spectrogram,
    event_lanes,
    mel_levels,
    plot_spectrogram,
)
from realaudio_jax.timeline import Event

RATE = 16_000


def sine(hz, seconds=0.5, level=1.0, rate=RATE):
    time = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def hz_of_band(band, rate):
    """Centre of an HTK mel band: m = 2595 log10(1 + f / 700), bands spaced evenly in m."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    return 700 * (10 ** (top * (band + 1) / (BANDS + 1) / 2595) - 1)


@pytest.mark.parametrize(('hz', 'rate'), [(150, 48_000), (440, 44_100), (3000, 16_000)])
def test_a_sine_has_its_frequency_and_level(hz, rate):
    levels = mel_levels(sine(hz, level=0.1, rate=rate), rate)
    middle = levels[:, levels.shape[1] // 2]
    spacing = hz_of_band(middle.argmax() + 1, rate) - hz_of_band(middle.argmax(), rate)
    assert abs(hz_of_band(middle.argmax(), rate) - hz) <= spacing
    total = 10 * np.log10(np.sum(10 ** (middle / 10)))  # triangles overlap to one
    assert total == pytest.approx(-20, abs=0.5)


def test_levels_follow_time_channels_and_integers():
    audio = np.concatenate([np.zeros(RATE, np.float32), sine(1000, 1.0)])
    levels = mel_levels(audio, RATE).max(axis=0)
    onset = np.flatnonzero(levels > -20)[0] * HOP_S
    assert onset == pytest.approx(1.0, abs=1024 / RATE)
    one_side = mel_levels(np.stack([audio, 0 * audio], 1), RATE)
    assert one_side.max() == pytest.approx(levels.max() - 10 * np.log10(2), abs=1e-3)
    pcm = np.round(audio * 32767).astype(np.int16)
    assert mel_levels(pcm, RATE).max() == pytest.approx(levels.max(), abs=0.01)


@pytest.mark.parametrize(
    ('audio', 'match'), [(np.zeros((0, 2)), 'no samples'), (np.full(99, np.nan), 'NaN')]
)
def test_nothing_to_draw_is_an_error_and_no_file(audio, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        plot_spectrogram(tmp_path / 'a.png', audio, RATE)
    assert not list(tmp_path.iterdir())


def test_lanes_keep_spans_and_labels_apart():
    rng = np.random.default_rng(0)
    onset = rng.uniform(0, 8, 12)
    events = [Event('x' * rng.integers(3, 20), a, a + rng.uniform(0.1, 2)) for a in onset]
    labels = [event.text for event in events]
    lanes = event_lanes(events, labels, 10.0, 0.1)
    for i, a in enumerate(events):
        for j, b in enumerate(events[:i]):
            if lanes[i] == lanes[j]:
                assert a.offset_s <= b.onset_s or b.offset_s <= a.onset_s
                first, second = (i, j) if a.onset_s < b.onset_s else (j, i)
                free = events[second].onset_s - events[first].onset_s
                ends_at_clip = events[second].onset_s > 10 - 0.1 * (len(labels[second]) + 1.5)
                assert ends_at_clip or free >= 0.1 * len(labels[first])
    assert max(lanes) < len(events) - 1  # what fits beside another shares its lane


def test_eight_events_at_once_all_have_a_label(tmp_path):
    events = [Event(f'sound {i} $x$', 0.02 * i, 0.3 + 0.02 * i, float(i)) for i in range(8)]
    figure = draw_spectrogram(sine(500), RATE, events, 'title')
    texts = {text.get_text(): text for axes in figure.axes for text in axes.texts}
    assert set(texts) == {f'sound {i} $x$' + (f' +{i} dB' if i else '') for i in range(8)}
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in texts.values()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(0 < box.x0 and box.x1 < figure.bbox.x1 for box in boxes)
    plot_spectrogram(tmp_path / 'a.png', sine(500), RATE, events)
    plot_spectrogram(tmp_path / 'b.png', sine(500), RATE)
    with_events, without = (mpl_image.imread(tmp_path / name) for name in ('a.png', 'b.png'))
    assert with_events.shape[0] > without.shape[0] and with_events.shape[1] == without.shape[1]


def test_a_run_is_described():
    run = describe_run()
    assert run['command'].startswith('python ') and re.match(r'\d{4}-\d\d-\d\d', run['date'])
    assert set(run) == {'command', 'revision', 'date', 'device', 'machine', 'versions'}
