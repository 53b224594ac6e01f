"""Serves a release: POST /generate gives a sound, the WebSocket /stream one that is edited live.

python -m experiments.serve --port=8000
curl --json '{"prompt": "rain", "seconds": 2}' -o rain.wav http://127.0.0.1:8000/generate
"""

import asyncio
import errno
import itertools
import pathlib
import socket
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import flags

import realaudio_jax
from experiments.common import listed, run, say
from experiments.watermark_flags import define_precision, define_watermark
from realaudio_jax.batching import RequestQueue, compile_programs
from realaudio_jax.generator import Generator
from realaudio_jax.longform import Schedule
from realaudio_jax.training.loop import stop_says
from realaudio_jax.typing import LATENT_RATE

_RELEASE = flags.DEFINE_string('release', 'foley', 'A shipped release, or a folder.')
_HOST = flags.DEFINE_string('host', '127.0.0.1', 'Address to listen on; others need --token.')
_PORT = flags.DEFINE_integer('port', 8000, 'Port; 0: any free one.', 0, 65535)
_TOKEN = flags.DEFINE_string(
    'token', None, 'What clients send as Authorization: Bearer TOKEN; @FILE reads it from a file.'
)
_SECONDS = flags.DEFINE_list(
    'seconds', ['1', '2', '5', '10'], 'Durations up to which there is a program.'
)
_STEPS = flags.DEFINE_list('steps', ['4'], 'Denoiser steps that there are programs for.')
_SAMPLE_RATES = flags.DEFINE_list('sample_rates', ['48000'], 'Hz: 48000, 44100 or both.')
_INIT_AUDIO = flags.DEFINE_bool('init_audio', False, 'Programs for init audio, too.')
_BATCH_SIZE = flags.DEFINE_enum(
    'batch_size',
    '1',
    [str(2**i) for i in range(9)],
    'Sounds in one call of a program; 1 gives the bytes of experiments.sample.',
)
_QUEUE = flags.DEFINE_integer('queue', 64, 'Requests that may wait; more get 429.', 1)
_TIMEOUT = flags.DEFINE_float(
    'timeout', 30.0, 'Seconds until a sound that is not made is 504.', 0.1
)
_MAX_BODY = flags.DEFINE_integer('max_body', 8 << 20, 'Bytes of a request; more are 413.', 1)
_STREAMS = flags.DEFINE_integer('streams', 4, 'Streams at a time; 0: no WebSocket.', 0, 1000)
_HOP = flags.DEFINE_float(
    'hop', 1.0, 'Seconds of a stream made at a time, a multiple of 0.2.', 0.2, 1.0
)
_OSC_PORT = flags.DEFINE_integer(
    'osc_port', None, 'UDP port on 127.0.0.1 where a stream is steered by OSC.', 0, 65535
)
_WATERMARK = define_watermark()
_PRECISION = define_precision()

MAX_COMPILED = 32  # programs that are kept, where requests compile them


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    return host in ('localhost', '::1') or host.startswith('127.')


def read_token(text: str | None) -> str | None:
    """The token of the flag, or of the file that it names.

    Raises:
        ValueError: it is empty or holds what no header can. OSError: the file cannot be read.
    """
    if text is None:
        return None
    token = pathlib.Path(text[1:]).read_text().strip() if text.startswith('@') else text
    if not token or not all('!' <= c <= '~' for c in token):
        raise ValueError('--token is empty or has other than printable ASCII characters')
    return token


def bind(host: str, port: int, flag: str = 'port', kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A socket that listens once it is served from, on the port of a flag.

    Raises:
        OSError: the port is in use, or the address is not this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=kind)[0]
        listening = socket.socket(*found[:2])
        if kind == socket.SOCK_STREAM:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(found[4])
        return listening
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = f'; choose another --{flag}' if error.errno == errno.EADDRINUSE else ''
        raise OSError(error.errno, f'cannot listen on {host}:{port}: {reason}{remedy}') from None


def warm(generator: Generator, size: int, *kinds: Sequence[float]) -> int:
    """Compiles the programs of the flags; their number.

    Args:
        generator: of the release.
        size: of a batch.
        kinds: durations, counts of steps and sample rates.
    """
    examples = []
    for seconds, steps, rate in itertools.product(*kinds):
        examples.append({'prompt': 'x', 'seconds': seconds, 'steps': steps, 'sample_rate': rate})
    if _INIT_AUDIO.value:
        init = {'init_audio': np.ones((9, 2), np.float32), 'strength': 0.5}
        examples += [fields | init for fields in examples]
    return len(compile_programs(generator, examples, size))


def main(argv):
    del argv
    serve('serve')


def serve(extra: str, extend: Callable[[Any], None] | None = None) -> None:
    """Serves what the flags say until Ctrl-C.

    Args:
        extra: of the package, which this needs.
        extend: adds routes to the application, whose requests then compile what they need.

    Raises:
        ValueError, OSError: flags that do not fit, a port in use.
    """
    try:
        from realaudio_jax import live, serving
    except ImportError as error:
        raise ValueError(
            f"{error.name} is not installed; pip install 'realaudio_jax[{extra}]'"
        ) from None
    durations, steps, rates = listed(_SECONDS, float), listed(_STEPS), listed(_SAMPLE_RATES)
    token, host, size = read_token(_TOKEN.value), _HOST.value, int(_BATCH_SIZE.value)
    if token is None and not is_loopback(host):
        raise ValueError(f'others reach {host}; give --token, or listen on 127.0.0.1')
    if _OSC_PORT.value is not None and not _STREAMS.value:
        raise ValueError('--osc_port steers a stream; leave out --streams=0')
    if abs(5 * _HOP.value - round(5 * _HOP.value)) > 1e-6:
        raise ValueError(f'--hop={_HOP.value:g}: give 0.2, 0.4, 0.6, 0.8 or 1')
    mark, schedule = _WATERMARK(), Schedule(hop=round(_HOP.value * LATENT_RATE))
    listening = bind(host, _PORT.value)
    port = listening.getsockname()[1]
    steering = None
    if _OSC_PORT.value is not None:
        steering = bind('127.0.0.1', _OSC_PORT.value, 'osc_port', socket.SOCK_DGRAM)
    limits = serving.Limits(body=_MAX_BODY.value, timeout_s=_TIMEOUT.value, streams=_STREAMS.value)
    with stop_says(lambda: 'stopped'):
        generator = realaudio_jax.load(_RELEASE.value, mark=mark, precision=_PRECISION.value)
        compiles = extend is not None
        count, streams = warm(generator, size, durations, steps, rates), None
        metrics = serving.Metrics()
        hosts = ('localhost', host) if is_loopback(host) else ('*',)
        with RequestQueue(generator, size, _QUEUE.value, observe=metrics.observe) as queue:
            if limits.streams:
                kinds = steps, rates, schedule
                there = queue.call(lambda: live.compile_streams(generator, *kinds)).result()
                there = frozenset() if compiles else there
                streams = live.LiveStreams(queue, limits, schedule, there)
            app = serving.create_app(queue, metrics, limits, token, hosts, streams, compiles)
            if compiles:
                generator.programs.max_programs = MAX_COMPILED
                extend(app)
            shown = f'[{host}]' if ':' in host else host
            what = f'{generator.folder.name} at http://{shown}:{port}, {count} programs'
            also = f', OSC at UDP port {steering.getsockname()[1]}' if steering else ''
            say(f'{what}{also}; Ctrl-C ends it')
            asyncio.run(
                serving.answer(serving.make_server(app, limits), listening, streams, steering)
            )


if __name__ == '__main__':
    run(main)
