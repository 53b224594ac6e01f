"""What a folder of recordings says of its sounds: metadata.csv, or the names of files and folders.

A folder of a published dataset speaks by its own tables, see `layouts`.

metadata.csv is UTF-8 with commas, semicolons or tabs. The columns file and label must be there;
caption, split, licence, author, source, group (what keeps variants of one take together) and
active_regions ('0.15-0.51;0.93-1.26', in seconds) may be. A folder from elsewhere gives files
of its own alone: an absolute name or '..' is refused, and a link that leads out of it left out.
"""

import collections
import csv
import dataclasses
import difflib
import io
import os
import posixpath
import stat
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath

from realaudio_jax.data import label_text, layouts
from realaudio_jax.io import printable
from realaudio_jax.sound_files import SUFFIXES, counted, find_sounds, some

METADATA_NAME = 'metadata.csv'
MAX_BYTES = 1 << 28
COLUMNS = frozenset(
    'file label caption split licence author source source_url group freesound_id '
    'active_regions'.split()
)
SPLITS = {
    **dict.fromkeys(('train', 'training'), 'train'),
    **dict.fromkeys(
        ('held_out', 'held-out', 'test', 'eval', 'val', 'valid', 'validation', 'dev'), 'held_out'
    ),
}
# Folders whose name says nothing of the sounds in them.
_PLAIN_FOLDERS = {
    'audio',
    'data',
    'files',
    'recordings',
    'samples',
    'sound',
    'sounds',
    'wav',
    'wavs',
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A recording as its folder describes it.

    `split` is 'train', 'held_out' or '' for either; `take` keeps its variants together, and where
    it is '' it is made of `group` and the name of the file.
    """

    file: str
    label: str
    captions: tuple[str, ...] = ()
    split: str = ''
    licence: str = ''
    take: str = ''
    group: str = ''
    active_regions: str = ''
    author: str = ''
    source: str = ''


@dataclasses.dataclass(frozen=True)
class Table:
    """The recordings of a folder: rows by file, the folder their names are relative to, a name.

    `source` is what a message calls it: the path of metadata.csv, or of the folder.
    """

    source: str
    root: Path
    rows: dict[str, Row]


def read_table(folder: str | os.PathLike, log: Callable[[str], None]) -> Table:
    """The recordings of a folder, of metadata.csv where there is one, else of its files' names.

    Args:
        folder: holds metadata.csv with the files beside it or under audio/, or files alone; the
            label of these is the name of the folder they lie in, or of the file.
        log: called with one line for each kind of thing that is left out or not used.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no sounds in it, or a table that cannot be used; names the line.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'no folder {printable(folder)}; check the name')
    homes = (folder, folder.parent) if folder.name == 'audio' else (folder,)
    home = next((home for home in homes if (home / METADATA_NAME).exists()), None)
    if home is None:
        return _without_links(_published(folder, log) or _from_names(folder, log), folder, log)
    path = home / METADATA_NAME
    if not stays_within(path, home):
        raise ValueError(f'{printable(path)}: a link out of its folder; copy the table into it')
    rows = _read_rows(path, log)
    root = next(
        (
            root
            for root in (home / 'audio', home)
            if any(os.path.exists(root / row.file) for row in rows)
        ),
        home / 'audio' if (home / 'audio').is_dir() else home,
    )
    table = Table(printable(path), root, _resolved(rows, root, printable(path), log))
    return _without_links(table, home, log)


def stays_within(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Whether a file lies in a folder, links followed."""
    return os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), ''))


def _without_links(table: Table, folder: Path, log: Callable[[str], None]) -> Table:
    """The table without files that are links to places outside of the folder."""
    folder = os.path.realpath(folder)
    out = [file for file in table.rows if not stays_within(table.root / file, folder)]
    if not out:
        return table
    line = (
        f'{table.source}: left out {counted(len(out), "file")} linked from outside of the folder: '
        f'{some(out)}; copy what belongs to it into it'
    )
    if len(out) == len(table.rows):
        raise ValueError(line)
    log(line)
    rows = dict(table.rows)
    for file in out:
        del rows[file]
    return dataclasses.replace(table, rows=rows)


def _read_rows(path: Path, log: Callable[[str], None]) -> list[Row]:
    """The rows that name a file and a label, in order."""
    name = printable(path)
    lines = table_lines(path)
    columns = [column.strip().lower() for column in next(lines, (0, []))[1]]
    columns = ['licence' if column == 'license' else column for column in columns]
    _check_columns(columns, name)
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown:
        log(f'{name}: columns not used: {some(unknown, 8)}')
    rows, problems = [], collections.defaultdict(list)
    for number, cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        if any(cell.strip() for cell in cells[len(columns) :]):
            problems['with too many cells (quote a text with a separator in it)'].append(number)
            continue
        row = _row(dict(zip(columns, map(str.strip, cells), strict=False)), name, number)
        if not row.file or not row.label:
            problems['without a file' if row.label else 'without a label'].append(number)
            continue
        if any(unicodedata.category(c) == 'Cc' for c in row.label + ''.join(row.captions)):
            problems['with control characters (type its words again)'].append(number)
            continue
        rows.append(row)
    for problem, numbers in problems.items():
        log(
            f'{name}: left out {counted(len(numbers), "row")} {problem}: line '
            f'{some(map(str, numbers))}'
        )
    if not rows:
        raise ValueError(f'{name}: no row has a file and a label; add a row for each sound')
    return rows


def table_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the line number and the cells of each row of a CSV file, the header first.

    Args:
        path: UTF-8, with commas, semicolons or tabs, whichever the header has most of.

    Raises:
        ValueError: no such text; the message names the line.
    """
    name = printable(path)
    about = path.stat()
    if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_BYTES:
        raise ValueError(
            f'{name}: no regular file of at most {MAX_BYTES >> 20} MiB; put a CSV table there'
        )
    try:
        text = path.read_bytes().decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(f'{name}: not UTF-8 text; save it as UTF-8 CSV') from error
    if '\0' in text:
        line = text.count('\n', 0, text.index('\0')) + 1
        raise ValueError(f'{name}: line {line} holds a NUL character; save it as UTF-8 CSV')
    header = text.split('\n', 1)[0]
    reader = csv.reader(
        io.StringIO(text, newline=''), delimiter=max(',;\t', key=header.count), strict=True
    )
    begin = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f'{name}: line {begin}: {error}; look for a quotation mark that is not closed there'
            ) from error
        yield begin, cells
        begin = reader.line_num + 1


def _check_columns(columns: list[str], name: str) -> None:
    for column in ('file', 'label'):
        if column not in columns:
            close = difflib.get_close_matches(column, columns, 1)
            remedy = f'; is it {close[0]!r}?' if close else f'; it has {some(columns, 8) or "none"}'
            raise ValueError(f'{name}: the column {column!r} is missing{remedy}')
    twice = [column for column in COLUMNS if columns.count(column) > 1]
    if twice:
        raise ValueError(f'{name}: the column {twice[0]!r} is there twice; keep one of them')


def require_within(file: str, place: str) -> None:
    """Raises ValueError where a name in a table leads out of the table's folder.

    Args:
        file: the name.
        place: where it stands, for the message.
    """
    # a name of Windows is absolute by its drive alone, and has backslashes between its parts
    windows = PureWindowsPath(file)
    if windows.drive or windows.root or file.startswith(('/', '~')) or '..' in windows.parts:
        raise ValueError(
            f'{place} names {printable(file, 80)!r}; files are named relative to their folder, '
            'without ..'
        )


def _row(cells: dict[str, str], name: str, number: int) -> Row:
    file = cells.get('file', '')
    require_within(file, f'{name}: line {number}')
    file = posixpath.normpath(file) if file else ''
    split = cells.get('split', '').lower()
    if split and split not in SPLITS:
        raise ValueError(
            f'{name}: line {number} has the split {printable(split, 40)!r}; use train or held_out'
        )
    return Row(
        file=file,
        label=_visible(cells.get('label', '')),
        captions=tuple(filter(None, [_visible(cells.get('caption', ''))])),
        split=SPLITS.get(split, ''),
        licence=cells.get('licence', ''),
        group=cells.get('freesound_id') or cells.get('group', ''),
        active_regions=cells.get('active_regions', ''),
        author=cells.get('author', ''),
        source=cells.get('source_url') or cells.get('source', ''),
    )


def _visible(text: str) -> str:
    """A text with single spaces, without marks that show nothing, such as a zero-width space."""
    return ' '.join(''.join(c for c in text if unicodedata.category(c) != 'Cf').split())


def _resolved(
    rows: list[Row], root: Path, source: str, log: Callable[[str], None]
) -> dict[str, Row]:
    """The rows by the name of a file, with the suffix where the table leaves it out."""
    by_stem: dict[str, list[str]] | None = None
    found, missing, several, twice = {}, [], [], []
    for row in rows:
        names = [row.file]
        if not os.path.exists(root / row.file):
            if by_stem is None:
                by_stem = collections.defaultdict(list)
                for path in find_sounds(root).sounds:
                    name = path.relative_to(root)
                    by_stem[name.with_suffix('').as_posix()].append(name.as_posix())
            slashed = row.file.replace('\\', '/')
            names = [slashed] if os.path.exists(root / slashed) else by_stem.get(slashed, [])
        if len(names) != 1:
            (several if names else missing).append(row.file)
        elif names[0] in found:
            twice.append(row.file)
        else:
            found[names[0]] = dataclasses.replace(row, file=names[0])
    for what, files in (
        ('not there', missing),
        ('that may be one of several', several),
        ('named a second time', twice),
    ):
        if files:
            log(f'{source}: left out {counted(len(files), "file")} {what}: {some(files)}')
    return found


def _published(folder: Path, log: Callable[[str], None]) -> Table | None:
    """The rows of a dataset in its own layout, None for another folder."""
    found = layouts.read(folder, log)
    if found is None:
        return None
    root, rows = found
    names = [field.name for field in dataclasses.fields(Row) if field.name in rows[0]]
    table = [Row(**{name: row[name] for name in names}) for row in rows]
    return Table(printable(root), root, {row.file: row for row in table})


def _from_names(folder: Path, log: Callable[[str], None]) -> Table:
    """Labels from the names of folders, or of files where these lie in `folder` itself."""
    name = printable(folder)
    found = find_sounds(folder)
    if not found.sounds:
        raise ValueError(
            f'{name}: no sound files ({", ".join(SUFFIXES)})'
            + (f'; {found.remark()}' if found.others else '')
        )
    if found.others:
        log(f'{name}: {found.remark()}')
    rows, unnamed, of_all = {}, [], label_text.from_name(folder.resolve().name)
    for path in found.sounds:
        file = path.relative_to(folder)
        parts = list(file.parts[:-1])
        split = SPLITS.get(parts[0].lower(), '') if parts else ''
        folders = [p for p in parts[bool(split) :] if p.lower() not in _PLAIN_FOLDERS]
        label = label_text.from_name(folders[-1] if folders else path.stem)
        if not any(c.isalpha() for c in label):
            unnamed.append(file.as_posix())
            label = of_all
        rows[file.as_posix()] = Row(file.as_posix(), label, split=split)
    if len({row.split for row in rows.values()}) == 1:  # a folder's name, but no split
        rows = {file: dataclasses.replace(row, split='') for file, row in rows.items()}
    labels = sorted({row.label for row in rows.values()})
    log(
        f'{name}: no {METADATA_NAME}, so labels come from the names of folders and files; '
        f'{counted(len(rows), "sound")}, {counted(len(labels), "label")}: {some(labels, 8)}'
    )
    if unnamed:
        log(
            f'{name}: {counted(len(unnamed), "name")} without a word, labelled {of_all!r}: '
            f'{some(unnamed)}'
        )
    return Table(name, folder, rows)
