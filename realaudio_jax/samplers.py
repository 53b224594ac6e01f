"""Samplers: from noise to data with a denoiser `denoise(x_t [B L C], t [B]) -> x0 [B L C]`.

Each sampler follows a decreasing grid of times (see `noise.time_grid`) with one `lax.scan`, so that
sampling is part of the caller's XLA program and its size does not grow with the number of steps.
Each step is one call of `denoise` (two, where the denoiser is guided). Shared arguments:

    denoise    the denoiser, a plain function; parameters and conditioning are bound by the caller
    path       the noise path
    x          where to start: x_t at time grid[0]; standard normal noise [B L C] where grid[0] = 1
    grid       decreasing times [steps + 1] in [0, 1]; an array or a sequence of floats
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.noise import Denoise, NoisePath, ddim_step, diffuse, log_snr, per_item
from realaudio_jax.typing import Array, Float, Int, Key

Grid = Float[Array, ' bounds'] | Float[np.ndarray, ' bounds'] | Sequence[float]


def ddim(
    denoise: Denoise, path: NoisePath, x: Float[Array, 'B L C'], grid: Grid
) -> Float[Array, 'B L C']:
    """DDIM with eta = 0: x_s = alpha_s x0 + sigma_s (x_t - alpha_t x0) / sigma_t at every step.

    First-order accurate in the step size. Source: Song et al. 2021 (2010.02502), eq. 12.

    Returns:
        x at time grid[-1]: the last prediction itself where that is 0.
    """

    grid = _checked(grid)

    def step(x, bounds):
        t, s = bounds
        x0 = denoise(x, jnp.full(x.shape[:1], t))
        return ddim_step(path, x, x0, t, s).astype(x.dtype), None

    x, _ = jax.lax.scan(step, x, (grid[:-1], grid[1:]))
    return x


def dpm_solver_pp_2m(
    denoise: Denoise, path: NoisePath, x: Float[Array, 'B L C'], grid: Grid
) -> Float[Array, 'B L C']:
    """DPM-Solver++(2M): a DDIM step towards a prediction extrapolated from the last two.

        D_i = x0_i + w_i (x0_i - x0_{i-1}),    w_i = h_i / (2 h_{i-1})
        x_i = (sigma_i / sigma_{i-1}) x_{i-1} - alpha_i (exp(-h_i) - 1) D_i

    where h_i is the step in log(alpha / sigma). As exp(-h) = alpha_t sigma_s / (sigma_t alpha_s),
    the second line is `ddim_step` with D_i for x0. Second-order accurate. Where the log-SNR is
    infinite (t = 0; t = 1 on most paths) there is nothing to extrapolate over, and w = 0: the first
    step is DDIM, and a step to t = 0 returns the prediction itself.

    Source: Lu et al. 2022 (2211.01095), algorithm 2.

    Returns:
        x at time grid[-1].
    """
    grid = _checked(grid)
    weight = extrapolation_weights(path, grid)

    def step(carry, bounds):
        x, previous = carry
        t, s, w = bounds
        x0 = denoise(x, jnp.full(x.shape[:1], t))
        extrapolated = x0 + per_item(w, x0) * (x0 - previous)
        return (ddim_step(path, x, extrapolated, t, s).astype(x.dtype), x0.astype(x.dtype)), None

    (x, _), _ = jax.lax.scan(step, (x, jnp.zeros_like(x)), (grid[:-1], grid[1:], weight.T))
    return x


def extrapolation_weights(path: NoisePath, grid: Grid) -> Float[Array, 'n steps']:
    """w of `dpm_solver_pp_2m`; [1, steps], or [B, steps] where the path differs between items."""
    return _extrapolation(jnp.diff(log_snr(path, _checked(grid)[None])) / 2)


def dpm_solver_pp_2m_sde(
    denoise: Denoise,
    path: NoisePath,
    x: Float[Array, 'B L C'],
    grid: Grid,
    noise: Float[Array, 'steps B L C'],
) -> Float[Array, 'B L C']:
    """SDE-DPM-Solver++(2M): every step removes more noise than DDIM would, and adds fresh noise z.

        x_i = (alpha_i / alpha_{i-1}) q^2 x_{i-1} + alpha_i (1 - q^2) D_i + sigma_i sqrt(1 - q^2) z

    with D_i as in `dpm_solver_pp_2m`, and q = exp(-h_i), the ratio of sigma / alpha after and
    before. A step to t = 0 returns the prediction itself, one from alpha = 0 keeps nothing of x.

    Source: Lu et al. 2022 (2211.01095), section 5.2 and appendix, algorithm "SDE-DPM-Solver++(2M)".

    Args:
        denoise: see the module.
        path: see the module; one whose levels are the same for all items.
        x: see the module.
        grid: see the module.
        noise: standard normal, a sample for each step.

    Returns:
        x at time grid[-1].
    """
    grid = _checked(grid)
    h = jnp.diff(log_snr(path, grid)) / 2
    weight = _extrapolation(h)
    alpha, sigma = path.alpha(grid), path.sigma(grid)
    # q = (sigma_s alpha_t) / (alpha_s sigma_t) is finite where exp(-h) is not
    q = sigma[1:] * alpha[:-1] / (alpha[1:] * sigma[:-1])
    kept = q * sigma[1:] / sigma[:-1]  # (alpha_s / alpha_t) q^2
    fresh = sigma[1:] * jnp.sqrt(jnp.maximum(1.0 - q**2, 0.0))
    drawn = alpha[1:] * (1.0 - q**2)

    def step(carry, now):
        x, previous = carry
        t, w, k, d, f, z = now
        x0 = denoise(x, jnp.full(x.shape[:1], t))
        extrapolated = x0 + w * (x0 - previous)
        return ((k * x + d * extrapolated + f * z).astype(x.dtype), x0.astype(x.dtype)), None

    steps = (grid[:-1], weight, kept, drawn, fresh, noise)
    (x, _), _ = jax.lax.scan(step, (x, jnp.zeros_like(x)), steps)
    return x


def multistep_consistency(
    denoise: Denoise,
    path: NoisePath,
    x: Float[Array, 'B L C'],
    grid: Grid,
    key: Key[Array, ''] | Key[Array, ' B'] | None = None,
) -> Float[Array, 'B L C']:
    """Sampler of multistep consistency models, over a grid of their segments' bounds.

    Within a segment the student's DDIM step to the segment's end lands on the same point from every
    time, so one step a segment is exact for it, and this is DDIM over the bounds. With a key each
    bound is reached by fresh noise instead (ping-pong): x_s = alpha_s x0 + sigma_s z.

    Source: Heek et al. 2024 (2403.06807), algorithm 2; ping-pong: Song et al. 2023 (2303.01469),
    algorithm 1.

    Args:
        denoise: see the module.
        path: see the module.
        x: see the module.
        grid: see the module; `time_grid(segments)` for a student trained on even segments.
        key: None for the deterministic sampler. One typed key per item [B] makes the noise of an
            item a function of its own key, whatever batch it is in; a single key is folded with the
            item's position, so that it does not depend on the size of the batch.

    Returns:
        x at time grid[-1]: the last prediction itself where that is 0.
    """
    if key is None:
        return ddim(denoise, path, x, grid)
    grid = _checked(grid)
    keys = key if key.ndim else _fold_each(jnp.broadcast_to(key, x.shape[:1]), jnp.arange(len(x)))

    def step(x, bounds):
        t, s, index = bounds
        x0 = denoise(x, jnp.full(x.shape[:1], t))
        z = item_noise(_fold_each(keys, jnp.full(x.shape[:1], index)), x.shape[1:])
        return diffuse(path, x0, z, s).astype(x.dtype), None

    x, _ = jax.lax.scan(step, x, (grid[:-1], grid[1:], jnp.arange(len(grid) - 1)))
    return x


def impose(denoise: Denoise, known: Float[Array, 'B L C'], mask: Float[Array, 'B L']) -> Denoise:
    """Inpainting by replacement: a denoiser that returns the known data where it is known.

    A sampler that starts from noised known data, or from noise alone, then holds the known part at
    alpha known + sigma eps, with the noise it started from, at every step: what the denoiser was
    trained on. Source: Lugmayr et al. 2022 (2201.09865), eq. 8, with x_0 for x_{t-1}.

    Args:
        denoise: the denoiser.
        known: the data.
        mask: 1 where it is known, 0 where it is to be made.
    """

    def imposed(x_t, t):
        m = mask[..., None]
        return m * known + (1.0 - m) * denoise(x_t, t)

    return imposed


def item_keys(key: Key[Array, ''], seeds: Int[Array, ' B']) -> Key[Array, ' B']:
    """A key for each item, a function of its seed alone: fold_in(key, seed)."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, seeds)


def item_noise(keys: Key[Array, ' B'], shape: tuple[int, ...]) -> Float[Array, 'B ...']:
    """Standard normal noise, each item from its own key: equal at any batch size and position.

    Args:
        keys: one typed key per item.
        shape: the shape of one item, usually (L, C).
    """
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)


def classifier_free_guidance(
    conditional: Denoise,
    unconditional: Denoise,
    scale: float | Float[Array, ''] | Float[Array, ' B'],
) -> Denoise:
    """Classifier-free guidance as a denoiser, x0 = u + scale (c - u): two evaluations a call.

    Every prediction is affine in x0 at fixed (x_t, t), so guiding x0 equals guiding eps or v.

    Source: Ho & Salimans 2022 (2207.12598), eq. 6, with scale = 1 + w.

    Args:
        conditional: the denoiser c with the condition bound.
        unconditional: the denoiser u without it, or with a negative one.
        scale: 0 is unconditional, 1 conditional, above 1 guided; one number, or one per item [B].
    """

    def denoise(x_t, t):
        return guide(unconditional(x_t, t), conditional(x_t, t), scale)

    return denoise


def side_by_side_guidance(
    both: Callable[[Array, Array], Array], scale: float | Float[Array, ''] | Float[Array, ' B']
) -> Denoise:
    """Classifier-free guidance of one network that evaluates both conditions as one batch.

    A program holds the network once, and its weights are read once for both.

    Args:
        both: of 2 B items: B without the condition, then the same B with it. A denoiser, or any
            prediction that is affine in x0 at fixed (x_t, t).
        scale: see `classifier_free_guidance`.
    """

    def guided(x_t, t):
        twice = both(jnp.concatenate([x_t, x_t]), jnp.concatenate([t, t]))
        return guide(*jnp.split(twice, 2), scale)

    return guided


def guide(
    unconditional: Float[Array, '*shape'],
    conditional: Float[Array, '*shape'],
    scale: float | Float[Array, ''] | Float[Array, ' B'],
) -> Float[Array, '*shape']:
    """Guided prediction u + scale (c - u) of two predictions [B ...]."""
    return unconditional + per_item(scale, unconditional) * (conditional - unconditional)


def _checked(grid: Grid) -> Array:
    grid = jnp.asarray(grid, jnp.result_type(float))
    if grid.ndim != 1 or len(grid) < 2:
        raise ValueError(f'the grid needs 2 or more times in one row; its shape is {grid.shape}')
    return grid


def _extrapolation(h: Array) -> Array:
    """w_i = h_i / (2 h_{i-1}) along the last axis, and 0 where there is nothing before."""
    weight = h[..., 1:] / (2 * h[..., :-1])
    pad = [(0, 0)] * (h.ndim - 1) + [(1, 0)]
    return jnp.pad(jnp.where(jnp.isfinite(weight), weight, 0.0), pad)


def _fold_each(keys: Array, data: Array) -> Array:
    """fold_in(keys[i], data[i]) for every item."""
    return jax.vmap(jax.random.fold_in)(keys, data)
