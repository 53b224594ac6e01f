import types

import numpy as np
import pytest
from absl import flags

from realaudio_jax.metrics.edits import EDITS
from realaudio_jax.metrics.evaluation.scenes import SceneMeasurements
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


def test_distances_with_the_mark_and_without_are_told_once(experiment, monkeypatch):
    run = experiment('evaluate_watermark')
    rng = np.random.default_rng(0)
    real, *made = (rng.normal(size=(8, 3, 4)) for _ in range(3))
    evaluator = run.SceneEvaluator.__new__(run.SceneEvaluator)
    evaluator.embedders = [types.SimpleNamespace(name='toy')]
    evaluator.windows, evaluator.seed, evaluator.resamples = [list(real)], 1, 20
    evaluator.distances = ('fad', 'kad')
    sets = iter(SceneMeasurements([list(x)], [], None) for x in made)
    evaluator.measure = lambda sounds: next(sets)
    evaluator.rows = lambda measured, columns: [
        {'name': run.FRECHET_DISTANCE, 'value': 1.0} | columns
    ]
    monkeypatch.setattr(run, 'held_out_scenes', lambda *_: ([], None))
    monkeypatch.setattr(run, 'load_evaluators', lambda *_: (None, evaluator.embedders))
    monkeypatch.setattr(run, 'SceneEvaluator', lambda *_, **__: evaluator)
    monkeypatch.setattr(
        run, 'generate_scenes', lambda *_: types.SimpleNamespace(floats=lambda: None)
    )
    flags.FLAGS.mark_as_parsed()
    generator = types.SimpleNamespace(folder=None, with_watermark=lambda mark: None)
    rows = run.quality_rows(generator, None, 8, 1)
    names = [(row['name'], row['edit']) for row in rows]
    assert len(set(names)) == len(names) == 3
    assert (f'{run.FRECHET_DISTANCE}, minus that of not marked', 'marked') in names


def test_a_measurement_that_lacks_a_file_does_not_blame_its_own(experiment, tmp_path):
    def measure():
        raise FileNotFoundError('no weights in DIR')

    with pytest.raises(FileNotFoundError, match='^no weights in DIR$'):
        experiment('common').Measurements(tmp_path, {})('scenes', measure)
