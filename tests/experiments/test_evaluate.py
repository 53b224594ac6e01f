import numpy as np
import pytest

from realaudio_jax.io import write_audio
from realaudio_jax.metrics.embedders.registry import load_embedders
from realaudio_jax.metrics.evaluation.generate import SamplerConfig
from realaudio_jax.metrics.rows import REAL


def sounds(folder, level, seed):
    rng = np.random.default_rng(seed)
    for i in range(4):
        audio = level * rng.normal(size=(24_000, 2)).clip(-3, 3)
        write_audio(folder / f'{i}.wav', audio.astype(np.float32), 16_000)
    return folder


def test_a_folder_is_nearer_to_its_own_kind(experiment, tower_release, tmp_path):
    run = experiment('evaluate')
    real = sounds(tmp_path / 'real', 0.1, 0)
    near, far = sounds(tmp_path / 'near', 0.1, 1), sounds(tmp_path / 'far', 0.01, 2)
    value = {}
    for folder in (near, far):
        rows = run.evaluate_folders(
            folder, real, [], str(tower_release), None, ['fad'], 0, tmp_path / 'work'
        )
        assert rows[0]['model'] == REAL and 'audio tower' in rows[0]['embedder']
        value[folder.name] = rows[1]['value']
    assert value['near'] < 0.5 * value['far']
    assert len(list((tmp_path / 'work' / 'embeddings').rglob('*.npz'))) == 12


def test_embedders_are_named(experiment, tiny_release, tower_release, tmp_path):
    experiment('evaluate')
    assert load_embedders(['tower'], str(tower_release))[0].dimension == 256
    with pytest.raises(ValueError, match='name --embedder_weights'):
        load_embedders([], str(tiny_release))
    with pytest.raises(ValueError, match='yamnet needs its weights'):
        load_embedders(['yamnet'], 'no release is looked for')
    with pytest.raises(ValueError, match="no embedder 'vggish2'; choose from tower, yamnet"):
        load_embedders(['vggish2'], str(tiny_release))


def test_a_release_is_evaluated_beside_its_teacher(experiment, tower_release, monkeypatch):
    run = experiment('evaluate')
    seen = {}

    def evaluate(generator, scenes, samplers, tower, embedders, others, **kwargs):
        seen.update(
            samplers=samplers, scenes=len(scenes), others=len(others), tower=tower, **kwargs
        )
        return []

    monkeypatch.setattr(run, 'evaluate_release', evaluate)
    monkeypatch.setattr(run, 'latency_rows', lambda generator, scene, sampler: [sampler])
    rows = run.evaluate_held_out(str(tower_release), None, None, 2, 1.0, [2], 0, ['kad'], 3)
    assert rows == seen['samplers']  # the latency of each
    assert seen['samplers'] == [
        SamplerConfig('student', 2),
        SamplerConfig('teacher', 4),
        SamplerConfig('teacher', 50),
    ]
    assert seen['distances'] == ['kad'] and seen['diversity_prompts'] == 3
    assert seen['comparisons'] == [] and seen['reference'] == SamplerConfig('teacher', 50)
    monkeypatch.setattr(run, 'step_cosine_row', lambda generator, scenes, *pair, seed: pair)
    monkeypatch.setattr(run, 'in_turn_row', lambda generator, scene, *pair: pair)
    rows = run.evaluate_held_out(
        str(tower_release), None, None, 2, 1.0, [2], 0, int8=True, teacher=False
    )
    student, rounded = SamplerConfig('student', 2), SamplerConfig('student', 2, precision='int8')
    assert seen['samplers'] == [student, rounded] and seen['reference'] is None
    assert seen['comparisons'] == [(rounded, student)]
    assert rows == [student, rounded, (rounded, student), (rounded, student)]
    assert seen['scenes'] == seen['others'] == 2 and seen['tower'] is not None
