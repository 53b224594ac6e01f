"""Recordings of several folders as one small folder: Opus beside a table of what is known of them.

The packed folder is a folder of recordings like any other (`metadata.csv`, files below `audio/`)
with the split that each folder has by itself, so that what is held out there is held out here. A
file that is smaller as it is, as many in Ogg Vorbis and MP3 are, stays as it is: no sound is coded
twice for nothing. It holds sound and not encoded latents: scenes are mixed from it anew all along,
and a mixed scene of 10 s with its conditioning is 110 kB, as much as 10 s of recordings.
"""

import collections
import csv
import dataclasses
import functools
import hashlib
import io
import os
import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import soundfile

from realaudio_jax.data.attribution import ATTRIBUTION_NAME, Origin, attribution
from realaudio_jax.data.recordings_table import METADATA_NAME, read_table
from realaudio_jax.data.sources import Record, Recordings
from realaudio_jax.io import atomic_path, printable
from realaudio_jax.metrics.codec.reconstruction import opus_level
from realaudio_jax.typing import SAMPLE_RATE, Float

FORMS = {'opus': '.opus', 'flac': '.flac'}
KBIT_PER_S = 96.0  # of Opus, for each channel: 10 to 20 kHz stay within 0.1 dB (median)
_LOSSY = ('.ogg', '.oga', '.opus', '.mp3')
COLUMNS = (
    'file',
    'label',
    'caption',
    'split',
    'licence',
    'author',
    'source',
    'group',
    'active_regions',
)
_BLOCK = 1 << 16  # samples written at a time


@dataclasses.dataclass(frozen=True)
class Packed:
    """What a packed folder holds: number of files, seconds of sound, bytes of sound."""

    files: int
    seconds: float
    bytes: int


def pack_recordings(
    folders: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    form: str = 'opus',
    kbit_per_s: float = KBIT_PER_S,
    log: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Packed:
    """Writes the recordings of all folders, both splits, into one.

    Args:
        folders: of recordings, see `sources.Recordings`.
        out: the packed folder, made if it is missing.
        form: 'opus', or 'flac', which loses nothing and is several times as large.
        kbit_per_s: of Opus, of each channel, 6 to 256; more for what is hard to code.
        log: takes one line of text.
        progress: called with (files done, files in all).

    Raises:
        FileNotFoundError, ValueError: a folder cannot be used, or no such form.
        OSError: the disk is full.
    """
    if form not in FORMS:
        raise ValueError(f'no form {form!r}; use {" or ".join(FORMS)}')
    out = pathlib.Path(out)
    rows, origins, taken = [], [], set()
    dropped, seconds, size, done = collections.Counter(), 0.0, 0, 0
    sources = [Recordings(folder, 'all', log=log) for folder in folders]
    seen: set[bytes] = set()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for source in sources:
            root = read_table(source.folder, lambda line: None).root
            stored = pool.map(
                functools.partial(_stored, source, root, form, kbit_per_s), range(len(source))
            )
            for record, (digest, suffix, data) in zip(source.clips, stored, strict=True):
                done += 1
                if digest in seen:
                    dropped['copies of others'] += 1
                    continue
                seen.add(digest)
                dropped['captions after the first'] += max(0, len(record.captions) - 1)
                name = _free_name(record.file, suffix, taken)
                _write(out / 'audio' / name, data)
                rows.append(_row(record, name))
                origins.append(Origin.of(record)._replace(file=name))
                seconds, size = seconds + record.seconds, size + len(data)
                progress(done, sum(map(len, sources)))
    for what, count in dropped.items():
        if count:
            log(f'left out {count} {what}')
    table = io.StringIO()
    writer = csv.writer(table, lineterminator='\n')
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    _write(out / METADATA_NAME, table.getvalue().encode())
    _write(out / ATTRIBUTION_NAME, attribution(origins).encode())
    return Packed(len(rows), seconds, size)


def encoded(audio: Float[np.ndarray, '...'], form: str, kbit_per_s: float = KBIT_PER_S) -> bytes:
    """A sound [S] or [S, A] at 48 kHz as the bytes of a file; see `pack_recordings`."""
    channels = audio.shape[1] if audio.ndim == 2 else 1
    kind = dict(format='FLAC', subtype='PCM_16')
    if form == 'opus':
        level = opus_level(kbit_per_s * channels, channels)
        kind = dict(format='OGG', subtype='OPUS', compression_level=level)
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, 'w', SAMPLE_RATE, channels, **kind) as file:
        for start in range(0, len(audio), _BLOCK):
            file.write(audio[start : start + _BLOCK])
    return buffer.getvalue()


def _stored(
    source: Recordings, root: pathlib.Path, form: str, kbit_per_s: float, i: int
) -> tuple[bytes, str, bytes]:
    """Digest of the samples of clip i, and suffix and bytes of the file that keeps it."""
    audio, path = source.load(i).audio, root / source.clips[i].file
    digest = hashlib.sha256(np.ascontiguousarray(audio).data).digest()
    data = encoded(audio, form, kbit_per_s)
    if path.suffix.lower() in _LOSSY and path.stat().st_size <= len(data):
        return digest, path.suffix, path.read_bytes()
    return digest, FORMS[form], data


def _free_name(file: str, suffix: str, taken: set[str]) -> str:
    """The file's name with another suffix, and a number where two folders have the same."""
    path = pathlib.PurePosixPath(printable(file))
    name, count = path.with_suffix(suffix).as_posix(), 1
    while name.lower() in taken:
        count += 1
        name = path.with_name(f'{path.stem}-{count}{suffix}').as_posix()
    taken.add(name.lower())
    return name


def _row(record: Record, name: str) -> tuple[str, ...]:
    regions = ';'.join(f'{start:.4f}-{end:.4f}' for start, end in record.active)
    return (
        name,
        record.label,
        record.captions[0] if record.captions else '',
        'held_out' if record.held_out else 'train',
        record.licence,
        record.author,
        record.source,
        record.take.rsplit('/', 1)[-1],
        regions,
    )


def _write(path: pathlib.Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
