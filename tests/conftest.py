"""Strict numerics, four virtual devices, and the optional folder of real recordings."""

import atexit
import gc
import os
import pathlib
import shutil
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# More devices than cores share one pool of threads: where their products too wait for threads of
# it, a program over all devices never ends with jax 0.11 on two cores. One thread for a product.
FLAGS = ['--xla_force_host_platform_device_count=4', '--xla_cpu_multi_thread_eigen=false']
# Most programs here run once or twice, on tiny networks: machine code that is not optimised runs
# slower and is there in a quarter of the time. What it computes is the same. One file of machine
# code for a program takes less to make than several side by side.
if os.environ['JAX_PLATFORMS'] == 'cpu':
    FLAGS += ['--xla_backend_optimization_level=0', '--xla_cpu_use_fusion_emitters=false']
    FLAGS += ['--xla_cpu_parallel_codegen_split_count=1']
for flag in FLAGS:
    if flag not in os.environ.get('XLA_FLAGS', ''):
        os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {flag}'.strip()
# One cache of compiled programs for this run alone: its workers, the notebooks' kernels and the
# second half of a resumed training compile nothing that another has compiled.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='realaudio_xla_')
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.3'
    atexit.register(shutil.rmtree, os.environ['JAX_COMPILATION_CACHE_DIR'], ignore_errors=True)

import jax  # noqa: E402
import pytest  # noqa: E402

# What is traced lives long and is much: a collector that walks it all as often as Python's own
# would takes a twentieth of the time of the tests.
gc.set_threshold(50_000, 20, 20)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_debug_key_reuse', True)

ROOT = pathlib.Path(__file__).resolve().parents[1]
# The files that take longest, longest first. A file stays with one process: were one of these the
# last to be handed out, the other process would wait for it.
LONGEST = (
    'experiments/test_training_runs.py',
    'test_colabs.py',
    'experiments/test_distill_teacher.py',
    'teachers/test_audioldm2.py',
    'test_program.py',
    'test_stream.py',
    'experiments/test_benchmark.py',
    'metrics/evaluation/test_evaluation.py',
    'experiments/test_compare_recipes.py',
    'experiments/test_sample.py',
    'test_latent_channels.py',
    'metrics/evaluation/test_summary.py',
    'models/test_autoencoder.py',
    'distillation/test_energy.py',
    'training/test_several_processes.py',
    'experiments/test_data_parallel.py',
    'metrics/test_sensitivity.py',
)


def pytest_collection_modifyitems(config, items):
    """Where several processes share the tests, the longest files come first."""
    if hasattr(config, 'workerinput'):
        rank = {ROOT / 'tests' / name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: rank.get(item.path, len(LONGEST)))  # else as collected


@pytest.fixture(scope='session')
def sound_dir() -> pathlib.Path:
    """A folder with metadata.csv, audio/, weights/ and reference/; tests skip without it."""
    folder = pathlib.Path(os.environ.get('REALAUDIO_SOUND', ROOT.parent / 'shared' / 'sound'))
    if not (folder / 'metadata.csv').is_file():
        pytest.skip(f'no recordings at {folder}: set REALAUDIO_SOUND to a folder with metadata.csv')
    return folder


@pytest.fixture(scope='session')
def tiny_release(tmp_path_factory) -> pathlib.Path:
    """The folder of a release with tiny random networks; see `tiny`."""
    import tiny

    return tiny.write(tmp_path_factory.mktemp('release') / 'tiny')


@pytest.fixture(scope='module')
def chromium():
    """A headless Chromium under Playwright; tests skip without either."""
    found = os.environ.get('CHROMIUM') or shutil.which('chromium') or shutil.which('google-chrome')
    playwright = pytest.importorskip(
        'playwright.sync_api', reason="needs pip install 'realaudio_jax[browser]'"
    )
    if found is None:
        pytest.skip('no Chromium on PATH; install it, or name it in $CHROMIUM')
    with playwright.sync_playwright() as started:
        with started.chromium.launch(executable_path=found, args=['--no-sandbox']) as browser:
            yield browser


@pytest.fixture
def own_release(tiny_release, tmp_path) -> pathlib.Path:
    """The same release in a folder of the test's own, whose config it may write anew."""
    from realaudio_jax.release_config import ReleaseConfig

    for file in tiny_release.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / 'config.json').unlink()
    ReleaseConfig.read(tiny_release).write(tmp_path)
    return tmp_path
