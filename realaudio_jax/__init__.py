"""Real-time audio diffusion in four steps, and the toolkit that distils it.

import realaudio_jax
sound = realaudio_jax.load('foley').generate('a dog barks in the rain', 'gunshot@2.3-2.8')
sound.save('dog.wav')
"""

from realaudio_jax.cache import protect_caches
from realaudio_jax.generator import Generator, Sound, load
from realaudio_jax.timeline import Event, Timeline

__all__ = ['Event', 'Generator', 'Sound', 'Timeline', '__version__', 'load']
__version__ = '0.2.0'

protect_caches()  # before numba and matplotlib, which nothing above needs, are imported
