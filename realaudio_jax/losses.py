"""Losses of the autoencoder: multi-resolution spectra, octave energies, adversarial terms."""

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import audio as audio_lib
from realaudio_jax.mel import mel
from realaudio_jax.typing import Array, Float, PyTree

# (n_fft, mel bands); hop is n_fft / 4
MEL_RESOLUTIONS = ((256, 24), (512, 40), (1024, 64), (2048, 96), (4096, 128))
COMPLEX_RESOLUTIONS = (1024, 4096)
_FLOOR = 1e-3  # of mel magnitudes, below which nothing is heard
_ENERGY_FLOOR = 1e-2  # of an octave's energy in a frame


def _fit(x: Float[Array, 'B 2 S'], hop: int) -> Float[Array, 'B 2 R']:
    return x[..., : x.shape[-1] // hop * hop]


def _channels(audio: Float[Array, 'B S 2']) -> Float[Array, 'B 2 S']:
    return jnp.moveaxis(audio_lib.mid_side(audio), -1, 1)


def mel_loss(
    audio: Float[Array, 'B S 2'],
    target: Float[Array, 'B S 2'],
    sample_rate: int,
    side_weight: float = 0.5,
) -> tuple[Float[Array, 'B'], Float[Array, 'B']]:
    """Logarithmic and linear mel-spectrum losses over five resolutions, mid and side.

        logarithmic: mean |ln x - ln y|          linear: sum |x - y| / sum y

    The first (arXiv 2306.06546, sec. 3.5) weighs quiet and loud parts alike, so that pauses and
    decays, which are frequent, dominate it. The second (spectral convergence with absolute values,
    arXiv 1910.11480, eq. 4) is dominated by loud parts. Trained on the first alone, an autoencoder
    here lost 5 dB of every peak.

    Args:
        audio, target: in [-1, 1].
        sample_rate: Hz.
        side_weight: weight of the side channel over that of the mid channel.

    Returns:
        (logarithmic, linear).
    """
    weight = jnp.asarray([1.0, side_weight]) / (1.0 + side_weight)
    logarithmic, linear = jnp.zeros(audio.shape[0]), jnp.zeros(audio.shape[0])
    audio, target = _channels(audio), _channels(target)
    for n_fft, bands in MEL_RESOLUTIONS:
        x, y = (
            mel(_fit(a, n_fft // 4), sample_rate, n_fft, n_fft // 4, bands) for a in (audio, target)
        )
        ratio = jnp.log(jnp.maximum(x, _FLOOR)) - jnp.log(jnp.maximum(y, _FLOOR))
        logarithmic += jnp.mean(jnp.abs(ratio), axis=(2, 3)) @ weight
        # The side is measured against the middle too: an empty side is nothing to divide by.
        size = jnp.sum(y, axis=(1, 2, 3)) + _FLOOR * y[0].size
        linear += jnp.sum(jnp.abs(x - y), axis=(1, 2, 3)) / size
    count = len(MEL_RESOLUTIONS)
    return logarithmic / count, linear / count


def energy_loss(
    audio: Float[Array, 'B S 2'], target: Float[Array, 'B S 2'], sample_rate: int
) -> Float[Array, 'B']:
    """Octave-energy loss: mean |ln sum |X|^2 - ln sum |Y|^2| / 2 over octaves of every frame.

    Mid and side count alike. In the other losses a tone in the wrong bin costs nearly as much as a
    missing tone, so a model trained on them omits tones; this loss penalises missing energy.

    Args:
        audio, target: in [-1, 1].
        sample_rate: Hz.
    """
    n_fft = 2048
    bands = _octaves(sample_rate, n_fft)
    x, y = (
        jnp.square(
            audio_lib.magnitude(audio_lib.stft(_fit(_channels(a), n_fft // 4), n_fft, n_fft // 4))
        )
        @ bands
        for a in (audio, target)
    )
    ratio = jnp.log(x + _ENERGY_FLOOR) - jnp.log(y + _ENERGY_FLOOR)
    return jnp.mean(jnp.abs(ratio), axis=(1, 2, 3)) / 2


def _octaves(sample_rate: int, n_fft: int) -> np.ndarray:
    """Which octave a bin is in, from below 63 Hz to above 16 kHz; float32 [n_fft // 2 + 1, 10]."""
    hz = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    octave = np.clip(np.ceil(np.log2(np.maximum(hz, 1.0) / 62.5)), 0, 9)
    return (octave[:, None] == np.arange(10)[None]).astype(np.float32)


def complex_loss(audio: Float[Array, 'B S 2'], target: Float[Array, 'B S 2']) -> Float[Array, 'B']:
    """Compressed complex-spectrum loss: mean |c(X) - c(Y)| with c(X) = X / |X|^0.7.

    Phase can be reconstructed where a latent frame spans few periods; at higher frequencies only
    magnitudes can agree. So the weight of a bin falls as 1 / (1 + f / 1 kHz).
    """
    total = jnp.zeros(audio.shape[0])
    audio, target = _channels(audio), _channels(target)
    for n_fft in COMPLEX_RESOLUTIONS:
        bins = n_fft // 2 + 1
        weight = 1.0 / (1.0 + jnp.arange(bins) * (48.0 / n_fft))
        weight = (weight / jnp.mean(weight))[None, None, None]
        spectra = []
        for a in (audio, target):
            x = audio_lib.stft(_fit(a, n_fft // 4), n_fft, n_fft // 4)
            size = audio_lib.magnitude(x, 1e-2)
            spectra.append((x / size**0.7, size**0.3))
        (x, x_size), (y, y_size) = spectra
        error = 0.5 * audio_lib.magnitude(x - y, 1e-4) + jnp.abs(x_size - y_size)
        total += jnp.mean(weight * error, axis=(1, 2, 3))
    return total / len(COMPLEX_RESOLUTIONS)


def discriminator_hinge(real: PyTree, fake: PyTree) -> Float[Array, '']:
    """Hinge loss of the discriminator (arXiv 1705.02894, eq. 3), averaged over resolutions.

    max(0, 1 - D(real)) + max(0, 1 + D(fake))
    """
    terms = jax.tree.map(
        lambda r, f: jnp.mean(jax.nn.relu(1.0 - r)) + jnp.mean(jax.nn.relu(1.0 + f)), real, fake
    )
    return sum(jax.tree.leaves(terms)) / len(jax.tree.leaves(terms))


def generator_hinge(fake: PyTree) -> Float[Array, '']:
    """Hinge loss of the generator: mean -D(fake) over resolutions."""
    terms = [-jnp.mean(f) for f in jax.tree.leaves(fake)]
    return sum(terms) / len(terms)


def feature_matching(real: PyTree, fake: PyTree) -> Float[Array, '']:
    """Feature-matching loss (1910.06711, eq. 4): |real - fake| / mean |real|, mean over layers."""
    terms = jax.tree.map(
        lambda r, f: jnp.mean(jnp.abs(r - f)) / (jnp.mean(jnp.abs(r)) + 1e-6),
        jax.lax.stop_gradient(real),
        fake,
    )
    return sum(jax.tree.leaves(terms)) / len(jax.tree.leaves(terms))
