import errno
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax import processes
from realaudio_jax.data import cache, latent_crops
from realaudio_jax.data.cache import EncodedScenes, SceneSet, encode_scenes, joined, open_scenes
from realaudio_jax.data.latent_crops import RandomCrops, crop_batch
from realaudio_jax.data.scene_encoder import FRAME_SAMPLES, SceneEncoder, frame_loudness
from realaudio_jax.data.scenes import Scene
from realaudio_jax.timeline import Event
from realaudio_jax.typing import MAX_EVENTS

C, D, T = 5, 7, 11
FRAMES = 30  # 1.2 s


def scene(i, frames=FRAMES):
    audio = np.zeros((frames * FRAME_SAMPLES, 2), np.float32)
    audio[:] = (np.repeat(np.arange(frames), FRAME_SAMPLES) / 100 + i / 1000)[:, None]
    events = (Event(f'sound {i % 3}', 0.1, 0.4, -3.0), Event('bell', 0.8, 1.1))[: 1 + i % 2]
    return Scene(audio, f'caption {i}', events, ('x',), frames / 25, None)


class Encoders:
    """Stand-ins that count their calls: latents carry the frame's sample value, texts a code."""

    def __init__(self):
        self.audio_shapes, self.texts = [], []

    def fingerprint(self):
        return 'of a test'

    def encode_audio(self, audio):
        self.audio_shapes.append(audio.shape)
        return np.repeat(audio[:, ::FRAME_SAMPLES, :1], C, axis=2)

    def encode_text(self, texts, max_tokens):
        self.texts.append(texts)
        code = np.array([sum(map(ord, text)) % 97 for text in texts], np.float32)
        mask = np.arange(max_tokens)[None, :] < np.array([len(t) for t in texts])[:, None]
        states = np.ones((len(texts), max_tokens, D)) * code[:, None, None]
        return states, mask, np.ones((len(texts), D)) * code[:, None]


def build(folder, encoders, count=7, scenes=None):
    made = scenes if scenes is not None else (scene(i) for i in range(count))
    scenes = SceneSet(made, count, FRAMES / 25, 'of a test')
    return encode_scenes(SceneEncoder(encoders, batch_size=3), scenes, folder)


def rows(cached, which):
    return {name: jnp.asarray(array) for name, array in cached.rows(which).items()}


@pytest.fixture
def cached(tmp_path):
    return build(tmp_path, Encoders())


def test_everything_known_of_a_scene_is_stored(cached):
    assert len(cached) == 7
    item = cached[3]
    assert {name: (x.dtype.name, x.shape) for name, x in item.items()} == {
        'latents': ('float16', (FRAMES, C)),
        'text': ('float16', (64, D)),
        'text_mask': ('bool', (64,)),
        'event_text': ('float16', (MAX_EVENTS, D)),
        'onset_s': ('float32', (MAX_EVENTS,)),
        'offset_s': ('float32', (MAX_EVENTS,)),
        'gain_db': ('float32', (MAX_EVENTS,)),
        'event_mask': ('bool', (MAX_EVENTS,)),
        'loudness_db': ('float32', (FRAMES,)),
        'seconds': ('float32', ()),
    }
    np.testing.assert_allclose(item['latents'][:, 0], np.arange(FRAMES) / 100 + 0.003, atol=1e-3)
    assert item['event_mask'].sum() == 2 and item['event_text'][1, 0] == sum(map(ord, 'bell')) % 97
    np.testing.assert_allclose(item['onset_s'][:3], [0.1, 0.8, 0.0])


def test_encoders_see_one_shape_and_each_event_text_once(tmp_path):
    encoders = Encoders()
    build(tmp_path, encoders)
    assert set(encoders.audio_shapes) == {(3, FRAMES * FRAME_SAMPLES, 2)}
    event_texts = [t for texts in encoders.texts if len(texts) == 6 for t in set(texts)]
    assert sorted(event_texts) == ['bell', 'sound 0', 'sound 1', 'sound 2']


def test_a_second_call_opens_what_the_first_left(tmp_path):
    build(tmp_path, Encoders())
    encoders = Encoders()
    again = build(tmp_path, encoders, scenes=iter(()))
    assert len(again) == 7 and not encoders.audio_shapes


def test_nothing_is_left_under_the_name_of_a_cache_that_failed(tmp_path):
    def broken():
        yield from (scene(i) for i in range(4))
        assert all(path.name.startswith('.partial') for path in tmp_path.iterdir())
        raise OSError('no space')

    with pytest.raises(OSError, match='no space'):
        build(tmp_path, Encoders(), scenes=broken())
    with pytest.raises(ValueError, match='4 scenes'):
        build(tmp_path, Encoders(), scenes=(scene(i) for i in range(4)))
    with pytest.raises(ValueError, match='raise seconds'):
        build(tmp_path, Encoders(), scenes=[scene(0, FRAMES + 1)])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        open_scenes(tmp_path / 'k')


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(cache, 'reserve', full)
    with pytest.raises(OSError, match='disk full while writing .*; free some space'):
        build(tmp_path, Encoders())
    assert list(tmp_path.iterdir()) == []


def test_loudness_is_the_rms_of_the_middle_with_a_floor():
    audio = np.zeros((3 * FRAME_SAMPLES + 100, 2), np.float32)
    audio[FRAME_SAMPLES : 2 * FRAME_SAMPLES] = [0.2, 0.0]
    audio[2 * FRAME_SAMPLES :] = [0.3, -0.3]
    np.testing.assert_allclose(frame_loudness(audio), [-80.0, -20.0, -80.0], atol=1e-4)


def test_a_crop_moves_and_clips_the_events(cached):
    cropped = crop_batch(
        rows(cached, [1, 3]), jnp.array([6, 14]), jnp.array([10, 10]), 10
    )  # from 0.24 s and 0.56 s, for 0.4 s
    assert cropped['latents'].shape == (2, 10, C)
    np.testing.assert_allclose(
        cropped['latents'][0, :, 0], np.arange(6, 16) / 100 + 0.001, atol=1e-3
    )
    np.testing.assert_allclose(cropped['seconds'], 0.4)
    assert cropped['event_mask'][:, :2].tolist() == [[True, False], [False, True]]
    np.testing.assert_allclose(cropped['onset_s'][:, :2], [[0.0, 0.0], [0.0, 0.24]], atol=1e-6)
    np.testing.assert_allclose(cropped['offset_s'][:, :2], [[0.16, 0.0], [0.0, 0.4]], atol=1e-6)
    assert not cropped['event_text'][0, 1].any() and cropped['gain_db'][1, 0] == 0.0
    assert not cropped['text_mask'].any()  # both captions name a sound that is gone
    whole = crop_batch(rows(cached, [1, 3]), jnp.array([0, 0]), jnp.array([FRAMES, FRAMES]), FRAMES)
    assert np.array_equal(whole['text_mask'], rows(cached, [1, 3])['text_mask'])
    assert whole['text_mask'].any()


def test_lengths_are_even_and_half_of_them_the_longest():
    lengths = np.asarray(latent_crops.random_lengths(jax.random.key(0), 4000, 12, 250))
    assert lengths.min() == 12 and lengths.max() == 250 and (lengths % 2 == 0).all()
    assert 0.47 < (lengths == 250).mean() < 0.53
    others = np.log(lengths[lengths < 250])
    assert abs(np.median(others) - np.log(12 * 250) / 2) < 0.05
    assert (latent_crops.random_lengths(jax.random.key(0), 50, 250, 250) == 250).all()


def test_batches_are_random_crops_of_random_scenes(cached):
    data, seen = RandomCrops(cached, 6, 0, 0.4), set()
    for _ in range(40):
        batch = {name: np.asarray(x) for name, x in next(data).items()}
        assert batch['latents'].shape == (6, FRAMES, C) and batch['loudness_db'].shape[1] == FRAMES
        assert batch['latents'].dtype == batch['event_text'].dtype == np.float32
        seen |= set(np.round(batch['seconds'] * 25).astype(int))
        assert (batch['offset_s'] <= batch['seconds'][:, None] + 1e-6).all()
        mask = batch['event_mask']
        assert (batch['offset_s'] > batch['onset_s'])[mask].all()
        # the latents say where the crop begins; the bell rings 0.8 s into the scene
        start = np.floor(100 * batch['latents'][:, 0, 0] + 0.02)
        assert (start % 2 == 0).all()
        bell = mask[:, 1] & (batch['onset_s'][:, 1] > 0)
        np.testing.assert_allclose(batch['onset_s'][bell, 1] + start[bell] / 25, 0.8, atol=0.05)
    assert min(seen) == 10 and max(seen) == FRAMES and len(seen) > 4
    for wrong in (9.0, 0.01):
        with pytest.raises(ValueError, match='take shorter'):
            RandomCrops(cached, 2, 0, wrong)


def test_half_of_the_crops_are_chosen_by_an_event(cached):
    """Of 10-frame crops of a 30-frame scene, chance alone puts the first onset into few."""
    batch = {name: jnp.asarray(array[[1] * 2000]) for name, array in cached.arrays.items()}
    batch['event_mask'] = batch['event_mask'].at[:, 0].set(False)  # the bell at 0.8 s is left
    lengths = jnp.full(2000, 10)
    starts = np.asarray(latent_crops.random_starts(jax.random.key(0), batch, lengths))
    assert starts.min() == 0 and starts.max() == 20
    heard = ((starts / 25 <= 0.8) & (0.8 < starts / 25 + 0.4)).mean()
    assert 0.67 < heard < 0.76  # half of them, and 9 of 21 of the others
    batch['event_mask'] = jnp.zeros_like(batch['event_mask'])
    starts = np.asarray(latent_crops.random_starts(jax.random.key(0), batch, lengths))
    assert abs(starts.mean() - 9.5) < 0.5


def test_batches_go_on_where_they_were(cached):
    data = RandomCrops(cached, 3, 5, 0.4)
    next(data)
    state, second = data.get_state(), next(data)
    again = RandomCrops(cached, 3, 5, 0.4)
    again.set_state(json.loads(json.dumps(state)))
    jax.tree.map(np.testing.assert_array_equal, second, next(again))
    other = RandomCrops(cached, 3, 6, 0.4)
    other.set_state(state)
    assert not np.array_equal(second['onset_s'], next(other)['onset_s'])


def test_processes_cut_their_rows_of_the_same_batches(cached, monkeypatch):
    whole = next(RandomCrops(cached, 6, 5, 0.4))
    monkeypatch.setattr(processes._Run, 'count', 2)
    parts = []
    for index in (0, 1):
        monkeypatch.setattr(processes._Run, 'index', index)
        parts.append(next(RandomCrops(cached, 6, 5, 0.4)))
    for name, array in whole.items():
        rows = [part[name] for part in parts]
        assert {len(part) for part in rows} == {3}
        np.testing.assert_array_equal(np.concatenate(rows), array)


def test_no_crop_is_longer_than_its_scene(tmp_path):
    scenes = [scene(i, frames=(FRAMES, 12)[i % 2]) for i in range(6)]
    data = RandomCrops(build(tmp_path, Encoders(), 6, scenes=scenes), 8, 0, 0.4)
    longest = {True: 0.0, False: 0.0}
    for _ in range(20):
        batch = next(data)
        for latents, seconds in zip(batch['latents'], batch['seconds'], strict=True):
            short = round(float(latents[0, 0] * 1000)) % 2 == 1  # of odd number, see `scene`
            longest[short] = max(longest[short], float(seconds))
    assert longest == {True: pytest.approx(12 / 25), False: pytest.approx(FRAMES / 25)}


def test_sets_are_joined_if_they_are_alike(cached):
    other = EncodedScenes({k: v[:1] for k, v in cached.arrays.items()})
    all_three = joined(cached, other, cached)
    assert set(all_three.arrays) == set(cached.arrays) and len(all_three) == 15
    assert joined(cached) is cached
    for name, array in all_three.arrays.items():
        parts = np.split(array, [len(cached), len(cached) + 1])
        for part, given in zip(parts, (cached, other, cached), strict=True):
            np.testing.assert_array_equal(part, given.arrays[name])
    for other in (
        cached.replacing({'latents': cached.arrays['latents'][:, 1:]}),
        cached.replacing({'guidance': np.ones(len(cached))}),
    ):
        with pytest.raises(ValueError, match='only alike sets can be joined'):
            joined(cached, cached, other)
