"""What people do to sound, and what the watermark survives of it.

python -m experiments.evaluate_watermark --recordings=DIR

A run that was stopped goes on where it was: measurements lie in the workdir.
"""

import functools
import pathlib
import time
import zlib
from collections.abc import Callable

import jax
import numpy as np
import soundfile
from absl import flags

from experiments.common import Measurements, listed, run, say
from realaudio_jax import audio as audio_lib
from realaudio_jax.cache import enable_compilation_cache
from realaudio_jax.generator import Generator, load
from realaudio_jax.metrics.bootstrap import paired_bootstrap
from realaudio_jax.metrics.edits import EDITS, Edit, has_ffmpeg
from realaudio_jax.metrics.embedders.registry import load_evaluators
from realaudio_jax.metrics.evaluation.generate import SamplerConfig, generate_scenes
from realaudio_jax.metrics.evaluation.scenes import SceneEvaluator, held_out_scenes
from realaudio_jax.metrics.rows import (
    FRECHET_DISTANCE,
    ONSET_MEDIAN,
    ONSETS_NEAR,
    difference_row,
    share_row,
)
from realaudio_jax.models.autoencoder import samples_per_latent
from realaudio_jax.release import AUTOENCODER_NAME
from realaudio_jax.report.tables import wide_table, write_results
from realaudio_jax.sound_files import find_sounds, read_audio
from realaudio_jax.typing import SAMPLE_RATE
from realaudio_jax.vocabulary import load_vocabulary
from realaudio_jax.watermark import Watermark, said_halves
from realaudio_jax.watermark_detection import FALSE_ALARM, MIN_SECONDS, Detector

_RELEASE = flags.DEFINE_string('release', 'foley', 'Name or folder.')
_SOUNDS = flags.DEFINE_integer('sounds', 100, 'Marked sounds of each duration.', lower_bound=1)
_SECONDS = flags.DEFINE_list('seconds', ['10', '3'], 'Durations, 0.5 to 10 s.')
_SEED = flags.DEFINE_integer('seed', 1, 'Of keys, payloads, labels and noise.', 0)
_WRONG_KEYS = flags.DEFINE_integer(
    'wrong_keys', 150, 'That sounds of each duration are tried with.', 0
)
_UNMARKED = flags.DEFINE_integer('unmarked', 100, 'Sounds of each duration that carry no mark.', 0)
_RECORDINGS = flags.DEFINE_string('recordings', None, 'Folder of sounds without a mark.')
_STRETCHES = flags.DEFINE_integer('stretches', 3000, 'Of 3 s of them that are tried, at most.', 0)
_SCENES = flags.DEFINE_integer(
    'scenes', 64, 'Held-out scenes that are made with the mark and without; 0: none.', 0
)
_WEIGHTS = flags.DEFINE_string('embedder_weights', None, 'Folder of YAMNet weights, beside.')
_REPEATS = flags.DEFINE_integer('repeats', 25, 'Timed calls of the program; 0: none.', 0)
_WORKDIR = flags.DEFINE_string('workdir', 'runs/watermark', 'Folder of the results.')

NULL_S = 3.0  # of a stretch of a recording
_AT_ONCE = 100  # stretches in a measurement


def labels_of(generator: Generator, count: int, rng: np.random.Generator) -> list[str]:
    """Labels of the release's training sounds, drawn without order."""
    vocabulary = load_vocabulary(generator.folder)
    if vocabulary is None:
        raise ValueError(f'{generator.folder} lists no labels to generate')
    return [vocabulary.labels[i] for i in rng.permutation(len(vocabulary.labels))[:count]]


def marked_sounds(
    generator: Generator, key: bytes | None, seconds: float, count: int, rng: np.random.Generator
) -> list[tuple[str, int, np.ndarray]]:
    """(label, payload, float32 [S, 2]) of `count` sounds; a label that stays silent is passed.

    Without a key they carry no mark, and are otherwise drawn alike. The payload is what can be
    read: the low 16 bits of a sound that a program of less than 3 s makes.
    """
    sounds = []
    for label in labels_of(generator, 2 * count, rng):
        payload, seed = int(rng.integers(2**32)), int(rng.integers(2**31))
        marking = generator.with_watermark(Watermark(key, payload) if key else None)
        try:
            sound = marking.generate(label, seconds=seconds, seed=seed)
        except ValueError:  # silent with every seed
            continue
        bits = 16 * said_halves(marking.prepare(label, seconds=seconds).bucket.length)
        sounds.append((label, payload % 2**bits, sound.audio))
        if len(sounds) == count:
            break
    return sounds


def own_codec(generator: Generator) -> Edit:
    """Through the release's autoencoder, which draws other textures."""
    model, params = generator.networks.autoencoder, generator.params['autoencoder']

    @jax.jit
    def through(params, audio):
        latents = model.apply(params, audio, SAMPLE_RATE, method='encode')
        decoded = model.apply(params, latents, SAMPLE_RATE, method='decode')
        return audio_lib.limit(decoded, SAMPLE_RATE)

    def apply(audio, rate, rng):
        block = 2 * samples_per_latent(rate)
        padded = np.pad(audio, [(0, -len(audio) % block), (0, 0)])
        return np.asarray(through(params, padded[None]))[0, : len(audio)], rate

    return Edit('own codec', apply)


def edit_rows(
    edit: Edit, seconds: float, sounds: list, detector: Detector, rng: np.random.Generator
) -> list[dict]:
    """How many sounds are found after an edit, and of how many the payload is read."""
    found = []
    for _, payload, audio in sounds:
        result = detector(*edit.apply(audio, SAMPLE_RATE, rng))
        found.append((bool(result.present), result.payload == payload, result.score))
    present, exact, score = map(np.array, zip(*found, strict=True))
    columns = {'edit': edit.name, 'seconds': seconds}
    say(
        f'{seconds:g} s, {edit.name}: {100 * present.mean():.0f}% found, {100 * exact.mean():.0f}% '
        f'exact, least score {score.min():.1f}'
    )
    lost = '; '.join(sound[0] for sound, is_found in zip(sounds, present, strict=True) if ~is_found)
    rows = [
        share_row('found', present) | ({'note': f'lost: {lost}'} if lost else {}),
        share_row('payload exact', exact),
        {'name': 'score, median', 'value': float(np.median(score)), 'n': len(sounds)},
        {'name': 'score, least', 'value': float(score.min()), 'n': len(sounds)},
    ]
    return [row | columns for row in rows]


def null_rows(kind: str, p_values: list[float]) -> list[dict]:
    """How often p-values of sounds without the mark are as small as they say, and the least."""
    p = np.array(p_values)
    rows = [share_row(f'p below {x:g}', p < x) for x in (FALSE_ALARM, 0.01, 0.1, 0.5)]
    rows.append({'name': 'least p', 'value': float(p.min()), 'n': len(p)})
    return [row | {'edit': kind} for row in rows]


def stretches(folder: str) -> list[tuple[pathlib.Path, int]]:
    """Each stretch of `NULL_S` in a folder of sounds, as file and number; files without order."""
    paths = list(find_sounds(folder).sounds)
    np.random.default_rng(0).shuffle(paths)
    found = []
    for path in paths:
        count = int((soundfile.info(path).duration - MIN_SECONDS) / NULL_S + 1)
        found += [(path, i) for i in range(count)]
    return found


def cost_rows(generator: Generator, seconds: float, repeats: int) -> list[dict]:
    """Time of a call with the mark and without, turn about, and their difference; ms."""
    calls = {'marked': generator, 'not marked': generator.with_watermark(None)}
    prepared = {name: g.prepare('steady rain', seconds=seconds) for name, g in calls.items()}
    times = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, g in calls.items():
            start = time.perf_counter()
            g.run(prepared[name])
            if turn:
                times[name].append(1e3 * (time.perf_counter() - start))
    name = 'time of a call'
    rows = [
        {'name': name, 'value': float(np.median(taken)), 'unit': 'ms', 'n': repeats, 'edit': edit}
        for edit, taken in times.items()
    ]
    found = paired_bootstrap(lambda x: float(np.median(x)), *times.values())
    rows.append(difference_row(name, 'not marked', found, 'ms') | {'edit': 'marked'})
    return [row | {'seconds': seconds} for row in rows]


def quality_rows(generator: Generator, mark: Watermark, count: int, seed: int) -> list[dict]:
    """Distances and onsets of the same scenes from the same noise, with the mark and without."""
    scenes, _ = held_out_scenes(_RECORDINGS.value, count, 10.0, seed)
    tower, embedders = load_evaluators(generator.folder, _WEIGHTS.value)
    evaluator = SceneEvaluator(scenes, tower, embedders, seed=seed)
    rows, measured = [], {}
    for name, given in (('marked', mark), ('not marked', None)):
        sounds = generate_scenes(
            generator.with_watermark(given), scenes, SamplerConfig('student', 4), seed
        )
        measured[name] = evaluator.measure(sounds.floats())
        rows += evaluator.rows(measured[name], {'edit': name})
    marked, other = measured.values()
    differences = evaluator.differences(marked, other, 'not marked', {'edit': 'marked'})
    wanted = (FRECHET_DISTANCE, ONSET_MEDIAN, ONSETS_NEAR)
    rows = [row for row in rows if row['name'] in wanted]
    rows += [row for row in differences if row['figure'] in wanted]
    return rows


class Evaluation:
    """Marked and unmarked sounds of one key, and what the detector says of them.

    Args:
        generator: the release.
        count: of marked sounds of a duration.
        seed: of key, labels, payloads, noise of edits.
    """

    def __init__(self, generator: Generator, count: int, seed: int):
        self.generator, self.count, self._seed = generator, count, seed
        self.key = np.random.default_rng(seed).bytes(32)
        self.autoencoder = generator.folder / AUTOENCODER_NAME
        self.detector = Detector(self.key, self.autoencoder)
        self.sounds = functools.cache(self._sounds)
        self._read = functools.lru_cache(1)(read_audio)
        self.stretches = functools.cache(lambda: stretches(_RECORDINGS.value)[: _STRETCHES.value])

    def _rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self._seed, zlib.crc32(name.encode())])

    def _sounds(self, seconds: float, is_marked: bool = True) -> list:
        """Of these the unmarked ones are of other labels and seeds."""
        key, count = (self.key, self.count) if is_marked else (None, _UNMARKED.value)
        rng = self._rng(f'{"" if is_marked else "un"}marked {seconds:g}')
        return marked_sounds(self.generator, key, seconds, count, rng)

    def edit(self, edit: Edit, seconds: float) -> list[dict]:
        """Rows of one edit of sounds of one duration."""
        rng = self._rng(f'{seconds:g} s {edit.name}')
        return edit_rows(edit, seconds, self.sounds(seconds), self.detector, rng)

    def wrong_key(self, seconds: float, i: int) -> float:
        """p-value of a marked sound and another key, the i-th."""
        sounds = self.sounds(seconds)
        other = Detector(self._rng(f'wrong key {seconds:g} {i}').bytes(32), self.autoencoder)
        return other(sounds[i % len(sounds)][2], SAMPLE_RATE).p_value

    def unmarked(self, seconds: float, i: int) -> float:
        """p-value of the i-th sound that is made without a mark."""
        return self.detector(self.sounds(seconds, False)[i][2], SAMPLE_RATE).p_value

    def recording(self, seconds: float, i: int) -> float | None:
        """p-value of the i-th stretch of a recording; None where it is too short or silent."""
        path, number = self.stretches()[i]
        size = round(seconds * SAMPLE_RATE)
        found = self.detector(self._read(path)[number * size :][:size], SAMPLE_RATE)
        return None if found.present is None else found.p_value

    def nulls(
        self, kind: str, p_value: Callable, seconds: float, count: int, measured: Measurements
    ) -> list[dict]:
        """Rows of `count` sounds without the mark."""
        p_values = []
        for first in range(0, count, _AT_ONCE):
            several = list(range(first, min(first + _AT_ONCE, count)))
            name = f'{kind} {seconds:g} s {first} {len(several)}'
            p_values += measured(name, lambda s: [p_value(seconds, i) for i in s], several)
            say(f'{kind}, {seconds:g} s: {first + len(several)} of {count}')
        p_values = [p for p in p_values if p is not None]
        rows = null_rows(kind, p_values) if p_values else []
        return [row | {'seconds': seconds} for row in rows]


def main(argv):
    del argv
    enable_compilation_cache()
    workdir, durations = pathlib.Path(_WORKDIR.value), listed(_SECONDS, float)
    settings = {'release': _RELEASE.value, 'sounds': _SOUNDS.value, 'seed': _SEED.value}
    measured = Measurements(workdir / 'measured', settings)
    generator = load(_RELEASE.value)
    trial = Evaluation(generator, _SOUNDS.value, _SEED.value)
    rows = []
    for seconds in durations:
        for edit in (*EDITS, own_codec(generator)):
            if edit.ffmpeg and not has_ffmpeg():
                say(f'{edit.name}: left out, there is no ffmpeg')
                continue
            rows += measured(f'{seconds:g} s {edit.name}', trial.edit, edit, seconds)
    nulls = [
        (kind, p_value, seconds, count)
        for kind, p_value, count in (
            ('wrong keys', trial.wrong_key, _WRONG_KEYS.value),
            ('sounds not marked', trial.unmarked, _UNMARKED.value),
        )
        for seconds in durations
    ]
    if _RECORDINGS.value:
        nulls.append(('recordings', trial.recording, NULL_S, len(trial.stretches())))
    for kind, p_value, seconds, count in nulls:
        if count:
            rows += trial.nulls(kind, p_value, seconds, count, measured)
    if count := _SCENES.value:
        mark = Watermark(trial.key)
        rows += measured(f'{count} scenes', quality_rows, generator, mark, count, _SEED.value)
    if _REPEATS.value:
        rows += measured('cost', cost_rows, generator, durations[0], _REPEATS.value)
    rows = [{'unit': ''} | row | {'seed': _SEED.value} for row in rows]
    write_results(workdir, rows, 'The watermark')
    say(wide_table(rows))


if __name__ == '__main__':
    run(main)
