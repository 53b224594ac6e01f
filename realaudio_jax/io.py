"""Sound files and atomic writes: the edge between arrays and the disk."""

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import soundfile
import soxr

from realaudio_jax.typing import SAMPLE_RATE

READABLE = ('.wav', '.flac', '.ogg', '.mp3')
WRITABLE = {'.wav': 'PCM_16', '.flac': 'PCM_16', '.ogg': 'VORBIS'}  # and how


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path that becomes `path` only if the block succeeds.

    A failure, a full disk included, leaves whatever stood under `path` before, and no part of the
    new file.

    Args:
      path: the final name. Its folder is made if it is missing.

    Yields:
      A path in the same folder, with the same suffix.

    Raises:
      OSError: the write failed; the message names the final file and the remedy.
    """
    final = pathlib.Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix='.partial-', suffix=final.suffix, dir=final.parent)
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, final)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            error.errno, f'cannot write {final}: {reason}; free some space or choose another folder'
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(
    path: str | os.PathLike, index: str, remedy: str = 'free some space'
) -> Iterator[pathlib.Path]:
    """Yields a temporary folder that becomes `path` only if the block succeeds.

    Where another process was first, its folder stays and this one is dropped.

    Args:
      path: the final name. Its parent is made if it is missing.
      index: name of the file that a complete folder holds.
      remedy: for the message when the disk is full.

    Raises:
      OSError: the write failed; a full disk is named with the remedy.
    """
    final = pathlib.Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(dir=final.parent, prefix='.partial-'))
    try:
        yield temporary
        temporary.chmod(0o755)
        try:
            os.replace(temporary, final)
        except OSError:
            if not (final / index).exists():
                raise
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(error.errno, f'disk full while writing {final}; {remedy}') from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def resample(audio: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """Band-limited resampling (soxr, high quality).

    Args:
      audio: [S] or [S, A].
      source_rate: Hz.
      target_rate: Hz.

    Returns:
      float32 array of round(S * target_rate / source_rate) samples.
    """
    if source_rate == target_rate:
        return np.asarray(audio, np.float32)
    return soxr.resample(np.asarray(audio, np.float32), source_rate, target_rate, quality='HQ')


def read_audio(
    path: str | os.PathLike,
    sample_rate: int = SAMPLE_RATE,
    log: Callable[[str], None] | None = None,
) -> np.ndarray:
    """Reads WAV, FLAC, OGG or MP3 as stereo at the rate asked for.

    Args:
      path: the file.
      sample_rate: Hz, of the result.
      log: called with one line when the file had to be converted.

    Returns:
      float32 [S, 2] in [-1, 1]; a mono file is doubled, of more than two channels the first two
      are kept.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not sound, is empty, or holds NaN or infinity.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no sound file at {path}; check the name')
    try:
        with soundfile.SoundFile(path) as file:
            rate, channels, subtype = file.samplerate, file.channels, file.subtype
            audio = file.read(dtype='float32', always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ValueError(
            f'cannot read {path}: not a sound file that libsndfile knows ({error}); '
            f'give one of {", ".join(READABLE)}'
        ) from error
    if not audio.size:
        raise ValueError(f'{path} holds no samples; give a file with sound in it')
    if not np.isfinite(audio).all():
        raise ValueError(f'{path} holds NaN or infinite samples; export it again')
    changes = []
    if channels != 2:
        changes.append('mono to stereo' if channels == 1 else f'{channels} channels to the first 2')
        audio = np.repeat(audio, 2, axis=1) if channels == 1 else audio[:, :2]
    if rate != sample_rate:
        changes.append(f'{rate} Hz to {sample_rate} Hz')
        audio = resample(audio, rate, sample_rate)
    if subtype in ('PCM_U8', 'PCM_S8'):
        changes.append('8-bit to float')
    if changes and log is not None:
        log(f'{path.name}: converted {", ".join(changes)}')
    return np.ascontiguousarray(audio, np.float32)


def write_audio(path: str | os.PathLike, audio: np.ndarray, sample_rate: int) -> None:
    """Writes 16-bit WAV or FLAC, or Ogg Vorbis, whole or not at all.

    Args:
      path: ends in one of `WRITABLE`.
      audio: [S] or [S, A], int16, or float in [-1, 1] (clipped).
      sample_rate: Hz.

    Raises:
      ValueError: another suffix, or samples that are not finite.
      OSError: the disk is full or the folder cannot be written.
    """
    path = pathlib.Path(path)
    kind = WRITABLE.get(path.suffix.lower())
    if kind is None:
        endings = ' or '.join(WRITABLE)
        raise ValueError(f'cannot write {path.name}: choose a name ending in {endings}')
    audio = np.asarray(audio)
    if audio.dtype != np.int16:
        if not np.isfinite(audio).all():
            raise ValueError(f'refusing to write {path}: the sound holds NaN or infinite samples')
        audio = np.round(np.clip(audio, -1.0, 1.0) * 32767.0).astype(np.int16)
    with atomic_path(path) as temporary:
        try:
            soundfile.write(temporary, audio, sample_rate, subtype=kind)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise OSError(None, str(error)) from error
