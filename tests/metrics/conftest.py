import shutil

import pytest
from stub_generator import StubGenerator

from realaudio_jax.data.scenes import make_scenes
from realaudio_jax.data.sources import FoleySource
from realaudio_jax.generator import Generator
from realaudio_jax.metrics.embedders.tower import load_tower
from realaudio_jax.metrics.evaluation.generate import SamplerConfig
from realaudio_jax.metrics.evaluation.release import evaluate_release
from realaudio_jax.training.run_folder import run_folder

STUDENT, TEACHER = (
    SamplerConfig('student', 4),
    SamplerConfig('teacher', 2, guidance=1.5),
)  # 4 evaluations each


@pytest.fixture(scope='session')
def tower_release(tiny_release, tmp_path_factory):
    """The tiny release with a tiny random audio tower."""
    import tiny_tower

    return tiny_tower.write(tiny_release, tmp_path_factory.mktemp('tower') / 'tiny')


@pytest.fixture(scope='session')
def generator(tower_release):
    return Generator(tower_release)


@pytest.fixture(scope='session')
def stub(tower_release):
    """The same release without its programs; see `stub_generator`."""
    return StubGenerator(tower_release)


@pytest.fixture(scope='session')
def scenes():
    return list(make_scenes(0, FoleySource(), 5, 1.0))


@pytest.fixture(scope='session')
def made():
    """What each sampler made of the scenes, once `rows` is there."""
    return {}


@pytest.fixture(scope='session')
def counted():
    """How the progress of `rows` went: (done, total) by label."""
    return {}


@pytest.fixture(scope='session')
def rows(stub, scenes, made, counted):
    """A whole evaluation, as the main job makes it, of a release without its programs."""
    return evaluate_release(
        stub,
        scenes,
        [STUDENT, TEACHER],
        load_tower(stub.folder),
        reference=TEACHER,
        batch=4,
        latency_repeats=2,
        resamples=4,
        distances=('fad', 'kad'),
        diversity_prompts=1,
        comparisons=[(STUDENT, TEACHER)],
        made=made.__setitem__,
        progress=lambda label, *count: counted.setdefault(label, []).append(count),
    )


@pytest.fixture
def run(tower_release, tmp_path):
    """A run folder as training leaves it, without any."""
    config = {
        'seed': 3,
        'scenes': 4,
        'scene_seconds': 1.0,
        'foley_weight': 0.4,
        'teacher': 'release',
        'student_steps': [4],
        'stages': [{'recipe': 'consistency', 'updates': 2}],
        'calibration_scenes': 2,
        'eval_scenes': 5,
        'eval_seconds': 1.0,
        'report_prompts': 2,
    }
    with run_folder(tmp_path / 'run', config, {'recordings': None}) as folder:
        shutil.copytree(tower_release, folder / 'release')
    return folder
