"""Streams over a WebSocket: a client's timeline in, sound out, edited while it plays.

The client's first message opens a stream, and further ones steer it; all are JSON objects:

    {"type": "start", "prompt": "rain", "events": "dog@1-1.4", "seconds": null, "seed": 0}
    {"type": "edit", "id": 1, "events": "dog@1.5-1.9"}     the whole timeline; "prompt" if another
    {"type": "played", "frame": 48000}                     how far the client has played
    {"type": "stop"}, {"type": "play"}                     no more sound is made until "play"

Binary messages bring the sound: two unsigned 64-bit numbers, little-endian, the frame (a sample of
both channels, counted from the start of the stream) with which this piece begins, and the frame
from which on an edit is still heard; then 16-bit samples, left and right in turn. JSON messages say
'started', 'edited', 'refused' (an edit that cannot be, and why; the stream goes on), 'ended' and
'error', after which the server closes.

A chunk is made only when less than `ahead` seconds of sound lie between what was sent and what the
client says it has played, so a slow client slows itself alone, nothing piles up anywhere, and edits
are heard soon. With "ahead": null chunks follow each other as fast as they are read.
"""

import asyncio
import collections
import contextlib
import dataclasses
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from realaudio_jax.batching import QueueClosed, RequestQueue, read_object, refuse_unknown, typed
from realaudio_jax.generator import Generator
from realaudio_jax.io import printable
from realaudio_jax.longform import Schedule
from realaudio_jax.stream import Chunk, Stream
from realaudio_jax.timeline import Event
from realaudio_jax.typing import LATENT_RATE, MAX_SECONDS

HEAD = struct.Struct('<QQ')  # of a binary message
FIELDS = (  # of `Generator.stream`
    *('prompt', 'events', 'seconds', 'steps', 'seed', 'guidance_scale', 'sample_rate'),
    *('loudness', 'loudness_db', 'curves'),
)
_KNOWN = {
    'start': (*FIELDS, 'token', 'ahead', 'osc', 'playing'),
    'edit': ('id', 'events', 'prompt', 'loudness_db', 'curves'),
    'played': ('frame',),
    'stop': (),
    'play': (),
}
AHEAD_S = 1.0
MAX_AHEAD_S = 60.0
MAX_ID = 100  # characters
POLICY, FAILED, CLOSING, TRY_LATER = 1008, 1011, 1012, 1013  # codes of RFC 6455, 7.4


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a client may take of the server.

    Attributes:
        body: bytes of a request.
        body_s: seconds for these to arrive, and for the first message of a stream.
        timeout_s: seconds from then to the sound; and for a piece of a stream to be read.
        connections: at a time.
        streams: at a time.
        idle_s: seconds without sound or a message after which a stream is closed.
    """

    body: int = 8 << 20
    body_s: float = 10.0
    timeout_s: float = 30.0
    connections: int = 512
    streams: int = 4
    idle_s: float = 300.0

    @property
    def request_s(self) -> float:
        """Seconds for all of a request, the time in which its response is read included."""
        return self.timeout_s + 2 * self.body_s


class StreamRefused(Exception):
    """A stream that is not served, or no longer: one line, and the code with which it is closed."""

    def __init__(self, line: str, code: int = POLICY):
        super().__init__(line)
        self.code = code


class _Gone(Exception):
    """The client closed the connection."""


class Live:
    """A stream that is sent to one client; its methods belong to the event loop's thread.

    Args:
        stream: makes the chunks.
        queue: in whose thread they are made.
        ahead_s: seconds of sound that may be sent before they are played; None: any.
        playing: whether chunks are made before `play`.
        observe: called with the seconds of each chunk, its time in the queue included.

    Attributes:
        events: of the timeline, by name; those of a whole timeline are called '1', '2', ...
        sent, played: frames.
        notices: messages for the client that wait; of too many the oldest are dropped.
    """

    def __init__(
        self,
        stream: Stream,
        queue: RequestQueue,
        ahead_s: float | None,
        playing: bool = True,
        observe: Callable[[float], None] = lambda seconds: None,
    ):
        self.stream, self.playing, self._observe = stream, playing, observe
        self.events = _named(stream.timeline.events)
        self.sent = self.played = 0
        self.notices: collections.deque[dict[str, Any]] = collections.deque(maxlen=64)
        self.last = time.monotonic()
        self._queue, self._changed, self._editing = queue, asyncio.Event(), asyncio.Lock()
        self._ahead = None if ahead_s is None else ahead_s * stream.sample_rate

    @property
    def editable(self) -> int:
        """The frame from which on an edit is heard."""
        return round(self.stream.editable_s * self.stream.sample_rate)

    def play(self, playing: bool = True) -> None:
        """Lets chunks be made, or no more of them."""
        self.playing = playing
        self._changed.set()

    def has_played(self, frame: int) -> None:
        """How far the client is."""
        self.played = frame
        self._changed.set()

    def notify(self, **message: Any) -> None:
        """Tells the client of what somebody else did."""
        self.notices.append(message)
        self._changed.set()

    async def edit(self, timeline: Any, prompt: str | None = None) -> None:
        """Puts a whole timeline in place, see `Stream.edit`."""
        async with self._editing:
            await asyncio.to_thread(self.stream.edit, timeline, prompt)
            self.events = _named(self.stream.timeline.events)

    async def change(
        self, changed: Callable[[dict[str, Event]], Mapping[str, Event]], prompt: str | None = None
    ) -> None:
        """Changes some events and leaves the others; those that are long past are dropped.

        Args:
            changed: new events from those there are, by name.
            prompt: another one, or None.

        Raises:
            ValueError: see `Stream.edit`.
        """
        async with self._editing:
            begin = self.stream.editable_s - MAX_SECONDS
            kept = {name: e for name, e in self.events.items() if e.offset_s > begin}
            new = dict(changed(kept))
            timeline = dataclasses.replace(self.stream.timeline, events=tuple(new.values()))
            await asyncio.to_thread(self.stream.edit, timeline, prompt)
            self.events = new

    async def chunks(self, send: Callable[[dict[str, Any] | Chunk], Any]) -> None:
        """Makes and sends chunks, each when it is wanted, until the stream ends."""
        while True:
            while self.notices or not self._is_wanted():
                while self.notices:
                    await send(self.notices.popleft())
                self._changed.clear()
                if not self._is_wanted():
                    await self._changed.wait()
            begin = time.monotonic()
            chunk = await asyncio.wrap_future(self._queue.call(lambda: next(self.stream, None)))
            if chunk is None:
                return
            self.last = time.monotonic()
            self._observe(self.last - begin)
            self.sent = chunk.start + len(chunk.pcm)
            await send(chunk)

    def _is_wanted(self) -> bool:
        is_near = self._ahead is None or self.sent - self.played < self._ahead
        return self.playing and is_near


def _named(events: Sequence[Event]) -> dict[str, Event]:
    return {str(number): event for number, event in enumerate(events, 1)}


@dataclasses.dataclass(eq=False)
class LiveStreams:
    """All streams of a server.

    Attributes:
        queue: its device.
        limits: see `Limits`.
        schedule: of windows and hops.
        programs: (steps, sample rate) of those that are compiled; none: whatever is asked for.
            observe: called with the seconds of each chunk, its time in the queue included.
        steered: the stream that listens to OSC.
        count: of those that are open.
    """

    queue: RequestQueue
    limits: Limits = Limits()
    schedule: Schedule = Schedule()
    programs: frozenset[tuple[int, int]] = frozenset()
    observe: Callable[[float], None] = lambda seconds: None
    steered: Live | None = None
    count: int = 0

    async def serve(self, socket: WebSocket, is_authorised: Callable[[str], bool]) -> None:
        """Serves one client to its end; nothing of it is left then.

        Args:
            socket: not yet accepted.
            is_authorised: whether a token is the server's; '' for none.
        """
        await socket.accept()
        with contextlib.suppress(_Gone, WebSocketDisconnect):
            try:
                await self._serve(socket, is_authorised)
                code = 1000
            except StreamRefused as refused:
                await self._send(socket, {'type': 'error', 'error': str(refused)})
                code = refused.code
            await asyncio.wait_for(socket.close(code), self.limits.timeout_s)

    async def _serve(self, socket: WebSocket, is_authorised: Callable[[str], bool]) -> None:
        try:
            message = await asyncio.wait_for(_receive(socket), self.limits.body_s)
        except TimeoutError:
            raise StreamRefused(f'no start message within {self.limits.body_s:g} s') from None
        kind, fields = read_message(message)
        if kind != 'start':
            raise StreamRefused(f'the first message is {kind!r}; begin with "type": "start"')
        if not is_authorised(str(fields.pop('token', ''))):
            raise StreamRefused('give the token of the server, as "token"')
        if self.count >= self.limits.streams:
            raise StreamRefused(
                f'{self.limits.streams} streams are open already; try again', TRY_LATER
            )
        self.count += 1
        live = None
        try:
            live, notes, listens = await self._open(fields)
            if listens:
                if self.steered is not None:
                    raise StreamRefused('another stream listens to OSC', TRY_LATER)
                self.steered = live
            await self._send(socket, {'type': 'started', **self._described(live), 'notes': notes})
            await self._play(socket, live)
        finally:
            self.count -= 1
            if live is not None and self.steered is live:
                self.steered = None

    async def _open(self, fields: dict[str, Any]) -> tuple[Live, list[str], bool]:
        """The stream of a start message, lines on its texts, and whether it listens to OSC."""
        ahead, osc = fields.pop('ahead', AHEAD_S), fields.pop('osc', False)
        playing = fields.pop('playing', True)
        is_number = isinstance(ahead, (int, float)) and not isinstance(ahead, bool)
        if ahead is not None and not (is_number and 0 < ahead <= MAX_AHEAD_S):
            shown = printable(repr(ahead), 40)
            raise StreamRefused(f'ahead is {shown}; give up to {MAX_AHEAD_S:g} seconds or null')
        if not isinstance(osc, bool) or not isinstance(playing, bool):
            raise StreamRefused('osc and playing are true or false')
        try:
            stream, notes = await asyncio.to_thread(
                open_stream, self.queue.generator, fields, self.schedule, self.programs
            )
        except ValueError as error:
            raise StreamRefused(str(error)) from error
        return Live(stream, self.queue, ahead, playing, self.observe), notes, osc

    def _described(self, live: Live) -> dict[str, Any]:
        generator, stream = self.queue.generator, live.stream
        return {
            'sample_rate': stream.sample_rate,
            'channels': 2,
            'seconds': stream.seconds,
            'hop': self.schedule.hop * stream.sample_rate // LATENT_RATE,
            'watermark': str(generator.mark) if generator.mark else None,
        }

    async def _play(self, socket: WebSocket, live: Live) -> None:
        """Sends chunks and reads messages, both at once, until one of them ends."""

        tasks = {
            asyncio.create_task(live.chunks(lambda what: self._send(socket, what, live))),
            asyncio.create_task(self._obey(socket, live)),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await self._send(socket, {'type': 'ended', 'frames': live.sent})
        except QueueClosed:
            raise StreamRefused('the server is closing', CLOSING) from None
        except (StreamRefused, _Gone, WebSocketDisconnect):
            raise
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise StreamRefused(f'no more sound: {printable(lines[0])}', FAILED) from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _obey(self, socket: WebSocket, live: Live) -> None:
        """Does what the client's messages say."""
        while True:
            left = live.last + self.limits.idle_s - time.monotonic()
            try:
                text = await asyncio.wait_for(_receive(socket), max(left, 0.01))
            except TimeoutError:
                if time.monotonic() - live.last >= self.limits.idle_s:
                    line = f'neither sound nor a message for {self.limits.idle_s:g} s'
                    raise StreamRefused(line) from None
                continue
            live.last = time.monotonic()
            kind, fields = read_message(text)
            if kind == 'start':
                raise StreamRefused('the stream has started; open another connection for another')
            if kind == 'edit':
                await self._send(socket, await self._edit(live, fields))
            elif kind == 'played':
                live.has_played(_frame(fields.get('frame'), live.sent))
            else:
                live.play(kind == 'play')

    async def _edit(self, live: Live, fields: dict[str, Any]) -> dict[str, Any]:
        """The answer to an edit."""
        name = fields.pop('id', None)
        is_text = isinstance(name, str) and name.isprintable() and len(name) <= MAX_ID
        if name is not None and not is_text and type(name) is not int:
            raise StreamRefused(
                f'the id of an edit is {printable(repr(name), 40)}; give a whole number or a '
                f'printable text of up to {MAX_ID} characters'
            )
        answer = {} if name is None else {'id': name}
        try:
            values = typed(fields)
            if 'events' not in fields:
                raise ValueError('an edit holds the whole timeline, as "events"; [] for none')
            await live.edit(values['events'], values.get('prompt'))
        except ValueError as error:
            return {'type': 'refused', **answer, 'error': str(error), 'from': live.editable}
        return {'type': 'edited', **answer, 'from': live.editable}

    async def _send(
        self, socket: WebSocket, what: dict[str, Any] | Chunk, live: Live | None = None
    ) -> None:
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                if isinstance(what, Chunk):
                    head = HEAD.pack(what.start, live.editable)
                    await socket.send_bytes(head + what.pcm.astype('<i2').tobytes())
                else:
                    await socket.send_json(what)
        except (TimeoutError, RuntimeError):  # it does not read, or is closed already
            raise _Gone from None


def open_stream(
    generator: Generator,
    fields: dict[str, Any],
    schedule: Schedule,
    programs: frozenset[tuple[int, int]],
) -> tuple[Stream, list[str]]:
    """The stream of a start message, and lines on its texts.

    Raises:
        ValueError: a value out of range, or there is no program for it.
    """
    endless = 'seconds' not in fields or fields['seconds'] is None
    values = typed({k: v for k, v in fields.items() if k != 'seconds' or not endless})
    given = {'prompt': '', 'steps': 4, 'sample_rate': 48_000, **values}
    if programs and (given['steps'], given['sample_rate']) not in programs:
        steps = ', '.join(f'{steps} steps at {rate} Hz' for steps, rate in sorted(programs))
        raise ValueError(
            f'this server streams {steps}, not {given["steps"]:g} at {given["sample_rate"]:g}'
        )
    return generator.open_stream(**given, schedule=schedule)


def compile_streams(
    generator: Generator, steps: Sequence[int], sample_rates: Sequence[int], schedule: Schedule
) -> frozenset[tuple[int, int]]:
    """Compiles the programs of streams, by making the first chunks of each; see `LiveStreams`."""
    kinds = frozenset((count, rate) for count in steps for rate in sample_rates)
    for count, rate in kinds:
        stream, _ = generator.open_stream(
            prompt='rain', steps=count, sample_rate=rate, schedule=schedule
        )
        for _ in range(2):  # the first window is shorter than the others
            next(stream)
    return kinds


def read_message(text: str | bytes) -> tuple[str, dict[str, Any]]:
    """The type of a client's message, and its other fields.

    Raises:
        StreamRefused: it is none.
    """
    try:
        fields = read_object(text)
        kind = fields.pop('type', None)
        if not isinstance(kind, str) or kind not in _KNOWN:
            raise ValueError(
                f'the type of a message is {printable(repr(kind), 40)}; there are '
                f'{", ".join(_KNOWN)}'
            )
        refuse_unknown(fields, _KNOWN[kind])
    except ValueError as error:
        raise StreamRefused(str(error)) from error
    return kind, fields


def _frame(value: Any, sent: int) -> int:
    if type(value) is not int or not 0 <= value <= sent:
        shown = printable(repr(value), 40)
        raise StreamRefused(f'played is at {shown}; give a frame from 0 to {sent}, what was sent')
    return value


async def _receive(socket: WebSocket) -> str | bytes:
    """The next message, whose JSON may come as text or bytes."""
    message = await socket.receive()
    if message['type'] == 'websocket.disconnect':
        raise _Gone
    text = message.get('text')
    return text if text is not None else message['bytes']
