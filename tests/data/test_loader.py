import json

import numpy as np
import pytest

from realaudio_jax import processes
from realaudio_jax.data.loader import as_text, batches, scene_arrays
from realaudio_jax.typing import SAMPLE_RATE


class Numbers:
    def __len__(self):
        return 11

    def __getitem__(self, i):
        return {'x': np.full(3, i, np.float32), 'name': f'item {i}'}


def jitter(item, rng):
    return {**item, 'noise': rng.standard_normal(2)}


def stream(seed=4, **kwargs):
    return batches(Numbers(), 4, seed, jitter, **kwargs)


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_batches_are_dicts_of_arrays_of_shuffled_items():
    first = next(stream())
    assert first['x'].shape == (4, 3) and first['noise'].shape == (4, 2)
    assert [f'item {int(x)}' for x in first['x'][:, 0]] == list(first['name'])
    order = [int(x) for batch in stream(epochs=4) for x in batch['x'][:, 0]]
    assert len(order) == 44
    assert sorted(order[:11]) == list(range(11)) and order[:11] != list(range(11))
    assert order[:11] != order[11:22]


def test_processes_get_their_rows_of_the_same_batches(monkeypatch):
    whole = stream(epochs=4)
    monkeypatch.setattr(processes._Run, 'count', 2)
    parts = []
    for index in (0, 1):
        monkeypatch.setattr(processes._Run, 'index', index)
        parts.append(list(stream(epochs=4)))
    monkeypatch.setattr(processes._Run, 'count', 1)
    for batch, *rows in zip(whole, *parts, strict=True):
        assert same(batch, {k: np.concatenate([r[k] for r in rows]) for k in batch})
    monkeypatch.setattr(processes._Run, 'count', 3)
    with pytest.raises(ValueError, match='a batch of 4 cannot be split evenly over 3 processes'):
        stream()


def test_the_seed_decides():
    assert same(next(stream(4)), next(stream(4)))
    assert not same(next(stream(4)), next(stream(5)))


@pytest.mark.parametrize('consumed', [0, 1, 7])
def test_a_restored_stream_goes_on_as_if_never_stopped(consumed):
    straight = stream()
    for _ in range(consumed):
        next(straight)
    state = json.loads(json.dumps(straight.get_state()))
    resumed = stream()
    next(resumed)  # where it stood before does not matter
    resumed.set_state(state)
    for _ in range(6):
        assert same(next(straight), next(resumed))


def test_too_few_items_is_an_error():
    with pytest.raises(ValueError, match='batch_size'):
        batches(Numbers(), 12, 0)


def test_stored_scenes_get_one_shape():
    example = {
        'audio': np.repeat(np.arange(-100, 14300, dtype=np.int16)[:, None], 2, axis=1),
        'caption': b'a bell',
        'events': {
            'text': [b'bell', b'horn'],
            'onset_s': np.float32([0.05, 0.25]),
            'offset_s': np.float32([0.1, 0.3]),
            'gain_db': np.float32([0.0, -6.0]),
        },
        'seconds': np.float32(0.3),
    }
    longer = scene_arrays(0.5, 3)(example, np.random.default_rng(0))
    assert longer['audio'].shape == (SAMPLE_RATE // 2, 2) and not longer['audio'][14400:].any()
    assert longer['caption'] == 'a bell' and longer['seconds'] == np.float32(0.3)
    assert longer['event_mask'].tolist() == [True, True, False]
    np.testing.assert_allclose(longer['gain_db'], [0.0, -6.0, 0.0])
    for seed in range(10):
        cut = scene_arrays(0.2, 3)(example, np.random.default_rng(seed))
        start = (cut['audio'][0, 0] * 32768 + 100) / SAMPLE_RATE
        horn = cut['event_mask'].sum() - 1
        if start + 0.2 > 0.25:
            assert cut['onset_s'][horn] == pytest.approx(0.25 - start, abs=1e-6)
        assert cut['audio'].shape == (9600, 2) and (cut['offset_s'] <= 0.2 + 1e-6).all()
    assert as_text('x') == as_text(b'x') == 'x'
