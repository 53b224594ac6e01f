"""A folder's manifest: any change of a listed file is one line that names it."""

import os
import shutil
import subprocess

import numpy as np
import pytest

from realaudio_jax.integrity import (
    IntegrityError,
    digest,
    read_manifest,
    update_manifest,
    verify,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'deep' / 'er').mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ('a.bin', 'b c.json', 'deep/er/d'):
        (tmp_path / name).write_bytes(rng.bytes(997))
    (tmp_path / '.partial-x').write_bytes(b'left over')
    write_manifest(tmp_path)
    return tmp_path


def test_coreutils_agree(folder):
    assert verify(folder)
    assert list(read_manifest(folder)) == ['a.bin', 'b c.json', 'deep/er/d']
    assert digest(folder / 'a.bin') == read_manifest(folder)['a.bin']
    if shutil.which('sha256sum'):
        subprocess.run(['sha256sum', '--quiet', '-c', 'SHA256SUMS'], cwd=folder, check=True)


def test_every_flipped_bit_is_named(folder):
    rng = np.random.default_rng(1)
    for name in read_manifest(folder):
        path, whole = folder / name, (folder / name).read_bytes()
        for bit in rng.integers(0, 8 * len(whole), 9):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(IntegrityError, match=f'{name} is damaged.*make it anew'):
                verify(folder)
        path.write_bytes(whole)
    assert verify(folder)


def test_files_gone_swapped_or_slipped_in(folder):
    os.rename(folder / 'a.bin', folder / 'e.bin')
    with pytest.raises(IntegrityError, match='a.bin is missing; fetch it'):
        verify(folder, remedy='fetch it')
    shutil.copy(folder / 'b c.json', folder / 'a.bin')
    with pytest.raises(IntegrityError, match='a.bin is damaged or another file'):
        verify(folder)
    assert verify(folder, ['b c.json', 'gone']), 'only what will be read counts'
    with pytest.raises(IntegrityError, match='e.bin is not listed'):
        verify(folder, ['e.bin'])
    update_manifest(folder, 'a.bin', 'e.bin')
    assert verify(folder) and 'e.bin' in read_manifest(folder)
    (folder / 'e.bin').unlink()
    update_manifest(folder, 'e.bin')
    assert verify(folder) and 'e.bin' not in read_manifest(folder)


def test_many_are_counted(folder):
    for i in range(9):
        (folder / f'{i}').write_bytes(b'')
    write_manifest(folder)
    for i in range(9):
        (folder / f'{i}').unlink()
    with pytest.raises(IntegrityError, match='0 is missing, 1 is missing, 2 is missing and 6 more'):
        verify(folder)


def test_without_a_manifest_nothing_is_checked(tmp_path):
    (tmp_path / 'a').write_bytes(b'1')
    update_manifest(tmp_path, 'a')
    assert verify(tmp_path) is False and read_manifest(tmp_path) is None


@pytest.mark.parametrize('text', [b'nonsense', b'\xff\xfe', b'0123  a', b'g' * 64 + b'  a'])
def test_a_damaged_manifest_is_named(tmp_path, text):
    (tmp_path / 'SHA256SUMS').write_bytes(text)
    with pytest.raises(IntegrityError, match='SHA256SUMS is damaged'):
        verify(tmp_path)


def test_a_pipe_never_blocks(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(ValueError, match='no regular file'):
        digest(tmp_path / 'pipe')
