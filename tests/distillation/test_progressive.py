"""Progressive distillation against explicit DDIM steps in float64 and a closed-form student."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from realaudio_jax.distillation.consistency import Consistency
from realaudio_jax.distillation.ctm import ConsistencyTrajectory
from realaudio_jax.distillation.mean_flow import MeanFlow
from realaudio_jax.distillation.progressive import Progressive, stages
from realaudio_jax.distillation.recipe import Recipe
from realaudio_jax.distillation.scm import ContinuousConsistency
from realaudio_jax.distillation.shortcut import Shortcut


def recipe(student, teacher=toys.gaussian_teacher, **settings):
    return Progressive(
        student=student, teacher=teacher, path=toys.PATH, **{'student_steps': 4, **settings}
    )


def test_sequences_of_stages():
    def pairs(steps):
        return [(stage['student_steps'], stage['ratio']) for stage in stages(steps)]

    assert pairs((64, 32, 16, 8, 4)) == [(64, 1), (32, 2), (16, 2), (8, 2), (4, 2)]
    assert pairs((48, 24, 12, 4)) == [(48, 1), (24, 2), (12, 2), (4, 3)]
    assert pairs((8,)) == [(8, 1)]
    first, second = stages((8, 4), updates=3)
    assert first['from_teacher'] and not second['from_teacher'] and second['updates'] == 3
    assert second['target'] == 'previous' and second['name'] == 'progressive 4'


@pytest.mark.parametrize(
    'steps, part',
    [
        ((), 'positive'),
        ((4, 0), 'positive'),
        ((8, 8), 'smaller'),
        ((4, 8), 'smaller'),
        ((48, 20), '20 must be smaller than 48 and divide'),
    ],
)
def test_sequences_that_cannot_be(steps, part):
    with pytest.raises(ValueError, match=part) as caught:
        stages(steps)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('ratio, from_teacher', [(1, True), (2, True), (2, False), (3, False)])
def test_target_is_the_explicit_steps_of_the_one_before(ratio, from_teacher):
    """Every call of the networks is recorded, and the loss made again from x_t and t in float64."""
    batch, settings = toys.batch(), dict(ratio=ratio, from_teacher=from_teacher)
    run = toys.recorded(functools.partial(recipe, **settings), 0.4, 0.9, 0.9, batch)
    got, metrics, student, teacher = run(jax.random.key(5))
    assert len(teacher) == ratio * from_teacher
    assert len(student) == 1 + ratio * (not from_teacher)
    previous, final = (teacher if from_teacher else student)[:ratio], student[-1]
    t, x = final.t, final.x
    np.testing.assert_allclose(t * 4, np.round(t * 4), atol=1e-5)
    assert (t > 0).all() and (t <= 1).all()
    np.testing.assert_array_equal(final.step_size, 0.25)
    assert (final.guidance >= 1).all() and (final.guidance <= 4).all()
    z = x
    for j, call in enumerate(previous):
        np.testing.assert_allclose(call.t, t - j * 0.25 / ratio, atol=1e-6)
        np.testing.assert_allclose(call.x, z, atol=1e-5)
        np.testing.assert_array_equal(call.guidance, final.guidance)
        if not from_teacher:
            np.testing.assert_allclose(call.step_size, 0.25 / ratio)
        z = toys.ddim(z, 0.9 * z, call.t, t - (j + 1) * 0.25 / ratio)
    target = toys.invert(x, z, t, t - 0.25)
    if ratio == 1:
        np.testing.assert_allclose(target, 0.9 * x, atol=1e-6)
    np.testing.assert_allclose(got, toys.error(0.4 * x, target, t, batch.mask), rtol=2e-3)
    np.testing.assert_allclose(metrics['loss'], np.mean(got), rtol=1e-6)


def test_a_student_that_takes_two_perfect_teacher_steps_has_no_loss(each_path):
    """For Gaussian data DDIM is linear, so the student that equals two steps is known exactly."""

    def student(params, c, guidance, step_size):
        def denoise(x, t):
            a, b = t, t - step_size
            middle = (a + b) / 2
            factor = toys.ddim_factor(a, middle) * toys.ddim_factor(middle, b)
            ratio = toys.PATH.sigma(b) / toys.PATH.sigma(a)
            gain = (factor - ratio) / (toys.PATH.alpha(b) - ratio * toys.PATH.alpha(a))
            return params * gain[:, None, None] * x

        return denoise

    loss = jax.jit(
        lambda p, key: recipe(student, from_teacher=True).loss(p, p, 1.0, toys.batch(), key)[0]
    )
    for i in range(4):
        assert np.max(loss(1.0, jax.random.key(i))) < 1e-8
    assert np.min(loss(1.1, jax.random.key(9))) > 1e-7


def bound(make, *first, **settings):
    return make(*first, toys.linear_student, toys.gaussian_teacher, toys.PATH, **settings)


RECIPES = {
    'progressive': lambda: recipe(toys.linear_student, from_teacher=True),
    'consistency': lambda: Consistency(
        teacher_step=0.05,
        student=toys.linear_student,
        teacher=toys.gaussian_teacher,
        path=toys.PATH,
    ),
    'shortcut': lambda: bound(Shortcut),
    'ctm': lambda: bound(ConsistencyTrajectory, 0.05),
    'scm': lambda: bound(ContinuousConsistency, normalize=False),
    'mean_flow': lambda: bound(MeanFlow, adaptive_power=0.0),
}
each = pytest.mark.parametrize('make', RECIPES.values(), ids=RECIPES)


@each
def test_recipes_have_the_one_signature(make):
    wanted = inspect.signature(Recipe.loss).parameters
    assert list(inspect.signature(type(make()).loss).parameters) == list(wanted)
    loss, metrics = make().loss(0.4, 0.5, 1.0, toys.batch(), jax.random.key(0))
    assert loss.shape == (toys.B,) and all(np.shape(m) == () for m in metrics.values())
    np.testing.assert_allclose(metrics['loss'], np.mean(loss), rtol=1e-6)


@each
def test_only_the_student_receives_a_gradient(make):
    gradients = jax.grad(
        lambda *params: jnp.sum(make().loss(*params, toys.batch(), jax.random.key(0))[0]),
        argnums=(0, 1, 2),
    )(0.4, 0.5, 1.2)
    assert gradients[0] != 0 and gradients[1] == 0 and gradients[2] == 0


@each
def test_parameters_of_the_teacher_are_arguments(make):
    """Another teacher is another loss, and the compiled step is not traced again for it."""
    traces = []

    @jax.jit
    def step(student, target, teacher, seed):
        traces.append(None)
        return make().loss(student, target, teacher, toys.batch(), jax.random.key(seed))[0]

    first, second = step(0.4, 0.5, 1.0, 3), step(0.4, 0.5, 1.5, 3)
    assert len(traces) == 1 and np.abs(first - second).min() > 1e-4


def test_the_count_of_steps_is_an_argument():
    traces = []

    @jax.jit
    def step(r, seed):
        traces.append(None)
        return r.loss(0.4, 0.5, 1.0, toys.batch(), jax.random.key(seed))[0]

    losses = [step(recipe(toys.linear_student, student_steps=jnp.asarray(n)), 3) for n in (8, 4)]
    assert len(traces) == 1 and np.abs(losses[0] - losses[1]).min() > 1e-5


@each
def test_padding_frames_have_no_influence(make):
    batch = toys.batch()
    other = batch.replace(latents=jnp.where(batch.mask[..., None] > 0, batch.latents, 9.0))
    assert not np.array_equal(other.latents, batch.latents)
    got, want = (make().loss(0.4, 0.5, 1.0, b, jax.random.key(2))[0] for b in (other, batch))
    np.testing.assert_array_equal(got, want)
