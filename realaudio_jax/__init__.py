"""Real-time audio diffusion in four steps, and the toolkit that distils it.

import realaudio_jax
sound = realaudio_jax.load('foley').generate('a dog barks in the rain', 'gunshot@2.3-2.8')
sound.save('dog.wav')
"""

from typing import TYPE_CHECKING

from realaudio_jax.by_name import lazy_attributes
from realaudio_jax.cache import protect_caches

if TYPE_CHECKING:
    from realaudio_jax.generator import Generator, Sound, load
    from realaudio_jax.timeline import Event, Timeline

__all__ = ['Event', 'Generator', 'Sound', 'Timeline', '__version__', 'load']
__version__ = '0.2.0'

# Loaded when they are used, so that training does not import the generator.
__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        'Event': 'realaudio_jax.timeline:Event',
        'Generator': 'realaudio_jax.generator:Generator',
        'Sound': 'realaudio_jax.generator:Sound',
        'Timeline': 'realaudio_jax.timeline:Timeline',
        'load': 'realaudio_jax.generator:load',
    },
)

protect_caches()  # before numba and matplotlib, which nothing above needs, are imported
