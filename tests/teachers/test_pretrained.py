"""Students of tiny random teachers: where each begins, and whose folder is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_audioldm2
import tiny_stable_audio_3
import tiny_teacher

from realaudio_jax import packing
from realaudio_jax.noise import CosinePath
from realaudio_jax.release import STUDENT_NAME
from realaudio_jax.teachers import PRETRAINED, ConditionDropout, Teacher, load_teacher, pretrained
from realaudio_jax.teachers.audioldm2 import AudioLDM2

WRITERS = {
    'stable_audio_open': tiny_teacher.write_stable_audio_open,
    'audioldm2': tiny_audioldm2.write,
    'stable_audio_3': tiny_stable_audio_3.write,
}
CAPTIONS = ['rain', 'a dog barks over wind and then a door slams']


@pytest.fixture(scope='module', params=PRETRAINED)
def named(request, tmp_path_factory):
    """A name and the model."""
    folder = WRITERS[request.param](tmp_path_factory.mktemp(request.param) / 'model')
    return request.param, load_teacher(request.param, folder)


@pytest.fixture(scope='module')
def batch(named):
    """0.3 s of noise and two captions, as the experiment would store them."""
    _, model = named
    samples = int(0.3 * model.sample_rate)
    audio = np.random.default_rng(0).normal(size=(2, samples, 2)).astype(np.float32)
    arrays = model.encode_scenes(0.1 * audio, CAPTIONS)
    assert all(len(rows) == 2 for rows in arrays.values())
    return model.to_batch(arrays)


def test_a_teacher_is_guided_away_from_what_says_nothing(named, batch):
    """By guidance written out: u + 3 (c - u)."""
    model = named[1]
    c, x = jax.tree.map(jnp.asarray, (batch.conditioning, batch.latents))

    @jax.jit
    def teacher(p, c, scale):
        return model.guided(p, c, jnp.full(2, scale))(x, jnp.array([0.3, 0.9]))

    asked, nothing, guided = (
        np.asarray(teacher(model.teacher_params, *given))
        for given in ((c, 1.0), (c.unconditional(), 1.0), (c, 3.0))
    )
    moved = np.abs(guided - asked).max()  # little, where random weights hear little of a caption
    assert moved > 1e-5 * np.abs(guided).max()
    np.testing.assert_allclose(guided, nothing + 3 * (asked - nothing), atol=0.05 * moved)


def test_a_student_begins_as_its_teacher(named, batch):
    """At times between the steps of a table too, at both ends, and whatever it is told."""
    _, model = named
    assert isinstance(model, Teacher)
    params, adapter = model.initial_student()
    assert adapter is None
    c, x = jax.tree.map(jnp.asarray, (batch.conditioning, batch.latents))
    x = x + jax.random.normal(jax.random.key(0), x.shape)
    teacher = jax.jit(lambda p, t, scale: model.guided(p, c, scale)(x, t))
    student = jax.jit(lambda p, t, *told: model.student(p, c, *told)(x, t))

    def close(found, wanted):
        return np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()

    ones, told = jnp.ones(2), (jnp.array([2.0, 5.0]), jnp.array([0.5, 0.125]))
    for t in (jnp.array([0.31357, 0.9]), jnp.array([0.0, 1.0])):
        wanted = teacher(model.teacher_params, t, ones)
        assert np.isfinite(wanted).all()
        assert close(student(params, t, *told), wanted)
    assert not close(teacher(model.teacher_params, t, 3 * ones), wanted)

    def told_apart(path, leaf):
        found = any(name in str(path) for name in ('step_size', 'guidance_scale'))
        return jax.random.normal(jax.random.key(1), leaf.shape) if found else leaf

    changed = jax.tree_util.tree_map_with_path(told_apart, params)
    results = [
        student(changed, t, guidance, step)
        for guidance, step in ((told[0], told[1]), (3 * ones, told[1]), (told[0], ones))
    ]
    assert not close(results[0], wanted)
    assert not close(results[1], results[0]) and not close(results[2], results[0])


def test_condition_dropout_makes_some_items_unconditional(named, batch):
    """An item dropped is that of `unconditional()`, any other is as it was."""
    _, model = named
    many = jax.tree.map(lambda leaf: np.repeat(leaf, 100, axis=0), batch)
    nothing = many.conditioning.unconditional()

    def dropped(text):
        dropout = ConditionDropout(text=text)
        found = model.prepare(many, jax.random.key(0), dropout).conditioning
        same, empty = (
            [
                (np.asarray(a) == np.asarray(b)).reshape(len(a), -1).all(axis=1)
                for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(c), strict=True)
            ]
            for c in (many.conditioning, nothing)
        )
        same, empty = np.all(same, axis=0), np.all(empty, axis=0)
        np.testing.assert_array_equal(same, ~empty)
        return empty.mean()

    assert dropped(0.0) == 0 and dropped(1.0) == 1 and 0.15 < dropped(0.25) < 0.35


def test_folders_that_hold_no_student_of_the_model(named, tmp_path):
    name, model = named
    other = PRETRAINED[PRETRAINED.index(name) - 1]
    facts = {'steps': [1, 2], 'guidance_range': [1.0, 3.0]}
    for config, says in (
        ({'teacher': name}, 'describes no student'),
        ({'teacher': other, 'student': facts}, f'a student of {other}, not of {name}; give'),
        ({'student': facts}, 'describes no student'),
        ({'teacher': name, 'student': facts}, 'missing'),
    ):
        (tmp_path / 'config.json').write_text(json.dumps(config | {'format_version': 1}))
        packing.save_params(tmp_path / STUDENT_NAME, model.teacher_params)
        with pytest.raises(ValueError, match=says) as error:
            model.load_student(tmp_path)
        assert '\n' not in str(error.value)


def test_a_student_takes_no_negative_prompt():
    student = pretrained.Student({}, (2,), (1.0, 3.0))
    student.require(2, 3.0)
    for steps, guidance, negative, says in (
        (4, 2.0, None, '4 steps with guidance 2: the student was trained for 2 steps'),
        (2, 3.5, None, 'guidance 3.5: the student was trained for 2 steps and guidance 1 to 3'),
        (2, 2.0, 'rain', 'takes no negative prompt'),
    ):
        with pytest.raises(ValueError, match=says):
            student.require(steps, guidance, negative)


def test_captions_at_one_length():
    states = np.arange(12.0, dtype=np.float32).reshape(2, 3, 2)
    mask = np.array([[True, False, False], [True, True, False]])
    found, real = pretrained.padded(jnp.asarray(states), mask, 2)
    np.testing.assert_array_equal(found, states[:, :2])
    np.testing.assert_array_equal(real, mask[:, :2])
    found, real = pretrained.padded(jnp.asarray(states), mask, 500)
    assert found.shape == (2, 128, 2) and real.sum() == 3
    with pytest.raises(ValueError, match='2 tokens, 1 at most; shorten it'):
        pretrained.padded(jnp.asarray(states), mask, 1)


@pytest.mark.parametrize('steps', [1, 4])
def test_a_student_is_told_the_length_of_its_steps_and_the_scale(steps):
    def student(params, conditioning, scale, step_size):
        return lambda x_t, t: jnp.zeros_like(x_t) + (scale + step_size)[:, None, None]

    x = jnp.ones((2, 3, 4))
    found = pretrained.sample_student(student, CosinePath(), {}, {}, x, steps, 3.0)
    np.testing.assert_allclose(found, np.full(x.shape, 3.0 + 1 / steps), rtol=1e-5)


def test_the_padding_of_an_empty_prompt_is_masked():
    sizes = {
        'latents': (1, 2, 3),
        'generated': (1, 2, 6),
        'empty_generated': (1, 2, 6),
        'text': (1, 4, 5),
        'empty_text': (1, 1, 5),
    }
    arrays = {name: np.ones(size, np.float32) for name, size in sizes.items()}
    empty = AudioLDM2.to_batch({**arrays, 'text_mask': np.ones((1, 4), bool)}).conditioning.empty
    np.testing.assert_array_equal(empty.text_mask, [[True, False, False, False]])
    np.testing.assert_array_equal(empty.text[0].any(axis=1), [True, False, False, False])
