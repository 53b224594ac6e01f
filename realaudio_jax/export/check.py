"""Compares an exported program with the release that it came from, request by request."""

import json
import os
import pathlib
import time
from typing import Any

import numpy as np

from realaudio_jax.export.folder import PROGRAM_NAME
from realaudio_jax.export.program import inputs_of
from realaudio_jax.generator import Generator
from realaudio_jax.typing import MIN_SECONDS

# Prompts and timelines: text, and the part of the sound from which to which it is heard.
PROMPTS = (
    ('dog barking in the rain', [('gunshot', 0.3, 0.55)]),
    ('glass breaking', []),
    ('steady rain', []),
    ('', [('footsteps', 0.1, 0.45), ('door slam', 0.6, 0.8)]),
    ('waves roll onto a beach', []),
    ('a clock ticks in a quiet room', []),
    ('helicopter', []),
    ('fire crackling', [('explosion', 0.45, 0.85)]),
    ('rooster crows', []),
    ('church bells', [('gunshot', 0.05, 0.1), ('gunshot', 0.5, 0.55)]),
)


def requests(count: int, seconds: float) -> list[dict[str, Any]]:
    """Arguments of `Generator.generate`: prompts and timelines in turn, each with its own seed.

    Args:
        count: of requests.
        seconds: of the program; every third sound is shorter.
    """
    made = []
    for i in range(count):
        prompt, events = PROMPTS[i % len(PROMPTS)]
        duration = seconds if i % 3 else max(0.9 * seconds, MIN_SECONDS)
        timeline = [(text, start * duration, end * duration) for text, start, end in events]
        made.append({'prompt': prompt, 'events': timeline, 'seconds': duration, 'seed': i})
    return made


def compare(generator: Generator, folder: str | os.PathLike, count: int) -> dict[str, Any]:
    """Runs requests in onnxruntime and by the generator.

    Args:
        generator: of the release that was exported.
        folder: of the export.
        count: requests for each program.

    Returns:
        By program: largest difference of each request over its peak, and seconds to load and run.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
    """
    import onnxruntime  # of the extra `export`

    folder = pathlib.Path(folder)
    about = json.loads((folder / PROGRAM_NAME).read_text())
    rows = []
    for program in about['programs']:
        start = time.perf_counter()
        session = onnxruntime.InferenceSession(
            folder / program['onnx'], providers=['CPUExecutionProvider']
        )
        loaded = time.perf_counter() - start
        differences, theirs, ours = [], [], []
        first = None
        for request in requests(count, program['seconds']):
            arguments = {**request, 'steps': about['steps'], 'sample_rate': about['sample_rate']}
            start = time.perf_counter()
            sound = generator.generate(**arguments)
            ours.append(time.perf_counter() - start)
            first = first or ours[0]
            # A sound that came out silent was made again with another seed.
            feeds = inputs_of(generator, about, program, {**request, 'seed': sound.seed})
            start = time.perf_counter()
            audio, _ = session.run(['audio', 'lufs'], feeds)
            theirs.append(time.perf_counter() - start)
            want = sound.audio
            peak = np.abs(want).max()
            differences.append(float(np.abs(audio[0, : len(want)] - want).max() / peak))
        rows.append(
            {
                'seconds': program['seconds'],
                'requests': count,
                'difference': differences,
                'onnx_bytes': (folder / program['onnx']).stat().st_size,
                'onnx_load_s': loaded,
                'onnx_s': float(np.median(theirs)),
                'jax_load_s': first,
                'jax_s': float(np.median(ours)),
            }
        )
    return {'release': about['release'], 'steps': about['steps'], 'programs': rows}
