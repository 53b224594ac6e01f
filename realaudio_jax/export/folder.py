"""Writes the folder of an exported release: programs, weights, tokenizer, files that run them."""

import functools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from realaudio_jax.audio import stft_size
from realaudio_jax.export import onnx_program
from realaudio_jax.export.program import input_shapes, portable
from realaudio_jax.finishing import SILENT_LUFS
from realaudio_jax.generator import Generator
from realaudio_jax.integrity import write_manifest
from realaudio_jax.io import atomic_path
from realaudio_jax.models.denoiser import latent_frames
from realaudio_jax.models.text_encoder import TOKENIZER_NAME
from realaudio_jax.program_io import CAPACITIES, Bucket, Capacity
from realaudio_jax.random import pinned_settings
from realaudio_jax.requests import LOUDNESS_LUFS, SAMPLE_RATES
from realaudio_jax.typing import MAX_SECONDS, MIN_SECONDS, PyTree

FILES = pathlib.Path(__file__).parent / 'files'
PROGRAM_NAME, WEIGHTS_NAME, VOCABULARY_NAME = 'program.json', 'weights.npz', 'vocab.txt'
KINDS = ('onnx', 'stablehlo')
PLATFORMS = ('cpu', 'cuda', 'tpu')
FORMAT = 1


def capacity_for(events: int) -> Capacity:
    """The smallest padded capacity for so many events.

    Raises:
        ValueError: no program has as many.
    """
    for capacity in CAPACITIES:
        if capacity.events >= events:
            return capacity
    raise ValueError(f'{events} events: choose {CAPACITIES[-1].events} at most')


def check(seconds: Sequence[float], sample_rate: int, kinds: Sequence[str]) -> None:
    """Refuses durations, rates and kinds of which there is no program.

    Raises:
        ValueError: which, and what to choose.
    """
    for duration in seconds:
        if not MIN_SECONDS <= duration <= MAX_SECONDS:
            raise ValueError(f'seconds={duration:g}: choose {MIN_SECONDS:g} to {MAX_SECONDS:g}')
    names = [f'{duration:g}' for duration in seconds]  # of the files
    if not names or len(set(names)) < len(names):
        raise ValueError(f'seconds={",".join(names)}: give one or more, each once')
    if sample_rate not in SAMPLE_RATES:
        rates = ' or '.join(map(str, SAMPLE_RATES))
        raise ValueError(f'sample_rate={sample_rate}: choose {rates}')
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f'kinds={",".join(sorted(unknown))}: choose onnx, stablehlo or both')


def stablehlo(function: Callable, weights: PyTree, shapes: dict) -> bytes:
    """A serialised program `(weights as a list, inputs) -> results` for CPU, CUDA and TPU."""
    leaves, tree = jax.tree.flatten(weights)

    def on_leaves(leaves, inputs):
        return function(jax.tree.unflatten(tree, leaves), inputs)

    leaves = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
    exported = jax.export.export(jax.jit(on_leaves), platforms=PLATFORMS)(leaves, shapes)
    return bytes(exported.serialize())


@pinned_settings()
def write(
    generator: Generator,
    folder: str | os.PathLike,
    seconds: Sequence[float],
    steps: int = 4,
    events: int = 4,
    sample_rate: int = 48_000,
    kinds: Sequence[str] = KINDS,
    log: Callable[[str], None] = print,
) -> None:
    """Exports the student of a release, one program for each duration, with its watermark.

    Args:
        generator: the release.
        folder: where; made if it is missing.
        seconds: longest sounds of the programs; a shorter sound is made by the next longer one.
        steps: of the student.
        events: room for events of a timeline.
        sample_rate: Hz.
        kinds: some of KINDS.
        log: called with one line for each file.

    Raises:
        ValueError: steps that the student has not, too many events, products in int8 for ONNX, or
            as `check`.
        OSError: the folder cannot be written.
    """
    check(seconds, sample_rate, kinds)
    folder, capacity = pathlib.Path(folder), capacity_for(events)
    if steps not in generator.student_steps:
        counts = ', '.join(map(str, generator.student_steps))
        raise ValueError(f'the student has no {steps} steps; choose one of {counts}')
    if 'onnx' in kinds and generator.precision != 'float32':
        raise ValueError(
            f'products of {generator.precision} have no ONNX program: load the release in float32 '
            '(its weights are stored as int8 all the same), or export stablehlo alone'
        )
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        'format': FORMAT,
        'release': generator.config.name,
        'sample_rate': sample_rate,
        'steps': steps,
        'min_seconds': MIN_SECONDS,
        'guidance_scale': generator.default_guidance_scale('student'),
        'guidance_range': list(generator.config.student.guidance_range),
        'loudness': LOUDNESS_LUFS,
        'silent_lufs': SILENT_LUFS,
        'watermark': str(generator.mark) if generator.mark else 'none',
        'latent_channels': generator.networks.channels,
        'capacity': {
            'events': capacity.events,
            'event_tokens': capacity.event_tokens,
            'text_tokens': capacity.text_tokens,
        },
        'programs': [],
    }
    names = [PROGRAM_NAME]
    for duration in sorted(seconds):
        bucket = Bucket(1, latent_frames(duration), steps, sample_rate, capacity=capacity)
        weights = jax.tree.map(np.asarray, generator.programs.weights_for(bucket))
        function = portable(generator.networks, bucket, generator.config.onset_lead_s)
        shapes = input_shapes(bucket, generator.networks.channels)
        made = {'seconds': duration, 'frames': bucket.length}
        made['samples'] = bucket.length * 4 * stft_size(sample_rate)[1]
        made['inputs'] = {n: [np.dtype(s.dtype).name, list(s.shape)] for n, s in shapes.items()}
        if 'stablehlo' in kinds:
            made['stablehlo'] = f'sound_{duration:g}s.stablehlo'
            _save(folder / made['stablehlo'], stablehlo(function, weights, shapes), log)
        if 'onnx' in kinds:
            made['onnx'] = f'sound_{duration:g}s.onnx'
            call = functools.partial(_by_name, function, jax.tree.map(jnp.asarray, weights))
            notes = {'release': generator.config.name, 'license': 'see NOTICE and ATTRIBUTION'}
            _save(folder / made['onnx'], onnx_program.export(call, shapes, notes), log)
        names += [made[kind] for kind in KINDS if kind in made]
        about['programs'].append(made)
    if 'stablehlo' in kinds:
        with atomic_path(folder / WEIGHTS_NAME) as temporary:
            leaves = {str(i): x for i, x in enumerate(jax.tree.leaves(weights))}
            np.savez(temporary, **leaves)
        log(f'{folder / WEIGHTS_NAME}: {_size(folder / WEIGHTS_NAME)}')
        names.append(WEIGHTS_NAME)
    names += _copy(generator.folder, folder)
    text = json.dumps(about, indent=1) + '\n'
    _save(folder / PROGRAM_NAME, text.encode(), log)
    write_manifest(folder, names)


def _by_name(function: Callable, weights: PyTree, **inputs: jax.Array) -> dict[str, jax.Array]:
    return function(weights, inputs)


def _copy(release: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """Names of the files beside the programs: what runs them, tokenizer, what the licences ask."""
    beside = [*FILES.iterdir(), *release.glob('NOTICE*'), *release.glob('ATTRIBUTION*')]
    beside = [path for path in beside if path.is_file()] + [release / TOKENIZER_NAME]
    for path in beside:
        shutil.copyfile(path, folder / path.name)
    vocabulary = json.loads((release / TOKENIZER_NAME).read_text(encoding='utf-8'))
    words = sorted(vocabulary['model']['vocab'].items(), key=lambda item: item[1])
    lines = ''.join(f'{word}\n' for word, _ in words)
    (folder / VOCABULARY_NAME).write_text(lines, encoding='utf-8', newline='\n')
    return [VOCABULARY_NAME, *(path.name for path in beside)]


def _save(path: pathlib.Path, content: bytes, log: Callable[[str], None]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    log(f'{path}: {_size(path)}')


def _size(path: pathlib.Path) -> str:
    size = path.stat().st_size
    return f'{size / 1e6:.1f} MB' if size >= 1e5 else f'{size / 1e3:.1f} kB'
