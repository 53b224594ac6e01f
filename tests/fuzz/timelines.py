"""Timelines that nobody would write: each is read, or is one short line.

python tests/fuzz/timelines.py [count] [seed]

One takes at most a second of computing time.
"""

import json
import sys
import time
import tracemalloc

import numpy as np

from realaudio_jax.timeline import MAX_CHARACTERS, Timeline

MOST_SECONDS, MOST_CHARACTERS = 1.0, 400  # of computing to read one, and of its message
MOST_BYTES = 30_000_000

_TEXTS = [
    'gunshot',
    'dog bark',
    '',
    ' ',
    'a@b',
    'x;y',
    '雨',
    '🐶',
    '\ud800',
    '\x00',
    'Tür',
    '"',
    "'",
]
_NUMBERS = [
    '0', '1', '2.5', '.5', '5.', '1e0', '1e400', '-1', '+1', 'nan', 'inf', '-inf', '\u0131nf',
    '\u0661', '1_0', '0x1', '9' * 400, '1.2.3', '', ' ', '1e-400', '１', 'ｉnf', '--1', '10',
]  # fmt: skip
_PIECES = [
    '@', '-', ':', ';', ',', 'dB', 's', ' ', '\t', '\n', '[', ']', '{', '}', '"', '\\', '\xa0',
]  # fmt: skip
_SECONDS = [
    10,
    10.0,
    0.5,
    None,
    'ten',
    '10',
    float('nan'),
    float('inf'),
    1e308,
    10**400,
    -1,
    True,
    [1],
]


def _value(rng):
    """Anything that may stand where a number belongs."""
    return [
        1, 2.5, -1, 10**400, True, None, 'x', '1', float('nan'), float('inf'), [], {}, [[1]],
        np.float32(1.5), np.int64(3), 1e308, -0.0,
    ][rng.integers(17)]  # fmt: skip


def _short(rng):
    pick = lambda pool: pool[rng.integers(len(pool))]  # noqa: E731
    parts = []
    for _ in range(rng.integers(1, 5)):
        spans = [f'{pick(_NUMBERS)}-{pick(_NUMBERS)}' for _ in range(rng.integers(1, 4))]
        gain = f':{pick(_NUMBERS)}dB' if rng.random() < 0.4 else ''
        parts.append(f'{pick(_TEXTS)}@{",".join(spans)}{gain}')
    text = pick(['; ', ';', ', ', ' ']).join(parts)
    for _ in range(rng.integers(0, 4)):  # and damage
        at = rng.integers(len(text) + 1)
        text = text[:at] + pick(_PIECES) * rng.integers(1, 4) + text[at + rng.integers(0, 3) :]
    return text


def _events(rng):
    made = []
    for _ in range(rng.integers(0, 5)):
        event = {'text': _TEXTS[rng.integers(len(_TEXTS))], 'onset_s': _value(rng)}
        event |= {'offset_s': _value(rng), 'gain_db': _value(rng)}
        for name in list(event):
            if rng.random() < 0.1:
                event[name + 'x'] = event.pop(name)
        made.append(event if rng.random() < 0.6 else list(event.values()))
    return made


def _long(rng):
    piece = ['1', ' ', '@', 'a@1-2,', ';', '[', '{"a":', 'x', '-', 'a@1-2;', '9', 'e', '@1-', ' @']
    body = piece[rng.integers(len(piece))] * int(10 ** rng.uniform(2, 6))
    return f'a@1{body}-2' if rng.random() < 0.3 else body


def case(rng):
    """(spec, seconds, loudness_db) of one trial."""
    kind = rng.integers(6)
    if kind == 0:
        spec = _short(rng)
    elif kind == 1:
        spec = _events(rng)
    elif kind == 2:
        spec = json.dumps(_events(rng), default=float)
        at = rng.integers(len(spec) + 1)
        spec = spec[:at] + _PIECES[rng.integers(len(_PIECES))] + spec[at:]
    elif kind == 3:
        spec = _long(rng)
    elif kind == 4:
        spec = {'events': _events(rng), ['loudness_db', 'loudnes'][rng.integers(2)]: _value(rng)}
    else:
        spec = _value(rng)
    seconds = 10 if rng.random() < 0.8 else _SECONDS[rng.integers(len(_SECONDS))]
    curve = None
    if rng.random() < 0.2:
        curve = [_value(rng)] * 250 if rng.random() < 0.7 else _value(rng)
    return spec, seconds, curve


def run(count: int, seed: int = 0) -> dict[str, int]:
    """How many of `count` were read and how many refused; anything else is an AssertionError."""
    found = {'read': 0, 'refused': 0}
    for index in range(count):
        spec, seconds, curve = case(np.random.default_rng((seed, index)))
        begin = time.process_time()
        try:
            timeline = Timeline.parse(spec, seconds, loudness_db=curve)
            assert Timeline.parse(timeline.to_json(), seconds) == timeline, f'case {index}'
            found['read'] += 1
        except ValueError as error:
            text = str(error)
            assert '\n' not in text and len(text) <= MOST_CHARACTERS, f'case {index}: {text[:999]}'
            found['refused'] += 1
        took = time.process_time() - begin
        assert took < MOST_SECONDS, f'case {index} took {took:.1f} s'
    return found


def peak_bytes(seed: int = 0) -> int:
    """The most memory that reading the longest texts takes."""
    tracemalloc.start()
    for text in ('a@1-2;', '[', 'x', ' ', '[["a",1,2],', '@'):
        for length in (MAX_CHARACTERS, 10 * MAX_CHARACTERS):
            try:
                Timeline.parse((text * length)[:length], 10)
            except ValueError:
                pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


if __name__ == '__main__':
    print(run(*map(int, sys.argv[1:] or ['10000'])))
    print(f'{peak_bytes() / 1e6:.1f} MB at most')
