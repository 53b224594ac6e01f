"""The cache of embeddings: what is kept, what is recomputed, what is left out and why."""

import numpy as np
import pytest
from toy_embedder import toy

from realaudio_jax.io import write_audio
from realaudio_jax.metrics.embedders.base import embed_clips
from realaudio_jax.metrics.embedders.cache import embed_files


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i, (rate, samples) in enumerate([(16_000, 5000), (48_000, 9000), (16_000, 800)]):
        path = tmp_path / 'sounds' / f'{i}.wav'
        write_audio(path, 0.1 * rng.normal(size=(samples, 2)).clip(-3, 3), rate)
        paths.append(path)
    write_audio(tmp_path / 'sounds' / '3.wav', np.zeros((4000, 2)), 16_000)
    return [*paths, tmp_path / 'sounds' / '3.wav']


def test_vectors_are_those_of_the_files_and_come_from_disk_the_second_time(files, tmp_path):
    calls, done = [], []
    found = embed_files(toy(calls=calls), files, tmp_path / 'cache', 4, done.append)
    for a, b in zip(found.vectors, embed_clips(toy(), files), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert found.files == tuple(files) and not found.left_out and done[-1] == 4
    assert (found.short, found.silent, found.sample_rates) == (1, 1, (16_000, 48_000))
    first = len(calls)
    again = embed_files(toy(calls=calls), files[::-1], tmp_path / 'cache', 1)
    assert len(calls) == first and again.files == tuple(files[::-1])
    np.testing.assert_array_equal(again.vectors.take([3, 2])[0], found.vectors[0])
    assert (again.short, again.silent, again.sample_rates) == (1, 1, (16_000, 48_000))


def test_an_edited_file_or_another_checkpoint_is_embedded_anew(files, tmp_path):
    before = embed_files(toy(), files, tmp_path / 'cache')
    write_audio(files[0], np.full((5000, 2), 0.5), 16_000)
    after = embed_files(toy(), files, tmp_path / 'cache')
    assert np.abs(after.vectors[0][:, 0] - 0.5).max() < 1e-3
    np.testing.assert_array_equal(after.vectors[1], before.vectors[1])
    calls = []
    embed_files(toy('toy (4567)', calls), files, tmp_path / 'cache')
    assert calls


@pytest.mark.parametrize('damage', ['flipped', 'truncated', 'empty'])
def test_damaged_vectors_are_computed_anew(files, tmp_path, damage):
    before = [np.array(v) for v in embed_files(toy(), files, tmp_path / 'cache').vectors]
    calls = []
    for entry in sorted((tmp_path / 'cache').rglob('*.npz'))[:2]:
        content = bytearray(entry.read_bytes())
        content[content.index(b'NUMPY') + 130] ^= 1  # of the first array's values
        end = {'flipped': len(content), 'truncated': len(content) // 2, 'empty': 0}[damage]
        entry.write_bytes(content[:end])
    again = embed_files(toy(calls=calls), files, tmp_path / 'cache', 1)
    assert calls
    for a, b in zip(again.vectors, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_that_was_stopped_goes_on(files, tmp_path):
    calls = []

    def stop(done):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_files(toy(calls=calls), files, tmp_path / 'cache', 1, stop)
    first = len(calls)
    found = embed_files(toy(calls=calls), files, tmp_path / 'cache', 1)
    assert len(found.files) == 4
    assert len(calls) - first == sum(len(v) for v in found.vectors) - sum(
        len(found.vectors[i]) for i in (0, 1)
    )


def test_unreadable_files_are_left_out_with_the_reason(files, tmp_path):
    files[1].write_bytes(b'RIFF but no more of it')
    gone = tmp_path / 'sounds' / 'gone.wav'
    found = embed_files(toy(), [*files[:2], gone, *files[2:]], tmp_path / 'cache', 2)
    assert found.files == (files[0], files[2], files[3]) and len(found.vectors) == 3
    assert [file.name for file, _ in found.left_out] == ['1.wav', 'gone.wav']
    assert all(reason and '\n' not in reason for _, reason in found.left_out)
