"""Reads sound files: the one place where bytes of unknown origin become samples.

What a header says is checked before memory is taken, and samples are decoded in blocks, so a file
costs what it holds and not what it claims. Every reason for not reading a file is one line, the
file's name before it.
"""

import collections
import dataclasses
import errno
import math
import os
import pathlib
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import soundfile

from realaudio_jax.audio import MAX_PEAK, PEAK_SCALED
from realaudio_jax.io import printable, resample
from realaudio_jax.typing import SAMPLE_RATE, Float

SUFFIXES = (
    *('.wav', '.flac', '.ogg', '.mp3', '.aif', '.aiff', '.aifc', '.au', '.caf', '.oga', '.opus'),
    *('.rf64', '.snd', '.voc', '.w64', '.wave'),
)
UNREADABLE_SUFFIXES = (  # sound, but not for libsndfile
    *('.aac', '.ac3', '.amr', '.ape', '.m4a', '.mka', '.mp4', '.mpc', '.tta', '.webm', '.wma'),
    '.wv',
)
RATES = (8_000, 384_000)  # Hz
MAX_CHANNELS = 64
MAX_FRAMES = 600 * SAMPLE_RATE  # ten minutes at 48 kHz; the rest of a longer file is left out

_FLAC_TAIL = 1 << 18  # bytes; several frames of most files
_BLOCK = 1 << 17  # samples decoded at a time, over all channels
_UNKNOWN_FRAMES = 1 << 60  # libsndfile's count of frames where a header leaves it open
_STREAMED = (0x7FFFFFFF, 0xFFFFFFFF)  # sizes that writers to a pipe leave in a header, and above
_DECLARED = re.compile(
    r'^\s*(?:data|SSND|BODY|riff|Riff size|Data Size)\s*: (\d+) \(should be (\d+)\)', re.MULTILINE
)
_BITS_REVERSED = bytes(int(f'{byte:08b}'[::-1], 2) for byte in range(256))
_DB3 = math.sqrt(0.5)
# Left and right of each channel (ITU-R BS.775, annex 4), in the order of WAV: L R C LFE, back,
# side. The low-frequency channel is left out, as there.
_LEFT, _RIGHT, _CENTRE, _LFE = (1.0, 0.0), (0.0, 1.0), (_DB3, _DB3), (0.0, 0.0)
_BEHIND_LEFT, _BEHIND_RIGHT, _BEHIND = (_DB3, 0.0), (0.0, _DB3), (0.5, 0.5)
_LAYOUTS = {
    3: (_LEFT, _RIGHT, _CENTRE),
    4: (_LEFT, _RIGHT, _BEHIND_LEFT, _BEHIND_RIGHT),
    5: (_LEFT, _RIGHT, _CENTRE, _BEHIND_LEFT, _BEHIND_RIGHT),
    6: (_LEFT, _RIGHT, _CENTRE, _LFE, _BEHIND_LEFT, _BEHIND_RIGHT),
    7: (_LEFT, _RIGHT, _CENTRE, _LFE, _BEHIND, _BEHIND_LEFT, _BEHIND_RIGHT),
    8: (_LEFT, _RIGHT, _CENTRE, _LFE) + (_BEHIND_LEFT, _BEHIND_RIGHT) * 2,
}
_OGG_LAYOUTS = {  # Vorbis I, section 4.3.9; Opus has the same
    3: (_LEFT, _CENTRE, _RIGHT),
    5: (_LEFT, _CENTRE, _RIGHT, _BEHIND_LEFT, _BEHIND_RIGHT),
    6: (_LEFT, _CENTRE, _RIGHT, _BEHIND_LEFT, _BEHIND_RIGHT, _LFE),
    7: (_LEFT, _CENTRE, _RIGHT, _BEHIND_LEFT, _BEHIND_RIGHT, _BEHIND, _LFE),
    8: (_LEFT, _CENTRE, _RIGHT) + (_BEHIND_LEFT, _BEHIND_RIGHT) * 2 + (_LFE,),
}


@dataclasses.dataclass(frozen=True)
class SoundFile:
    """A decoded sound file.

    Attributes:
        audio: [S, A] in [-1, 1] at the requested rate; A is 1 or 2.
        sample_rate: of the file, Hz.
        changes: how the samples differ from those of the file, each a few words.
    """

    audio: Float[np.ndarray, 'S A']
    sample_rate: int
    changes: tuple[str, ...]


def read_sound(path: str | os.PathLike, sample_rate: int = SAMPLE_RATE) -> SoundFile:
    """Reads a sound file of any kind that libsndfile knows, as mono or stereo.

    More than two channels are mixed to stereo. Floating-point samples above 1 are scaled to a peak
    of 1. Of a file of more than `MAX_FRAMES` the rest is left out.

    Args:
        path: a regular file of 8 to 384 kHz with 1 to 64 channels.
        sample_rate: Hz, of the result.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it may not be read.
        ValueError: it is no regular file, no sound, cut short, of another rate or more channels,
            without samples, or holds values that are no sound.
    """
    name = printable(path)
    size = _require_regular(path)
    if not size:
        raise ValueError(f'{name}: not a sound file, it is empty')
    try:
        # Bytes: soundfile cannot pass on a name that is not UTF-8.
        with _Forward(os.fsencode(path)) as file:
            _check_header(file, name)
            audio, changes = _decode(file, name)
            rate = file.samplerate
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise _unreadable(name, error) from error
    if not len(audio):
        raise ValueError(f'{name}: it holds no samples; give a file with sound in it')
    peak = _peak(audio)
    if not math.isfinite(peak):
        raise ValueError(f'{name}: it holds NaN or infinite samples; export it again')
    if peak > MAX_PEAK:
        raise ValueError(
            f'{name}: it holds samples up to {peak:.3g}, sound lies in [-1, 1]; divide it by its '
            'full scale'
        )
    if peak > 1.0:
        changes.append(PEAK_SCALED)
    if rate != sample_rate:
        changes.append(f'{rate} Hz to {sample_rate} Hz')
        count = len(audio)
        audio = resample(audio, rate, sample_rate)
        if not len(audio):
            raise ValueError(
                f'{name}: too short, {count} samples at {rate} Hz are none at {sample_rate} Hz'
            )
    audio = audio / np.float32(max(1.0, _peak(audio)))  # resampling may pass 1 too
    return SoundFile(audio, rate, tuple(changes))


def stream_windows(
    path: str | os.PathLike, seconds: float
) -> Iterator[tuple[int, float, Float[np.ndarray, 'S A']]]:
    """Reads a sound file of any length window by window, in bounded memory and at its own rate.

    Args:
        path: see `read_sound`.
        seconds: of a window; the last one of a longer file reaches back to be as long.

    Yields:
        Sample rate in Hz, the second at which the window starts, and its samples as mono or stereo.

    Raises:
        FileNotFoundError, OSError, ValueError: as `read_sound`.
    """
    name = printable(path)
    if not _require_regular(path):
        raise ValueError(f'{name}: not a sound file, it is empty')
    try:
        with _Forward(os.fsencode(path)) as file:
            _check_header(file, name)
            matrix, size = _mix_matrix(file), round(seconds * file.samplerate)
            before, first = None, 0
            while len(block := file.read(size, dtype='float32', always_2d=True)):
                block = block if matrix is None else block @ matrix
                if not np.isfinite(block).all():
                    raise ValueError(f'{name}: it holds NaN or infinite samples; export it again')
                count = len(block)
                if before is not None and count < size:
                    block = np.concatenate([before, block])[-size:]
                yield file.samplerate, (first + count - len(block)) / file.samplerate, block
                before, first = block, first + count
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise _unreadable(name, error) from error
    if not first:
        raise ValueError(f'{name}: it holds no samples; give a file with sound in it')


def read_audio(
    path: str | os.PathLike,
    sample_rate: int = SAMPLE_RATE,
    log: Callable[[str], None] | None = None,
) -> Float[np.ndarray, 'S 2']:
    """`read_sound` as stereo; mono is doubled.

    Args:
        path, sample_rate: see `read_sound`.
        log: called with one line when the file had to be converted.

    Raises:
        FileNotFoundError, OSError, ValueError: as `read_sound`.
    """
    sound = read_sound(path, sample_rate)
    audio, changes = sound.audio, list(sound.changes)
    if audio.shape[1] == 1:
        changes.insert(0, 'mono to stereo')
        audio = np.repeat(audio, 2, axis=1)
    if changes and log is not None:
        log(f'{printable(pathlib.Path(path).name)}: converted {", ".join(changes)}')
    return np.ascontiguousarray(audio, np.float32)


def reason(path: str | os.PathLike, error: Exception) -> str:
    """The reason in an error about a file, without the file's name before it."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(text or type(error).__name__).removeprefix(f'{printable(path)}: ')


@dataclasses.dataclass(frozen=True)
class Found:
    """The sound files in a folder and below it, and a count of the others.

    Attributes:
        sounds: those that can be tried, sorted.
        others: how many of each other suffix, hidden files and tables aside.
    """

    sounds: tuple[pathlib.Path, ...]
    others: dict[str, int]

    def remark(self) -> str | None:
        """One line on the files that are no sound or cannot be read, if there are any."""
        if not self.others:
            return None
        kinds = ', '.join(f'{n} {printable(suffix)}' for suffix, n in sorted(self.others.items()))
        remedy = ''
        if self.others.keys() & set(UNREADABLE_SUFFIXES):
            remedy = '; convert sounds of these kinds to FLAC or WAV'
        return f'{counted(sum(self.others.values()), "file")} not read as sound: {kinds}{remedy}'


def find_sounds(folder: str | os.PathLike) -> Found:
    """Lists the sound files of a folder, by their suffix.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'no folder {printable(folder)}; check the name')
    sounds, others = [], collections.Counter()
    for path in folder.rglob('*'):
        suffix = path.suffix.lower()
        if path.name.startswith('.') or path.is_dir():
            continue
        if suffix in SUFFIXES:
            sounds.append(path)
        elif suffix not in ('.csv', '.jsonl', '.md', '.txt'):
            others[suffix or 'without a suffix'] += 1
    return Found(tuple(sorted(sounds)), dict(others))


def counted(count: int, noun: str) -> str:
    """A count with its noun: '1 file', '3 files'."""
    return f'{count} {noun}{"s" * (count != 1)}'


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few of several names, for a line of text: 'a, b, c and 4 more'."""
    names = [printable(name) for name in names]
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more


class _Forward(soundfile.SoundFile):
    """Read from front to back; else soundfile seeks after each block, which some files refuse."""

    def seekable(self) -> bool:
        return False


def _peak(audio: np.ndarray) -> float:
    """The largest absolute value, NaN where there is one; no copy is made."""
    return float(np.maximum(audio.max(), -audio.min()))


def _require_regular(path: str | os.PathLike) -> int:
    """The size of a regular file in bytes."""
    name = printable(path)
    try:
        about = os.stat(path)
        if stat.S_ISREG(about.st_mode):
            os.close(os.open(path, os.O_RDONLY))  # libsndfile calls every failure a system error
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise FileNotFoundError(f'{name}: there is no such file; check the name') from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise FileNotFoundError(f'{name}: its name is too long for a file') from error
        raise OSError(None, f'{name}: it cannot be read ({error.strerror})') from error
    if not stat.S_ISREG(about.st_mode):
        kind = 'a folder' if stat.S_ISDIR(about.st_mode) else 'a pipe or device'
        raise ValueError(f'{name}: it is {kind}; give a sound file')
    return about.st_size


def _check_header(file: soundfile.SoundFile, name: str) -> None:
    """Raises ValueError where a header promises what cannot be, or more than the file holds."""
    low, high = RATES
    if not low <= file.samplerate <= high:
        raise ValueError(
            f'{name}: it claims {file.samplerate} samples a second; {low} to {high} are read'
        )
    if not 1 <= file.channels <= MAX_CHANNELS:
        raise ValueError(f'{name}: it has {file.channels} channels; 1 to {MAX_CHANNELS} are read')
    for declared, held in _DECLARED.findall(file.extra_info):
        if int(declared) < _STREAMED[0] and int(declared) > int(held) + 8:
            raise ValueError(_cut_short(name))
    if file.format == 'OGG':
        _check_pages(file.name, name)
    if file.format == 'FLAC' and _goes_on(file.name, file.frames):
        raise ValueError(
            f'{name}: damaged, it holds more than its header says; copy or export it again'
        )


def _cut_short(name: str) -> str:
    return f'{name}: cut short, it holds less than its header says; copy or export it again'


def _unreadable(name: str, error: Exception) -> ValueError:
    """What libsndfile says of a file, without the file's name."""
    said = printable(re.sub(r'^Error (opening .*?: |: )', '', str(error)).strip(' .'))
    return ValueError(f'{name}: damaged or not a sound file ({said})')


def _damaged(name: str) -> str:
    return f'{name}: damaged, a part of it is not what was written; copy or export it again'


def _check_pages(path: str | bytes, name: str) -> None:
    """Raises ValueError where a page of an Ogg file (RFC 3533, section 6) is cut or changed.

    A decoder leaves such a page out without a word; where it is the last, nothing else tells.
    """
    with open(path, 'rb') as file:
        while (head := file.read(27))[:4] == b'OggS':
            sizes = file.read(head[-1])
            body = file.read(sum(sizes))
            if len(head) < 27 or len(sizes) < head[26] or len(body) < sum(sizes):
                raise ValueError(_cut_short(name))
            if _page_checksum(head[:22] + bytes(4) + head[26:] + sizes + body) != head[22:26]:
                raise ValueError(_damaged(name))
        if b'OggS' in head + file.read(1 << 17):  # a page has at most 65,307 bytes
            raise ValueError(_damaged(name))


def _goes_on(path: str | bytes, promised: int) -> bool:
    """Whether a frame of a FLAC file (RFC 9639, section 9) ends after the samples it promises.

    The decoder may stop there without a word. Only the end of the file is looked at.
    """
    with open(path, 'rb') as file:
        head = file.read(12)
        file.seek(max(0, file.seek(0, os.SEEK_END) - _FLAC_TAIL))
        tail = file.read()
    if head[:4] != b'fLaC':
        return False
    block = int.from_bytes(head[10:12], 'big')
    starts = [match.start() for match in re.finditer(rb'\xff[\xf8\xf9]', tail)]
    ends = [(start, _flac_frame_end(tail[start : start + 16], block)) for start in starts]
    for start, end in ends:
        if end is not None and end > promised:
            stops = [stop for stop, known in ends if stop > start and known is not None][:2]
            if any(_crc(tail[start:stop], 16, 0x8005) == 0 for stop in [*stops, len(tail)]):
                return True
    return False


def _flac_frame_end(header: bytes, stream_block: int) -> int | None:
    """The sample after a FLAC frame, of the 16 bytes it begins with; None where they begin none."""
    if len(header) < 16:
        return None
    ones = 8 - (header[4] ^ 0xFF).bit_length()  # the number is coded as in UTF-8
    number = header[4] & (0x7F >> ones)
    at = 4 + max(1, ones)
    for byte in header[5:at]:
        number = number << 6 | byte & 0x3F
    code, more = header[2] >> 4, {6: 1, 7: 2}.get(header[2] >> 4, 0)
    after = at + more + {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
    if not code or ones in (1, 8) or _crc(header[: after + 1], 8, 0x07):
        return None
    if more:
        size = int.from_bytes(header[at : at + more], 'big') + 1
    else:
        size = 192 if code == 1 else 576 << code - 2 if code < 6 else 256 << code - 8
    return (number if header[1] & 1 else number * stream_block) + size


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    """A cyclic redundancy check begun at 0, the highest bit first."""
    register = 0
    for byte in data:
        register ^= byte << bits - 8
        for _ in range(8):
            register = register << 1 ^ (polynomial if register >> bits - 1 else 0)
            register &= (1 << bits) - 1
    return register


def _page_checksum(page: bytes) -> bytes:
    """The checksum of an Ogg page: the CRC-32 of zip files with bits reversed, begun at 0."""
    reflected = zlib.crc32(page.translate(_BITS_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return reflected.to_bytes(4, 'big').translate(_BITS_REVERSED)


def _decode(file: soundfile.SoundFile, name: str) -> tuple[np.ndarray, list[str]]:
    """The samples as mono or stereo, read in blocks, and how they differ from the file's."""
    changes, channels = [], file.channels
    matrix = _mix_matrix(file)
    if matrix is not None:
        changes.append(f'{channels} channels to stereo')
    promised = file.frames if file.frames < _UNKNOWN_FRAMES else None
    blocks, count = [], 0
    while count < MAX_FRAMES:
        block = file.read(
            min(max(1, _BLOCK // channels), MAX_FRAMES - count), dtype='float32', always_2d=True
        )
        if not len(block):
            break
        count += len(block)
        blocks.append(block if matrix is None else block @ matrix)
    missing = 0 if promised is None else min(promised, MAX_FRAMES) - count
    if missing > _slack(file) or missing > 0 and _mp3_bytes_missing(file):
        raise ValueError(_cut_short(name))
    if count == MAX_FRAMES and (promised is None or promised > count):
        changes.append(f'cut to its first {MAX_FRAMES / file.samplerate:.0f} s')
    if file.subtype in ('PCM_U8', 'PCM_S8'):
        changes.append('8-bit to float')
    return np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32), changes


def _slack(file: soundfile.SoundFile) -> int:
    """Frames that may be missing in a file that is whole: two frames of MP3, whose count varies."""
    return 2304 if file.format == 'MP3' else 0


def _mp3_bytes_missing(file: soundfile.SoundFile) -> bool:
    """Whether an MP3 file has fewer bytes than its Xing header counts, where it has one."""
    if file.format != 'MP3':
        return False
    with open(file.name, 'rb') as raw:
        head = raw.read(10)
        tag = 0  # ID3v2 ahead of the first frame; its size has seven bits a byte
        if head[:3] == b'ID3':
            tag = 10 + sum((byte & 0x7F) << 7 * i for i, byte in enumerate(reversed(head[6:])))
        held = raw.seek(0, os.SEEK_END) - tag
        raw.seek(tag)
        xing = re.search(rb'(?:Xing|Info)\0\0\0(.)(.{8})', raw.read(200), re.DOTALL)
    if xing is None or xing[1][0] & 3 != 3:  # it holds the counts of frames and of bytes
        return False
    return int.from_bytes(xing[2][4:], 'big') > held


def _mix_matrix(file: soundfile.SoundFile) -> np.ndarray | None:
    """float32 [channels, 2]; no sum exceeds 1, so nothing clips. None for mono and stereo."""
    channels = file.channels
    if channels <= 2:
        return None
    layouts = _OGG_LAYOUTS if file.format == 'OGG' else {}
    # no known layout: odd channels to the left, even ones to the right
    otherwise = [(_LEFT, _RIGHT)[i % 2] for i in range(channels)]
    matrix = np.array(layouts.get(channels) or _LAYOUTS.get(channels) or otherwise, np.float32)
    return matrix / matrix.sum(axis=0).max()
