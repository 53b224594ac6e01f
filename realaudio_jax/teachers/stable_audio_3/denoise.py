"""Stable Audio 3 as a denoise function, with its published sampler; pure.

The transformer predicts velocity on the straight path. The published models are distilled: eight
steps of the ping-pong sampler without guidance. Their undistilled versions take a hundred Euler
steps, which on this path are DDIM, with guidance.
"""

import dataclasses

import jax
import numpy as np

from realaudio_jax.noise import Denoise, RectifiedFlowPath, x0_denoiser
from realaudio_jax.samplers import classifier_free_guidance, item_noise, multistep_consistency
from realaudio_jax.teachers.stable_audio_3.conditioners import Conditioning, Duration
from realaudio_jax.teachers.stable_audio_3.transformer import Transformer
from realaudio_jax.typing import Array, Float, Key, PyTree

PATH = RectifiedFlowPath()


@dataclasses.dataclass(frozen=True)
class Networks:
    """The two networks that make a prediction; their parameters are a dict of the same names."""

    transformer: Transformer
    duration: Duration


def bind(
    networks: Networks,
    params: PyTree,
    conditioning: Conditioning,
    guidance_scale: Float[Array, 'B'] | None = None,
    step_size: Float[Array, 'B'] | None = None,
) -> Denoise:
    """The networks as `denoise(x_t, t) -> x_0`, parameters and conditioning bound.

    What does not depend on x_t and t is computed here, once.

    Args:
        networks: a teacher's, or those of `distilling.student_networks`.
        params: their parameters; the networks compute in the precision of these.
        conditioning: what to make.
        guidance_scale: embedded scale of a student; None for a teacher.
        step_size: of a student, in [0, 1]; None for a teacher.
    """
    transformer, variables = networks.transformer, {'params': params['transformer']}
    kind = params['transformer']['embed']['kernel'].dtype
    c = conditioning
    duration = networks.duration.apply({'params': params['duration']}, c.seconds).astype(kind)
    context = transformer.apply(
        variables, c.text.astype(kind), c.text_mask, duration, method='condition'
    )
    local = None if c.local is None else c.local.astype(kind)

    def predict(x_t, t):
        velocity = transformer.apply(
            variables,
            x_t.astype(kind),
            t,
            context,
            local,
            guidance_scale,
            step_size,
            method='predict',
        )
        return velocity.astype(x_t.dtype)

    return x0_denoiser(PATH, predict, 'velocity')


def guided(
    networks: Networks,
    params: PyTree,
    conditioning: Conditioning,
    away: Conditioning | None,
    guidance_scale: float | Float[Array, ''] | Float[Array, 'B'],
) -> Denoise:
    """Classifier-free guidance from `away` towards `conditioning`, in two evaluations.

    None is `conditioning.unconditional()`.
    """
    away = conditioning.unconditional() if away is None else away
    asked, other = (bind(networks, params, c) for c in (conditioning, away))
    return classifier_free_guidance(asked, other, guidance_scale)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Noise levels of the published sampler: log(alpha / sigma) evenly spaced.

    Attributes:
        lowest, highest: log(alpha / sigma) at the first time, which becomes 1, and at the last, 0.
        stochastic: ping-pong, as the distilled models take it, or Euler.
    """

    lowest: float = -6.2
    highest: float = 2.0
    stochastic: bool = True

    @property
    def steps(self) -> int:
        """Number of sampling steps as published."""
        return 8 if self.stochastic else 100

    def times(self, steps: int) -> Float[np.ndarray, 'N']:
        """Times on the straight path, steps + 1 of them, decreasing from 1 to 0.

        Raises:
            ValueError: fewer than one step.
        """
        if steps < 1:
            raise ValueError(f'steps is {steps}: pass 1 or more')
        inner = np.linspace(self.lowest, self.highest, steps + 1)[1:-1]
        return np.concatenate([[1.0], 1 / (1 + np.exp(inner)), [0.0]]).astype(np.float32)


def sample(
    networks: Networks,
    params: PyTree,
    conditioning: Conditioning,
    x: Float[Array, 'B L C'],
    times: Float[Array, 'N'],
    keys: Key[Array, 'B'] | None = None,
    guidance_scale: float | Float[Array, ''] | None = None,
    negative: Conditioning | None = None,
) -> Float[Array, 'B L C']:
    """Samples latents by ping-pong or Euler steps, one evaluation each, two with guidance; pure.

    Args:
        networks, params: of the model.
        conditioning: what to make.
        x: standard normal noise.
        times: of `Schedule.times`.
        keys: of each item's fresh noise; None for Euler.
        guidance_scale: None is no guidance.
        negative: what to guide away from, see `guided`.
    """
    if guidance_scale is None:
        denoise = bind(networks, params, conditioning)
    else:
        denoise = guided(networks, params, conditioning, negative, guidance_scale)
    return multistep_consistency(denoise, PATH, x, times, keys)


def start(
    keys: Key[Array, 'B'], shape: tuple[int, int]
) -> tuple[Float[Array, 'B L C'], Key[Array, 'B']]:
    """Initial noise of each item, and the keys of its later noise."""
    split = jax.vmap(jax.random.split)(keys)
    return item_noise(split[:, 0], shape), split[:, 1]
