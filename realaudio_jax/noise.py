"""Noise paths, conversions between prediction types, and DDIM steps.

Time runs from t = 0 (data) to t = 1 (noise). A path is a pair of functions of time:

    (1)  x_t = alpha(t) x0 + sigma(t) eps,    eps ~ N(0, I)
    (2)  cosine, variance preserving:   alpha = cos(pi t / 2),    sigma = sin(pi t / 2)
    (3)  rectified flow:                alpha = 1 - t,            sigma = t
    (4)  discrete DDPM of N steps:      alpha^2 = alphas_cumprod[N t - 1],    sigma^2 = 1 - alpha^2
    (5)  log-SNR:                       lambda(t) = 2 log(alpha / sigma)

A network may predict any combination p x0 + q eps that differs from x_t. Four have names:

    (6)  x0          p = 1           q = 0
         eps         p = 0           q = 1
         v           p = -sigma      q = alpha      (the tangent of a circle, for VP paths)
         velocity    p = alpha'      q = sigma'     (dx_t/dt along the path; eps - x0 for (3))

Equation (1) and a prediction y = p x0 + q eps are two linear equations in (x0, eps). Cramer's rule
gives any other combination P x0 + Q eps with no detour through x0:

    (7)  P x0 + Q eps = [(P q - Q p) x_t + (Q alpha - P sigma) y] / (alpha q - sigma p)

The determinant alpha q - sigma p says where this is defined:

    y = x0          -sigma                            undefined at t = 0: x_t holds no noise
    y = eps         alpha                             undefined at alpha = 0: x_t holds no data
    y = v           alpha^2 + sigma^2                 defined at every t
    y = velocity    alpha sigma' - sigma alpha'       defined at every t

    (8)  DDIM (eta = 0), the prediction x0 held fixed from t to s:
             x_s = alpha_s x0 + sigma_s (x_t - alpha_t x0) / sigma_t
    (9)  and solved for x0, the target of a student that covers t to s in one step:
             x0 = (x_s - r x_t) / (alpha_s - r alpha_t),    r = sigma_s / sigma_t

Sources: (2) Nichol & Dhariwal 2021 (2102.09672) and, with v, Salimans & Ho 2022 (2202.00512),
appendix D; (3) Liu et al. 2022 (2209.03003); (4) Ho et al. 2020 (2006.11239); (5) Kingma et al.
2021 (2107.00630); (8) Song et al. 2021 (2010.02502), eq. 12; (9) Salimans & Ho 2022, eq. 8 and
appendix G.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np

from realaudio_jax.typing import Array, Float

Time = Float[Array, '...'] | Float[np.ndarray, '...'] | float
Denoise = Callable[[Float[Array, 'B L C'], Float[Array, ' B']], Float[Array, 'B L C']]


@runtime_checkable
class NoisePath(Protocol):
    """Interface of a noise path; all methods work elementwise on t."""

    def alpha(self, t: Time) -> Float[Array, '...']:
        """The scale of the data at time t."""

    def sigma(self, t: Time) -> Float[Array, '...']:
        """The scale of the noise at time t."""

    def derivatives(self, t: Time) -> tuple[Float[Array, '...'], Float[Array, '...']]:
        """The time derivatives (alpha', sigma')."""

    def time_of_log_snr(self, log_snr: Time) -> Float[Array, '...']:
        """The time whose log-SNR (5) is `log_snr`; infinities give the ends."""


@dataclasses.dataclass(frozen=True)
class CosinePath:
    """The variance-preserving cosine path, equation (2)."""

    def alpha(self, t: Time) -> Float[Array, '...']:
        """cos(pi t / 2), written as a sine so that it is exactly 0 at t = 1."""
        return jnp.sin(jnp.pi / 2 * (1.0 - jnp.asarray(t)))

    def sigma(self, t: Time) -> Float[Array, '...']:
        """sin(pi t / 2)."""
        return jnp.sin(jnp.pi / 2 * jnp.asarray(t))

    def derivatives(self, t: Time) -> tuple[Float[Array, '...'], Float[Array, '...']]:
        """alpha' = -(pi / 2) sigma, sigma' = (pi / 2) alpha."""
        return -jnp.pi / 2 * self.sigma(t), jnp.pi / 2 * self.alpha(t)

    def time_of_log_snr(self, log_snr: Time) -> Float[Array, '...']:
        """t = (2 / pi) atan(exp(-lambda / 2))."""
        return 2 / jnp.pi * jnp.arctan(jnp.exp(-jnp.asarray(log_snr) / 2))


@dataclasses.dataclass(frozen=True)
class RectifiedFlowPath:
    """The straight path of rectified flow and flow matching, equation (3)."""

    def alpha(self, t: Time) -> Float[Array, '...']:
        """1 - t."""
        return 1.0 - jnp.asarray(t)

    def sigma(self, t: Time) -> Float[Array, '...']:
        """t."""
        return jnp.asarray(t)

    def derivatives(self, t: Time) -> tuple[Float[Array, '...'], Float[Array, '...']]:
        """alpha' = -1, sigma' = 1."""
        return -jnp.ones_like(jnp.asarray(t)), jnp.ones_like(jnp.asarray(t))

    def time_of_log_snr(self, log_snr: Time) -> Float[Array, '...']:
        """t = 1 / (1 + exp(lambda / 2))."""
        return 1.0 / (1.0 + jnp.exp(jnp.asarray(log_snr) / 2))


@dataclasses.dataclass(frozen=True)
class DiscreteDDPMPath:
    """The path of a teacher trained on N discrete DDPM steps, equation (4), made continuous.

    Step n of the table (n = 0 ... N-1) sits at t = (n + 1) / N, so t = 1 is the last step. Between
    steps the log-SNR is linear in t. Before the first step, where the log-SNR must reach infinity
    at t = 0, the noise-to-signal ratio rho = sigma / alpha is linear in t instead: rho = rho_0 N t.

    Attributes:
        alphas_cumprod: N >= 2 products of (1 - beta), strictly decreasing in (0, 1).

    Raises:
        ValueError: the table is not as above; a final 0, of no finite log-SNR, included.
    """

    alphas_cumprod: Sequence[float] | np.ndarray | Array = dataclasses.field(repr=False)

    def __post_init__(self):
        table = np.asarray(self.alphas_cumprod, np.float64)
        falls = table.ndim == 1 and len(table) > 1 and np.all(np.diff(table) < 0)
        if not (falls and table[0] < 1 and table[-1] > 0):
            raise ValueError(
                'alphas_cumprod must be 2 or more numbers that decrease strictly within (0, 1): '
                'pass the products, not betas, and replace a final 0 by, say, 1e-8'
            )
        object.__setattr__(self, 'alphas_cumprod', tuple(table.tolist()))

    def step(self, t: Time) -> Float[Array, '...']:
        """N t - 1, the position in the table, from -1 (data) to N - 1, which teachers take."""
        return jnp.asarray(t) * len(self.alphas_cumprod) - 1.0

    def time(self, step: Time) -> Float[Array, '...']:
        """The time (step + 1) / N of a position in the table."""
        return (jnp.asarray(step) + 1.0) / len(self.alphas_cumprod)

    def alpha(self, t: Time) -> Float[Array, '...']:
        """1 / sqrt(1 + rho^2)."""
        ratio, _ = self._ratio(t)
        return 1.0 / jnp.sqrt(1.0 + ratio**2)

    def sigma(self, t: Time) -> Float[Array, '...']:
        """rho / sqrt(1 + rho^2)."""
        ratio, _ = self._ratio(t)
        return ratio / jnp.sqrt(1.0 + ratio**2)

    def derivatives(self, t: Time) -> tuple[Float[Array, '...'], Float[Array, '...']]:
        """alpha' = -rho rho' alpha^3, sigma' = rho' alpha^3; at a step, the slope to its right."""
        ratio, slope = self._ratio(t)
        cube = (1.0 + ratio**2) ** -1.5
        return -ratio * slope * cube, slope * cube

    def time_of_log_snr(self, log_snr: Time) -> Float[Array, '...']:
        """The piecewise inverse; beyond the last step it stays at t = 1."""
        log_ratio = -jnp.asarray(log_snr) / 2
        table = jnp.asarray(self._log_ratios, log_ratio.dtype)
        first = self.time(0.0) * jnp.exp(jnp.minimum(log_ratio - table[0], 0.0))
        later = self.time(jnp.interp(log_ratio, table, jnp.arange(len(table), dtype=table.dtype)))
        return jnp.where(log_ratio < table[0], first, later)

    @functools.cached_property
    def _log_ratios(self) -> np.ndarray:
        """log rho of each step, in float64."""
        table = np.asarray(self.alphas_cumprod)
        return (np.log1p(-table) - np.log(table)) / 2

    def _ratio(self, t: Time) -> tuple[Float[Array, '...'], Float[Array, '...']]:
        """The noise-to-signal ratio rho at t, and its slope drho/dt."""
        steps = len(self.alphas_cumprod)
        position = self.step(t)
        table = jnp.asarray(self._log_ratios, position.dtype)
        cell = jnp.clip(jnp.floor(position), 0, steps - 2).astype(jnp.int32)
        rise = table[cell + 1] - table[cell]
        ratio = jnp.exp(table[cell] + (position - cell) * rise)
        first_slope = jnp.exp(table[0]) * steps
        before_first = position < 0
        return (
            jnp.where(before_first, first_slope * jnp.asarray(t), ratio),
            jnp.where(before_first, first_slope, ratio * rise * steps),
        )


# Row (p, q) of equation (6) for each name, from the path and the time.
_COMBINATIONS = {
    'x0': lambda path, t: (jnp.ones_like(t), jnp.zeros_like(t)),
    'eps': lambda path, t: (jnp.zeros_like(t), jnp.ones_like(t)),
    'v': lambda path, t: (-path.sigma(t), path.alpha(t)),
    'velocity': lambda path, t: path.derivatives(t),
}
PREDICTIONS = tuple(_COMBINATIONS)


def per_item(t: Time, x: Float[Array, '...']) -> Float[Array, '...']:
    """Reshapes times t [], [B] or [B, L] to broadcast against x [B L C], or a ValueError."""
    t = jnp.asarray(t)
    if t.ndim > x.ndim or any(a not in (1, b) for a, b in zip(t.shape, x.shape, strict=False)):
        raise ValueError(f'time of shape {t.shape} does not fit {x.shape}: pass [], [B] or [B, L]')
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


def diffuse(
    path: NoisePath, x0: Float[Array, '*shape'], eps: Float[Array, '*shape'], t: Time
) -> Float[Array, '*shape']:
    """Adds noise: x_t = alpha(t) x0 + sigma(t) eps, equation (1).

    Args:
        path: the noise path.
        x0: data, usually latents [B L C].
        eps: standard normal noise of the same shape.
        t: time in [0, 1], shape [], [B] or [B, L].
    """
    t = per_item(t, x0)
    return path.alpha(t) * x0 + path.sigma(t) * eps


def convert(
    value: Float[Array, '*shape'],
    x_t: Float[Array, '*shape'],
    t: Time,
    path: NoisePath,
    source: str,
    target: str,
) -> Float[Array, '*shape']:
    """Turns one prediction into another, equation (7).

    Args:
        value: the prediction named by `source`.
        x_t: the noisy data it was made from.
        t: time in [0, 1], shape [], [B] or [B, L].
        path: the noise path.
        source: what `value` is: 'x0', 'eps', 'v' or 'velocity'.
        target: what to return, one of the same names.

    Returns:
        The prediction named by `target`. From 'x0' at t = 0 and from 'eps' where alpha = 0 the
        others are undefined, and come out infinite or NaN rather than plausible.

    Raises:
        ValueError: an unknown name.
    """
    _require_prediction(source, target)
    if source == target:
        return value
    t = per_item(t, x_t)
    alpha, sigma = path.alpha(t), path.sigma(t)
    p, q = _COMBINATIONS[source](path, t)
    p_target, q_target = _COMBINATIONS[target](path, t)
    from_x_t = p_target * q - q_target * p
    from_value = q_target * alpha - p_target * sigma
    return (from_x_t * x_t + from_value * value) / (alpha * q - sigma * p)


def x0_denoiser(path: NoisePath, apply: Callable, prediction: str) -> Denoise:
    """Wraps a network `apply(x_t, t) -> prediction` as the contract `denoise(x_t, t) -> x0`.

    Args:
        path: the noise path the network was trained on.
        apply: the network, with parameters and conditioning bound. One that takes discrete steps
            is bound as `lambda x, t: network(x, path.step(t))`.
        prediction: what it predicts: 'x0', 'eps', 'v' or 'velocity'.

    Returns:
        `denoise(x_t [B L C], t [B] or [B, L]) -> x0 [B L C]`.

    Raises:
        ValueError: an unknown prediction.
    """
    _require_prediction(prediction)

    def denoise(x_t, t):
        return convert(apply(x_t, t), x_t, t, path, prediction, 'x0')

    return denoise


def log_snr(path: NoisePath, t: Time) -> Float[Array, '...']:
    """Log-SNR 2 log(alpha / sigma), equation (5); +inf at t = 0, -inf where alpha = 0."""
    return 2.0 * (jnp.log(path.alpha(t)) - jnp.log(path.sigma(t)))


def time_grid(
    steps: int, start: float = 1.0, end: float = 0.0, power: float = 1.0
) -> Float[Array, ' {steps}+1']:
    """Time grid of a sampler: the times start > ... > end that bound `steps` steps.

        t_i = end + (start - end) (1 - i / steps)^power

    Args:
        steps: n, 1 or more.
        start, end: first and last time.
        power: 1 spaces them evenly; more makes steps shorter towards the end.

    Raises:
        ValueError: fewer than one step, a power that is not positive, or not
            0 <= end < start <= 1.
    """
    if steps < 1:
        raise ValueError(f'steps is {steps}: pass 1 or more')
    if not 0.0 <= end < start <= 1.0:
        raise ValueError(f'times must satisfy 0 <= end < start <= 1: start={start}, end={end}')
    if not power > 0:
        raise ValueError(f'power is {power}: pass a positive number')
    left = np.linspace(1.0, 0.0, steps + 1) ** power
    return jnp.asarray(end + (start - end) * left, jnp.float32)


def step_size(t: Time, steps: int, power: float = 1.0) -> Float[Array, '...']:
    """Size of the step that begins at t on `time_grid(steps, power=power)`.

    t - (t^(1 / power) - 1 / steps)^power, and all of t where no whole step is left.
    """
    t = jnp.asarray(t)
    if power == 1:
        return jnp.full_like(t, 1.0 / steps)
    return t - jnp.maximum(t ** (1.0 / power) - 1.0 / steps, 0.0) ** power


def ddim_step(
    path: NoisePath, x_t: Float[Array, '*shape'], x0: Float[Array, '*shape'], t: Time, s: Time
) -> Float[Array, '*shape']:
    """One DDIM step: x_s = r x_t + (alpha_s - r alpha_t) x0 with r = sigma_s / sigma_t, (8).

    Args:
        path: the noise path.
        x_t: noisy data at time t.
        x0: the prediction of the data at x_t.
        t: time now, in [0, 1], shape [], [B] or [B, L].
        s: time to go to, 0 <= s <= t; s = 0 returns x0 itself, and s = t (0 included) x_t.
    """
    t, s = per_item(t, x_t), per_item(s, x_t)
    ratio = _noise_ratio(path, t, s)
    return ratio * x_t + (path.alpha(s) - ratio * path.alpha(t)) * x0


def invert_ddim_step(
    path: NoisePath, x_t: Float[Array, '*shape'], x_s: Float[Array, '*shape'], t: Time, s: Time
) -> Float[Array, '*shape']:
    """Inverse of `ddim_step` in x0: x0 = (x_s - r x_t) / (alpha_s - r alpha_t), (9).

    Args:
        path: the noise path.
        x_t: noisy data at time t, where the one step starts.
        x_s: where it shall arrive.
        t: time of x_t, in (0, 1], shape [], [B] or [B, L].
        s: time of x_s, 0 <= s < t; s = 0 returns x_s itself, s = t infinities or NaN: undefined.
    """
    t, s = per_item(t, x_t), per_item(s, x_t)
    ratio = _noise_ratio(path, t, s)
    return (x_s - ratio * x_t) / (path.alpha(s) - ratio * path.alpha(t))


def _noise_ratio(path: NoisePath, t: Array, s: Array) -> Array:
    """sigma_s / sigma_t, and 1 where t = 0: a frame that is already clean stays as it is."""
    sigma_t = path.sigma(t)
    noisy = sigma_t > 0
    return jnp.where(noisy, path.sigma(s) / jnp.where(noisy, sigma_t, 1.0), 1.0)


def _require_prediction(*names: str):
    """ValueError for a name that (6) does not have."""
    for name in set(names) - set(PREDICTIONS):
        raise ValueError(f"unknown prediction '{name}': use one of {', '.join(PREDICTIONS)}")
