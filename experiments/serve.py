"""Serves a release over HTTP: POST /generate gives a sound, GET /health and /metrics say how it is.

python -m experiments.serve --port=8000
curl --json '{"prompt": "rain", "seconds": 2}' -o rain.wav http://127.0.0.1:8000/generate
"""

import errno
import itertools
import pathlib
import socket

import numpy as np
from absl import flags

import realaudio_jax
from experiments.common import run, say
from experiments.watermark_flags import define_watermark
from realaudio_jax.batching import RequestQueue, compile_programs
from realaudio_jax.generator import Generator
from realaudio_jax.training.loop import stop_says

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
_WATERMARK = define_watermark()


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


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens once it is served from.

    Raises:
        OSError: the port is in use, or the address is not this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(*found[:2])
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(found[4])
        return listening
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = '; choose another --port' if error.errno == errno.EADDRINUSE else ''
        raise OSError(error.errno, f'cannot listen on {host}:{port}: {reason}{remedy}') from None


def warm(generator: Generator, size: int) -> int:
    """Compiles the programs of the flags; their number."""
    examples = []
    for seconds, steps, rate in itertools.product(
        _SECONDS.value, _STEPS.value, _SAMPLE_RATES.value
    ):
        try:
            fields = {'prompt': 'x', 'seconds': float(seconds), 'steps': int(steps)}
            examples.append(fields | {'sample_rate': int(rate)})
        except ValueError:
            raise ValueError(
                f'--seconds, --steps and --sample_rates are numbers, not {seconds!r}, {steps!r}, '
                f'{rate!r}'
            ) from None
    if _INIT_AUDIO.value:
        init = {'init_audio': np.ones((9, 2), np.float32), 'strength': 0.5}
        examples += [fields | init for fields in examples]
    return len(compile_programs(generator, examples, size))


def main(argv):
    del argv
    try:
        import uvicorn

        from realaudio_jax import serving
    except ImportError as error:
        raise ValueError(
            f"{error.name} is not installed; pip install 'realaudio_jax[serve]'"
        ) from None
    token, host, size = read_token(_TOKEN.value), _HOST.value, int(_BATCH_SIZE.value)
    if token is None and not is_loopback(host):
        raise ValueError(f'others reach {host}; give --token, or listen on 127.0.0.1')
    mark = _WATERMARK()
    listening = bind(host, _PORT.value)
    port = listening.getsockname()[1]
    limits = serving.Limits(body=_MAX_BODY.value, timeout_s=_TIMEOUT.value)
    serving.BoundedProtocol.request_s = limits.request_s
    with stop_says(lambda: 'stopped'):
        generator = realaudio_jax.load(_RELEASE.value, mark=mark)
        count = warm(generator, size)
        metrics = serving.Metrics()
        hosts = ('localhost', host) if is_loopback(host) else ('*',)
        with RequestQueue(generator, size, _QUEUE.value, observe=metrics.observe) as queue:
            app = serving.create_app(queue, metrics, limits, token, hosts)
            server = uvicorn.Server(
                uvicorn.Config(
                    app,
                    http=serving.BoundedProtocol,
                    ws='none',
                    lifespan='off',
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    limit_concurrency=limits.connections,
                    timeout_graceful_shutdown=int(limits.body_s),
                )
            )
            shown = f'[{host}]' if ':' in host else host
            name = generator.folder.name
            say(f'{name} at http://{shown}:{port}, {count} programs; Ctrl-C ends it')
            server.run(sockets=[listening])


if __name__ == '__main__':
    run(main)
