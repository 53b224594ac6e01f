import types

import numpy as np
import pytest

from realaudio_jax.metrics.edits import EDITS
from realaudio_jax.metrics.rows import share_row
from realaudio_jax.watermark_detection import Detection


def test_rows_of_an_edit_say_what_was_lost(experiment):
    run = experiment('evaluate_watermark')
    sounds = [(f'sound {i}', i, np.full((10, 2), i / 10)) for i in range(4)]

    def detector(audio, rate):
        i = round(10 * float(audio.max()))
        return Detection(i != 3, 1e-9, 10.0 + i, payload=i if i else 7)

    rows = run.edit_rows(EDITS[0], 3.0, sounds, detector, np.random.default_rng(0))
    found, exact, *scores = rows
    assert found['value'] == 75 and found['low'] < 50 and found['note'] == 'lost: sound 3'
    assert exact['value'] == 75 and [row['value'] for row in scores] == [11.5, 10]
    assert all(row['edit'] == 'none' and row['seconds'] == 3 for row in rows)


def test_false_alarms_are_counted_with_exact_intervals(experiment):
    run = experiment('evaluate_watermark')
    p_values = np.linspace(0.0005, 1, 1000)
    value = {row['name']: row for row in run.null_rows('recordings', list(p_values))}
    assert value['p below 0.001']['value'] == pytest.approx(0.1)
    assert value['p below 0.5']['value'] == pytest.approx(50, abs=0.2)
    assert value['least p']['value'] == 0.0005
    assert share_row('x', [False] * 300)['high'] == pytest.approx(1.222, abs=0.01)  # 3.69 / n


def test_measurements_are_made_once_and_kept_apart(experiment, tmp_path):
    measurements = experiment('common').Measurements
    count = types.SimpleNamespace(value=0)

    def measure(x):
        count.value += 1
        return [x, None]

    for _ in range(2):
        kept = measurements(tmp_path, {'seed': 1})
        assert kept('10 s, none', measure, 3) == [3, None] and count.value == 1
    assert kept('3 s, none', measure, 4) == [4, None] and count.value == 2
    with pytest.raises(ValueError, match='measurements of another seed; name another --workdir'):
        measurements(tmp_path, {'seed': 2})


def test_a_measurement_that_lacks_a_file_does_not_blame_its_own(experiment, tmp_path):
    def measure():
        raise FileNotFoundError('no weights in DIR')

    with pytest.raises(FileNotFoundError, match='^no weights in DIR$'):
        experiment('common').Measurements(tmp_path, {})('scenes', measure)
