"""Writes that are whole or not, and names that any terminal takes."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from realaudio_jax import io
from realaudio_jax.sound_files import read_audio


def tone(seconds=0.25, rate=48_000, channels=2):
    x = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    return np.stack([x, -0.5 * x][:channels], axis=1).astype(np.float32)


def one_line(caught, *parts):
    text = str(caught.value)
    assert '\n' not in text and all(part in text for part in parts), text


def only(folder):
    return sorted(path.name for path in folder.iterdir())


def test_ogg_is_near_and_much_smaller(tmp_path):
    sound = tone()
    for suffix in ('.ogg', '.wav'):
        io.write_audio(tmp_path / f'a{suffix}', sound, 48_000)
    back, rate = soundfile.read(tmp_path / 'a.ogg')
    assert rate == 48_000 and back.shape == sound.shape
    assert np.abs(back - sound).max() < 0.05 * np.abs(sound).max()
    assert (tmp_path / 'a.ogg').stat().st_size < 0.3 * (tmp_path / 'a.wav').stat().st_size


@pytest.mark.parametrize('suffix', ['.wav', '.flac'])
def test_what_is_written_is_read(tmp_path, suffix):
    path = tmp_path / 'new' / f'a{suffix}'
    io.write_audio(path, tone(), 48_000)
    lines = []
    np.testing.assert_allclose(read_audio(path, log=lines.append), tone(), atol=0.51 / 2**15)
    assert lines == [] and only(path.parent) == [path.name]


def test_integers_are_written_as_they_are_and_floats_are_clipped(tmp_path):
    pcm = np.random.default_rng(0).integers(-32768, 32768, (50, 2)).astype(np.int16)
    io.write_audio(tmp_path / 'a.wav', pcm, 48_000)
    np.testing.assert_array_equal(soundfile.read(tmp_path / 'a.wav', dtype='int16')[0], pcm)
    io.write_audio(tmp_path / 'b.wav', np.array([2.0, -2.0]), 48_000)
    np.testing.assert_array_equal(
        soundfile.read(tmp_path / 'b.wav', dtype='int16')[0], [32767, -32768]
    )


def test_a_name_is_one_line_of_printable_characters():
    assert io.printable(b'caf\xc3\xa9 \xff\n\x1b[2J') == 'café \\xff\\n\\x1b[2J'
    assert io.printable('\ud800') == '\\ud800'
    assert io.printable('dog barks.wav') == 'dog barks.wav'
    cut = io.printable('a' * 5_000 + 'z')
    assert len(cut) <= 200 and cut.endswith('z')


def test_resampling_keeps_length_and_pitch():
    got = io.resample(tone(0.5, 44_100), 44_100, 48_000)
    assert got.shape == (24_000, 2) and got.dtype == np.float32
    np.testing.assert_allclose(got[500:-500], tone(0.5)[500:-500], atol=1e-3)


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ValueError) as caught:
        io.write_audio(tmp_path / 'a.mp3', tone(), 48_000)
    one_line(caught, 'a.mp3', '.flac')
    with pytest.raises(ValueError) as caught:
        io.write_audio(tmp_path / 'a.wav', tone() * np.nan, 48_000)
    one_line(caught, 'a.wav', 'NaN')
    assert only(tmp_path) == []


@pytest.mark.parametrize('failure', [RuntimeError('bug'), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / 'a.txt'
    path.write_text('old')
    with pytest.raises(type(failure)), io.atomic_path(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == '.txt'
        temporary.write_text('half')
        raise failure
    assert path.read_text() == 'old' and only(tmp_path) == ['a.txt']
    with io.atomic_path(path) as temporary:
        temporary.write_text('new')
    assert path.read_text() == 'new' and only(tmp_path) == ['a.txt']


FULL_DISK = """
import resource, sys
import numpy as np
from realaudio_jax import io
sound = np.random.default_rng(0).normal(size=(48_000, 2)) / 9
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for suffix in io.WRITABLE:
    try:
        io.write_audio(sys.argv[1] + suffix, sound, 48_000)
    except OSError as error:
        print(error)
"""


def test_a_full_disk_gives_one_line_and_no_file(tmp_path):
    """A limit of a file's size stands in for the full disk; libsndfile would say success."""
    done = subprocess.run(
        [sys.executable, '-c', FULL_DISK, str(tmp_path / 'a')],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(io.WRITABLE) and only(tmp_path) == []
    for line, suffix in zip(lines, io.WRITABLE, strict=True):
        assert f'cannot write {tmp_path}/a{suffix}' in line and 'free some space' in line


def test_a_disk_that_is_full_at_the_end_leaves_no_file(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(io.os, 'fsync', full)
    with pytest.raises(OSError) as caught:
        io.write_audio(tmp_path / 'a.flac', tone(), 48_000)
    one_line(caught, str(tmp_path / 'a.flac'), 'No space left', 'free some space')
    assert only(tmp_path) == []


def test_a_long_ogg_file_is_written(tmp_path):
    """In a process of its own: the encoder of a minute at once ends in a segmentation fault."""
    code = """if True:
        import sys
        import numpy as np
        from realaudio_jax.io import write_audio
        write_audio(sys.argv[1], np.zeros((60 * 48_000, 2), np.int16), 48_000)
    """
    path = tmp_path / 'long.ogg'
    subprocess.run([sys.executable, '-c', code, path], check=True, capture_output=True)
    assert soundfile.info(path).frames == 60 * 48_000


def test_files_have_the_permissions_of_the_umask(tmp_path):
    for mask, mode in ((0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            io.write_audio(tmp_path / 'a.wav', tone(), 48_000)
        finally:
            os.umask(before)
        assert (tmp_path / 'a.wav').stat().st_mode & 0o777 == mode
