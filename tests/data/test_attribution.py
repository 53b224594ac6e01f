import pathlib

import numpy as np
import pytest
import soundfile

from realaudio_jax.data import attribution
from realaudio_jax.data.attribution import Origin
from realaudio_jax.data.sources import Recordings


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / 'mine'
    (folder / 'birds').mkdir(parents=True)
    lines = ['file,label,licence,author,source']
    rng = np.random.default_rng(0)
    for i in range(12):
        name = f'birds/{"abcdefghijkl"[i]}.wav'
        soundfile.write(folder / name, 0.1 * rng.standard_normal(9600), 48000)
        licence = ('CC0-1.0', 'CC-BY-NC-3.0', '')[i % 3]
        lines.append(f'{name},bird,{licence},A | B {i % 2},https://x.org/{i % 2}')
    (folder / 'metadata.csv').write_text('\n'.join(lines))
    return folder


def test_exactly_what_trained_is_noted(recordings, tmp_path, monkeypatch):
    monkeypatch.setenv('REALAUDIO_CACHE', str(tmp_path / 'cache'))
    attribution.note_recordings(tmp_path / 'run', str(recordings))
    noted = attribution.read_origins(tmp_path / 'run')
    train, held_out = (Recordings(recordings, split) for split in ('train', 'held_out'))
    assert {origin.file for origin in noted} == {record.file for record in train.clips}
    assert not {origin.file for origin in noted} & {record.file for record in held_out.clips}
    assert noted[0] == Origin('birds/a.wav', 'CC0-1.0', 'A | B 0', 'https://x.org/0')
    attribution.note_recordings(tmp_path / 'foley', None)
    assert attribution.read_origins(tmp_path / 'foley') == []
    assert not (tmp_path / 'foley').exists()


def test_authors_are_named_with_their_licences_and_counts(tmp_path):
    a, b = (Origin(f'x/{i}', 'CC-BY-3.0', 'Ann', 'u') for i in (1, 2))
    c = Origin('y/1', 'unknown', '', '')
    for run, origins in (('one', [b, a]), ('two', [a, c])):
        (tmp_path / run).mkdir()
        attribution.write_origins(tmp_path / run, origins)
    line = attribution.write_attribution(tmp_path, [tmp_path / 'one', tmp_path / 'two'])
    assert line == 'ATTRIBUTION.md: 3 recordings, 1 of unknown licence'
    text = (tmp_path / 'ATTRIBUTION.md').read_text()
    assert '3 recordings.' in text and 'Of these 1 of unknown licence.' in text
    assert '| Ann | CC-BY-3.0 | u | 2 |' in text and '| unknown | unknown |  | 1 |' in text
    assert '| CC-BY-3.0 | 2 |' in text and text.index('## x') < text.index('## y')


def test_what_a_base_owes_stays_beside_what_is_new(tmp_path):
    base, run, out = (tmp_path / name for name in ('base', 'run', 'out'))
    for folder in (base, run, out):
        folder.mkdir()
    assert attribution.write_attribution(out, [run], base) is None
    assert not (out / 'ATTRIBUTION.md').exists()
    (base / 'ATTRIBUTION.md').write_text('# Attribution\n\nearlier\n\n## set\n')
    assert attribution.write_attribution(out, [run], base) == 'ATTRIBUTION.md: as before'
    assert (out / 'ATTRIBUTION.md').read_text() == (base / 'ATTRIBUTION.md').read_text()
    attribution.write_origins(run, [Origin('x/1', 'CC0-1.0', 'A | B', 'u')])
    attribution.write_attribution(out, [run], base)
    text = (out / 'ATTRIBUTION.md').read_text()
    assert r'| A \| B | CC0-1.0 | u | 1 |' in text
    assert text.count('# Attribution') == 1 and '\nearlier\n' in text and '\n### set\n' in text
    attribution.write_attribution(out, [run])
    assert 'earlier' not in (out / 'ATTRIBUTION.md').read_text()


def test_a_run_owes_what_it_started_from_owes(tmp_path):
    release, first, second = (tmp_path / name for name in ('release', 'first', 'second'))
    for folder in (release, first, second):
        folder.mkdir()
    (release / 'ATTRIBUTION.md').write_text('# Attribution\n\nearlier\n')
    origin = Origin('x/1', 'CC0-1.0', 'Ann', 'u')
    attribution.write_origins(first, [origin])
    (first / 'teacher.safetensors').touch()
    attribution.note_recordings(second, None, [first / 'teacher.safetensors', release, None])
    assert attribution.read_origins(second) == [origin]
    attribution.write_attribution(tmp_path, [second])
    text = (tmp_path / 'ATTRIBUTION.md').read_text()
    assert '| Ann |' in text and text.count('earlier\n') == 1


@pytest.mark.parametrize(
    ('licence', 'remark'),
    [
        ('CC0-1.0', None),
        ('CC BY 3.0', None),
        ('CC-BY-SA-4.0', None),
        ('Public Domain', None),
        ('CC-BY-NC-3.0', '1 not for commercial use'),
        ('unknown', '1 of unknown licence'),
        ('CC-BY-NC-ND-4.0', '1 not for commercial use'),
        ('CC-SAMPLING+-1.0', '1 not for every derived work'),
        ('CC-Sampling+', '1 not for every derived work'),
    ],
)
def test_licences_that_restrict_are_named(licence, remark):
    assert attribution.restricted([Origin('x', licence, '', '')]) == remark


def test_a_table_of_another_form_is_an_error(tmp_path):
    pathlib.Path(tmp_path / 'recordings.csv').write_text('file,label\na,b\n')
    with pytest.raises(ValueError, match='not written by a training run'):
        attribution.read_origins(tmp_path)
