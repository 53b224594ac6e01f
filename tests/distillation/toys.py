"""Networks so small that distillation can be worked out by hand, in float64."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.noise import (
    CosinePath,
    DiscreteDDPMPath,
    RectifiedFlowPath,
    invert_ddim_step,
)

PATHS = {
    'cosine': CosinePath(),
    'straight': RectifiedFlowPath(),
    'discrete': DiscreteDDPMPath(np.cumprod(1 - np.linspace(0.04, 0.14, 1000) ** 2)),
}
PATH = PATHS['cosine']  # the fixture `each_path` sets others
B, L, C = 3, 7, 5
SPREAD = 0.6  # standard deviation of the data


def batch():
    """Latents of the toy data; the last two frames of item 1 are padding."""
    latents = SPREAD * np.random.default_rng(0).normal(size=(B, L, C))
    mask = jnp.ones((B, L)).at[1, -2:].set(0.0)
    return Batch(jnp.asarray(latents, jnp.float32), mask, conditioning=None)


def _gain(t):
    """E[x_0 | x_t] / x_t for data N(0, SPREAD^2)."""
    alpha, sigma = PATH.alpha(t), PATH.sigma(t)
    return alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)


def gaussian_teacher(params, c, guidance):
    """The exact denoiser of the data, times `params`."""
    return lambda x, t: params * _gain(t)[:, None, None] * x


def linear_student(params, c, guidance, step_size):
    return lambda x, t: params * x


def ddim_factor(t, s):
    """What one DDIM step with the exact denoiser multiplies x_t by."""
    ratio = PATH.sigma(s) / PATH.sigma(t)
    return ratio + (PATH.alpha(s) - ratio * PATH.alpha(t)) * _gain(t)


def flow_factor(t, s):
    """What the exact flow multiplies x_t by: the ratio of the spreads of x_s and x_t."""

    def variance(u):
        return PATH.alpha(u) ** 2 * SPREAD**2 + PATH.sigma(u) ** 2

    return jnp.sqrt(variance(s) / variance(t))


def flow_map_student(params, c, guidance, step_size):
    """Its DDIM step of the step size it is given is the exact flow; the denoiser at step size 0.

    `params` scales the prediction.
    """

    def denoise(x, t):
        t = jnp.maximum(t, 1e-3)  # at t = 0 any prediction leaves x as it is
        instant = step_size < 1e-5
        end = jnp.where(instant, 0.0, jnp.maximum(t - step_size, 0.0))
        there = x * flow_factor(t, end)[:, None, None]
        jump = invert_ddim_step(PATH, x, there, t, end)
        here = _gain(t)[:, None, None] * x
        return params * jnp.where(instant[:, None, None], here, jump)

    return denoise


def segment_student(params, c, guidance, step_size):
    """Its DDIM step from anywhere in a segment lands where the exact flow does at its end."""

    def denoise(x, t):
        end = (jnp.ceil(t / step_size - 1e-3) - 1) * step_size
        end = jnp.maximum(end, 0.0)
        inside = jnp.maximum(t, 1e-3)  # the answer at t = 0 is x itself
        there = x * flow_factor(inside, end)[:, None, None]
        return params * invert_ddim_step(PATH, x, there, inside, end)

    return denoise


def curved_student(params, c, guidance, step_size):
    """Not linear in x, and depends on all that it is given."""

    def denoise(x, t):
        told = (t * t + 0.3 * guidance + jnp.sin(2 * step_size))[:, None, None]
        return params * jnp.sin(0.7 * x) * (0.5 + told)

    return denoise


class Call(NamedTuple):
    """What a network was called with."""

    x: Any
    t: Any
    guidance: Any
    step_size: Any


def recorded(make, *arguments):
    """`run(key) -> (loss, metrics, calls of the student, calls of the teacher)`, all in float64.

    Args:
      make: (student, teacher) to a recipe; both networks are `params * x`.
      arguments: of the recipe's loss, but for the key.
    """

    def recorder(calls):
        def network(params, c, guidance, step_size=None):
            def denoise(x, t):
                calls.append(Call(x, t, guidance, step_size))
                return params * x

            return denoise

        return network

    @jax.jit
    def run(key):
        student, teacher = [], []
        loss, metrics = make(recorder(student), recorder(teacher)).loss(*arguments, key)
        return loss, metrics, student, teacher

    return lambda key: jax.tree.map(np.float64, run(key))


def _levels(t):
    t = np.asarray(t, np.float64)[:, None, None]
    return np.cos(np.pi * t / 2), np.sin(np.pi * t / 2)


def ddim(x, x0, t, s):
    """alpha_s x0 + sigma_s eps, eps = (x - alpha_t x0) / sigma_t."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = _levels(t), _levels(s)
    return alpha_s * x0 + sigma_s * (x - alpha_t * x0) / sigma_t


def invert(x, x_s, t, s):
    """The x0 for which `ddim` gives x_s."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = _levels(t), _levels(s)
    return (x_s - sigma_s / sigma_t * x) / (alpha_s - sigma_s / sigma_t * alpha_t)


def error(prediction, target, t, mask):
    """The signal-to-noise weight, between 1 and 10, times the mean square over real frames."""
    alpha, sigma = _levels(t)
    weight = np.clip((alpha / sigma) ** 2, 1, 10)[:, 0, 0]
    mask = np.asarray(mask, np.float64)
    square = np.square(prediction - target).mean(axis=-1) * mask
    return weight * square.sum(axis=-1) / mask.sum(axis=-1)
