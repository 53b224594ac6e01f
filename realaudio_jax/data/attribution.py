"""Who made the recordings that a network was trained on, under which licence.

A run that trains leaves `recordings.csv` beside its weights: the recordings of its training split,
with what their folder says of them. Packing a release joins those of its networks into
ATTRIBUTION.md.
"""

import collections
import csv
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from realaudio_jax.data.sources import Record, Recordings
from realaudio_jax.io import atomic_path

SOURCES_NAME, ATTRIBUTION_NAME = 'recordings.csv', 'ATTRIBUTION.md'
UNKNOWN = 'unknown'
_HEAD = """# Attribution

The networks of this release were trained on procedural sounds and on the recordings below. No
recording is contained in the release. They were resampled to 48 kHz, cut, mixed, panned and changed
in level, and where the training was set so in pitch, tone and room.
"""


class Origin(NamedTuple):
    """A recording's file, as its folder names it, and where it is from."""

    file: str
    licence: str
    author: str
    source: str

    @classmethod
    def of(cls, record: Record) -> 'Origin':
        """The origin that a record states."""
        return cls(record.file, record.licence or UNKNOWN, record.author, record.source)


def note_recordings(
    workdir: str | os.PathLike,
    recordings: str | None,
    starts: Sequence[str | os.PathLike | None] = (),
) -> None:
    """Writes recordings.csv for the training split of a folder, and what the run started from owes.

    Args:
        workdir: of the run, where its weights will lie.
        recordings: folder of recordings, or None.
        starts: weights, or releases, that the run goes on from; None is none.
    """
    origins = set(map(Origin.of, Recordings(recordings, 'train').clips)) if recordings else set()
    paths = map(pathlib.Path, filter(None, starts))
    folders = [path.parent if path.is_file() else path for path in paths]
    for folder in folders:
        origins |= set(read_origins(folder))
    if origins:
        write_origins(workdir, origins)
    _write_text(workdir, _earlier(folders))


def _earlier(folders: Iterable[str | os.PathLike]) -> str:
    """The ATTRIBUTION.md of these folders, each text once."""
    paths = (pathlib.Path(folder) / ATTRIBUTION_NAME for folder in folders)
    texts = [path.read_text(encoding='utf-8') for path in paths if path.is_file()]
    return '\n'.join(dict.fromkeys(texts))


def _write_text(folder: str | os.PathLike, text: str) -> None:
    if text:
        with atomic_path(pathlib.Path(folder) / ATTRIBUTION_NAME) as temporary:
            temporary.write_text(text, encoding='utf-8')


def write_origins(folder: str | os.PathLike, origins: Iterable[Origin]) -> None:
    """Writes recordings.csv, whole or not at all, in the order of the files' names."""
    path = pathlib.Path(folder) / SOURCES_NAME
    with atomic_path(path) as temporary, open(temporary, 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(Origin._fields)
        writer.writerows(sorted(set(origins)))


def read_origins(folder: str | os.PathLike) -> list[Origin]:
    """The recordings that a run's folder names; none where it has no recordings.csv.

    Raises:
        ValueError: the file is of another form.
    """
    path = pathlib.Path(folder) / SOURCES_NAME
    if not path.is_file():
        return []
    with open(path, newline='', encoding='utf-8') as file:
        header, *rows = csv.reader(file)
    if tuple(header) != Origin._fields or any(len(row) != len(header) for row in rows):
        raise ValueError(f'{path}: not written by a training run; remove it or train again')
    return [Origin(*row) for row in rows]


def restricted(origins: Iterable[Origin]) -> str | None:
    """One line on recordings of unknown or restricting licences; None where there are none.

    It reads 'NC', 'ND' and 'Sampling' in the licence's name, which is no legal advice.
    """
    counts = collections.Counter()
    for origin in origins:
        words = origin.licence.upper().replace('+', '').replace(' ', '-').split('-')
        if origin.licence.lower() == UNKNOWN:
            counts['of unknown licence'] += 1
        elif 'NC' in words:
            counts['not for commercial use'] += 1
        elif {'ND', 'SAMPLING'} & set(words):
            counts['not for every derived work'] += 1
    return ', '.join(f'{n} {what}' for what, n in sorted(counts.items())) or None


def attribution(origins: Iterable[Origin], earlier: str = '') -> str:
    """The text of ATTRIBUTION.md.

    Args:
        origins: of the recordings that trained; each counts once.
        earlier: the texts of what other networks were taken over from, or these began with.
    """
    origins = sorted(set(origins))
    lines = [_HEAD, f'{len(origins)} recordings.', '']
    if remark := restricted(origins):
        lines += [f'Of these {remark}.', '']
    lines += _table(('licence', 'files'), collections.Counter(o.licence for o in origins).items())
    by_folder = collections.defaultdict(list)
    for origin in origins:
        by_folder[origin.file.split('/')[0] if '/' in origin.file else ''].append(origin)
    for folder, members in sorted(by_folder.items()):
        lines += [f'## {folder or "Files"}', '']
        counts = collections.Counter((o.author or UNKNOWN, o.licence, o.source) for o in members)
        rows = [(*facts, count) for facts, count in counts.items()]
        lines += _table(('author', 'licence', 'source', 'files'), rows)
    if earlier:
        lines += ['## Earlier networks', '']
        body = (line for line in earlier.splitlines() if line.strip() != '# Attribution')
        lines += [f'#{line}' if line.startswith('#') else line for line in body]
    return '\n'.join(lines).rstrip() + '\n'


def _table(header: Sequence[str], rows: Iterable[Sequence]) -> list[str]:
    """A Markdown table, sorted; what would break its form is written otherwise."""

    def cell(value):
        return ' '.join(str(value).replace('|', r'\|').split())

    lines = [header, ['---'] * len(header), *sorted(rows, key=lambda row: tuple(map(str, row)))]
    return [*(f'| {" | ".join(map(cell, line))} |' for line in lines), '']


def write_attribution(
    folder: str | os.PathLike,
    trained: Sequence[str | os.PathLike],
    base: str | os.PathLike | None = None,
) -> str | None:
    """Writes the ATTRIBUTION.md of a release.

    Args:
        folder: of the release.
        trained: folders of the runs whose networks are new in it.
        base: the release that gave the other networks; None where all are new.

    Returns:
        one line on what was written and on licences that restrict; None where nothing is known.
    """
    earlier = _earlier([*([base] if base else []), *trained])
    origins = sorted({origin for run in trained for origin in read_origins(run)})
    if not origins:
        _write_text(folder, earlier)
        return f'{ATTRIBUTION_NAME}: as before' if earlier else None
    _write_text(folder, attribution(origins, earlier))
    remark = restricted(origins)
    return f'{ATTRIBUTION_NAME}: {len(origins)} recordings' + (f', {remark}' if remark else '')
