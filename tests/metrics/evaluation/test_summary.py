"""What an advisor reads, from rows that the evaluation itself made: words, tables and the page."""

import base64
import html.parser
import io
import json
import re
from unittest.mock import create_autospec

import matplotlib.image
import numpy as np
import pytest
import soundfile

from realaudio_jax.metrics.evaluation import run as evaluation
from realaudio_jax.metrics.evaluation.release import evaluate_release
from realaudio_jax.metrics.evaluation.run import evaluate_run
from realaudio_jax.metrics.rows import REAL, RECONSTRUCTION
from realaudio_jax.report import page as page_writer
from realaudio_jax.report.page import MAX_BYTES, ReportClip, without_paths, write_report
from realaudio_jax.report.summary import FIGURES, summarise
from realaudio_jax.timeline import Event
from realaudio_jax.typing import SAMPLE_RATE


@pytest.fixture(scope='module')
def summary(rows):
    return summarise(rows)


def cells(table):
    return {line[0]: dict(zip(table.headings, line, strict=True)) for line in table.lines}


def test_the_table_has_a_line_for_each_setting_and_few_columns(summary, rows):
    table = cells(summary.figures)
    assert list(table) == [
        'real scenes',
        'real, through the autoencoder',
        'teacher, 2 steps',
        'student, 4 steps',
    ]
    assert len(summary.figures.headings) == 8
    assert table['student, 4 steps']['evaluations'] == table['teacher, 2 steps']['evaluations']
    assert table['student, 4 steps']['evaluations'] == '4'
    for name, line in table.items():
        dashes = [key for key, value in line.items() if value == '–']
        wanted = ['evaluations', 'latent error', 'time per sound (ms)']
        assert dashes == (wanted if 'real' in name else [])


def test_every_cell_is_the_figure_with_its_interval(summary, rows):
    table, pattern = cells(summary.figures), re.compile(r'(\S+) \[(\S+), (\S+)\]')
    names = {'real scenes': REAL, 'real, through the autoencoder': RECONSTRUCTION}
    checked = 0
    for line, row_cells in table.items():
        for heading, text in row_cells.items():
            if not (found := pattern.fullmatch(text)):
                continue
            model = names.get(line, line.split(',')[0])
            (row,) = (
                row
                for row in rows
                if row['name'] == heading.split(' (')[0] and row['model'] == model
            )
            shown = [float(x.replace('−', '-').replace(',', '')) for x in found.groups()]
            np.testing.assert_allclose(shown, [row[k] for k in ('value', 'low', 'high')], atol=0.51)
            checked += 1
    assert checked == 4 * len(FIGURES) - 2  # real sounds have no latent error


def test_words_follow_the_intervals(rows):
    """Better and worse are said where 0 lies outside, by the direction of the figure."""

    def told(low, high, figure='latent error', n=48):
        changed = [
            row | {'value': (low + high) / 2, 'low': low, 'high': high, 'n': n}
            if row.get('figure') == figure
            else row | {'value': 0.0, 'low': -1.0, 'high': 1.0}
            if 'figure' in row
            else row | {'value': 0.5}  # the teacher of the fixture is no reference here
            if row['name'] == 'latent error'
            else row
            for row in rows
        ]
        changed = [row | {'n': n} if 'figure' in row else row for row in changed]
        summary = summarise(changed)
        ((_, *judged),) = summary.differences.lines
        return summary.sentences[0], [cell for cell in judged if not cell.endswith(']')]

    sentence, judged = told(-0.4, -0.2)
    assert sentence == (
        'Student against guided teacher at equal evaluations: with 4 evaluations, better in latent '
        'error (−0.30 [−0.40, −0.20]).'
    )
    assert judged == ['−0.30 [−0.40, −0.20] better']
    assert 'worse in latent error (+0.30' in told(0.2, 0.4)[0]
    assert 'worse in class found (−30.0 [−40.0, −20.0] %)' in told(-40.0, -20.0, 'class found')[0]
    sentence, judged = told(-0.1, 0.2)
    assert 'with 4 evaluations, not told apart by any figure.' in sentence and not judged
    sentence, judged = told(-0.4, -0.2, n=11)  # 11 clips are too few for any word
    assert sentence.endswith('with 4 evaluations, 11 clips are too few to tell.') and not judged
    sentence, judged = told(-0.4, -0.2, n=23)  # for some figures enough, not for all
    assert 'better in latent error' in sentence and len(judged) == 1
    assert sentence.endswith('23 clips are too few to tell by kernel distance and class found.')


def test_what_is_true_by_definition_is_not_compared(summary):
    """The reference's latent error is 0, whatever the student's."""
    (line,) = cells(summary.differences).values()
    assert 'latent error' not in line
    assert 'latent error' not in ' '.join(summary.sentences)


def test_a_slower_reference_is_named_with_its_time(rows):
    """Beside a teacher of more evaluations stand what is lost and the time that is gained."""
    slower = [
        row
        | {
            'steps': 50,
            'nfe': 100,
            'value': 900.0 if row['name'] == 'time per sound' else row['value'],
        }
        if row.get('model') == 'teacher'
        else row | {'against': 'teacher, 50 steps'}
        if 'against' in row
        else row | {'value': 90.0}
        if row['name'] == 'time per sound'
        else row
        for row in rows
    ]
    fast, quality = summarise(slower).sentences
    assert fast == (
        'In 4 steps the student makes 1 s of sound in 90.0 ms; the teacher in 50 steps takes '
        '900 ms: 10.0 times as fast.'
    )
    assert quality.startswith('Student in 4 steps against teacher, 50 steps (100 evaluations): ')
    assert 'latent error' not in quality


def test_what_cannot_be_told_is_said(summary, rows):
    few = ' '.join(summary.warnings)
    assert 'from 5 clips nothing is ranked by kernel distance and class found: 24 or more' in few
    assert 'nothing is ranked by latent error' in few

    def passed(**distances):
        """The warning about models whose kernel distance lies within the floor's interval."""
        changed = [
            row | {'value': distances[row['model']]}
            if row['name'] == 'kernel distance' and row['model'] in distances
            else row
            for row in rows
        ]
        return [w for w in summarise(changed).warnings if 'told from real scenes' in w]

    assert not passed(student=1e6, teacher=1e6)
    (warning,) = passed(student=-1e6, teacher=1e6)
    assert 'student, 4 steps.' in warning and 'teacher' not in warning
    with pytest.raises(ValueError, match='no results of a student or a teacher'):
        summarise([row for row in rows if row.get('model') == REAL])


class Reader(html.parser.HTMLParser):
    """Collects tags with their attributes, and the text under each heading."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ('meta', 'img', 'br', 'link'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ('h2', 'h3', 'th', 'td', 'p', 'dd'):
            self.text.append((self.open[-1], data))


@pytest.fixture(scope='module')
def page(summary, scenes, made, tmp_path_factory):
    clips = []
    for i, scene in enumerate(scenes[:2]):
        clips.append(ReportClip(scene.caption, 'real', scene.audio, SAMPLE_RATE, scene.events))
        for sampler, sounds in made.items():
            pcm = sounds.sounds[i]
            clips.append(ReportClip(scene.caption, sampler.label, pcm, SAMPLE_RATE, scene.events))
    path = tmp_path_factory.mktemp('page') / 'report.html'
    facts = {'command': without_paths('x --recordings=/home/ann/sounds --config=configs/a.py')}
    tables = [summary.figures, summary.differences]
    write_report(
        path, 'Distilled', clips, summary.sentences, tables, summary.warnings, facts, 'a note'
    )
    reader = Reader()
    reader.feed(path.read_text(encoding='utf-8'))
    assert not reader.open
    return path, reader, clips


def test_the_page_has_a_row_of_players_for_each_prompt(page, scenes, made):
    path, reader, _ = page
    headings = [text for tag, text in reader.text if tag == 'h2']
    before, after = path.read_text(encoding='utf-8').split('a note')
    assert '<table' in before and '<audio' not in before and '<audio' in after
    assert headings == [
        'Figures',
        'Student against teacher',
        scenes[0].caption,
        scenes[1].caption,
        'The run',
    ]
    labels = [text for tag, text in reader.text if tag == 'h3']
    assert labels == 2 * ['real', *(sampler.label for sampler in made)] and len(made) == 2
    assert [tag for tag, _ in reader.tags].count('audio') == 6


def test_the_page_says_what_came_out_and_hides_where(page, summary):
    path, reader, _ = page
    said = [text for tag, text in reader.text if tag == 'p']
    assert [sentence in said for sentence in summary.sentences] == [True]
    assert sum('othing is ranked' in text for text in said) == len(summary.warnings)
    text = path.read_text(encoding='utf-8')
    assert '--recordings=sounds --config=configs/a.py' in text and '/home' not in text
    assert 'http' not in re.sub('base64,[A-Za-z0-9+/=]+', '', text)


def test_the_end_of_the_main_job_leaves_figures_sounds_and_a_page(
    run, rows, made, stub, monkeypatch, capsys
):
    """All of it but the sounds and their figures, which are those of the fixture `rows`."""
    (teacher,) = (sampler for sampler in made if sampler.model == 'teacher')

    def evaluated(*args, **options):
        for sampler, sounds in made.items():
            options['made'](sampler, sounds)
        options['progress']('sounds and differences', 5 * 5 + 2, 27)
        return list(rows)

    monkeypatch.setattr(evaluation, 'REFERENCE', teacher)
    monkeypatch.setattr(evaluation, 'Generator', lambda folder: stub)
    monkeypatch.setattr(
        evaluation, 'evaluate_release', create_autospec(evaluate_release, side_effect=evaluated)
    )
    summary = evaluate_run(run, changes={'seed': 5})
    page = (run / 'report.html').read_text(encoding='utf-8')
    assert page.count('<audio') == 2 * 3 and html.escape(summary.sentences[0]) in page
    assert page.index('Lines in the spectrograms') < page.index('<audio')
    labels = ('real', 'teacher-2-steps', 'student-4-steps')
    names = {path.name for path in (run / 'samples').iterdir()}
    assert names == {f'{i}-{label}.wav' for i in (0, 1) for label in labels}
    assert (run / 'spectrogram.png').stat().st_size > 1_000
    assert {row['seed'] for row in json.loads((run / 'results.json').read_text())} == {5}
    *_, last = capsys.readouterr().err.splitlines()
    assert last == 'evaluation 30/30 left 0:00:00'  # and two times, and the page


def test_sounds_and_drawings_are_what_was_given(page):
    _, reader, clips = page
    sounds = [attrs['src'] for tag, attrs in reader.tags if tag == 'audio']
    for source, clip in zip(sounds, clips, strict=True):
        audio, rate = soundfile.read(io.BytesIO(base64.b64decode(source.split(',')[1])))
        given = np.float64(clip.audio) / (32768 if clip.audio.dtype == np.int16 else 1)
        assert rate == SAMPLE_RATE and audio.shape == given.shape
        error = np.square(audio - given).mean() / max(np.square(given).mean(), 1e-6)
        assert error < 0.1
    images = [attrs['src'] for tag, attrs in reader.tags if tag == 'img']
    for source in images:
        data = io.BytesIO(base64.b64decode(source.split(',')[1]))
        assert matplotlib.image.imread(data, format='webp').shape[:2] == (160, 201)


def test_a_page_of_long_sounds_stays_small(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    noise = np.int16(3000 * rng.standard_normal((2 * SAMPLE_RATE, 2)))
    clips = [ReportClip('noise', f'model {i}', noise, SAMPLE_RATE) for i in range(2)]
    sizes = []
    for most in (MAX_BYTES, 100_000):
        monkeypatch.setattr(page_writer, 'MAX_BYTES', most)
        write_report(tmp_path / 'a.html', 'Noise', clips)
        sizes.append((tmp_path / 'a.html').stat().st_size)
    assert sizes[1] < 100_000 < sizes[0] < MAX_BYTES


def test_a_prompt_that_is_its_only_event_is_said_once(tmp_path):
    silence = np.zeros((4800, 2), np.int16)
    for events, said in (
        ([Event('a splash', 0.01, 0.05)], ['0.01–0.05 s']),
        ([Event('a drop', 0.01, 0.05)], ['a drop 0.01–0.05 s']),
    ):
        write_report(
            tmp_path / 'a.html', 'x', [ReportClip('a splash', 'y', silence, SAMPLE_RATE, events)]
        )
        reader = Reader()
        reader.feed((tmp_path / 'a.html').read_text(encoding='utf-8'))
        assert [text for tag, text in reader.text if tag == 'p'] == said


def test_every_text_is_escaped(tmp_path):
    hostile = '"><script>alert(1)</script> $body & rain'
    clip = ReportClip(
        hostile, hostile, np.zeros((4800, 2), np.int16), SAMPLE_RATE, [Event(hostile, 0.01, 0.05)]
    )
    write_report(tmp_path / 'a.html', hostile, [clip], [hostile], [], [hostile], {hostile: hostile})
    text = (tmp_path / 'a.html').read_text(encoding='utf-8')
    assert 'alert(1)</script>' not in text and text.count('<script') == 1
    assert text.count('$body &amp; rain') >= 9


@pytest.mark.parametrize(
    ('given', 'left'),
    [
        ('python --recordings=/home/ann/my/sounds --x', 'python --recordings=sounds --x'),
        ("--teacher='/data/a b/model' --n=3/4", '--teacher=model --n=3/4'),
        ('--experts=/a/b,~/c/d,e/f ~/runs/one ../x/y', '--experts=b,d,e/f one y'),
        (r"--workdir='C:\\Users\\ann\\runs'", '--workdir=runs'),
        (
            '--config=configs/a.py:test --config.steps="(1, 2)"',
            "--config=configs/a.py:test '--config.steps=(1, 2)'",
        ),
    ],
)
def test_a_command_keeps_the_last_part_of_a_path_alone(given, left):
    assert without_paths(given) == left


def test_guidance_and_samplers_are_lines_of_their_own(summary, rows):
    """Differences, which name a setting without either, are to the release's own guidance."""
    models = [
        row for row in rows if row.get('model') in ('teacher', 'student') and 'figure' not in row
    ]
    others = [row | {'guidance': 9.0, 'nfe': 99} for row in models]
    others += [row | {'sampler': 'other'} for row in models if row['model'] == 'teacher']
    more = summarise([*rows, *others])
    lines = [line[0] for line in more.figures.lines]
    assert len(lines) == len(set(lines)) == len(summary.figures.lines) + 3
    assert any(line.endswith('guidance 9, ddim') for line in lines)
    assert any(line.endswith(', other') for line in lines)
    assert more.sentences == summary.sentences
    ours, theirs = more.differences.lines, summary.differences.lines
    assert [line[1:] for line in ours] == [line[1:] for line in theirs]
