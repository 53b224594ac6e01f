"""Folders in parts: together again they are what they were, and damage has a name."""

import subprocess

import numpy as np
import pytest

from realaudio_jax.parts import is_split, join, part_files, split


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    made = tmp_path / 'release'
    (made / 'below').mkdir(parents=True)
    (made / 'weights.bin').write_bytes(rng.bytes(70_001))
    (made / 'below' / 'ä name, with a comma.txt').write_text('words')
    (made / 'empty').write_bytes(b'')
    (made / '.partial-0123.bin').write_bytes(b'left by a process that was killed')
    return made


def contents(folder):
    files = (path for path in folder.rglob('*') if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: data for name, data in found.items() if '.partial-' not in name}


def test_parts_stay_below_their_size_and_join_to_what_was_split(folder, tmp_path):
    parts = split(folder, tmp_path / 'parts', 20_000)
    assert [path.stat().st_size for path in parts][:3] == [20_000] * 3
    assert len(parts) == len(part_files(tmp_path / 'parts')) > 3
    assert is_split(tmp_path / 'parts') and not is_split(folder)
    assert contents(join(tmp_path / 'parts', tmp_path / 'again')) == contents(folder)


def test_tar_joins_them_too(folder, tmp_path):
    split(folder, tmp_path / 'parts', 20_000)
    (tmp_path / 'again').mkdir()
    subprocess.run('cat ../parts/part-* | tar x', shell=True, check=True, cwd=tmp_path / 'again')
    assert contents(tmp_path / 'again') == contents(folder)


def test_equal_files_give_equal_parts(folder, tmp_path):
    split(folder, tmp_path / 'a', 20_000)
    (folder / 'weights.bin').touch()
    split(folder, tmp_path / 'b', 20_000)
    assert contents(tmp_path / 'a') == contents(tmp_path / 'b')


def test_a_file_alone_and_a_choice_of_files(folder, tmp_path):
    split(folder / 'weights.bin', tmp_path / 'a', 100_000)
    assert list(contents(join(tmp_path / 'a', tmp_path / 'file'))) == ['weights.bin']
    split(folder, tmp_path / 'b', 100_000, names=['empty'])
    assert contents(join(tmp_path / 'b', tmp_path / 'chosen')) == {'empty': b''}


def test_a_part_that_is_missing_or_damaged_is_named_and_nothing_is_made(folder, tmp_path):
    parts = split(folder, tmp_path / 'parts', 20_000)
    data = parts[1].read_bytes()
    parts[1].write_bytes(data[::-1])
    with pytest.raises(ValueError, match='part-001 is damaged.*bring that part again'):
        join(tmp_path / 'parts', tmp_path / 'again')
    parts[1].unlink()
    with pytest.raises(ValueError, match='part-001 is missing'):
        join(tmp_path / 'parts', tmp_path / 'again')
    assert not (tmp_path / 'again').exists()


def test_what_is_not_there_is_not_split(tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder or file .*/nothing; check the name'):
        split(tmp_path / 'nothing', tmp_path / 'parts', 20_000, names=[])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='no file in .*/empty to split'):
        split(tmp_path / 'empty', tmp_path / 'parts', 20_000)
    assert not (tmp_path / 'parts').exists()


def test_folders_in_the_way_are_refused(folder, tmp_path):
    split(folder, tmp_path / 'parts', 20_000)
    with pytest.raises(ValueError, match='is not empty'):
        split(folder, tmp_path / 'parts', 20_000)
    with pytest.raises(ValueError, match='is not empty'):
        join(tmp_path / 'parts', folder)
    with pytest.raises(ValueError, match='holds no parts'):
        join(folder, tmp_path / 'again')
