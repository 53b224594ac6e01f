"""One page to hear and see a run: sounds, spectrograms with their events, the table of numbers.

`write_report` joins sounds, drawings, results and settings in one HTML file that needs no other
file and no network. Sounds are embedded as FLAC: lossless, so that what separates teacher from
student is what the models did, and played by every current browser.
"""

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile

from realaudio_jax import report_page
from realaudio_jax.audio import to_pcm16
from realaudio_jax.io import atomic_path
from realaudio_jax.provenance import describe_run
from realaudio_jax.spectrogram import LEFT, RIGHT, draw_spectrogram, plot_spectrogram, to_png
from realaudio_jax.timeline import Event

__all__ = ['ReportClip', 'describe_run', 'pivot', 'plot_spectrogram', 'write_report']


@dataclass(frozen=True)
class ReportClip:
    """One sound of a report.

    Attributes:
        prompt: what was asked for; neighbours of one prompt stand side by side.
        label: what made it, such as 'teacher, 50 steps' or 'real scene'.
        audio: float in [-1, 1] or int16, [S] or [S, A].
        sample_rate: Hz.
        events: those asked for.
    """

    prompt: str
    label: str
    audio: np.ndarray
    sample_rate: int
    events: Sequence[Event] = ()


def pivot(
    rows: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, Any], list[str], list[list[str]]]:
    """Flat result rows as a table of one line per (model, steps) and one column per metric.

    A setting that every row shares stands apart; one that a metric always has joins its heading;
    one that goes with the line becomes a column of it; whatever is left splits a metric into
    columns.

    Args:
        rows: of `metrics.results.write_results`.

    Returns:
        The shared settings, the headings, and the cells of each line, all text.
    """
    given = [{k: v for k, v in row.items() if v is not None or k == 'value'} for row in rows]
    settings = [
        key for key in dict.fromkeys(k for row in given for k in row)
        if key not in ('name', 'value', 'unit', 'n', 'model', 'steps')
    ]  # fmt: skip
    absent = object()

    def decides(keys: Sequence[str], setting: str) -> bool:
        seen: dict[tuple, Any] = {}
        return all(
            seen.setdefault(tuple(row.get(k) for k in keys), row.get(setting, absent))
            == row.get(setting, absent)
            for row in given
        )

    shared = {k: given[0][k] for k in settings if k in given[0] and decides((), k)}
    rest = [k for k in settings if k not in shared]
    of_line = [k for k in rest if not decides(('name',), k) and decides(('model', 'steps'), k)]
    line_keys = [k for k in ('model', 'steps') if any(k in row for row in given)] + of_line
    of_metric = [k for k in rest if k not in of_line]

    def metric(row: Mapping[str, Any]) -> str:
        notes = ', '.join(f'{k} {_value(row[k])}' for k in of_metric if k in row)
        unit = f' ({row["unit"]})' if row.get('unit') else ''
        return f'{row["name"]}{unit}' + (f', {notes}' if notes else '')

    lines: dict[tuple, dict[str, str]] = {}
    for row in given:
        line = lines.setdefault(tuple(row.get(k) for k in line_keys), {})
        heading = metric(row)
        value = _value(row['value'])
        line[heading] = f'{line[heading]}; {value}' if heading in line else value
    headings = list(dict.fromkeys(metric(row) for row in given))
    cells = [
        ['–' if v is None else _value(v) for v in key] + [line.get(h, '–') for h in headings]
        for key, line in lines.items()
    ]
    return shared, line_keys + headings, cells


def _value(value: Any) -> str:
    value = value.item() if hasattr(value, 'item') else value  # of numpy or jax
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return 'not finite'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def write_report(
    path: str | os.PathLike,
    title: str,
    clips: Sequence[ReportClip],
    table_rows: Sequence[Mapping[str, Any]] = (),
    intro: str = '',
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes one HTML file with everything in it: players, spectrograms, the table, the settings.

    Args:
        path: of the HTML, written whole or not at all.
        title: its heading.
        clips: sounds; those of one prompt that follow each other stand side by side.
        table_rows: results, as for `metrics.results.write_results`.
        intro: a paragraph of plain text.
        metadata: names and values shown at the end: `describe_run()`, settings.

    Raises:
        ValueError: a clip has no samples, or some that are not finite.
        OSError: the file cannot be written.
    """
    groups: list[list[ReportClip]] = []
    for clip in clips:
        if not groups or groups[-1][0].prompt != clip.prompt:
            groups.append([])
        groups[-1].append(clip)
    body = [_table(table_rows)] if table_rows else []
    body += [_group(group) for group in groups]
    if metadata:
        body.append(report_page.details('How it was made', metadata))
    page = report_page.page(title, intro, body, time_axis=(LEFT, RIGHT))
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding='utf-8')


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    shared, headings, cells = pivot(rows)
    note = ', '.join(f'{k} {_value(v)}' for k, v in shared.items())
    counts = sorted({row['n'] for row in rows if row.get('n') is not None})
    if counts:
        span = f'{counts[0]}' if len(counts) == 1 else f'{counts[0]} to {counts[-1]}'
        note = '; '.join([f'n = {span}', *([note] if note else [])])
    return report_page.table('Results', headings, cells, note)


def _group(clips: Sequence[ReportClip]) -> str:
    figures = []
    for clip in clips:
        said = '; '.join(f'{e.text} from {e.onset_s:g} to {e.offset_s:g} s' for e in clip.events)
        png = to_png(draw_spectrogram(clip.audio, clip.sample_rate, clip.events))
        events = f'. Events: {said}' if said else ''
        figures.append(
            report_page.player(
                clip.label,
                f'Spectrogram of {clip.label}: {clip.prompt}{events}',
                _data_uri('audio/flac', _flac(clip)),
                _data_uri('image/png', png),
                len(clip.audio) / clip.sample_rate,
            )
        )
    return report_page.section(clips[0].prompt, figures)


def _flac(clip: ReportClip) -> bytes:
    audio = np.asarray(clip.audio)
    if audio.dtype != np.int16:
        audio = to_pcm16(audio)
    buffer = io.BytesIO()
    soundfile.write(buffer, audio, clip.sample_rate, format='FLAC', subtype='PCM_16')
    return buffer.getvalue()


def _data_uri(kind: str, data: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(data).decode()}'
