"""Distances between two sets of sounds by an embedder, as rows of a table; and between folders.

fad       Frechet distance, see `frechet`
fad_inf   the same, extrapolated to infinitely many clips
kad       kernel distance, see `kernel`
"""

import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from realaudio_jax.io import printable
from realaudio_jax.metrics.embedders.base import Embedder
from realaudio_jax.metrics.embedders.cache import EmbeddedFiles, embed_files
from realaudio_jax.metrics.frechet import frechet_infinity_interval, frechet_interval
from realaudio_jax.metrics.kernel import kernel_interval
from realaudio_jax.metrics.rows import (
    ENOUGH_CLIPS,
    FRECHET_DISTANCE,
    FRECHET_INFINITE,
    KERNEL_DISTANCE,
    REAL,
    interval_row,
    too_few,
)
from realaudio_jax.sound_files import SUFFIXES, find_sounds

LEAST = 4  # files in a folder: two halves of two
DISTANCES = {
    'fad': (FRECHET_DISTANCE, frechet_interval),
    'fad_inf': (FRECHET_INFINITE, frechet_infinity_interval),
    'kad': (KERNEL_DISTANCE, kernel_interval),
}
Windows = Sequence[np.ndarray]  # of an embedder, one array [frames D] per sound


def check_distances(names: Sequence[str]) -> tuple[str, ...]:
    """The names, if all are distances.

    Raises:
        ValueError: one is not or stands there twice, or there is none.
    """
    if len(set(names)) < len(names):
        raise ValueError(f'metrics {", ".join(names)}: give each once')
    unknown = [name for name in names if name not in DISTANCES]
    if unknown or not names:
        raise ValueError(
            f'no metric {unknown[0]!r}; choose from {", ".join(DISTANCES)}'
            if unknown
            else f'no metric named; choose from {", ".join(DISTANCES)}'
        )
    return tuple(names)


def distance_rows(
    real: Windows,
    made: Windows,
    embedder: Embedder,
    distances: Sequence[str] = ('fad',),
    seed: int = 0,
    resamples: int = 200,
    paired: bool = False,
) -> list[dict]:
    """Distances of one set to another by one embedder.

    A distance that is not defined for these sets has a row that says why: nothing is left out in
    silence, and the others are not lost.
    """
    rows = []
    for name in check_distances(distances):
        label, measure = DISTANCES[name]
        row = {'name': label, 'embedder': embedder.name}
        try:
            found = measure(real, made, resamples, paired=paired, seed=seed)
            row = interval_row(label, found) | row
            if too_few(row):
                row['note'] = (
                    f'{row["n"]} clips: from fewer than {ENOUGH_CLIPS[label]} it ranks nothing'
                )
            rows.append(row)
        except ValueError as error:
            clips = min(len(real), len(made))
            rows.append(row | {'value': float('nan'), 'unit': '', 'n': clips, 'note': str(error)})
    return rows


def sound_files(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The sound files in a folder and below it, sorted.

    Raises:
        FileNotFoundError: no such folder. ValueError: fewer than four sounds in it.
    """
    files = find_sounds(folder).sounds
    if len(files) < LEAST:
        raise ValueError(
            f'{printable(folder)} holds {len(files)} sound files ({", ".join(SUFFIXES)}); a '
            f'distance between sets needs {LEAST} or more'
        )
    return list(files)


def compare_folders(
    generated: str | os.PathLike,
    reference: str | os.PathLike,
    embedders: Sequence[Embedder],
    distances: Sequence[str],
    cache_dir: str | os.PathLike,
    seed: int = 0,
    resamples: int = 200,
    batch: int = 32,
    progress: Callable[[int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict]:
    """Distances of the sounds in one folder to those in another.

    The floor, two halves of the reference against each other, stands first. A half has half the
    clips, so a distance that grows with few clips (fad) has a floor that is on the high side.

    Args:
        generated, reference: folders of sound files, any rate, length and number of channels.
        embedders: the networks.
        distances: names in `DISTANCES`.
        cache_dir: where vectors are kept.
        seed: of the halves and of the intervals.
        resamples: bootstrap draws.
        batch: windows per call of an embedder.
        progress: called with the files done; each counts once for each embedder.
        say: takes one line on each thing a reader should know: files left out, padded, silent.

    Raises:
        FileNotFoundError: no such folder. ValueError: too few readable sounds, or a bad name.
    """
    check_distances(distances)
    sets = {'generated': sound_files(generated), 'reference': sound_files(reference)}
    names = {'generated': printable(pathlib.Path(generated).resolve().name), 'reference': REAL}
    for side, folder in (('generated', generated), ('reference', reference)):
        if remark := find_sounds(folder).remark():
            say(f'{side}: {remark}')
    rows, before = [], 0
    for index, embedder in enumerate(embedders):
        found: dict[str, EmbeddedFiles] = {}
        for side, files in sets.items():
            tell = (lambda n, start=before: progress(start + n)) if progress else None
            found[side] = embed_files(embedder, files, cache_dir, batch, tell)
            before += len(files)
            if len(found[side].files) < LEAST:
                raise ValueError(_too_few(side, generated, reference, found[side]))
            if index == 0:
                rows += _remarks(found[side], side, names[side], say)
            if found[side].short:
                say(
                    f'{side}: {found[side].short} of {len(found[side].files)} sounds are shorter '
                    f'than the {embedder.window_s:g} s of {embedder.name}; padded with silence at '
                    'their end'
                )
        real, made = (found[side].vectors.by_content() for side in ('reference', 'generated'))
        order = np.random.default_rng(seed).permutation(len(real))
        halves = [real.take(half.tolist()) for half in np.array_split(order, 2)]
        say(f'distances by {embedder.name}')
        floor = distance_rows(*halves, embedder, distances, seed, resamples)
        rows += [{'note': 'two halves'} | row | {'model': REAL} for row in floor]
        measured = distance_rows(real, made, embedder, distances, seed, resamples)
        rows += [row | {'model': names['generated']} for row in measured]
    return rows


def _remarks(found, side, model, say):
    """What was left out, as a row and a line each; silence and rates as lines."""
    rows = []
    if found.left_out:
        reasons = [f'{printable(file.name)}: {reason}' for file, reason in found.left_out]
        for reason in reasons:
            say(f'{side}: left out {reason}')
        note = '; '.join(reasons[:5]) + (' ...' if len(reasons) > 5 else '')
        rows.append(
            {
                'name': f'{side} files left out',
                'value': len(reasons),
                'unit': 'files',
                'n': len(reasons) + len(found.files),
                'note': note,
                'model': model,
            }
        )
    if found.silent:
        say(
            f'{side}: {found.silent} of {len(found.files)} sounds are silent (below -60 dBFS); '
            'they are measured like the others'
        )
    if len(found.sample_rates) > 1:
        rates = ', '.join(map(str, found.sample_rates))
        say(f'{side}: sample rates {rates} Hz; every sound is brought to that of the embedder')
    return rows


def _too_few(side, generated, reference, found):
    folder = {'generated': generated, 'reference': reference}[side]
    first = found.left_out[0]
    return (
        f'{printable(folder)} holds {len(found.files)} readable sounds, {LEAST} or more are '
        f'needed; {printable(first[0].name)}: {first[1]}'
    )
