"""Damaged sound files and tables of recordings, made from a seed, and what reading them must be.

    python tests/fuzz/fuzz_sounds.py --count=300 --seed=0

Each is read, or refused with one line that names it, in at most a second of computing time and with
no allocation beyond ten times what the undamaged file holds.
"""

import argparse
import collections
import io
import pathlib
import resource
import struct
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import soundfile

from realaudio_jax.data.recordings_table import read_table
from realaudio_jax.sound_files import read_sound

KINDS = (
    ('wav', 'WAV', 'PCM_16'),
    ('24.wav', 'WAV', 'PCM_24'),
    ('float.wav', 'WAV', 'FLOAT'),
    ('adpcm.wav', 'WAV', 'IMA_ADPCM'),
    ('flac', 'FLAC', 'PCM_16'),
    ('ogg', 'OGG', 'VORBIS'),
    ('opus', 'OGG', 'OPUS'),
    ('mp3', 'MP3', 'MPEG_LAYER_III'),
    ('aiff', 'AIFF', 'PCM_16'),
    ('au', 'AU', 'PCM_16'),
    ('caf', 'CAF', 'PCM_16'),
    ('w64', 'W64', 'PCM_16'),
    ('rf64', 'RF64', 'PCM_16'),
    ('voc', 'VOC', 'PCM_16'),
)
EXTREMES = (0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 0xFFFFFF)
ODD_FLOATS = (np.nan, np.inf, 1e37, -1e6)
MAX_CPU_SECONDS = 1.0
MAX_GROWTH = 10  # times the undamaged sound as it is read: stereo, float32, 48 kHz
ALLOWANCE = 2 << 20  # bytes: blocks of decoding, and Python's own


class Case(NamedTuple):
    """A file to be read: its suffix, its bytes, and how it was damaged."""

    suffix: str
    data: bytes
    damage: str


def intact(seed: int) -> list[tuple[str, bytes]]:
    """A third of a second of noise and tone, as each kind of file."""
    rng = np.random.default_rng(seed)
    tone = 0.3 * np.sin(0.05 * np.arange(16_000))[:, None] * [[1.0, -0.5]]
    sound = tone + 0.05 * rng.normal(size=(16_000, 2))
    files = []
    for suffix, kind, subtype in KINDS:
        buffer = io.BytesIO()
        soundfile.write(buffer, sound, 48_000, format=kind, subtype=subtype)
        files.append((suffix, buffer.getvalue()))
    return files


def _flip(rng: np.random.Generator, data: bytes, last: int) -> bytes:
    out = bytearray(data)
    for at in rng.integers(min(last, len(out)), size=rng.integers(1, 20)):
        out[at] ^= 1 << rng.integers(8)
    return bytes(out)


def _extreme(rng: np.random.Generator, data: bytes) -> bytes:
    at, order = int(rng.integers(4, 80)), rng.choice(['<', '>'])
    value = struct.pack(f'{order}I', EXTREMES[rng.integers(len(EXTREMES))])
    return data[:at] + value + data[at + 4 :]


def _lying_length(rng: np.random.Generator, data: bytes) -> bytes:
    """Up to 2^36 samples of FLAC, or 2^32 frames of MP3, where the header counts them."""
    at = data.find(b'Info') + 8 if b'Info' in data[:200] else 22
    first = (data[at - 1] & 0xF0) | int(rng.integers(16)) if data[:4] == b'fLaC' else data[at - 1]
    return (
        data[: at - 1]
        + struct.pack('>BI', first, 2**31 | int(rng.integers(2**31)))
        + data[at + 4 :]
    )


def _odd_floats(rng: np.random.Generator, data: bytes) -> bytes:
    at = 100 + 4 * int(rng.integers(1000))
    value = struct.pack('<f', ODD_FLOATS[rng.integers(len(ODD_FLOATS))])
    return data[:at] + value + data[at + 4 :]


DAMAGE: dict[str, Callable[[np.random.Generator, bytes], bytes]] = {
    'bits anywhere': lambda rng, data: _flip(rng, data, len(data)),
    'bits of the header': lambda rng, data: _flip(rng, data, 64),
    'a lying header': _extreme,
    'a lying length': _lying_length,
    'cut short': lambda rng, data: data[: rng.integers(len(data))],
    'a hole': lambda rng, data: data[:200] + bytes(int(rng.integers(9_000))) + data[700:],
    'twice': lambda rng, data: data + data,
    'rubbish after it': lambda rng, data: data + rng.bytes(5_000),
    'odd floats': _odd_floats,
    'rubbish': lambda rng, data: data[:4] + rng.bytes(3_000),
}


def damaged_sounds(seed: int, count: int) -> Iterator[Case]:
    """`count` files; the i-th depends on (seed, i) alone."""
    files = intact(seed)
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        suffix, data = files[i % len(files)]
        damage = list(DAMAGE)[rng.integers(len(DAMAGE))]
        yield Case(suffix, DAMAGE[damage](rng, data), damage)


def damaged_tables(seed: int, count: int) -> Iterator[Case]:
    """`count` tables of recordings; the i-th depends on (seed, i) alone."""
    table = b'file,label,caption,split\n' + b''.join(
        b'%d.wav,dog bark,"A dog, and a ""cat""",train\n' % i for i in range(20)
    )
    odd = (b'"', b'\0', b'\n', b'\r', b',', b';', b'\t', b'../', b'/', b'\xff', b'x' * 200_000)
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        data = table
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(data)))
            data = data[:at] + odd[rng.integers(len(odd))] + data[at + int(rng.integers(3)) :]
        yield Case('metadata.csv', _flip(rng, data, len(data)) if i % 2 else data, 'odd bytes')


def problem(read: Callable[[], object], name: str, room: int) -> tuple[str, str | None]:
    """What came of reading something, and what is wrong with that, if anything is.

    Args:
        read: reads it.
        name: what an error must say.
        room: bytes that may be allocated.
    """
    begin = time.process_time()
    tracemalloc.start()
    try:
        read()
        outcome, wrong = 'read', None
    except (ValueError, OSError) as error:
        text = str(error)
        outcome, wrong = 'refused', None
        if '\n' in text or len(text) > 600 or name not in text:
            wrong = f'no clear line: {text[:300]!r}'
    except Exception as error:  # whatever it is, it is what is looked for
        outcome, wrong = 'raised', f'{type(error).__name__}: {error}'
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    spent = time.process_time() - begin
    if spent > MAX_CPU_SECONDS:
        wrong = f'{spent:.1f} s'
    if peak > room:
        wrong = f'{peak} bytes allocated where {room} are allowed'
    return outcome, wrong


def read_checked(path: pathlib.Path) -> None:
    """`read_sound`; what it returns is sound."""
    audio = read_sound(path).audio
    if not (len(audio) and np.isfinite(audio).all() and np.abs(audio).max() <= 1.0):
        raise AssertionError(f'shape {audio.shape}, not all in [-1, 1]')


def run(seed: int, count: int, folder: pathlib.Path) -> tuple[collections.Counter, list[str]]:
    """Outcomes by damage, and a line for each fault."""
    outcomes, faults = collections.Counter(), []
    whole = 16_000 * 2 * 4
    for i, case in enumerate(damaged_sounds(seed, count)):
        path = folder / f'{i}.{case.suffix}'
        path.write_bytes(case.data)
        room = MAX_GROWTH * max(len(case.data), 2 * whole) + ALLOWANCE
        outcome, wrong = problem(lambda path=path: read_checked(path), path.name, room)
        outcomes[case.damage, outcome] += 1
        if wrong:
            faults.append(f'seed {seed}, number {i}, {case.suffix}, {case.damage}: {wrong}')
        path.unlink()
    for i in range(20):
        (folder / f'{i}.wav').write_bytes(b'')
    for i, case in enumerate(damaged_tables(seed, count)):
        (folder / case.suffix).write_bytes(case.data)
        room = MAX_GROWTH * len(case.data) + ALLOWANCE
        outcome, wrong = problem(lambda: read_table(folder, lambda line: None), case.suffix, room)
        outcomes['table', outcome] += 1
        if wrong:
            faults.append(f'seed {seed}, table {i}: {wrong}')
    return outcomes, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--count', type=int, default=300)
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        outcomes, faults = run(options.seed, options.count, pathlib.Path(folder))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    for (damage, outcome), number in sorted(outcomes.items()):
        print(f'{damage:20} {outcome:8} {number}')
    print(*faults, f'{len(faults)} faults; the process grew by {grown / 1024:.0f} MiB', sep='\n')
    raise SystemExit(bool(faults))


if __name__ == '__main__':
    main()
