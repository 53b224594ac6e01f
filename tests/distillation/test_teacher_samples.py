"""A teacher's answers: its sound for the conditions it was told, made once."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.data.frozen_encoders import load_frozen_encoders
from realaudio_jax.data.latent_cache import RandomCrops, crop_batch, joined
from realaudio_jax.data.mixtures import FoleySource
from realaudio_jax.data.prepared import latent_scenes
from realaudio_jax.data.scenes import Scene
from realaudio_jax.data.teacher_cache import build_teacher_scenes
from realaudio_jax.distillation import teacher_samples
from realaudio_jax.distillation.setup import DistillationSetup
from realaudio_jax.distillation.teacher_samples import (
    recordings_as_samples,
    sample_pretrained_teacher,
    sample_teacher,
)
from realaudio_jax.models.denoiser import PATH
from realaudio_jax.noise import RectifiedFlowPath
from realaudio_jax.teachers.distilling import whole_batch, with_absence
from realaudio_jax.training.batches import ConditionDropout, prepare, to_batch

COUNT = 12


@pytest.fixture(scope='module')
def scenes(tiny_release, tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes')
    encoders = load_frozen_encoders(tiny_release)
    return latent_scenes(encoders, FoleySource(), COUNT, 1.0, 0, folder)


def telling(params, conditioning, guidance):
    """A teacher whose sound says what it was told: text, events, loudness, scale."""
    c = conditioning
    facts = [c.text_mask.any(1), c.event_mask.any(1), c.loudness_mask, guidance / 4]
    told = jnp.stack([params * fact for fact in facts], axis=-1)
    return lambda x, t: jnp.zeros_like(x).at[..., :4].set(told[:, None])


def ask(
    scenes,
    folder,
    seed=0,
    teacher=telling,
    absence=ConditionDropout(text=0.3, timeline=0.4),  # noqa: B008
    **other,
):
    settings = {'guidance_range': (1.0, 4.0), 'steps': 3, 'network': 'float32'} | other
    unused = (lambda *_: None,) * 2
    subject = DistillationSetup(
        teacher, unused[0], PATH, jnp.float32(1.0), None, *unused, network=settings['network']
    )
    return sample_teacher(
        scenes,
        subject,
        settings['guidance_range'],
        settings['steps'],
        10,
        absence,
        seed,
        folder,
        other.get('progress'),
    )


def test_answers_are_of_what_is_kept_beside_them(scenes, tmp_path):
    answers = ask(scenes, tmp_path)
    arrays = answers.arrays
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
    assert answers.frames == scenes.frames


def test_a_crop_without_an_event_loses_the_caption_that_names_it(scenes, tmp_path):
    """Also where the teacher was not told the timeline: its events are still in the caption."""
    answers = ask(scenes, tmp_path, absence=ConditionDropout(text=0.0, timeline=1.0))
    rows = {name: jnp.asarray(array) for name, array in answers.arrays.items()}
    starts, lengths = jnp.zeros(COUNT, int), jnp.full(COUNT, 2)
    cropped = crop_batch(rows, starts, lengths, 2)
    gone = (rows['event_mask'] & (rows['onset_s'] >= 2 / 25)).any(axis=1)
    assert gone.any()
    np.testing.assert_array_equal(cropped['text_mask'].any(axis=1), ~gone)
    assert not to_batch(cropped).conditioning.event_mask.any()


def test_guidance_follows_the_law_of_the_recipes(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_samples, 'draw_guidance', lambda key, n, low_high: jnp.full(n, 3.5))
    assert (ask(scenes, tmp_path).arrays['guidance'] == 3.5).all()
    assert (recordings_as_samples(scenes, (1.0, 4.0), 0).arrays['guidance'] == 3.5).all()


def test_answers_are_made_once_for_the_same_question(scenes, tmp_path):
    done = []
    first = ask(scenes, tmp_path, progress=done.append)
    assert done == [10, COUNT]
    again = ask(scenes, tmp_path, progress=done.append)
    assert done == [10, COUNT]
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name])
    others = [
        ask(scenes, tmp_path, seed=1),
        ask(scenes, tmp_path, steps=2),
        ask(scenes, tmp_path, network='bfloat16'),
        ask(scenes, tmp_path, guidance_range=(2.0, 2.0)),
        ask(scenes, tmp_path, absence=ConditionDropout(text=0.0, timeline=0.0)),
    ]
    assert len(list(tmp_path.iterdir())) == 1 + len(others)
    kept = {path.stem for path in next(tmp_path.iterdir()).glob('*.npy')}
    assert 'latents' in kept and 'text' not in kept  # the scenes' own are there already
    assert (others[3].arrays['guidance'] == 2).all()
    with pytest.raises(ValueError, match='guidance 3'):
        ask(scenes, tmp_path, guidance_range=(3.0, 2.0))


def test_a_batch_of_answers_knows_its_scale_and_loses_no_more(scenes, tmp_path):
    """ConditionDropout was decided when they were made; only given regions are drawn anew."""
    answers = ask(scenes, tmp_path, absence=ConditionDropout(text=0.0, timeline=0.0))
    batch = to_batch(next(RandomCrops(answers, 8, 0, 1.0)))
    every = ConditionDropout(text=1.0, timeline=1.0, loudness=1.0, init=1.0)
    got = prepare(batch, jax.random.key(0), every, 1.0)
    np.testing.assert_array_equal(got.conditioning.text_mask, batch.conditioning.text_mask)
    np.testing.assert_array_equal(got.conditioning.event_mask, batch.conditioning.event_mask)
    assert not got.conditioning.loudness_mask.any() and got.conditioning.init_mask.any()
    np.testing.assert_allclose(4 * got.latents[:, 0, 3], got.guidance, rtol=2e-3)
    assert to_batch(next(RandomCrops(scenes, 8, 0, 1.0))).guidance is None


def test_recordings_are_answers_told_by_their_caption_alone(scenes, tmp_path):
    answers, ours = ask(scenes, tmp_path), recordings_as_samples(scenes, (1.0, 4.0), 0)
    assert all(array.dtype == answers.arrays[name].dtype for name, array in ours.arrays.items())
    both, recorded = joined(answers, ours), ours.arrays
    np.testing.assert_array_equal(recorded['latents'], scenes.arrays['latents'])
    np.testing.assert_array_equal(recorded['text_mask'], scenes.arrays['text_mask'])
    assert not recorded['timeline_mask'].any() and not recorded['loudness_mask'].any()
    assert 1 <= recorded['guidance'].min() < 2 < recorded['guidance'].max() <= 4
    batch = to_batch(next(RandomCrops(both, 8, 0, 1.0)))
    assert batch.guidance.shape == (8,) and batch.conditioning.event_mask.any()


def foreign():
    """A teacher of other people whose sound says which caption it was told, and at which scale."""

    def teacher(params, conditioning, guidance):
        said = jnp.stack([params * conditioning, guidance / 4], axis=-1)
        return lambda x, t: jnp.zeros_like(x).at[..., :2].set(said[:, None])

    def to_batch(arrays):
        return whole_batch(arrays, jnp.asarray(arrays['caption']))

    path, unused = RectifiedFlowPath(), lambda *_: None
    return DistillationSetup(teacher, unused, path, jnp.float32(2.0), None, to_batch, unused)


def test_a_foreign_teacher_answers_to_each_caption(tmp_path):
    def encode(scenes):
        caption = np.array([float(scene.caption) for scene in scenes], np.float32)
        return {'latents': np.ones((len(scenes), 6, 3), np.float16), 'caption': caption}

    silence = np.zeros((0, 2), np.float32)
    asked = (Scene(silence, str(i), (), (), 1.0, None) for i in range(COUNT))
    scenes = build_teacher_scenes(asked, COUNT, encode, tmp_path / 'scenes')
    done = []

    def answer(seed=0):
        return sample_pretrained_teacher(
            scenes, foreign(), (1.0, 4.0), 3, 10, seed, tmp_path, done.append
        )

    arrays = answer().arrays
    assert done == [10, COUNT] and arrays['latents'].dtype == np.float16
    np.testing.assert_array_equal(arrays['latents'][:, 0, 0], 2.0 * np.arange(COUNT))
    np.testing.assert_allclose(4 * arrays['latents'][:, 0, 1], arrays['guidance'], rtol=2e-3)
    assert 1 <= arrays['guidance'].min() < 2 < arrays['guidance'].max() <= 4
    np.testing.assert_array_equal(arrays['caption'], scenes.arrays['caption'])
    assert (scenes.arrays['latents'] == 1).all()
    answer()
    assert len(done) == 2
    assert (answer(seed=1).arrays['guidance'] != arrays['guidance']).all()


def test_what_a_foreign_teacher_was_asked_for_stays_so():
    class Asked(flax.struct.PyTreeNode):
        text: jax.Array

        def unconditional(self):
            return Asked(jnp.zeros_like(self.text))

    arrays = {'latents': np.ones((4, 6, 3), np.float16)}
    for guidance, kept in ((None, 0.0), (np.full(4, 2.0, np.float32), 1.0)):
        told = arrays if guidance is None else arrays | {'guidance': guidance}
        batch = whole_batch(told, Asked(jnp.ones(4)))
        got = with_absence(batch, jax.random.key(0), text=1.0)
        np.testing.assert_array_equal(got.conditioning.text, kept)
