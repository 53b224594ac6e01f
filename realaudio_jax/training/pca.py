"""The linear part of the autoencoder: probabilistic principal components of log band energies.

Solved for, not trained: Tipping & Bishop 1999, eq. 6 and 9; see `models.autoencoder`, eq. 1 and 2.
"""

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import audio as audio_lib
from realaudio_jax.models.band_levels import BANDS, STRIDE, band_shapes
from realaudio_jax.typing import Float, PyTree


def level_weight(side: float, high: float, high_hz: float) -> Float[np.ndarray, 'E']:
    """Weight of each band level in the choice of principal directions, float32.

    Args:
        side: of the levels of the side channel; those of the middle have 1.
        high: of bands centred above `high_hz`, times the channel's.
        high_hz: Hz.
    """
    weight = np.ones((STRIDE, 2, BANDS), np.float32)
    weight[:, 1] = side
    centre_hz = band_shapes().argmax(axis=1) * audio_lib.BIN_HZ
    weight[:, :, centre_hz > high_hz] *= high
    return weight.reshape(-1)


def fit_pca(
    params: PyTree, levels: Float[np.ndarray, 'N E'], weight: Float[np.ndarray, 'E']
) -> PyTree:
    """Fits eq. 1 and U of eq. 2 to band levels; returns the autoencoder's parameters with them.

    Levels of less weight have fewer directions spent on them: few numbers keep what is heard first
    if the side and the highest bands count less. Each latent is
    scaled by the root of its deviation over the mean one: half-way to unit variance, so the
    channels that carry most of the sound stay the largest, and the mean variance is one, as
    diffusion expects.

    Args:
        params: of `Autoencoder`; their shapes say how many channels and directions.
        levels: `band_levels` of latent frames of training sounds, several thousand.
        weight: of each level, see `level_weight`.
    """
    mean = levels.mean(axis=0, dtype=np.float64)
    centred = (levels - mean) * weight
    variance, directions = np.linalg.eigh(centred.T @ centred / len(levels))
    variance, directions = variance[::-1].clip(1e-9), directions[:, ::-1]
    tree = params['params']
    channels, count = tree['encoder']['kernel'].shape[1], len(tree['decoder']['residual'])
    leading, spread = directions[:, :channels], np.sqrt(variance[:channels])
    scale = np.sqrt(spread * spread.mean())
    left_out = variance[channels:].mean()
    others = slice(channels, channels + count)
    residual = (directions[:, others] * np.sqrt(variance[others])).T
    encoder = {
        'mean': mean,
        'kernel': weight[:, None] * leading / scale,
        'log_variance': np.log(left_out / scale**2),
    }
    decoder = {
        'mean': mean,
        'kernel': scale[:, None] * leading.T / weight,
        'residual': residual / weight,
    }
    encoder, decoder = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (encoder, decoder))
    return {'params': {**tree, 'encoder': encoder, 'decoder': {**tree['decoder'], **decoder}}}
