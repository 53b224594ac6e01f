import csv
import json

import pytest

from realaudio_jax.metrics.evaluation import RECONSTRUCTION
from realaudio_jax.metrics.figures import REAL
from realaudio_jax.metrics.setting import Setting


@pytest.fixture
def run(experiment, monkeypatch):
    """The experiment with figures that cost nothing: distance 8 / steps, 10 ms an evaluation."""
    module = experiment('ablate_steps')

    def evaluate(generator, scenes, settings, tower, embedders, others, reference, seed, progress):
        assert reference == Setting('teacher', 4) and len(scenes) == len(others) == 2
        distance = {'name': 'Frechet distance', 'unit': '', 'n': 2, 'embedder': 'audio tower (x)'}
        rows = [
            distance | {'value': 0.5, 'model': REAL},
            distance | {'value': 0.8, 'model': RECONSTRUCTION},
        ]
        for setting in settings:
            columns = setting.columns(generator)
            rows += [
                distance | columns | {'value': 8 / setting.steps},
                {'name': 'NFE', 'value': setting.nfe} | columns,
                {'name': 'time per sound', 'value': 10.0 * setting.nfe, 'unit': 'ms'} | columns,
            ]
        return rows

    monkeypatch.setattr(module, 'evaluate', evaluate)
    return module


def test_tables_and_plot(run, tiny_release, tmp_path):
    run.ablate(str(tiny_release), None, None, 2, 1.0, [1, 2], [1, 4], 0, tmp_path)
    rows = json.loads((tmp_path / 'results.json').read_text())
    assert all(row['release'] == 'tiny' and row['sounds'] == 'foley' for row in rows)
    with open(tmp_path / 'steps.csv') as file:
        wide = list(csv.DictReader(file))
    found = [(r['model'], r['steps'], r['NFE'], r['Frechet distance, audio tower']) for r in wide]
    assert found == [
        (REAL, '', '', '0.5'),
        (RECONSTRUCTION, '', '', '0.8'),
        ('student', '1', '1', '8.0'),
        ('student', '2', '2', '4.0'),
        ('teacher', '1', '2', '8.0'),
        ('teacher', '4', '8', '2.0'),
    ]
    assert (tmp_path / 'steps.png').read_bytes().startswith(b'\x89PNG')
    assert (tmp_path / 'results.md').is_file()
