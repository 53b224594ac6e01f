"""Result tables: results.json in full for programs, results.md rounded for readers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from realaudio_jax.io import atomic_path, printable

COLUMNS = ('name', 'value', 'unit', 'n')
# What a row says of its value, beside the settings that it was measured with.
ABOUT = (*COLUMNS, 'low', 'high', 'p95', 'p99', 'embedder', 'note')


def write_results(
    workdir: str | Path, rows: Sequence[Mapping[str, Any]], title: str
) -> tuple[Path, Path]:
    """Write `results.json` and `results.md` into a folder, each whole or not at all.

    The JSON is a plain list of the rows. The Markdown table holds name, value, unit, n, then the
    settings; rows of one name stand together, and settings that all rows share stand once above.

    Args:
        workdir: folder of the run, made when missing.
        rows: flat records with 'name', 'value', optionally 'unit' and 'n' (number of items
            measured), and any settings (seed, steps, guidance scale, checkpoint, ...).
        title: heading of the table.

    Returns:
        The paths of the JSON and the Markdown file.

    Raises:
        ValueError: there are no rows, or one lacks its name or value or holds a nested value.
    """
    if not rows:
        raise ValueError(f"no results to write for '{title}'; measure something first")
    plain = [_plain_row(row) for row in rows]
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    texts = {
        'results.json': json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + '\n',
        'results.md': markdown_table(plain, title),
    }
    for name, text in texts.items():
        with atomic_path(workdir / name) as temporary:
            Path(temporary).write_text(text, encoding='utf-8')
    return workdir / 'results.json', workdir / 'results.md'


def pivot(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One wide row for each setting, its metrics side by side: for CSV files and plots.

    A setting is a model, its number of steps, and whatever else tells apart two rows of one metric,
    such as the guidance scale.

    Args:
        rows: as for `write_results`, with the settings 'model' and, where there are any, 'steps'.

    Returns:
        Dicts with 'model', 'steps', further settings that differ, and one column for each metric,
        named 'metric (unit), embedder'; all have the same columns, None where a metric is missing.

    Raises:
        ValueError: two rows of one metric have the same settings throughout.
    """
    plain = [_plain_row(row) for row in rows]
    keys = _distinguishing(plain)
    wide: dict[tuple, dict[str, Any]] = {}
    columns: dict[str, None] = {}
    for row in plain:
        column = _column(row)
        columns[column] = None
        line = wide.setdefault(tuple(row.get(key) for key in keys), {})
        if column in line:
            raise ValueError(
                f'two results {column!r} have the same settings; give each what tells it apart'
            )
        line[column] = row['value']
    return [
        dict(zip(keys, line, strict=True)) | {column: found.get(column) for column in columns}
        for line, found in wide.items()
    ]


def _column(row: Mapping[str, Any]) -> str:
    """The heading of a metric in a wide table."""
    unit = f' ({row["unit"]})' if row.get('unit') else ''
    embedder = f', {row["embedder"].split(" (")[0]}' if row.get('embedder') else ''
    return row['name'] + unit + embedder


def _distinguishing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings that tell rows of one metric apart, model and steps first."""
    keys = ['model', 'steps']
    settings = dict.fromkeys(key for row in rows for key in row if key not in (*ABOUT, *keys))
    for setting in settings:
        seen: dict[tuple, Any] = {}
        for row in rows:
            line = (_column(row), *(row.get(key) for key in keys))
            if seen.setdefault(line, row.get(setting)) != row.get(setting):
                keys.append(setting)
                break
    return keys


def wide_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """`pivot` as a Markdown table, values rounded to four digits."""
    wide = pivot(rows)
    lines = [[_cell(row, key) if row[key] is not None else '' for key in row] for row in wide]
    return aligned([list(wide[0]), *lines], [key != 'model' for key in wide[0]])


def tall_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """`wide_table` with a line for each metric and a column for each setting."""
    wide, keys = pivot(rows), _distinguishing([_plain_row(row) for row in rows])
    head = ['', *(' '.join(str(row[key]) for key in keys if row[key] is not None) for row in wide)]
    lines = [
        [column, *(_cell(row, column) if row[column] is not None else '' for row in wide)]
        for column in wide[0]
        if column not in keys
    ]
    return aligned([head, *lines], [False] + [True] * len(wide))


def _plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    missing = [field for field in ('name', 'value') if field not in row]
    if missing:
        raise ValueError(f'a result lacks {" and ".join(missing)}: {dict(row)}')
    ordered = {'name': row['name'], 'value': row['value'], 'unit': '', 'n': None, **row}
    return {key: _plain(row['name'], key, value) for key, value in ordered.items()}


def _plain(name: str, key: str, value: Any) -> Any:
    """A JSON scalar: one-element arrays are unpacked, numbers that are not finite become None."""
    if isinstance(value, Path):
        return printable(value)
    if hasattr(value, 'shape'):  # numpy or jax
        if np.size(value) != 1:
            raise ValueError(f"'{key}' of result '{name}' is an array; give one number per row")
        value = np.asarray(value).reshape(()).item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode('utf-8', 'backslashreplace').decode()  # no lone surrogates of names
    if value is None or isinstance(value, (bool, int)):
        return value
    raise ValueError(
        f"'{key}' of result '{name}' is a {type(value).__name__}; give a number or a string"
    )


def markdown_table(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """Markdown table of rows, as `results.md` and a terminal show it."""
    rows = [_plain_row(row) for row in rows]
    settings = list(dict.fromkeys(key for row in rows for key in row if key not in COLUMNS))
    shared = [
        key
        for key in settings
        if len(rows) > 1 and all(key in row and row[key] == rows[0][key] for row in rows)
    ]
    columns = [*COLUMNS, *(key for key in settings if key not in shared)]
    names = list(dict.fromkeys(row['name'] for row in rows))
    grouped = sorted(rows, key=lambda row: names.index(row['name']))
    cells = [[_cell(row, key) for key in columns] for row in grouped]
    table = aligned([columns, *cells], [key in ('value', 'n') for key in columns])
    above = ', '.join(f'{key} {_cell(rows[0], key)}' for key in shared)
    head = [f'# {title}', '', *([f'All rows: {above}.', ''] if above else [])]
    return '\n'.join([*head, table])


def aligned(lines: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """A Markdown table of a header and lines, columns padded to one width."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(right))]
    padded = [
        [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
        for line in lines
    ]
    rule = ['-' * (w - 1) + ':' if r else '-' * w for w, r in zip(widths, right, strict=True)]
    return ''.join('| ' + ' | '.join(line) + ' |\n' for line in [padded[0], rule, *padded[1:]])


def _cell(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return 'not finite' if key == 'value' else ''
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, float):
        return f'{value:.4g}'
    return ' '.join(str(value).replace('|', '\\|').split())
