import json
import os
import signal
import subprocess
import sys

import ml_collections
import pytest

from realaudio_jax import provenance
from realaudio_jax.data.recordings_cache import folder_digest
from realaudio_jax.training.run_folder import LOCK_NAME, RUN_NAME, read_run, run_folder

CONFIG = {
    'seed': 3,
    'steps': (4, 2),
    'energy': {'updates': 5, 'frozen': ''},
    'log_every': 10,
    'eval_scenes': 8,
}


def changed(**settings):
    return {**CONFIG, **settings}


def start(folder, config=CONFIG, inputs=None, said=None):  # noqa: B006
    say = (said if said is not None else []).append
    with run_folder(folder, config, inputs, say, folder_digest) as path:
        return path


def test_a_run_keeps_what_it_was_given_and_each_of_its_starts(tmp_path):
    config = ml_collections.ConfigDict(CONFIG).lock()
    folder = start(tmp_path / 'run', config, {'recordings': None, 'release': 'foley'})
    start(tmp_path / 'run', CONFIG, {'recordings': None, 'release': 'foley'})
    run = read_run(folder)
    assert run['config'] == json.loads(json.dumps(CONFIG))
    assert run['inputs'] == {'recordings': None, 'release': 'foley'}
    assert len(run['starts']) == 2
    for one in run['starts']:
        assert one['command'].startswith('python ') and 'UTC' in one['date']
        assert one['revision'].startswith(provenance.__version__) and 'CPU' in one['device']


def test_the_revision_is_that_of_the_project_alone(tmp_path, monkeypatch):
    """Installed into an environment inside somebody's checkout, it is the version."""
    git = ['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a@b.c']
    subprocess.run([*git, 'init', '-q'], check=True)
    subprocess.run([*git, 'commit', '-q', '--allow-empty', '-m', 'theirs'], check=True)
    inside = tmp_path / 'env' / 'realaudio_jax' / 'provenance.py'
    inside.parent.mkdir(parents=True)
    monkeypatch.setattr(provenance, '__file__', str(inside))
    assert provenance.revision() == provenance.__version__


@pytest.mark.parametrize(
    ('config', 'words'),
    [
        (changed(seed=4), 'config.seed 3, now 4'),
        (changed(steps=[4, 1]), r'config.steps \[4, 2\], now \[4, 1\]'),
        (changed(energy={'updates': 5, 'frozen': 'mlp'}), 'config.energy.frozen "", now "mlp"'),
        (changed(energy={'updates': 5}), 'config.energy.frozen "", now not set'),
        (changed(rank=2), 'config.rank not set, now 2'),
        ({**{k: 0 for k in CONFIG}}, 'config.energy.frozen .* and 2 more: '),
    ],
)
def test_another_configuration_is_refused_by_name(tmp_path, config, words):
    start(tmp_path)
    before = (tmp_path / RUN_NAME).read_text()
    with pytest.raises(ValueError, match=words) as caught:
        start(tmp_path, config)
    assert '\n' not in str(caught.value) and str(tmp_path) in str(caught.value)
    assert (tmp_path / RUN_NAME).read_text() == before
    start(tmp_path)  # and the lock is free again


def test_what_is_shown_may_change_and_what_was_given_may_not(tmp_path, monkeypatch):
    (tmp_path / 'sounds').mkdir()
    start(tmp_path / 'run', inputs={'recordings': tmp_path / 'sounds', 'experts': ['a']})
    monkeypatch.chdir(tmp_path)
    shown = changed(log_every=1, eval_scenes=64)
    start(tmp_path / 'run', shown, {'recordings': 'sounds', 'experts': ('a',)})
    assert read_run('run')['config']['eval_scenes'] == 64
    with pytest.raises(ValueError, match='recordings ".*, now null'):
        start(tmp_path / 'run', inputs={'recordings': None, 'experts': ['a']})


def test_other_sounds_or_weights_under_the_same_name_are_refused(tmp_path):
    """Of equal size and time: what counts is what is in them."""
    sounds, weights, release = (tmp_path / name for name in ('sounds', 'w.safetensors', 'release'))
    changing = [sounds / 'dog' / 'a.wav', sounds / 'metadata.csv', weights, release / 'SHA256SUMS']
    for path in changing:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'first')
    inputs = {'recordings': str(sounds), 'experts': [str(weights)], 'release': str(release)}
    inputs |= {'init': None, 'embedder': 'foley'}
    start(tmp_path / 'run', inputs=inputs)
    for path in changing:
        start(tmp_path / 'run', inputs=inputs)
        about = path.stat()
        path.write_bytes(b'other')
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
        with pytest.raises(ValueError, match=r'has changed since the run in .* began: restore'):
            start(tmp_path / 'run', inputs=inputs)
        path.write_bytes(b'first')
    (sounds / 'more.wav').write_bytes(b'more')
    with pytest.raises(ValueError, match=f'{sounds} has changed'):
        start(tmp_path / 'run', inputs=inputs)


def test_a_damaged_record_is_one_line(tmp_path):
    start(tmp_path)
    for text in ('{"config": {}', '[]', '3', '\x00'):
        (tmp_path / RUN_NAME).write_text(text)
        with pytest.raises(ValueError, match='run.json cannot be read.*take another folder'):
            start(tmp_path)


def test_a_folder_of_before_is_taken_with_a_line(tmp_path):
    said = []
    (tmp_path / 'checkpoints' / '20').mkdir(parents=True)
    (tmp_path / 'checkpoints' / '20' / '_CHECKPOINT_METADATA').touch()
    start(tmp_path, said=said)
    assert len(said) == 1 and 'has checkpoints and no run.json' in said[0]
    start(tmp_path, said=said)
    assert len(said) == 1


def test_left_overs_of_a_killed_process_are_swept(tmp_path):
    kept = tmp_path / 'latents' / 'abc' / 'latents.npy'
    for path in (
        kept,
        tmp_path / '.partial-x.json',
        tmp_path / 'latents' / '.partial-y' / 'latents.npy',
        tmp_path / 'checkpoints' / '4.orbax-checkpoint-tmp' / 'state' / 'd',
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'1')
    start(tmp_path)
    files = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob('*') if p.is_file()}
    assert files == {'latents/abc/latents.npy', RUN_NAME, LOCK_NAME}


HOLD = """
import sys
from realaudio_jax.training.run_folder import run_folder
with run_folder(sys.argv[1], {}) as folder:
    print('held', flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.name != 'posix', reason='there is no lock on this system')
def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    first = subprocess.Popen(
        [sys.executable, '-c', HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert first.stdout.readline() == b'held\n'
        with pytest.raises(BlockingIOError, match=f'in use by .*process {first.pid} on') as caught:
            start(tmp_path, {})
        assert '\n' not in str(caught.value)
        first.send_signal(signal.SIGKILL)
        first.wait(20)
        start(tmp_path, {})
    finally:
        first.kill()
        first.communicate()
