"""The figures of a release on held-out scenes, or of a folder of sounds against another.

python -m experiments.evaluate --recordings=DIR --embedder_weights=DIR --workdir=DIR
python -m experiments.evaluate --generated=DIR --reference=DIR --embedder_weights=DIR --workdir=DIR
"""

import pathlib

from absl import flags

from experiments.common import run
from realaudio_jax.components import find_release
from realaudio_jax.generator import load
from realaudio_jax.io import READABLE
from realaudio_jax.metrics.embedders import embed_clips
from realaudio_jax.metrics.evaluation import REAL, Setting, distance_row, evaluate
from realaudio_jax.metrics.judges import held_out_scenes, load_judges
from realaudio_jax.metrics.results import wide_table, write_results
from realaudio_jax.training.loop import Progress

_RELEASE = flags.DEFINE_string(
    'release', 'foley', 'Name or folder; with --generated only its audio tower is used.'
)
_RECORDINGS = flags.DEFINE_string(
    'recordings', None, 'Folder with metadata.csv, its held-out part; none: procedural foley.'
)
_GENERATED = flags.DEFINE_string('generated', None, 'Folder of sounds to judge.')
_REFERENCE = flags.DEFINE_string('reference', None, 'Folder of sounds to judge them against.')
_WEIGHTS = flags.DEFINE_string('embedder_weights', None, 'Folder of YAMNet weights.')
_SCENES = flags.DEFINE_integer('scenes', 128, 'Number of scenes.', lower_bound=2)
_SECONDS = flags.DEFINE_float('seconds', 10.0, 'Duration of each.')
_STEPS = flags.DEFINE_list('steps', ['4'], 'Step counts of the student.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of scenes, noise and intervals.')
_WORKDIR = flags.DEFINE_string('workdir', 'runs/evaluate', 'Where results.json and results.md go.')


def judge_release(release, recordings, embedder_weights, count, seconds, steps, seed) -> list[dict]:
    """The student at each step count and the guided 50-step teacher, with floor and ceiling."""
    generator = load(release)
    tower, embedders = load_judges(generator.folder, embedder_weights)
    scenes, others = held_out_scenes(recordings, count, seconds, seed)
    settings = [Setting('student', n) for n in steps]
    settings += [Setting('teacher', 4), Setting('teacher', 50)]
    with Progress(count * (len(settings) + 2), 'evaluate') as progress:
        finished = {}

        def say(label, done, total):
            finished[label] = done
            progress.update(sum(finished.values()))

        return evaluate(
            generator, scenes, settings, tower, embedders, others, seed=seed, progress=say
        )


def judge_folder(release, generated, reference, embedder_weights, seed) -> list[dict]:
    """Frechet distances of the sounds in one folder to those in another."""
    tower, embedders = load_judges(find_release(release), embedder_weights)
    embedders = ([tower.embedder] if tower else []) + embedders
    if not embedders:
        raise ValueError(
            f'no embedder: release {release} has no audio tower; name --embedder_weights'
        )
    made, real = sound_files(generated), sound_files(reference)
    rows = []
    for embedder in embedders:
        a, b = embed_clips(embedder, real), embed_clips(embedder, made)
        rows.append(
            distance_row(a[::2], a[1::2], embedder, seed, 200)
            | {'model': REAL, 'note': 'two halves'}
        )
        columns = {'model': pathlib.Path(generated).name}
        rows.append(distance_row(a, b, embedder, seed, 200) | columns)
    return rows


def sound_files(folder) -> list[pathlib.Path]:
    """The sound files in a folder and below it, sorted.

    Raises:
      FileNotFoundError: no such folder. ValueError: fewer than four sounds in it.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'no folder {folder}; check the name')
    files = sorted(p for p in folder.rglob('*') if p.suffix.lower() in READABLE)
    if len(files) < 4:
        raise ValueError(
            f'{folder} holds {len(files)} sound files; a distance between sets needs 4 or more'
        )
    return files


def main(argv):
    del argv
    if (_GENERATED.value is None) != (_REFERENCE.value is None):
        raise ValueError('--generated and --reference go together; give both')
    if _GENERATED.value:
        rows = judge_folder(
            _RELEASE.value, _GENERATED.value, _REFERENCE.value, _WEIGHTS.value, _SEED.value
        )
    else:
        rows = judge_release(
            _RELEASE.value, _RECORDINGS.value, _WEIGHTS.value, _SCENES.value, _SECONDS.value,
            [int(s) for s in _STEPS.value], _SEED.value,
        )  # fmt: skip
    write_results(_WORKDIR.value, rows, 'Evaluation')
    print(wide_table(rows))


if __name__ == '__main__':
    run(main)
