"""Log-mel frames as AudioLDM 2's autoencoder and vocoder take them (Kong et al. 2020, 2010.05646).

ln(max(mel |X|, 1e-5)): windows of 1024 samples every 160, mirrored at the ends so that there are as
many frames as hops; magnitudes, Slaney's bands from 0 Hz up to half the sample rate.
"""

import jax.numpy as jnp

from realaudio_jax import audio
from realaudio_jax.mel import mel_basis
from realaudio_jax.typing import Array, Float

WINDOW, FLOOR = 1024, 1e-5  # samples; magnitude


def log_mel_frames(
    sound: Float[Array, 'B S'], sample_rate: int, bands: int, hop: int
) -> Float[Array, 'B N M']:
    """Log-mel frames, one for each hop.

    Args:
        sound: samples in [-1, 1], S a multiple of `hop` and at least 1024.
        sample_rate: Hz.
        bands: M.
        hop: samples.
    """
    reach = -(-WINDOW // hop)  # hops that a window touches; odd, to be centred on one
    reach += 1 - reach % 2
    extra, cut = reach // 2, (reach * hop - WINDOW) // 2
    sound = jnp.pad(sound, [(0, 0), (extra * hop, extra * hop)], mode='reflect')
    frames = audio.frame(sound, reach * hop, hop)[:, extra:-extra, cut : cut + WINDOW]
    spectrum = jnp.fft.rfft(frames * audio.hann(WINDOW)[None, None])
    mel = jnp.abs(spectrum) @ mel_basis(sample_rate, WINDOW, bands)
    return jnp.log(jnp.maximum(mel, FLOOR))
