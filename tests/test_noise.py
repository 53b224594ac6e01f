"""The noise paths and conversions against their algebra and float64 numpy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax import noise

SHAPE = (2, 7, 5)  # B, L, C
BETAS = np.linspace(1e-4, 0.02, 1000)
ALPHAS_CUMPROD = np.cumprod(1 - BETAS)
PATHS = {
    'cosine': noise.CosinePath(),
    'flow': noise.RectifiedFlowPath(),
    'ddpm': noise.DiscreteDDPMPath(ALPHAS_CUMPROD),
}
TIMES = {  # between the steps of the table, where it is smooth
    'item': np.array([0.1503, 0.8504], np.float32),
    'frame': np.linspace(0.0504, 0.9506, 14, dtype=np.float32).reshape(2, 7),
}
each_path = pytest.mark.parametrize('path', PATHS.values(), ids=PATHS.keys())
each_time = pytest.mark.parametrize('t', TIMES.values(), ids=TIMES.keys())


def _normal(seed):
    """Two arrays of latents."""
    return jnp.float32(np.random.default_rng(seed).standard_normal((2, *SHAPE)))


def _alpha_sigma(path, t):
    """Equations (2) to (4) again in float64, the table by plain linear interpolation."""
    t = np.asarray(t, np.float64)
    if isinstance(path, noise.CosinePath):
        return np.cos(np.pi * t / 2), np.sin(np.pi * t / 2)
    if isinstance(path, noise.RectifiedFlowPath):
        return 1 - t, t
    table = np.log(ALPHAS_CUMPROD / (1 - ALPHAS_CUMPROD))
    snr = np.exp(np.interp(t * len(table) - 1, np.arange(len(table)), table))
    return np.sqrt(snr / (1 + snr)), np.sqrt(1 / (1 + snr))


def _predictions(path, t):
    """x_t and the four predictions in float64, and t with the axes of the data."""
    rng = np.random.default_rng(0)
    x0, eps = rng.standard_normal((2, *SHAPE))
    time = np.asarray(t, np.float64)
    time = time.reshape(time.shape + (1,) * (3 - time.ndim))
    alpha, sigma = _alpha_sigma(path, time)
    step = 1e-6
    ahead, behind = _alpha_sigma(path, time + step), _alpha_sigma(path, time - step)
    rates = [(a - b) / (2 * step) for a, b in zip(ahead, behind, strict=True)]
    values = {
        'x0': x0,
        'eps': eps,
        'v': alpha * eps - sigma * x0,
        'velocity': rates[0] * x0 + rates[1] * eps,
    }
    return alpha * x0 + sigma * eps, values


@functools.partial(jax.jit, static_argnums=0)
def _convert_all(path, values, x_t, t):
    """x_t again, every prediction made from every other, and each of those turned back."""
    pairs = list(itertools.product(noise.PREDICTIONS, repeat=2))
    there = {(a, b): noise.convert(values[a], x_t, t, path, a, b) for a, b in pairs}
    back = {(a, b): noise.convert(there[a, b], x_t, t, path, b, a) for a, b in pairs}
    return noise.diffuse(path, values['x0'], values['eps'], t), there, back


@each_path
@each_time
def test_conversions_match_float64_and_are_cycle_consistent(path, t):
    x_t, values = jax.tree.map(np.float32, _predictions(path, t))
    diffused, there, back = _convert_all(path, values, x_t, t)
    np.testing.assert_allclose(diffused, x_t, atol=2e-5)
    for a, b in there:
        note = f'{a} to {b}'
        np.testing.assert_allclose(there[a, b], values[b], rtol=1e-3, atol=1e-3, err_msg=note)
        np.testing.assert_allclose(back[a, b], values[a], atol=1e-4, err_msg=f'{note} and back')


@each_path
def test_conversions_are_exact_at_both_ends_where_defined(path):
    """Item 0 at t = 0, item 1 at t = 1."""
    x0, eps = _normal(2)
    t = np.array([0.0, 1.0], np.float32)
    wide = t[:, None, None]
    alpha, sigma = np.asarray(path.alpha(wide)), np.asarray(path.sigma(wide))
    slope = [np.asarray(rate) for rate in path.derivatives(wide)]
    v, velocity = alpha * eps - sigma * x0, slope[0] * x0 + slope[1] * eps
    values = {'x0': x0, 'eps': eps, 'v': v, 'velocity': velocity}
    undefined = {0: 'x0', 1: 'eps' if alpha[1] == 0 else None}
    x_t, there, _ = _convert_all(path, values, alpha * x0 + sigma * eps, t)
    np.testing.assert_array_equal(x_t[0], x0[0])
    for (a, b), i in itertools.product(there, (0, 1)):
        got = np.asarray(there[a, b][i])
        if a == undefined[i] and a != b:
            assert not np.isfinite(got).any(), f'{a} to {b} hides that it is undefined'
        else:
            np.testing.assert_allclose(got, values[b][i], rtol=1e-4, atol=1e-4)


def test_times_of_every_shape_mean_the_same():
    x0, eps = _normal(3)
    for t in (0.3, np.full((), 0.3, np.float32), np.full(2, 0.3, np.float32)):
        got = noise.diffuse(PATHS['flow'], jnp.asarray(x0), jnp.asarray(eps), t)
        np.testing.assert_allclose(got, 0.7 * x0 + 0.3 * eps, atol=1e-6)


@each_path
def test_ends_monotony_and_inverse(path):
    @jax.jit
    def levels(t):
        log_snr = noise.log_snr(path, t)
        return path.alpha(t), path.sigma(t), log_snr, path.time_of_log_snr(log_snr)

    t = np.linspace(0.0, 1.0, 513, dtype=np.float32)
    alpha, sigma, log_snr, again = map(np.asarray, levels(t))
    assert (alpha[0], sigma[0]) == (1, 0)
    assert alpha[-1] == 0 or isinstance(path, noise.DiscreteDDPMPath)
    assert (np.diff(log_snr) < 0).all()
    np.testing.assert_allclose(again, t, atol=2e-6)
    if not isinstance(path, noise.RectifiedFlowPath):
        np.testing.assert_allclose(alpha**2 + sigma**2, np.ones(513), rtol=1e-6)


@each_path
def test_derivatives_are_slopes(path):
    @jax.jit
    def slopes(t):
        ones = jnp.ones_like(t)
        return [jax.jvp(level, (t,), (ones,))[1] for level in (path.alpha, path.sigma)]

    t = np.linspace(0.0, 0.99, 40, dtype=np.float32)[1:] + 3e-4  # off the steps of the table
    derivatives = jax.jit(path.derivatives)
    for slope, rate in zip(slopes(t), derivatives(t), strict=True):
        np.testing.assert_allclose(slope, rate, rtol=1e-3, atol=1e-4)
    assert np.isfinite(derivatives(np.linspace(0.0, 1.0, 40, dtype=np.float32))).all()


def test_ddpm_steps_return_the_table_and_time_zero_the_data():
    path = PATHS['ddpm']
    steps = jnp.array([0.0, 1.0, 17.0, 998.0, 999.0])
    times = path.time(steps)
    np.testing.assert_allclose(path.step(times), steps, atol=1e-4)
    expected = ALPHAS_CUMPROD[np.asarray(steps, int)]
    np.testing.assert_allclose(path.alpha(times) ** 2, expected, rtol=1e-5)
    np.testing.assert_allclose(path.sigma(times) ** 2, 1 - expected, rtol=1e-4)
    ratio = [path.sigma(t) / path.alpha(t) for t in (0.00025, 0.0005, 0.001)]
    np.testing.assert_allclose(ratio[1:], [2 * ratio[0], 4 * ratio[0]], rtol=1e-3)
    assert hash(path) == hash(noise.DiscreteDDPMPath(list(ALPHAS_CUMPROD)))


@pytest.mark.parametrize('table', [[0.9], [0.5, 0.9], [0.9, 0.5, 0.0], [1.0, 0.5], [0.9, np.nan]])
def test_ddpm_rejects_what_is_no_table(table):
    with pytest.raises(ValueError, match='alphas_cumprod must'):
        noise.DiscreteDDPMPath(table)


@each_path
def test_as_denoise_finds_the_data_from_any_prediction(path):
    x_t, values = _predictions(path, TIMES['item'])
    for prediction in noise.PREDICTIONS:
        value = jnp.float32(values[prediction])
        denoise = noise.x0_denoiser(path, lambda x, t, value=value: value, prediction)
        got = jax.jit(denoise)(jnp.float32(x_t), TIMES['item'])
        np.testing.assert_allclose(got, values['x0'], rtol=1e-3, atol=1e-3)


def test_unknown_predictions_are_named():
    x = jnp.zeros(SHAPE)
    with pytest.raises(ValueError, match="unknown prediction 'epsilon'.*velocity"):
        noise.x0_denoiser(PATHS['cosine'], lambda x, t: x, 'epsilon')
    with pytest.raises(ValueError, match="unknown prediction 'x'"):
        noise.convert(x, x, 0.5, PATHS['cosine'], 'v', 'x')


@pytest.mark.parametrize('shape', [(7,), (2, 5), (2, 7, 5, 1)])
def test_times_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match='does not fit'):
        noise.diffuse(PATHS['cosine'], jnp.zeros(SHAPE), jnp.zeros(SHAPE), jnp.zeros(shape))


@pytest.mark.parametrize('steps', [1, 2, 7, 50])
def test_time_grid(steps):
    grid = noise.time_grid(steps, start=0.9, end=0.3)
    assert grid.shape == (steps + 1,) and grid[0] == np.float32(0.9) and grid[-1] == np.float32(0.3)
    np.testing.assert_allclose(jnp.diff(grid), np.full(steps, -0.6 / steps), rtol=1e-4)
    assert noise.time_grid(steps)[0] == 1 and noise.time_grid(steps)[-1] == 0


@pytest.mark.parametrize('power', [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize('steps', [1, 2, 7])
def test_a_grid_of_uneven_steps_and_their_lengths(steps, power):
    grid = noise.time_grid(steps, 0.9, 0.3, power)
    left = (np.arange(steps, -1, -1) / steps) ** power
    np.testing.assert_allclose(grid, 0.3 + 0.6 * left, atol=1e-6)
    grid = noise.time_grid(steps, power=power)
    lengths = noise.step_size(grid[:-1], steps, power)
    np.testing.assert_allclose(lengths, -np.diff(grid), atol=1e-6)
    assert noise.step_size(grid[-2] / 2, steps, power) > 0  # less than a step is left


@pytest.mark.parametrize(
    'arguments', [(0,), (4, 0.2, 0.5), (4, 1.5), (4, 1.0, -0.1), (4, 0.5, 0.5), (4, 1.0, 0.0, 0.0)]
)
def test_time_grid_refuses_nonsense(arguments):
    with pytest.raises(ValueError, match='pass 1 or more|times must satisfy|a positive number'):
        noise.time_grid(*arguments)


@each_path
@pytest.mark.parametrize(
    't, s',
    [
        (np.array([0.9, 1.0], np.float32), np.array([0.4, 0.0], np.float32)),
        (TIMES['frame'], TIMES['frame'] * np.float32(0.6)),
    ],
    ids=TIMES.keys(),
)
def test_ddim_step_and_its_inverse(path, t, s):
    x_t, x0 = _normal(3)
    t64, s64 = (np.asarray(z, np.float64).reshape(z.shape + (1,) * (3 - z.ndim)) for z in (t, s))
    (alpha_t, sigma_t), (alpha_s, sigma_s) = _alpha_sigma(path, t64), _alpha_sigma(path, s64)
    if isinstance(path, noise.DiscreteDDPMPath):
        alpha_s, sigma_s = np.where(s64 == 0, 1, alpha_s), np.where(s64 == 0, 0, sigma_s)
    wide = np.asarray(x_t, np.float64), np.asarray(x0, np.float64)
    expected = alpha_s * wide[1] + sigma_s * (wide[0] - alpha_t * wide[1]) / sigma_t
    x_s = jax.jit(lambda *a: noise.ddim_step(path, *a))(x_t, x0, t, s)
    np.testing.assert_allclose(x_s, expected, rtol=1e-4, atol=1e-4)
    back = jax.jit(lambda *a: noise.invert_ddim_step(path, *a))(x_t, x_s, t, s)
    np.testing.assert_allclose(back, x0, atol=2e-4)


@each_path
def test_ddim_step_at_the_limits(path):
    x_t, x0 = _normal(4)
    step = jax.jit(lambda *a: noise.ddim_step(path, *a))
    inverse = jax.jit(lambda *a: noise.invert_ddim_step(path, *a))
    half, zero = np.full(SHAPE[:2], 0.5, np.float32), np.zeros(SHAPE[:2], np.float32)
    np.testing.assert_array_equal(step(x_t, x0, half, zero), x0)
    np.testing.assert_array_equal(inverse(x_t, x0, half, zero), x0)
    np.testing.assert_allclose(step(x_t, x0, half, half), x_t, atol=1e-6)
    # Frames already at t = 0 stay as they are, and pass finite gradients.
    np.testing.assert_array_equal(step(x_t, x0, zero, zero), x_t)
    slope = jax.jit(jax.grad(lambda t: noise.ddim_step(path, x_t, x0, t, zero).sum()))(zero)
    assert np.isfinite(slope).all()
