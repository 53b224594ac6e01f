"""Time and memory for 10 s of sound: this model against its teacher and the published baselines.

python -m experiments.benchmark --workdir=DIR
python -m experiments.benchmark --audioldm2=DIR --stable_audio_open=DIR --evaluations=0

Each row is measured in a process of its own, so that its peak memory is its own. Without a folder a
baseline has random weights, which cost the same time and memory. `--evaluations=K` measures K of
the denoiser's evaluations where the whole sampler would take longer than --limit_s, and marks the
row as extrapolated; text, encode and decode are always measured whole. Writes benchmark.md,
benchmark.png, and every figure with its settings to results.json and results.md.
"""

import json
import pathlib
import subprocess
import sys

import jax
import matplotlib
from absl import flags

from experiments import systems
from experiments.common import run
from realaudio_jax.io import atomic_path
from realaudio_jax.metrics.latency import LatencyStats, measure, peak_memory
from realaudio_jax.metrics.results import wide_table, write_results

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402

_RELEASE = flags.DEFINE_string('release', 'foley', 'Name or folder of the release.')
_AUDIOLDM2 = flags.DEFINE_string('audioldm2', None, 'Folder of AudioLDM 2; none: random weights.')
_OPEN = flags.DEFINE_string(
    'stable_audio_open', None, 'Folder of Stable Audio Open; none: random weights.'
)
_ROWS = flags.DEFINE_list('rows', list(systems.NAMES), 'Which rows.')
_SECONDS = flags.DEFINE_float('seconds', 10.0, 'Duration of the sound.')
_EVALUATIONS = flags.DEFINE_integer(
    'evaluations', 4, 'Evaluations measured where all would take long; 0: all.', lower_bound=0
)
_LIMIT = flags.DEFINE_float('limit_s', 60.0, 'Samplers that take longer are extrapolated.')
_REPEATS = flags.DEFINE_integer('repeats', 9, 'Calls of each part, 1 if slow.', lower_bound=1)
_DTYPE = flags.DEFINE_enum(
    'dtype', 'float32', ['float32', 'bfloat16', 'float16'], 'Precision of the baselines.'
)
_WORKDIR = flags.DEFINE_string('workdir', 'runs/benchmark', 'Where the tables and the plot go.')
_ROW = flags.DEFINE_string('row', None, 'Measures one row in this process.')

SLOW_S = 5.0  # a part that takes longer is timed once
PARTS = ('text', 'denoiser', 'decode', 'encode')
FLAGS = {'AudioLDM 2': '--audioldm2', 'Stable Audio Open': '--stable_audio_open'}
# Figures of the table that this model is known by, as its source reports them for 10 s; embedder,
# checkpoint, prompts and, for the last three, device are not stated there.
REPORTED = (
    ('this model', 4, 0.24, 1.82, 0.32, 6.2, '48 kHz stereo, one RTX 4090, float16'),
    ('AudioLDM 2', 50, 4.8, 1.75, 0.34, 11.4, ''),
    ('Stable Audio', 20, 1.9, 1.91, 0.31, 8.7, ''),
    ('AudioCraft', 50, 3.2, None, None, None, ''),
    ('ElevenLabs Turbo', None, 0.8, None, None, None, ''),
    ('AudioLM', '200+', 5.0, None, None, None, 'over 5 s'),
)


def timed(fn, repeats: int) -> LatencyStats:
    """`metrics.latency.measure`, once only where a call takes seconds."""
    stats = measure(fn, 1)
    return stats if stats.median > 1e3 * SLOW_S or repeats == 1 else measure(fn, repeats, warmup=0)


def measure_system(
    system: systems.System, seconds: float, evaluations: int, limit_s: float, repeats: int
) -> list[dict]:
    """The figures of one system, for `metrics.results`.

    Args:
      system: what is measured.
      seconds: asked for.
      evaluations: measured where all would take longer than `limit_s`; 0 for all.
      limit_s: seconds of a whole sampler.
      repeats: calls of each part that is not slow.
    """
    split = {'text': timed(system.text, repeats)}
    conditioning = jax.block_until_ready(system.text())
    taken = system.steps
    if evaluations:
        taken = min(system.steps, max(1, evaluations // system.evaluations_per_step))
        some = timed(lambda: system.sample(conditioning, taken), 1)
        if some.median * system.steps / taken <= 1e3 * limit_s:
            taken = system.steps
    split['denoiser'] = timed(lambda: system.sample(conditioning, taken), repeats)
    latents = jax.block_until_ready(system.sample(conditioning, taken))
    split['decode'] = timed(lambda: system.decode(latents), repeats)
    split['encode'] = timed(system.encode, repeats)
    ratio = system.steps / taken
    if ratio > 1:
        median = split['text'].median + ratio * split['denoiser'].median + split['decode'].median
        p95 = split['text'].p95 + ratio * split['denoiser'].p95 + split['decode'].p95
        count = split['denoiser'].n
    else:
        whole = timed(system.run, repeats)
        median, p95, count = whole.median, whole.p95, whole.n
    memory = peak_memory()
    figures = [
        ('time', median, 'ms', count),
        ('time, p95', p95, 'ms', count),
        *(
            (part, split[part].median * (ratio if part == 'denoiser' else 1), 'ms', split[part].n)
            for part in PARTS
        ),
        ('real-time factor', median / 1e3 / seconds, '', count),
        ('evaluations', system.steps * system.evaluations_per_step, '', None),
        ('parameters', system.parameters / 1e6, 'M', None),
        ('peak memory', (memory.device or memory.host) / 1e9, 'GB', None),
        ('sample rate', system.sample_rate / 1e3, 'kHz', None),
        ('channels', system.channels, '', None),
    ]
    settings = {
        'model': system.name,
        'steps': system.steps,
        'weights': system.weights,
        'seconds': seconds,
        'made (s)': round(system.made_s, 2),
        'device': jax.local_devices()[0].device_kind,
        'extrapolated from evaluations': (
            taken * system.evaluations_per_step if ratio > 1 else 'no'
        ),
    }
    rows = [
        {'name': name, 'value': value, 'unit': unit, 'n': n} | settings
        for name, value, unit, n in figures
    ]
    missing = FLAGS.get(system.name) if system.weights == systems.RANDOM else None
    remedy = f'needs {missing}' if missing else 'python -m experiments.evaluate'
    return rows + [{'name': name, 'value': remedy} | settings for name in ('FAD', 'CLAP score')]


def reported_rows() -> list[dict]:
    """The figures that others report, which nothing here has measured."""
    rows = []
    for model, steps, time_s, fad, clap, memory, note in REPORTED:
        settings = {'model': model, 'steps': steps, 'reported elsewhere': True, 'note': note}
        figures = [('time', 1e3 * time_s, 'ms'), ('FAD', fad, ''), ('CLAP score', clap, '')]
        figures.append(('peak memory', memory, 'GB'))
        rows += [
            {'name': name, 'value': value, 'unit': unit} | settings
            for name, value, unit in figures
            if value is not None
        ]
    return rows


def measure_row(name: str, arguments: list[str], workdir: pathlib.Path) -> list[dict]:
    """One row, from a process of its own; a row that does not fit into memory says so.

    Raises:
      ValueError: what the process complained about.
    """
    out = workdir / f'row_{name}.json'
    out.unlink(missing_ok=True)
    command = [sys.executable, '-m', 'experiments.benchmark', f'--row={name}', *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode in (-9, 137) or 'RESOURCE_EXHAUSTED' in done.stderr:
        return [{'name': 'time', 'value': 'too little memory', 'model': name, 'steps': None}]
    if done.returncode:
        raise ValueError(f'row {name}: {(done.stderr.strip().splitlines() or ["failed"])[-1]}')
    rows = json.loads(out.read_text())
    out.unlink()
    return rows


def write_row(name, folders, seconds, dtype, evaluations, limit_s, repeats, path) -> None:
    """Measures a row here and writes its figures."""
    try:
        system = systems.build(name, folders, seconds, dtype)
        rows = measure_system(system, seconds, evaluations, limit_s, repeats)
    except systems.TooLittleMemory as error:
        rows = [{'name': 'time', 'value': str(error), 'model': name, 'steps': None}]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(rows))


def write_tables(rows: list[dict], workdir: pathlib.Path, seconds: float) -> str:
    """Writes every file; returns the table, figures that others report set apart."""
    reported = reported_rows()
    title = f'Time and memory for {seconds:g} s of sound'
    write_results(workdir, rows + reported, title)
    plot(rows, workdir / 'benchmark.png')
    table = f'# {title}\n\nMeasured here, weights and device in results.json:\n\n'
    table += f'{wide_table(rows)}\nReported elsewhere, not measured:\n\n{wide_table(reported)}'
    with atomic_path(workdir / 'benchmark.md') as temporary:
        temporary.write_text(table, encoding='utf-8')
    return table


def plot(rows: list[dict], path: pathlib.Path) -> None:
    """Time of each model by part, on a logarithmic scale, with the whole beside it."""
    models = list(dict.fromkeys(row['model'] for row in rows))
    value = {(row['model'], row['name']): row['value'] for row in rows}
    shown = ('time', *PARTS)
    figure, axis = plt.subplots(figsize=(9, 1.2 + 0.9 * len(models)), layout='constrained')
    for i, part in enumerate(shown):
        places = [m + 0.16 * (i - 2) for m in range(len(models))]
        times = [value.get((model, part)) for model in models]
        known = [(p, t) for p, t in zip(places, times, strict=True) if isinstance(t, float)]
        if known:
            axis.barh(*zip(*known, strict=True), height=0.15, label=part)
    axis.set_yticks(range(len(models)), models)
    axis.invert_yaxis()
    axis.set_xscale('log')
    axis.set_xlabel('ms, lower is better')
    axis.grid(axis='x', alpha=0.25)
    axis.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)
    plt.close(figure)


def main(argv):
    del argv
    workdir = pathlib.Path(_WORKDIR.value)
    unknown = set(_ROWS.value) - set(systems.NAMES)
    if unknown:
        raise ValueError(f'no row {min(unknown)!r}; there are {", ".join(systems.NAMES)}')
    folders = {
        'release': _RELEASE.value, 'audioldm2': _AUDIOLDM2.value, 'stable_audio_open': _OPEN.value,
    }  # fmt: skip
    if _ROW.value:
        write_row(
            _ROW.value, folders, _SECONDS.value, _DTYPE.value, _EVALUATIONS.value, _LIMIT.value,
            _REPEATS.value, workdir / f'row_{_ROW.value}.json',
        )  # fmt: skip
        return
    arguments = [f'--{name}={folder}' for name, folder in folders.items() if folder]
    arguments += [
        f'--seconds={_SECONDS.value}', f'--dtype={_DTYPE.value}', f'--limit_s={_LIMIT.value}',
        f'--evaluations={_EVALUATIONS.value}', f'--repeats={_REPEATS.value}',
        f'--workdir={workdir}',
    ]  # fmt: skip
    rows = []
    for name in _ROWS.value:
        print(f'measuring {name} ...', flush=True)
        rows += measure_row(name, arguments, workdir)
    print(write_tables(rows, workdir, _SECONDS.value))


if __name__ == '__main__':
    run(main)
