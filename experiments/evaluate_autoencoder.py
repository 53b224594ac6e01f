"""Held-back recordings through a release's autoencoder, beside Opus at two rates.

python -m experiments.evaluate_autoencoder --recordings=DIR --embedder_weights=DIR --workdir=DIR

With --autoencoder=FILE,FILE and --against=FILE each of the first is compared with the last, metric
by metric, each difference with a paired interval.
"""

import functools
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from experiments.common import run
from realaudio_jax.data.sources import Recordings
from realaudio_jax.io import resample
from realaudio_jax.metrics.codec.evaluator import CodecEvaluator
from realaudio_jax.metrics.codec.reconstruction import opus_level, opus_round_trip
from realaudio_jax.metrics.embedders.base import Embedder
from realaudio_jax.metrics.embedders.crepe import load_crepe
from realaudio_jax.metrics.embedders.registry import embedders_in, load_embedder
from realaudio_jax.metrics.embedders.tower import has_tower, load_tower
from realaudio_jax.models.autoencoder import Autoencoder, samples_per_latent
from realaudio_jax.release import (
    find_release,
    load_autoencoder,
)
from realaudio_jax.report.tables import tall_table, write_results
from realaudio_jax.training.loop import Progress
from realaudio_jax.typing import LATENT_RATE, MAX_SECONDS, MIN_SECONDS, SAMPLE_RATE, PyTree

_RELEASE = flags.DEFINE_string('release', 'foley', 'Name or folder of the release.')
_AUTOENCODER = flags.DEFINE_list(
    'autoencoder', None, "Files autoencoder.safetensors in place of the release's."
)
_AGAINST = flags.DEFINE_string('against', None, 'An autoencoder.safetensors to compare with.')
_RECORDINGS = flags.DEFINE_string('recordings', None, 'Folder of sounds.', required=True)
_WEIGHTS = flags.DEFINE_string(
    'embedder_weights',
    None,
    'Folder of the weights of embedders, each in a folder of its own: all found are used.',
)
_CLIPS = flags.DEFINE_integer('clips', 200, 'Recordings at most.', lower_bound=4)
_LOSSLESS = flags.DEFINE_bool(
    'lossless',
    False,
    'Only recordings stored without loss: the highest octaves of others are gone.',
)
_WORKDIR = flags.DEFINE_string('workdir', 'runs/evaluate_autoencoder', 'Where the tables go.')

RATES = (48_000, 44_100)
LENGTHS = (1, 2, 5, 10)  # s; recordings are padded to one of these, so few programs are compiled
LOSSLESS = ('.flac', '.wav', '.aif', '.aiff')
OPUS_TARGETS = (12, 24)  # kbit/s, of which it takes about 13 and 25; the first is its lowest
RESERVED = 'GPVAD'  # the embedder that no choice between designs may rest on


def held_back(recordings: str, count: int, lossless: bool = False) -> list[np.ndarray]:
    """Recordings kept out of training as stereo at 48 kHz, at most 10 s of each, evenly chosen."""
    source = Recordings(recordings, 'held_out')
    candidates = [
        i
        for i, record in enumerate(source.clips)
        if not lossless or pathlib.Path(record.file).suffix.lower() in LOSSLESS
    ]
    last = max(len(candidates) - 1, 0)
    chosen = np.unique(np.linspace(0, last, min(count, len(candidates))).astype(int))
    clips = []
    for i in (candidates[k] for k in chosen):
        audio = source.load(int(i), 0.0, MAX_SECONDS).audio
        if len(audio) >= MIN_SECONDS * SAMPLE_RATE:
            clips.append(audio if audio.ndim == 2 else np.repeat(audio[:, None], 2, axis=1))
    return clips


def load_codec(release, path):
    """A function (audio [S 2], sample rate) -> reconstruction [S 2]."""
    config, params = load_autoencoder(release, path)
    model = Autoencoder(**config.to_dict())

    @functools.partial(jax.jit, static_argnums=1)
    def through(audio, sample_rate):
        latents = model.apply(params, audio, sample_rate, method='encode')
        return model.apply(params, latents, sample_rate, method='decode')

    def reconstruct(audio, sample_rate):
        seconds = next(n for n in LENGTHS if n * sample_rate >= len(audio))
        samples = seconds * LATENT_RATE * samples_per_latent(sample_rate)
        padded = np.zeros((1, samples, 2), np.float32)
        padded[0, : len(audio)] = audio
        return np.clip(np.asarray(through(padded, sample_rate))[0, : len(audio)], -1.0, 1.0)

    return reconstruct


def load_evaluators(
    release: str, embedder_weights: str | None
) -> tuple[list[Embedder], PyTree | None]:
    """Every embedder at hand, the release's audio tower first, and CREPE's parameters or None."""
    folder = find_release(release)
    embedders = [load_tower(folder).embedder] if has_tower(folder) else []
    found = embedders_in(embedder_weights) if embedder_weights else {}
    embedders += [load_embedder(name, path) for name, path in found.items()]
    return embedders, load_crepe(found['crepe'])[0] if 'crepe' in found else None


def evaluate(
    release: str,
    autoencoders: Sequence[str] | None,
    recordings: str,
    embedder_weights: str | None,
    count: int,
    lossless: bool = False,
    against: str | None = None,
) -> list[dict]:
    """One row set for each of: real against real, each autoencoder at both rates, Opus."""
    embedders, crepe = load_evaluators(release, embedder_weights)
    codecs = {name: load_codec(release, path) for name, path in named(autoencoders).items()}
    clips = held_back(recordings, count, lossless)
    if len(clips) < 4:
        raise ValueError(f'{recordings} holds back {len(clips)} recordings; 4 or more are needed')
    rows, at_48 = [], {}
    passes = len(codecs) * len(RATES) + len(OPUS_TARGETS) + bool(against)
    with Progress(passes * len(clips), 'reconstruct') as progress:
        done = 0

        def counted(codec, rate):
            def call(audio):
                nonlocal done
                done = min(
                    done + 1, passes * len(clips)
                )  # the evaluator has a few sounds of its own
                progress.update(done)
                return codec(audio, rate)

            return call

        for rate in RATES:
            originals = [np.clip(resample(clip, SAMPLE_RATE, rate), -1, 1) for clip in clips]
            evaluator = CodecEvaluator(originals, rate, embedders, crepe)
            other = None
            if rate == SAMPLE_RATE:
                rows += evaluator.floor_rows()
            if rate == SAMPLE_RATE and against:
                other = evaluator.measure(counted(load_codec(release, against), rate))
                rows += _labelled(evaluator.rows(other), 'against', rate)
            for name, codec in codecs.items():
                measured = evaluator.measure(counted(codec, rate))
                rows += _labelled(evaluator.rows(measured), f'{name} {rate / 1000:g} kHz', rate)
                if other:
                    differences = evaluator.difference_rows(other, measured)
                    rows += _labelled(differences, f'{name} less against', rate)
                if rate == SAMPLE_RATE:
                    at_48[name] = measured
                else:
                    differences = evaluator.difference_rows(at_48[name], measured)
                    rows += _labelled(differences, f'{name} less 48 kHz', rate)
            if rate != SAMPLE_RATE:
                continue
            for target in OPUS_TARGETS:
                opus = Opus(target)
                found = evaluator.rows(evaluator.measure(counted(opus, rate)))
                rows += _labelled([*found, opus.bit_rate_row()], f'Opus, {target} kbit/s', rate)
    return [
        {'note': 'no choice rests on this embedder'} | row
        if row.get('embedder', '').startswith(RESERVED)
        else row
        for row in rows
    ]


def named(paths: Sequence[str] | None) -> dict[str, str | None]:
    """What tables call each autoencoder: the folder of its file, where there are several."""
    if not paths or len(paths) == 1:
        return {'autoencoder': paths[0] if paths else None}
    names = {pathlib.Path(path).absolute().parent.name: path for path in paths}
    if len(names) < len(paths):
        raise ValueError('--autoencoder: give files in folders of different names')
    return names


class Opus:
    """Opus at a target rate in kbit/s; remembers the rate that it took."""

    def __init__(self, target: int):
        self._level, self._kbit, self._samples = opus_level(target, 2), [], []

    def __call__(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        """The sound after Opus."""
        decoded, kbit_per_s = opus_round_trip(audio, sample_rate, self._level)
        self._kbit.append(kbit_per_s)
        self._samples.append(len(audio))
        return decoded

    def bit_rate_row(self) -> dict:
        """The mean rate so far."""
        mean = np.average(self._kbit, weights=self._samples)
        return {'name': 'bit rate', 'value': mean, 'unit': 'kbit/s', 'n': len(self._kbit)}


def _labelled(rows, model, sample_rate):
    return [row | {'model': model, 'sample_rate': sample_rate} for row in rows]


def main(argv):
    del argv
    rows = evaluate(
        _RELEASE.value,
        _AUTOENCODER.value,
        _RECORDINGS.value,
        _WEIGHTS.value,
        _CLIPS.value,
        _LOSSLESS.value,
        _AGAINST.value,
    )
    write_results(pathlib.Path(_WORKDIR.value), rows, 'Reconstruction of held-back recordings')
    print(tall_table(rows))


if __name__ == '__main__':
    run(main)
