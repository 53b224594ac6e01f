import errno

import numpy as np
import pytest

from realaudio_jax.data import latent_cache
from realaudio_jax.data.latent_cache import (
    FRAME_SAMPLES,
    LatentScenes,
    build_latent_scenes,
    crop_batch,
    crop_lengths,
    fingerprint,
    frame_loudness,
)
from realaudio_jax.data.loader import batches
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

    def audio(self, audio):
        self.audio_shapes.append(audio.shape)
        return np.repeat(audio[:, ::FRAME_SAMPLES, :1], C, axis=2)

    def text(self, texts, max_tokens):
        self.texts.append(texts)
        code = np.array([sum(map(ord, text)) % 97 for text in texts], np.float32)
        mask = np.arange(max_tokens)[None, :] < np.array([len(t) for t in texts])[:, None]
        states = np.ones((len(texts), max_tokens, D)) * code[:, None, None]
        return states, mask, np.ones((len(texts), D)) * code[:, None]


def build(folder, encoders, count=7, key='k', scenes=None):
    made = scenes if scenes is not None else (scene(i) for i in range(count))
    return build_latent_scenes(
        made, count, FRAMES / 25, encoders.audio, encoders.text, folder, key, batch_size=3
    )


@pytest.fixture
def cached(tmp_path):
    return build(tmp_path, Encoders())


def test_everything_known_of_a_scene_is_stored(cached):
    assert len(cached) == 7 and cached.frames == FRAMES
    assert cached.captions[4] == 'caption 4' and cached.event_texts[3] == ['sound 0', 'bell']
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
        assert not (tmp_path / 'k').exists()
        raise OSError('no space')

    with pytest.raises(OSError, match='no space'):
        build(tmp_path, Encoders(), scenes=broken())
    with pytest.raises(ValueError, match='4 scenes'):
        build(tmp_path, Encoders(), scenes=(scene(i) for i in range(4)))
    with pytest.raises(ValueError, match='raise seconds'):
        build(tmp_path, Encoders(), scenes=[scene(0, FRAMES + 1)])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        LatentScenes(tmp_path / 'k')


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(latent_cache, 'reserve', full)
    with pytest.raises(OSError, match='disk full while writing .*k; free some space'):
        build(tmp_path, Encoders())
    assert list(tmp_path.iterdir()) == []


def test_fingerprints_differ_where_the_parts_do():
    assert fingerprint({'a': 1, 'b': 2}, 3) == fingerprint({'b': 2, 'a': 1}, 3)
    assert len({fingerprint('a', 1), fingerprint('a', 2), fingerprint('b', 1)}) == 3


def test_loudness_is_the_rms_of_the_middle_with_a_floor():
    audio = np.zeros((3 * FRAME_SAMPLES + 100, 2), np.float32)
    audio[FRAME_SAMPLES : 2 * FRAME_SAMPLES] = [0.2, 0.0]
    audio[2 * FRAME_SAMPLES :] = [0.3, -0.3]
    np.testing.assert_allclose(frame_loudness(audio), [-80.0, -20.0, -80.0], atol=1e-4)


def test_a_crop_moves_and_clips_the_events(cached):
    cropped = crop_batch(cached.rows([1, 3]), [6, 14], 10)  # from 0.24 s and 0.56 s, for 0.4 s
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
    whole = crop_batch(cached.rows([1, 3]), [0, 0], FRAMES)
    assert np.array_equal(whole['text_mask'], cached.rows([1, 3])['text_mask'])
    assert whole['text_mask'].any()


def test_crop_lengths_are_even_and_between_the_limits():
    lengths = crop_lengths(250)
    assert lengths[0] == 14 and lengths[-1] == 250 and len(lengths) == 8
    assert all(length % 2 == 0 for length in lengths)
    assert crop_lengths(10) == [10]


def test_samples_are_random_crops_of_one_even_length(cached):
    rng, seen = np.random.default_rng(0), set()
    for _ in range(40):
        batch = cached.sample_batch(rng, 6)
        frames = batch['latents'].shape[1]
        seen.add(frames)
        assert frames % 2 == 0 and batch['loudness_db'].shape == (6, frames)
        assert batch['latents'].dtype == batch['event_text'].dtype == np.float32
        assert (batch['seconds'] == np.float32(frames / 25)).all()
        assert (batch['offset_s'] <= batch['seconds'][:, None] + 1e-6).all()
        mask = batch['event_mask']
        assert (batch['offset_s'] > batch['onset_s'])[mask].all()
        # the latents say where the crop begins; the bell rings 0.8 s into the scene
        start = np.round((batch['latents'][:, 0, 0] % 0.01 * -1 + batch['latents'][:, 0, 0]) * 100)
        bell = mask[:, 1] & (batch['onset_s'][:, 1] > 0)
        np.testing.assert_allclose(batch['onset_s'][bell, 1] + start[bell] / 25, 0.8, atol=0.05)
    assert len(seen) > 2 and FRAMES in seen
    assert cached.sample_batch(rng, 2, 0.8)['latents'].shape[1] == 20
    with pytest.raises(ValueError, match='take less'):
        cached.sample_batch(rng, 2, 9.0)


def test_the_loader_takes_cached_scenes(cached):
    stream = batches(cached, 3, 0, latent_cache.RandomCrop(cached.frames))
    batch = next(stream)
    assert batch['latents'].shape[0] == 3 and batch['latents'].dtype == np.float32
