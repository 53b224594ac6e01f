"""Flow maps in terms of the student interface, for the recipes that learn one.

A flow map takes x_t at time t to x_s at an earlier time s along the teacher's probability-flow ODE.
A student predicts x_0 from x_t, t and a step size; its flow map is one DDIM step (`noise`, 8) with
the prediction made for step size t - s:

    F(x_t, t, s) = r x_t + k D(x_t, t; t - s)                                                (1)
    r = sigma_s / sigma_t,   k = alpha_s - r alpha_t

At step size 0 the student is a denoiser: D(x_t, t; 0) = E[x_0 | x_t]. A sampler of N even steps
uses step size 1/N, so it follows F. F is exact if it stays the same while x_t moves along the
teacher's ODE and s is held. With the teacher's prediction D_T,

    dx_t/dt = alpha'_t D_T + sigma'_t (x_t - alpha_t D_T) / sigma_t                            (2)
    dF/dt = k dD/dt + r c (D_T - D),   c = alpha'_t - alpha_t sigma'_t / sigma_t < 0            (3)

where dD/dt is the total derivative along (2), one Jacobian-vector product. (3) follows from (1) and
r' = -r sigma'_t / sigma_t. Only (3) differentiates the network by its input.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from realaudio_jax.noise import Denoise, NoisePath, convert, ddim_step, per_item
from realaudio_jax.typing import Array, Float


def flow_map(
    path: NoisePath,
    denoise: Denoise,
    x_t: Float[Array, 'B L C'],
    t: Float[Array, 'B'],
    s: Float[Array, 'B'],
) -> Float[Array, 'B L C']:
    """F(x_t, t, s), equation 1.

    Args:
        path: the noise path.
        denoise: the student, bound to step size t - s.
        x_t: noisy latents at time t.
        t: time now, in (0, 1].
        s: time to go to, 0 <= s <= t.
    """
    return ddim_step(path, x_t, denoise(x_t, t), t, s).astype(x_t.dtype)


def total_derivative(
    predict: Callable[[Float[Array, 'B L C'], Float[Array, 'B']], Float[Array, 'B L C']],
    path: NoisePath,
    x_t: Float[Array, 'B L C'],
    t: Float[Array, 'B'],
    velocity_x0: Float[Array, 'B L C'],
) -> tuple[Float[Array, 'B L C'], Float[Array, 'B L C']]:
    """D and dD/dt along equation 2, one forward-mode product.

    Args:
        predict: (x_t, t) to D; a step size that depends on t is differentiated with it.
        path: the noise path.
        x_t: noisy latents.
        t: their times, in (0, 1].
        velocity_x0: the prediction of x_0 that gives the direction dx_t/dt.
    """
    velocity = convert(velocity_x0, x_t, t, path, 'x0', 'velocity').astype(x_t.dtype)
    return jax.jvp(predict, (x_t, t), (velocity, jnp.ones_like(t)))


def flow_map_derivative(
    path: NoisePath,
    x0: Float[Array, 'B L C'],
    x0_derivative: Float[Array, 'B L C'],
    teacher_x0: Float[Array, 'B L C'],
    t: Float[Array, 'B'],
    s: Float[Array, 'B'],
) -> Float[Array, 'B L C']:
    """dF/dt along the teacher's ODE, equation 3.

    Args:
        path: the noise path.
        x0: D, the student's prediction.
        x0_derivative: dD/dt, see `total_derivative`.
        teacher_x0: D_T, the teacher's prediction.
        t: time now, in (0, 1].
        s: end of the step, 0 <= s <= t.
    """
    ratio = path.sigma(s) / path.sigma(t)
    gain = path.alpha(s) - ratio * path.alpha(t)
    pull = ratio * teacher_rate(path, t)
    return per_item(gain, x0) * x0_derivative + per_item(pull, x0) * (teacher_x0 - x0)


def teacher_rate(path: NoisePath, t: Float[Array, 'B']) -> Float[Array, 'B']:
    """c = alpha'_t - alpha_t sigma'_t / sigma_t of equation 3: how dx_t/dt depends on D_T."""
    alpha_rate, sigma_rate = path.derivatives(t)
    return alpha_rate - path.alpha(t) * sigma_rate / path.sigma(t)
