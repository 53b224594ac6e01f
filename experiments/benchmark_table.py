"""The benchmark's rows as Markdown, JSON and a plot; values that others report, set apart."""

import pathlib
from collections.abc import Sequence

import matplotlib

from realaudio_jax.io import atomic_path
from realaudio_jax.report.tables import wide_table, write_results

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402

PARTS = ('text', 'denoiser', 'decode', 'encode')
NOT_MEASURED = 'not measured'
# Values of the table that this model is known by, as its source reports them for 10 s of sound.
REPORTED = (
    ('this model', 4, 0.24, 1.82, 0.32, 6.2),
    ('AudioLDM 2', 50, 4.8, 1.75, 0.34, 11.4),
    ('Stable Audio', 20, 1.9, 1.91, 0.31, 8.7),
    ('AudioCraft', 50, 3.2, None, None, None),
    ('ElevenLabs Turbo', None, 0.8, None, None, None),
    ('AudioLM', '200+', '> 5', None, None, None),
)
REPORTED_NOTE = """\
Reported elsewhere, not measured here: for 10 s of sound, by one source, whose first three rows are
of one RTX 4090 (float16 for this model, encoding included). It names neither the FAD embedder nor
the CLAP checkpoint nor the prompts, and no device for the last three, so these values are not
comparable with those above."""


def reported_rows() -> list[dict]:
    """Rows of values reported by others, not measured here."""
    rows = []
    for model, steps, time_s, fad, clap, memory in REPORTED:
        settings = {'model': model, 'steps': steps, 'reported elsewhere': True}
        figures = [('time', time_s, 's'), ('FAD', fad, ''), ('CLAP score', clap, '')]
        figures.append(('peak memory', memory, 'GB'))
        rows += [
            {'name': name, 'value': value, 'unit': unit} | settings
            for name, value, unit in figures
            if value is not None
        ]
    return rows


def ratio_rows(rows: Sequence[dict]) -> list[dict]:
    """Time of the JAX row over that of the torch row of the same system.

    A row that was not measured, and one whose JAX row was not, has none.
    """
    times = {
        (row['system'], row['runtime']): row['value']
        for row in rows
        if row['name'] == 'time' and isinstance(row['value'], float)
    }
    kept = ('model', 'steps', 'system', 'runtime')
    return [
        {'name': 'time, JAX to torch', 'value': times[row['system'], 'jax'] / row['value']}
        | {key: row[key] for key in kept}
        for row in rows
        if row['name'] == 'time'
        and row['runtime'] != 'jax'
        and isinstance(row['value'], float)
        and (row['system'], 'jax') in times
    ]


def shown(rows: Sequence[dict]) -> list[dict]:
    """Formats rows for the Markdown table: one value a cell, with its remark.

    A time that is extrapolated has a star. A value by several embedders has their names.
    """
    cells: dict[tuple, dict] = {}
    for row in rows:
        value = row['value']
        if row['name'] == 'time' and isinstance(value, str) and 'system' in row:
            value = NOT_MEASURED
        if isinstance(value, float):
            value = f'{value:.3g}' if abs(value) < 1000 else f'{value:.0f}'
            if row['name'] in ('time', 'time, p95', 'denoiser', 'real-time factor'):
                value += '*' if row.get('extrapolated from evaluations') else ''
        if row.get('embedder'):
            value = f'{value} ({row["embedder"].split(" (")[0]})'
        key = row['model'], row['steps'], row['name']
        if key in cells:
            value = f'{cells[key]["value"]}, {value}'
        cells[key] = {k: row.get(k, '') for k in ('name', 'unit', 'model', 'steps')}
        cells[key]['value'] = value
    return list(cells.values())


def write_tables(rows: list[dict], workdir: pathlib.Path, seconds: float) -> str:
    """Writes every file; returns the Markdown, values that others report set apart."""
    rows, reported = rows + ratio_rows(rows), reported_rows()
    title = f'Time and memory for {seconds:g} s of sound'
    write_results(workdir, rows + reported, title)
    plot(rows, workdir / 'benchmark.png', seconds)
    devices = sorted({row['device'] for row in rows if row.get('device')})
    text = f'# {title}\n\nMeasured on {", ".join(devices) or "nothing"}. Weights, calls and other '
    text += 'settings are in results.json. Memory is the peak of the process of each row.\n\n'
    text += wide_table(shown(rows))
    for row in rows:
        some = row.get('extrapolated from evaluations')
        if row['name'] == 'evaluations' and some:
            text += (
                f'\n\\* {row["model"]}: extrapolated from {some} of {row["value"]} evaluations.\n'
            )
        elif row['name'] == 'time' and isinstance(row['value'], str):
            text += f'\n{row["model"]}: {row["value"]}.\n'
    text += f'\n{REPORTED_NOTE}\n\n{wide_table(shown(reported))}'
    with atomic_path(workdir / 'benchmark.md') as temporary:
        temporary.write_text(text, encoding='utf-8')
    return text


def plot(rows: Sequence[dict], path: pathlib.Path, seconds: float) -> None:
    """Time of each model by part, on a logarithmic scale, with the whole beside it."""
    models = list(dict.fromkeys(row['model'] for row in rows))
    value = {(row['model'], row['name']): row['value'] for row in rows}
    stars = {row['model'] for row in rows if row.get('extrapolated from evaluations')}
    bars = ('time', *PARTS)
    height = 0.8 / len(bars)
    figure, axis = plt.subplots(figsize=(9, 1.5 + 0.75 * len(models)), layout='constrained')
    for i, (part, colour) in enumerate(zip(bars, ('0.25', 'C0', 'C1', 'C2', 'C4'), strict=True)):
        times = [value.get((model, part)) for model in models]
        known = [(m, t) for m, t in enumerate(times) if isinstance(t, float)]
        places = [m + height * (i - 2) for m, _ in known]
        label = 'whole sound' if part == 'time' else part
        axis.barh(places, [t for _, t in known], height, label=label, color=colour)
        if part == 'time':
            for place, (m, t) in zip(places, known, strict=True):
                star = '*' if models[m] in stars else ''
                axis.annotate(
                    f' {t:.3g} s{star}', (t, place), va='center', fontsize=8, annotation_clip=False
                )
    for m, model in enumerate(models):
        if isinstance(value.get((model, 'time')), str):
            across = axis.get_yaxis_transform()  # from the left edge, whatever the times
            axis.text(0.01, m, NOT_MEASURED, transform=across, va='center', fontsize=8)
    axis.set_yticks(range(len(models)), models)
    axis.invert_yaxis()
    axis.set_xscale('log')
    axis.margins(x=0.1)
    axis.set_xlabel('seconds, lower is better' + (' (* extrapolated)' if stars else ''))
    axis.set_title(f'Time for {seconds:g} s of sound', loc='left')
    axis.grid(axis='x', alpha=0.25)
    axis.set_axisbelow(True)
    axis.spines[['top', 'right']].set_visible(False)
    axis.legend(frameon=False, ncols=len(bars), loc='upper center', bbox_to_anchor=(0.4, -0.12))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)
    plt.close(figure)
