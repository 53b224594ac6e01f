"""The student learns what the teacher of each noise level predicts on the teachers' trajectory."""

import jax
import jax.numpy as jnp
import numpy as np
import toys

from realaudio_jax.distillation.multi_teacher import MultiTeacher
from realaudio_jax.distillation.recipe import noise_like

TEACHERS, STUDENT = (0.9, 0.4, 0.1, 0.25), 0.7  # each multiplies x
TRAJECTORIES = ((1, 3, 0), (2, 0, 1), (4, 2, 1), (5, 1, 0))


def losses(trajectories, student=toys.linear_student, teachers=TEACHERS, **given):
    """A function of the key: (loss [B], the noise that the trajectory begins with)."""
    batch = toys.batch().replace(**given)
    recipe = MultiTeacher(jnp.float32(teachers), student, toys.PATH, trajectories)
    run = jax.jit(lambda key: recipe.loss(jnp.float32(STUDENT), None, None, batch, key)[0])

    def both(key):
        own = jax.random.split(jax.random.clone(key), 4)
        return run(key), noise_like(own[2], batch.latents)

    return both


def expected(noise, trajectory, at):
    """The loss at `at` steps to go, made again in float64."""
    steps, above, below = trajectory

    def answer(x, k):
        return TEACHERS[above if k / steps > 0.5 else below] * x

    def time(k):
        return np.full(toys.B, k / steps)

    x = np.float64(noise)
    for k in range(steps, at, -1):
        x = toys.ddim(x, answer(x, k), time(k), time(k - 1))
    return toys.error(STUDENT * x, answer(x, at), time(at), toys.batch().mask)


def test_each_teacher_serves_its_side_of_the_middle():
    run, seen = losses(TRAJECTORIES), set()
    for seed in range(100):
        got, noise = run(jax.random.key(seed))
        found = [
            (trajectory[0], at)
            for trajectory in TRAJECTORIES
            for at in range(1, trajectory[0] + 1)
            if np.allclose(got, expected(noise, trajectory, at), rtol=1e-3)
        ]
        assert len(found) == 1
        seen |= set(found)
    assert seen == {(steps, at) for steps, *_ in TRAJECTORIES for at in range(1, steps + 1)}


def test_the_teachers_prediction_has_no_loss_and_teachers_do_not_learn():
    same, _ = losses(TRAJECTORIES, teachers=(STUDENT,) * 4)(jax.random.key(0))
    np.testing.assert_allclose(same, 0, atol=1e-9)

    def loss(teachers, student):
        recipe = MultiTeacher(teachers, toys.linear_student, toys.PATH, ((4, 0, 1),))
        return jnp.sum(recipe.loss(student, None, None, toys.batch(), jax.random.key(0))[0])

    towards = jax.grad(loss, (0, 1))(jnp.float32(TEACHERS), jnp.float32(STUDENT))
    np.testing.assert_array_equal(towards[0], 0)
    assert abs(towards[1]) > 1e-3


def test_scales_are_those_of_the_batch_or_drawn():
    def student(params, c, guidance, step_size):
        return lambda x, t: params * guidance[:, None, None] * x

    def scales(key, **given):
        """What the loss of one step grows by, beside that of networks without a scale."""
        plain, _ = losses(((1, 0, 0),), **given)(jax.random.clone(key))
        return np.sqrt(losses(((1, 0, 0),), student, **given)(key)[0] / plain)

    told = jnp.asarray([1.0, 2.0, 3.5])
    np.testing.assert_allclose(scales(jax.random.key(0), guidance=told), told, rtol=1e-4)
    drawn = np.concatenate([scales(jax.random.key(i)) for i in range(20)])
    assert 1 <= drawn.min() < 1.3 and 3.7 < drawn.max() <= 4
