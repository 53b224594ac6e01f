"""Every kind of sound file in, and one line that names the file for what is none."""

import os
import struct

import numpy as np
import pytest
import soundfile
from test_io import one_line, tone

from realaudio_jax import sound_files
from realaudio_jax.sound_files import find_sounds, read_audio, read_sound, reason, stream_windows

KINDS = [
    ('wav', {'subtype': 'FLOAT'}),
    ('flac', {}),
    ('ogg', {}),
    ('opus', {'format': 'OGG', 'subtype': 'OPUS'}),
    ('mp3', {}),
    ('aiff', {}),
    ('au', {}),
    ('caf', {}),
    ('w64', {}),
    ('rf64', {}),
    ('voc', {}),
]


def refused(path, *parts, error=ValueError):
    with pytest.raises(error) as caught:
        read_sound(path)
    one_line(caught, *parts)


@pytest.fixture(scope='module')
def every_kind(tmp_path_factory):
    """The same second of sound as each kind of file."""
    folder = tmp_path_factory.mktemp('kinds')
    noise = 0.02 * np.random.default_rng(0).normal(size=(48_000, 2))
    for suffix, kind in KINDS:
        soundfile.write(folder / f'a.{suffix}', tone(1.0) + noise, 48_000, **kind)
    return folder


@pytest.mark.parametrize('suffix', [suffix for suffix, _ in KINDS])
def test_every_kind_is_read_and_a_part_of_it_is_refused(every_kind, tmp_path, suffix):
    path = every_kind / f'a.{suffix}'
    got = read_audio(path)
    assert got.shape[1] == 2 and abs(len(got) - 48_000) < 3000 and got.dtype == np.float32
    middle = got[20_000:24_000]
    np.testing.assert_allclose(np.sqrt(np.mean(middle**2, axis=0)), [0.354, 0.177], rtol=0.1)
    if suffix != 'voc':  # nothing in it says how long it should be
        data = path.read_bytes()
        for share in (0.3, 0.9):
            part = tmp_path / f'{share}.{suffix}'
            part.write_bytes(data[: int(share * len(data))])
            refused(part, part.name)


def test_what_is_converted_is_said_in_one_line(tmp_path):
    path = tmp_path / 'old.wav'
    soundfile.write(path, tone(0.25, 96_000, 1)[:, 0], 96_000, subtype='PCM_U8')
    lines = []
    got = read_audio(path, log=lines.append)
    assert lines == ['old.wav: converted mono to stereo, 8-bit to float, 96000 Hz to 48000 Hz']
    assert got.shape == (12_000, 2)
    np.testing.assert_array_equal(got[:, 0], got[:, 1])
    np.testing.assert_allclose(got[500:-500, 0], tone()[500:-500, 0], atol=0.02)


@pytest.mark.parametrize(
    'channels, suffix', [(3, 'wav'), (6, 'wav'), (6, 'ogg'), (8, 'wav'), (12, 'wav')]
)
def test_channels_are_mixed_to_stereo_and_the_centre_is_kept(tmp_path, channels, suffix):
    """A tone in one channel at a time: left and right stay apart, a centre is on both sides."""
    levels, path = [], tmp_path / f'many.{suffix}'
    for channel in range(channels):
        audio = np.zeros((9_600, channels), np.float32)
        audio[:, channel] = tone(0.2, channels=1)[:, 0]
        soundfile.write(path, audio, 48_000)
        lines = []
        levels.append(np.sqrt(np.mean(read_audio(path, log=lines.append) ** 2, axis=0)))
        assert lines == [f'many.{suffix}: converted {channels} channels to stereo']
    levels = np.array(levels)
    right = 2 if suffix == 'ogg' else 1
    assert levels[0, 0] > 0.05 > 20 * levels[0, 1] and levels[right, 1] > 0.05
    if channels < 12:
        centre = 1 if suffix == 'ogg' else 2
        np.testing.assert_allclose(levels[centre], levels[0, 0] * 0.707, rtol=0.03)
    soundfile.write(path, np.full((9_600, channels), 0.99), 48_000, subtype=None)
    assert np.abs(read_audio(path)).max() <= 1.0


def test_floats_above_one_are_scaled_and_what_is_no_sound_is_refused(tmp_path):
    path = tmp_path / 'hot.wav'
    soundfile.write(path, 5.0 * tone(), 48_000, subtype='FLOAT')
    sound = read_sound(path)
    np.testing.assert_allclose(sound.audio, 2 * tone(), atol=1e-6)
    assert sound.changes == ('peak above 1 scaled to 1',)
    for value, part in ((1e37, '1e+37'), (1e6, '1e+06'), (np.nan, 'NaN'), (-np.inf, 'infinite')):
        audio = tone()
        audio[100] = value
        soundfile.write(path, audio, 48_000, subtype='FLOAT')
        refused(path, 'hot.wav', part)


def patched(data: bytes, at: int, layout: str, value: int) -> bytes:
    return data[:at] + struct.pack(layout, value) + data[at + struct.calcsize(layout) :]


def test_headers_that_lie_cost_nothing(every_kind, tmp_path):
    """Rates of 1 Hz and 2 GHz, and 2^31 to 2^36 samples where there are 48,000."""
    wav, flac = ((every_kind / f'a.{s}').read_bytes() for s in ('wav', 'flac'))
    path = tmp_path / 'lie.wav'
    for rate in (1, 2, 2**31 - 1):
        path.write_bytes(patched(wav, 24, '<I', rate))
        refused(path, 'lie.wav', '8000 to 384000')
    path = tmp_path / 'lie.flac'
    # STREAMINFO: bits 108 to 143 of the block at byte 8 are the count of samples
    low, high = 8 + 14, 8 + 13
    for count in (2**31, 2**35 + 1, 2**36 - 1):
        data = patched(flac, low, '>I', count % 2**32)
        path.write_bytes(patched(data, high, 'B', (data[high] & 0xF0) | count >> 32))
        refused(path, 'lie.flac', 'cut short')
    data = patched(flac, low, '>I', 0)  # as an encoder leaves it that writes to a pipe
    path.write_bytes(patched(data, high, 'B', data[high] & 0xF0))
    np.testing.assert_array_equal(read_audio(path), read_audio(every_kind / 'a.flac'))


def test_a_flac_file_that_goes_on_after_its_count_is_no_shorter_sound(every_kind, tmp_path):
    flac, path = (every_kind / 'a.flac').read_bytes(), tmp_path / 'more.flac'
    for count in (1, 4_096, 47_999):
        path.write_bytes(patched(flac, 22, '>I', count))
        refused(path, 'more.flac', 'holds more than its header says')
    path.write_bytes(patched(flac, 22, '>I', 1) + b'TAG' + bytes(125))
    refused(path, 'more.flac', 'holds more than its header says')
    noise = np.random.default_rng(1).normal(size=(50_001, 1)) * 0.1
    for subtype in ('PCM_16', 'PCM_24'):
        soundfile.write(path, noise, 11_025, subtype=subtype)
        assert len(read_audio(path, 11_025)) == 50_001
        path.write_bytes(patched(path.read_bytes(), 22, '>I', 40_000))
        refused(path, 'more.flac', 'holds more')


def test_an_mp3_file_lacks_not_even_its_last_bytes(every_kind, tmp_path):
    mp3, path = (every_kind / 'a.mp3').read_bytes(), tmp_path / 'a.mp3'
    tag = b'ID3\4\0\0\0\0\2\1' + bytes(257)
    for before in (b'', tag):
        path.write_bytes(before + mp3)
        assert len(read_audio(path)) == 48_000
        for lacking in (20, len(mp3) // 100):
            path.write_bytes(before + mp3[:-lacking])
            refused(path, 'a.mp3', 'cut short')


@pytest.mark.parametrize('suffix', ['ogg', 'opus'])
def test_a_changed_page_of_an_ogg_file_is_no_shorter_sound(every_kind, tmp_path, suffix):
    """A decoder leaves out what fails its checksum; the last page says how long a file is."""
    data = (every_kind / f'a.{suffix}').read_bytes()
    last = data.rindex(b'OggS')
    for at in (data.index(b'OggS', 1) - 1, last + 6, (last + len(data)) // 2, len(data) - 1):
        path = tmp_path / f'{at}.{suffix}'
        path.write_bytes(patched(data, at, 'B', data[at] ^ 8))
        refused(path, path.name, 'damaged')
    path = tmp_path / f'more.{suffix}'
    path.write_bytes(data + b'a tag of another kind')
    np.testing.assert_array_equal(read_audio(path), read_audio(every_kind / f'a.{suffix}'))


def test_a_wav_written_to_a_pipe_is_read_to_its_end(every_kind, tmp_path):
    path = tmp_path / 'piped.wav'
    pcm = np.random.default_rng(0).integers(-9000, 9000, (1000, 2)).astype(np.int16)
    soundfile.write(path, pcm, 48_000)
    data = path.read_bytes()
    path.write_bytes(patched(patched(data, 4, '<I', 2**32 - 1), 40, '<I', 2**32 - 1))
    assert len(read_audio(path)) == 1000


def test_files_that_are_no_sound(tmp_path):
    for name, write, part in (
        ('empty.wav', lambda p: soundfile.write(p, np.zeros((0, 2)), 48_000), 'no samples'),
        ('text.wav', lambda p: p.write_text('not sound'), 'not a sound file'),
        ('none.wav', lambda p: p.write_bytes(b''), 'it is empty'),
        ('two\nlines.wav', lambda p: p.write_text('not sound'), 'two\\nlines.wav'),
        ('short.wav', lambda p: soundfile.write(p, np.zeros(1), 384_000), 'too short'),
        ('wide.wav', lambda p: soundfile.write(p, np.zeros((5, 65)), 48_000), '65 channels'),
        ('folder.wav', lambda p: p.mkdir(), 'a folder'),
        ('pipe.wav', os.mkfifo, 'a pipe or device'),
        ('zero.wav', lambda p: p.symlink_to('/dev/zero'), 'a pipe or device'),
    ):
        write(tmp_path / name)
        refused(tmp_path / name, part)
    with pytest.raises(ValueError, match=r'sound file \(Format not recognised\)$'):
        next(stream_windows(tmp_path / 'text.wav', 10.0))
    for path in (tmp_path / 'gone.wav', tmp_path / 'text.wav' / 'a.wav', tmp_path / ('a' * 5000)):
        refused(path, str(path)[:50], error=FileNotFoundError)


def test_names_that_are_not_utf_8_are_read_and_shown(tmp_path):
    path = os.fsencode(tmp_path) + b'/caf\xe9.wav'
    soundfile.write(path, tone(), 48_000)
    lines = []
    assert len(read_audio(os.fsdecode(path), 24_000, lines.append)) == 6_000
    assert lines == [r'caf\xe9.wav: converted 48000 Hz to 24000 Hz']
    with open(path, 'wb') as file:
        file.write(b'none')
    with pytest.raises(ValueError) as caught:
        read_sound(os.fsdecode(path))
    one_line(caught, r'caf\xe9.wav: damaged')
    assert reason(os.fsdecode(path), caught.value).startswith('damaged')


def test_the_end_of_a_long_file_is_left_out_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sound_files, 'MAX_FRAMES', 7_000)
    monkeypatch.setattr(sound_files, '_BLOCK', 3_000)
    soundfile.write(tmp_path / 'long.flac', tone(), 8_000, subtype='PCM_16')
    sound = read_sound(tmp_path / 'long.flac', 8_000)
    np.testing.assert_allclose(sound.audio, tone()[:7_000], atol=1e-4)
    assert sound.changes == ('cut to its first 1 s',)


def test_a_folder_is_listed_and_what_is_ignored_is_counted(tmp_path):
    for name in ('b.OPUS', 'deep/a.aif', 'c.m4a', 'd.M4A', 'e.png', 'metadata.csv', '.hidden.wav'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    found = find_sounds(tmp_path)
    assert [path.name for path in found.sounds] == ['b.OPUS', 'a.aif']
    assert found.remark().startswith('3 files not read as sound: 2 .m4a, 1 .png; conv')
    (tmp_path / 'deep' / 'f.txt').write_text('notes')
    assert find_sounds(tmp_path / 'deep').remark() is None
    with pytest.raises(FileNotFoundError, match='no folder'):
        find_sounds(tmp_path / 'none')
