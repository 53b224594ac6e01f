"""Array aliases, the dimension alphabet and the constants every part shares.

Dimensions in shape annotations and suffixes:

    B batch            L latent frames (25 per second)   E events
    S samples          C latent channels                 H heads
    A audio channels   T text tokens                     D width
    N STFT frames      K frequency bins
"""

from typing import Any

from jaxtyping import Array, Bool, Float, Int, Int16, Key, PyTree, UInt8

__all__ = ['Any', 'Leaf', 'Array', 'Bool', 'Float', 'Int', 'Int16', 'Key', 'PyTree', 'UInt8']

SAMPLE_RATE = 48_000  # Hz, of everything stored; models also accept 44.1 kHz
LATENT_RATE = 25  # latent frames per second
LATENT_CHANNELS = 64
TEXT_WIDTH = 384  # width of the text encoder's states
MAX_TEXT_TOKENS = 64
MAX_EVENTS = 16
MAX_EVENT_TOKENS = 16
MIN_SECONDS = 0.5
MAX_SECONDS = 10.0


class Leaf:
    """`Leaf['B L C']`: an array field of a pytree, its shape stated but not checked.

    While JAX takes a tree apart and puts it together, its fields hold shapes, shardings or None.
    """

    def __class_getitem__(cls, shape: str) -> Any:
        return Any
