"""Decodes a folder of recordings once: one int16 array on disk, and an index of the files in it.

Nothing here knows about labels; `sources.Recordings` reads those from metadata.csv.
"""

import collections
import functools
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from realaudio_jax import integrity
from realaudio_jax.audio import from_pcm16, to_pcm16
from realaudio_jax.cache import cache_dir as user_cache_dir
from realaudio_jax.data import cache, signal
from realaudio_jax.io import printable
from realaudio_jax.sound_files import find_sounds, read_sound, reason
from realaudio_jax.typing import SAMPLE_RATE

VERSION = 3  # part of the cache key: raise it when what is stored changes
ARRAY_NAME = 'audio.npy'


def digests(root: Path, files: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each file, in hexadecimal; '' of one that cannot be read or is no regular file."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(files, pool.map(lambda name: _digest(root / name), files), strict=True))


def folder_digest(folder: Path) -> str:
    """Digest of the sounds and tables of a folder, by their names and contents."""
    files = [*find_sounds(folder).sounds, *folder.glob('*.csv')]
    found = digests(folder, sorted(str(file.relative_to(folder)) for file in files))
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()


def _digest(path: Path) -> str:
    try:
        about = path.stat()
        return _digest_of_contents(path, about.st_size, about.st_mtime_ns)
    except (OSError, ValueError):
        return ''


@functools.lru_cache(100_000)  # a run opens one folder several times, for its splits
def _digest_of_contents(path: Path, size: int, changed_ns: int) -> str:
    del size, changed_ns
    return integrity.digest(path)


def decode(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Reads a sound file as int16 [S, A] at 48 kHz; A is 1 where both channels are the same.

    Returns:
        The samples, and what was changed, see `sound_files.SoundFile`.

    Raises:
        OSError, ValueError: as `sound_files.read_sound`.
    """
    sound = read_sound(path, SAMPLE_RATE)
    audio = sound.audio
    if audio.shape[1] == 2:
        middle, side = np.std(audio.sum(1)), np.std(audio[:, 0] - audio[:, 1])
        if side < 1e-3 * max(middle, 1e-9):
            audio = audio[:, :1]
    return to_pcm16(audio), sound.changes


def _decode_or_error(path: Path) -> tuple[np.ndarray, tuple[str, ...]] | str:
    try:
        return decode(path)
    except (OSError, ValueError) as error:
        return reason(path, error)


def _build(root: Path, files: Sequence[str], folder: Path) -> collections.Counter:
    entries, total, conversions = {}, 0, collections.Counter()

    def header(file, samples: int) -> int:
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            buffer, {'descr': '<i2', 'fortran_order': False, 'shape': (samples,)}
        )
        file.seek(0)
        return file.write(buffer.getvalue())

    with open(folder / ARRAY_NAME, 'wb') as file, ThreadPoolExecutor(2) as pool:
        length = header(file, 0)
        for name, decoded in zip(
            files, pool.map(lambda n: _decode_or_error(root / n), files), strict=True
        ):
            if isinstance(decoded, str):
                entries[name] = {'error': decoded}
                continue
            audio, was = decoded
            conversions.update(was)
            active = signal.active_regions(from_pcm16(audio))
            entries[name] = {'start': total, 'frames': len(audio), 'channels': audio.shape[1]}
            entries[name]['active'] = active
            file.write(audio.astype('<i2').tobytes())
            total += audio.size
        # numpy leaves room in the header for the size to grow, so it can be written afterwards
        if header(file, total) != length:
            raise RuntimeError('the npy header changed its length')
    cache.write_index(folder, {'files': entries})
    return conversions


def open_cache(
    root: Path, contents: Mapping[str, str], cache_dir: Path | None, log: Callable[[str], None]
) -> tuple[np.ndarray, dict[str, dict]]:
    """Opens the decoded audio of files under `root`, decoding them first where that is needed.

    Args:
        root: folder the file names are relative to.
        contents: the files' names and digests, see `digests`.
        cache_dir: where decoded audio is kept; None is `cache.cache_dir()`.
        log: called with a line when decoding starts, and with one on what was converted.

    Returns:
        The memory-mapped int16 samples of all files one after the other, and for each file either
        {'start', 'frames', 'channels', 'active'} (channels interleaved) or {'error'}.
    """
    parent = (Path(cache_dir) if cache_dir else user_cache_dir()) / 'recordings'
    files = list(contents)
    folder = parent / cache.cache_key(
        'recordings', version=VERSION, rate=SAMPLE_RATE, files=sorted(contents.items())
    )

    def build(temporary: Path) -> None:
        log(f'{printable(root)}: decoding {len(files)} files to {SAMPLE_RATE} Hz into {folder}')
        conversions = _build(root, files, temporary)
        if conversions:
            kinds = ', '.join(f'{kind} ({n})' for kind, n in sorted(conversions.items()))
            log(f'{printable(root)}: converted {kinds}')

    cache.ensure(folder, build, log, 'free some space or set REALAUDIO_CACHE')
    arrays, index = cache.open_arrays(folder)
    return arrays['audio'], index['files']
