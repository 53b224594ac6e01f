"""Samples of a teacher: its latents for the conditions that it was given, made once."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.data.cache import EncodedScenes, SceneSet, encode_scenes, joined
from realaudio_jax.data.datasets import MixedScenes
from realaudio_jax.data.latent_crops import RandomCrops, crop_batch
from realaudio_jax.distillation import teacher_samples
from realaudio_jax.distillation.teacher_samples import recordings_as_samples, sample_teacher
from realaudio_jax.noise import RectifiedFlowPath
from realaudio_jax.teachers import ConditionDropout
from realaudio_jax.teachers.pretrained import PretrainedTeacher, whole_batch
from realaudio_jax.teachers.release import load, prepare, to_batch

COUNT = 12
SOME = ConditionDropout(text=0.3, timeline=0.4)


@pytest.fixture(scope='module')
def scenes(tiny_release, tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes')
    return encode_scenes(load(tiny_release), MixedScenes().mixed('train', COUNT, 1.0, 0), folder)


@pytest.fixture
def teacher(tiny_release):
    """A teacher whose latents say what it was given: text, events, loudness, scale."""
    teacher = load(tiny_release)
    teacher.teacher_params = jnp.float32(1.0)

    def guided(params, conditioning, guidance):
        c = conditioning
        facts = [c.text_mask.any(1), c.event_mask.any(1), c.loudness_mask, guidance / 4]
        given = jnp.stack([params * fact for fact in facts], axis=-1)
        return lambda x, t: jnp.zeros_like(x).at[..., :4].set(given[:, None])

    teacher.guided = guided
    return teacher


@pytest.fixture
def sample(scenes, teacher, tmp_path):
    def call(seed=0, dropout=SOME, guidance_range=(1.0, 4.0), steps=3, progress=None):
        return sample_teacher(
            scenes, teacher, guidance_range, steps, 10, dropout, seed, tmp_path, progress
        )

    return call


def test_samples_are_of_the_conditions_kept_beside_them(scenes, sample):
    arrays = sample().arrays
    text, events, loudness, scale = np.moveaxis(arrays['latents'][:, 0, :4], -1, 0)
    np.testing.assert_array_equal(text, arrays['text_mask'].any(1))
    before = scenes.arrays
    np.testing.assert_array_equal(events, arrays['timeline_mask'] & before['event_mask'].any(1))
    np.testing.assert_array_equal(arrays['event_mask'], before['event_mask'])
    assert not loudness.any() and not arrays['loudness_mask'].any()
    np.testing.assert_allclose(4 * scale, arrays['guidance'], rtol=2e-3)
    assert 1 <= arrays['guidance'].min() < 2 < arrays['guidance'].max() <= 4
    assert 0 < text.sum() < before['text_mask'].any(1).sum()
    assert 0 < events.sum() < before['event_mask'].any(1).sum()
    np.testing.assert_array_equal(arrays['onset_s'], before['onset_s'])
    assert arrays['latents'].shape == before['latents'].shape  # 25 frames, of which 24 are tokens
    assert not arrays['latents'][:, 24:].any() and arrays['latents'][:, 23].any()


def test_a_crop_without_an_event_loses_the_caption_that_names_it(sample):
    """Also where the teacher was not given the timeline: its events are still in the caption."""
    samples = sample(dropout=ConditionDropout(text=0.0, timeline=1.0))
    rows = {name: jnp.asarray(array) for name, array in samples.arrays.items()}
    starts, lengths = jnp.zeros(COUNT, int), jnp.full(COUNT, 2)
    cropped = crop_batch(rows, starts, lengths, 2)
    gone = (rows['event_mask'] & (rows['onset_s'] >= 2 / 25)).any(axis=1)
    assert gone.any()
    np.testing.assert_array_equal(cropped['text_mask'].any(axis=1), ~gone)
    assert not to_batch(cropped).conditioning.event_mask.any()


def test_guidance_follows_the_law_of_the_recipes(scenes, sample, teacher, monkeypatch):
    monkeypatch.setattr(teacher_samples, 'draw_guidance', lambda key, n, low_high: jnp.full(n, 3.5))
    assert (sample().arrays['guidance'] == 3.5).all()
    recorded = recordings_as_samples(scenes, teacher, (1.0, 4.0), 0)
    assert (recorded.arrays['guidance'] == 3.5).all()


def test_samples_are_made_once_for_the_same_settings(sample, teacher, tmp_path):
    done = []
    first = sample(progress=done.append)
    assert done == [10, COUNT]
    again = sample(progress=done.append)
    assert done == [10, COUNT]
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name])
    others = [
        sample(seed=1),
        sample(steps=2),
        sample(guidance_range=(2.0, 2.0)),
        sample(dropout=ConditionDropout(text=0.0, timeline=0.0)),
    ]
    teacher._model = teacher._model.clone(dtype='bfloat16')
    others.append(sample())
    assert len(list(tmp_path.iterdir())) == 1 + len(others)
    kept = {path.stem for path in next(tmp_path.iterdir()).glob('*.npy')}
    assert kept == {'latents'}  # the scenes' own are there already
    assert (others[2].arrays['guidance'] == 2).all()
    with pytest.raises(ValueError, match='guidance 3'):
        sample(guidance_range=(3.0, 2.0))


def test_a_batch_of_samples_knows_its_scale_and_loses_no_more(scenes, sample):
    """Conditions were dropped when they were made; only given regions are drawn anew."""
    samples = sample(dropout=ConditionDropout(text=0.0, timeline=0.0))
    batch = to_batch(next(RandomCrops(samples, 8, 0, 1.0)))
    every = ConditionDropout(text=1.0, timeline=1.0, loudness=1.0, init=1.0)
    got = prepare(batch, jax.random.key(0), every)
    np.testing.assert_array_equal(got.conditioning.text_mask, batch.conditioning.text_mask)
    np.testing.assert_array_equal(got.conditioning.event_mask, batch.conditioning.event_mask)
    assert not got.conditioning.loudness_mask.any() and got.conditioning.init_mask.any()
    np.testing.assert_allclose(4 * got.latents[:, 0, 3], got.guidance, rtol=2e-3)
    assert to_batch(next(RandomCrops(scenes, 8, 0, 1.0))).guidance is None


def test_recordings_are_samples_conditioned_on_their_caption_alone(scenes, sample, teacher):
    samples, ours = sample(), recordings_as_samples(scenes, teacher, (1.0, 4.0), 0)
    assert all(array.dtype == samples.arrays[name].dtype for name, array in ours.arrays.items())
    both, recorded = joined(samples, ours), ours.arrays
    np.testing.assert_array_equal(recorded['latents'], scenes.arrays['latents'])
    np.testing.assert_array_equal(recorded['text_mask'], scenes.arrays['text_mask'])
    assert not recorded['timeline_mask'].any() and not recorded['loudness_mask'].any()
    assert 1 <= recorded['guidance'].min() < 2 < recorded['guidance'].max() <= 4
    batch = to_batch(next(RandomCrops(both, 8, 0, 1.0)))
    assert batch.guidance.shape == (8,) and batch.conditioning.event_mask.any()


class Asked(flax.struct.PyTreeNode):
    caption: jax.Array

    def unconditional(self):
        return Asked(jnp.full_like(self.caption, -1.0))


class Pretrained(PretrainedTeacher):
    """A published model whose latents say which caption it was given, and at which scale."""

    name, predictors, networks, path = 'x', ('predictor',), 'small', RectifiedFlowPath()
    params, sample_rate = {'predictor': jnp.float32(2.0)}, 8_000

    def fingerprint(self):
        return 'of a test'

    def encode(self, scenes, seconds):
        yield {
            'latents': np.ones((COUNT, 6, 3), np.float16),
            'caption': np.arange(COUNT, dtype=np.float32),
        }

    def to_batch(self, arrays):
        return whole_batch(arrays, Asked(jnp.asarray(arrays['caption'])))

    def require_seconds(self, seconds):
        pass

    def student(self, params, conditioning, guidance, step_size):
        return self.guided(params, conditioning, guidance)

    def guided(self, params, conditioning, guidance):
        said = jnp.stack([params['predictor'] * conditioning.caption, guidance / 4], axis=-1)
        return lambda x, t: jnp.zeros_like(x).at[..., :2].set(said[:, None])


def test_a_pretrained_teacher_is_sampled_in_the_same_way(tmp_path):
    teacher = Pretrained()
    scenes = encode_scenes(teacher, SceneSet((), COUNT, 1.0, 'x'), tmp_path / 'scenes')
    done = []

    def sample(seed=0, text=0.0):
        return sample_teacher(
            scenes,
            teacher,
            (1.0, 4.0),
            3,
            10,
            ConditionDropout(text=text),
            seed,
            tmp_path,
            done.append,
        ).arrays

    arrays = sample()
    assert done == [10, COUNT] and arrays['latents'].dtype == np.float16
    np.testing.assert_array_equal(arrays['latents'][:, 0, 0], 2.0 * np.arange(COUNT))
    np.testing.assert_allclose(4 * arrays['latents'][:, 0, 1], arrays['guidance'], rtol=2e-3)
    assert 1 <= arrays['guidance'].min() < 2 < arrays['guidance'].max() <= 4
    np.testing.assert_array_equal(arrays['caption'], scenes.arrays['caption'])
    assert (scenes.arrays['latents'] == 1).all()
    sample()
    assert len(done) == 2
    assert (sample(seed=1)['guidance'] != arrays['guidance']).all()
    dropped = sample(text=0.5)
    without = dropped['unconditional']
    assert 0 < without.sum() < COUNT
    np.testing.assert_array_equal(dropped['latents'][without, 0, 0], -2.0)
    batch = teacher.to_batch(dropped)
    np.testing.assert_array_equal(batch.conditioning.caption[without], -1.0)


def test_conditions_that_a_pretrained_teacher_was_given_stay():
    teacher = Pretrained()
    arrays = {'latents': np.ones((4, 6, 3), np.float16), 'caption': np.ones(4, np.float32)}
    for guidance, kept in ((None, -1.0), (np.full(4, 2.0, np.float32), 1.0)):
        given = arrays if guidance is None else arrays | {'guidance': guidance}
        batch = teacher.to_batch(EncodedScenes(given).rows(slice(None)))
        got = teacher.prepare(batch, jax.random.key(0), ConditionDropout(text=1.0))
        np.testing.assert_array_equal(got.conditioning.caption, kept)
    with pytest.raises(ValueError, match='has no timeline: leave onset_weight at 1'):
        teacher.prepare(batch, jax.random.key(0), ConditionDropout(), 4.0)
