"""Labelled one-shot and ambience sounds: the raw material of scenes."""

import collections
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from absl import logging

from realaudio_jax.audio import from_pcm16
from realaudio_jax.data import foley, label_text, recordings_cache, signal
from realaudio_jax.data.foley.primitives import SplitGenerator
from realaudio_jax.data.recordings_table import Row, Table, read_table
from realaudio_jax.io import printable
from realaudio_jax.sound_files import counted, some
from realaudio_jax.typing import SAMPLE_RATE, Float

Kind = Literal['event', 'ambience']
Regions = signal.Regions

HELD_OUT_PERCENT = 10
CAPTION_SHARE = 0.5  # of the picks of a recording with captions, which have one of them
MIN_EVENT_SECONDS = 0.02  # of sound in a clip; what is shorter is left out
AMBIENCE_SECONDS = 3.0  # a shorter clip is never an ambience
AMBIENCE_ACTIVE = 0.9  # nor one that sounds for less of its duration


@dataclasses.dataclass(frozen=True)
class Clip:
    """One sound. `active` lists where it sounds, in seconds from its start.

    `audio` is [S] or [S, 2] at `sample_rate` Hz; `label` names its class, `text` is English for it.
    `caption`, where it is not '', describes this very sound and stands for `text` in a caption.
    """

    audio: Float[np.ndarray, '...']
    sample_rate: int
    label: str
    text: str
    active: Regions
    licence: str
    kind: Kind
    caption: str = ''


@runtime_checkable
class Source(Protocol):
    """Where a scene takes its sounds from.

    Attributes:
        labels: names of its classes.
        kinds: what it can pick.
        digest: of all that decides what it gives, for the keys of caches.
    """

    labels: tuple[str, ...]
    kinds: tuple[Kind, ...]
    digest: str

    def pick(self, rng: np.random.Generator, kind: Kind, seconds: float | None = None) -> Clip:
        """A random sound of this kind, about `seconds` long where the source can choose."""
        ...


class Record(NamedTuple):
    """A recording in the cache: what its folder says of it, and where its samples lie.

    `texts` are wordings of its label, `captions` tell of this very sound, if there are any.
    """

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


def _hash(take: str) -> int:
    return int.from_bytes(hashlib.sha256(take.encode('utf-8', 'surrogateescape')).digest()[:4])


def is_held_out(take: str) -> bool:
    """Whether a take belongs to the held-out tenth; depends on its name alone."""
    return _hash(take) % 100 < HELD_OUT_PERCENT


def held_out_files(files: Sequence[tuple[str, str, str, str]]) -> set[str]:
    """Which files are kept out of training, so that both splits have what they need.

    A file of a given split stays there. Of the others about a tenth of the takes is held out, by a
    hash of their names, all variants of a take together; and of every label with two takes or more,
    one at least is held out and one trained on. Where no label has two takes, files count as takes.

    Args:
        files: (name, label, take, split) of each; split is 'train', 'held_out' or ''.

    Returns:
        The names; none or all of them where there is only one take.
    """
    held_out = {name for name, _, _, split in files if split == 'held_out'}
    free = [file[:3] for file in files if not file[3]]
    takes = _takes_by_label(free)
    if all(len(found) < 2 for found in takes.values()):
        free = [(name, label, name) for name, label, _ in free]
        takes = _takes_by_label(free)
    if len(free) == len(files):
        # last of all the folder itself: a label of many where each has one take
        takes[None] = {take for _, _, take in free}
    out = {take for _, _, take in free if is_held_out(take)}
    for found in takes.values():
        if len(found) > 1 and not found & out:
            out.add(min(found, key=_hash))
        if len(found) > 1 and found <= out:
            out.remove(max(found, key=_hash))
    return held_out | {name for name, _, take in free if take in out}


def _takes_by_label(files: Sequence[tuple[str, str, str]]) -> dict[str | None, set[str]]:
    takes = collections.defaultdict(set)
    for _, label, take in sorted(files):
        takes[label].add(take)
    return dict(sorted(takes.items()))


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


def _take(row: Row) -> str:
    """What keeps variants of one take together: set folder and Freesound id, group or stem."""
    folder = row.file.split('/')[0] if '/' in row.file else ''
    whole = Path(row.file).with_suffix('').as_posix()
    stem = whole.rstrip('0123456789_- ')
    stem = whole if stem.rstrip('/') in ('', folder) else stem  # names that are numbers alone
    return f'{folder}/{row.group or stem}'


class Recordings:
    """Recordings from a folder: what its metadata.csv, or the names of its files, say of them.

    A published dataset in its own layout serves as well, see `layouts`; it keeps its own split.

    Files are decoded once to 48 kHz int16 into a cache. Those that cannot be read, are silent or
    copies of others are left out, and that is said. The held-out split is settled over the whole
    folder, see `held_out_files`; see `recordings_table` for the folder.

    Args:
        folder: of the recordings.
        split: 'train', 'held_out' or 'all'.
        cache_dir: where decoded audio goes; None is $REALAUDIO_CACHE or ~/.cache/realaudio_jax.
        log: takes one line of text; None logs a warning, each line once in a process.
        balance: a recording of a label that has n of them is picked in proportion to n^-balance: 0
            is by file, 1 by label.

    Attributes:
        clips: the recordings of the split.
        digest: of all that decides what the split gives: contents, labels, captions, split.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a table that cannot be used, nothing readable, bad split.
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
        log = log or functools.partial(_warn_once, folder)
        table = read_table(folder, log)
        contents = recordings_cache.digests(table.root, list(table.rows))
        contents = _without_copies(contents, table.source, log)
        self._audio, index = recordings_cache.open_cache(
            table.root, contents, Path(cache_dir) if cache_dir else None, log
        )
        records = _records(table, index, log)
        held_out = held_out_files(
            [(r.file, r.label, r.take, table.rows[r.file].split) for r in records]
        )
        records = [record._replace(held_out=record.file in held_out) for record in records]
        if not records:
            raise ValueError(f'{table.source}: no readable recordings')
        if split != 'all':
            records = [record for record in records if record.held_out == (split == 'held_out')]
        if not records:
            raise ValueError(
                f'{table.source}: nothing is left for the split {split!r}; two takes are needed, '
                'or rows of both splits where there is a column split'
            )
        self.folder, self.split, self._cache_dir = Path(folder), split, cache_dir
        self.balance = balance
        self.clips: list[Record] = records
        self.digest = hashlib.sha256(
            repr([balance, *((record, contents[record.file]) for record in records)]).encode()
        ).hexdigest()
        self.labels = tuple(sorted({record.label for record in records}))
        self.kinds = tuple(k for k in ('event', 'ambience') if any(r.kind == k for r in records))
        self._weights = {kind: self._pick_weights(kind) for kind in self.kinds}
        lengths = np.array([min(record.seconds, 5.0) for record in records])
        self._crop_cumulative = np.cumsum(lengths / lengths.sum())

    def __reduce__(self):
        """Another process opens the cache by itself; what was left out has been said here."""
        return _reopened, (self.folder, self.split, self._cache_dir, self.balance)

    def label_weights(self, clips: Sequence[int]) -> Float[np.ndarray, ' N']:
        """Probabilities of some of the clips by `balance`, which sum to 1.

        What is called alike is one label, however its library spells it.
        """

        def name(record):
            return record.label if record.texts == record.captions else record.texts

        names = [name(self.clips[i]) for i in clips]
        counts = collections.Counter(names)
        weights = np.array([counts[label] ** -self.balance for label in names])
        return weights / weights.sum()

    def _pick_weights(self, kind: Kind) -> np.ndarray:
        """Cumulative, over all clips; 0 for those of the other kind."""
        ours = [i for i, record in enumerate(self.clips) if record.kind == kind]
        weights = np.zeros(len(self.clips))
        weights[ours] = self.label_weights(ours)
        return np.cumsum(weights)

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
        caption = ''
        if record.captions and rng.random() < CAPTION_SHARE:
            caption = label_text.as_phrase(record.captions[rng.integers(len(record.captions))])
        return dataclasses.replace(self.load(i, start_s, seconds), text=text, caption=caption)

    def random_crops(
        self, rng: np.random.Generator, batch: int, samples: int
    ) -> Float[np.ndarray, 'B S 2']:
        """Random stereo crops of random clips, for training an autoencoder; see `signal`."""
        out = np.zeros((batch, samples, 2), np.float32)
        for crop in out:
            self._add_crop(rng, crop)
            if rng.random() < 0.25:
                self._add_crop(rng, crop)
            signal.limit(crop)
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
        out[at : at + frames] += signal.random_stereo(rng, audio) * np.float32(gain)


_said: set[tuple[str, str]] = set()


def _warn_once(folder: str | Path, line: str) -> None:
    """Logs a line about a folder once in a process, however the folder is spelled."""
    said = (os.path.abspath(folder), line.removeprefix(printable(folder)))
    if said not in _said:
        _said.add(said)
        logging.warning('%s', line)


def _without_copies(
    contents: dict[str, str], source: str, log: Callable[[str], None]
) -> dict[str, str]:
    """The first of the files with the same bytes; a copy could lie in the other split."""
    first: dict[str, str] = {}
    for name, digest in contents.items():
        first.setdefault(digest or name, name)
    copies = [name for name, digest in contents.items() if first[digest or name] != name]
    if copies:
        log(
            f'{source}: left out {len(copies)} of {counted(len(contents), "file")}, copies of '
            f'others: {some(copies)}'
        )
    return {name: digest for name, digest in contents.items() if name not in set(copies)}


def _records(table: Table, index: dict[str, dict], log: Callable[[str], None]) -> list[Record]:
    """What the cache holds of a table's files; says which were left out, and why."""
    records, unreadable, silent = [], [], []
    for name, entry in index.items():
        if 'error' in entry:
            unreadable.append(f'{name} ({entry["error"]})')
            continue
        record = _record(table.rows[name], entry)
        if sum(end - start for start, end in record.active) >= MIN_EVENT_SECONDS:
            records.append(record)
        else:
            silent.append(name)
    for what, names in (
        ('not readable', unreadable),
        (f'silent or of less than {1000 * MIN_EVENT_SECONDS:g} ms', silent),
    ):
        if names:
            log(
                f'{table.source}: left out {len(names)} of {counted(len(index), "file")}, {what}: '
                f'{some(names)}'
            )
    return records


def _record(row: Row, entry: dict) -> Record:
    seconds = entry['frames'] / SAMPLE_RATE
    found = tuple((start, end) for start, end in entry['active'])
    active = _parse_regions(row.active_regions, seconds) or found
    steady = sum(end - start for start, end in active) >= AMBIENCE_ACTIVE * seconds
    ambient = steady and seconds >= AMBIENCE_SECONDS and label_text.is_ambience(row.label)
    named = row.label not in row.captions  # else the caption is all that is known
    return Record(
        file=row.file,
        label=row.label,
        texts=label_text.readable(row.label, row.file) if named else row.captions,
        kind='ambience' if ambient else 'event',
        seconds=seconds,
        licence=row.licence or 'unknown',
        take=row.take or _take(row),
        held_out=False,
        captions=row.captions,
        author=row.author,
        source=row.source,
        **(entry | {'active': active}),
    )


def _reopened(folder: Path, split: str, cache_dir: str | Path | None, balance: float) -> Recordings:
    return Recordings(folder, split, cache_dir, lambda line: None, balance)


class FoleySource:
    """Source of procedural sounds; every pick is synthesised anew.

    The two splits share their classes and nothing else. Held-out sounds have sizes, pitches and
    rates that training never draws (see `foley.primitives.SplitGenerator`) and a wording of their
    own, and `scenes.make_scenes` draws their scenes from a stream of their own.

    Args:
        split: 'train' or 'held_out'.

    Attributes:
        digest: of all that decides its sounds: the version of the synthesis, the split.
        spawn_key: of the stream of random numbers that scenes are drawn from.

    Raises:
        ValueError: another split.
    """

    labels = tuple(sorted({*foley.EVENTS, *foley.AMBIENCES}))
    kinds: tuple[Kind, ...] = ('event', 'ambience')

    def __init__(self, split: str = 'train'):
        if split not in ('train', 'held_out'):
            raise ValueError(f'split {split!r} is not one of train, held_out')
        self.split = split
        self.digest = f'foley {foley.VERSION} {split}'
        self.spawn_key: tuple[int, ...] = (1,) if split == 'held_out' else ()

    def pick(self, rng: np.random.Generator, kind: Kind, seconds: float | None = None) -> Clip:
        """A new sound of a random class; an ambience lasts `seconds`, an event at most that."""
        table = foley.EVENTS if kind == 'event' else foley.AMBIENCES
        made = table[list(table)[rng.integers(len(table))]]
        held_out = self.split == 'held_out'
        texts = made.texts[-1:] if held_out else made.texts[:-1]
        text = texts[rng.integers(len(texts))]
        audio = made.synthesize(SplitGenerator(rng, held_out), seconds)
        whole = ((0.0, len(audio) / SAMPLE_RATE),)
        return Clip(audio, SAMPLE_RATE, made.name, text, whole, 'CC0-1.0', kind)


class MixedSource:
    """Picks from several sources, each in proportion to its weight.

    Args:
        sources: at least one.
        weights: of the same length, positive; they need not sum to 1.

    Raises:
        ValueError: lengths differ, no source, or a weight that is not positive.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]):
        if not sources or len(sources) != len(weights) or min(weights) <= 0:
            raise ValueError(
                f'{len(sources)} sources with weights {tuple(weights)}: give each source a '
                'positive weight'
            )
        self.sources, self.weights = tuple(sources), tuple(map(float, weights))
        self.digest = repr([(s.digest, w) for s, w in zip(sources, self.weights, strict=True)])
        self.labels = tuple(sorted({label for source in sources for label in source.labels}))
        self.kinds = tuple(
            kind for kind in ('event', 'ambience') if any(kind in s.kinds for s in sources)
        )
        self.spawn_key: tuple[int, ...] = max(getattr(s, 'spawn_key', ()) for s in sources)

    def pick(self, rng: np.random.Generator, kind: Kind, seconds: float | None = None) -> Clip:
        """A sound from one of the sources that have this kind.

        Raises:
            ValueError: none of them has.
        """
        able = [i for i, source in enumerate(self.sources) if kind in source.kinds]
        if not able:
            raise ValueError(f'none of the {len(self.sources)} sources has an {kind}')
        weights = np.array([self.weights[i] for i in able])
        return self.sources[rng.choice(able, p=weights / weights.sum())].pick(rng, kind, seconds)
