"""Time, memory and quality of 10 s of sound: this model, its teacher and the published baselines.

python -m experiments.benchmark --workdir=DIR
python -m experiments.benchmark --torch --audioldm2=DIR --stable_audio_open=DIR --evaluations=0
python -m experiments.benchmark --rows=base --dtype=bfloat16
python -m experiments.benchmark --rows=student,teacher --scenes=128 --recordings=DIR --clap=DIR

`base` is this model at paper size with random weights, for a GPU; it is not among the default rows,
nor are `base_...`, each with one change in how it is computed, and `student_int8`.

Each row is measured in a process of its own, so that its peak memory is its own. Without a folder a
baseline has random weights, which cost the same time and memory. `--torch` adds each baseline
through diffusers (extra `reference`), eager and compiled. `--evaluations=K` measures K of the
denoiser's evaluations where the whole sampler would take longer than --limit_s, and marks the row
as extrapolated; text, encode and decode are always measured whole. Quality needs real weights and
--scenes. Writes benchmark.md, benchmark.png, and every value with its settings to results.json and
results.md.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
from absl import flags

from experiments import baselines, benchmark_table, systems
from experiments.common import run
from realaudio_jax.io import atomic_path
from realaudio_jax.memory import peak_memory
from realaudio_jax.metrics.benchmarking import LatencyStats, measure
from realaudio_jax.metrics.embedders.clap import load_clap
from realaudio_jax.metrics.embedders.registry import load_evaluators
from realaudio_jax.metrics.evaluation.scenes import SceneEvaluator, held_out_scenes
from realaudio_jax.metrics.rows import CLAP_SCORE, FRECHET_DISTANCE, mean_row
from realaudio_jax.release import find_release
from realaudio_jax.typing import MAX_SECONDS, MIN_SECONDS, SAMPLE_RATE

DEFAULT_ROWS = systems.OWN | baselines.ROWS
ROWS = DEFAULT_ROWS | systems.NAMED
_RELEASE = flags.DEFINE_string('release', 'foley', 'Name or folder of the release.')
_AUDIOLDM2 = flags.DEFINE_string('audioldm2', None, 'Folder of AudioLDM 2; none: random weights.')
_OPEN = flags.DEFINE_string(
    'stable_audio_open', None, 'Folder of Stable Audio Open; none: random weights.'
)
_SMALL = flags.DEFINE_string(
    'stable_audio_3', None, 'Folder of Stable Audio 3 small; none: random weights.'
)
_ROWS = flags.DEFINE_list('rows', list(DEFAULT_ROWS), f'Of {", ".join(ROWS)}.')
_TORCH = flags.DEFINE_bool('torch', False, 'Also the baselines through diffusers.')
_COMPILED = flags.DEFINE_bool('torch_compiled', True, 'With --torch: compiled too, not just eager.')
_SECONDS = flags.DEFINE_float('seconds', 10.0, 'Duration of the sound.', MIN_SECONDS, MAX_SECONDS)
_EVALUATIONS = flags.DEFINE_integer(
    'evaluations', 4, 'Evaluations measured where all would take long; 0: all.', lower_bound=0
)
_LIMIT = flags.DEFINE_float('limit_s', 60.0, 'Samplers that take longer are extrapolated.', 0)
_REPEATS = flags.DEFINE_integer('repeats', 9, 'Calls of each part, 1 if slow.', lower_bound=1)
_DTYPE = flags.DEFINE_enum(
    'dtype',
    'float32',
    ['float32', 'bfloat16', 'float16'],
    'Precision of the baselines, and of base.',
)
_SCENES = flags.DEFINE_integer(
    'scenes', 0, 'Scenes for FAD and CLAP score; 0: neither.', lower_bound=0
)
_RECORDINGS = flags.DEFINE_string(
    'recordings', None, 'Folder of sounds for the scenes; none: procedural foley.'
)
_WEIGHTS = flags.DEFINE_string(
    'embedder_weights', None, 'Folder of YAMNet, another evaluator of FAD.'
)
_CLAP = flags.DEFINE_string('clap', None, 'Folder of a LAION-CLAP, another evaluator of both.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of scenes, noise and intervals.', 0)
_WORKDIR = flags.DEFINE_string('workdir', 'runs/benchmark', 'Where the tables and the plot go.')
_PROFILE = flags.DEFINE_string('profile', None, "Folder for JAX's profile of one more call.")
_ROW = flags.DEFINE_string('row', None, 'Measures one row here; the command calls itself so.')

SLOW_S = 5.0  # a part that takes longer is timed once
RUNTIMES = ('jax', 'torch, eager', 'torch, compiled')
OUT_OF_MEMORY = ('RESOURCE_EXHAUSTED', "can't allocate memory", 'OutOfMemory', 'bad_alloc')


def timed(fn: Callable[[], Any], repeats: int) -> tuple[Any, LatencyStats]:
    """Runs a function, then times further calls; a slow one is timed once."""
    result = jax.block_until_ready(fn())
    stats = measure(fn, 1, warmup=0)
    if stats.median <= 1e3 * SLOW_S and repeats > 1:
        stats = measure(fn, repeats, warmup=0)
    return result, stats


def measure_system(
    system: systems.System, seconds: float, evaluations: int, limit_s: float, repeats: int
) -> list[dict]:
    """Measures one system; returns rows for `report.tables.write_results`.

    Args:
        system: what is measured.
        seconds: asked for.
        evaluations: measured where all would take longer than `limit_s`; 0 for all.
        limit_s: seconds of a whole sampler.
        repeats: calls of each part that is not slow.
    """
    split = {}
    conditioning, split['text'] = timed(system.text, repeats)
    taken = system.steps
    if evaluations:
        taken = min(taken, max(1, evaluations // system.evaluations_per_step))
    latents, found = timed(lambda: system.sample(conditioning, taken), repeats)
    if taken < system.steps and found.median * system.steps / taken <= 1e3 * limit_s:
        taken = system.steps
        latents, found = timed(lambda: system.sample(conditioning, taken), repeats)
    ratio = system.steps / taken
    split['denoiser'] = LatencyStats(
        found.median * ratio, found.p95 * ratio, found.p99 * ratio, found.n
    )
    _, split['decode'] = timed(lambda: system.decode(latents), repeats)
    if ratio == 1 and split['denoiser'].median <= 1e3 * SLOW_S:
        _, whole = timed(system.run, repeats)
    else:  # the parts run one after another, so their sum is the whole
        chain = [split[part] for part in ('text', 'denoiser', 'decode')]
        whole = LatencyStats(
            *(sum(getattr(s, k) for s in chain) for k in ('median', 'p95', 'p99')),
            min(s.n for s in chain),
        )
    memory = peak_memory()
    _, split['encode'] = timed(system.encode, repeats)  # no part of a sound, nor of its memory
    figures = [
        ('time', whole.median / 1e3, 's', whole.n),
        ('time, p95', whole.p95 / 1e3, 's', whole.n),
        *((part, stats.median / 1e3, 's', stats.n) for part, stats in split.items()),
        ('real-time factor', whole.median / 1e3 / seconds, '', whole.n),
        ('evaluations', system.steps * system.evaluations_per_step, '', None),
        ('parameters', system.parameters / 1e6, 'M', None),
        ('peak memory', (system.peak() or memory.device or memory.host) / 1e9, 'GB', None),
        ('made', float(system.made_s), 's', None),
        ('sample rate', system.sample_rate / 1e3, 'kHz', None),
        ('channels', system.channels, '', None),
    ]
    settings = {'weights': system.weights, 'seconds': seconds}
    if ratio > 1:
        settings['extrapolated from evaluations'] = taken * system.evaluations_per_step
    return [
        {'name': name, 'value': value, 'unit': unit, 'n': n} | settings
        for name, value, unit, n in figures
    ]


def quality_rows(
    system: systems.System,
    release: str,
    scenes: int,
    seconds: float,
    seed: int,
    recordings: str | None = None,
    embedder_weights: str | None = None,
    clap: str | None = None,
) -> list[dict]:
    """FAD and CLAP score of a system's sounds for the captions of held-out scenes.

    FAD is to the scenes' own sound. The networks are the release's audio tower, and YAMNet (FAD
    alone) and a LAION-CLAP where their weights are named.
    """
    tower, embedders = load_evaluators(find_release(release), embedder_weights)
    checkpoint = load_clap(clap) if clap else None
    embedders += [checkpoint.embedder] if checkpoint else []
    asked, _ = held_out_scenes(recordings, scenes, seconds, seed)
    evaluator = SceneEvaluator(asked, tower, embedders, seed=seed)
    sounds = list(system.sounds(asked, seed))
    names = {FRECHET_DISTANCE: 'FAD', CLAP_SCORE: CLAP_SCORE}
    rows = [
        row | {'name': names[row['name']]}
        for row in evaluator.rows(evaluator.measure(sounds), {})
        if row['name'] in names
    ]
    if checkpoint:
        scores = checkpoint.scores(sounds, [scene.caption for scene in asked], SAMPLE_RATE)
        found = mean_row(CLAP_SCORE, scores, seed=seed)
        rows.append(found | {'embedder': checkpoint.embedder.name})
    return rows


def row_here(system_name: str, runtime: str) -> list[dict]:
    """Measures a row in this process, with the settings of the flags."""
    folders = {
        'release': _RELEASE.value,
        'audioldm2': _AUDIOLDM2.value,
        'stable_audio_open': _OPEN.value,
        'stable_audio_3': _SMALL.value,
    }
    settings = unmeasured(system_name, runtime)
    try:
        if runtime == 'jax':
            system = ROWS[system_name](folders, _SECONDS.value, _DTYPE.value)
        else:
            from experiments import torch_baselines

            system = torch_baselines.ROWS[system_name](
                folders, _SECONDS.value, _DTYPE.value, runtime == RUNTIMES[2]
            )
        rows = measure_system(
            system, _SECONDS.value, _EVALUATIONS.value, _LIMIT.value, _REPEATS.value
        )
    except systems.CannotMeasure as error:
        return [{'name': 'time', 'value': str(error)} | settings]
    settings |= {
        'model': labelled(system.name, runtime),
        'steps': system.steps,
        'device': system.device or systems.device_name(),
    }
    if runtime == 'jax' and _PROFILE.value:
        with jax.profiler.trace(str(pathlib.Path(_PROFILE.value) / system_name)):
            jax.block_until_ready(system.run())
    if runtime == 'jax' and _SCENES.value and system.sounds:
        rows += quality_rows(
            system,
            _RELEASE.value,
            _SCENES.value,
            _SECONDS.value,
            _SEED.value,
            _RECORDINGS.value,
            _WEIGHTS.value,
            _CLAP.value,
        )
    elif runtime == 'jax':
        needed = ([] if system.sounds else [f'--{system.flag}']) + ['--scenes']
        remedy = f'needs {" and ".join(needed)}' if system.flag else 'needs trained weights'
        rows += [{'name': name, 'value': remedy} for name in ('FAD', 'CLAP score')]
    return [row | settings for row in rows]


def measure_row(system_name: str, runtime: str, workdir: pathlib.Path) -> list[dict]:
    """Measures a row in its own process; reports a row that does not fit into memory.

    Raises:
        ValueError: what the process complained about.
    """
    out = workdir / 'row.json'
    out.unlink(missing_ok=True)
    command = [sys.executable, '-m', 'experiments.benchmark', *sys.argv[1:]]
    command += [f'--row={system_name}:{runtime}', f'--workdir={workdir}']
    # torch takes the device; JAX only times there.
    environment = dict(os.environ) if runtime == 'jax' else os.environ | {'JAX_PLATFORMS': 'cpu'}
    how = systems.EXECUTIONS.get(system_name)
    if how and how.xla_flags:
        given = environment.get('XLA_FLAGS', '')
        environment['XLA_FLAGS'] = f'{given} {how.xla_flags}'.strip()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = done.stderr.strip().splitlines() or ['failed without a word']
    if done.returncode == 0:
        rows = json.loads(out.read_text())
        out.unlink()
        return rows
    killed = done.returncode in (-9, 137)
    if killed or any(sign in done.stderr for sign in OUT_OF_MEMORY):
        value = 'too little memory'
    elif runtime == 'jax':
        raise ValueError(f'row {system_name}: {lines[-1].removeprefix("error: ")}')
    else:
        value = f'fails: {lines[-1]}'
    return [{'name': 'time', 'value': value} | unmeasured(system_name, runtime)]


def labelled(name: str, runtime: str) -> str:
    """Name of a model in the table, with its runtime where that is not this project's."""
    return name if runtime == 'jax' else f'{name} ({runtime})'


def unmeasured(system_name: str, runtime: str) -> dict:
    """Settings of a row, known before it is measured."""
    return {
        'model': labelled(system_name, runtime),
        'steps': None,
        'system': system_name,
        'runtime': runtime,
    }


def require_torch() -> None:
    """Raises a ValueError where packages for --torch are missing."""
    missing = [
        name
        for name in ('torch', 'diffusers', 'transformers')
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ValueError(
            f'--torch needs {", ".join(missing)}: pip install "realaudio_jax[reference]"'
        )


def main(argv):
    del argv
    workdir = pathlib.Path(_WORKDIR.value)
    if _ROW.value:
        system_name, runtime = _ROW.value.split(':')
        with atomic_path(workdir / 'row.json') as temporary:
            temporary.write_text(json.dumps(row_here(system_name, runtime)))
        return
    unknown = [name for name in _ROWS.value if name not in ROWS]
    if unknown or not _ROWS.value:
        wrong = f'no row {unknown[0]!r}' if unknown else 'no row named'
        raise ValueError(f'{wrong}; there are {", ".join(ROWS)}')
    if _TORCH.value:
        require_torch()
    rows, with_torch = [], RUNTIMES if _COMPILED.value else RUNTIMES[:2]
    for name in _ROWS.value:
        for runtime in with_torch if _TORCH.value and name in baselines.ROWS else RUNTIMES[:1]:
            start = time.monotonic()
            print(f'measuring {name} ({runtime}) ...', end=' ', file=sys.stderr, flush=True)
            rows += measure_row(name, runtime, workdir)
            print(f'took {time.monotonic() - start:.0f} s', file=sys.stderr, flush=True)
    print(benchmark_table.write_tables(rows, workdir, _SECONDS.value))


if __name__ == '__main__':
    run(main)
