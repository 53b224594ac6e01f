"""A folder in numbered parts below a size, with digests, for transfers that limit a file's size.

    split('runs/release', 'parts', 15_000_000)      parts/part-000, part-001, ..., SHA256SUMS
    join('parts', 'elsewhere/release')

The parts are one uncompressed tar archive (POSIX.1-2001), cut at the size: `cat part-* | tar x`
joins them, too. Equal files give equal parts.
"""

import os
import pathlib
import tarfile
from collections.abc import Iterable, Iterator

from realaudio_jax import integrity
from realaudio_jax.io import atomic_folder

PREFIX = 'part-'
_BLOCK = 1 << 20  # bytes read at a time


def split(
    source: str | os.PathLike,
    out: str | os.PathLike,
    part_bytes: int,
    names: Iterable[str] | None = None,
) -> list[pathlib.Path]:
    """Writes a folder, or one file, as parts and a manifest of their digests.

    Args:
        source: folder, or file.
        out: folder of the parts, which is not there yet or empty.
        part_bytes: size of a part, bytes; the last one is smaller.
        names: files to take, relative to the folder with '/' between the parts; None takes all.

    Returns:
        The parts in order.

    Raises:
        ValueError: `out` is not empty, there is no file to take, or no bytes fit into a part.
        FileNotFoundError: no such source.
        OSError: something cannot be read, or the disk is full.
    """
    source, out = pathlib.Path(source), pathlib.Path(out)
    if part_bytes < 1:
        raise ValueError(f'parts of {part_bytes} bytes; give a size of at least one')
    if not source.exists():
        raise FileNotFoundError(f'no folder or file {source}; check the name')
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f'{out} is not empty; choose another folder for the parts')
    root = source if source.is_dir() else source.parent
    if source.is_dir():
        files = (p.relative_to(root).as_posix() for p in source.rglob('*') if p.is_file())
        files = [name for name in files if '.partial-' not in name]
    else:
        files = [source.name]
    names = sorted(files if names is None else names)
    if not names:
        raise ValueError(f'there is no file in {source} to split')
    with atomic_folder(out, integrity.MANIFEST_NAME) as temporary:
        with (
            _PartWriter(temporary, part_bytes) as stream,
            tarfile.open(
                fileobj=stream, mode='w|', bufsize=_BLOCK, format=tarfile.PAX_FORMAT
            ) as archive,
        ):
            for name in names:
                archive.add(root / name, name, filter=_without_owner)
        integrity.write_manifest(temporary)
    return part_files(out)


def join(parts: str | os.PathLike, out: str | os.PathLike) -> pathlib.Path:
    """Makes the folder that `split` was given, after a check of every part.

    Args:
        parts: folder of the parts and their manifest.
        out: the folder, which is not there yet or empty.

    Returns:
        The folder.

    Raises:
        ValueError: a part is missing or damaged, these are no parts, or `out` is not empty.
        OSError: the disk is full.
    """
    parts, out = pathlib.Path(parts), pathlib.Path(out)
    if not is_split(parts):
        raise ValueError(f'{parts} holds no parts with {integrity.MANIFEST_NAME}')
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f'{out} is not empty; choose another folder')
    integrity.verify(parts, remedy='bring that part again')
    with atomic_folder(out, '.') as temporary:
        stream = _PartReader(part_files(parts))
        with tarfile.open(fileobj=stream, mode='r|', bufsize=_BLOCK) as archive:
            archive.extractall(temporary, filter='data')
    return out


def is_split(folder: str | os.PathLike) -> bool:
    """Whether a folder lists parts in its manifest, all there or not."""
    return any(name.startswith(PREFIX) for name in integrity.read_manifest(folder) or {})


def part_files(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The parts in a folder, in order."""
    return sorted(pathlib.Path(folder).glob(f'{PREFIX}*'), key=lambda p: (len(p.name), p.name))


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """What another machine has otherwise is left out, so that equal files give equal parts."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ''
    member.mode = 0o644
    return member


class _PartWriter:
    """A stream that begins a new file whenever one is full."""

    def __init__(self, folder: pathlib.Path, part_bytes: int):
        self._folder, self._size, self._count = folder, part_bytes, 0
        self._file, self._room = None, 0

    def __enter__(self) -> '_PartWriter':
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while len(view):
            if not self._room:
                if self._file is not None:
                    self._file.close()
                self._file = open(self._folder / f'{PREFIX}{self._count:03d}', 'wb')
                self._count, self._room = self._count + 1, self._size
            taken = self._file.write(view[: self._room])
            view, self._room = view[taken:], self._room - taken
        return len(data)


class _PartReader:
    """The files of a list as one stream."""

    def __init__(self, files: Iterable[pathlib.Path]):
        self._blocks, self._rest = _blocks(files), b''

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            block = next(self._blocks, b'')
            if not block:
                break
            self._rest += block
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def _blocks(files: Iterable[pathlib.Path]) -> Iterator[bytes]:
    for path in files:
        with open(path, 'rb') as file:
            while block := file.read(_BLOCK):
                yield block
