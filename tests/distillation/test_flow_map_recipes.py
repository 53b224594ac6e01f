"""Shortcut models, CTM, sCM and MeanFlow: the exact flow of Gaussian data minimises each, and each
has the limit that its equations say.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from realaudio_jax.distillation.consistency import Consistency, draw_times
from realaudio_jax.distillation.ctm import ConsistencyTrajectory
from realaudio_jax.distillation.flow_map import flow_map, flow_map_derivative, total_derivative
from realaudio_jax.distillation.mean_flow import MeanFlow
from realaudio_jax.distillation.scm import ContinuousConsistency
from realaudio_jax.distillation.shortcut import Shortcut
from realaudio_jax.noise import convert


def worst(make, student, *arguments, metric='loss'):
    """Largest metric and size of its slope over seeds: at the student, and at 1.1 of it.

    Args:
      make: (student, teacher, path, *arguments) to a recipe.
      student: of the toys; exact at 1.0.
      arguments: numbers of the compiled step.
    """

    @jax.jit
    @jax.value_and_grad
    def run(scale, seed, *arguments):
        recipe = make(student, toys.gaussian_teacher, toys.PATH, *arguments)
        return recipe.loss(scale, 1.0, 1.0, toys.batch(), jax.random.key(seed))[1][metric]

    def found(*arguments):
        return [
            np.abs([run(scale, seed, *arguments) for seed in range(6)]).max(axis=0)
            for scale in (1.0, 1.1)
        ]

    return [found(*given) for given in (arguments or [()])]


def on(*names):
    """Runs a test on these noise paths of the toys."""
    return pytest.mark.parametrize('each_path', names, indirect=True)


def test_derivative_of_a_flow_map_is_that_of_finite_differences(each_path):
    """In float64, for a student that is not exact, along the velocity of an unrelated teacher."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        x, teacher_x0 = (jnp.asarray(rng.normal(size=(toys.B, toys.L, toys.C))) for _ in range(2))
        t, s = jnp.array([0.9234, 0.4131, 0.7377]), jnp.array([0.1117, 0.3009, 0.0])
        guidance, path = jnp.array([1.0, 2.0, 3.0]), toys.PATH

        def predict(x, t):
            return toys.curved_student(0.8, None, guidance, t - s)(x, t)

        x0, derivative = total_derivative(predict, path, x, t, teacher_x0)
        got = flow_map_derivative(path, x0, derivative, teacher_x0, t, s)
        velocity, h = convert(teacher_x0, x, t, path, 'x0', 'velocity'), 1e-6
        after, before = (flow_map(path, predict, x + d * velocity, t + d, s) for d in (h, -h))
        want = (after - before) / (2 * h)
        np.testing.assert_allclose(got, want, atol=1e-7 * float(jnp.abs(want).max()))


@on('straight')
def test_shortcut_finds_the_exact_flow_up_to_its_smallest_step(each_path):
    """The smallest steps halve into DDIM steps of the denoiser, whose error falls with their size;
    regression on the teacher has none."""

    def make(finest, share):
        return lambda *bound: Shortcut(*bound, finest=finest, instant_share=share)

    ((coarse, _), _) = worst(make(4, 0.0), toys.flow_map_student)[0]
    (fine, slope), (wrong, steep) = worst(make(256, 0.0), toys.flow_map_student)[0]
    assert fine < 0.01 * coarse and wrong > 100 * fine and slope < 0.1 * steep
    (exact, slope), (wrong, steep) = worst(make(4, 1.0), toys.flow_map_student)[0]
    assert exact < 1e-10 and slope < 1e-6 and wrong > 1e-4


@on('cosine')
def test_ctm_finds_the_exact_flow_up_to_the_solver(each_path):
    """The loss at the exact flow falls with the teacher's step, faster than its square."""

    def make(student, teacher, path, step):
        return ConsistencyTrajectory(step, student, teacher, path)

    ((coarse, _), _), ((fine, slope), (wrong, steep)) = worst(
        make, toys.flow_map_student, (0.1,), (0.01,)
    )
    assert fine < 0.01 * coarse and wrong > 300 * fine and slope < 0.05 * steep


@on('cosine', 'discrete')
def test_scm_finds_the_exact_flow(each_path):
    """No solver: what is left is float32."""
    (exact, slope), (wrong, steep) = worst(ContinuousConsistency, toys.segment_student)[0]
    assert exact < 1e-5 and slope < 0.01 * steep and wrong > 100 * exact


@pytest.mark.parametrize(
    'each_path, own', [('discrete', False), ('straight', True)], indirect=['each_path']
)
def test_mean_flow_finds_the_exact_flow(each_path, own):
    """Along the teacher's velocity and along the student's own."""

    def make(*bound):
        return MeanFlow(*bound, own_direction=own)

    (exact, slope), (wrong, steep) = worst(make, toys.flow_map_student, metric='error')[0]
    assert exact < 1e-8 and wrong > 1e-4 and slope < 0.01 * steep


def test_scm_is_the_limit_of_the_discrete_recipe():
    """Its gradient is that of `Consistency` over the teacher's step, times k, item by item."""
    step, segments, batch = 1e-3, (1, 4), toys.batch()
    shared = (toys.curved_student, toys.gaussian_teacher, toys.PATH)
    discrete = Consistency(step, *shared, segments=segments)
    limit = ContinuousConsistency(*shared, segments=segments, normalize=False)

    @jax.jit
    def slopes(params, own):
        return tuple(
            jax.jacfwd(lambda p, r=r: r.loss(p, own, 1.0, batch, jax.random.key(8))[0])(params)
            for r in (discrete, limit)
        )

    with jax.enable_x64(True):
        batch = jax.tree.map(lambda x: x.astype(jnp.float64), batch)
        of_discrete, of_limit = slopes(jnp.float64(0.8), jnp.float64(0.8))
        keys = list(jax.random.split(jax.random.key(8), 5)[:3])
        _, bound, t = draw_times(keys, toys.B, segments)
    path = toys.PATH
    gain = path.alpha(bound) - path.sigma(bound) / path.sigma(t) * path.alpha(t)
    assert (bound > 0).any() and (bound == 0).any()
    np.testing.assert_allclose(of_limit, gain * of_discrete / step, rtol=0.02)


@on('straight')
def test_mean_flow_is_its_identity_of_average_velocities(each_path):
    """On the straight path: u is regressed on v - (t - s) du/dt, by differences in float64."""
    calls = []

    def student(params, c, guidance, step_size):
        def denoise(x, t):
            calls.append(toys.Call(x, t, guidance, step_size))
            return toys.curved_student(params, c, guidance, step_size)(x, t)

        return denoise

    recipe = MeanFlow(student, toys.gaussian_teacher, toys.PATH, 0.3, adaptive_power=0.0)
    with jax.enable_x64(True):
        batch = jax.tree.map(lambda x: x.astype(jnp.float64), toys.batch())
        got, _ = recipe.loss(0.8, 0.1, 1.0, batch, jax.random.key(6))
        x, t, guidance, step_size = calls[-1]
        tall, s = t[:, None, None], t - step_size
        assert (step_size > 0).any()

        def average(x, t):
            x0 = toys.curved_student(0.8, None, guidance, t - s)(x, t)
            return (x - x0) / t[:, None, None]

        v, h = (x - toys.gaussian_teacher(1.0, None, guidance)(x, t)) / tall, 1e-5
        rate = (average(x + h * v, t + h) - average(x - h * v, t - h)) / (2 * h)
        difference = tall * (average(x, t) - v + step_size[:, None, None] * rate)
        weight = jnp.clip(((1 - t) / t) ** 2, 1, 10)
        square = jnp.sum(jnp.mean(difference**2, axis=-1) * batch.mask, axis=-1)
        frames = batch.mask.sum(axis=-1)
        slope = jax.jacfwd(lambda p: recipe.loss(p, 0.1, 1.0, batch, jax.random.key(6))[0])(0.8)
        # The difference of x_0 is -t times that of u; the prediction is linear in the parameter.
        grown = toys.curved_student(1.0, None, guidance, step_size)(x, t)
        product = jnp.sum(jnp.mean(-difference * grown, axis=-1) * batch.mask, axis=-1)
        np.testing.assert_allclose(got, weight * square / frames, rtol=1e-6)
        np.testing.assert_allclose(slope, 2 * weight * product / frames, rtol=1e-6)


@pytest.mark.parametrize('recipe', [MeanFlow, Shortcut])
def test_without_a_step_the_target_is_the_teacher(recipe):
    """A student that at step size 0 is the teacher has no loss; one of other parameters has."""

    def teacher(params, c, guidance):
        return toys.curved_student(params, c, guidance, jnp.zeros_like(guidance))

    made = recipe(toys.curved_student, teacher, toys.PATH, instant_share=1.0)
    run = jax.jit(
        lambda params, scale: made.loss(params, 0.1, scale, toys.batch(), jax.random.key(1))[0]
    )
    np.testing.assert_allclose(run(0.9, 0.9), 0, atol=1e-9)
    assert run(0.9, 0.8).min() > 1e-3


# Loss and slope of one step of `curved_student` at 0.8. A change of what a seed draws or of a
# formula changes them; say why in the changelog.
GOLDEN = {
    Shortcut: (0.379972, -0.362882),
    ConsistencyTrajectory: (0.463579, 1.465484),
    ContinuousConsistency: (0.860015, 2.133513),
    MeanFlow: (0.9969639, 2.841739),
}


@pytest.mark.parametrize('recipe', GOLDEN, ids=lambda recipe: recipe.__name__)
def test_one_step_is_what_it_was(recipe):
    """rtol 1e-4: float32 sums in another order."""
    first = (0.05,) if recipe is ConsistencyTrajectory else ()
    made = recipe(*first, toys.curved_student, toys.gaussian_teacher, toys.PATH)

    @jax.jit
    @jax.value_and_grad
    def step(params):
        return jnp.mean(made.loss(params, 0.7, 1.1, toys.batch(), jax.random.key(4))[0])

    np.testing.assert_allclose(step(0.8), GOLDEN[recipe], rtol=1e-4)
