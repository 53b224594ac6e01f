"""The noise schedule of AudioLDM 2 and the times at which its DDIM sampler stands.

The table is of N discrete steps, beta linear in the square root (Rombach et al. 2022, 2112.10752):

    (1)  beta_n = (sqrt(b_0) + n / (N - 1) (sqrt(b_1) - sqrt(b_0)))^2,    n = 0 ... N - 1
    (2)  alphas_cumprod_n = product of (1 - beta_m) for m <= n

Sampling in S steps stands at n = o + r (S - 1), ..., o + r, o with r = N // S, and ends at step 0,
not at clean data (Lin et al. 2023, 2305.08891, table 2, 'leading').
"""

import dataclasses
import functools
import os

import numpy as np

from realaudio_jax.noise import DiscreteDDPMPath
from realaudio_jax.teachers import importing
from realaudio_jax.typing import Float

CLASS_NAME = 'DDIMScheduler'
PREDICTIONS = {'epsilon': 'eps', 'v_prediction': 'v', 'sample': 'x0'}  # the original's and ours


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Table of noise levels and choice of time steps; the defaults are AudioLDM 2's.

    Attributes:
        first, last: b_0 and b_1 of equation (1).
        steps: N.
        offset: o.
        to_data: whether sampling ends at clean data instead.
        prediction: what the network predicts, see `noise`.
    """

    first: float = 0.0015
    last: float = 0.0195
    steps: int = 1000
    offset: int = 1
    to_data: bool = False
    prediction: str = 'eps'

    @functools.cached_property
    def path(self) -> DiscreteDDPMPath:
        """The noise path of equation (2), in continuous time."""
        betas = np.linspace(self.first**0.5, self.last**0.5, self.steps) ** 2
        return DiscreteDDPMPath(np.cumprod(1.0 - betas))

    def times(self, count: int) -> Float[np.ndarray, ' {count}+1']:
        """The times that bound `count` sampling steps, for `samplers.ddim`.

        Raises:
            ValueError: no step, or more than the table has.
        """
        most = self.steps - self.offset
        if not 1 <= count <= most:
            raise ValueError(f'{count} sampling steps: choose 1 to {most}')
        ratio = self.steps // count
        stands = self.offset + ratio * np.arange(count)[::-1]
        end = max(self.offset - ratio, -1 if self.to_data else 0)
        return ((np.append(stands, end) + 1.0) / self.steps).astype(np.float32)


def read_schedule(folder: str | os.PathLike) -> Schedule:
    """The schedule that a folder's scheduler_config.json describes.

    Raises:
        FileNotFoundError: no such folder or config.
        ValueError: another scheduler, or settings that are not ported.
    """
    config = importing.read_model_config(folder, CLASS_NAME, 'scheduler_config.json')
    fields = {
        'beta_start': 'first',
        'beta_end': 'last',
        'num_train_timesteps': 'steps',
        'steps_offset': 'offset',
        'set_alpha_to_one': 'to_data',
        'prediction_type': 'prediction',
    }
    fixed = {
        'beta_schedule': 'scaled_linear',
        'trained_betas': None,
        'clip_sample': False,
        'thresholding': False,
        'timestep_spacing': 'leading',
        'rescale_betas_zero_snr': False,
    }
    arguments = importing.pick(config, folder, fields, fixed)
    if arguments['prediction'] not in PREDICTIONS:
        raise ValueError(
            f'the config of {folder} asks for prediction_type {arguments["prediction"]!r}; there '
            f'are {", ".join(PREDICTIONS)}'
        )
    arguments['prediction'] = PREDICTIONS[arguments['prediction']]
    return Schedule(**arguments)
