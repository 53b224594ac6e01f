"""Datasets as they are published: local folders of ESC-50, FSD50K, Clotho, AudioCaps, and others.

    ESC-50        meta/esc50.csv, audio/, LICENSE
    UrbanSound8K  metadata/UrbanSound8K.csv, audio/fold1/ to audio/fold10/, FREESOUNDCREDITS.txt
    FSD50K        FSD50K.ground_truth/{dev,eval}.csv, FSD50K.dev_audio/, FSD50K.eval_audio/,
                  FSD50K.metadata/{dev,eval}_clips_info_FSD50K.json
    Clotho        clotho_captions_*.csv, development/, validation/, evaluation/,
                  clotho_metadata_*.csv
    AudioCaps     {train,val,test}.csv, here or in dataset/ or csv_files/; sounds anywhere below,
                  named by youtube_id, with the start time behind it or not, or by audiocap_id
    WavCaps       *.json, here or below json_files/, {"data": [{"id", "caption", ...}]}; sounds
                  anywhere below, named by id

Sounds are found by their name without its suffix, so a copy in FLAC or Ogg Vorbis serves as well.
Nothing is downloaded. `read` gives the rows that metadata.csv gives for a folder of one's own; who
takes a recordings folder takes these.
"""

import contextlib
import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from realaudio_jax.sound_files import find_sounds

Row = dict[str, Any]
Log = Callable[[str], None]

LONGEST_SECONDS = 300.0  # WavCaps holds recordings of hours; each would be decoded whole
UNKNOWN = 'unknown'
_ESC50_CREDIT = re.compile(
    r'- \[(?P<stem>[\w-]+)\.\w+\]:.*\((?P<source>https?://\S+)\) by (?P<author>.*) '
    r'\[(?P<licence>[^\]]+)\]\s*$'
)
_URBANSOUND_CREDIT = re.compile(r'(?P<id>\d+) by (?P<author>.+)')
_CREATIVE_COMMONS = re.compile(
    r'creativecommons\.org/(?:licenses|publicdomain)/(?P<kind>[a-z+-]+)/(?P<version>[\d.]+)'
)


class Layout(NamedTuple):
    """One published dataset: its name, how its folder is known, and how that is read.

    Attributes:
        name: as papers write it.
        index: the files that say what the sounds are; none: the folder is something else.
        rows: (files of the index, sounds of the folder, folder) to rows.
    """

    name: str
    index: Callable[[Path], list[Path]]
    rows: Callable[[list[Path], 'Sounds', Path], Iterable[Row]]


class Sounds:
    """The sound files below a folder, found by their stem.

    Args:
        folder: searched to any depth; hidden folders are not.
    """

    def __init__(self, folder: Path):
        self._by_stem: dict[str, list[str]] = {}
        for path in find_sounds(folder).sounds:
            name = path.relative_to(folder).as_posix()
            self._by_stem.setdefault(path.stem, []).append(name)

    def __len__(self) -> int:
        return len(self._by_stem)

    def find(self, stem: str, within: str = '') -> str | None:
        """The file of this stem, relative to the folder.

        Args:
            stem: its name without the suffix.
            within: a folder that it lies in, at any depth; '' is any.
        """
        for path in self._by_stem.get(stem, ()):
            if not within or within in path.split('/')[:-1]:
                return path
        return None


def licence_name(text: str) -> str:
    """The short name of a licence: '.../creativecommons.org/licenses/by/3.0/' -> 'CC-BY-3.0'.

    What is no Creative Commons address stays as it is; nothing at all is 'unknown'.
    """
    text = (text or '').strip()
    match = _CREATIVE_COMMONS.search(text.lower())
    if not match:
        return {'CC0': 'CC0-1.0'}.get(text, text or UNKNOWN)
    kind = match['kind']
    return f'CC0-{match["version"]}' if kind == 'zero' else f'CC-{kind.upper()}-{match["version"]}'


def detect(folder: str | os.PathLike) -> tuple[Layout, Path] | None:
    """The layout of a folder, or of the one folder in it that has one; None for something else.

    Returns:
        the layout, and the folder that its index lies in.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return None
    found = _detect(folder)
    if found:
        return found
    below = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    hits = [hit for hit in map(_detect, below) if hit]
    return hits[0] if len(hits) == 1 else None


def _detect(folder: Path) -> tuple[Layout, Path] | None:
    return next(((layout, folder) for layout in LAYOUTS if layout.index(folder)), None)


def read(
    folder: str | os.PathLike, log: Log, name: str | None = None
) -> tuple[Path, list[Row]] | None:
    """Reads a folder in one of the layouts.

    Args:
        folder: of the dataset.
        log: takes one line where files of the index are not there.
        name: of the layout that it must have; None is any.

    Returns:
        the folder that file names count from, and a row for each sound that is there, with the
        columns file, label, labels and captions (tuples), split ('train', 'held_out' or ''),
        subset (the dataset's own name for its part), take, licence, author and source; None where
        no layout fits.

    Raises:
        ValueError: the folder has a layout and lacks a part of it, or is of another than `name`;
            one line with the remedy.
    """
    found = detect(folder)
    if found is None or (name and found[0].name != name):
        if name is None:
            return None
        wanted = next(layout for layout in LAYOUTS if layout.name == name)
        is_what = 'no such dataset' if found is None else found[0].name
        raise ValueError(f'{folder}: {is_what}; {wanted.name} has {_signature(wanted)}')
    layout, home = found
    sounds = Sounds(home)
    if not len(sounds):
        raise ValueError(
            f'{home}: this is {layout.name} without its sounds; unpack the audio into it'
        )
    rows, listed = [], 0
    for row in layout.rows(layout.index(home), sounds, home):
        listed += 1
        if row['file'] is not None:
            rows.append(row)
    if not rows:
        raise ValueError(
            f'{home}: this is {layout.name}, and none of the {listed} sounds that it lists is '
            'there; unpack the audio into it'
        )
    if len(rows) < listed:
        log(f'{home}: {listed - len(rows)} of {listed} sounds of {layout.name} are not there')
    return home, rows


def _signature(layout: Layout) -> str:
    """The line of this module's text that describes a layout, without its name."""
    lines = __doc__.splitlines()
    return next(line.split(maxsplit=1)[1] for line in lines if line.strip().startswith(layout.name))


def _row(file: str | None, label: str, **columns: Any) -> Row:
    row = {
        'file': file,
        'label': label,
        'labels': (label,),
        'captions': (),
        'split': '',
        'subset': '',
        'take': '',
        'licence': UNKNOWN,
        'author': '',
        'source': '',
    }
    return row | columns


def _table(path: Path, *columns: str) -> Iterator[dict[str, str]]:
    """Rows of a CSV file, which must have these columns; UTF-8, or else Latin-1 as in Clotho."""
    data = path.read_bytes()
    try:
        text = data.decode('utf-8-sig')
    except UnicodeDecodeError:
        text = data.decode('latin-1')
    lines = text.splitlines(keepends=True)
    header = lines[0] if lines else ''
    separator = max(',;\t', key=header.count)
    reader = csv.DictReader(lines, delimiter=separator)
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f'{path}: the column {missing[0]!r} is missing; get the file again')
    for row in reader:
        if all(row.get(name) for name in columns):
            yield row


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(
            f'{path}: not JSON ({str(error).splitlines()[0]}); get it again'
        ) from error


def _words(label: str) -> str:
    """'Bass_drum' -> 'bass drum'."""
    return ' '.join(label.replace('_', ' ').lower().split())


def _existing(*paths: Path) -> list[Path]:
    return [path for path in paths if path.is_file()]


def _esc50(index: list[Path], sounds: Sounds, folder: Path) -> Iterator[Row]:
    """Fold 5 is held out; the takes of a recording lie in one fold."""
    credits = {}
    with contextlib.suppress(FileNotFoundError):
        text = (folder / 'LICENSE').read_text(encoding='utf-8', errors='replace')
        credits = {m['stem']: m for m in map(_ESC50_CREDIT.match, text.splitlines()) if m}
    for row in _table(index[0], 'filename', 'fold', 'category'):
        stem = Path(row['filename']).stem
        credit = credits.get(re.sub(r'-\d+$', '', stem))  # without the class that wav files add
        yield _row(
            sounds.find(stem),
            _words(row['category']),
            split='held_out' if row['fold'] == '5' else 'train',
            subset=f'fold{row["fold"]}',
            take=row.get('src_file') or stem.split('-')[1],
            licence=licence_name(credit['licence']) if credit else 'CC-BY-NC-3.0',
            author=credit['author'] if credit else '',
            source=credit['source'] if credit else '',
        )


def _urbansound8k(index: list[Path], sounds: Sounds, folder: Path) -> Iterator[Row]:
    """Fold 10 is held out; the slices of a recording lie in one fold."""
    authors = {}
    for path in _existing(folder / 'FREESOUNDCREDITS.txt'):
        lines = path.read_text(encoding='utf-8-sig', errors='replace').splitlines()
        matches = (_URBANSOUND_CREDIT.match(line.strip()) for line in lines)
        authors = {match['id']: match['author'] for match in matches if match}
    for row in _table(index[0], 'slice_file_name', 'fsID', 'fold', 'class'):
        yield _row(
            sounds.find(Path(row['slice_file_name']).stem),
            _words(row['class']),
            split='held_out' if row['fold'] == '10' else 'train',
            subset=f'fold{row["fold"]}',
            take=row['fsID'],
            licence='CC-BY-NC-3.0',
            author=authors.get(row['fsID'], ''),
            source=f'https://freesound.org/s/{row["fsID"]}/',
        )


def _fsd50k(index: list[Path], sounds: Sounds, folder: Path) -> Iterator[Row]:
    """Of the labels the first is the narrowest; validation and evaluation are held out."""
    for path in index:
        part = path.stem  # dev or eval
        clips = {}
        for about in _existing(folder / 'FSD50K.metadata' / f'{part}_clips_info_FSD50K.json'):
            clips = _json(about)
        for row in _table(path, 'fname', 'labels'):
            labels = tuple(_words(label) for label in row['labels'].split(','))
            clip = clips.get(row['fname'], {})
            subset = row.get('split') or part
            yield _row(
                sounds.find(row['fname'], f'FSD50K.{part}_audio'),
                labels[0],
                labels=labels,
                split='train' if subset in ('train', 'dev') else 'held_out',
                subset=subset,
                take=row['fname'],
                licence=licence_name(clip.get('license', '')),
                author=clip.get('uploader', ''),
                source=f'https://freesound.org/s/{row["fname"]}/',
            )


def _clotho(index: list[Path], sounds: Sounds, folder: Path) -> Iterator[Row]:
    """Five captions a clip; keywords are its labels; what is not development is held out."""
    for path in index:
        subset = path.stem.removeprefix('clotho_captions_')
        about = {}
        for metadata in _existing(path.with_name(f'clotho_metadata_{subset}.csv')):
            about = {row['file_name']: row for row in _table(metadata, 'file_name')}
        for row in _table(path, 'file_name', 'caption_1'):
            clip = about.get(row['file_name'], {})
            captions = tuple(
                row[k].strip() for k in sorted(row) if k and 'caption_' in k and row[k]
            )
            labels = tuple(_words(word) for word in (clip.get('keywords') or '').split(';') if word)
            yield _row(
                sounds.find(Path(row['file_name']).stem, subset),
                labels[0] if labels else captions[0],
                labels=labels or captions[:1],
                captions=captions,
                split='train' if subset == 'development' else 'held_out',
                subset=subset,
                take=row['file_name'],
                licence=licence_name(clip.get('license') or ''),
                author=clip.get('manufacturer') or '',
                source=clip.get('sound_link') or '',
            )


def _audiocaps(index: list[Path], sounds: Sounds, folder: Path) -> Iterator[Row]:
    """One caption a clip in training, five in validation and test, which are held out."""
    for path in index:
        subset, clips = path.stem, {}
        for row in _table(path, 'youtube_id', 'start_time', 'caption'):
            clips.setdefault((row['youtube_id'], row['start_time']), []).append(row)
        for (video, start), rows in clips.items():
            captions = tuple(row['caption'].strip() for row in rows)
            second = start.split('.')[0]
            names = [
                f'{before}{video}{after}'
                for after in (f'_{second}', f'_{second}000', '')
                for before in ('', 'Y')
            ]
            names += [row['audiocap_id'] for row in rows if row.get('audiocap_id')]
            found = (sounds.find(name, part) for part in (subset, '') for name in names)
            yield _row(
                next(filter(None, found), None),
                captions[0],
                captions=captions,
                split='train' if subset == 'train' else 'held_out',
                subset=subset,
                take=video,
                source=f'https://www.youtube.com/watch?v={video}',
            )


def _wavcaps(index: list[Path], sounds: Sounds, folder: Path) -> Iterator[Row]:
    """No split of its own: a tenth by name is held out."""
    for path in index:
        content = _json(path)
        items = content.get('data') if isinstance(content, dict) else None
        if not isinstance(items, list):
            raise ValueError(f'{path}: no list "data" in it; get the file again')
        for number, item in enumerate(items, 1):
            if not isinstance(item, dict) or not item.get('caption') or 'id' not in item:
                raise ValueError(f'{path}: entry {number} has no id and caption; get it again')
            if float(item.get('duration') or 0) > LONGEST_SECONDS:
                continue
            said = item['caption']
            captions = tuple(said) if isinstance(said, list) else (str(said),)
            stem = re.sub(r'\.(wav|flac|mp3|ogg)$', '', str(item['id']))
            names = [stem, Path(str(item.get('audio') or item.get('file_name') or '')).stem]
            found = (sounds.find(name) for name in names if name)
            yield _row(
                next(filter(None, found), None),
                captions[0],
                captions=captions,
                subset=path.stem,
                take=stem,
                licence=licence_name(str(item.get('license') or item.get('licence') or '')),
                author=str(item.get('author') or ''),
                source=str(item.get('href') or item.get('download_link') or ''),
            )


def _audiocaps_index(folder: Path) -> list[Path]:
    for place in (folder, folder / 'dataset', folder / 'csv_files'):
        tables = _existing(*(place / f'{part}.csv' for part in ('train', 'val', 'test')))
        if tables and b'youtube_id' in _ends(tables[0]):
            return tables
    return []


def _wavcaps_index(folder: Path) -> list[Path]:
    paths = sorted(folder.glob('*.json')) + sorted((folder / 'json_files').rglob('*.json'))
    return [path for path in paths if b'"num_captions_per_audio"' in _ends(path)]


def _ends(path: Path) -> bytes:
    """The first and last 4 kB of a file."""
    with open(path, 'rb') as file:
        head = file.read(4096)
        file.seek(max(0, path.stat().st_size - 4096))
        return head + file.read()


LAYOUTS = (
    Layout('ESC-50', lambda f: _existing(f / 'meta' / 'esc50.csv'), _esc50),
    Layout('UrbanSound8K', lambda f: _existing(f / 'metadata' / 'UrbanSound8K.csv'), _urbansound8k),
    Layout(
        'FSD50K',
        lambda f: _existing(*(f / 'FSD50K.ground_truth' / f'{x}.csv' for x in ('dev', 'eval'))),
        _fsd50k,
    ),
    Layout('Clotho', lambda f: sorted(f.glob('clotho_captions_*.csv')), _clotho),
    Layout('AudioCaps', _audiocaps_index, _audiocaps),
    Layout('WavCaps', _wavcaps_index, _wavcaps),
)
