"""Corrects a release by what is measured of it on training scenes: moments, then onsets.

python -m experiments.calibrate --release=DIR --recordings=DIR

The latents of the student are brought to its teacher's moments, and it is asked for onsets as much
later as its sounds begin early; see `realaudio_jax.calibration`. Run again, it measures the moments
anew and changes the lead by what is left. `experiments.evaluate --run` does both to a new student.
"""

from absl import flags

from experiments.common import run
from realaudio_jax.calibration import compensate_onsets, match_moments
from realaudio_jax.data.datasets import scene_source
from realaudio_jax.data.scenes import make_scenes
from realaudio_jax.metrics.evaluation.generate import SamplerConfig
from realaudio_jax.release import find_release
from realaudio_jax.typing import MAX_SECONDS, MIN_SECONDS

_RELEASE = flags.DEFINE_string('release', None, 'Folder of the release.', required=True)
_RECORDINGS = flags.DEFINE_string('recordings', None, 'Folder of sounds; none: foley.')
_FOLEY_WEIGHT = flags.DEFINE_float(
    'foley_weight', 0.4, 'Share of foley among the recordings.', 0, 1
)
_SCENES = flags.DEFINE_integer('scenes', 128, 'Training scenes.', lower_bound=1)
_SECONDS = flags.DEFINE_float('seconds', 5.0, 'Of each.', MIN_SECONDS, MAX_SECONDS)
_STEPS = flags.DEFINE_integer('steps', 4, 'Of the student, for the onsets.')
_SEED = flags.DEFINE_integer('seed', 1_000_000, 'Of scenes and noise.', 0)


def main(argv):
    del argv
    source = scene_source(_RECORDINGS.value, _FOLEY_WEIGHT.value, 'train')
    scenes = list(make_scenes(_SEED.value, source, _SCENES.value, _SECONDS.value))
    folder = find_release(_RELEASE.value)
    match_moments(folder, scenes, _SEED.value)
    lead = compensate_onsets(folder, scenes, SamplerConfig('student', _STEPS.value), _SEED.value)
    print(
        f'{folder}: the moments of its student are written, and onsets are asked for '
        f'{1000 * lead:.1f} ms later from now on'
    )


if __name__ == '__main__':
    run(main)
