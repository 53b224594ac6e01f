import base64
import io
import json
import pathlib
import re

import numpy as np
import pytest
import soundfile

from realaudio_jax.report.listening import (
    ANSWERS,
    KEY_NAME,
    PAGE_NAME,
    QUESTIONS,
    Pair,
    preference_rows,
    write_listening_test,
)

RATE, SYSTEMS = 16_000, ('student', 'teacher')


def tone(hertz):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(RATE // 4) / RATE)).astype(np.float32)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Eight pairs; the first system's sounds are tones of 500 Hz, the second's of 2 kHz."""
    folder = tmp_path_factory.mktemp('listening')
    pairs = [
        Pair(f'prompt <{i}>', ('tones', 'rain')[i % 2], (tone(500), tone(2000))) for i in range(8)
    ]
    write_listening_test(folder, SYSTEMS, pairs, RATE, seed=3)
    return folder


def sounds(folder):
    """Which system the sounds A and B of each pair of the page is of, by their pitch."""
    page = (folder / PAGE_NAME).read_text(encoding='utf-8')
    found = []
    for data in re.findall(r'src="data:audio/ogg;base64,([^"]+)"', page):
        audio, _ = soundfile.read(io.BytesIO(base64.b64decode(data)))
        line = np.argmax(np.abs(np.fft.rfft(audio))) / len(audio) * RATE
        found.append(SYSTEMS[int(line > 1000)])
    return list(zip(found[::2], found[1::2], strict=True))


def answer(folder, name, choose):
    """A file of answers: choose(question, a, b) -> 'a', 'same' or 'b', or None."""
    given = [{q: choose(q, a, b) for q in QUESTIONS if choose(q, a, b)} for a, b in sounds(folder)]
    test = json.loads((folder / KEY_NAME).read_text())['test']
    (folder / name).write_text(json.dumps({'test': test, 'answers': given}))
    return folder / name


def test_the_key_says_whose_sound_a_is_and_the_page_does_not(folder):
    page, key = (folder / PAGE_NAME).read_text(), json.loads((folder / KEY_NAME).read_text())
    assert [pair['a'] for pair in key['pairs']] == [a for a, _ in sounds(folder)]
    assert sorted(a for a, _ in sounds(folder)) == ['student'] * 4 + ['teacher'] * 4
    assert not any(word in page for word in (*SYSTEMS, 'rain'))
    assert 'prompt &lt;3&gt;' in page and 'prompt <3>' not in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)  # nothing from elsewhere


def test_a_preference_follows_the_system_whichever_side_it_is_on(folder):
    def choose(question, a, b):
        if question == 'sounds':
            return 'same'
        return 'a' if a == 'teacher' else 'b'

    rows = preference_rows(folder / KEY_NAME, [answer(folder, 'a.json', choose)])
    found = {(row['name'], row['group']): row for row in rows}
    for group, n in (('all', 8), ('tones', 4), ('rain', 4)):
        fits = found['preference, fits', group]
        assert (fits['value'], fits['n'], fits['for']) == (-1.0, n, 'student')
        assert found['preference, sounds', group]['value'] == 0.0


def test_listeners_of_a_pair_are_averaged_before_pairs(folder):
    always = answer(folder, 'b.json', lambda q, a, b: 'a')
    first = answer(folder, 'c.json', lambda q, a, b: 'a' if a == 'student' else 'b')
    rows = preference_rows(folder / KEY_NAME, [always, first])
    # With 'always a' a pair is 1 where the student is A, else (-1 + 1) / 2 = 0.
    whole = next(row for row in rows if row['group'] == 'all')
    assert (whole['value'], whole['n'], whole['listeners']) == (0.5, 8, 2)
    assert whole['low'] < 0.5 < whole['high']


def test_a_question_left_open_counts_for_nothing(folder):
    path = answer(folder, 'd.json', lambda q, a, b: 'a' if q == 'fits' else None)
    assert {row['name'] for row in preference_rows(folder / KEY_NAME, [path])} == {
        'preference, fits'
    }
    nothing = answer(folder, 'e.json', lambda *_: None)
    with pytest.raises(ValueError, match='nothing is answered'):
        preference_rows(folder / KEY_NAME, [nothing])


@pytest.mark.parametrize(
    'text, said',
    [
        ('', 'is not answers'),
        ('[' * 100_000, 'is not answers'),
        ('{"test": "other", "answers": []}', 'answers another test'),
        ('{"test": "TEST", "answers": [{}]}', 'should hold 8'),
        ('{"test": "TEST", "answers": [[], 0, 0, 0, 0, 0, 0, 0]}', 'answer 1 is not'),
        ('{"test": "TEST", "answers": [{"fits": "up"}, {}, {}, {}, {}, {}, {}, {}]}', 'fits: up'),
        ('{"test": "TEST", "answers": [{"fits": []}, {}, {}, {}, {}, {}, {}, {}]}', 'no such'),
        ('{"test": "TEST", "answers": [{"x": "a"}, {}, {}, {}, {}, {}, {}, {}]}', 'x: a'),
    ],
)
def test_what_is_no_answer_is_named(folder, text, said):
    test = json.loads((folder / KEY_NAME).read_text())['test']
    path = folder / 'bad.json'
    path.write_text(text.replace('TEST', test))
    with pytest.raises(ValueError, match=f'bad.json.*{said}'):
        preference_rows(folder / KEY_NAME, [path])


def test_answers_count_once(folder):
    path = answer(folder, 'twice.json', lambda *_: 'a')
    with pytest.raises(ValueError, match='twice.json: give each file once'):
        preference_rows(folder / KEY_NAME, [path, folder / '..' / folder.name / 'twice.json'])


def test_a_full_disk_leaves_no_key(tmp_path, monkeypatch):
    write = pathlib.Path.write_text

    def full(path, text, **more):
        if text.startswith('<!doctype'):
            raise OSError(28, 'No space left on device')
        return write(path, text, **more)

    monkeypatch.setattr(pathlib.Path, 'write_text', full)
    with pytest.raises(OSError):
        write_listening_test(tmp_path, SYSTEMS, [Pair('x', 'x', (tone(500), tone(600)))], RATE)
    assert not list(tmp_path.iterdir())


def test_what_makes_no_test_is_refused(tmp_path):
    assert set(ANSWERS) == {'a', 'same', 'b'}
    with pytest.raises(ValueError, match='at least one pair'):
        write_listening_test(tmp_path, SYSTEMS, [], RATE)
    pair = Pair('x', 'x', (tone(500), tone(500)))
    with pytest.raises(ValueError, match='both systems'):
        write_listening_test(tmp_path, ('a', 'a'), [pair], RATE)
    (tmp_path / 'key.json').write_text('{"test": 1, "systems": ["a", "b"], "pairs": [{"a": 2}]}')
    with pytest.raises(ValueError, match='key.json is not the key'):
        preference_rows(tmp_path / 'key.json', [])
    pairs = [{'a': 'a', 'group': None}, {'a': 'b', 'group': 'x'}]
    key = {'test': 1, 'systems': ['a', 'b'], 'pairs': pairs}
    (tmp_path / 'key.json').write_text(json.dumps(key))
    with pytest.raises(ValueError, match='key.json is not the key'):
        preference_rows(tmp_path / 'key.json', [])
