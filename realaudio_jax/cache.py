"""The cache folder on disk, for compiled programs and decoded recordings, and what protects it."""

import atexit
import contextlib
import functools
import os
import pathlib
import re
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Iterator

import jax

CACHE_VARIABLE = 'REALAUDIO_CACHE'
_UNREADABLE = re.compile(
    r"Error reading persistent compilation cache entry for '(?P<program>[^']*)'"
)


def cache_dir() -> pathlib.Path:
    """The cache folder: $REALAUDIO_CACHE, or ~/.cache/realaudio_jax.

    Where that cannot be written, or there is no home: a folder of this process alone, with a
    warning. An empty variable is none.
    """
    folder, reason = _chosen()
    if reason:
        _warn(reason)
    return folder


def protect_caches() -> None:
    """Moves the caches of numba and matplotlib into `cache_dir` where there is no home folder.

    Otherwise numba, which librosa uses, ends the import with a traceback. To be called before
    either is imported.
    """
    with contextlib.suppress(RuntimeError):
        if _writable(pathlib.Path('~/.cache').expanduser()):
            return
    for variable, name in (('NUMBA_CACHE_DIR', 'numba'), ('MPLCONFIGDIR', 'matplotlib')):
        if not os.environ.get(variable):
            os.environ[variable] = str(_chosen()[0] / name)


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that a second process starts without compiling."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update('jax_compilation_cache_dir', str(cache_dir() / 'xla'))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


@contextlib.contextmanager
def damaged_programs_removed() -> Iterator[None]:
    """Removes compiled programs on disk that turn out to be damaged while something is compiled.

    JAX itself warns, compiles, and keeps the damaged file, at every start anew.
    """
    with warnings.catch_warnings():
        show = warnings.showwarning
        warnings.simplefilter('always', UserWarning)

        def removed(message, *rest, **more):
            if not remove_damaged_program(str(message)):
                show(message, *rest, **more)

        warnings.showwarning = removed
        yield


def remove_damaged_program(warning: str) -> bool:
    """Removes the cached program that a warning of JAX calls unreadable; else returns False."""
    found, folder = _UNREADABLE.match(warning), jax.config.jax_compilation_cache_dir
    if not found or not folder:
        return False
    files = list(pathlib.Path(folder).glob(f'{found["program"]}-*-cache'))
    for file in [file for file in files if not _intact(file)] or files:
        with contextlib.suppress(OSError):
            file.unlink()
    return True


def _intact(file: pathlib.Path) -> bool:
    """Whether a compiled program can be unpacked: JAX packs by zstandard, if it is there."""
    try:
        packed = file.read_bytes()
        if packed.startswith(b'\x28\xb5\x2f\xfd'):
            import zstandard

            zstandard.ZstdDecompressor().decompress(packed)
        else:
            zlib.decompress(packed)
    except Exception:  # of zstandard, zlib, the disk, or a missing library
        return False
    return True


def _chosen() -> tuple[pathlib.Path, str]:
    """The folder, and why it is none that stays, or ''."""
    name = os.environ.get(CACHE_VARIABLE) or '~/.cache/realaudio_jax'
    try:
        folder = pathlib.Path(name).expanduser()
    except RuntimeError:
        return _temporary(), 'there is no home folder'
    if _writable(folder):
        return folder, ''
    return _temporary(), f'{folder} cannot be written'


@functools.cache
def _writable(folder: pathlib.Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@functools.cache
def _temporary() -> pathlib.Path:
    folder = tempfile.mkdtemp(prefix='realaudio_jax_')
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return pathlib.Path(folder)


@functools.cache
def _warn(reason: str) -> None:
    warnings.warn(
        f'{reason}: nothing is cached beyond this run; set {CACHE_VARIABLE} to a folder',
        stacklevel=3,
    )
