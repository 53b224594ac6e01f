"""Labelled one-shot and ambience sounds: the raw material of scenes."""

import collections
import csv
import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from absl import logging

from realaudio_jax.audio import from_pcm16
from realaudio_jax.data import crops, layouts, recordings_cache, wording
from realaudio_jax.typing import SAMPLE_RATE, Float

Kind = Literal['event', 'ambience']
Regions = crops.Regions

HELD_OUT_PERCENT = 10
AMBIENCE_SECONDS = 3.0  # a shorter clip is never an ambience
AMBIENCE_ACTIVE = 0.9  # nor one that sounds for less of its duration


@dataclasses.dataclass(frozen=True)
class Clip:
    """One sound. `active` lists where it sounds, in seconds from its start.

    `audio` is [S] or [S, 2] at `sample_rate` Hz; `label` names its class, `text` is English.
    """

    audio: Float[np.ndarray, '...']
    sample_rate: int
    label: str
    text: str
    active: Regions
    licence: str
    kind: Kind


@runtime_checkable
class Source(Protocol):
    """Where a scene takes its sounds from: `labels` names its classes, `kinds` what it can pick."""

    labels: tuple[str, ...]
    kinds: tuple[Kind, ...]

    def pick(self, rng: np.random.Generator, kind: Kind, seconds: float | None = None) -> Clip:
        """A random sound of this kind, about `seconds` long where the source can choose."""
        ...


class Record(NamedTuple):
    """A recording in the cache: what metadata.csv says of it, and where its samples lie."""

    file: str
    label: str
    texts: tuple[str, ...]
    kind: Kind
    seconds: float
    channels: int
    active: Regions
    licence: str
    take: str
    held_out: bool
    start: int
    frames: int
    captions: tuple[str, ...] = ()
    author: str = ''
    source: str = ''


def is_held_out(take: str) -> bool:
    """Whether a take belongs to the held-out tenth; depends on its name alone."""
    digest = hashlib.sha256(take.encode()).digest()
    return int.from_bytes(digest[:4], 'big') % 100 < HELD_OUT_PERCENT


def _find(folder: Path) -> tuple[Path, Path]:
    """The metadata file of a recordings folder, and the folder its file names are relative to."""
    home = next((p for p in (folder, folder.parent) if (p / 'metadata.csv').is_file()), None)
    if not folder.is_dir() or home is None:
        raise FileNotFoundError(
            f'{folder}: no metadata.csv here; a recordings folder holds metadata.csv with the '
            'columns file and label, and the files beside it or under audio/, or is one of '
            f'{", ".join(layout.name for layout in layouts.LAYOUTS)} as published'
        )
    return home / 'metadata.csv', home / 'audio' if (home / 'audio').is_dir() else home


def _read_metadata(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, newline='', encoding='utf-8-sig') as file:
            reader = csv.DictReader(file)
            missing = {'file', 'label'} - set(reader.fieldnames or ())
            if missing:
                raise ValueError(f'{path}: the column {sorted(missing)[0]!r} is missing')
            return [row for row in reader if row['file'] and row['label']]
    except UnicodeDecodeError as error:
        raise ValueError(f'{path}: not UTF-8 text; save it as UTF-8 CSV') from error


def _parse_regions(text: str, seconds: float) -> Regions:
    """Reads '0.15-0.51;0.93-1.26'; what is not that form counts as nothing said."""
    regions = []
    for part in filter(None, text.split(';')):
        try:
            start, end = (min(float(x), seconds) for x in part.split('-'))
        except ValueError:
            return ()
        if end > start:
            regions.append((start, end))
    return tuple(regions)


def _take(row: dict[str, str]) -> str:
    """What keeps variants of one take together: set folder and Freesound id, group or stem."""
    folder = row['file'].split('/')[0] if '/' in row['file'] else ''
    whole = Path(row['file']).with_suffix('').as_posix()
    stem = whole.rstrip('0123456789_- ')
    stem = whole if stem.rstrip('/') in ('', folder) else stem  # names that are numbers alone
    return f'{folder}/{row.get("freesound_id") or row.get("group") or stem}'


def _read_folder(
    folder: Path, log: Callable[[str], None]
) -> tuple[Path, Path, dict[str, layouts.Row]]:
    """What names the sounds, the folder that their names count from, and their rows by file."""
    own = any((place / 'metadata.csv').is_file() for place in (folder, folder.parent))
    published = None if own else layouts.read(folder, log)
    if published:
        root, rows = published
        return root, root, {row['file']: row for row in rows}
    metadata, root = _find(folder)
    rows = {row['file']: row for row in _read_metadata(metadata)}
    if rows and not any((root / name).exists() for name in rows):
        root = metadata.parent
    return metadata, root, rows


class Recordings:
    """Recordings from a folder with metadata.csv (columns file, label; more are used if there).

    A published dataset in its own layout serves as well, see `layouts`; it keeps its own split.

    Files are decoded once to 48 kHz int16 into a cache; unreadable ones are left out, each with one
    line to `log`. About a tenth of the takes is held out, with all variants of a take, by a hash.

    Args:
      folder: holds metadata.csv; its files lie beside it or under audio/.
      split: 'train', 'held_out' or 'all'.
      cache_dir: where decoded audio goes; None is $REALAUDIO_CACHE or ~/.cache/realaudio_jax.
      log: takes one line of text; None logs a warning.
      balance: a recording of a label that has n of them is picked in proportion to n^-balance: 0 is
        by file, 1 by label.

    Raises:
      FileNotFoundError: no metadata.csv. ValueError: columns missing, nothing readable, bad split.
    """

    def __init__(
        self,
        folder: str | Path,
        split: Literal['train', 'held_out', 'all'] = 'train',
        cache_dir: str | Path | None = None,
        log: Callable[[str], None] | None = None,
        balance: float = 0.5,
    ):
        if split not in ('train', 'held_out', 'all'):
            raise ValueError(f'split {split!r} is not one of train, held_out, all')
        log = log or logging.warning
        metadata, root, rows = _read_folder(Path(folder), log)
        self._audio, index = recordings_cache.open_cache(
            root,
            recordings_cache.digests(root, list(rows)),
            Path(cache_dir) if cache_dir else None,
            log,
        )
        records = []
        for name, row in rows.items():
            entry = index[name]
            if 'error' in entry:
                log(f'{root / name}: left out, {entry["error"]}')
                continue
            record = self._record(row, entry)
            if record.active and split in ('all', 'held_out' if record.held_out else 'train'):
                records.append(record)
        if not records:
            raise ValueError(f'{metadata}: no readable recordings in split {split!r}')
        self.folder, self.split, self._cache_dir = Path(folder), split, cache_dir
        self.balance = balance
        self.clips: list[Record] = records
        self.labels = tuple(sorted({record.label for record in records}))
        self.kinds = tuple(k for k in ('event', 'ambience') if any(r.kind == k for r in records))
        self._weights = {kind: self._pick_weights(kind) for kind in self.kinds}
        lengths = np.array([min(record.seconds, 5.0) for record in records])
        self._crop_cumulative = np.cumsum(lengths / lengths.sum())

    def __reduce__(self):
        """Another process opens the cache by itself; what was left out has been said here."""
        return _reopened, (self.folder, self.split, self._cache_dir, self.balance)

    def _record(self, row: dict[str, str], entry: dict) -> Record:
        seconds = entry['frames'] / SAMPLE_RATE
        found = tuple((start, end) for start, end in entry['active'])
        active = _parse_regions(row.get('active_regions') or '', seconds) or found
        steady = sum(end - start for start, end in active) >= AMBIENCE_ACTIVE * seconds
        ambient = steady and seconds >= AMBIENCE_SECONDS and wording.is_ambience(row['label'])
        take = row.get('take') or _take(row)
        captions = tuple(row.get('captions') or ())
        named = row['label'] not in captions  # else the caption is all that is known
        held_out = {'train': False, 'held_out': True}.get(row.get('split') or '')
        return Record(
            file=row['file'],
            label=row['label'],
            texts=wording.readable(row['label'], row['file']) if named else captions,
            kind='ambience' if ambient else 'event',
            seconds=seconds,
            licence=row.get('licence') or 'unknown',
            take=take,
            held_out=is_held_out(take) if held_out is None else held_out,
            captions=captions,
            author=row.get('author') or '',
            source=row.get('source_url') or row.get('source') or '',
            **(entry | {'active': active}),
        )

    def _pick_weights(self, kind: Kind) -> np.ndarray:
        """Cumulative; what is called alike is one label, however its library spells it."""

        def name(record):
            return record.label if record.texts == record.captions else record.texts

        ours = [name(record) if record.kind == kind else None for record in self.clips]
        counts = collections.Counter(ours)
        weights = np.array([counts[label] ** -self.balance if label else 0.0 for label in ours])
        return np.cumsum(weights / weights.sum())

    def _samples(self, start: int, frames: int, channels: int) -> np.ndarray:
        """float32 [S] or [S, 2], peak at most 1."""
        stored = self._audio[start : start + frames * channels]
        audio = from_pcm16(stored)
        return audio if channels == 1 else audio.reshape(-1, channels)

    def __len__(self) -> int:
        return len(self.clips)

    def load(self, i: int, start_s: float = 0.0, seconds: float | None = None) -> Clip:
        """Clip i, or an excerpt of it.

        Args:
          i: index into `clips`.
          start_s: start of the excerpt, seconds.
          seconds: length of the excerpt; None is up to the end.

        Returns:
          the sound; its active regions count from the start of the excerpt.
        """
        record = self.clips[i]
        first = min(int(start_s * SAMPLE_RATE), record.frames - 1)
        frames = record.frames - first
        if seconds is not None:
            frames = min(frames, max(1, int(seconds * SAMPLE_RATE)))
        channels = record.channels
        audio = self._samples(record.start + first * channels, frames, channels)
        begin, end = first / SAMPLE_RATE, (first + frames) / SAMPLE_RATE
        active = tuple(
            (max(a, begin) - begin, min(b, end) - begin)
            for a, b in record.active
            if a < end and b > begin
        )
        return Clip(
            audio, SAMPLE_RATE, record.label, record.texts[0], active, record.licence, record.kind
        )

    def pick(self, rng: np.random.Generator, kind: Kind, seconds: float | None = None) -> Clip:
        """A random clip; with `seconds`, at most that much of it from where it sounds.

        Raises:
          ValueError: the folder has no clip of this kind.
        """
        if kind not in self.kinds:
            raise ValueError(f'{self.folder}: no {kind} among its recordings')
        choice = np.searchsorted(self._weights[kind], rng.random(), side='right')
        i = int(min(choice, len(self) - 1))
        record, start_s = self.clips[i], 0.0
        if seconds is not None and record.seconds > seconds:
            region = record.active[rng.integers(len(record.active))]
            any_start = rng.uniform(0.0, record.seconds - seconds)
            start_s = any_start if kind == 'ambience' else region[0]
        text = record.texts[rng.integers(len(record.texts))]
        return dataclasses.replace(self.load(i, start_s, seconds), text=text)

    def random_crops(
        self, rng: np.random.Generator, batch: int, samples: int
    ) -> Float[np.ndarray, 'B S 2']:
        """Random stereo crops of random clips, for training an autoencoder; see `crops`."""
        out = np.zeros((batch, samples, 2), np.float32)
        for crop in out:
            self._add_crop(rng, crop)
            if rng.random() < 0.25:
                self._add_crop(rng, crop)
            crops.limit(crop)
        return out

    def _add_crop(self, rng: np.random.Generator, out: np.ndarray) -> None:
        for _ in range(3):  # a crop that fell into a pause is drawn again
            choice = np.searchsorted(self._crop_cumulative, rng.random(), side='right')
            record = self.clips[int(min(choice, len(self) - 1))]
            frames = min(record.frames, len(out))
            first = int(rng.integers(record.frames - frames + 1))
            if rng.random() < 0.5:  # loud moments are rare; half of the crops hold an onset
                onset_s = record.active[rng.integers(len(record.active))][0] - rng.uniform(0, 0.5)
                first = int(np.clip(onset_s * SAMPLE_RATE, 0, record.frames - frames))
            channels = record.channels
            audio = self._samples(record.start + first * channels, frames, channels)
            if np.square(audio).mean() > 1e-7:
                break
        at = int(rng.integers(len(out) - frames + 1))
        gain = 10 ** (rng.uniform(-12.0, 6.0) / 20)
        out[at : at + frames] += crops.random_stereo(rng, audio) * np.float32(gain)


def _reopened(folder: Path, split: str, cache_dir: str | Path | None, balance: float) -> Recordings:
    return Recordings(folder, split, cache_dir, lambda line: None, balance)
