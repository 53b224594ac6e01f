"""A release over HTTP: one sound for one POST, as `Generator.generate` makes it, and streams.

`create_app` is the application, `make_server` and `answer` serve it, by uvicorn. Requests are read
and checked by threads, made by the one thread of a `RequestQueue`, and encoded by threads again, so
that neither a slow client nor a large body keeps the device waiting. Needs the extra `serve`.

A client is served within limits, each with its status and one line: bytes (413), time for the body
(408) and for the sound (504), requests that wait (429); a connection on which a request takes
longer than all of these together is cut. A stream is a WebSocket, see `live`.
"""

import asyncio
import base64
import binascii
import concurrent.futures
import io
import secrets
import socket
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import prometheus_client
import soundfile
import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from realaudio_jax import __version__
from realaudio_jax.batching import (
    FIELDS,
    Made,
    QueueClosed,
    QueueFull,
    RequestQueue,
    notes_on,
    prepare,
    program_of,
    read_fields,
)
from realaudio_jax.generator import Generator, Sound
from realaudio_jax.io import encode_audio, printable
from realaudio_jax.live import Limits, LiveStreams
from realaudio_jax.osc import OscProtocol
from realaudio_jax.program_io import describe
from realaudio_jax.requests import Prepared
from realaudio_jax.sound_files import read_audio

MEDIA_TYPES = {'wav': 'audio/wav', 'flac': 'audio/flac', 'pcm': 'audio/pcm'}
_ACCEPTED = {
    **{media: name for name, media in MEDIA_TYPES.items()},
    'audio/x-wav': 'wav',
    'audio/wave': 'wav',
    'audio/vnd.wave': 'wav',
    'audio/x-flac': 'flac',
    'audio/*': 'wav',
    '*/*': 'wav',
}
_INIT_KINDS = ('PCM_U8', 'PCM_16', 'PCM_24', 'PCM_32', 'FLOAT', 'DOUBLE')
_VANISHED = 499  # the client closed the connection; nobody reads the status


class Refusal(Exception):
    """A request that is not served: status, one line, and headers."""

    def __init__(self, status: int, line: str, **headers: str):
        super().__init__(line)
        self.status, self.headers = status, headers


def accepted_format(accept: str | None) -> str:
    """The kind of sound file of an Accept header (RFC 9110, 12.5.1); 'wav' where it is free.

    Raises:
        Refusal: it names none that there is.
    """
    choices = []
    for part in (accept or '*/*').split(','):
        media, *parameters = (x.strip().lower() for x in part.split(';'))
        quality = next((x[2:] for x in parameters if x.startswith('q=')), '1')
        try:
            weight = float(quality)
        except ValueError:
            weight = 0.0
        if media in _ACCEPTED and weight > 0:
            choices.append((-weight, len(choices), _ACCEPTED[media]))
    if not choices and 'application/json' in accept:  # as curl --json says; errors are of this type
        return 'wav'
    if not choices:
        raise Refusal(
            406, f'there is no such kind of sound; accept {", ".join(MEDIA_TYPES.values())}'
        )
    return min(choices)[2]


def read_request(generator: Generator, body: bytes, accept: str | None) -> tuple[Prepared, str]:
    """The checked request of a body, and the kind of its response.

    Raises:
        Refusal: it cannot be made, and why.
    """
    try:
        fields = read_fields(body, further=('format',))
        kind = fields.pop('format', None)
        if fields.get('init_audio') is not None:
            rate = fields.get('sample_rate', 48_000)
            fields['init_audio'] = _decode(fields['init_audio'], rate)
        prepared = prepare(generator, fields)
    except ValueError as error:
        raise Refusal(400, str(error)) from error
    if kind is None:
        return prepared, accepted_format(accept)
    if not isinstance(kind, str) or kind not in MEDIA_TYPES:
        shown = printable(repr(kind), 40)
        raise Refusal(400, f'format is {shown}; choose {", ".join(MEDIA_TYPES)}')
    return prepared, kind


def _decode(text: Any, sample_rate: Any) -> Any:
    """Samples of init audio: a WAV file in base64, whose size bounds what it holds.

    Raises:
        ValueError: it is none.
    """
    if sample_rate not in (48_000, 44_100):
        raise ValueError(
            f'sample_rate is {printable(repr(sample_rate), 40)}; choose 48000 or 44100'
        )
    if not isinstance(text, str):
        raise ValueError('init_audio is no text; give a WAV file in base64')
    try:
        data = base64.b64decode(text, validate=True)
        info = soundfile.info(io.BytesIO(data))
    except (binascii.Error, ValueError, soundfile.LibsndfileError, RuntimeError):
        raise ValueError('init_audio is no WAV file in base64') from None
    if info.format != 'WAV' or info.subtype not in _INIT_KINDS or info.channels > 2:
        raise ValueError('init_audio is of another kind; give uncompressed WAV, mono or stereo')
    with tempfile.NamedTemporaryFile(suffix='.wav') as file:
        file.write(data)
        file.flush()
        try:
            return read_audio(file.name, int(sample_rate))
        except (ValueError, OSError) as error:
            line = str(error).removeprefix(f'{file.name}: ')
            raise ValueError(f'init_audio: {line}') from None


def encode(sound: Sound, kind: str) -> bytes:
    """A sound as one of `MEDIA_TYPES`; PCM is 16 bits, little-endian, the channels interleaved."""
    if kind == 'pcm':
        return sound.pcm.astype('<i2').tobytes()
    return encode_audio(sound.pcm, sound.sample_rate, f'.{kind}')


class Metrics:
    """What /metrics shows, in a registry of its own."""

    def __init__(self):
        self.registry = registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=registry)
        times = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
        self.requests = prometheus_client.Counter(
            'realaudio_requests', 'Requests to /generate by status.', ['status'], registry=registry
        )
        self.waiting = prometheus_client.Gauge(
            'realaudio_waiting', 'Requests that wait for the device.', registry=registry
        )
        self.wait = prometheus_client.Histogram(
            'realaudio_wait_seconds', 'Time in the queue.', buckets=times, registry=registry
        )
        self.took = prometheus_client.Histogram(
            'realaudio_batch_seconds', 'Time of a batch.', buckets=times, registry=registry
        )
        self.size = prometheus_client.Histogram(
            'realaudio_batch_requests',
            'Requests in a batch.',
            registry=registry,
            buckets=[2**i for i in range(9)],
        )

        self.streams = prometheus_client.Gauge(
            'realaudio_streams', 'Streams that are open.', registry=registry
        )
        self.chunk = prometheus_client.Histogram(
            'realaudio_chunk_seconds',
            "Time of a stream's chunk, the queue included.",
            buckets=times,
            registry=registry,
        )

    def observe(self, count: int, seconds: float) -> None:
        """For `RequestQueue`."""
        self.size.observe(count)
        self.took.observe(seconds)


def create_app(
    queue: RequestQueue,
    metrics: Metrics,
    limits: Limits = Limits(),  # noqa: B008
    token: str | None = None,
    hosts: Sequence[str] = ('*',),
    streams: LiveStreams | None = None,
    compiles: bool = False,
) -> FastAPI:
    """The application: POST /generate, the WebSocket /stream, GET /health, GET /metrics.

    Args:
        queue: makes the sounds; closed by whoever made it.
        metrics: shown by /metrics.
        limits: see `Limits`.
        token: where given, /generate and /metrics need 'Authorization: Bearer TOKEN'.
        hosts: names by which the server may be called; a web page elsewhere cannot rebind a name
            of its own to this machine.
        streams: without them there is no /stream.
        compiles: whether a request for which there is no program has one compiled, while all
            others wait; else it is refused.
    """
    app = FastAPI(title='realaudio_jax', version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    metrics.waiting.set_function(lambda: len(queue))

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> Response:
        metrics.requests.labels(refusal.status).inc()
        return JSONResponse({'error': str(refusal)}, refusal.status, refusal.headers)

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def unknown(request: Request, error: Any) -> Response:
        line = {'error': f'{error.detail}; there are {_ROUTES}'}
        return JSONResponse(line, error.status_code, error.headers)

    def knows_token(given: str) -> bool:
        return token is None or secrets.compare_digest(given.encode(), token.encode())

    def authorise(request: Request) -> None:
        if not knows_token(request.headers.get('authorization', '').removeprefix('Bearer ')):
            raise Refusal(401, 'give the token of the server', **{'WWW-Authenticate': 'Bearer'})

    app.state.limits, app.state.authorise = limits, authorise  # for further routes

    @app.post('/generate', openapi_extra=_SCHEMA, response_class=Response)
    async def generate(request: Request) -> Response:
        authorise(request)
        body = await read_body(request, limits)
        accept = request.headers.get('accept')
        prepared, kind = await asyncio.to_thread(read_request, queue.generator, body, accept)
        del body
        if not compiles and program_of(prepared, queue.size) not in queue.generator.programs:
            wanted = describe(program_of(prepared, 1))
            raise Refusal(
                400, f'this server has no program for {wanted}; it lists its own under /health'
            )
        made = await _result(request, queue, prepared, limits)
        metrics.wait.observe(made.waited_s)
        data = await asyncio.to_thread(encode, made.sound, kind)
        metrics.requests.labels(200).inc()
        return Response(
            data, media_type=_media_type(made.sound, kind), headers=_headers(made, prepared)
        )

    if streams is not None:
        metrics.streams.set_function(lambda: streams.count)
        streams.observe = metrics.chunk.observe

        @app.websocket('/stream')
        async def stream(socket: WebSocket) -> None:
            given = socket.headers.get('authorization', '').removeprefix('Bearer ')
            if token is None and not is_same_origin(socket):
                await socket.close()  # a page of another site, which may open any WebSocket
                return
            await streams.serve(socket, lambda text: knows_token(text or given))

    @app.get('/health')
    async def health() -> dict[str, Any]:
        generator = queue.generator
        return {
            'status': 'ok',
            'version': __version__,
            'release': generator.config.name,
            'watermark': str(generator.mark) if generator.mark else None,
            'device': jax.devices()[0].device_kind,
            'waiting': len(queue),
            'programs': sorted(set(map(describe, generator.programs.buckets))),
            'streams': streams.count if streams else 0,
        }

    @app.get('/metrics')
    async def show_metrics(request: Request) -> Response:
        authorise(request)
        text = prometheus_client.generate_latest(metrics.registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)

    return app


_ROUTES = 'POST /generate, WebSocket /stream, GET /health, GET /metrics'
_SCHEMA = {
    'requestBody': {
        'required': True,
        'content': {
            'application/json': {
                'schema': {
                    'type': 'object',
                    'properties': {name: {} for name in (*FIELDS, 'format')},
                    'additionalProperties': False,
                }
            }
        },
    },
    'responses': {'200': {'content': {media: {} for media in MEDIA_TYPES.values()}}},
}


def is_same_origin(socket: WebSocket) -> bool:
    """Whether a WebSocket is opened by a page of this server, or by no page at all."""
    origin = socket.headers.get('origin')
    return origin is None or origin.partition('://')[2] == socket.headers.get('host')


async def read_body(request: Request, limits: Limits, wanted: str = 'application/json') -> bytes:
    """The body within its limits.

    Args:
        request: not yet read.
        limits: see `Limits`.
        wanted: its content type, one that a page of another site cannot send unasked.

    Raises:
        Refusal: it is of another type, too large or too slow, or the client is gone.
    """
    kind = request.headers.get('content-type', '').split(';')[0].strip().lower()
    if kind != wanted:
        raise Refusal(415, f'send it with Content-Type: {wanted}')
    too_large = Refusal(413, f'the request has more than {limits.body:,} bytes')
    length = request.headers.get('content-length', '')
    if length.isdecimal() and int(length[:20]) > limits.body:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_s):
            while True:
                message = await request.receive()
                if message['type'] == 'http.disconnect':
                    raise Refusal(_VANISHED, 'the client closed the connection')
                body += message.get('body', b'')
                if len(body) > limits.body:
                    raise too_large
                if not message.get('more_body'):
                    return bytes(body)
    except TimeoutError:
        line = f'the request did not arrive within {limits.body_s:g} s'
        raise Refusal(408, line, Connection='close') from None


async def _result(
    request: Request, queue: RequestQueue, prepared: Prepared, limits: Limits
) -> Made:
    """The finished sound; a request whose client is gone or whose time is over is not made."""
    try:
        future = queue.submit(prepared)
    except QueueFull as full:
        raise Refusal(429, f'{full}; try again', **{'Retry-After': '1'}) from None
    except QueueClosed:
        raise Refusal(503, 'the server is closing') from None
    made = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait(
            {made, gone}, timeout=limits.timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if made.done():
            return made.result()
        if gone.done():
            raise Refusal(_VANISHED, 'the client closed the connection')
        line = f'no sound within {limits.timeout_s:g} s; try again'
        raise Refusal(504, line, **{'Retry-After': '1'})
    except (asyncio.CancelledError, concurrent.futures.CancelledError):
        if future.cancelled():
            raise Refusal(503, 'the server is closing') from None
        raise
    except (ValueError, FloatingPointError) as error:
        raise Refusal(422, str(error)) from error
    except Refusal:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise Refusal(500, f'the sound was not made: {printable(lines[0])}') from error
    finally:
        future.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())['type'] != 'http.disconnect':
        pass


def _media_type(sound: Sound, kind: str) -> str:
    rate = f'; rate={sound.sample_rate}; channels=2' if kind == 'pcm' else ''
    return MEDIA_TYPES[kind] + rate


def _headers(made: Made, prepared: Prepared) -> dict[str, str]:
    """What a row of `experiments.batch` says, and the times in ms."""
    sound, notes = made.sound, notes_on(prepared, made.sound)
    headers = {
        'X-Seed': str(sound.seed),
        'X-Level': f'{sound.lufs:.2f}',
        'X-Peak': f'{sound.peak:.4f}',
        'X-Sample-Rate': str(sound.sample_rate),
        'X-Watermark': sound.watermark or 'none',
        'Server-Timing': (
            f'queue;dur={1000 * made.waited_s:.1f}, generate;dur={1000 * made.took_s:.1f}'
        ),
    }
    if notes:
        line = printable('; '.join(notes), 500)
        headers['X-Notes'] = line.encode('ascii', 'backslashreplace').decode()
    return headers


def make_server(app: FastAPI, limits: Limits) -> uvicorn.Server:
    """The server of an application, for `answer`."""
    protocol = type('Protocol', (BoundedProtocol,), {'request_s': limits.request_s})
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol,
            ws=BoundedSocket,
            ws_max_size=limits.body,
            ws_per_message_deflate=False,
            lifespan='off',
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=limits.connections,
            timeout_graceful_shutdown=int(limits.body_s),
        )
    )


async def answer(
    server: uvicorn.Server,
    listening: socket.socket,
    streams: LiveStreams | None = None,
    steering: socket.socket | None = None,
) -> None:
    """Serves until it is told to end.

    Args:
        server: see `make_server`.
        listening: its socket.
        streams, steering: what OSC steers, and the UDP socket where it comes in; None: no OSC.
    """
    if steering is not None:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: OscProtocol(streams), sock=steering)
    await server.serve(sockets=[listening])


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 on connections that are cut when a request on them takes too long.

    uvicorn waits without end for a request's head and for a response to be read. The class
    attribute `request_s` is the limit, in seconds, for a request from the first byte of its head to
    the last of its response.
    """

    request_s = Limits().request_s

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._seen = None
        self._timer = self.loop.call_later(self.request_s, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._timer.cancel()  # a stream has its own limits
        super().handle_websocket_upgrade(event)

    def _check(self) -> None:
        if self.cycle is self._seen:  # no request has begun since the check before
            self.transport.abort()
            return
        self._seen = self.cycle
        self._timer = self.loop.call_later(self.request_s, self._check)


class BoundedSocket(WebSocketsSansIOProtocol):
    """WebSockets that are cut when what they were sent last is not read.

    uvicorn closes a connection once all is sent, which a client that reads nothing never lets
    happen.
    """

    grace_s = 5.0

    async def run_asgi(self) -> None:
        await super().run_asgi()
        self.loop.call_later(self.grace_s, self.transport.abort)

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()
