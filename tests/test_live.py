"""Streams over a WebSocket and OSC, on loopback: the chunks of `stream`, edits, bad clients."""

import asyncio
import contextlib
import json
import socket
import threading
import time

import numpy as np
import pytest

from realaudio_jax import batching
from realaudio_jax.generator import Generator
from realaudio_jax.longform import Schedule

for module in ('fastapi', 'prometheus_client', 'pythonosc', 'uvicorn', 'websockets'):
    pytest.importorskip(module, reason="needs pip install 'realaudio_jax[serve]'")

from pythonosc.osc_message_builder import build_msg  # noqa: E402
from pythonosc.osc_packet import OscPacket  # noqa: E402
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

from realaudio_jax import serving  # noqa: E402
from realaudio_jax.live import HEAD, Limits, LiveStreams  # noqa: E402

SMALL = Schedule(window=60, hop=10, context=34, swap=6, tail=4)
START = {'type': 'start', 'prompt': 'rain', 'steps': 1, 'seed': 3}
HOP = 10 * 1920


@pytest.fixture(scope='module')
def generator(tiny_release):
    return Generator(tiny_release, log=lambda line: None)


@contextlib.contextmanager
def running(generator, limits=Limits(), programs=frozenset(), **settings):  # noqa: B008
    """A server in a thread of this process; yields its port, that of OSC, and its streams."""
    metrics = serving.Metrics()
    listening = socket.create_server(('127.0.0.1', 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)  # soon full
    osc = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    osc.bind(('127.0.0.1', 0))
    with batching.RequestQueue(generator) as queue:
        streams = LiveStreams(queue, limits, SMALL, programs)
        app = serving.create_app(queue, metrics, limits, streams=streams, **settings)
        server = serving.make_server(app, limits)
        serve = serving.answer(server, listening, streams, osc)
        thread = threading.Thread(target=asyncio.run, args=(serve,))
        thread.start()
        try:
            yield listening.getsockname()[1], osc.getsockname()[1], streams
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture(scope='module')
def served(generator):
    with running(generator, hosts=('127.0.0.1',)) as found:
        yield found


@contextlib.contextmanager
def opened(port, _headers=None, **fields):
    """A connection whose stream has been asked for."""
    at = f'ws://127.0.0.1:{port}/stream'
    with connect(at, additional_headers=_headers, max_size=None, open_timeout=20) as client:
        client.send(json.dumps(START | fields))
        yield client


def heard(client):
    """The next message: a dict, or (first frame, editable frame, PCM [S, 2])."""
    message = client.recv(timeout=20)
    if isinstance(message, str):
        return json.loads(message)
    pcm = np.frombuffer(message[HEAD.size :], '<i2').reshape(-1, 2)
    return *HEAD.unpack(message[: HEAD.size]), pcm


def refusal(client):
    """The one error of a connection, and the code with which it is closed."""
    errors = []
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            message = heard(client)
            errors += [message] if isinstance(message, dict) else []
    (error,) = [m for m in errors if m['type'] == 'error']
    assert '\n' not in error['error']
    return error['error'], closed.value.rcvd.code


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_client_gets_the_chunks_of_a_stream_and_their_places(served, generator):
    events = 'dog@0.5-0.8:-6dB'
    whole = list(generator.stream('rain', events, 1.5, 1, 3, schedule=SMALL))
    with opened(served[0], events=events, seconds=1.5, ahead=None) as client:
        started = heard(client)
        assert started['type'] == 'started' and started['sample_rate'] == 48_000
        assert started['hop'] == HOP and started['watermark'] == 'public key'
        got, message = [], heard(client)
        while isinstance(message, tuple):
            got.append(message)
            message = heard(client)
    assert message == {'type': 'ended', 'frames': 72_000}
    assert [first for first, _, _ in got] == [chunk.start for chunk in whole]
    for (_, _, pcm), chunk in zip(got, whole, strict=True):
        np.testing.assert_array_equal(pcm, chunk.pcm)
    until(lambda: served[2].count == 0)


def test_no_more_is_made_than_the_client_plays(served):
    """Half a second ahead: after the first pieces nothing comes until some of it has played."""
    with opened(served[0], ahead=0.5) as client:
        heard(client)
        end = 0
        while end < 24_000:
            first, editable, pcm = heard(client)
            assert first == end and editable > first
            end = first + len(pcm)
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.5)
        client.send(json.dumps({'type': 'played', 'frame': end - HOP}))  # so one piece is wanted
        assert heard(client)[0] == end
        client.send(json.dumps({'type': 'stop'}))
        client.send(json.dumps({'type': 'played', 'frame': end}))
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.3)
        client.send(json.dumps({'type': 'play'}))
        assert heard(client)[0] == end + HOP


def test_an_edit_is_heard_from_the_frame_that_the_answer_names(served):
    def play(edited):
        with opened(served[0], ahead=0.1, seconds=3.0) as client:
            heard(client)
            pcm, place = [heard(client)[2]], None
            if edited:
                at = 1.4
                edit = {'type': 'edit', 'id': 7, 'events': [['dog', at, at + 0.4]]}
                client.send(json.dumps(edit))
                answer = heard(client)
                assert answer['type'] == 'edited' and answer['id'] == 7
                place = answer['from'], round(at * 48_000)
            while True:
                client.send(json.dumps({'type': 'played', 'frame': sum(map(len, pcm))}))
                message = heard(client)
                if isinstance(message, dict):
                    return np.concatenate(pcm).astype(int), place
                pcm.append(message[2])

    (plain, _), (edited, (soonest, at)) = play(False), play(True)
    differs = np.flatnonzero(np.abs(plain - edited).max(axis=1) > 1)
    assert soonest < at and at - 12 * 1920 < differs[0] < at + HOP


def test_an_edit_that_cannot_be_is_refused_and_the_stream_goes_on(served):
    with opened(served[0], events='dog@0.1-0.2', ahead=0.1) as client:
        heard(client), heard(client)
        for edit, said in (
            ({'events': 'dog@0.15-0.3', 'id': 'a'}, "changes 'dog' at 0.15 to 0.3 s, which is"),
            ({'events': []}, "removes 'dog' at 0.1 to 0.2 s, which is already made"),
            ({'events': 'dog'}, 'cannot be read'),
            ({'prompt': 'wind'}, 'holds the whole timeline'),
            ({'events': 'dog@0.1-0.2', 'prompt': 5}, 'prompt is 5; give one text'),
        ):
            client.send(json.dumps({'type': 'edit', **edit}))
            answer = heard(client)
            assert answer['type'] == 'refused' and said in answer['error']
            assert answer.get('id') == edit.get('id')
        client.send(json.dumps({'type': 'played', 'frame': HOP}))
        assert isinstance(heard(client), tuple)


@pytest.mark.parametrize(
    ('messages', 'said', 'code'),
    [
        (['{'], 'not JSON', 1008),
        (['[1]'], 'a JSON list', 1008),
        ([b'\xff'], 'not UTF-8', 1008),
        (['{"type": "begin"}'], "'begin'; there are start", 1008),
        (['{"type": "played", "frame": 0}'], "the first message is 'played'", 1008),
        (['{"type": "start", "promt": "x"}'], "did you mean 'prompt'?", 1008),
        (['{"type": "start", "steps": 3}'], 'streams 1 steps at 48000 Hz, not 3', 1008),
        (['{"type": "start", "ahead": 1e9}'], 'ahead is', 1008),
        (['{"type": "start", "osc": 1}'], 'true or false', 1008),
        (['{"type": "start", "seconds": 0.1, "steps": 1}'], 'seconds is 0.1', 1008),
        ([json.dumps(START), json.dumps(START)], 'has started', 1008),
        ([json.dumps(START), '{"type": "played", "frame": 99999999}'], 'what was sent', 1008),
        ([json.dumps(START), '{"type": "play", "x": 1}'], "unknown key 'x'; leave it out", 1008),
        (['{"type": "start", "token": "\\ud800"}'], 'half of a surrogate pair', 1008),
        *(
            ([json.dumps(START), f'{{"type": "edit", "events": [], "id": {name}}}'], said, 1008)
            for name, said in (
                ('"\\ud800"', 'half of a surrogate pair'),
                ('1e400', 'the id of an edit is inf; give'),
                ('true', 'the id of an edit is True; give'),
                (f'"{"x" * 101}"', 'text of up to 100 characters'),
            )
        ),
    ],
)
def test_a_malformed_message_is_one_error_and_the_end(generator, messages, said, code):
    with running(generator, programs=frozenset({(1, 48_000)})) as (port, _, streams):
        with connect(f'ws://127.0.0.1:{port}/stream', max_size=None) as client:
            for message in messages:
                client.send(message)
            line, closed = refusal(client)
            assert said in line and closed == code
        until(lambda: streams.count == 0)


def test_limits_of_streams_and_messages(generator):
    limits = Limits(streams=1, body=5_000, body_s=0.3, idle_s=1.0)
    with running(generator, limits) as (port, _, streams):
        with opened(port) as client:
            heard(client)
            with opened(port) as other:
                assert refusal(other) == ('1 streams are open already; try again', 1013)
            with connect(f'ws://127.0.0.1:{port}/stream') as silent:
                assert refusal(silent) == ('no start message within 0.3 s', 1008)
            line, _ = refusal(client)
            assert line == 'neither sound nor a message for 1 s'
        until(lambda: streams.count == 0)
        with opened(port) as client:
            client.send('x' * 6_000)
            with pytest.raises(ConnectionClosed):
                while True:
                    client.recv(timeout=20)
        until(lambda: streams.count == 0)


def test_a_client_that_vanishes_or_reads_nothing_leaves_nothing(generator, monkeypatch):
    monkeypatch.setattr(serving.BoundedSocket, 'grace_s', 0.2)
    with running(generator, Limits(timeout_s=1.0)) as (port, _, streams):
        with opened(port) as gone:
            heard(gone), heard(gone)
            gone.socket.shutdown(socket.SHUT_RDWR)
            until(lambda: streams.count == 0)
        deaf = socket.create_connection(('127.0.0.1', port), timeout=20)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        start = json.dumps(START | {'ahead': None}).encode()
        deaf.sendall(
            b'GET /stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
            b'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n'
        )
        assert b' 101 ' in deaf.recv(99)
        deaf.sendall(b'\x81' + bytes([0x80 | len(start)]) + b'\0\0\0\0' + start)
        until(lambda: streams.count == 1)
        with opened(port, seconds=1.0, ahead=None) as other:  # nobody waits for the deaf one
            while not isinstance(message := heard(other), dict) or message['type'] != 'ended':
                pass
        until(lambda: streams.count == 0)
        deaf.close()


def test_tokens_and_pages_of_other_sites(generator):
    with running(generator, token='secret') as (port, _, _):
        with opened(port) as client:
            assert refusal(client) == ('give the token of the server, as "token"', 1008)
        for fields in ({'token': 'secret'}, {'_headers': {'Authorization': 'Bearer secret'}}):
            with opened(port, **fields) as client:
                assert heard(client)['type'] == 'started'
    with running(generator) as (port, _, _):
        own = {'Origin': f'http://127.0.0.1:{port}'}
        with opened(port, _headers=own) as client:
            assert heard(client)['type'] == 'started'
        with pytest.raises(InvalidStatus, match='403'):
            with opened(port, _headers={'Origin': 'http://evil.example'}):
                pass


def test_osc_steers_the_stream_that_listens(served):
    port, osc, _ = served
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.settimeout(20)

    def say(where, *values):
        packet = build_msg(f'/realaudio/{where}', values).dgram
        sender.sendto(packet, ('127.0.0.1', osc))
        (reply,) = OscPacket(sender.recv(4_096)).messages
        return reply.message.address.removeprefix('/realaudio/'), *reply.message.params[1:]

    assert say('play') == ('refused', 'no stream listens; open one with "osc": true')
    sender.sendto(b'\x00\x01nonsense', ('127.0.0.1', osc))
    assert b'no OSC packet' in sender.recv(4_096)
    with opened(port, osc=True, playing=False, ahead=0.1) as client:
        assert heard(client)['type'] == 'started'
        with opened(port, osc=True) as other:
            assert refusal(other)[0] == 'another stream listens to OSC'
        assert say('prompt', 'wind') == ('done', 0.0)
        assert heard(client)['prompt'] == 'wind'
        assert say('event/add', 'a', 'dog', 1.0, 1.5, -6.0)[0] == 'done'
        assert say('event/add', 'a', 'dog', 1.0, 1.5)[1].startswith("there is an event 'a'")
        assert say('event/move', 'a', 2.0)[0] == 'done'
        assert say('event/add', 'b', 'dog', 1.0)[1].endswith(
            'takes 2 texts and then 2 to 3 numbers'
        )
        assert say('event/remove', 'b')[1] == "there is no event 'b'; there are 'a'"
        heard(client)
        moved = heard(client)
        assert moved['by'] == '/realaudio/event/move' and not moved['playing']
        event = {'text': 'dog', 'onset_s': 2.0, 'offset_s': 2.5, 'gain_db': -6.0}
        assert moved['events'] == [event]
        assert say('play')[0] == 'done'
        while not isinstance(message := heard(client), tuple):
            pass
        assert message[0] == 0
        what, soonest = say('event/now', 'c', 'dog', 0.3)
        assert what == 'done'
        events = heard(client)['events']
        assert soonest < events[1]['onset_s'] < soonest + 0.1
        assert say('event/add', 'd', 'dog', 0.1, 0.2)[1].startswith("the edit changes 'dog' at 0.1")
        assert say('event/remove', 'c')[0] == 'done' and say('stop')[0] == 'done'
        assert say('nonsense')[1].startswith('there is no /realaudio/nonsense; there are')


def test_http_is_served_beside_streams_and_health_counts_them(served):
    import http.client

    with opened(served[0]) as client:
        heard(client)
        connection = http.client.HTTPConnection('127.0.0.1', served[0], timeout=20)
        connection.request('GET', '/health')
        assert json.loads(connection.getresponse().read())['streams'] == 1
        connection.request('GET', '/metrics')
        assert b'realaudio_streams 1.0' in connection.getresponse().read()
        connection.close()
