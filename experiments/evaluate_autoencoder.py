"""Held-back recordings through a release's autoencoder, beside Opus at several rates.

python -m experiments.evaluate_autoencoder --recordings=DIR --embedder_weights=DIR --workdir=DIR
"""

import functools
import pathlib

import jax
import numpy as np
from absl import flags

from experiments.common import run
from realaudio_jax.components import AUTOENCODER_NAME, autoencoder_template, find_release
from realaudio_jax.data.sources import Recordings
from realaudio_jax.io import resample
from realaudio_jax.metrics.embedders import embed_clips
from realaudio_jax.metrics.figures import REAL, distance_rows, mean_row, statistic_row
from realaudio_jax.metrics.judges import load_judges
from realaudio_jax.metrics.pitch import pitch_error_cents
from realaudio_jax.metrics.ports.crepe import load_crepe
from realaudio_jax.metrics.reconstruction import (
    band_energy_error,
    bandwidth_kept,
    log_mel_l1,
    multi_resolution_stft,
    opus_level,
    opus_round_trip,
    si_sdr,
    stereo_width_error,
)
from realaudio_jax.metrics.results import wide_table, write_results
from realaudio_jax.models.autoencoder import Autoencoder, samples_per_latent
from realaudio_jax.release import load_params, read_config
from realaudio_jax.training.loop import Progress
from realaudio_jax.typing import LATENT_RATE, MAX_SECONDS, MIN_SECONDS, SAMPLE_RATE

_RELEASE = flags.DEFINE_string('release', 'foley', 'Name or folder of the release.')
_AUTOENCODER = flags.DEFINE_string('autoencoder', None, 'Another autoencoder.safetensors.')
_RECORDINGS = flags.DEFINE_string('recordings', None, 'Folder with metadata.csv.', required=True)
_WEIGHTS = flags.DEFINE_string('embedder_weights', None, 'Folder of YAMNet weights.')
_PITCH = flags.DEFINE_string('pitch_weights', None, 'Folder of CREPE tiny, for pitch errors.')
_CLIPS = flags.DEFINE_integer('clips', 200, 'Recordings at most.', lower_bound=4)
_LOSSLESS = flags.DEFINE_bool(
    'lossless',
    False,
    'Only recordings stored without loss: the highest octaves of others are gone.',
)
_WORKDIR = flags.DEFINE_string('workdir', 'runs/evaluate_autoencoder', 'Where the tables go.')

RATES = (48_000, 44_100)
DISTANCES = ('fad', 'kad')
LENGTHS = (1, 2, 5, 10)  # s; recordings are padded to one of these, so few programs are compiled
LOSSLESS = ('.flac', '.wav', '.aif', '.aiff')
OPUS_TARGETS = (12, 16, 24, 32)  # kbit/s, from the lowest that libsndfile writes


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


def load_autoencoder(release, path):
    """A function (audio [S 2], sample rate) -> reconstruction [S 2]."""
    folder = find_release(release)
    model = Autoencoder(**read_config(folder).get('autoencoder', {}))
    params = load_params(path or folder / AUTOENCODER_NAME, autoencoder_template(model))

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


def judge(originals, others, sample_rate, embedders, windows, columns, pitch=None) -> list[dict]:
    """Distances to the set of originals, and how far each sound is from its own."""
    rows = []
    for embedder, real in zip(embedders, windows, strict=True):
        made = embed_clips(embedder, others, sample_rate)
        rows += distance_rows(real, made, embedder, DISTANCES, paired=True)
    pairs = list(zip(originals, others, strict=True))
    sounding = [(a, b) for a, b in pairs if a.any()]  # two figures are undefined for silence
    rows += [
        mean_row('log-mel L1', [log_mel_l1(a, b, sample_rate) for a, b in pairs]),
        mean_row('multi-resolution STFT', [multi_resolution_stft(a, b) for a, b in sounding]),
        # an exact copy has no distortion; 100 dB stands for it, or the mean would be infinite
        mean_row('SI-SDR', [min(si_sdr(a, b), 100.0) for a, b in sounding], 'dB'),
        mean_row('stereo width error', finite(abs(stereo_width_error(a, b)) for a, b in pairs)),
        mean_row('bandwidth kept', finite(100 * bandwidth_kept(a, b, sample_rate)
                                          for a, b in pairs), '%'),
    ]  # fmt: skip
    bands = [band_energy_error(a, b, sample_rate) for a, b in pairs]
    for band in bands[0]:
        rows.append(mean_row(f'energy error {band}', [abs(found[band]) for found in bands], 'dB'))
    if pitch:
        errors = finite(pitch_error_cents(a, b, sample_rate, pitch) for a, b in pairs)
        if errors:  # of the pitched recordings
            rows.append(statistic_row('pitch error, median', np.median, errors, 'cents'))
    return [row | columns for row in rows]


def finite(values) -> list[float]:
    """Without the NaN of silent clips."""
    return [value for value in values if np.isfinite(value)]


def evaluate(
    release, autoencoder, recordings, embedder_weights, count, lossless=False, pitch_weights=None
) -> list[dict]:
    """One row set for each of: real against real, the autoencoder at both rates, Opus."""
    tower, embedders = load_judges(find_release(release), embedder_weights)
    embedders = ([tower.embedder] if tower else []) + embedders
    reconstruct = load_autoencoder(release, autoencoder)
    pitch = load_crepe(pitch_weights)[0] if pitch_weights else None
    clips = held_back(recordings, count, lossless)
    if len(clips) < 4:
        raise ValueError(f'{recordings} holds back {len(clips)} recordings; 4 or more are needed')
    rows = []
    with Progress(len(clips) * (len(RATES) + len(OPUS_TARGETS)), 'reconstruct') as progress:
        done = 0
        for rate in RATES:
            originals = [np.clip(resample(clip, SAMPLE_RATE, rate), -1, 1) for clip in clips]
            windows = [embed_clips(embedder, originals, rate) for embedder in embedders]
            others = []
            for audio in originals:
                others.append(reconstruct(audio, rate))
                done += 1
                progress.update(done)
            columns = {'model': f'autoencoder {rate / 1000:g} kHz', 'sample_rate': rate}
            rows += judge(originals, others, rate, embedders, windows, columns, pitch)
            if rate != SAMPLE_RATE:
                continue
            for embedder, w in zip(embedders, windows, strict=True):
                floor = distance_rows(w[::2], w[1::2], embedder, DISTANCES)
                rows += [{'note': 'two halves'} | row | {'model': REAL} for row in floor]
            for target in OPUS_TARGETS:
                level, opus = opus_level(target, 2), []
                for audio in originals:
                    opus.append(opus_round_trip(audio, rate, level))
                    done += 1
                    progress.update(done)
                columns = {'model': f'Opus, {target} kbit/s', 'sample_rate': rate}
                made = [audio for audio, _ in opus]
                rows += judge(originals, made, rate, embedders, windows, columns, pitch)
                lengths = np.array([len(a) for a in originals])
                kbit = np.average([k for _, k in opus], weights=lengths)
                row = {'name': 'bit rate', 'value': kbit, 'unit': 'kbit/s', 'n': len(opus)}
                rows.append(row | columns)
    return rows


def main(argv):
    del argv
    rows = evaluate(
        _RELEASE.value, _AUTOENCODER.value, _RECORDINGS.value, _WEIGHTS.value, _CLIPS.value,
        _LOSSLESS.value, _PITCH.value,
    )  # fmt: skip
    write_results(pathlib.Path(_WORKDIR.value), rows, 'Reconstruction of held-back recordings')
    print(wide_table(rows))


if __name__ == '__main__':
    run(main)
