"""Caches: where they lie, and that none of them can end a run."""

import os
import subprocess
import sys
import types
import warnings
import zlib

import pytest

from realaudio_jax import cache


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    cache._writable.cache_clear()
    cache._warn.cache_clear()
    yield
    cache._writable.cache_clear()
    cache._warn.cache_clear()


def test_the_environment_says_where(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    for chosen, folder in (
        (tmp_path / 'there', tmp_path / 'there'),
        ('~/here', tmp_path / 'home' / 'here'),
        ('', tmp_path / 'home' / '.cache' / 'realaudio_jax'),
    ):
        monkeypatch.setenv('REALAUDIO_CACHE', str(chosen))
        assert cache.cache_dir() == folder and folder.is_dir()


@pytest.mark.parametrize('variable', ['HOME', 'REALAUDIO_CACHE'])
def test_what_cannot_be_written_is_one_warning_and_a_folder_of_the_process(monkeypatch, variable):
    monkeypatch.delenv('REALAUDIO_CACHE', raising=False)
    monkeypatch.setenv(variable, '/dev/null')
    with pytest.warns(UserWarning, match='/dev/null.* cannot be written: nothing is') as caught:
        folder = cache.cache_dir()
        assert cache.cache_dir() == folder
    assert len(caught) == 1 and (folder / '..').is_dir() and 'realaudio_jax_' in folder.name


NO_HOME = """
import sys, tempfile
real = tempfile.TemporaryFile
def read_only(*args, dir=None, **more):  # by which numba tries whether it can cache there
    if 'realaudio_jax_' not in str(dir):
        raise PermissionError(dir)
    return real(*args, dir=dir, **more)
tempfile.TemporaryFile = read_only
import realaudio_jax
sys.path.insert(0, sys.argv[1])
import compiled
"""
COMPILED = """
import numba
@numba.njit(cache=True)  # as librosa has it: without a folder for its cache this is an error
def same(x):
    return x
"""


def test_the_package_can_be_used_without_a_home(tmp_path):
    """numba, under librosa, would end with a traceback where nothing can be cached."""
    (tmp_path / 'compiled.py').write_text(COMPILED)
    environment = {k: v for k, v in os.environ.items() if k != 'NUMBA_CACHE_DIR'}
    done = subprocess.run(
        [sys.executable, '-c', NO_HOME, str(tmp_path)],
        env={**environment, 'HOME': '/dev/null', 'REALAUDIO_CACHE': ''},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, '')


def test_a_truncated_program_is_removed_and_compiled_again(monkeypatch, tmp_path):
    packed = zlib.compress(b'program' * 999)
    (tmp_path / 'jit_f-aa-cache').write_bytes(packed)
    (tmp_path / 'jit_f-bb-cache').write_bytes(packed[:-9])
    (tmp_path / 'jit_g-cc-cache').write_bytes(packed[:-9])
    monkeypatch.setattr(cache, 'jax', types.SimpleNamespace(config=types.SimpleNamespace()))
    cache.jax.config.jax_compilation_cache_dir = str(tmp_path)
    said = "Error reading persistent compilation cache entry for 'jit_f': Error: incomplete"
    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter('always')
        with cache.damaged_programs_removed():
            warnings.warn(said, stacklevel=1)
            warnings.warn('something else', stacklevel=1)
    assert [str(w.message) for w in others] == ['something else']
    assert {p.name for p in tmp_path.iterdir()} == {'jit_f-aa-cache', 'jit_g-cc-cache'}


REAL = """
import jax, jax.numpy as jnp, sys
from realaudio_jax.cache import damaged_programs_removed
jax.config.update('jax_compilation_cache_dir', sys.argv[1])
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
def f(x):
    return jnp.sin(x) @ x
with damaged_programs_removed():
    print(jax.jit(f)(jnp.ones((5, 5))).sum())
"""


def test_jax_itself_reads_the_program_that_took_the_place_of_a_damaged_one(tmp_path):
    def run():
        return subprocess.run(
            [sys.executable, '-c', REAL, str(tmp_path)], capture_output=True, text=True, check=True
        )

    first = run()
    (entry,) = tmp_path.glob('jit_f-*-cache')
    whole = entry.read_bytes()
    entry.write_bytes(whole[: len(whole) // 2])
    second = run()
    assert second.stdout == first.stdout and 'Error reading' not in second.stderr
    assert len(entry.read_bytes()) > len(whole) // 2
