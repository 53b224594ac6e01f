"""The demo: a timeline editor in the browser, beside /generate and /stream of a server.

The page is plain HTML, CSS and JavaScript from `files`, without a build and without a request to
anywhere else. Its sound comes from the same routes as anybody's; what it needs besides them is the
measured onset of each event.
"""

import pathlib

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from realaudio_jax.audio import from_pcm16
from realaudio_jax.metrics.onsets import onset_errors
from realaudio_jax.requests import SAMPLE_RATES
from realaudio_jax.serving import Refusal, read_body

FILES = pathlib.Path(__file__).parent / 'files'
_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'"  # nothing from outside
_TYPE = 'application/octet-stream'


def add_page(app: FastAPI) -> None:
    """Adds the page, its files, and POST /demo/onsets.

    Args:
        app: of `serving.create_app`.
    """

    @app.get('/', response_class=FileResponse)
    async def page() -> Response:
        return FileResponse(FILES / 'index.html', headers={'Content-Security-Policy': _POLICY})

    @app.post('/demo/onsets')
    async def onsets(request: Request) -> Response:
        app.state.authorise(request)
        body = await read_body(request, app.state.limits, _TYPE)
        query = request.query_params
        try:
            measured = await run_in_threadpool(
                measured_onsets, body, query.get('rate', ''), query.get('onsets', '')
            )
        except ValueError as error:
            raise Refusal(400, str(error)) from error
        return JSONResponse({'measured': measured})

    app.mount('/demo', StaticFiles(directory=FILES))


def measured_onsets(pcm: bytes, rate: str, onsets: str) -> list[float | None]:
    """Seconds at which requested events begin to sound; None where nothing rises near the request.

    Args:
        pcm: 16 bits, little-endian, left and right in turn.
        rate: sample rate, Hz, as text.
        onsets: requested ones, seconds, as text with commas.

    Raises:
        ValueError: what cannot be read, or an onset outside the sound.
    """
    if rate not in map(str, SAMPLE_RATES) or len(pcm) % 4 or not pcm:
        raise ValueError('give 16-bit stereo samples and ?rate=48000 or 44100')
    try:
        requested = [float(text) for text in onsets.split(',')]
    except ValueError:
        raise ValueError('give ?onsets=0.5,2.25, in seconds') from None
    audio = from_pcm16(np.frombuffer(pcm, '<i2').reshape(-1, 2))
    errors = onset_errors(audio, int(rate), requested)
    return [
        None if np.isnan(error) else round(onset + error / 1000, 4)
        for onset, error in zip(requested, errors, strict=True)
    ]
