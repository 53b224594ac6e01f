"""Summary of a distillation's metrics: two sentences, a table, what to doubt.

Everything here is taken from rows of `metrics.evaluation.release`, whose `comparisons` give the
paired differences. A difference counts where its 95% interval leaves out 0; no other words of
better and worse are used.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from realaudio_jax.metrics.rows import (
    CLASS_FOUND,
    ENOUGH_CLIPS,
    KERNEL_DISTANCE,
    LATENT_ERROR,
    ONSET_MEDIAN,
    ONSETS_NEAR,
    REAL,
    RECONSTRUCTION,
    TIME,
    too_few,
)
from realaudio_jax.report.tables import aligned

TOWER = 'audio tower'  # trained with the release, so another embedder is preferred to it

# Of a table: the metric, and whether a smaller value is a better one.
FIGURES = {
    LATENT_ERROR: True,
    KERNEL_DISTANCE: True,
    CLASS_FOUND: False,
    ONSET_MEDIAN: True,
    ONSETS_NEAR: False,
}
_NAMES = {REAL: 'real scenes', RECONSTRUCTION: 'real, through the autoencoder'}
_MEANINGS = {
    LATENT_ERROR: 'to what the teacher makes of the same noise in its most steps; 0 is the same, '
    '1.4 unrelated',
    KERNEL_DISTANCE: 'how unlike the set of sounds is to real scenes; 0 is alike',
    CLASS_FOUND: "how often the class that the release's own tower hears is one of the scene's",
    ONSET_MEDIAN: 'time from an onset asked for to the one heard',
}
_MORE = 'More on each: docs/metrics.md.'
_MINUS = '−'
Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as text; the first of a line names it."""

    title: str
    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    note: str = ''

    def markdown(self) -> str:
        """For a terminal, and for results.md."""
        right = [False] + [True] * (len(self.headings) - 1)
        under = f'\n{self.note}\n' if self.note else ''
        return f'{self.title}\n\n{aligned([self.headings, *self.lines], right)}{under}'


@dataclasses.dataclass(frozen=True)
class Summary:
    """Result of a distillation, in words and tables.

    Attributes:
        sentences: what it bought, with intervals; empty where nothing was compared.
        figures: each setting with its metrics and their intervals.
        differences: student minus teacher; None where nothing was compared.
        warnings: metrics that cannot tell what they seem to tell.
    """

    sentences: tuple[str, ...]
    figures: Table
    differences: Table | None
    warnings: tuple[str, ...]

    def markdown(self) -> str:
        """All of it as text."""
        tables = [self.figures, *([self.differences] if self.differences else [])]
        parts = [' '.join(self.sentences), *(table.markdown() for table in tables)]
        parts += [f'Note: {warning}' for warning in self.warnings]
        return '\n'.join(part for part in parts if part)


def summarise(rows: Sequence[Row]) -> Summary:
    """Sentences, tables and warnings from the rows of an evaluation.

    Args:
        rows: of `evaluate`, with rows named `TIME` beside them where time was measured.

    Raises:
        ValueError: there is no row of a model.
    """
    settings = _settings(rows)
    if not settings:
        raise ValueError('no results of a student or a teacher to summarise')
    embedder = _embedder(rows)
    found = {
        name: {
            _key(row): row for row in rows if row['name'] == name and _shown(row, name, embedder)
        }
        for name in (*FIGURES, TIME)
    }
    references = {  # their latent error is 0 by its definition, so none is better than they are
        key for key, row in found[LATENT_ERROR].items() if row['value'] == 0
    }
    differences = [
        row
        for row in rows
        if row.get('figure') in FIGURES
        and _shown(row, row['figure'], embedder)
        and not (row['figure'] == LATENT_ERROR and _named(settings, row['against']) in references)
    ]
    return Summary(
        _sentences(differences, found, settings),
        _figures(found, settings, embedder),
        _differences(differences, settings) if differences else None,
        _warnings(found, settings),
    )


def _key(row: Row) -> tuple:
    return tuple(row.get(name) for name in ('model', 'steps', 'precision', 'guidance', 'sampler'))


def _settings(rows: Sequence[Row]) -> dict[tuple, str]:
    """Names of the lines, in their order: the real sounds, teachers, students, most steps first."""
    keys = {_key(row): row.get('nfe') for row in rows if 'figure' not in row}
    models = [key for key in keys if key[0] in ('teacher', 'student')]
    models.sort(key=lambda key: (key[0] != 'teacher', -key[1]))
    scales, samplers = ({key[:3] + (key[i],) for key in models} for i in (3, 4))
    alike = len({key[:3] for key in models})

    def name(key: tuple) -> str:
        scale = f', guidance {key[3]:g}' if len(scales) > alike else ''
        sampler = f', {key[4]}' if len(samplers) > alike else ''
        return f'{_short_name(key)}{scale}{sampler}'

    real = {key: _NAMES[key[0]] for key in keys if key[0] in _NAMES} if models else {}
    return real | {key: name(key) for key in models}


def _short_name(key: tuple) -> str:
    """As `against` of a difference names a setting, whatever its guidance and sampler."""
    model, steps, precision = key[:3]
    return f'{model}, {steps} step{"s" if steps > 1 else ""}{f", {precision}" if precision else ""}'


def _embedder(rows: Sequence[Row]) -> str | None:
    """The embedder of the kernel distance: the most independent one."""
    names = dict.fromkeys(row['embedder'] for row in rows if row['name'] == KERNEL_DISTANCE)
    return min(names, key=lambda name: name.startswith(TOWER), default=None)


def _shown(row: Row, figure: str, embedder: str | None) -> bool:
    """Whether a row is of the embedder that the table shows; class found has one alone."""
    return figure != KERNEL_DISTANCE or row.get('embedder') == embedder


def _figures(found: Mapping, settings: Mapping[tuple, str], embedder: str | None) -> Table:
    shown = [name for name in FIGURES if found[name]] + ([TIME] if found[TIME] else [])
    units = {name: next(iter(found[name].values())).get('unit') for name in shown}
    nfe = _evaluations(found)
    headings = ['', 'evaluations']
    headings += [f'{name} ({units[name]})' if units[name] else name for name in shown]
    lines = [
        (name, str(nfe.get(key, '–')), *(_cell(found[figure].get(key)) for figure in shown))
        for key, name in settings.items()
    ]
    counts = {row['n'] for of in found.values() for row in of.values() if row['name'] in FIGURES}
    note = f'95% intervals over scenes in brackets, n = {_span(counts)}.'
    meanings = _MEANINGS | {KERNEL_DISTANCE: f'{_MEANINGS[KERNEL_DISTANCE]}, by the {embedder}'}
    said = [f'{name}: {meanings[name]}.' for name in shown if name in meanings]
    note = ' '.join([note, *(text[0].upper() + text[1:] for text in said), _MORE])
    return Table('Figures', tuple(headings), tuple(lines), note)


def _differences(differences: Sequence[Row], settings: Mapping[tuple, str]) -> Table:
    figures = [name for name in FIGURES if any(row['figure'] == name for row in differences)]
    units = {row['figure']: row.get('unit') for row in differences}
    lines: dict[tuple, dict[str, Row]] = {}
    for row in differences:
        lines.setdefault((_key(row), row['against']), {})[row['figure']] = row
    headings = ['student minus teacher']
    headings += [f'{name} ({units[name]})' if units[name] else name for name in figures]
    cells = [
        (
            f'{settings[key]} {_MINUS} {against}',
            *(_judged(of[figure], figure) if figure in of else '–' for figure in figures),
        )
        for (key, against), of in lines.items()
    ]
    note = (
        'Same scenes, same noise: paired 95% intervals. Better or worse where 0 lies outside the '
        'interval of enough clips.'
    )
    return Table('Student against teacher', tuple(headings), tuple(cells), note)


def _sentences(
    differences: Sequence[Row], found: Mapping, settings: Mapping[tuple, str]
) -> tuple[str, ...]:
    """Student against guided teacher at equal evaluations, then against other settings."""
    compared: dict[tuple, list[Row]] = {}
    for row in differences:
        compared.setdefault((_key(row), row['against']), []).append(row)
    nfe = _evaluations(found)
    equal: dict[str, list[str]] = {}  # numbers of evaluations by what is said of them
    others: list[str] = []
    for (key, against), rows in compared.items():
        other = _named(settings, against)
        if nfe.get(other) == nfe[key]:
            equal.setdefault(_verdicts(rows), []).append(str(nfe[key]))
            continue
        others += _speed(found, key, other)
        others.append(
            f'Student in {_steps(key[1])} against {against} ({nfe[other]} evaluations): '
            f'{_verdicts(rows)}.'
        )
    if equal:
        said = [
            f'with {_listed(counts)} evaluations, {verdicts}' for verdicts, counts in equal.items()
        ]
        others.insert(0, f'Student against guided teacher at equal evaluations: {"; ".join(said)}.')
    return tuple(others)


def _verdicts(rows: Sequence[Row]) -> str:
    """'better in latent error (-0.14 [-0.16, -0.12]), worse in class found (...)'.

    Metrics from too few clips are named apart: of those nothing is known.
    """
    said = []
    for verdict in ('better', 'worse'):
        figures = [
            f'{row["figure"]} ({_signed(row)}{" " + row["unit"] if row.get("unit") else ""})'
            for row in rows
            if _verdict(row, row['figure']) == verdict
        ]
        if figures:
            said.append(f'{verdict} in {_listed(figures)}')
    few = [row for row in rows if _lacks_clips(row, row['figure'])]
    if len(few) < len(rows) and not said:
        said.append(f'not told apart by {"any" if not few else "any other"} figure')
    if few:
        by = '' if len(few) == len(rows) else f' by {_listed([row["figure"] for row in few])}'
        said.append(f'{_span({row["n"] for row in few})} clips are too few to tell{by}')
    return ', '.join(said)


def _speed(found: Mapping, student: tuple, other: tuple | None) -> list[str]:
    times = [found[TIME].get(key) for key in (student, other)]
    if not all(times):
        return []
    fast, slow = (row['value'] for row in times)
    sound = f'{times[0]["seconds"]:g} s of sound' if 'seconds' in times[0] else 'a sound'
    return [
        f'In {_steps(student[1])} the student makes {sound} in {_number(fast)} ms; the teacher in '
        f'{_steps(other[1])} takes {_number(slow)} ms: {_number(slow / fast)} times as fast.'
    ]


def _evaluations(found: Mapping) -> dict[tuple, int]:
    """Evaluations of the denoiser that each setting takes."""
    return {_key(row): row['nfe'] for of in found.values() for row in of.values() if 'nfe' in row}


def _named(settings: Mapping[tuple, str], name: str) -> tuple | None:
    """The first setting of a short name: of several guidance scales the release's own is first."""
    models = (key for key in settings if key[0] not in _NAMES)
    return next((key for key in models if _short_name(key) == name), None)


def _warnings(found: Mapping, settings: Mapping[tuple, str]) -> tuple[str, ...]:
    """Metrics from few clips, and models that a metric puts at or below the real sounds' own."""
    warnings = []
    few: dict[tuple[int, int], list[str]] = {}
    for name in FIGURES:
        counts = [row['n'] for key, row in found[name].items() if key in settings and too_few(row)]
        if counts:
            few.setdefault((max(counts), ENOUGH_CLIPS[name]), []).append(name)
    for (count, enough), names in few.items():
        warnings.append(
            f'from {count} clips nothing is ranked by {_listed(names)}: '
            f'{enough} or more would tell.'
        )
    floor = next((row for k, row in found[KERNEL_DISTANCE].items() if k[0] == REAL), None)
    if floor is not None:
        passed = [
            settings[key]
            for key, row in found[KERNEL_DISTANCE].items()
            if key[0] not in _NAMES and key in settings and row['value'] <= floor['high']
        ]
        if passed:
            warnings.append(
                f'by {KERNEL_DISTANCE} these cannot be told from real scenes with '
                f'{floor["n"]} clips: {"; ".join(passed)}. That is the limit of the figure, '
                'not the quality of the sound.'
            )
    return tuple(warnings)


def _verdict(row: Row, figure: str) -> str:
    """'better' or 'worse' where the interval of enough clips leaves out 0, else ''."""
    if row['low'] <= 0 <= row['high'] or _lacks_clips(row, figure):
        return ''
    return 'better' if (row['value'] < 0) == FIGURES[figure] else 'worse'


def _lacks_clips(row: Row, figure: str) -> bool:
    return row['n'] < ENOUGH_CLIPS.get(figure, 0)


def _judged(row: Row, figure: str) -> str:
    verdict = _verdict(row, figure)
    return _signed(row) + (f' {verdict}' if verdict else '')


def _cell(row: Row | None) -> str:
    if row is None:
        return '–'
    if row['value'] is None or row['value'] != row['value']:
        return 'not defined'
    text = _number(row['value'])
    if row['name'] == TIME or row.get('low') is None:
        return text
    return f'{text} [{_number(row["low"])}, {_number(row["high"])}]'


def _signed(row: Row) -> str:
    value, low, high = (_number(row[key]) for key in ('value', 'low', 'high'))
    sign = '+' if row['value'] > 0 else ''
    return f'{sign}{value} [{low}, {high}]'


def _number(value: float) -> str:
    """Three digits, at most two after the point, with a minus sign."""
    size = abs(value)
    digits = 2 if size < 10 else 1 if size < 100 else 0
    text = f'{size:,.{digits}f}'
    return (_MINUS if value < 0 and float(text.replace(',', '')) else '') + text


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f'{", ".join(first)} and {last}' if first else last


def _span(counts: set[int]) -> str:
    return f'{min(counts)}' if len(counts) == 1 else f'{min(counts)} to {max(counts)}'


def _steps(count: int) -> str:
    return f'{count} step{"s" if count > 1 else ""}'
