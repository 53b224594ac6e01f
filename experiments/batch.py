"""Makes the sounds of a manifest, one JSON object a line, and goes on where it was stopped.

python -m experiments.batch --manifest=sounds.jsonl --out=DIR
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags

import realaudio_jax
from experiments.common import default_name, run, say, warn
from experiments.watermark_flags import define_watermark
from realaudio_jax.batching import (
    FIELDS,
    Group,
    group_of,
    notes_on,
    prepare,
    program_of,
    read_fields,
    run_batch,
)
from realaudio_jax.generator import Generator, Sound
from realaudio_jax.integrity import MANIFEST_NAME, digest
from realaudio_jax.io import WRITABLE, atomic_path, encode_audio, printable
from realaudio_jax.release_config import CONFIG_NAME
from realaudio_jax.requests import Prepared
from realaudio_jax.sound_files import read_audio
from realaudio_jax.training.loop import Progress, StopRequest
from realaudio_jax.training.run_folder import locked
from realaudio_jax.watermark import Watermark

_MANIFEST = flags.DEFINE_string(
    'manifest', None, 'JSON lines: arguments of `generate`, and "id" and "count" where wanted.'
)
_OUT = flags.DEFINE_string('out', None, 'Folder of the sounds and of results.jsonl.')
_RELEASE = flags.DEFINE_string('release', 'foley', 'A shipped release, or a folder.')
_FORMAT = flags.DEFINE_enum('format', 'wav', [s[1:] for s in WRITABLE], 'Kind of sound file.')
_BATCH_SIZE = flags.DEFINE_enum(
    'batch_size',
    '1',
    [str(2**i) for i in range(9)],
    'Sounds in one call of a program; 1 gives the bytes of experiments.sample.',
)
_REPLACE = flags.DEFINE_bool(
    'replace', False, 'Make what stands in the folder from another request anew.'
)
_WATERMARK = define_watermark()

RESULTS_NAME = 'results.jsonl'
MAX_COUNT = 100_000  # variations of a line
MAX_LINE = 1_000_000  # bytes
_OTHER = (
    'a sound made from another request or release stands under this id; choose another id or '
    'folder, or give --replace'
)
_SHOWN = 10  # error rows that are printed
_ID = re.compile(r'\w[\w.+-]{0,99}')


@dataclasses.dataclass(frozen=True)
class Item:
    """One sound of a manifest.

    Attributes:
        id: names its row and its file.
        line: of the manifest, from 1.
        fields: arguments of `generate`; init audio by its file.
        group: of `batching`.
        request: digest of everything that the sound depends on.
    """

    id: str
    line: int
    fields: Mapping[str, Any]
    group: Group
    request: str


def prepare_item(generator: Generator, fields: Mapping[str, Any], folder: pathlib.Path) -> Prepared:
    """`batching.prepare`, with init audio read from the file that the fields name.

    Args:
        generator: of the release.
        fields: arguments of `generate`.
        folder: where a relative path of init audio starts.

    Raises:
        ValueError, OSError: the request, or its init audio, cannot be used.
    """
    fields = dict(fields)
    if (path := fields.get('init_audio')) is not None:
        if not isinstance(path, str):
            raise ValueError(f'init_audio is {printable(repr(path), 40)}; name a sound file')
        rate = fields.get('sample_rate', 48_000)
        if rate not in (48_000, 44_100):
            raise ValueError(f'sample_rate is {printable(repr(rate), 40)}; choose 48000 or 44100')
        fields['init_audio'] = read_audio(folder / path, rate)
    return prepare(generator, fields)


def request_digests(
    prepared: Prepared, release: str, init: pathlib.Path | None, seeds: Sequence[int]
) -> list[str]:
    """A digest of a request and its release for each seed, however the request was written."""
    values = {name: getattr(prepared.call, name) for name in FIELDS}
    values |= {'events': prepared.call.timelines[0].to_json(), 'loudness_db': None, 'curves': None}
    values |= {'init_audio': init and digest(init), 'release': release}
    values = {name: float(x) if isinstance(x, int) else x for name, x in values.items()}
    texts = [json.dumps(values | {'seed': seed}, sort_keys=True) for seed in seeds]
    return [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]


def release_digest(generator: Generator) -> str:
    """A digest of the files of a release, and the watermark of its sounds."""
    sums = generator.folder / MANIFEST_NAME
    found = digest(sums if sums.is_file() else generator.folder / CONFIG_NAME)
    mark = generator.mark
    return found if mark is None else f'{found}, {mark}, payload {mark.payload}'


def read_line(
    generator: Generator, release: str, raw: bytes, number: int, folder: pathlib.Path
) -> list[Item]:
    """The sounds of a line of a manifest.

    Args:
        generator: of the release.
        release: its digest.
        raw: the line.
        number: of the line.
        folder: of the manifest.

    Raises:
        ValueError, OSError: the line cannot be used.
    """
    if len(raw) > MAX_LINE:
        raise ValueError(f'the line has more than {MAX_LINE:,} bytes')
    fields = read_fields(raw, further=('id', 'count'))
    count, given = fields.pop('count', None), fields.pop('id', None)
    if count is not None and not (type(count) is int and 1 <= count <= MAX_COUNT):
        raise ValueError(f'count is {printable(repr(count), 40)}; choose 1 to {MAX_COUNT:,}')
    if given is not None and not (isinstance(given, str) and _ID.fullmatch(given)):
        raise ValueError(
            f'id is {printable(repr(given), 40)}; it names a file: up to 100 letters, digits and '
            '. + - _, the first a letter or digit'
        )
    prepared = prepare_item(generator, fields, folder)
    call, group = prepared.call, group_of(prepared)
    init = folder / fields['init_audio'] if fields.get('init_audio') else None
    if init:  # one group for all that start from this file
        group = dataclasses.replace(group, common=(*group.common[:-1], str(init)))
    seeds = range(call.seeds[0], call.seeds[0] + (count or 1))
    if seeds[-1] >= 2**31:
        raise ValueError(f'the last seed is {seeds[-1]}: keep below 2^31')
    items = []
    for i, request in enumerate(request_digests(prepared, release, init, seeds)):
        name = given if count is None else f'{given}-{i}'
        if given is None:
            words = call.prompt, '; '.join(event.text for event in call.timelines[0].events)
            name = default_name(
                *words, seed=seeds[i], steps=call.steps, seconds=call.seconds, request=request
            )
        items.append(Item(name, number, {**fields, 'seed': seeds[i]}, group, request))
    return items


def read_manifest(
    generator: Generator, manifest: pathlib.Path
) -> tuple[list[Item], list[dict[str, Any]]]:
    """The sounds of a manifest, and an error row for each line or id that cannot be used."""
    items: dict[str, Item] = {}
    errors, release = [], release_digest(generator)
    with open(manifest, 'rb') as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                read = read_line(generator, release, raw, number, manifest.parent)
            except (ValueError, OSError) as error:
                errors.append(error_row(None, number, error))
                continue
            for item in read:
                other = items.setdefault(item.id.casefold(), item)
                if other is not item:
                    line = f'the id {item.id!r} is that of line {other.line}; choose another'
                    errors.append(error_row(None, number, line))
    return list(items.values()), errors


def error_row(item: Item | None, line: int, error: Exception | str) -> dict[str, Any]:
    """The row of a sound that was not made."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        error = f'{error.strerror}: {error.filename}'
    reason = printable(str(error) or type(error).__name__, 400)
    empty = dict.fromkeys(('file', 'sha256', 'seed', 'level', 'peak', 'ms', 'watermark', 'notes'))
    request = item and item.request
    return {'id': item and item.id, 'line': line, **empty, 'error': reason, 'request': request}


def mark_columns(mark: Watermark | None) -> dict[str, Any] | None:
    """What a row says of the watermark."""
    return mark and {'key': str(mark), 'payload': mark.payload}


def why_other(row: Mapping[str, Any], mark: Watermark | None) -> str:
    """Why the sound of a row is not the one that is asked for, with the remedy."""
    if row.get('watermark') == mark_columns(mark):
        return _OTHER
    stands, wanted = (
        'without a watermark'
        if x is None
        else f'with the watermark of the {x["key"]}, payload {x["payload"]}'
        for x in (row.get('watermark'), mark_columns(mark))
    )
    return (
        f'a sound {stands} stands under this id, and this run makes sounds {wanted}; give the '
        '--watermark_key and --watermark_payload of before, choose another folder, or --replace'
    )


class Results:
    """The rows of a folder, one for each id, and one for each line without a usable one.

    Args:
        folder: holds, or will hold, `results.jsonl`.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder, self.path = folder, folder / RESULTS_NAME
        self.rows: dict[str, dict[str, Any]] = {}
        unreadable = 0
        for raw in self.path.read_bytes().splitlines() if self.path.is_file() else ():
            try:
                row = json.loads(raw)
                if row['id'] is not None:  # rows of bad lines are written anew by each run
                    self.rows[row['id']] = row
            except (ValueError, TypeError, KeyError):  # of the last one a stop may leave a part
                unreadable += 1
        if unreadable:
            warn(f'{self.path} has {unreadable} unreadable lines; what they named is checked anew')

    def write(self, order: Iterable[str], errors: Iterable[dict[str, Any]] = ()) -> None:
        """Writes all rows, those of `order` first and in it, the errors last."""
        names = dict.fromkeys([*(name for name in order if name in self.rows), *self.rows])
        with atomic_path(self.path) as temporary:
            rows = [*(self.rows[name] for name in names), *errors]
            temporary.write_text(''.join(map(_line, rows)), encoding='utf-8')

    def add(self, row: dict[str, Any]) -> None:
        """Appends a row; a later one of the same id counts."""
        self.rows[row['id']] = row
        with open(self.path, 'a', encoding='utf-8') as file:
            file.write(_line(row))

    def standing(self, item: Item, name: str) -> str:
        """What stands under an id: 'whole', the sound of this request byte for byte; 'other', the
        sound of another request or release; or 'none'."""
        row = self.rows.get(item.id)
        path = self.folder / str(row and row.get('file'))
        if row is None or row.get('sha256') is None or not path.is_file():
            return 'none'
        if row.get('request') != item.request:
            return 'other'
        return 'whole' if path.name == name and digest(path) == row['sha256'] else 'none'


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + '\n'


def save(
    results: Results,
    item: Item,
    name: str,
    sound: Sound,
    notes: list[str],
    ms: float,
    mark: Watermark | None,
):
    """Writes a sound and its row.

    Raises:
        FileExistsError: another file stands there, and no row tells of it.
    """
    encoded = encode_audio(sound.pcm, sound.sample_rate, pathlib.Path(name).suffix)
    sha256, path = hashlib.sha256(encoded).hexdigest(), results.folder / name
    if path.exists() and item.id not in results.rows and not _REPLACE.value:
        if digest(path) != sha256:  # the same one is of a run that was killed before its row
            raise FileExistsError(None, 'another file stands there; move it, or give --replace')
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)
    results.add(
        {
            'id': item.id,
            'line': item.line,
            'file': name,
            'sha256': sha256,
            'seed': sound.seed,
            'level': round(sound.lufs, 2),
            'peak': round(sound.peak, 4),
            'ms': round(ms, 1),
            'watermark': mark_columns(mark),
            'notes': notes,
            'error': None,
            'request': item.request,
        }
    )


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Items in batches of one group, the groups of one program one after another."""
    groups: dict[Any, dict[Group, list[Item]]] = {}
    for item in items:
        groups.setdefault(item.group.bucket, {}).setdefault(item.group, []).append(item)
    for of_program in groups.values():
        for group in of_program.values():
            yield from (group[i : i + size] for i in range(0, len(group), size))


def make(generator: Generator, batch: list[Item], size: int, folder: pathlib.Path):
    """Generates a batch: a (item, sound or exception, notes, ms) for each."""
    ready = []
    for item in batch:
        try:
            ready.append((item, prepare_item(generator, item.fields, folder)))
        except (ValueError, OSError) as error:  # its init audio has changed or gone
            yield item, error, [], 0.0
    if not ready:
        return
    generator.programs.get(program_of(ready[0][1], size))  # compiled outside the time of a sound
    begin = time.perf_counter()
    results = run_batch(generator, [prepared for _, prepared in ready], size)
    ms = 1000 * (time.perf_counter() - begin) / len(ready)
    for (item, prepared), result in zip(ready, results, strict=True):
        failed = isinstance(result, Exception)
        yield item, result, [] if failed else notes_on(prepared, result), ms


def main(argv):
    del argv
    if not _MANIFEST.value or not _OUT.value:
        raise ValueError('give --manifest=FILE.jsonl and --out=DIR')
    manifest, out, size = pathlib.Path(_MANIFEST.value), pathlib.Path(_OUT.value), _BATCH_SIZE.value
    if not manifest.is_file():
        raise ValueError(f'{manifest} is no file; name one with a JSON object on each line')
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        make_all(realaudio_jax.load(_RELEASE.value, mark=_WATERMARK()), manifest, out, int(size))


def make_all(generator: Generator, manifest: pathlib.Path, out: pathlib.Path, size: int) -> None:
    """Makes what a manifest asks for and the folder does not hold.

    Raises:
        OSError: the disk is full. ValueError: some sounds were not made. KeyboardInterrupt: a stop
            was asked for. What was made is kept, and not made again.
    """
    results = Results(out)
    items, errors = read_manifest(generator, manifest)
    names = {item.id: f'{item.id}.{_FORMAT.value}' for item in items}
    standing = {item.id: results.standing(item, names[item.id]) for item in items}
    if not _REPLACE.value:
        for item in items:
            if standing[item.id] == 'other':
                row = results.rows[item.id]
                row |= {'line': item.line, 'error': why_other(row, generator.mark)}
    for item in items:
        if standing[item.id] == 'whole':
            results.rows[item.id] |= {'line': item.line, 'error': None}
    again = ('none', 'other') if _REPLACE.value else ('none',)
    todo, made = [item for item in items if standing[item.id] in again], 0
    results.write(names, errors)
    with StopRequest() as stop, Progress(len(todo), 'sounds') as progress:
        done = 0
        for batch in batches(todo, size):
            if stop.requested:
                break
            for item, result, notes, ms in make(generator, batch, size, manifest.parent):
                try:
                    if isinstance(result, Exception):
                        raise result
                    save(results, item, names[item.id], result, notes, ms, generator.mark)
                    made += 1
                except Exception as error:
                    if isinstance(error, OSError) and error.errno is not None:
                        raise OSError(
                            error.errno,
                            f'{error.strerror}; {made} of {len(todo)} sounds were made, the same '
                            'command goes on from there',
                        ) from error
                    results.add(error_row(item, item.line, error))
                done += 1
                progress.update(done)
    with contextlib.suppress(OSError):  # rows stand there in the order in which they were made
        results.write(names, errors)
    if done < len(todo):
        raise KeyboardInterrupt(
            f'stopped: {made} of {len(todo)} sounds were made; the same command goes on from there'
        )
    bad = [results.rows[name] for name in names if results.rows[name]['error']] + errors
    for row in bad[:_SHOWN]:
        warn(f'line {row["line"]}: {row["error"]}')
    there = sum(state == 'whole' for state in standing.values())
    say(f'{printable(out)}: {made} made, {there} were there, {len(bad)} not made')
    if bad:
        raise ValueError(f'{len(bad)} not made; {results.path} says why')


if __name__ == '__main__':
    run(main)
