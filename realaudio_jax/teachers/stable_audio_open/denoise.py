"""Stable Audio Open as a denoise function, with its published sampler; pure.

The transformer takes the noise level t = (2 / pi) atan(sigma) of noise sigma on data of unit
variance, which is time on the cosine path, and predicts v there. Sampling is SDE-DPM-Solver++(2M)
over levels evenly spaced in the logarithm, guided away from the condition "nothing said", whose
tokens are all zero, or from a negative prompt.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.noise import CosinePath, Denoise, x0_denoiser
from realaudio_jax.samplers import dpm_solver_pp_2m_sde, item_noise, side_by_side_guidance
from realaudio_jax.teachers.layers import tile_like
from realaudio_jax.teachers.stable_audio_open.conditioners import Conditioning, Projection
from realaudio_jax.teachers.stable_audio_open.transformer import Transformer
from realaudio_jax.typing import Array, Float, Key, PyTree

PATH = CosinePath()


@dataclasses.dataclass(frozen=True)
class Networks:
    """The two networks that make a prediction; their parameters are a dict of the same names."""

    transformer: Transformer
    projection: Projection


def bind(
    networks: Networks,
    params: PyTree,
    conditioning: Conditioning,
    guidance_scale: Float[Array, 'B'] | None = None,
    step_size: Float[Array, 'B'] | None = None,
) -> Denoise:
    """The networks as `denoise(x_t, t) -> x_0`, parameters and conditioning bound.

    Args:
        networks: a teacher's, or those of `student_networks`.
        params: their parameters; the networks compute in the precision of these.
        conditioning: what to make; of twice as many items the first half is conditioned on
            timing alone.
        guidance_scale: embedded scale of a student; None for a teacher.
        step_size: of a student, in [0, 1]; None for a teacher.
    """
    kind = params['transformer']['embed']['kernel'].dtype
    context, timing = networks.projection.apply({'params': params['projection']}, conditioning)
    context, timing = context.astype(kind), timing.astype(kind)

    def predict(x_t, t):
        v = networks.transformer.apply(
            {'params': params['transformer']},
            x_t.astype(kind),
            t,
            context,
            tile_like(timing, x_t),
            guidance_scale,
            step_size,
        )
        return v.astype(x_t.dtype)

    return x0_denoiser(PATH, predict, 'v')


def guided(
    networks: Networks,
    params: PyTree,
    conditioning: Conditioning,
    away: Conditioning | None,
    guidance_scale: float | Float[Array, ''] | Float[Array, 'B'],
) -> Denoise:
    """Classifier-free guidance from `away` towards `conditioning`, both in one batch.

    None is `conditioning.unconditional()`, for which the tokens of nothing are not computed.
    """
    if away is None:
        return side_by_side_guidance(bind(networks, params, conditioning), guidance_scale)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), away, conditioning)
    return side_by_side_guidance(bind(networks, params, both), guidance_scale)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Noise levels of the published sampler: `steps` of them, evenly in the logarithm, then 0.

    Attributes:
        lowest, highest: sigma of noise on data of unit variance.
    """

    lowest: float = 0.3
    highest: float = 500.0

    def times(self, steps: int) -> Float[np.ndarray, 'N']:
        """Times on the cosine path, steps + 1 of them, decreasing to 0.

        Raises:
            ValueError: fewer than two steps.
        """
        if steps < 2:
            raise ValueError(f'steps is {steps}: the published schedule needs 2 or more')
        sigma = np.geomspace(self.highest, self.lowest, steps)
        return np.append(2 / np.pi * np.arctan(sigma), 0.0).astype(np.float32)


def sample(
    networks: Networks,
    params: PyTree,
    conditioning: Conditioning,
    x: Float[Array, 'B L C'],
    times: Float[Array, 'N'],
    noise: Float[Array, 'N-1 B L C'],
    guidance_scale: float | Float[Array, ''],
    negative: Conditioning | None = None,
) -> Float[Array, 'B L C']:
    """Samples latents by SDE-DPM-Solver++(2M) with guidance, two evaluations a step; pure.

    Args:
        networks, params: of a teacher.
        conditioning: what to make.
        x: standard normal noise.
        times: of `Schedule.times`.
        noise: standard normal, for each step.
        guidance_scale: 1 is none.
        negative: what to guide away from, see `guided`.
    """
    denoise = guided(networks, params, conditioning, negative, guidance_scale)
    return dpm_solver_pp_2m_sde(denoise, PATH, x, times, noise)


def noises(
    keys: Key[Array, 'B'], steps: int, shape: tuple[int, int]
) -> tuple[Float[Array, 'B L C'], Float[Array, 'N B L C']]:
    """Initial noise and the noise of each step, from one key for each item."""
    drawn = item_noise(keys, (steps + 1, *shape))
    return drawn[:, 0], jnp.moveaxis(drawn[:, 1:], 1, 0)
