"""Random keys, and the settings of JAX that a draw depends on: one seed is one sound everywhere.

JAX takes the kind of its keys, how a draw is split over counters, the width of its numbers and the
precision of its products from settings of the process, which an environment variable changes
(JAX_DEFAULT_PRNG_IMPL, JAX_THREEFRY_PARTITIONABLE, JAX_ENABLE_X64, JAX_DEFAULT_MATMUL_PRECISION;
JAX_NUMPY_DTYPE_PROMOTION ends in an error). Every key of this project comes from `random_key`, and
what draws with it is traced under `pinned_settings` or in a process set by `pin_process`.
"""

import contextlib
from collections.abc import Iterator

import jax

from realaudio_jax.typing import Array, Int, Key

_IMPL = 'threefry2x32'


def random_key(seed: int | Int[Array, '']) -> Key[Array, '']:
    """A Threefry key (Salmon et al. 2011), whatever kind JAX makes by default.

    Args:
        seed: 0 to 2^32 - 1.
    """
    return jax.random.key(seed, impl=_IMPL)


@contextlib.contextmanager
def pinned_settings() -> Iterator[None]:
    """Context (or decorator) in which this thread traces under JAX's default settings."""
    with (
        jax.threefry_partitionable(True),
        jax.enable_x64(False),
        jax.default_matmul_precision(None),
        jax.numpy_dtype_promotion('standard'),
    ):
        yield


def pin_process() -> None:
    """`pinned_settings` for the whole process, for entry points: all of their threads draw."""
    jax.config.update('jax_default_prng_impl', _IMPL)
    jax.config.update('jax_threefry_partitionable', True)
    jax.config.update('jax_enable_x64', False)
    jax.config.update('jax_default_matmul_precision', None)
    jax.config.update('jax_numpy_dtype_promotion', 'standard')
