"""A student is asked what the expert of each noise level answers, where the experts lead."""

import jax
import jax.numpy as jnp
import numpy as np
import toys

from realaudio_jax.distillation.imitation import Imitation
from realaudio_jax.distillation.recipe import noise_like

EXPERTS, STUDENT = (0.9, 0.4, 0.1, 0.25), 0.7  # each multiplies x
WALKS = ((1, 3, 0), (2, 0, 1), (4, 2, 1), (5, 1, 0))


def losses(walks, student=toys.linear_student, experts=EXPERTS, **given):
    """A function of the key: (loss [B], the noise that the walk begins with)."""
    batch = toys.batch().replace(**given)
    recipe = Imitation(jnp.float32(experts), student, toys.PATH, walks)
    run = jax.jit(lambda key: recipe.loss(jnp.float32(STUDENT), None, None, batch, key)[0])

    def both(key):
        own = jax.random.split(jax.random.clone(key), 4)
        return run(key), noise_like(own[2], batch.latents)

    return both


def expected(noise, walk, at):
    """The loss at `at` steps to go, made again in float64."""
    steps, above, below = walk

    def answer(x, k):
        return EXPERTS[above if k / steps > 0.5 else below] * x

    def time(k):
        return np.full(toys.B, k / steps)

    x = np.float64(noise)
    for k in range(steps, at, -1):
        x = toys.ddim(x, answer(x, k), time(k), time(k - 1))
    return toys.error(STUDENT * x, answer(x, at), time(at), toys.batch().mask)


def test_each_expert_leads_and_answers_on_its_side_of_the_middle():
    run, seen = losses(WALKS), set()
    for seed in range(100):
        got, noise = run(jax.random.key(seed))
        found = [
            (walk[0], at)
            for walk in WALKS
            for at in range(1, walk[0] + 1)
            if np.allclose(got, expected(noise, walk, at), rtol=1e-3)
        ]
        assert len(found) == 1
        seen |= set(found)
    assert seen == {(steps, at) for steps, *_ in WALKS for at in range(1, steps + 1)}


def test_who_answers_as_the_experts_has_no_loss_and_experts_do_not_learn():
    same, _ = losses(WALKS, experts=(STUDENT,) * 4)(jax.random.key(0))
    np.testing.assert_allclose(same, 0, atol=1e-9)

    def loss(experts, student):
        recipe = Imitation(experts, toys.linear_student, toys.PATH, ((4, 0, 1),))
        return jnp.sum(recipe.loss(student, None, None, toys.batch(), jax.random.key(0))[0])

    towards = jax.grad(loss, (0, 1))(jnp.float32(EXPERTS), jnp.float32(STUDENT))
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
