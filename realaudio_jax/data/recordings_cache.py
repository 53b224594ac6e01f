"""Decodes a folder of recordings once: one int16 array on disk, and an index of the files in it.

Nothing here knows about labels; `sources.Recordings` reads those from metadata.csv.
"""

import collections
import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile

from realaudio_jax.data import crops
from realaudio_jax.io import atomic_folder, resample
from realaudio_jax.typing import SAMPLE_RATE

VERSION = 2  # part of the cache key: raise it when what is stored changes
ARRAY_NAME, INDEX_NAME = 'audio.npy', 'index.json'


def default_cache_dir() -> Path:
    """$REALAUDIO_CACHE, or ~/.cache/realaudio_jax."""
    chosen = os.environ.get('REALAUDIO_CACHE')
    return Path(chosen) if chosen else Path.home() / '.cache' / 'realaudio_jax'


def fingerprint(root: Path, files: Sequence[str]) -> str:
    """A hash of the names, sizes and last bytes of the files (missing ones count as size -1)."""
    digest = hashlib.sha256(f'recordings {VERSION} {SAMPLE_RATE}'.encode())
    for name in sorted(files):
        size, tail = -1, b''
        try:
            with open(root / name, 'rb') as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 4096))
                tail = file.read()
        except OSError:
            pass
        digest.update(f'\n{name}\0{size}\0'.encode() + tail)
    return digest.hexdigest()[:20]


def decode(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Reads a sound file as int16 [S, A] at 48 kHz; A is 1 where both channels are the same.

    Returns:
      the samples, and what the file was if it had to be converted ('mono', '8-bit', '96000 Hz').

    Raises:
      ValueError: the file cannot be read, is empty, or holds values that are not finite.
    """
    try:
        with soundfile.SoundFile(path) as file:
            rate, eight_bit = file.samplerate, file.subtype in ('PCM_U8', 'PCM_S8')
            audio = file.read(dtype='float32', always_2d=True)
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
    if not len(audio):
        raise ValueError('it holds no samples')
    if not np.isfinite(audio).all():
        raise ValueError('it holds values that are not finite')
    was = ['mono'] * (audio.shape[1] == 1) + ['8-bit'] * eight_bit
    was += [f'{rate} Hz'] * (rate != SAMPLE_RATE)
    audio = audio[:, :2]
    if audio.shape[1] == 2:
        middle, side = np.std(audio.sum(1)), np.std(audio[:, 0] - audio[:, 1])
        if side < 1e-3 * max(middle, 1e-9):
            audio = audio[:, :1]
    if rate != SAMPLE_RATE:
        audio = resample(audio, rate, SAMPLE_RATE)
    peak = float(np.abs(audio).max(initial=0.0))
    if peak > 1.0:  # a clipped overshoot would be a click
        audio = audio / peak
    return np.round(audio * 32767.0).astype(np.int16), tuple(was)


def _decode_or_error(path: Path) -> tuple[np.ndarray, tuple[str, ...]] | str:
    try:
        return decode(path)
    except ValueError as error:
        return str(error).splitlines()[0]


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
            active = crops.active_regions(audio.astype(np.float32) / 32768)
            entries[name] = {'start': total, 'frames': len(audio), 'channels': audio.shape[1]}
            entries[name]['active'] = active
            file.write(audio.astype('<i2').tobytes())
            total += audio.size
        # numpy leaves room in the header for the size to grow, so it can be written afterwards
        if header(file, total) != length:
            raise RuntimeError('the npy header changed its length')
    (folder / INDEX_NAME).write_text(json.dumps({'files': entries}))
    return conversions


def open_cache(
    root: Path, files: Sequence[str], cache_dir: Path | None, log: Callable[[str], None]
) -> tuple[np.ndarray, dict[str, dict]]:
    """Opens the decoded audio of `files` under `root`, decoding them first where that is needed.

    Args:
      root: folder the file names are relative to.
      files: names of the sound files.
      cache_dir: where decoded audio is kept; None is `default_cache_dir()`.
      log: called with one line when decoding starts.

    Returns:
      the memory-mapped int16 samples of all files one after the other, and for each file either
      {'start', 'frames', 'channels', 'active'} (channels interleaved) or {'error'}.
    """
    parent = (Path(cache_dir) if cache_dir else default_cache_dir()) / 'recordings'
    folder = parent / fingerprint(root, files)
    if not (folder / INDEX_NAME).exists():
        log(f'{root}: decoding {len(files)} files to {SAMPLE_RATE} Hz, once, into {folder}')
        remedy = 'free some space or set REALAUDIO_CACHE'
        with atomic_folder(folder, INDEX_NAME, remedy) as temporary:
            conversions = _build(root, files, temporary)
            if conversions:
                kinds = ', '.join(f'{n} {kind}' for kind, n in sorted(conversions.items()))
                log(f'{root}: converted {kinds}')
    index = json.loads((folder / INDEX_NAME).read_text())['files']
    if not any('frames' in entry for entry in index.values()):
        return np.zeros(0, np.int16), index
    return np.load(folder / ARRAY_NAME, mmap_mode='r'), index
