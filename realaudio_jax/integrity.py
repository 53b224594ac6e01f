"""SHA-256 manifests of folders: a file that changed since it was written is an error.

A folder carries its manifest as one more file, in the format of coreutils, so that `sha256sum -c
SHA256SUMS` checks it too: on each line the SHA-256 of a file (FIPS 180-4), two spaces, and its path
below the folder with '/' between the parts.

    write_manifest(folder)      lists every file, or the ones named
    update_manifest(folder, 'config.json')      after one of them was written anew
    verify(folder)              IntegrityError, a ValueError, names what changed or is missing

Hashing reads every byte once: 53 MB take 0.05 s on a core with SHA instructions, 0.2 s on others.
"""

import hashlib
import os
import pathlib
import re
import zipfile
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from realaudio_jax.io import atomic_path

MANIFEST_NAME = 'SHA256SUMS'
_LINE = re.compile(r'([0-9a-f]{64})  (.+)')
_NAMED = 3  # files an error names; it counts the others


class IntegrityError(ValueError):
    """A file differs from its folder's manifest; the message names it."""


def digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read. ValueError: it is no regular file (a pipe would block for ever).
    """
    if pathlib.Path(path).exists() and not pathlib.Path(path).is_file():
        raise ValueError(f'{path}: it is no regular file; remove it')
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def write_manifest(folder: str | os.PathLike, names: Iterable[str] | None = None) -> None:
    """Writes the manifest of a folder, whole or not at all.

    Args:
        folder: of the files, all of them written and closed.
        names: paths below it, with '/' between the parts; None: every file in it and below, but the
            manifest itself and temporary ones.

    Raises:
        FileNotFoundError: a name that is not there.
        OSError: the disk is full or the folder cannot be written.
    """
    folder = pathlib.Path(folder)
    if names is None:
        paths = (p for p in folder.rglob('*') if p.is_file())
        names = (p.relative_to(folder).as_posix() for p in paths)
        names = (n for n in names if n != MANIFEST_NAME and '.partial-' not in n)
    _write(folder, {name: digest(folder / name) for name in names})


def update_manifest(folder: str | os.PathLike, *names: str) -> None:
    """Updates a folder's manifest for files that were rewritten or removed, if it has one.

    A folder without one is left as it is.

    Raises:
        OSError: as `write_manifest`. IntegrityError: the manifest itself is damaged.
    """
    folder, listed = pathlib.Path(folder), read_manifest(folder)
    if listed is None:
        return
    for name in names:
        listed.pop(name, None)
        if (folder / name).exists():
            listed[name] = digest(folder / name)
    _write(folder, listed)


def read_manifest(folder: str | os.PathLike) -> dict[str, str] | None:
    """Digests by path below the folder, or None where it has no manifest.

    Raises:
        IntegrityError: the manifest is damaged.
    """
    path = pathlib.Path(folder) / MANIFEST_NAME
    if not path.is_file():
        return None
    listed = {}
    try:
        for line in path.read_text(encoding='utf-8').splitlines():
            found, name = _LINE.fullmatch(line).groups()
            listed[name] = found
    except (AttributeError, UnicodeDecodeError):
        raise IntegrityError(f'{path} is damaged; get the folder again') from None
    return listed


def verify(
    folder: str | os.PathLike,
    names: Collection[str] | None = None,
    remedy: str = 'get it again or make it anew',
) -> bool:
    """Checks the files of a folder against its manifest.

    Args:
        folder: of the files.
        names: the files that will be read where they are there: a listed one must be whole, and one
            that is there must be listed. None: all that are listed.
        remedy: what a message advises.

    Returns:
        True where they were checked, False where the folder has no manifest.

    Raises:
        IntegrityError: a file is missing, changed or not listed; the message names it.
    """
    folder, listed = pathlib.Path(folder), read_manifest(folder)
    if listed is None:
        return False
    wrong = []
    for name in sorted(listed if names is None else names):
        path = folder / name
        if not path.exists():
            problem = 'is missing' if name in listed else None
        elif name not in listed:
            problem = f'is not listed in {MANIFEST_NAME}'
        else:
            problem = None if digest(path) == listed[name] else 'is damaged or another file'
        if problem:
            wrong.append(f'{name} {problem}')
    if wrong:
        more = f' and {len(wrong) - _NAMED} more' if len(wrong) > _NAMED else ''
        raise IntegrityError(f'{folder}: {", ".join(wrong[:_NAMED])}{more}; {remedy}')
    return True


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray] | None:
    """Arrays of an npz file, which has a CRC-32 of each; None where it is damaged or missing."""
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError, NotImplementedError):
        return None


def _write(folder: pathlib.Path, digests: Mapping[str, str]) -> None:
    with atomic_path(folder / MANIFEST_NAME) as temporary:
        lines = [f'{digests[name]}  {name}\n' for name in sorted(digests)]
        temporary.write_text(''.join(lines), encoding='utf-8')
