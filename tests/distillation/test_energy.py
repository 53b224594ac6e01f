"""The energy score is lowest at the right distribution, and scores what the sampler makes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from realaudio_jax.distillation.consistency import Consistency
from realaudio_jax.distillation.energy import WINDOWS, Energy, cut, energy_score
from realaudio_jax.distillation.recipe import WeightedSum

MASK = jnp.ones((2, 7)).at[1, -2:].set(0.0).at[0, 0].set(4.0)


def random_arrays(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(3, 2, 7, 5)), jnp.float32)


def norms(a):
    return np.sqrt(np.square(a).mean(axis=-1))


def test_a_window_is_scored_by_distances_to_the_sound_and_to_one_another():
    y, other, x = random_arrays(0)
    frame = (norms(y - x) + norms(other - x) - norms(y - other)) / 2
    want = (frame * MASK).sum(axis=1) / MASK.sum(axis=1)
    got = energy_score(y, other, x, MASK, ((1, None),), jax.random.key(0))
    np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize('frames, channels', [(1, 5), (3, 2), (4, 5), (20, 3)])
def test_windows_hold_every_value_once(frames, channels):
    x = jnp.asarray(np.random.default_rng(1).uniform(1, 2, size=(2, 7, 5)), jnp.float32)
    for shift in range(frames):
        got = np.asarray(cut(x, frames, channels, jnp.int32(shift)))
        assert got.shape[0] == 2 and got.shape[3] == frames * channels
        np.testing.assert_array_equal(np.sort(got[got > 0]), np.sort(x.ravel()))
        whole = np.asarray(cut(x, frames, 5, jnp.int32(shift))).reshape(2, -1, 5)
        np.testing.assert_array_equal(whole[:, shift : shift + 7], x)  # neighbours stay so
    first = np.asarray(cut(x, frames, channels, jnp.int32(0)))[:, 0, 0]
    count = min(frames, 7)
    np.testing.assert_array_equal(
        first.reshape(2, frames, channels)[:, :count], x[:, :count, :channels]
    )


def test_padding_has_no_say():
    y, other, x = random_arrays(2)

    def score(*arrays):
        return energy_score(*arrays, MASK, WINDOWS, jax.random.key(3))

    moved = x.at[1, -2:].add(9)
    np.testing.assert_allclose(score(y, other, x), score(y, other, moved), rtol=1e-6)
    moved = x.at[1, -3].add(9)
    assert score(y, other, moved)[1] > score(y, other, x)[1] + 0.1


def expected_loss(student, params=1.0, segments=(1,), draws=400):
    batch = toys.batch()
    recipe = Energy(student=student, path=toys.PATH, segments=segments)

    @jax.jit
    def run(params, key):
        """A sound and two samples, all new."""
        key, again = jax.random.split(key)
        x = toys.SPREAD * jax.random.normal(again, batch.latents.shape)
        loss, metrics = recipe.loss(params, None, None, batch.replace(latents=x), key)
        return jnp.mean(loss)

    return np.mean([run(params, jax.random.key(i)) for i in range(draws)])


def scaled_noise(params, c, guidance, step_size):
    """At t = 1: the noise itself as the sound, `params` times the spread of the data."""
    return lambda x, t: params * toys.SPREAD * x


def test_the_score_is_lowest_where_samples_spread_as_the_data_do():
    """Regression would have the mean: 0. So has a blurred student."""
    scores = [expected_loss(scaled_noise, p) for p in (0.0, 0.5, 1.0, 1.5, 2.0)]
    assert np.argmin(scores) == 2
    assert scores[0] > 1.2 * scores[2] and scores[4] > 1.1 * scores[2]


@pytest.mark.parametrize('steps, backprop_steps', [(1, 1), (1, 2), (2, 1), (2, 2), (4, 2), (4, 3)])
def test_samples_are_the_students_own_and_the_gradient_that_of_the_last_steps(
    steps, backprop_steps
):
    """With networks params * x, sample and gradient of each count are known."""
    batch = toys.batch().replace(guidance=jnp.full(toys.B, 2.5))
    told = []

    def student(params, c, guidance, step_size):
        def denoise(x, t):
            jax.debug.callback(lambda *a: told.append([np.asarray(v) for v in a]), guidance, t)
            return params * x

        return denoise

    def recipe_loss(p):
        recipe = Energy(
            student=student,
            path=toys.PATH,
            segments=(steps,),
            backprop_steps=backprop_steps,
            windows=((1, None),),
        )
        return recipe.loss(p, None, None, batch, jax.random.key(5))[0]

    loss = recipe_loss(0.3)
    jax.effects_barrier()
    assert {float(g) for call in told for g in call[0].ravel()} == {2.5}
    times = sorted({round(float(t), 6) for call in told for t in call[1].ravel()})
    assert times == [k / steps for k in range(1, steps + 1)]

    _, key_window, *keys = jax.random.split(jax.random.key(5), 4)
    noise = [jax.random.normal(key, batch.latents.shape) for key in keys]

    def sample(x, p):
        for i in range(steps, 0, -1):
            t, s = np.full(toys.B, i / steps), np.full(toys.B, (i - 1) / steps)
            x = toys.ddim(x, (p if i <= backprop_steps else 0.3) * x, t, s)
        return x

    @jax.jit
    def score(p):
        y, other = (sample(x, p) for x in noise)
        return energy_score(y, other, batch.latents, batch.mask, ((1, None),), key_window)

    np.testing.assert_allclose(loss, score(0.3), rtol=1e-4)
    got, want = jax.jacrev(recipe_loss)(0.3), jax.jacfwd(score)(0.3)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)


def test_every_count_is_drawn_and_recordings_have_no_guidance():
    told = []

    def student(params, c, guidance, step_size):
        jax.debug.callback(lambda *a: told.append([np.asarray(v) for v in a]), guidance, step_size)
        return lambda x, t: params * x

    recipe = Energy(student=student, path=toys.PATH, segments=(1, 2, 8))
    run = jax.jit(lambda key: recipe.loss(0.5, None, None, toys.batch(), key)[0])
    for i in range(20):
        run(jax.random.key(i))
    jax.effects_barrier()
    assert {float(s) for _, step in told for s in step.ravel()} == {1.0, 0.5, 0.125}
    assert all((guidance == 1).all() for guidance, _ in told)


def test_a_sum_is_the_weighted_sum_of_its_recipes():
    energy = Energy(student=toys.linear_student, path=toys.PATH)
    consistency = Consistency(
        0.02, student=toys.linear_student, teacher=toys.gaussian_teacher, path=toys.PATH
    )
    both = WeightedSum({'a': 2.0, 'b': 3.0}, {'a': energy, 'b': consistency})
    batch = toys.batch()
    total, metrics = both.loss(0.4, 0.5, 0.9, batch, jax.random.key(1))
    keys = jax.random.split(jax.random.key(1), 2)
    first, _ = energy.loss(0.4, 0.5, 0.9, batch, keys[0])
    second, known = consistency.loss(0.4, 0.5, 0.9, batch, keys[1])
    np.testing.assert_allclose(total, 2 * first + 3 * second, rtol=1e-5)
    np.testing.assert_allclose(metrics['loss'], jnp.mean(total), rtol=1e-6)
    np.testing.assert_allclose(metrics['b_loss_8'], known['loss_8'], rtol=1e-5)
