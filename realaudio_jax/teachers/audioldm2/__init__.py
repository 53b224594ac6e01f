"""AudioLDM 2 (Liu et al. 2023, 2308.05734): text to 16 kHz mono by latent diffusion."""

from realaudio_jax.teachers.audioldm2.model import Conditioning, Networks, as_teacher
from realaudio_jax.teachers.audioldm2.pipeline import AudioLDM2, load

__all__ = ['AudioLDM2', 'Conditioning', 'Networks', 'as_teacher', 'load']
