"""Two processes of two devices each: they compute what one of four does, and end together."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import several_processes

from realaudio_jax import processes
from realaudio_jax.training.checkpoints import Checkpointer
from realaudio_jax.trees import named_leaves

ROOT = pathlib.Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(('localhost', 0))
        return found.getsockname()[1]


def ended_pair(program, folder='', begin=None):
    """Status and lines of two processes of Python, with two devices each."""
    port = str(free_port())
    environment = os.environ | {
        'PYTHONPATH': str(ROOT),
        'XLA_FLAGS': os.environ['XLA_FLAGS'].replace('device_count=4', 'device_count=2'),
    }
    running = [
        subprocess.Popen(
            [sys.executable, *program, str(index), port, folder],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for index in (0, 1)
    ]
    lines = [None, None]
    try:
        for index in (1, 0):  # the second ends first, or both within a moment
            lines[index] = running[index].communicate(timeout=120)[0]
            if begin is not None:
                begin.append(time.monotonic())
    finally:
        for process in running:
            process.kill()
    return [(each.returncode, said) for each, said in zip(running, lines, strict=True)]


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    """What two processes left: (folder, status and lines of each, seconds of the first alone)."""
    folder = tmp_path_factory.mktemp('pair')
    begin = []
    ended = ended_pair([several_processes.__file__], str(folder), begin)
    return folder, ended, time.monotonic() - begin[0]


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """The folder of the same run in this process, and its student."""
    folder = tmp_path_factory.mktemp('alone')
    return folder, several_processes.distill(folder)


def saved(folder, step):
    """The arrays of a checkpoint, whole, whatever devices they came from."""
    with Checkpointer(folder / 'checkpoints') as checkpointer:
        manager = checkpointer._open()
        shapes = manager.item_metadata(step).state.tree
        wanted = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
        return checkpointer.restore(wanted, step=step)


def test_two_processes_compute_what_one_does(pair, alone):
    """Parameters, their average and Adam's moments after ten updates."""
    line = '2 processes, 4 devices (cpu), mesh of 4 data x 1 model: batch per device 2 (of 8)'
    assert pair[1][0][1].count(line) == 1
    two, one = saved(pair[0] / 'run', 10), saved(alone[0], 10)
    assert two.keys() == one.keys() and 'student/params/student/mlp_in/kernel' in two
    for name, value in two.items():
        np.testing.assert_allclose(value, one[name], atol=1e-6, err_msg=name)
    moved = two['student/params/student/mlp_in/kernel'] - two['previous/mlp_in/kernel']
    assert abs(moved).max() > 1e-4


def test_the_first_writes_and_its_errors_reach_the_other(pair):
    found = [json.loads((pair[0] / f'{index}.json').read_text()) for index in (0, 1)]
    assert [each['first'] for each in found] == [True, False]
    assert [each['any'] for each in found] == [True, True]
    assert [each['cache'] for each in found] == ['0', '0']
    assert found[0]['error'].startswith('ValueError: invalid literal')
    assert found[1]['error'] == (
        'OtherProcessError: process 0 failed (a number); its line says why'
    )
    written = [json.loads(line)['step'] for line in (pair[0] / 'run/metrics.jsonl').open()]
    assert written == [5, 10]
    assert 'progressive' not in pair[1][1][1]  # progress


def test_all_stop_where_one_is_told_to(pair):
    """SIGTERM came to the second alone, before its seventh update."""
    found = [json.loads((pair[0] / f'{index}.json').read_text()) for index in (0, 1)]
    assert [each['student'] for each in found] == [None, None]
    assert 'stopping with all processes, within 10 steps' in pair[1][1][1]
    assert sorted(p.name for p in (pair[0] / 'run/checkpoints').glob('[0-9]*')) == ['10']


def test_the_end_of_one_is_the_end_of_the_other(pair):
    _, ((status, lines), (killed, _)), seconds = pair
    assert killed == -signal.SIGKILL and status == 1
    assert seconds < 5 * several_processes.LOST_AFTER_S
    last = lines.strip().splitlines()[-1]
    assert last.startswith('error: another process of this run has ended')
    assert 'this is process 0 of 2' in last and 'Check failure stack trace' not in lines


def test_the_end_of_the_first_is_a_line_of_the_other():
    """Process 0 coordinates; without it JAX aborts the others, whatever they do."""
    code = (
        'import os, sys, time\n'
        'from realaudio_jax import processes\n'
        'index = int(sys.argv[1])\n'
        "processes.connect(f'localhost:{sys.argv[2]}', 2, index, 4.0)\n"
        'processes.any_process(False)\n'
        'index or os.kill(os.getpid(), 9)\n'
        'time.sleep(20)\n'
    )
    (killed, _), (status, lines) = ended_pair(['-c', code])
    assert killed == -signal.SIGKILL and status == -signal.SIGABRT
    last = lines.strip().splitlines()[-1]
    assert 'another process of this run has ended' in last and 'process 1 of 2' in last


def test_a_checkpoint_of_four_devices_goes_on_with_one(pair, alone, tmp_path, monkeypatch, capfd):
    shutil.copytree(pair[0] / 'run/checkpoints', tmp_path / 'checkpoints')
    monkeypatch.setattr(jax, 'devices', lambda: jax.local_devices()[:1])
    student = several_processes.distill(tmp_path)
    assert '1 process, 1 device (cpu), mesh of 1 data x 1 model' in capfd.readouterr().err
    wanted = dict(named_leaves(alone[1]))
    for name, leaf in named_leaves(student):
        assert len(leaf.sharding.device_set) == 1
        np.testing.assert_allclose(leaf, wanted[name], atol=1e-6, err_msg=name)


def test_a_split_model_is_the_whole_one(alone, tmp_path):
    """To what Adam makes of the rounding of sums in another order."""
    student = dict(named_leaves(several_processes.distill(tmp_path, model_parallel=2)))
    spread = {name for name, leaf in student.items() if not leaf.sharding.is_fully_replicated}
    assert 'mlp_in/kernel' in spread and 'gain' not in spread
    for name, leaf in named_leaves(alone[1]):
        np.testing.assert_allclose(student[name], leaf, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    ('given', 'line'),
    [
        (('host', 2, 0), 'write HOST:PORT'),
        (('localhost:99999', 2, 0), 'a port from 1 to 65535'),
        (('host:1', 2, None), 'go together'),
        (('', 2, 1), 'go together'),
        (('host:1', 2, 2), 'counted from 0 to 1'),
        (('auto', None, None), 'neither SLURM, Open MPI nor a TPU'),
    ],
)
def test_a_run_that_cannot_be_met_is_one_line(given, line, monkeypatch):
    monkeypatch.setattr('jax._src.xla_bridge.backends_are_initialized', lambda: False)
    with pytest.raises(ValueError, match=line) as caught:
        processes.connect(*given)
    assert '\n' not in str(caught.value)


def test_a_port_that_is_taken_is_one_line(monkeypatch):
    """JAX's coordinator would end on it by a segmentation fault."""
    monkeypatch.setattr(jax.distributed, 'initialize', lambda *given, **more: pytest.fail('met'))
    with socket.create_server(('', 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConnectionError, match='cannot listen there .Address already in use.'):
            processes.connect(f'localhost:{port}', 2, 0)
    with pytest.raises(ConnectionError, match='no such host'):
        processes.connect(f'nowhere.invalid:{port}', 2, 1)


@pytest.mark.parametrize('index', [0, 1])
def test_who_waits_in_vain_says_so_and_ends(index):
    code = (
        'from realaudio_jax import processes\n'
        'processes._MEETING_S, processes._SILENT_S = 3.0, 1.0\n'
        f"processes.connect('localhost:{free_port()}', 2, {index})\n"
    )
    command = [sys.executable, '-c', code]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    waiting, error = ended.stderr.strip().splitlines()
    assert ended.returncode == 1
    assert waiting.startswith(f'process {index} of 2: the others at localhost:')
    assert 'did not all come within' in error


def test_slurm_and_tpu_slices_are_found():
    slurm = dict.fromkeys(('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_PROCID'), '1')
    slurm |= {'SLURM_LOCALID': '0', 'SLURM_NTASKS': '8'}
    assert processes._several_tasks(slurm)
    assert not processes._several_tasks(slurm | {'SLURM_NTASKS': '1'})
    assert processes._several_tasks({'TPU_WORKER_HOSTNAMES': 'a,b'})
    assert not processes._several_tasks({})
