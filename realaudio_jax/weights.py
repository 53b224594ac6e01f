"""Weights by name: a folder, a repository of the Hugging Face Hub, or an archive on the web.

    foley                               a shipped release
    DIR                                 a folder
    stable-audio-open                   a published teacher, see `PRETRAINED`
    hf://OWNER/NAME@COMMIT              a repository of the Hub at a commit of 40 hex digits
    https://HOST/NAME.tar#sha256=HEX    a tar archive, uncompressed, with its SHA-256

The part after '@' or '#' is the pin: it names the bytes, so the same name always gives the same
weights. A name without a pin is taken too, with a line that says what its pin is. What was got once
is used from then on, without a network. Only safetensors, JSON and text are fetched; nothing that
is fetched is ever run. Files get their names when they are complete and their digests are right:
those of the pin, of the Hub's own records, and of the release's SHA256SUMS.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import re
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence

from realaudio_jax import integrity
from realaudio_jax.cache import cache_dir
from realaudio_jax.io import atomic_folder, atomic_path

HUB, WEB = 'hf://', ('https://', 'http://')
# What is fetched; of a repository of anything else nothing is.
KINDS = ('*.safetensors', '*.json', '*.txt', '*.md', 'LICENSE*', 'NOTICE*', integrity.MANIFEST_NAME)
_COMMIT = re.compile('[0-9a-f]{40}')
_SHA256 = re.compile('[0-9a-f]{64}')
_REPOSITORY = re.compile(r'\w[\w.-]*/\w[\w.-]*')
_FORMS = 'hf://OWNER/NAME@COMMIT or https://HOST/NAME.tar#sha256=HEX'
_NAMED = 3  # files that a message names


class FetchError(OSError):
    """Weights that cannot be had, or came damaged; the message is one line with the remedy."""


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A published teacher.

    Attributes:
        repository: its name with the pinned commit.
        parts: folders of the repository that are read; () where all of it is.
        licence: of its weights, as its authors state it.
        note: what else has to be done, or ''.
    """

    repository: str
    parts: tuple[str, ...]
    licence: str
    note: str = ''


# Commits as other projects pin them. None of these was downloaded or run by this project's tests.
PRETRAINED = {
    'stable-audio-open': Pretrained(
        'hf://stabilityai/stable-audio-open-1.0@f21265c1e2710b3bd2386596943f0007f55f802e',
        ('transformer', 'projection_model', 'vae', 'text_encoder', 'tokenizer', 'scheduler'),
        'Stability AI Community License (accepted on its page first)',
    ),
    'audioldm2': Pretrained(
        'hf://cvssp/audioldm2@c8e7e189d324425c05c4c2f81214041ef4107983',
        (
            *('unet', 'vae', 'vocoder', 'projection_model', 'language_model', 'text_encoder'),
            *('text_encoder_2', 'tokenizer', 'tokenizer_2', 'feature_extractor', 'scheduler'),
        ),
        'CC BY-NC-SA 4.0',
    ),
    'stable-audio-3-small-sfx': Pretrained(
        'hf://stabilityai/stable-audio-3-small-sfx@ae12755283df9d62ca39a9b050a39a0b607b8c20',
        (),
        'Stability AI Community License and the terms of Gemma (accepted on its page first)',
        'it is published in the layout of its authors: make the folders of diffusers of it with '
        'scripts/convert_stable_audio_3_to_diffusers.py of diffusers, and give that folder',
    ),
}


@dataclasses.dataclass(frozen=True)
class Address:
    """A remote name, taken apart.

    Attributes:
        place: 'OWNER/NAME' of the Hub, or the URL of an archive without its pin.
        pin: the commit or the SHA-256; None where the name has none.
        hub: whether it is a repository of the Hub.
    """

    place: str
    pin: str | None
    hub: bool

    def __str__(self) -> str:
        if self.hub:
            return f'{HUB}{self.place}' + (f'@{self.pin}' if self.pin else '')
        return self.place + (f'#sha256={self.pin}' if self.pin else '')


def is_remote(name: str | os.PathLike) -> bool:
    """Whether a name has to be fetched; any other is that of a folder or a shipped release."""
    return str(name).startswith((HUB, *WEB))


def parse(name: str) -> Address:
    """Takes a remote name apart.

    Raises:
        ValueError: it is none of the two forms, or unencrypted without a pin.
    """
    if name.startswith(HUB):
        place, at, pin = name.removeprefix(HUB).partition('@')
        pin = pin.lower()
        if not _REPOSITORY.fullmatch(place) or (at and not _COMMIT.fullmatch(pin)):
            raise ValueError(
                f'{name!r} is no repository at a commit of 40 hex digits: give {_FORMS}'
            )
        return Address(place, pin or None, hub=True)
    place, mark, pin = name.partition('#')
    pin = pin.removeprefix('sha256=').lower()
    if (
        not place.startswith(WEB)
        or not place.endswith('.tar')
        or (mark and not _SHA256.fullmatch(pin))
    ):
        raise ValueError(
            f'{name!r} is no tar archive with a SHA-256 of 64 hex digits: give {_FORMS}'
        )
    if place.startswith('http://') and not pin:
        raise ValueError(f'{name!r} is not encrypted: add #sha256=HEX, or give its https address')
    return Address(place, pin or None, hub=False)


def fetch(
    name: str,
    parts: Sequence[str] = (),
    release: bool = True,
    log: Callable[[str], None] | None = None,
) -> pathlib.Path:
    """The folder of a remote name; downloaded if it is not here yet.

    Args:
        name: see `parse`.
        parts: folders of a repository that are wanted, besides the files at its top; () for all.
        release: it must hold a config.json and a SHA256SUMS whose files are all there and right.
        log: called with a line when a download starts, with the licence at the end of it, and with
            the pin of a name that has none; None prints to the standard error output.

    Raises:
        FetchError: no network and no copy, a login is needed, damage; one line.
        ValueError: the name is of no known form, or the archive holds what no release does.
    """
    log = _to_stderr if log is None else log
    address = parse(name)
    get = _from_hub if address.hub else _from_web
    folder, pin, new = get(address, tuple(parts), release, log)
    if address.pin is None:
        pinned = dataclasses.replace(address, pin=pin)
        log(f'{name} has no pin: what it gave is {pinned}; give this name to have the same again')
    if new:
        log(f'{name}: licence {licence(folder)}; see {folder / "README.md"}')
    return folder


def find_pretrained(
    name: str | os.PathLike, log: Callable[[str], None] | None = None
) -> pathlib.Path:
    """The folder of a published teacher: by path, by a short name of `PRETRAINED`, or by `fetch`.

    Raises:
        FetchError, ValueError: as `fetch`. A folder is not looked at.
    """
    name = str(name)
    if is_remote(name):
        return fetch(name, release=False, log=log)
    if name not in PRETRAINED or pathlib.Path(name).is_dir():
        return pathlib.Path(name)
    found, log = PRETRAINED[name], _to_stderr if log is None else log
    folder = fetch(found.repository, found.parts, release=False, log=log)
    if found.note:
        log(f'{name}: {found.note}; it is in {folder}')
    return folder


def licence(folder: str | os.PathLike) -> str:
    """The licence that a folder states: of its model card, or the first line of its LICENSE."""
    folder = pathlib.Path(folder)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        card = (folder / 'README.md').read_text(encoding='utf-8')
        header = re.match(r'---\n(.*?)\n---', card, re.DOTALL)
        stated = dict(re.findall(r'^(license\w*):[ \t]*(\S.*)$', header[1] if header else '', re.M))
        if stated:
            other = stated.get('license_name') if stated.get('license') == 'other' else None
            return other or stated.get('license') or stated.get('license_name') or 'not stated'
    for path in sorted(folder.glob('LICENSE*')):
        lines = path.read_text(encoding='utf-8', errors='replace').split('\n')
        return next((line.strip() for line in lines if line.strip()), 'not stated')
    return 'not stated'


def _from_hub(
    address: Address, parts: tuple[str, ...], release: bool, log: Callable[[str], None]
) -> tuple[pathlib.Path, str, bool]:
    """(folder, commit, whether it is new) of a repository."""
    record = _record(f'{address}{"".join(f" {part}" for part in parts)}')
    known = _read_record(record)
    if known and _is_complete(known):
        return pathlib.Path(known['folder']), known['pin'], False
    log(f'getting {address}')
    # Its import takes as long as jax's, and few names need it; it sets the level of its own log.
    from huggingface_hub import snapshot_download

    patterns = [*KINDS] if not parts else [f'{part}/{kind}' for part in parts for kind in KINDS]
    patterns += ['model_index.json', 'config.json', 'README.md', 'LICENSE*'] if parts else []
    with _one_line(address), _quiet(logging.getLogger('huggingface_hub')):
        folder = snapshot_download(
            address.place,
            revision=address.pin,
            allow_patterns=patterns,
            ignore_patterns=['*.fp16.*', '*.bf16.*'] if parts else None,
        )
    folder = pathlib.Path(folder)
    _require_whole(address, folder, release)
    files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in _files(folder)}
    pin = folder.name
    _write_record(record, {'folder': str(folder), 'pin': pin, 'files': files})
    return folder, pin, True


def _require_whole(address: Address, folder: pathlib.Path, release: bool) -> None:
    """Removes the files of a download that are not what they should be, and says so."""
    listed = integrity.read_manifest(folder) or {} if release else {}
    damaged = []
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        blob = path.resolve()
        expected = [blob.name, *([listed[name]] if name in listed else [])]
        if not all(_has_digest(blob, digest) for digest in expected):
            damaged.append(name)
            path.unlink()
            blob.unlink(missing_ok=True)
    if damaged:
        more = f' and {len(damaged) - _NAMED} more' if len(damaged) > _NAMED else ''
        raise FetchError(
            f'{address}: {", ".join(damaged[:_NAMED])}{more} came damaged and is gone; try again'
        )
    if release:
        _require_release(address, folder)


def _require_release(address: Address, folder: pathlib.Path) -> None:
    if not (folder / 'config.json').is_file():
        raise FetchError(f'{address} is no release: it has no config.json')
    try:
        checked = integrity.verify(folder, remedy='its author has to publish it again')
    except integrity.IntegrityError as error:
        problem = str(error).removeprefix(f'{folder}: ')
        raise FetchError(f'{address}: {problem}') from error
    if not checked:
        raise FetchError(
            f'{address} has no {integrity.MANIFEST_NAME}, which a release from elsewhere must have'
        )


def _has_digest(path: pathlib.Path, digest: str) -> bool:
    """Whether a file has the digest that the Hub knows it by; any other name tells nothing."""
    if _SHA256.fullmatch(digest):
        return integrity.digest(path) == digest
    if _COMMIT.fullmatch(digest):  # as git names a blob
        content = path.read_bytes()
        return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest() == digest
    return True


def _from_web(
    address: Address, parts: tuple[str, ...], release: bool, log: Callable[[str], None]
) -> tuple[pathlib.Path, str, bool]:
    """(folder, SHA-256 of the archive, whether it is new) of an archive."""
    del parts
    record = _record(address.place)
    pin = address.pin or (_read_record(record) or {}).get('pin')
    if pin and (_store() / pin).is_dir():
        return _store() / pin, pin, False
    log(f'getting {address}')
    import pooch

    _store().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_store(), prefix='.partial-') as temporary:
        with _one_line(address), _quiet(pooch.get_logger()):
            path = pooch.retrieve(
                address.place,
                known_hash=f'sha256:{address.pin}' if address.pin else None,
                fname='release.tar',
                path=temporary,
            )
        pin = integrity.digest(path)
        folder = _store() / pin
        with atomic_folder(folder, 'config.json') as unpacked:
            unpack(path, unpacked, str(address))
            if release:
                _require_release(address, unpacked)
    _write_record(record, {'pin': pin})
    return folder, pin, True


def unpack(path: str | os.PathLike, folder: str | os.PathLike, name: str) -> None:
    """Unpacks the safetensors, JSON and text of an archive; a folder around all of it is left out.

    Contents alone are taken: no owner, no permission, no time, no link, no device.

    Args:
        path: an uncompressed tar archive.
        folder: where; empty.
        name: of the archive in messages.

    Raises:
        ValueError: it holds a link, a device or a path out of the folder, or is damaged.
    """
    try:
        with tarfile.open(path, 'r:') as archive:
            members = archive.getmembers()
            for member in members:
                _require_plain(member, name)
            files = [(m, pathlib.PurePosixPath(m.name)) for m in members if m.isfile()]
            tops = {inside.parts[0] for _, inside in files}
            around = len(tops) == 1 and all(len(inside.parts) > 1 for _, inside in files)
            for member, inside in files:
                if not any(inside.match(kind) for kind in KINDS):
                    continue
                target = pathlib.Path(folder).joinpath(*inside.parts[around:])
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.extractfile(member) as source, open(target, 'xb') as file:
                    while block := source.read(1 << 20):
                        file.write(block)
                if target.stat().st_size != member.size:
                    raise ValueError(f'{name} ends amid {member.name}; get it again')
    except (tarfile.TarError, EOFError, FileExistsError, NotADirectoryError) as error:
        raise ValueError(
            f'{name} is no whole, uncompressed tar archive ({error}); get it again'
        ) from error


def _require_plain(member: tarfile.TarInfo, name: str) -> None:
    """Refuses what no release holds: links, devices, pipes, and paths that lead out of it."""
    inside = pathlib.PurePosixPath(member.name)
    if not (member.isdir() or (member.isreg() and not member.issparse())):
        raise ValueError(f'{name} holds {member.name!r}, which is neither a file nor a folder')
    if inside.is_absolute() or '..' in inside.parts or '\\' in member.name or ':' in member.name:
        raise ValueError(f'{name} holds {member.name!r}, which leads out of its folder')


@contextlib.contextmanager
def _one_line(address: Address) -> Iterator[None]:
    """Whatever a download ends with, as one line."""
    try:
        yield
    except Exception as error:  # of two libraries and of theirs
        raise FetchError(f'{address}: {_reason(error, address)}') from error


def _reason(error: BaseException, address: Address) -> str:
    """Why a download failed, and what helps."""
    chain, found = [], error
    while found is not None and found not in chain:
        chain, found = [*chain, found], found.__cause__ or found.__context__
    names = {kind.__name__ for one in chain for kind in type(one).__mro__}
    codes = [getattr(getattr(one, 'response', None), 'status_code', None) for one in chain]
    code = next((code for code in codes if code), None)
    if code in (401, 403):
        if address.hub:
            page = f'https://huggingface.co/{address.place}'
            return f'it needs a login, or is not there: see {page}, then run `hf auth login`'
        return f'the server wants a login (status {code})'
    if code == 404 or 'RepositoryNotFoundError' in names:
        return 'there is no such thing at that address (status 404); check the name'
    if code:
        return f'the server answered with status {code}; try again later'
    if any('does not match' in str(one) and 'hash' in str(one) for one in chain):
        return 'what came has another SHA-256 than the name says; check the name, or try again'
    if names & {'IncompleteRead', 'ChunkedEncodingError', 'RemoteProtocolError'} or any(
        'Consistency check failed' in str(one) for one in chain
    ):
        return 'the download ended early; try again'
    if names & {
        *('ConnectionError', 'ConnectError', 'TimeoutException', 'Timeout', 'NetworkError'),
        *('OfflineModeIsEnabled', 'LocalEntryNotFoundError'),
    }:
        return 'it is not here and cannot be reached; try again where there is a network'
    first = (str(error) or type(error).__name__).splitlines()[0]
    return f'{first[:200]}; try again'


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Without the lines that a library logs on its way."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _store() -> pathlib.Path:
    return cache_dir() / 'weights'


def _record(key: str) -> pathlib.Path:
    """Where it is noted what a name gave."""
    return _store() / 'names' / f'{hashlib.sha256(key.encode()).hexdigest()[:32]}.json'


def _read_record(path: pathlib.Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None


def _write_record(path: pathlib.Path, content: dict) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding='utf-8')


def _is_complete(record: dict) -> bool:
    folder = pathlib.Path(record['folder'])
    try:
        return all((folder / n).stat().st_size == size for n, size in record['files'].items())
    except OSError:
        return False


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob('*') if path.is_file())


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
