"""The short form of fuzz_sounds."""

import fuzz_sounds
import numpy as np

from realaudio_jax.sound_files import read_sound


def test_undamaged_sounds_are_read(tmp_path):
    for suffix, data in fuzz_sounds.intact(1):
        path = tmp_path / f'a.{suffix}'
        path.write_bytes(data)
        assert abs(len(read_sound(path).audio) - 16_000) < 3_000, suffix


def test_damaged_sounds_and_tables_are_read_or_one_line(tmp_path):
    outcomes, faults = fuzz_sounds.run(seed=7, count=90, folder=tmp_path)
    assert not faults, '\n'.join(faults)
    assert {outcome for _, outcome in outcomes} == {'read', 'refused'}
    assert outcomes['cut short', 'refused'] >= 5


def test_a_reader_that_believes_headers_is_caught(tmp_path):
    """The checks find what they look for."""
    size = 1 << 20
    assert fuzz_sounds.problem(lambda: np.zeros(2 * size, np.int8), 'x', size)[1]
    assert fuzz_sounds.problem(lambda: [][1], 'x', size) == (
        'raised',
        'IndexError: list index out of range',
    )

    def refuse(text):
        raise ValueError(text)

    assert fuzz_sounds.problem(lambda: refuse('x: no'), 'x', size) == ('refused', None)
    assert fuzz_sounds.problem(lambda: refuse('y: no'), 'x', size)[1].startswith('no clear line')
    assert fuzz_sounds.problem(lambda: refuse('x:\nno'), 'x', size)[1].startswith('no clear line')
