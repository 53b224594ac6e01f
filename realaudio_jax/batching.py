"""Many requests on one device: read from JSON, grouped by program, run in batches of one size.

    fields = read_fields(line)                    a JSON object of arguments of `generate`
    prepared = prepare(generator, fields)         checked; nothing is compiled
    results = run_batch(generator, [prepared, ...], size)

    with RequestQueue(generator, size) as queue:  one thread that owns the device
        future = queue.submit(prepared)

Every batch is filled up to one size, so that a sound does not depend on what is made beside it:
with size 1 it has the bytes that `Generator.generate` gives.
"""

import collections
import concurrent.futures
import dataclasses
import difflib
import inspect
import json
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from realaudio_jax import requests
from realaudio_jax.generator import Generator, Sound
from realaudio_jax.io import printable
from realaudio_jax.program_io import CAPACITIES, Bucket
from realaudio_jax.requests import Call, Prepared

# What a request may hold: one sound of up to 10 s, so no batches and no loops.
FIELDS = tuple(
    name
    for name in inspect.signature(Generator.generate).parameters
    if name not in ('self', 'num_variations', 'loop')
)


def read_fields(text: str | bytes, further: Sequence[str] = ()) -> dict[str, Any]:
    """Arguments of `generate` from a JSON object; their values are checked by `prepare`.

    Args:
        text: the object, UTF-8.
        further: keys that it may have besides `FIELDS`.

    Raises:
        ValueError: see `read_object`; or an unknown key, the nearest of those there are is named.
    """
    fields = read_object(text)
    refuse_unknown(fields, (*FIELDS, *further))
    return fields


def read_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: no JSON, no object, a key that is there twice, or a text that is no Unicode.
    """
    try:
        text = text.decode('utf-8-sig') if isinstance(text, bytes) else text
        fields = json.loads(
            text, parse_int=_integer, parse_constant=_refuse_constant, object_pairs_hook=_unique
        )
    except RecursionError:
        raise ValueError('not JSON: it is nested too deeply') from None
    except UnicodeDecodeError:
        raise ValueError('not JSON: it is not UTF-8') from None
    except json.JSONDecodeError as error:
        where = f'character {error.pos + 1}'
        raise ValueError(f'not JSON: {error.msg} at {where}; write one object') from None
    if '\\ud' in text.lower():  # nothing that holds half of a surrogate pair can be sent back
        try:
            json.dumps(fields, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError('not JSON that is read here: half of a surrogate pair') from None
    if not isinstance(fields, dict):
        raise ValueError(f'a JSON {_KINDS[type(fields)]}; write an object, {{"prompt": "rain"}}')
    return fields


def refuse_unknown(fields: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuses keys that mean nothing.

    Raises:
        ValueError: which key, and the nearest of those there are.
    """
    for key in fields.keys() - set(known):
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        there = f'there are {", ".join(known)}' if known else 'leave it out'
        remedy = f'did you mean {close[0]!r}?' if close else there
        raise ValueError(f'unknown key {printable(key, 40)!r}; {remedy}')


_KINDS = {
    list: 'list',
    str: 'text',
    int: 'number',
    float: 'number',
    bool: 'truth value',
    type(None): 'null',
}


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f'not JSON that is read here: a number of {len(digits):,} digits')
    return int(digits)


def _refuse_constant(name: str) -> None:
    raise ValueError(f'not JSON: {name} is no number of it; leave it out')


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f'the key {printable(twice, 40)!r} is there twice; keep one')
    return fields


def prepare(generator: Generator, fields: Mapping[str, Any]) -> Prepared:
    """Checks the request for one sound and builds its arrays; compiles nothing.

    Args:
        generator: of the release that makes the sound.
        fields: some of `FIELDS`; init audio as samples.

    Raises:
        ValueError: a value out of range, or nothing to make.
    """
    try:
        call = Call(**typed(fields))
    except (TypeError, OverflowError) as error:
        raise ValueError(str(error)) from error
    if not (call.prompts[0].strip() or call.timelines[0].events or call.init_audio is not None):
        raise ValueError('nothing to make: give a prompt, events or init_audio')
    return requests.prepare(
        call, generator.config, generator.tokenizer, generator.networks.denoiser.curves
    )


_TEXTS = ('prompt', 'negative_prompt', 'model', 'sampler')
_NUMBERS = ('seconds', 'steps', 'seed', 'guidance_scale', 'sample_rate', 'strength')
_OPTIONAL = ('events', 'negative_prompt', 'guidance_scale', 'loudness', 'loudness_db', 'curves')


def typed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as JSON holds them with the types that `generate` takes; a wrong one is an error."""
    values, curves = {}, {}
    for name, value in fields.items():
        shown = f'{name} is {printable(repr(value), 40)}'
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is None and name in _OPTIONAL:
            pass
        elif name in _TEXTS and not isinstance(value, str):
            raise ValueError(f'{shown}; give one text')
        elif name in _NUMBERS and not is_number:
            raise ValueError(f'{shown}; give one number')
        elif name == 'loudness' and not is_number and value != 'auto':
            raise ValueError(f'{shown}; give LUFS, "auto" or null')
        elif name == 'keep':
            value = _spans(value)
        if name in ('loudness_db', 'curves'):
            curves[name] = value
        else:
            is_measure = name in (*_NUMBERS, 'loudness') and is_number
            values[name] = float(value) if is_measure else value
    if curves:  # a timeline's own check takes what JSON has
        values['events'] = {'events': fields.get('events'), **curves}
    return values


def _spans(value: Any) -> list[tuple[float, float]]:
    try:
        return [(float(start), float(end)) for start, end in value]
    except (TypeError, ValueError, OverflowError):
        shown = printable(repr(value), 40)
        raise ValueError(f'keep is {shown}; give [start, end] pairs in seconds') from None


@dataclasses.dataclass(frozen=True)
class Group:
    """What requests have in common that can be made in one batch.

    Attributes:
        bucket: their program, for one sound.
        common: the arguments of `generate` that a batch shares.
    """

    bucket: Bucket
    common: tuple[Any, ...]


_OF_EACH = ('prompt', 'events', 'seed', 'loudness_db', 'curves', 'num_variations')
_SHARED = tuple(name for name in FIELDS if name not in _OF_EACH)


def group_of(prepared: Prepared) -> Group:
    """The group of a request; one with init audio has a group of its own."""
    call = prepared.call
    common = [getattr(call, name) for name in _SHARED if name != 'init_audio']
    common.append(None if call.init_audio is None else id(call))
    return Group(prepared.bucket, tuple(tuple(x) if isinstance(x, list) else x for x in common))


def program_of(prepared: Prepared, size: int) -> Bucket:
    """The program that makes a request in batches of a size."""
    return dataclasses.replace(prepared.bucket, batch=size)


def compile_programs(
    generator: Generator, examples: Sequence[Mapping[str, Any]], size: int
) -> list[Bucket]:
    """Compiles the programs for requests like these, at every padded capacity, and keeps them all.

    Args:
        generator: keeps them in `programs`.
        examples: requests; their texts do not matter.
        size: sounds in a batch.
    """
    buckets = [
        dataclasses.replace(program_of(prepare(generator, fields), size), capacity=capacity)
        for fields in examples
        for capacity in CAPACITIES
    ]
    buckets = list(dict.fromkeys(buckets))
    programs = generator.programs
    programs.max_programs = max(programs.max_programs, len(buckets))
    for bucket in buckets:
        programs.get(bucket)
    return buckets


def run_batch(
    generator: Generator, batch: Sequence[Prepared], size: int
) -> list[Sound | Exception]:
    """Makes the requests of one group; a result for each, the error of one being no other's.

    Args:
        generator: of the release.
        batch: 1 to `size` requests of equal `group_of`.
        size: sounds of the program, a power of two. The last request fills up a smaller batch.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # `Prepared.notes` and the sound say the same
            if size == 1:
                return [generator.run(batch[0])]
            return generator.run(_joined(generator, batch, size))[: len(batch)]
    except Exception as error:
        if len(batch) == 1:
            return [error]
    return [result for one in batch for result in run_batch(generator, [one], size)]


def _joined(generator: Generator, batch: Sequence[Prepared], size: int) -> Prepared:
    """One request for the sounds of a batch, filled up to a size."""
    calls = [prepared.call for prepared in batch]
    calls += calls[-1:] * (size - len(calls))
    shared = {name: getattr(calls[0], name) for name in _SHARED}
    call = Call(
        prompt=[call.prompts[0] for call in calls],
        events=[call.timelines[0] for call in calls],
        seed=[call.seeds[0] for call in calls],
        **shared,
    )
    return requests.prepare(
        call, generator.config, generator.tokenizer, generator.networks.denoiser.curves
    )


def notes_on(prepared: Prepared, sound: Sound) -> list[str]:
    """What `generate` would warn of: texts, init audio, a silent sound or one made again."""
    notes, seed = list(prepared.notes), prepared.call.seeds[0]
    if sound.seed != seed:
        notes.append(f'silent with seed {seed}; made again with seed {sound.seed}')
    if sound.silent:
        notes.append(f'the sound is silent ({sound.lufs:.0f} LUFS)')
    return notes


class QueueFull(Exception):
    """As many requests wait as may."""


class QueueClosed(Exception):
    """The queue makes nothing more."""


@dataclasses.dataclass(frozen=True)
class Made:
    """A finished request.

    Attributes:
        sound: the result.
        waited_s: from `submit` to the start of its batch, seconds.
        took_s: time of its batch, seconds.
        batch: requests in it.
    """

    sound: Sound
    waited_s: float
    took_s: float
    batch: int


@dataclasses.dataclass(eq=False)
class _Waiting:
    work: Prepared | Callable[[], Any]
    group: Group | object  # a call has one of its own
    since: float
    future: concurrent.futures.Future


class RequestQueue:
    """Requests of many threads, made by one, in batches of what waits for the same program.

    The request that has waited longest chooses the group of the next batch, so none waits for ever.
    A batch that is not full waits for more until its oldest request is `window_s` old; with batches
    of one, and where requests have waited for the device, nothing waits.

    Args:
        generator: of the release; used by the queue's thread alone.
        size: sounds in a batch, a power of two.
        most: requests that may wait.
        window_s: seconds, see above.
        observe: called in the queue's thread with each batch's number of requests and seconds.
    """

    def __init__(
        self,
        generator: Generator,
        size: int = 1,
        most: int = 64,
        window_s: float = 0.005,
        observe: Callable[[int, float], None] = lambda count, seconds: None,
    ):
        self.generator, self.size, self.most, self.window_s = generator, size, most, window_s
        self._observe = observe
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name='generate', daemon=True)
        self._thread.start()

    def __enter__(self) -> 'RequestQueue':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Requests that wait."""
        with self._changed:
            self._drop_cancelled()
            return len(self._waiting)

    def submit(self, prepared: Prepared) -> concurrent.futures.Future:
        """Queues a request; the future gives a `Made`, and a request cancelled in time is not made.

        Raises:
            QueueFull: `most` requests wait. QueueClosed: after `close`.
        """
        return self._add(prepared, group_of(prepared), self.most)

    def call(self, function: Callable[[], Any]) -> concurrent.futures.Future:
        """Queues a call of a function in the queue's thread, such as one for a stream's next chunk.

        It takes its turn among the requests, and `most` does not bound it: whoever calls has few
        calls waiting at a time.

        Args:
            function: what it returns or raises is the future's.

        Raises:
            QueueClosed: after `close`.
        """
        return self._add(function, object(), None)

    def _add(self, work: Any, group: Any, most: int | None) -> concurrent.futures.Future:
        waiting = _Waiting(work, group, time.monotonic(), concurrent.futures.Future())
        with self._changed:
            if self._closed:
                raise QueueClosed('the queue is closed')
            self._drop_cancelled()
            if most is not None and len(self._waiting) >= most:
                raise QueueFull(f'{most} requests wait already')
            self._waiting.append(waiting)
            self._changed.notify()
        return waiting.future

    def close(self) -> None:
        """Ends after the batch that runs; requests that still wait are cancelled."""
        with self._changed:
            self._closed = True
            for waiting in self._waiting:
                waiting.future.cancel()
            self._waiting.clear()
            self._changed.notify()
        self._thread.join()

    def _drop_cancelled(self) -> None:
        if any(waiting.future.cancelled() for waiting in self._waiting):
            kept = [waiting for waiting in self._waiting if not waiting.future.cancelled()]
            self._waiting = collections.deque(kept)

    def _work(self) -> None:
        while batch := self._take():
            try:
                self._make(batch)
            except Exception as error:  # nothing ends the thread that all wait for
                for waiting in batch:
                    if not waiting.future.done():
                        waiting.future.set_exception(error)
            del batch  # the thread holds no sound while it waits

    def _make(self, batch: list[_Waiting]) -> None:
        if callable(batch[0].work):
            batch[0].future.set_result(batch[0].work())
            return
        begin = time.monotonic()
        results = run_batch(self.generator, [w.work for w in batch], self.size)
        took = time.monotonic() - begin
        for waiting, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                waiting.future.set_exception(result)
            else:
                made = Made(result, begin - waiting.since, took, len(batch))
                waiting.future.set_result(made)
        self._observe(len(batch), took)

    def _take(self) -> list[_Waiting]:
        """The next batch; empty at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return []
                self._drop_cancelled()
                if not self._waiting:
                    continue
                oldest = self._waiting[0]
                left = oldest.since + self.window_s - time.monotonic()
                alike = [w for w in self._waiting if w.group == oldest.group][: self.size]
                if len(alike) < self.size and left > 0 and not callable(oldest.work):
                    self._changed.wait(left)
                    continue
                for waiting in alike:
                    self._waiting.remove(waiting)
                batch = [w for w in alike if w.future.set_running_or_notify_cancel()]
                if batch:
                    return batch
