"""What people do to sound, and what the watermark survives of it.

python -m experiments.evaluate_watermark --workdir=DIR --recordings=DIR
"""

import pathlib
import time

import jax
import numpy as np
from absl import flags

from experiments.common import run, say
from realaudio_jax import audio as audio_lib
from realaudio_jax.cache import enable_compilation_cache
from realaudio_jax.generator import Generator, load
from realaudio_jax.metrics.edits import EDITS, Edit, has_ffmpeg
from realaudio_jax.models.autoencoder import samples_per_latent
from realaudio_jax.release import AUTOENCODER_NAME
from realaudio_jax.report.tables import wide_table, write_results
from realaudio_jax.sound_files import find_sounds, read_audio
from realaudio_jax.typing import SAMPLE_RATE
from realaudio_jax.vocabulary import load_vocabulary
from realaudio_jax.watermark import Watermark
from realaudio_jax.watermark_detection import FALSE_ALARM, Detector

_RELEASE = flags.DEFINE_string('release', 'foley', 'Name or folder.')
_SOUNDS = flags.DEFINE_integer('sounds', 40, 'Marked sounds of each duration.', lower_bound=1)
_SECONDS = flags.DEFINE_list('seconds', ['10', '3'], 'Durations, 0.5 to 10 s.')
_SEED = flags.DEFINE_integer('seed', 1, 'Of keys, payloads, labels and noise.')
_WRONG_KEYS = flags.DEFINE_integer('wrong_keys', 100, 'Marked sounds that are tried with others.')
_RECORDINGS = flags.DEFINE_string('recordings', None, 'Folder of sounds without a mark.')
_UNMARKED = flags.DEFINE_integer('unmarked', 100, 'Recordings that are judged, at most.')
_REPEATS = flags.DEFINE_integer('repeats', 9, 'Timed calls of the program; 0 leaves cost out.')
_WORKDIR = flags.DEFINE_string('workdir', 'runs/watermark', 'Folder of the results.')


def labels_of(generator: Generator, count: int, rng: np.random.Generator) -> list[str]:
    """Labels of the release's training sounds, drawn without order."""
    vocabulary = load_vocabulary(generator.folder)
    if vocabulary is None:
        raise ValueError(f'{generator.folder} lists no labels to generate')
    return [vocabulary.labels[i] for i in rng.permutation(len(vocabulary.labels))[:count]]


def marked_sounds(
    generator: Generator, key: bytes, seconds: float, count: int, rng: np.random.Generator
) -> list[tuple[str, int, np.ndarray]]:
    """(label, payload, float32 [S, 2]) of `count` sounds; a label that stays silent is passed."""
    sounds = []
    for label in labels_of(generator, 2 * count, rng):
        payload, seed = int(rng.integers(2**32)), int(rng.integers(2**31))
        marking = generator.with_watermark(Watermark(key, payload))
        try:
            sound = marking.generate(label, seconds=seconds, seed=seed)
        except ValueError:  # silent with every seed
            continue
        sounds.append((label, payload, sound.audio))
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
    columns = {'edit': edit.name, 'seconds': seconds, 'n': len(sounds)}
    return [
        {'name': 'found', 'value': 100.0 * present.mean(), 'unit': '%'} | columns,
        {'name': 'payload exact', 'value': 100.0 * exact.mean(), 'unit': '%'} | columns,
        {'name': 'score, median', 'value': float(np.median(score)), 'unit': ''} | columns,
        {'name': 'score, least', 'value': float(score.min()), 'unit': ''} | columns,
    ]


def null_rows(kind: str, p_values: list[float]) -> list[dict]:
    """False alarms, and how often p-values are as small as they say."""
    p, columns = np.array(p_values), {'edit': kind, 'n': len(p_values)}
    limits = (FALSE_ALARM, 0.01, 0.1)
    return [
        {'name': f'p below {x:g}', 'value': 100.0 * float((p < x).mean()), 'unit': '%'} | columns
        for x in limits
    ] + [{'name': 'least p', 'value': float(p.min()), 'unit': ''} | columns]


def cost_rows(generator: Generator, seconds: float, repeats: int) -> list[dict]:
    """Time of a call with the mark and without, turn about; ms."""
    calls = {'marked': generator, 'not marked': generator.with_watermark(None)}
    prepared = {name: g.prepare('steady rain', seconds=seconds) for name, g in calls.items()}
    times = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, g in calls.items():
            start = time.perf_counter()
            g.run(prepared[name])
            if turn:
                times[name].append(1e3 * (time.perf_counter() - start))
    return [
        {'name': 'time of a call', 'value': float(np.median(taken)), 'unit': 'ms', 'n': repeats}
        | {'edit': name, 'seconds': seconds}
        for name, taken in times.items()
    ]


def main(argv):
    del argv
    enable_compilation_cache()
    rng = np.random.default_rng(_SEED.value)
    key = rng.bytes(32)
    generator = load(_RELEASE.value)
    autoencoder = generator.folder / AUTOENCODER_NAME
    detector, rows = Detector(key, autoencoder), []
    workdir = pathlib.Path(_WORKDIR.value)
    edits = [*EDITS, own_codec(generator)]
    for edit in [edit for edit in edits if edit.ffmpeg and not has_ffmpeg()]:
        say(f'{edit.name}: left out, there is no ffmpeg')
        edits.remove(edit)
    of_all = []
    for seconds in map(float, _SECONDS.value):
        sounds = marked_sounds(generator, key, seconds, _SOUNDS.value, rng)
        of_all += sounds
        for edit in edits:
            rows += edit_rows(edit, seconds, sounds, detector, rng)
            found, exact = rows[-4]['value'], rows[-3]['value']
            least = rows[-1]['value']
            say(f'{seconds:g} s, {edit.name}: {found:.0f}%, {exact:.0f}%, least {least:.1f}')
            write_results(workdir, rows, 'watermark')
    wrong = []
    for i in range(_WRONG_KEYS.value):
        other = Detector(rng.bytes(32), autoencoder)
        wrong.append(other(of_all[i % len(of_all)][2], SAMPLE_RATE).p_value)
    if wrong:
        rows += null_rows('wrong keys', wrong)
    if _RECORDINGS.value:
        paths = list(find_sounds(_RECORDINGS.value).sounds)
        rng.shuffle(paths)
        unmarked = []
        for path in paths[: _UNMARKED.value]:
            result = detector(read_audio(path)[: 10 * SAMPLE_RATE], SAMPLE_RATE)
            if result.present is not None:
                unmarked.append(result.p_value)
        rows += null_rows('recordings', unmarked)
    if _REPEATS.value:
        rows += cost_rows(generator, float(_SECONDS.value[0]), _REPEATS.value)
    write_results(workdir, rows, 'watermark')
    say(wide_table(rows))


if __name__ == '__main__':
    run(main)
