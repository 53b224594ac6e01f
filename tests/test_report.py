import base64
import html.parser
import io
import re

import numpy as np
import pytest
import soundfile
from matplotlib import image as mpl_image

from realaudio_jax.report import ReportClip, describe_run, pivot, plot_spectrogram, write_report
from realaudio_jax.spectrogram import BANDS, HOP_S, draw_spectrogram, event_lanes, mel_levels
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


def row(name, value, unit='', n=8, **settings):
    return dict(name=name, value=value, unit=unit, n=n, seed=0, **settings)


def test_pivot_has_a_line_per_model_and_steps():
    rows = []
    for model, steps, nfe in (('teacher', 50, 100), ('student', 4, 4), ('student', 1, 1)):
        line = dict(model=model, steps=steps, nfe=nfe)
        rows.append(row('Frechet', 10.0 + steps, embedder='tower', **line))
        rows.append(row('Frechet', 1.0 + steps, embedder='YAMNet', **line))
        rows.append(row('onset error', 0.25 * steps, 'ms', **line))
    rows.append(row('Frechet', float('nan'), embedder='YAMNet', model='real'))
    shared, headings, cells = pivot(rows)
    assert shared == {'seed': 0}
    assert headings == [
        'model',
        'steps',
        'nfe',
        'Frechet, embedder tower',
        'Frechet, embedder YAMNet',
        'onset error (ms)',
    ]
    assert cells == [
        ['teacher', '50', '100', '60', '51', '12.5'],
        ['student', '4', '4', '14', '5', '1'],
        ['student', '1', '1', '11', '2', '0.25'],
        ['real', '–', '–', '–', 'not finite', '–'],
    ]


class Reader(html.parser.HTMLParser):
    """Collects the tags with their attributes and checks that they close in order."""

    VOID = ('meta', 'img', 'br', 'link')

    def __init__(self):
        super().__init__()
        self.tags, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp('report') / 'deep' / 'report.html'
    events = [Event('<b>bang</b>', 0.1, 0.3)]
    hostile = '"><script>alert(1)</script> $body & rain'
    clips = [
        ReportClip(hostile, 'real scene', sine(400), RATE, events),
        ReportClip(hostile, 'student, 4 steps', np.stack([sine(400)] * 2, 1), RATE, events),
        ReportClip('wind', 'student, 4 steps', np.zeros((800, 2), np.int16), RATE),
    ]
    rows = [row('Frechet <i>', 1.5, model='student', steps=4)]
    write_report(path, hostile, clips, rows, intro=hostile, metadata={hostile: hostile})
    text = path.read_text(encoding='utf-8')
    reader = Reader()
    reader.feed(text)
    assert not reader.open and [p.name for p in path.parent.iterdir()] == ['report.html']
    return text, reader.tags


def test_a_report_escapes_every_text(report):
    text, tags = report
    assert 'alert(1)</script>' not in text and '<b>' not in text and '<i>' not in text
    assert [tag for tag, _ in tags].count('script') == 1
    assert text.count('$body &amp; rain') >= 5


def test_a_report_needs_nothing_else(report):
    text, tags = report
    sources = [attrs['src'] for _, attrs in tags if 'src' in attrs]
    assert len(sources) == 6 and all(source.startswith('data:') for source in sources)
    assert 'http' not in re.sub('base64,[A-Za-z0-9+/=]+', '', text)
    assert not any('href' in attrs for _, attrs in tags)


def test_a_report_plays_what_was_given_and_says_what_it_shows(report):
    _, tags = report
    sounds = [attrs['src'] for tag, attrs in tags if tag == 'audio']
    audio, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[1].split(',')[1])))
    assert rate == RATE
    np.testing.assert_allclose(audio, np.stack([sine(400)] * 2, 1), atol=1e-4)
    images = [attrs for tag, attrs in tags if tag == 'img']
    assert 'bang</b> from 0.1 to 0.3 s' in images[0]['alt'] and 'wind' in images[2]['alt']
    assert all(attrs['aria-label'] for tag, attrs in tags if tag == 'audio')
    assert [tag for tag, _ in tags].count('h2') == 4  # results, two prompts, how it was made


def test_a_run_is_described():
    run = describe_run()
    assert run['command'].startswith('python ') and re.match(r'\d{4}-\d\d-\d\d', run['date'])
    assert set(run) == {'command', 'revision', 'date', 'device', 'machine', 'versions'}
