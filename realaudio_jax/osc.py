"""Steers a stream by Open Sound Control over UDP, as game engines and audio workstations send it.

    /realaudio/prompt        text
    /realaudio/event/add     name text onset offset [gain]     seconds, dB
    /realaudio/event/now     name text seconds [gain]          as soon as it can be heard
    /realaudio/event/move    name onset [offset]               without an offset as long as it was
    /realaudio/event/remove  name
    /realaudio/play
    /realaudio/stop

The stream is the one that was opened over the WebSocket with "osc": true. To whoever sent a message
goes /realaudio/done with its address and the second from which it is heard, or /realaudio/refused
with its address and why. Times of bundles are not kept: an event has its own.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from pythonosc.osc_message_builder import build_msg
from pythonosc.osc_packet import OscPacket

from realaudio_jax.io import printable
from realaudio_jax.live import Live, LiveStreams
from realaudio_jax.timeline import Event

PREFIX = '/realaudio'
LEAD_S = 0.02  # of an event that is to sound now, after what is already made
_SHAPES = {  # arguments: texts, then numbers from least to most
    '/prompt': (1, 0, 0),
    '/event/add': (2, 2, 3),
    '/event/now': (2, 1, 2),
    '/event/move': (1, 1, 2),
    '/event/remove': (1, 0, 0),
    '/play': (0, 0, 0),
    '/stop': (0, 0, 0),
}


class OscProtocol(asyncio.DatagramProtocol):
    """Reads packets and does what they say, one after another.

    Args:
        streams: one of them listens.
        most: messages that may wait; more are refused.
    """

    def __init__(self, streams: LiveStreams, most: int = 256):
        self._streams, self._messages = streams, asyncio.Queue(most)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._task = asyncio.create_task(self._work())

    def connection_lost(self, exc: Exception | None) -> None:
        self._task.cancel()

    def datagram_received(self, data: bytes, address: Any) -> None:
        try:
            messages = [timed.message for timed in OscPacket(data).messages]
        except Exception:  # whatever bytes these are
            self._reply(address, 'refused', '', 'this is no OSC packet')
            return
        for message in messages:
            try:
                self._messages.put_nowait((message.address, list(message.params), address))
            except asyncio.QueueFull:
                self._reply(address, 'refused', message.address, 'too many messages wait')

    def error_received(self, exc: Exception) -> None:
        """A reply did not arrive: nobody listens there."""

    async def _work(self) -> None:
        while True:
            where, values, address = await self._messages.get()
            live = self._streams.steered
            try:
                if live is None:
                    raise ValueError('no stream listens; open one with "osc": true')
                await obey(live, where, values)
            except Exception as error:  # nothing ends the task that reads for all
                self._reply(address, 'refused', where, str(error))
                continue
            self._reply(address, 'done', where, live.stream.editable_s)
            events = [dataclasses.asdict(event) for event in live.events.values()]
            live.notify(
                type='edited', by=where, events=events, prompt=live.stream.prompt,
                playing=live.playing, **{'from': live.editable},
            )  # fmt: skip

    def _reply(self, address: Any, what: str, where: str, value: str | float) -> None:
        value = printable(value, 400) if isinstance(value, str) else float(value)
        packet = build_msg(f'{PREFIX}/{what}', [printable(where, 100), value])
        self._transport.sendto(packet.dgram, address)


async def obey(live: Live, where: str, values: list[Any]) -> None:
    """Does what a message says.

    Args:
        live: the stream that it steers.
        where: its OSC address.
        values: its arguments.

    Raises:
        ValueError: it cannot be done, and why.
    """
    name = where.removeprefix(PREFIX)
    if name not in _SHAPES or not where.startswith(PREFIX):
        known = ', '.join(PREFIX + other for other in _SHAPES)
        raise ValueError(f'there is no {printable(where, 40)}; there are {known}')
    texts, least, most = _SHAPES[name]
    given, numbers = values[:texts], values[texts:]
    if not (
        len(given) == texts
        and all(isinstance(text, str) for text in given)
        and least <= len(numbers) <= most
        and all(type(number) in (int, float) for number in numbers)
    ):
        span = f'{least} to {most}' if least < most else f'{least}'
        raise ValueError(f'{where} takes {texts} texts and then {span} numbers')
    if name in ('/play', '/stop'):
        live.play(name == '/play')
    elif name == '/prompt':
        await live.change(lambda events: events, given[0])
    else:
        await live.change(_CHANGES[name](live, *given, *map(float, numbers)))


Changed = Callable[[dict[str, Event]], Mapping[str, Event]]


def _add(
    live: Live, name: str, text: str, onset: float, offset: float, gain: float = 0.0
) -> Changed:
    def changed(events: dict[str, Event]) -> Mapping[str, Event]:
        if name in events:
            raise ValueError(f'there is an event {name!r} already; move it, or take another name')
        return {**events, name: Event(text, onset, offset, gain)}

    return changed


def _now(live: Live, name: str, text: str, seconds: float, gain: float = 0.0) -> Changed:
    def changed(events: dict[str, Event]) -> Mapping[str, Event]:
        onset = live.stream.editable_s + LEAD_S
        return _add(live, name, text, onset, onset + seconds, gain)(events)

    return changed


def _move(live: Live, name: str, onset: float, offset: float | None = None) -> Changed:
    def changed(events: dict[str, Event]) -> Mapping[str, Event]:
        event = _known(events, name)
        end = onset + event.offset_s - event.onset_s if offset is None else offset
        return {**events, name: dataclasses.replace(event, onset_s=onset, offset_s=end)}

    return changed


def _remove(live: Live, name: str) -> Changed:
    def changed(events: dict[str, Event]) -> Mapping[str, Event]:
        _known(events, name)
        return {other: event for other, event in events.items() if other != name}

    return changed


def _known(events: Mapping[str, Event], name: str) -> Event:
    if name not in events:
        there = ', '.join(map(repr, list(events)[:8])) or 'none'
        raise ValueError(f'there is no event {name!r}; there are {there}')
    return events[name]


_CHANGES = {
    '/event/add': _add,
    '/event/now': _now,
    '/event/move': _move,
    '/event/remove': _remove,
}
