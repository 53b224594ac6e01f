"""Writes files and sounds, whole or not at all; resampling. `sound_files` reads."""

import contextlib
import errno
import io
import os
import pathlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

from realaudio_jax.audio import to_pcm16

WRITABLE = {'.wav': 'PCM_16', '.flac': 'PCM_16', '.ogg': 'VORBIS'}  # and how
_BLOCK = 1 << 16  # samples written at a time


def printable(text: str | bytes | os.PathLike, most: int = 200) -> str:
    """A name or a text as one line that any UTF-8 file and terminal takes.

    Line breaks, control characters and bytes that are not UTF-8 become escapes such as `\\n` and
    `\\xff`; of a long text the middle is left out.

    Args:
        text: as a user, a file or the operating system gave it.
        most: characters of the result.
    """
    text = os.fsdecode(text)
    text = ''.join(c if c.isprintable() else _escape(c) for c in text)
    half = (most - 5) // 2
    return text if len(text) <= most else f'{text[:half]} ... {text[-half:]}'


def _escape(character: str) -> str:
    try:  # a byte that is not UTF-8 stands in a name as a lone surrogate
        raw = character.encode('utf-8', 'surrogateescape')
    except UnicodeEncodeError:
        raw = b''
    if len(raw) == 1 and raw[0] > 127:
        return f'\\x{raw[0]:02x}'
    return character.encode('unicode_escape').decode()


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike, durable: bool = True) -> Iterator[pathlib.Path]:
    """Atomic write: yields a temporary path that becomes `path` only if the block succeeds.

    A failure, a full disk included, leaves whatever stood under `path` before, and no part of the
    new file. What was written has reached the disk before it gets its name; its permissions are
    those of any new file (umask).

    Args:
        path: the final name. Its folder is made if it is missing.
        durable: False does not wait for the disk, for caches that are checked when they are read.

    Yields:
        A path in the same folder, with the same suffix.

    Raises:
        OSError: the write failed; the message names the final file and the remedy.
    """
    final = pathlib.Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.parent / f'.partial-{secrets.token_hex(8)}{final.suffix}'
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        if durable:
            with open(temporary, 'rb+') as file:  # a full disk may show no earlier than here
                os.fsync(file.fileno())
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
    """Atomic write of a folder: yields a temporary one that becomes `path` if the block succeeds.

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


def encode_audio(audio: np.ndarray, sample_rate: int, suffix: str) -> bytes:
    """A sound file's bytes: 16-bit WAV or FLAC, or Ogg Vorbis.

    Args:
        audio: [S] or [S, A], int16, or float in [-1, 1] (clipped).
        sample_rate: Hz.
        suffix: one of `WRITABLE`.

    Raises:
        ValueError: another suffix, or samples that are not finite.
    """
    kind = WRITABLE.get(suffix.lower())
    if kind is None:
        raise ValueError(f'no kind of sound file has the suffix {suffix!r}: {", ".join(WRITABLE)}')
    audio = np.asarray(audio)
    if audio.dtype != np.int16:
        if not np.isfinite(audio).all():
            raise ValueError('the sound holds NaN or infinite samples')
        audio = to_pcm16(audio)
    encoded, container = io.BytesIO(), suffix[1:].upper()
    channels = audio.shape[1] if audio.ndim == 2 else 1
    with soundfile.SoundFile(encoded, 'w', sample_rate, channels, kind, None, container) as file:
        for start in range(0, len(audio), _BLOCK):  # of a minute at once its Vorbis encoder crashes
            file.write(audio[start : start + _BLOCK])
    return encoded.getvalue()


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
    if path.suffix.lower() not in WRITABLE:
        endings = ' or '.join(WRITABLE)
        raise ValueError(f'cannot write {path.name}: choose a name ending in {endings}')
    try:
        encoded = encode_audio(audio, sample_rate, path.suffix)
    except ValueError as error:
        raise ValueError(f'refusing to write {path}: {error}') from None
    # Not by libsndfile: it tells nobody of a disk that is full when the file is closed.
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)
