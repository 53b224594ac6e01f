"""Sound of any length: its seams, drift, onsets, memory, time, and how soon an edit is heard.

python -m experiments.evaluate_longform --embedder_weights=DIR

A run that was stopped goes on where it was: measurements lie in the workdir.
"""

import pathlib
import time
from collections.abc import Callable, Sequence

import numpy as np
from absl import flags

from experiments.common import Measurements, run, say
from realaudio_jax.audio import from_pcm16
from realaudio_jax.cache import enable_compilation_cache
from realaudio_jax.generator import Generator, load
from realaudio_jax.longform import AHEAD, Schedule, ring_parts
from realaudio_jax.memory import resident_bytes
from realaudio_jax.metrics.bootstrap import paired_bootstrap
from realaudio_jax.metrics.embedders.base import Embedder, embed_clips
from realaudio_jax.metrics.embedders.registry import load_evaluators
from realaudio_jax.metrics.frechet import GaussianStatistics, frechet_difference, frechet_distance
from realaudio_jax.metrics.onsets import onset_errors, summarise_onsets
from realaudio_jax.metrics.rows import (
    FRECHET_DISTANCE,
    ONSET_MEDIAN,
    ONSETS_NEAR,
    difference_row,
    mean_row,
    statistic_row,
)
from realaudio_jax.metrics.seams import STEP_S, seam_flux, spectral_step
from realaudio_jax.report.tables import write_results
from realaudio_jax.typing import LATENT_RATE, SAMPLE_RATE

_RELEASE = flags.DEFINE_string('release', 'foley', 'Name or folder.')
_AMBIENCES = flags.DEFINE_integer('ambiences', 8, 'Of which seams are measured.', 1, 8)
_SECONDS = flags.DEFINE_float('seconds', 20.0, 'Of each sound with seams, and of each loop.', 11)
_MINUTES = flags.DEFINE_integer('minutes', 10, 'Of sound, for drift and memory; 0: none.', 0)
_DRIFT = flags.DEFINE_integer('drift_ambiences', 4, 'Of which as many minutes are made.', 1, 8)
_EVENTS = flags.DEFINE_integer('events', 6, 'Sounds of events about seams; 0: none.', 0, 6)
_CHUNKS = flags.DEFINE_integer('chunks', 60, 'Timed chunks; 0: no times.', 0)
_WEIGHTS = flags.DEFINE_string('embedder_weights', None, "Folder of YAMNet's weights, beside.")
_SEED = flags.DEFINE_integer('seed', 1, 'Of all sounds.', 0)
_WORKDIR = flags.DEFINE_string('workdir', 'runs/longform', 'Folder of the results.')

AMBIENCES = (
    'rain',
    'wind',
    'sea waves',
    'crickets at night',
    'fire crackling',
    'a stream flows',
    'crowd noise',
    'engine running',
)
EVENTS = ('dog bark', 'door slam', 'gunshot', 'glass breaking', 'knock on wood', 'hammer on metal')
UNCUT = 4  # sounds of 10 s of each ambience
STEPS = 4  # of the sampler, as `generate` takes them
APART_S = 2.0  # between events
OFFSETS_S = (-0.3, -0.1, -0.04, 0.0, 0.04, 0.1, 0.3)  # of events from a seam
FLUX, STEP = 'flux over the median', 'spectral step'


def seams_of(schedule: Schedule, seconds: float) -> np.ndarray:
    """Seconds at which a window takes over from the one before, away from the ends."""
    first = schedule.first_hops * schedule.hop + AHEAD
    times = np.arange(first, seconds * LATENT_RATE, schedule.hop) / LATENT_RATE
    return times[(times > 2 * STEP_S) & (times < seconds - 2 * STEP_S)]


def streamed(generator: Generator, label: str, seconds: float, seed: int, **given) -> np.ndarray:
    """The chunks of a stream side by side."""
    chunks = generator.stream(label, seconds=seconds, seed=seed, **given)
    return from_pcm16(np.concatenate([chunk.pcm for chunk in chunks]))


def seam_means(generator: Generator, label: str, seconds: float, seed: int) -> dict:
    """Mean flux and step of each kind of place in the sounds of an ambience.

    All places lie between latent frames, each of which has a texture of its own.
    """
    times = seams_of(Schedule(), seconds)
    frame = SAMPLE_RATE // LATENT_RATE
    made = streamed(generator, label, seconds, seed)
    uncut = [generator.generate(label, seconds=10.0, seed=seed + i).audio for i in range(UNCUT)]
    joined = [
        np.concatenate([a[: -13 * frame], b[13 * frame :]])  # without what fades
        for a, b in zip(uncut[::2], uncut[1::2], strict=True)
    ]
    loop = generator.generate(label, seconds=round(seconds / 0.2) * 0.2, seed=seed, loop=True).audio
    half = len(loop) // 2 / SAMPLE_RATE
    loop = np.roll(loop, len(loop) // 2, axis=0)
    parts = ring_parts(round(2 * half * LATENT_RATE), Schedule().window, STEPS - 1)
    met = (np.array([first for first, _ in parts]) / LATENT_RATE + half) % (2 * half)
    met = met[np.abs(met - half) < half - 2 * STEP_S]
    elsewhere = np.arange(1.0, 2 * half - 1.0)
    apart = np.abs(elsewhere[:, None] - [half, *met])
    elsewhere = elsewhere[np.min(apart, axis=1) > 2 * STEP_S]
    places = {
        'seams': [(made, times)],
        'between seams': [(made, times[1:] - Schedule().hop // 2 / LATENT_RATE)],
        'uncut': [(sound, np.arange(25, 238, 12) / LATENT_RATE) for sound in uncut],
        'joined': [(sound, [10.0 - 13 / LATENT_RATE]) for sound in joined],
        'join of a loop': [(loop, [half])],
        'where windows of a loop meet': [(loop, met)],
        'elsewhere in a loop': [(loop, elsewhere)],
    }
    return {
        place: [
            float(np.mean(np.concatenate([measure(x, SAMPLE_RATE, at) for x, at in sounds])))
            for measure in (seam_flux, spectral_step)
        ]
        for place, sounds in places.items()
    }


def seam_rows(found: Sequence[dict]) -> list[dict]:
    """Means over ambiences, and differences to uncut sounds."""
    rows = []
    for place in found[0]:
        for i, (name, unit) in enumerate(((FLUX, ''), (STEP, 'dB'))):
            values, uncut = ([of[p][i] for of in found] for p in (place, 'uncut'))
            rows.append(mean_row(name, values, unit) | {'place': place})
            if place != 'uncut':
                against = paired_bootstrap(lambda x: float(np.mean(x)), values, uncut)
                rows.append(difference_row(name, 'uncut', against, unit) | {'place': place})
    return rows


def first_and_last_minute(
    generator: Generator, embedders: Sequence[Embedder], label: str, minutes: int, seed: int
) -> dict:
    """Vectors of the first minute, of the last, and of uncut sounds; memory after each minute."""
    kept = {0: [], minutes - 1: []}
    memory = []
    for chunk in generator.stream(label, seconds=60.0 * minutes, seed=seed):
        minute = int(chunk.start_s // 60)
        if len(memory) < minute:
            memory.append(resident_bytes())
        if minute in kept:
            kept[minute].append(chunk.pcm)
    memory.append(resident_bytes())
    sets = [
        np.array_split(from_pcm16(np.concatenate(kept[minute])), 6) for minute in (0, minutes - 1)
    ]
    sets.append(
        [generator.generate(label, seconds=10.0, seed=seed + 1 + i).audio for i in range(6)]
    )
    vectors = {
        embedder.name: [
            [np.round(clip, 5).tolist() for clip in embed_clips(embedder, clips, SAMPLE_RATE)]
            for clips in sets
        ]
        for embedder in embedders
    }
    say(f'{label}: {minutes} minutes, {memory[0] / 1e6:.0f} to {memory[-1] / 1e6:.0f} MB')
    return {'memory': memory, 'vectors': vectors}


def drift_rows(found: Sequence[dict], minutes: int) -> list[dict]:
    """Distance of the first and the last minute to uncut sounds, and of halves of minutes."""
    rows = []
    for embedder in found[0]['vectors']:
        first, last, real = (
            [np.array(clip) for of in found for clip in of['vectors'][embedder][i]]
            for i in range(3)
        )
        whole = [GaussianStatistics.stream(clips) for clips in (real, first, last)]
        distances = [frechet_distance(whole[0], each) for each in whole[1:]]
        difference = frechet_difference(real, first, last)
        # Three clips of ten seconds each, so that all sets are of one size.
        parts = [
            [
                GaussianStatistics.stream([c for i, c in enumerate(clips) if i % 6 // 3 == half])
                for half in range(2)
            ]
            for clips in (first, last)
        ]
        within = np.mean([frechet_distance(*of) for of in parts])
        between = np.mean([frechet_distance(a, b) for a in parts[0] for b in parts[1]])
        columns = {'embedder': embedder, 'n': len(first)}
        name = f'{FRECHET_DISTANCE} to uncut sounds'
        rows += [
            {'name': name, 'value': distances[0], 'place': 'minute 1'} | columns,
            {'name': name, 'value': distances[1], 'place': f'minute {minutes}'} | columns,
            difference_row(name, 'minute 1', difference)
            | {'place': f'minute {minutes}', 'embedder': embedder},
            {'name': 'ratio of these', 'value': distances[1] / distances[0]} | columns,
            {
                'name': f'{FRECHET_DISTANCE} of halves of two minutes over that of halves of one',
                'value': between / within,
            }
            | columns,
        ]
    memory = np.array([of['memory'] for of in found]) / 1e6
    rows += [
        {'name': 'resident memory', 'value': float(memory[:, i].mean()), 'unit': 'MB'}
        | {'n': len(found), 'place': f'after minute {i % minutes + 1}'}
        for i in (0, -1)
    ]
    rows.append(
        {'name': 'growth after minute 1', 'value': float((memory[:, -1] - memory[:, 0]).max())}
        | {'unit': 'MB', 'n': len(found)}
    )
    return rows


def onset_pair(generator: Generator, text: str, seed: int) -> dict:
    """Errors in ms of events about seams, and of the same events in sounds of 10 s."""
    seams = seams_of(Schedule(), 2 + len(OFFSETS_S) * APART_S)
    onsets = seams[:: round(APART_S)][: len(OFFSETS_S)] + OFFSETS_S
    events = [(text, float(t), float(t) + 0.4) for t in onsets]
    made = streamed(generator, '', float(np.ceil(onsets[-1] + 1.5)), seed, events=events)
    errors = {'across seams': list(onset_errors(made, SAMPLE_RATE, onsets))}
    alone = []
    for several in np.array_split(onsets, 2):
        shifted = several - several[0] + onsets[0]
        events = [(text, float(t), float(t) + 0.4) for t in shifted]
        made = generator.generate('', events, seconds=10.0, seed=seed).audio
        alone += list(onset_errors(made, SAMPLE_RATE, shifted))
    errors['in sounds of 10 s'] = alone
    return {place: [None if np.isnan(e) else e for e in found] for place, found in errors.items()}


def onset_rows(found: Sequence[dict]) -> list[dict]:
    """Median, share within 50 ms and share missed over all events."""
    rows = []
    for place in found[0]:
        clips = [np.array(of[place], float) for of in found]

        def of(pick: Callable) -> Callable:
            return lambda drawn: pick(summarise_onsets(np.concatenate(drawn)))

        for name, unit, pick in (
            (ONSET_MEDIAN, 'ms', lambda s: s.median_ms),
            (ONSETS_NEAR, '%', lambda s: 100 * s.hit_rate[50]),
            ('onsets missed', '%', lambda s: 100 * s.missed),
        ):
            row = statistic_row(name, of(pick), clips, unit)
            rows.append(row | {'n': sum(map(len, clips)), 'place': place})
    return rows


def time_rows(generator: Generator, chunks: int, seed: int) -> list[dict]:
    """From a call with a text that is new to its first chunk, and from chunk to chunk; ms."""
    first, each = [], []
    for attempt in range(max(2, chunks // 4)):
        begin = time.perf_counter()
        stream = generator.stream(f'{AMBIENCES[0]}, take {attempt}', seed=seed + attempt)
        chunk = next(stream)
        if attempt:  # the first compiles
            first.append(1e3 * (time.perf_counter() - begin))
    next(stream)
    for _ in range(chunks):
        begin = time.perf_counter()
        chunk = next(stream)
        each.append(1e3 * (time.perf_counter() - begin))
    p95 = float(np.quantile(each, 0.95))
    return [
        {'name': 'first audio', 'value': float(np.median(first)), 'unit': 'ms', 'n': len(first)}
        | {'p95': float(np.quantile(first, 0.95))},
        {'name': 'a chunk', 'value': float(np.median(each)), 'unit': 'ms', 'n': chunks, 'p95': p95},
        {'name': 'p95 of a chunk over its length', 'value': p95 / chunk.seconds / 1e3, 'n': chunks},
    ]


def edit_delay(generator: Generator, label: str, event: str, seed: int) -> dict:
    """How long after the earliest time that may be edited an edit changes the sound, and its onset.

    The event is put where editing begins, beside a stream that is not edited.
    """
    playing, other = (generator.stream(label, seconds=12.0, seed=seed) for _ in range(2))
    pcm, at = [], None
    for index, chunk in enumerate(playing):
        pcm.append(chunk.pcm)
        if index == 3:
            at = playing.editable_s
            playing.edit([(event, at + 0.04, at + 0.54)])
            heard = chunk.start_s + chunk.seconds
    edited = np.concatenate(pcm)
    plain = np.concatenate([chunk.pcm for chunk in other])
    differs = np.flatnonzero(np.abs(edited.astype(int) - plain).max(axis=1) > 64)  # -54 dBFS
    error = onset_errors(from_pcm16(edited), SAMPLE_RATE, [at + 0.04])[0]
    return {
        'editable': 1e3 * (at - heard),
        'change': 1e3 * (differs[0] / SAMPLE_RATE - at) if len(differs) else None,
        'onset': None if np.isnan(error) else error,
    }


def edit_rows(found: Sequence[dict]) -> list[dict]:
    """Medians over ambiences; ms."""
    names = {
        'editable': 'from the end of the last chunk to what may be edited',
        'change': 'from there to the first change',
        'onset': 'onset error of an event put in',
    }
    rows = []
    for key, name in names.items():
        values = np.array([of[key] for of in found if of[key] is not None])
        if len(values):
            row = {'name': name, 'value': float(np.median(values)), 'unit': 'ms', 'n': len(values)}
            rows.append(row | {'low': float(values.min()), 'high': float(values.max())})
    return rows


def main(argv):
    del argv
    enable_compilation_cache()
    workdir, seed, minutes = pathlib.Path(_WORKDIR.value), _SEED.value, _MINUTES.value
    measured = Measurements(workdir / 'measured', {'release': _RELEASE.value, 'seed': seed})
    generator = load(_RELEASE.value)
    tower, embedders = load_evaluators(generator.folder, _WEIGHTS.value)
    embedders = ([tower.embedder] if tower else []) + embedders
    rows, labels = [], AMBIENCES[: _AMBIENCES.value]
    found = []
    for label in labels:
        name = f'seams of {label} {_SECONDS.value:g} s'
        found.append(measured(name, seam_means, generator, label, _SECONDS.value, seed))
        say(f'{label}: {", ".join(f"{k} {v[0]:.2f} {v[1]:.1f} dB" for k, v in found[-1].items())}')
    rows += seam_rows(found)
    if texts := EVENTS[: _EVENTS.value]:
        found = [measured(f'onsets of {text}', onset_pair, generator, text, seed) for text in texts]
        rows += onset_rows(found)
        found = [
            measured(f'edit of {label}', edit_delay, generator, label, text, seed)
            for label, text in zip(labels, texts, strict=False)
        ]
        rows += edit_rows(found)
    if minutes:
        found = []
        for label in AMBIENCES[: _DRIFT.value]:
            args = generator, embedders, label, minutes, seed
            found.append(measured(f'{minutes} minutes of {label}', first_and_last_minute, *args))
        rows += drift_rows(found, minutes)
    if _CHUNKS.value:
        rows += measured('times', time_rows, generator, _CHUNKS.value, seed)
    rows = [{'unit': ''} | row | {'seed': seed} for row in rows]
    _, table = write_results(workdir, rows, 'Sound of any length')
    say(table.read_text(encoding='utf-8'))


if __name__ == '__main__':
    run(main)
