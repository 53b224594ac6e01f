"""A release over HTTP, on loopback: the bytes of `generate`, and clients that harm nobody."""

import asyncio
import base64
import contextlib
import http.client
import io
import json
import socket
import threading
import time

import numpy as np
import pytest
import soundfile

import realaudio_jax
from realaudio_jax import batching
from realaudio_jax.io import encode_audio

for module in ('fastapi', 'prometheus_client', 'pythonosc', 'uvicorn', 'websockets'):
    pytest.importorskip(module, reason="needs pip install 'realaudio_jax[serve]'")

from realaudio_jax import serving  # noqa: E402

FIELDS = {'prompt': 'rain', 'seconds': 0.5, 'steps': 1}
JSON = {'Content-Type': 'application/json'}


@pytest.fixture(scope='module')
def generator(tiny_release):
    generator = realaudio_jax.load(tiny_release, log=lambda line: None)
    generator.prepare(**FIELDS)
    return generator


@contextlib.contextmanager
def running(generator, limits=serving.Limits(), most=64, **settings):  # noqa: B008
    """A server in a thread of this process; yields its port and its queue."""
    metrics = serving.Metrics()
    listening = socket.create_server(('127.0.0.1', 0))
    with batching.RequestQueue(generator, most=most, observe=metrics.observe) as queue:
        app = serving.create_app(queue, metrics, limits, **settings)
        server = serving.make_server(app, limits)
        thread = threading.Thread(target=asyncio.run, args=(serving.answer(server, listening),))
        thread.start()
        try:
            yield listening.getsockname()[1], queue
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture(scope='module')
def port(generator):
    with running(generator, hosts=('127.0.0.1', 'localhost')) as (port, _):
        yield port


def ask(port, fields=None, method='POST', path='/generate', body=None, **headers):
    """(status, headers, body) of one request."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
    text = json.dumps(FIELDS | (fields or {})) if body is None else body
    names = {name.replace('_', '-'): value for name, value in headers.items()}
    connection.request(method, path, text if method == 'POST' else None, JSON | names)
    response = connection.getresponse()
    with contextlib.closing(connection):
        return response.status, dict(response.headers), response.read()


def test_a_sound_has_the_bytes_of_generate(port, generator):
    sound = generator.generate(**FIELDS, seed=3)
    wav, flac = (encode_audio(sound.pcm, 48_000, suffix) for suffix in ('.wav', '.flac'))
    status, headers, body = ask(port, {'seed': 3})
    assert (status, headers['content-type'], body == wav) == (200, 'audio/wav', True)
    assert headers['x-seed'] == '3' and headers['x-sample-rate'] == '48000'
    assert headers['x-watermark'] == 'public key'
    assert headers['x-level'] == f'{sound.lufs:.2f}' and headers['x-peak'] == f'{sound.peak:.4f}'
    assert 'generate;dur=' in headers['server-timing'] and 'x-notes' not in headers
    assert ask(port, {'seed': 3, 'format': 'flac'})[2] == flac
    assert ask(port, {'seed': 3}, Accept='audio/ogg, audio/flac;q=0.9, */*;q=0.1')[2] == flac
    assert ask(port, {'seed': 3}, Accept='application/json')[2] == wav
    _, headers, body = ask(port, {'seed': 3, 'format': 'pcm'}, Accept='audio/flac')
    assert headers['content-type'] == 'audio/pcm; rate=48000; channels=2'
    np.testing.assert_array_equal(np.frombuffer(body, '<i2').reshape(-1, 2), sound.pcm)


def test_what_generate_would_warn_of_is_a_header(port):
    status, headers, _ = ask(port, {'prompt': 'rain \u96e8'})
    assert status == 200 and 'x-notes' in headers


@pytest.mark.parametrize(
    ('request_', 'status', 'said'),
    [
        ({'body': '{'}, 400, 'not JSON'),
        ({'body': b'\xff'}, 400, 'not UTF-8'),
        ({'body': '[' * 50_000}, 400, 'nested too deeply'),
        ({'fields': {'secnds': 1}}, 400, "did you mean 'seconds'?"),
        ({'fields': {'prompt': ''}}, 400, 'nothing to make'),
        ({'fields': {'seconds': 1e9}}, 400, 'seconds is'),
        ({'fields': {'seconds': 5}}, 400, 'no program for a sound of up to 5 s'),
        ({'fields': {'model': 'teacher', 'steps': 999}}, 400, 'no program for'),
        ({'fields': {'format': 'ogg'}}, 400, 'choose wav, flac, pcm'),
        ({'fields': {'init_audio': 'x'}}, 400, 'no WAV file in base64'),
        ({'fields': {}, 'Accept': 'image/png'}, 406, 'accept audio/wav'),
        ({'fields': {}, 'Content_Type': 'text/plain'}, 415, 'Content-Type: application/json'),
        ({'body': b' ' * (9 << 20)}, 413, 'more than 8,388,608 bytes'),
        ({'method': 'GET'}, 405, 'there are POST /generate'),
        ({'method': 'GET', 'path': '/x'}, 404, 'there are POST /generate'),
    ],
    ids=lambda value: value if isinstance(value, int) else None,
)
def test_what_is_not_served_is_a_status_and_one_line(port, request_, status, said):
    got, headers, body = ask(port, **request_)
    assert got == status and headers['content-type'] == 'application/json'
    line = json.loads(body)['error']
    assert said in line and '\n' not in line


def test_init_audio_is_an_uncompressed_wav_file(generator):
    def encoded(**settings):
        file = io.BytesIO()
        soundfile.write(file, np.full((4_000, 1), 0.1), 16_000, **settings)
        return base64.b64encode(file.getvalue()).decode()

    fields = FIELDS | {'strength': 0.5, 'init_audio': encoded(format='WAV')}
    prepared, kind = serving.read_request(generator, json.dumps(fields).encode(), None)
    assert kind == 'wav' and prepared.call.init_audio.shape == (12_000, 2)
    for other in (encoded(format='FLAC'), encoded(format='WAV', subtype='IMA_ADPCM')):
        with pytest.raises(serving.Refusal, match='uncompressed WAV'):
            serving.read_request(generator, json.dumps({'init_audio': other}).encode(), None)


def test_health_and_metrics_say_how_it_is(port, generator):
    ask(port)
    _, _, body = ask(port, method='GET', path='/health')
    health = json.loads(body)
    assert health['status'] == 'ok' and health['release'] == 'tiny' and health['waiting'] == 0
    assert any('student, 1 steps' in line for line in health['programs'])
    text = ask(port, method='GET', path='/metrics')[2].decode()
    for name in ('requests_total{status="200"}', 'batch_seconds_sum', 'waiting 0.0'):
        assert f'realaudio_{name}' in text
    assert 'process_resident_memory_bytes' in text


def test_other_names_and_wrong_tokens_are_refused(port, generator):
    assert ask(port, Host='evil.example')[0] == 400
    with running(generator, token='secret') as (guarded, _):
        assert ask(guarded)[0] == 401
        assert ask(guarded, Authorization='Bearer secre')[0] == 401
        assert ask(guarded, method='GET', path='/metrics')[0] == 401
        assert ask(guarded, method='GET', path='/health')[0] == 200
        assert ask(guarded, Authorization='Bearer secret')[0] == 200


class HeldDevice:
    """`run_batch` that waits until it is let go."""

    def __init__(self, monkeypatch):
        self.go, self.busy, self.made = threading.Event(), threading.Event(), []
        real = batching.run_batch

        def run(generator, batch, size):
            self.busy.set()
            assert self.go.wait(20)
            self.made += [x.call.prompt for x in batch]
            return real(generator, batch, size)

        monkeypatch.setattr(batching, 'run_batch', run)


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_full_queue_is_429_and_a_client_that_vanishes_leaves_it(generator, monkeypatch):
    device, answers = HeldDevice(monkeypatch), {}
    with running(generator, most=1) as (port, queue):

        def client(name):
            answers[name] = ask(port, {'prompt': name})[0]

        first = threading.Thread(target=client, args=('first',))
        first.start()
        assert device.busy.wait(20)
        vanishing = http.client.HTTPConnection('127.0.0.1', port, timeout=20)
        vanishing.request('POST', '/generate', json.dumps(FIELDS | {'prompt': 'gone'}), JSON)
        until(lambda: len(queue) == 1)
        status, headers, body = ask(port)
        assert status == 429 and headers['retry-after'] == '1' and b'1 requests wait' in body
        vanishing.close()
        until(lambda: len(queue) == 0)
        last = threading.Thread(target=client, args=('last',))
        last.start()
        until(lambda: len(queue) == 1)
        device.go.set()
        first.join(20), last.join(20)
    assert answers == {'first': 200, 'last': 200} and device.made == ['first', 'last']


def test_a_sound_that_takes_too_long_is_504_and_one_that_fails_is_422(generator, monkeypatch):
    device = HeldDevice(monkeypatch)
    with running(generator, serving.Limits(timeout_s=0.2)) as (port, _):
        assert ask(port)[0] == 504
        device.go.set()
    monkeypatch.setattr(batching, 'run_batch', lambda g, batch, size: [ValueError('stays silent')])
    with running(generator) as (port, _):
        status, _, body = ask(port)
        assert status == 422 and json.loads(body) == {'error': 'stays silent'}
        monkeypatch.setattr(batching, 'run_batch', lambda g, batch, size: [MemoryError('no room')])
        status, _, body = ask(port)
        assert status == 500 and json.loads(body) == {'error': 'the sound was not made: no room'}


def test_slow_and_malformed_clients_are_cut_and_keep_nobody_waiting(generator, monkeypatch):
    monkeypatch.setattr(serving.Limits, 'request_s', 1.0)
    head = b'POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'

    def connect(port, data):
        connection = socket.create_connection(('127.0.0.1', port), timeout=20)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.sendall(data)
        return connection

    body = json.dumps(FIELDS).encode()
    whole = head + b'Content-Length: %d\r\n\r\n' % len(body) + body
    with running(generator, serving.Limits(body_s=0.3)) as (port, _):
        silent, half = connect(port, b''), connect(port, head[:40])
        slow = connect(port, head + b'Content-Length: 90\r\n\r\n{')
        deaf = connect(port, whole * 40)  # asks again and again, and never reads
        bad = connect(port, b'\x16\x03\x01\x02 nonsense\r\n\r\n')
        assert ask(port)[0] == 200
        assert b' 400 ' in bad.recv(99)
        assert b' 408 ' in slow.recv(99)
        for connection in (silent, half):
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(99) == b''
        assert ask(port)[0] == 200
        for connection in (silent, half, slow, deaf, bad):
            connection.close()
