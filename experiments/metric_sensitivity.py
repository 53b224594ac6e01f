"""Plots how sensitive each metric is to known degradations of a sound.

python -m experiments.metric_sensitivity --embedder_weights=DIR --workdir=docs
"""

import json
import pathlib

import matplotlib
from absl import flags

from experiments.common import run
from realaudio_jax.io import atomic_path
from realaudio_jax.metrics.embedders.registry import load_embedders
from realaudio_jax.metrics.evaluation.scenes import held_out_scenes
from realaudio_jax.metrics.sensitivity import CLEAN, Sensitivity, degradations, measure_sensitivity
from realaudio_jax.training.loop import Progress
from realaudio_jax.typing import MAX_SECONDS, MIN_SECONDS, SAMPLE_RATE

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402

_RECORDINGS = flags.DEFINE_string(
    'recordings', None, 'Folder of sounds, its held-out part; none: procedural foley.'
)
_EMBEDDER = flags.DEFINE_list('embedder', [], 'Networks of the distances; none: all at hand.')
_WEIGHTS = flags.DEFINE_string('embedder_weights', None, 'Folder of YAMNet weights.')
_RELEASE = flags.DEFINE_string('release', 'foley', 'Whose audio tower is used.')
_SCENES = flags.DEFINE_integer('scenes', 16, 'Number of scenes.', lower_bound=2)
_SECONDS = flags.DEFINE_float('seconds', 5.0, 'Duration of each.', MIN_SECONDS, MAX_SECONDS)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the scenes.', 0)
_WORKDIR = flags.DEFINE_string('workdir', 'runs/metric_sensitivity', 'Where the files go.')


def plot(sensitivity: Sensitivity, path: pathlib.Path) -> None:
    """One panel for each metric: its value by severity, from the clean sound on."""
    names = list(next(iter(sensitivity.values()))[CLEAN])
    columns = 4
    figure, axes = plt.subplots(
        -(-len(names) // columns),
        columns,
        figsize=(14, 2.6 * -(-len(names) // columns)),
        squeeze=False,
        layout='constrained',
    )
    for axis, name in zip(axes.flat, names, strict=False):
        for degradation, severities in sensitivity.items():
            values = [metrics[name] for metrics in severities.values()]
            axis.plot(range(len(values)), values, marker='o', ms=3, label=degradation)
        axis.set_title(name, fontsize=10)
        axis.set_xticks(range(5), ['clean', '1', '2', '3', '4'])
        axis.grid(alpha=0.25)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    labels = [
        f'{degradation}: {", ".join(list(severities)[1:])}'
        for degradation, severities in sensitivity.items()
    ]
    handles = axes.flat[0].get_legend_handles_labels()[0]
    figure.legend(handles, labels, loc='outside lower center', ncols=3, frameon=False, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def main(argv):
    del argv
    embedders = load_embedders(_EMBEDDER.value, _RELEASE.value, _WEIGHTS.value)
    scenes, _ = held_out_scenes(_RECORDINGS.value, _SCENES.value, _SECONDS.value, _SEED.value)
    total = sum(len(severities) for severities in degradations(SAMPLE_RATE).values())
    with Progress(total, 'degrade') as progress:
        sensitivity = measure_sensitivity(
            [scene.audio for scene in scenes],
            [scene.events for scene in scenes],
            SAMPLE_RATE,
            embedders,
            progress=progress.update,
        )
    workdir = pathlib.Path(_WORKDIR.value)
    settings = {
        'scenes': _SCENES.value,
        'seconds': _SECONDS.value,
        'seed': _SEED.value,
        'sounds': 'foley' if _RECORDINGS.value is None else 'held-out recordings',
        'embedders': [embedder.name for embedder in embedders],
    }
    with atomic_path(workdir / 'metric_sensitivity.json') as path:
        path.write_text(
            json.dumps({'settings': settings, 'sensitivity': sensitivity}, indent=1) + '\n'
        )
    plot(sensitivity, workdir / 'metric_sensitivity.png')
    print(f'{workdir / "metric_sensitivity.png"} and .json')


if __name__ == '__main__':
    run(main)
