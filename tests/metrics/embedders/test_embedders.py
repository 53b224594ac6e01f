"""The windowing of clips: any length, order and batch size give the same vectors."""

import numpy as np
import pytest

from realaudio_jax import io
from realaudio_jax.metrics.embedders.base import Embedder, embed_clips, embed_stream

RATE = 100


def _embed(audio):
    """Mean and last sample of each window of 10 samples every 4."""
    windows = np.lib.stride_tricks.sliding_window_view(audio, 10, axis=1)[:, ::4]
    return np.stack([windows.mean(-1), windows[..., -1]], -1)


EMBEDDER = Embedder('toy', RATE, 2, 0.10, 'CC0-1.0', _embed, hop_s=0.04)


def _clips():
    rng = np.random.default_rng(0)
    return [0.3 * rng.normal(size=n).clip(-3, 3).astype(np.float32) for n in (25, 10, 3, 13, 14)]


def test_windows_equal_embedding_each_clip_whole():
    clips = _clips()
    found = embed_clips(EMBEDDER, clips, batch=3)
    assert [len(v) for v in found] == [4, 1, 1, 1, 2]
    for clip, vectors in zip(clips, found, strict=True):
        padded = np.pad(clip, (0, max(0, 10 - len(clip))))
        np.testing.assert_allclose(vectors, _embed(padded[None])[0], rtol=1e-6)


@pytest.mark.parametrize('batch', [1, 4, 64])
def test_batch_size_and_order_change_nothing(batch):
    clips = _clips()
    expected = embed_clips(EMBEDDER, clips, batch=3)
    found = embed_clips(EMBEDDER, clips[::-1], batch=batch)[::-1]
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_stream_yields_before_the_last_clip_is_read():
    read = []

    def clips():
        for clip in _clips():
            read.append(len(clip))
            yield clip

    next(embed_stream(EMBEDDER, clips(), batch=2))
    assert len(read) < 5


def test_files_and_other_rates_are_brought_to_mono_at_the_embedders_rate(tmp_path):
    stereo = np.random.default_rng(1).uniform(-0.5, 0.5, (4800, 2)).astype(np.float32)
    io.write_audio(tmp_path / 'a.wav', stereo, 48_000)
    embedder = Embedder('toy', 16_000, 2, 10 / 16_000, 'CC0-1.0', _embed, 4 / 16_000)
    file, array = (
        embed_clips(embedder, [tmp_path / 'a.wav']),
        embed_clips(embedder, [stereo], 48_000),
    )
    assert file[0].shape == (1 + (1600 - 10) // 4, 2)
    np.testing.assert_allclose(file[0], array[0], atol=1e-4)


def test_bad_clips_are_named():
    with pytest.raises(ValueError, match='clip 1'):
        embed_clips(EMBEDDER, [np.zeros(20, np.float32), np.zeros(0, np.float32)])
    with pytest.raises(ValueError, match='clip 0.*NaN'):
        embed_clips(EMBEDDER, [np.full(20, np.nan, np.float32)])
    with pytest.raises(ValueError, match='clip 0.*complex'):
        embed_clips(EMBEDDER, [np.zeros(20, np.complex64)])


def test_integer_samples_are_scaled_by_their_type():
    clip = _clips()[0]
    pcm = np.round(clip * 32768).astype(np.int16)
    (a,), (b,) = embed_clips(EMBEDDER, [clip]), embed_clips(EMBEDDER, [pcm])
    np.testing.assert_allclose(a, b, atol=1e-3)
