"""Real-time audio diffusion in four steps, and the toolkit that distils it.

import realaudio_jax
sound = realaudio_jax.load('foley').generate('a dog barks in the rain', 'gunshot@2.3-2.8')
sound.save('dog.wav')
"""

from realaudio_jax.cache import protect_caches

protect_caches()  # before numba and matplotlib are imported

from realaudio_jax.generator import Generator, Sound, load  # noqa: E402
from realaudio_jax.timeline import Event, Timeline  # noqa: E402
from realaudio_jax.version import __version__  # noqa: E402

__all__ = ['Event', 'Generator', 'Sound', 'Timeline', '__version__', 'load']
