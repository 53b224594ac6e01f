"""A cache is made once for its key, and is what was written."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
import types

import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.data import cache
from realaudio_jax.data.cache import (
    cache_key,
    code_digest,
    content_digest,
    ensure,
    fill_arrays,
    open_arrays,
    weights_digest,
)


def rows(done, seed=0):
    """Seven rows in three batches; `done` gets a number for each."""
    rng = np.random.default_rng(seed)
    for size in (3, 3, 1):
        done.append(size)
        yield {'x': rng.normal(size=(size, 5)).astype(np.float32), 'kept': np.ones(size, bool)}


def make(folder, done, said=None, seed=0):
    index = {'names': ['a']}
    return ensure(
        folder,
        lambda new: fill_arrays(new, 7, rows(done, seed), index),
        None if said is None else said.append,
    )


def test_made_once_and_mapped(tmp_path):
    done = []
    arrays, index = open_arrays(make(tmp_path / 'k', done))
    assert make(tmp_path / 'k', done) == tmp_path / 'k' and len(done) == 3
    assert arrays['x'].shape == (7, 5) and arrays['kept'].dtype == bool
    np.testing.assert_array_equal(arrays['x'], np.concatenate([r['x'] for r in rows([])]))
    assert index == {'names': ['a']} and isinstance(arrays['x'], np.memmap)
    with pytest.raises(FileNotFoundError, match='no complete cache'):
        open_arrays(tmp_path / 'other')


@pytest.mark.parametrize('name', ['x.npy', 'kept.npy', 'index.json', 'SHA256SUMS'])
@pytest.mark.parametrize('damage', ['flipped', 'truncated', 'missing'])
def test_a_damaged_cache_is_made_anew_with_a_line(tmp_path, name, damage):
    done, said, folder = [], [], tmp_path / 'k'
    want = content_digest(make(folder, done))
    content = bytearray((folder / name).read_bytes())
    if damage == 'missing':
        (folder / name).unlink()
    elif damage == 'truncated':
        (folder / name).write_bytes(content[: len(content) // 2])
    else:
        content[len(content) * 2 // 3] ^= 1
        (folder / name).write_bytes(content)
    make(folder, done, said)
    assert len(done) == 6 and len(said) == 1
    assert f'{folder} is damaged (' in said[0] and '\n' not in said[0]
    assert content_digest(folder) == want
    make(folder, done, said)
    assert len(done) == 6 and len(said) == 1


def test_a_file_is_read_again_only_where_it_changed(tmp_path, monkeypatch):
    """A run opens one folder several times: hashing it is done once."""
    read, digest = [], cache.integrity.digest
    make(tmp_path / 'k', [])
    monkeypatch.setattr(cache.integrity, 'digest', lambda p: read.append(p) or digest(p))
    for _ in range(3):
        make(tmp_path / 'k', [])
    assert len(read) == 3  # two arrays and the index


def test_content_digests_are_of_content_alone(tmp_path):
    one, same, other = (make(tmp_path / n, [], seed=n == 'c') for n in 'abc')
    assert content_digest(one) == content_digest(same) != content_digest(other)


def test_nothing_is_left_of_a_cache_that_failed(tmp_path):
    def fail(new):
        (new / 'part').write_text('1')
        raise ValueError('no')

    with pytest.raises(ValueError, match='no'):
        ensure(tmp_path / 'k', fail)
    assert not list(tmp_path.iterdir())


def test_old_left_overs_are_swept_and_new_ones_are_not(tmp_path):
    for name, age in (('.partial-old', 3 * 24 * 3600), ('.partial-new', 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'x.npy').write_bytes(b'1')
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    make(tmp_path / 'k', [])
    assert {p.name for p in tmp_path.iterdir()} == {'k', '.partial-new'}


def test_a_full_disk_is_named_before_anything_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'posix_fallocate', full)
    with pytest.raises(OSError, match='disk full while writing .*k; free some space'):
        make(tmp_path / 'k', [])
    assert not list(tmp_path.iterdir())


SMALL_DISK = """
import sys, numpy as np
from realaudio_jax.data.cache import ensure, fill_arrays
rows = ({'x': np.ones((4, 50_000), np.float32)} for _ in range(5))
try:
    ensure(sys.argv[1] + '/k', lambda new: fill_arrays(new, 20, rows))
except OSError as error:
    print(error.strerror)
"""


def test_a_disk_that_is_really_full_ends_in_that_line(tmp_path):
    """Without the reservation, writing through the memory map ends in a bus error."""
    mount = f'mount -t tmpfs -o size=1m none {tmp_path} && '
    command = mount + f'{sys.executable} -c "$SCRIPT" {tmp_path}'
    if not shutil.which('unshare'):
        pytest.skip('unshare is missing')
    run = ['unshare', '--user', '--map-root-user', '--mount', 'sh', '-c']
    if subprocess.run([*run, mount + 'true'], capture_output=True, check=False).returncode:
        pytest.skip('no small disk can be mounted here')
    done = subprocess.run(
        [*run, command],
        env={**os.environ, 'SCRIPT': SMALL_DISK},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f'disk full while writing {tmp_path}/k')


def test_keys_differ_where_anything_does():
    base = {'a': 1, 'b': {'c': (2, 3)}}
    assert cache_key('x', **base) == cache_key('x', b={'c': [2, 3]}, a=1)
    others = [
        cache_key('y', **base),
        cache_key('x', a=1.5, b=base['b']),
        cache_key('x', a=1, b={'c': (3, 2)}),
        cache_key('x', a=1),
    ]
    assert len({cache_key('x', **base), *others}) == 5
    with pytest.raises(TypeError):  # its text would leave out most of its values
        cache_key('x', a=np.zeros(2000))
    assert json.dumps(cache_key('x', **base)).isascii()


def test_weights_differ_by_value_type_shape_and_name():
    base = {'a': jnp.arange(6.0), 'b': jnp.ones(2)}
    same = {'b': np.ones(2, np.float32), 'a': np.arange(6, dtype=np.float32)}
    assert weights_digest(base) == weights_digest(same)
    others = [
        base | {'a': jnp.arange(6.0).at[3].set(np.nextafter(np.float32(3), np.float32(4)))},
        base | {'a': jnp.arange(6.0).reshape(2, 3)},
        base | {'a': jnp.arange(6.0).view(jnp.int32)},
        {'c': base['a'], 'b': base['b']},
        base | {'a': jnp.arange(6.0, dtype=jnp.bfloat16)},
    ]
    assert len({weights_digest(tree) for tree in (base, *others)}) == 6


def test_code_differs_by_any_line(tmp_path):
    digests = set()
    for text in ('x = 1\n', 'x = 2\n'):
        (tmp_path / 'm.py').write_text(text)
        module = types.ModuleType('m')
        module.__file__ = str(tmp_path / 'm.py')
        digests.add(code_digest(module))
    assert len(digests) == 2
