"""Samplers against perfect denoisers, a closed-form ODE solution, and plain python loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax import noise, samplers

SHAPE = (2, 7, 5)  # B, L, C
PATHS = {
    'cosine': noise.CosinePath(),
    'flow': noise.RectifiedFlowPath(),
    'ddpm': noise.DiscreteDDPMPath(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))),
}
SAMPLERS = {
    'ddim': samplers.ddim,
    'dpm': samplers.dpm_solver_pp_2m,
    'consistency': samplers.multistep_consistency,
    'ping-pong': lambda *arguments: samplers.multistep_consistency(
        *arguments, key=jax.random.key(9)
    ),
    'dpm-sde': lambda denoise, path, x, grid: samplers.dpm_solver_pp_2m_sde(
        denoise, path, x, grid, jax.random.normal(jax.random.key(9), (len(grid) - 1, *x.shape))
    ),
}
MEAN, SCALE = 0.7, 1.5  # of the Gaussian data
# Where the error of the second-order solver does not change sign for this data.
SPANS = {'cosine': (0.8, 0.2), 'flow': (0.8, 0.2), 'ddpm': (0.9, 0.1)}
each_path = pytest.mark.parametrize('path', PATHS.values(), ids=PATHS.keys())
each_sampler = pytest.mark.parametrize('sampler', SAMPLERS.values(), ids=SAMPLERS.keys())


def _gaussian_denoiser(path):
    """E[x0 | x_t] for x0 ~ N(MEAN, SCALE^2)."""

    def denoise(x, t):
        alpha, sigma = path.alpha(t)[:, None, None], path.sigma(t)[:, None, None]
        gain = alpha * SCALE**2 / (alpha**2 * SCALE**2 + sigma**2)
        return MEAN + gain * (x - alpha * MEAN)

    return denoise


def _gaussian_solution(path, x, start, end):
    """The probability-flow ODE keeps (x_t - alpha MEAN) / std(x_t) constant."""
    x = np.asarray(x, np.float64)
    (a, b), (c, d) = ((float(path.alpha(t)), float(path.sigma(t))) for t in (start, end))
    spread = np.sqrt((c**2 * SCALE**2 + d**2) / (a**2 * SCALE**2 + b**2))
    return c * MEAN + spread * (x - a * MEAN)


def _smooth(x, t):
    """A denoiser of no meaning that depends on everything."""
    return jnp.tanh(1.3 * x + x[:, ::-1]) * jnp.cos(t)[:, None, None]


def _run(sampler, denoise, path, x, grid):
    return np.asarray(jax.jit(lambda x: sampler(denoise, path, x, grid))(x), np.float64)


@each_path
@each_sampler
def test_a_perfect_denoiser_gives_the_data(path, sampler):
    x0, eps = jax.random.normal(jax.random.key(0), (2, *SHAPE))
    x = noise.diffuse(path, x0, eps, 1.0)
    got = _run(sampler, lambda x, t: x0, path, x, noise.time_grid(3))
    np.testing.assert_array_equal(got, x0)


@pytest.mark.parametrize(
    'sampler, order, name',
    [(samplers.ddim, 1, 'cosine'), *((samplers.dpm_solver_pp_2m, 2, name) for name in PATHS)],
)
def test_order_of_convergence_to_the_exact_solution(sampler, order, name):
    """Halving the step halves the error of DDIM and quarters that of DPM-Solver++(2M)."""
    path, (start, end) = PATHS[name], SPANS[name]
    x = jax.random.normal(jax.random.key(1), SHAPE)
    exact = _gaussian_solution(path, x, start, end)
    errors = []
    for steps in (16, 32, 64):
        got = _run(sampler, _gaussian_denoiser(path), path, x, noise.time_grid(steps, start, end))
        errors.append(np.abs(got - exact).max())
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert np.all(np.abs(orders - order) < 0.25), (errors, orders)
    assert errors[-1] < (0.1, 0.002)[order - 1]


def test_from_pure_noise_to_data():
    """Both ends of the log-SNR are infinite here; the second order wins all the same."""
    path, x = PATHS['cosine'], jax.random.normal(jax.random.key(2), SHAPE)
    exact = _gaussian_solution(path, x, 1.0, 0.0)
    errors = [
        np.abs(_run(sampler, _gaussian_denoiser(path), path, x, noise.time_grid(n)) - exact).max()
        for sampler in (samplers.ddim, samplers.dpm_solver_pp_2m)
        for n in (10, 40)
    ]
    assert errors[0] / errors[1] > 3.3 and errors[2] / errors[3] > 7, errors
    assert errors[2] < errors[0] / 2, errors


@pytest.mark.parametrize(
    'name, grid',
    [
        ('cosine', [1.0, 0.0]),
        ('cosine', [1.0, 0.6, 0.5, 0.0]),
        ('flow', [0.8, 0.75, 0.3, 0.2]),
        ('ddpm', [1.0, 0.75, 0.3, 0.2, 0.0]),
    ],
)
def test_scans_equal_python_loops(name, grid):
    """The published updates, written out in float64, with uneven steps."""
    path = PATHS[name]
    start = np.asarray(jax.random.normal(jax.random.key(3), SHAPE))

    def denoise(x, t):
        return np.asarray(_smooth(jnp.asarray(x, jnp.float32), jnp.full(2, t)), np.float64)

    levels = [(float(path.alpha(t)), float(path.sigma(t))) for t in grid]
    first, second, previous, h_before = start, start, None, None
    for i, t in enumerate(grid[:-1]):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = levels[i], levels[i + 1]
        x0 = denoise(first, t)
        first = alpha_s * x0 + sigma_s * (first - alpha_t * x0) / sigma_t
        x0 = denoise(second, t)
        if sigma_s == 0:
            second = x0
            continue
        with np.errstate(divide='ignore'):
            h = np.log(alpha_s / sigma_s) - np.log(np.float64(alpha_t) / sigma_t)
        combined = x0
        if i > 0:
            r = h_before / h
            combined = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * previous
        second = sigma_s / sigma_t * second - alpha_s * np.expm1(-h) * combined
        previous, h_before = x0, h
    x = jnp.asarray(start)
    for sampler, expected in ((samplers.ddim, first), (samplers.dpm_solver_pp_2m, second)):
        np.testing.assert_allclose(_run(sampler, _smooth, path, x, grid), expected, atol=5e-5)


@pytest.mark.parametrize(
    'name, grid', [('cosine', [1.0, 0.6, 0.5, 0.0]), ('flow', [0.8, 0.3, 0.2])]
)
def test_sde_scan_equals_a_python_loop(name, grid):
    """The published update in float64, written for x / alpha, whose noise level is rho."""
    path = PATHS[name]
    x = np.asarray(jax.random.normal(jax.random.key(3), SHAPE))
    z = np.asarray(jax.random.normal(jax.random.key(5), (len(grid) - 1, *SHAPE)))
    with np.errstate(divide='ignore', invalid='ignore'):
        rho = [np.float64(path.sigma(t)) / np.float64(path.alpha(t)) for t in grid]
        y = x / np.float64(path.alpha(grid[0]))
    previous, h_before = None, np.inf
    for i, t in enumerate(grid[:-1]):
        if np.isfinite(rho[i]):
            x = y * np.float64(path.alpha(t))
        m = np.asarray(_smooth(jnp.asarray(x, jnp.float32), jnp.full(2, t)), np.float64)
        with np.errstate(divide='ignore'):
            h = np.log(rho[i]) - np.log(rho[i + 1])
        shrink = np.exp(-2 * h)
        second = 0.0
        if np.isfinite(h) and np.isfinite(h_before):
            second = 0.5 * h / h_before * (m - previous)
        kept = 0.0 if shrink == 0 else rho[i + 1] / rho[i] * np.exp(-h) * y
        y = kept + (1 - shrink) * (m + second) + rho[i + 1] * np.sqrt(1 - shrink) * z[i]
        previous, h_before = m, h
    wanted = y * np.float64(path.alpha(grid[-1]))
    x = jax.random.normal(jax.random.key(3), SHAPE)
    z = jnp.asarray(z)
    got = jax.jit(lambda x: samplers.dpm_solver_pp_2m_sde(_smooth, path, x, grid, z))(x)
    np.testing.assert_allclose(got, wanted, atol=5e-5)


@each_sampler
def test_one_program_for_lists_and_arrays_with_times_per_item(sampler):
    path, grid = PATHS['cosine'], [1.0, 0.7, 0.2, 0.0]
    x = jax.random.normal(jax.random.key(4), SHAPE)
    shapes = []

    def denoise(x, t):
        shapes.append((x.shape, t.shape, t.dtype))
        return _smooth(x, t)

    from_list = sampler(denoise, path, x, grid)
    traces = len(shapes)
    assert traces <= 2 and set(shapes) == {
        (SHAPE, (2,), jnp.dtype('float32'))
    }  # not one trace a step
    jitted = jax.jit(lambda x, grid: sampler(_smooth, path, x, grid))
    np.testing.assert_allclose(jitted(x, jnp.array(grid)), from_list, atol=1e-5)
    half = sampler(_smooth, path, x.astype(jnp.bfloat16), grid)
    assert half.dtype == jnp.bfloat16 and jnp.isfinite(half).all()


def test_consistency_without_a_key_is_ddim_and_with_one_renoises():
    path, grid = PATHS['cosine'], noise.time_grid(4)
    x = jax.random.normal(jax.random.key(5), SHAPE)
    np.testing.assert_array_equal(
        samplers.multistep_consistency(_smooth, path, x, grid),
        samplers.ddim(_smooth, path, x, grid),
    )
    keys = jax.random.split(jax.random.key(6), 2)
    expected = x
    for i in range(4):
        x0 = _smooth(expected, jnp.full(2, grid[i]))
        fresh = [jax.random.normal(jax.random.fold_in(k, i), SHAPE[1:]) for k in keys.copy()]
        expected = noise.diffuse(path, x0, jnp.stack(fresh), grid[i + 1])
    got = samplers.multistep_consistency(_smooth, path, x, grid, jax.random.clone(keys))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_ping_pong_noise_of_an_item_depends_on_its_key_alone():
    x = jax.random.normal(jax.random.key(7), (5, 7, 4))
    keys, again = (jax.random.split(jax.random.key(8), 5) for _ in range(2))

    @jax.jit
    def sample(x, key):
        path, grid = PATHS['cosine'], noise.time_grid(3)
        return samplers.multistep_consistency(_smooth, path, x, grid, key)

    some = jnp.array([3, 1])
    whole = sample(x, keys)
    np.testing.assert_allclose(sample(x[some], again[some]), whole[some], atol=1e-6)
    single = sample(x, jax.random.key(11))
    np.testing.assert_allclose(sample(x[:2], jax.random.key(11)), single[:2], atol=1e-6)
    assert np.abs(single - whole).max() > 0.01 and np.abs(single[0] - single[1]).max() > 0.01


def test_guidance_algebra():
    conditional = _smooth
    unconditional = lambda x, t: 0.3 * x  # noqa: E731
    x, t = jax.random.normal(jax.random.key(12), SHAPE), jnp.array([0.3, 0.8])
    c, u = conditional(x, t), unconditional(x, t)

    def guided(scale):
        return samplers.classifier_free_guidance(conditional, unconditional, scale)(x, t)

    np.testing.assert_allclose(guided(1.0), c, atol=1e-6)
    np.testing.assert_array_equal(guided(0.0), u)
    np.testing.assert_allclose(guided(3.5), 3.5 * c - 2.5 * u, atol=1e-5)
    per_item = guided(jnp.array([1.0, 4.0]))
    np.testing.assert_allclose(per_item, jnp.stack([guided(1.0)[0], guided(4.0)[1]]), atol=1e-6)
    both = lambda x, t: jnp.concatenate([unconditional(x, t)[:2], conditional(x, t)[2:]])  # noqa: E731
    joined = samplers.side_by_side_guidance(both, jnp.array([1.0, 4.0]))(x, t)
    np.testing.assert_allclose(joined, per_item, atol=1e-6)
    # Guiding eps gives the same data as guiding x0.
    path = PATHS['cosine']
    eps = [noise.convert(value, x, t, path, 'x0', 'eps') for value in (c, u)]
    mixed = eps[1] + 3.5 * (eps[0] - eps[1])
    back = noise.convert(mixed, x, t, path, 'eps', 'x0')
    np.testing.assert_allclose(back, guided(3.5), atol=1e-4)


@pytest.mark.parametrize('grid', [[1.0], []])
def test_grids_of_another_shape_are_refused(grid):
    with pytest.raises(ValueError, match='2 or more times'):
        samplers.ddim(_smooth, PATHS['cosine'], jnp.zeros(SHAPE), grid)


def test_known_data_is_at_its_noise_level_at_every_step():
    """The denoiser sees alpha known + sigma eps, with the noise it started from."""
    known, eps = jnp.asarray(np.random.default_rng(0).normal(size=(2, *SHAPE)), jnp.float32)
    mask = jnp.asarray(np.arange(7)[None] < [[3], [5]], jnp.float32)
    path, seen = noise.CosinePath(), []

    def denoise(x, t):
        jax.debug.callback(lambda x, t: seen.append((np.asarray(x), np.asarray(t))), x, t)
        return jnp.tanh(x)

    grid = noise.time_grid(4)
    out = samplers.ddim(samplers.impose(denoise, known, mask), path, eps, grid)
    jax.effects_barrier()
    here = np.asarray(mask, bool)
    assert sorted(float(t[0]) for _, t in seen) == sorted(np.asarray(grid[:-1]).tolist())
    for x, t in seen:
        want = np.asarray(noise.diffuse(path, known, eps, jnp.asarray(t)))
        np.testing.assert_allclose(x[here], want[here], atol=1e-5)
    np.testing.assert_array_equal(np.asarray(out)[here], np.asarray(known)[here])
    assert np.abs(np.asarray(out - known)[~here]).min() > 0
