"""Segment consistency: the exact flow has no loss, and the target is what the equations say."""

import jax
import numpy as np
import toys

from realaudio_jax.distillation.consistency import Consistency


def recipe(student, teacher=toys.gaussian_teacher, **settings):
    return Consistency(
        student=student, teacher=teacher, path=toys.PATH, **{'teacher_step': 0.02, **settings}
    )


def test_the_exact_flow_has_no_loss(each_path):
    """The loss is what the teacher's step of length delta lacks: it falls faster than delta^2."""
    run = jax.jit(
        lambda delta, scale, key: recipe(toys.segment_student, teacher_step=delta).loss(
            scale, 1.0, 1.0, toys.batch(), key
        )[0]
    )

    def worst(delta, scale=1.0):
        return max(float(np.max(run(delta, scale, jax.random.key(i)))) for i in range(8))

    coarse, fine = worst(0.05), worst(0.005)
    assert fine < 0.01 * coarse and fine < 1e-5
    assert worst(0.005, 1.1) > 1e-3  # a student that is wrong has a loss


def test_target_is_a_teacher_step_then_a_step_of_the_older_student():
    """Every call is recorded; times, counts and the loss are made again in float64."""
    seen, batch = set(), toys.batch()
    run = toys.recorded(recipe, 0.4, 0.8, 0.9, batch)
    for seed in range(8):
        got, metrics, (at_earlier, final), (at_t,) = run(jax.random.key(seed))
        t, x = final.t, final.x
        count = np.round(1 / final.step_size)
        seen |= set(count)
        bound = np.ceil(t * count - 1e-4) / count - 1 / count
        assert (t > bound).all() and (t <= bound + 1 / count + 1e-6).all()
        earlier = np.maximum(t - 0.02, bound)
        np.testing.assert_allclose(at_t.t, t)
        np.testing.assert_allclose(at_earlier.t, earlier, atol=1e-6)
        np.testing.assert_array_equal(at_earlier.step_size, final.step_size)
        for call in (at_t, at_earlier):
            np.testing.assert_array_equal(call.guidance, final.guidance)
        z = toys.ddim(x, 0.9 * x, t, earlier)
        np.testing.assert_allclose(at_earlier.x, z, atol=1e-5)
        z = np.where(
            (earlier > bound + 1e-6)[:, None, None], toys.ddim(z, 0.8 * z, earlier, bound), z
        )
        target = toys.invert(x, z, t, bound)
        want = toys.error(0.4 * x, target, t, batch.mask)
        np.testing.assert_allclose(got, want, rtol=5e-3)
        for n in (1, 2, 4, 8):
            mine = want[count == n]
            mean = mine.mean() if len(mine) else 0.0
            np.testing.assert_allclose(metrics[f'loss_{n}'], mean, rtol=5e-3)
    assert seen == {1, 2, 4, 8}


def test_at_the_bound_the_target_is_the_teachers_own_step():
    """A teacher's step longer than the segment ends at the bound, and nothing is left to add."""
    loss, _ = recipe(
        toys.linear_student, lambda p, c, g: lambda x, t: p * x, teacher_step=1.0
    ).loss(0.7, 123.0, 0.7, toys.batch(), jax.random.key(4))
    np.testing.assert_allclose(loss, 0, atol=1e-7)
