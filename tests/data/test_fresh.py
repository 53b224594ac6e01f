"""Batches of scenes that are mixed on the way: which scenes, exact resume, balance, label_text."""

import collections
import pathlib
import pickle

import jax
import numpy as np
import pytest
import soundfile

from realaudio_jax import processes
from realaudio_jax.data import datasets, fresh, label_text
from realaudio_jax.data.fresh import FreshCrops, SceneMaker
from realaudio_jax.data.scene_encoder import FRAME_SAMPLES, SceneEncoder
from realaudio_jax.data.scenes import Scene
from realaudio_jax.data.sources import FoleySource, Recordings
from realaudio_jax.timeline import Event
from realaudio_jax.typing import SAMPLE_RATE

SECONDS, CHANNELS, WIDTH = 0.4, 3, 5


class Counted:
    """Scene i, which carries its number in every sample; remembers what was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, i):
        self.asked.append(i)
        audio = np.full((round(SECONDS * SAMPLE_RATE), 2), i / 1024, np.float32)
        return Scene(audio, f'{i}', (Event('bell', 0.1, 0.3),), ('x',), SECONDS, None)


class Encoders:
    """Latents carry a scene's number."""

    def encode_audio(self, audio):
        return np.repeat(1024 * audio[:, ::FRAME_SAMPLES, :1], CHANNELS, axis=2)

    def encode_text(self, texts, max_tokens):
        states = np.zeros((len(texts), max_tokens, WIDTH))
        return states, np.ones(states.shape[:2], bool), states[:, 0]

    def fingerprint(self):
        return 'of a test'


def encoder():
    return SceneEncoder(Encoders(), fresh.ENCODED_AT_ONCE)


def crops(make, batch_size=4, pool=11, uses=1.0, folder=None, seed=7, **kwargs):
    return FreshCrops(
        make, encoder(), SECONDS, batch_size, seed, SECONDS, pool, uses, folder=folder, **kwargs
    )


def numbers(batch):
    return np.asarray(batch['latents'][:, 0, 0]).astype(int).tolist()


def test_no_scene_comes_twice():
    data = crops(Counted(), batch_size=6)
    seen = [numbers(next(data)) for _ in range(5)]
    assert [sorted(batch) for batch in seen] == [list(range(6 * n, 6 * n + 6)) for n in range(5)]
    assert any(batch != sorted(batch) for batch in seen)


def test_the_window_moves_and_each_scene_is_drawn_so_often_on_average():
    data = crops(Counted(), batch_size=4, pool=16, uses=4.0)
    batches = [numbers(next(data)) for _ in range(400)]
    for n, batch in enumerate(batches):
        first = n // 8 * 8
        assert first <= min(batch) and max(batch) < first + 16
    counts = collections.Counter(i for batch in batches for i in batch)
    assert np.mean([counts[i] for i in range(16, 384)]) == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize('uses', [1.0, 2.5])
@pytest.mark.parametrize('kept', [False, True])
def test_a_resumed_stream_goes_on_bit_for_bit(uses, kept, tmp_path):
    folder = tmp_path / 'chunks' if kept else None
    data = crops(Counted(), pool=10, uses=uses, folder=folder)
    for _ in range(9):
        next(data)
    state = data.get_state()
    expected = [next(data) for _ in range(7)]
    again = crops(Counted(), pool=10, uses=uses, folder=folder)
    again.set_state(state)
    for batch in expected:
        jax.tree.map(np.testing.assert_array_equal, batch, next(again))
    again.set_state({'next': 9})  # back to where chunks have left the pool
    jax.tree.map(np.testing.assert_array_equal, expected[0], next(again))
    other = crops(Counted(), pool=10, uses=uses, seed=8)
    other.set_state(state)
    assert numbers(next(other)) != numbers(expected[0])


def test_kept_scenes_are_not_made_again_and_old_ones_go(tmp_path):
    first = crops(Counted(), batch_size=4, pool=16, uses=2.0, folder=tmp_path)
    for _ in range(40):
        next(first)
    assert len(list(tmp_path.iterdir())) == 4  # two chunks of the window, two of the one before
    make = Counted()
    again = crops(make, batch_size=4, pool=16, uses=2.0, folder=tmp_path)
    again.set_state(first.get_state())
    assert numbers(next(again)) == numbers(next(first))
    assert len(make.asked) <= 8  # where the next batch moves the window
    for path in tmp_path.iterdir():  # damaged ones are made anew
        content = bytearray(path.read_bytes())
        content[content.index(b'NUMPY') + 130] ^= 1
        path.write_bytes(content)
    third = crops(make, batch_size=4, pool=16, uses=2.0, folder=tmp_path)
    third.set_state(first.get_state())
    jax.tree.map(np.testing.assert_array_equal, next(third), next(first))


def test_processes_mix_scenes_of_their_own_between_them_all(monkeypatch):
    made = []

    class Given(FreshCrops):
        def __init__(self, *given):
            made.append(given)

    monkeypatch.setattr(datasets, 'FreshCrops', Given)
    monkeypatch.setattr(datasets, 'SceneMaker', lambda *given: Counted())
    for count, index in ((1, 0), (2, 0), (2, 1)):
        monkeypatch.setattr(processes._Run, 'count', count)
        monkeypatch.setattr(processes._Run, 'index', index)
        datasets.fresh_crops(
            Encoders(), FoleySource(), 1.0, 5, 8, 0.4, 12, 2.0, 0.0, None, pathlib.Path('latents')
        )
    numbers = [[int(given[0](i).caption) for i in range(4)] for given in made]
    assert numbers == [[0, 1, 2, 3], [0, 2, 4, 6], [1, 3, 5, 7]]
    assert [given[3] for given in made] == [8, 4, 4]  # rows of a batch
    assert [given[6] for given in made] == [12, 6, 6]  # scenes of a pool
    assert made[0][4] == 5 and len({given[4] for given in made[1:]}) == 2  # seeds
    assert len({given[9] for given in made}) == 3  # folders


def test_progress_is_told_while_the_pool_is_filled():
    said = []
    data = crops(Counted(), pool=16, uses=4.0, progress=lambda *x: said.append(x))
    next(data)
    assert said == [(8, 16), (16, 16)]


def test_wrong_arguments_are_one_line_each():
    with pytest.raises(ValueError, match='used 0.5 times'):
        crops(Counted(), uses=0.5)
    with pytest.raises(ValueError, match='batches of 4 from a pool of 3'):
        crops(Counted(), pool=3, uses=2.0)


@pytest.fixture
def recordings(tmp_path):
    """Nine takes of one label, one of another; ten files of 4.5 s."""
    lines = ['file,label']
    rng = np.random.default_rng(0)
    for i in range(10):
        label = 'dog bark' if i < 9 else 'rooster'
        name = f'{"abcdefghij"[i]}.wav'
        time = np.arange(round(4.5 * SAMPLE_RATE)) / SAMPLE_RATE
        tone = np.sin(2 * np.pi * (300 + 50 * i) * time) * np.exp(-time)
        soundfile.write(tmp_path / name, 0.3 * tone + 1e-4 * rng.standard_normal(len(tone)), 48000)
        lines.append(f'{name},{label}')
    (tmp_path / 'metadata.csv').write_text('\n'.join(lines))
    return Recordings(tmp_path, 'all', tmp_path / 'cache', lambda line: None, balance=1.0)


def test_a_scene_depends_on_seed_and_number_alone(recordings):
    make = SceneMaker(3, recordings, 5.0, unmixed=0.5)
    scenes = [make(i) for i in range(6)]
    again = pickle.loads(pickle.dumps(make))  # as a worker gets it
    for i in (5, 0, 3):
        other = again(i)
        np.testing.assert_array_equal(other.audio, scenes[i].audio)
        assert (other.caption, other.events) == (scenes[i].caption, scenes[i].events)
    first = {scene.audio[:48000].tobytes() for scene in scenes}
    assert len(first) == 6
    assert not np.array_equal(SceneMaker(4, recordings, 5.0)(0).audio, scenes[0].audio)


def test_labels_are_balanced_and_a_share_is_whole(recordings):
    make = SceneMaker(0, recordings, 5.0, unmixed=0.5)
    scenes = [make(i) for i in range(160)]
    whole = [scene for scene in scenes if not scene.events]
    assert 0.35 < len(whole) / 160 < 0.65
    share = np.mean([scene.labels == ('rooster',) for scene in whole])
    assert 0.33 < share < 0.67  # a tenth of the files
    lengths = {round(scene.seconds, 3) for scene in whole}
    assert len(lengths) > 20 and max(lengths) == 5.0 and min(lengths) < 4.0
    assert all(np.abs(scene.audio).max() <= 0.9501 for scene in scenes)


def test_without_recordings_nothing_is_whole():
    scene = SceneMaker(0, FoleySource(), 1.0, unmixed=1.0)(0)
    assert scene.seconds == 1.0 and len(scene.audio) == SAMPLE_RATE


def test_captions_use_other_names_of_a_sound(recordings):
    make = SceneMaker(1, recordings, 5.0)
    texts = collections.Counter(e.text for i in range(120) for e in make(i).events)
    names = {*label_text.variants('dog bark'), *label_text.variants('rooster')}
    assert set(texts) <= names and len(texts) > 5
    assert {'dog', 'barking dog', 'dog bark', 'cock-a-doodle-doo'} <= set(texts)
    assert label_text.variants('no such sound') == ('no such sound',)


def test_names_know_each_other():
    assert label_text.variants('woof')[0] == 'woof' and 'rooster' in label_text.variants(
        'crowing rooster'
    )
    for text, group in label_text._SYNONYMS.items():
        assert label_text.variants(text) == group and len(set(group)) == len(group) > 1
        assert 'door' not in group  # of slams and creaks alike
