"""A manifest becomes sounds and rows; bad lines, stops and full disks lose nothing else."""

import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import warnings

import pytest
import soundfile
from absl import flags
from absl.testing import flagsaver

import realaudio_jax
from experiments import common
from realaudio_jax.training.loop import STOPPED, main_guard

BASE = {'prompt': 'rain', 'seconds': 0.5, 'steps': 1}


@pytest.fixture(scope='module')
def generator(tiny_release):
    return realaudio_jax.load(tiny_release, log=lambda line: None)


@pytest.fixture
def batch(experiment, generator, monkeypatch, tmp_path, capsys):
    """`batch(lines)` runs the experiment: (exit status, rows by id, output, errors)."""
    module = experiment('batch')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('REALAUDIO_TRACEBACK', raising=False)
    monkeypatch.setattr(
        module.realaudio_jax, 'load', lambda name, mark: generator.with_watermark(mark)
    )
    monkeypatch.setattr(warnings, 'showwarning', common.show_warning)
    flags.FLAGS.mark_as_parsed()

    def run(*lines, **values):
        text = [x if isinstance(x, str) else json.dumps(BASE | x) for x in lines]
        pathlib.Path('in.jsonl').write_text('\n'.join(text) + '\n')
        with flagsaver.flagsaver(**{'manifest': 'in.jsonl', 'out': 'out', **values}):
            try:
                status = main_guard(module.main)(['batch']) or 0
            except SystemExit as leave:
                status = leave.code
        path = pathlib.Path('out/results.jsonl')
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        out, err = capsys.readouterr()
        return status, {row['id'] or f'line {row["line"]}': row for row in rows}, out, err

    run.module = module
    return run


def sha256(name):
    return hashlib.sha256(pathlib.Path('out', name).read_bytes()).hexdigest()


def test_a_manifest_becomes_sounds_and_rows(batch, generator):
    status, rows, out, err = batch(
        {'id': 'dogs', 'prompt': 'dogs', 'count': 3, 'seed': 5},
        {'id': 'late', 'events': [{'text': 'gunshot', 'onset_s': 0.1, 'offset_s': 0.3}]},
        {'seed': 2},
    )
    assert status == 0 and out == 'out: 5 made, 0 were there, 0 not made\n'
    *named, unnamed = rows
    assert named == ['dogs-0', 'dogs-1', 'dogs-2', 'late']
    assert unnamed.startswith('rain-seed2-1steps-0.5s-')
    for row in rows.values():
        assert row['sha256'] == sha256(row['file']) and row['error'] is None
        assert row['watermark'] == {'key': 'public key', 'payload': 0}
        assert soundfile.info(f'out/{row["file"]}').frames == 24_000
        assert 0 < row['peak'] <= 1 and -70 < row['level'] < 30 and row['ms'] > 0
    assert [rows[f'dogs-{i}']['seed'] for i in range(3)] == [5, 6, 7]
    generator.generate('dogs', seconds=0.5, steps=1, seed=6).save('offline.wav')
    assert sha256('dogs-1.wav') == sha256('../offline.wav')


def test_a_bad_line_is_a_row_and_not_the_end(batch):
    status, rows, out, err = batch(
        '{"prompt": "rain"',
        '',
        {'id': 'a'},
        {'id': 'A'},
        {'secnds': 1},
        {'id': '../a'},
        {'count': 0},
        {'prompt': 'x', 'steps': 3},
        {'init_audio': 'none.wav'},
        '\x00\xff',
        'x' * 9,
        {'id': 'last', 'format': 'wav'},
        {'id': 'z', 'seconds': 0.6},
    )
    assert status == 1 and out == 'out: 2 made, 0 were there, 10 not made\n'
    assert err.splitlines()[-1] == 'error: 10 not made; out/results.jsonl says why'
    assert rows['a']['error'] is None and rows['z']['error'] is None
    said = {int(name[5:]): row['error'] for name, row in rows.items() if name.startswith('line ')}
    parts = {
        1: 'not JSON',
        4: "the id 'A' is that of line 3",
        5: "did you mean 'seconds'?",
        6: 'it names a file',
        7: 'count is 0',
        8: 'the student has no 3 steps',
        9: 'there is no such file',
        10: 'not JSON',
        11: 'not JSON',
        12: "unknown key 'format'",
    }
    assert said.keys() == parts.keys()
    for line, part in parts.items():
        assert part in said[line]
    assert 'line 1: not JSON' in err and 'Traceback' not in err


def test_what_is_there_and_whole_is_not_made_again(batch):
    lines = [{'id': name} for name in 'abc']
    _, first, _, _ = batch(*lines)
    pathlib.Path('out/b.wav').write_bytes(b'cut short')
    with open('out/results.jsonl', 'a') as file:
        file.write('{"id": "c", "fi')  # a stop while the row was written
    status, rows, out, err = batch(*lines)
    assert status == 0 and out == 'out: 1 made, 2 were there, 0 not made\n'
    assert 'has 1 unreadable lines' in err
    assert {name: row['sha256'] for name, row in rows.items()} == {
        name: row['sha256'] for name, row in first.items()
    }
    assert sha256('b.wav') == rows['b']['sha256']
    # The same request in other words is the same.
    _, _, out, _ = batch({'id': 'a', 'seconds': 5e-1, 'steps': 1.0, 'events': []})
    assert out == 'out: 0 made, 1 were there, 0 not made\n'


def test_a_changed_request_under_an_id_is_said_and_replaced_only_if_told(batch):
    _, first, _, _ = batch({'id': 'a'})
    status, rows, out, err = batch({'id': 'a', 'seed': 1})
    assert status == 1 and out == 'out: 0 made, 0 were there, 1 not made\n'
    assert 'line 1: a sound made from another request or release stands under this id' in err
    assert rows['a']['sha256'] == first['a']['sha256'] == sha256('a.wav')
    status, _, _, err = batch({'id': 'a'}, watermark_payload=7)
    assert status == 1 and 'with the watermark of the public key, payload 0 stands under' in err
    assert 'makes sounds with the watermark of the public key, payload 7; give the --w' in err
    assert 'makes sounds without a watermark' in batch({'id': 'a'}, watermark_key='off')[3]
    status, rows, out, _ = batch({'id': 'a'})
    assert status == 0 and rows['a']['error'] is None
    status, rows, out, _ = batch({'id': 'a', 'seed': 1}, replace=True)
    assert status == 0 and out == 'out: 1 made, 0 were there, 0 not made\n'
    assert rows['a']['sha256'] == sha256('a.wav') != first['a']['sha256']


def test_a_file_that_no_row_tells_of_is_not_replaced(batch):
    pathlib.Path('out').mkdir()
    pathlib.Path('out/a.wav').write_bytes(b'mine')
    status, rows, _, _ = batch({'id': 'a'}, {'id': 'b'})
    assert status == 1 and 'another file stands there' in rows['a']['error']
    assert pathlib.Path('out/a.wav').read_bytes() == b'mine' and rows['b']['sha256']
    pathlib.Path('out/results.jsonl').unlink()  # killed before the row: the same bytes are kept
    pathlib.Path('out/a.wav').unlink()
    assert batch({'id': 'b'})[0] == 0


def test_a_stop_keeps_what_was_made_and_goes_on(batch, monkeypatch):
    lines, real, calls = [{'id': name} for name in 'abcd'], batch.module.run_batch, []

    def run_batch(*args):
        calls.append(args)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)

    monkeypatch.setattr(batch.module, 'run_batch', run_batch)
    status, rows, _, err = batch(*lines)
    assert status == STOPPED and list(rows) == ['a', 'b']
    assert 'stopped: 2 of 4 sounds were made; the same command goes on from there' in err
    status, rows, out, _ = batch(*lines)
    assert status == 0 and list(rows) == list('abcd') and len(calls) == 4


def test_sounds_of_one_program_are_made_one_after_another(batch, generator, monkeypatch):
    made, real = [], batch.module.run_batch

    def run_batch(generator, requests, size):
        made.append([(x.call.prompt, x.call.seconds) for x in requests])
        return real(generator, requests, size)

    monkeypatch.setattr(batch.module, 'run_batch', run_batch)
    lines = [{'id': 'a'}, {'id': 'long', 'seconds': 0.75}, {'id': 'b', 'prompt': 'wind'}]
    status, rows, _, _ = batch(*lines, batch_size='2')
    assert status == 0 and list(rows) == ['a', 'long', 'b']
    assert made == [[('rain', 0.5), ('wind', 0.5)], [('rain', 0.75)]]


FULL_DISK = """
import dataclasses, pathlib, sys, types
import numpy as np
from absl import flags
from experiments import batch
from realaudio_jax.generator import Sound
from realaudio_jax.training.loop import main_guard

def items(generator, manifest):
    return [batch.Item(f'a{i}', i, {}, batch.Group(None, ()), 'x') for i in range(1, 9)], []

def make(generator, chunk, size, folder):
    pcm = np.full((48_000, 2), 9, np.int16)
    yield chunk[0], Sound(pcm, 48_000, 0.5, -20.0, False, 0, np.zeros((2, 2))), [], 1.0

batch.read_manifest, batch.make = items, make
flags.FLAGS(['batch'])
out = pathlib.Path(sys.argv[1])
nobody = types.SimpleNamespace(mark=None)
main_guard(lambda argv: batch.make_all(nobody, out / 'in', out, 1))([])
"""


def test_a_full_disk_in_the_middle_is_one_line_and_keeps_what_was_made(tmp_path):
    mount = f'mount -t tmpfs -o size=1m none {tmp_path} && '
    show = f'; cat {tmp_path}/results.jsonl; ls -A {tmp_path}'
    if not shutil.which('unshare'):
        pytest.skip('unshare is missing')
    run = ['unshare', '--user', '--map-root-user', '--mount', 'sh', '-c']
    if subprocess.run([*run, mount + 'true'], capture_output=True, check=False).returncode:
        pytest.skip('no small disk can be mounted here')
    done = subprocess.run(
        [*run, mount + f'{sys.executable} -c "$SCRIPT" {tmp_path}' + show],
        env={**os.environ, 'SCRIPT': FULL_DISK},
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = [x for x in done.stderr.splitlines() if x.startswith('error')]
    assert 'No space left on device' in line and 'Traceback' not in done.stderr
    assert line.endswith('5 of 8 sounds were made, the same command goes on from there')
    rows = [json.loads(x) for x in done.stdout.splitlines() if x.startswith('{')]
    names = [x for x in done.stdout.splitlines() if not x.startswith('{')]
    assert [row['id'] for row in rows] == [f'a{i}' for i in range(1, 6)]
    assert sorted(names) == [f'a{i}.wav' for i in range(1, 6)] + ['results.jsonl']
