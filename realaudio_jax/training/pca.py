"""The linear part of the autoencoder: probabilistic principal components of log band energies.

Solved for, not trained: Tipping & Bishop 1999, eq. 6 and 9; see `models.autoencoder`, eq. 1 and 2.
"""

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.models.autoencoder import level_weight
from realaudio_jax.typing import Float, PyTree


def fit_pca(params: PyTree, levels: Float[np.ndarray, 'N E']) -> PyTree:
    """Fits eq. 1 and U of eq. 2 to band levels; returns the autoencoder's parameters with them.

    The side and the highest bands count less, so that directions are spent on what is heard first:
    with equal weights the Frechet distance of reconstructions is larger by half. Each latent is
    scaled by the root of its deviation over the mean one: half-way to unit variance, so the
    channels that carry most of the sound stay the largest, and the mean variance is one, as
    diffusion expects.

    Args:
        params: of `Autoencoder`; their shapes say how many channels and directions.
        levels: `band_levels` of latent frames of training sounds, several thousand.
    """
    weight = level_weight()
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
