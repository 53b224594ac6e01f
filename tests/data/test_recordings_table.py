"""metadata.csv in every form people write it, folders without one, and tables that are refused."""

import os

import pytest

from realaudio_jax.data.recordings_table import read_table

FILES = ('dog.wav', 'deep/rain.flac', 'bell.aiff', 'bell.wav')


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        (tmp_path / 'mine' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'mine' / name).write_bytes(b'')
    return tmp_path / 'mine'


def read(folder, text, encoding='utf-8'):
    (folder / 'metadata.csv').write_bytes(text.encode(encoding))
    lines = []
    return read_table(folder, lines.append).rows, lines


@pytest.mark.parametrize('separator', [',', ';', '\t'])
@pytest.mark.parametrize('newline', ['\n', '\r\n'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
def test_separators_line_ends_and_byte_order_marks(folder, separator, newline, encoding):
    cells = [
        ('File', 'label', 'Caption', 'license', 'split'),
        ('dog.wav', 'dog bark', f'"A dog{separator} and a ""cat"""', 'CC0-1.0', 'train'),
        ('deep/rain.flac', 'rain', '', '', 'Validation'),
    ]
    text = newline.join(map(separator.join, cells)) + newline
    rows, lines = read(folder, text, encoding)
    dog, rain = rows['dog.wav'], rows['deep/rain.flac']
    assert dog.captions == (' '.join(f'A dog{separator} and a "cat"'.split()),)
    assert (dog.label, dog.licence, dog.split) == ('dog bark', 'CC0-1.0', 'train')
    assert (rain.label, rain.captions, rain.licence, rain.split) == ('rain', (), '', 'held_out')
    assert lines == []


def test_what_is_left_out_or_not_used_is_said(folder):
    text = (
        'file,label,mood\ndog,dog\n./dog.wav,same\ndeep\\rain.flac,rain\nbell,bell\ngone.wav,x\n'
        'dog.wav,again\n\nbell.wav,\u200b\n,rain\nbell.wav,a,b,c\nbell.wav,\x1b[31mred\n'
    )
    rows, lines = read(folder, text)
    assert {name: row.label for name, row in rows.items()} == {
        'dog.wav': 'dog',
        'deep/rain.flac': 'rain',
    }
    said = [line.split('metadata.csv: ')[1] for line in lines]
    assert said == [
        'columns not used: mood',
        'left out 1 row without a label: line 9',
        'left out 1 row without a file: line 10',
        'left out 1 row with too many cells (quote a text with a separator in it): line 11',
        'left out 1 row with control characters (type its words again): line 12',
        'left out 1 file not there: gone.wav',
        'left out 1 file that may be one of several: bell',
        'left out 2 files named a second time: dog.wav, dog.wav',
    ]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('file,lable\n', "the column 'label' is missing; is it 'lable'?"),
        ('name,text\n', "the column 'file' is missing; it has name, text"),
        ('', "the column 'file' is missing; it has none"),
        ('file,label,label\n', "the column 'label' is there twice; keep one"),
        ('file,label\n', 'no row has a file and a label; add a row'),
        ('file,label\n/etc/passwd,x\n', "line 2 names '/etc/passwd'"),
        ('file,label\ndog.wav,x\na/../../b.wav,x\n', 'line 3 names'),
        ('file,label\nC:\\a.wav,x\n', 'line 2 names'),
        ('file,label\n~/a.wav,x\n', 'line 2 names'),
        ('file,label,split\ndog.wav,x,trian\n', "line 2 has the split 'trian'"),
        ('file,label\ndog.wav,' + 'x' * 200_000, 'line 2: field larger than field limit'),
        ('file,label\ndog.wav,"x\n', 'line 2: unexpected end of data; look for a quotation mark'),
        ('file,label\ndog.wav,\0\n', 'line 2 holds a NUL'),
    ],
)
def test_a_bad_table_is_one_line(folder, text, message):
    with pytest.raises(ValueError) as caught:
        read(folder, text)
    assert message in str(caught.value) and '\n' not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_links_out_of_a_folder_are_left_out_and_said(folder, tmp_path):
    """In a table, by names alone, and in a folder that itself is a link."""
    (tmp_path / 'private.wav').write_bytes(b'')
    (folder / 'mine.wav').symlink_to(tmp_path / 'private.wav')
    (folder / 'again.wav').symlink_to('dog.wav')
    (tmp_path / 'link').symlink_to(folder)
    rows, lines = read(folder, 'file,label\nmine.wav,dog\nagain.wav,dog\n')
    assert list(rows) == ['again.wav'] and len(lines) == 1
    assert 'left out 1 file linked from outside of the folder: mine.wav; copy' in lines[0]
    with pytest.raises(ValueError, match='left out 1 file linked from outside'):
        read(folder, 'file,label\nmine.wav,dog\n')
    (folder / 'metadata.csv').unlink()
    (folder / 'elsewhere').symlink_to(tmp_path)
    assert 'mine.wav' not in (rows := read_table(tmp_path / 'link', lines.append).rows)
    assert 'dog.wav' in rows and 'mine.wav' in lines[-1]
    (tmp_path / 'table.csv').write_text('file,label\ndog.wav,dog\n')
    (folder / 'metadata.csv').symlink_to(tmp_path / 'table.csv')
    with pytest.raises(ValueError, match='a link out of its folder'):
        read_table(folder, print)


def test_odd_files_in_place_of_the_table(folder):
    with pytest.raises(ValueError, match='not UTF-8'):
        read(folder, 'file,label\ndog.wav,caf\xe9\n', 'latin-1')
    (folder / 'metadata.csv').unlink()
    os.mkfifo(folder / 'metadata.csv')
    with pytest.raises(ValueError, match='no regular file'):
        read_table(folder, print)


def test_a_name_of_5000_characters_is_not_there(folder):
    rows, lines = read(folder, f'file,label\ndog.wav,dog\n{"a" * 5000}.wav,x\n')
    assert list(rows) == ['dog.wav'] and len(lines) == 1 and len(lines[0]) < 500


def test_a_folder_without_a_table_speaks_through_its_names(tmp_path):
    lines = []
    root = tmp_path / 'thunder'
    names = {
        'door_slam-02.wav': 'door slam',
        'dog bark/1.wav': 'dog bark',
        'a/wav/x.opus': 'a',
        '0001.flac': 'thunder',
        'audio/gong_3.wav': 'gong',
        'x.m4a': None,
    }
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b'')
    rows = read_table(root, lines.append).rows
    assert {name: row.label for name, row in rows.items()} == {
        name: label for name, label in names.items() if label
    }
    assert 'convert sounds of these kinds' in lines[0]
    assert '5 sounds, 5 labels: a, dog bark, door slam, gong, thunder' in lines[1]
    assert "1 name without a word, labelled 'thunder': 0001.flac" in lines[2]


def test_folders_may_be_splits(tmp_path):
    for name in ('train/dog/1.wav', 'test/dog/2.wav'):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b'')
    rows = read_table(tmp_path, print).rows
    assert {(row.label, row.split) for row in rows.values()} == {
        ('dog', 'train'),
        ('dog', 'held_out'),
    }
    (tmp_path / 'test' / 'dog' / '2.wav').unlink()
    assert {row.split for row in read_table(tmp_path, print).rows.values()} == {''}


def test_the_folder_named_may_be_the_one_of_the_files(folder):
    (folder / 'metadata.csv').write_text('file,label\nx.wav,dog\n')
    (folder / 'audio').mkdir()
    (folder / 'audio' / 'x.wav').write_bytes(b'')
    assert read_table(folder / 'audio', print).root == folder / 'audio'
    assert read_table(folder / 'deep', print).root == folder / 'deep'  # not what lies above it
