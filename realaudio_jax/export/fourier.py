"""Discrete Fourier transforms as real matrix products, for runtimes without an FFT.

A transform of n = p q points is two products with matrices of p and q points and a twiddle between
them (Cooley & Tukey 1965):

    X[k] = sum_b exp(-2 pi i b k / n) [sum_a exp(-2 pi i a k / p) x[q a + b]],  k = k_p + p k_q  (1)

with p and q near sqrt(n): 1920 = 48 * 40 takes a tenth of the products of one matrix of n points.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np

from realaudio_jax.typing import Array, Float


@functools.cache
def factors(n: int) -> tuple[int, int]:
    """(p, q) with p q = n, p even where n is, and both as near to sqrt(n) as may be."""
    pairs = [(p, n // p) for p in range(1, n + 1) if n % p == 0 and (p % 2 == 0 or n % 2)]
    return min(pairs, key=lambda pair: pair[0] + pair[1])


def _wave(rows: np.ndarray, columns: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of 2 pi r c / n, exact in the product of integers; float32."""
    angle = 2 * np.pi * (np.outer(rows, columns) % n) / n
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rfft(x: Float[Array, '*b F']) -> tuple[Float[Array, '*b K'], Float[Array, '*b K']]:
    """Real and imaginary part of `jnp.fft.rfft`, eq. 1; K = F / 2 + 1."""
    *batch, n = x.shape
    p, q = factors(n)
    lead = (1,) * len(batch)
    cosine, sine = _wave(np.arange(p), np.arange(p), p)
    x = jnp.swapaxes(x.reshape(*batch, p, q), -1, -2)
    real, imaginary = x @ cosine, -(x @ sine)  # [*b q p] over b and k_p
    turn, shift = (w.reshape(*lead, q, p) for w in _wave(np.arange(q), np.arange(p), n))
    real, imaginary = real * turn + imaginary * shift, imaginary * turn - real * shift
    real, imaginary = jnp.swapaxes(real, -1, -2), jnp.swapaxes(imaginary, -1, -2)
    # k = k_p + p k_q up to n / 2: the last k_q needed is n / 2 // p.
    needed = n // 2 // p + 1
    cosine, sine = _wave(np.arange(q), np.arange(needed), q)
    real, imaginary = real @ cosine + imaginary @ sine, imaginary @ cosine - real @ sine
    out = (jnp.swapaxes(part, -1, -2).reshape(*batch, needed * p) for part in (real, imaginary))
    return tuple(part[..., : n // 2 + 1] for part in out)


def irfft(
    real: Float[Array, '*b K'], imaginary: Float[Array, '*b K'], n: int
) -> Float[Array, '*b F']:
    """`jnp.fft.irfft` of n points of a spectrum given by its parts; n even.

    Args:
        real, imaginary: K = n / 2 + 1 bins.
        n: F.
    """
    *batch, bins = real.shape
    p, q = factors(n)
    lead = (1,) * len(batch)
    rows = math.ceil(bins / q)  # bins beyond n / 2 count by the factor 2
    weight = np.full(bins, 2 / n, np.float32)
    weight[0] = weight[-1] = 1 / n
    edges = [(0, 0)] * len(batch) + [(0, rows * q - bins)]
    weight = weight.reshape(*lead, bins)
    real, imaginary = (
        jnp.swapaxes(jnp.pad(part * weight, edges).reshape(*batch, rows, q), -1, -2)
        for part in (real, imaginary)
    )
    cosine, sine = _wave(np.arange(rows), np.arange(p), p)  # of sample s = s_p + p s_q
    real, imaginary = real @ cosine - imaginary @ sine, imaginary @ cosine + real @ sine
    turn, shift = (w.reshape(*lead, q, p) for w in _wave(np.arange(q), np.arange(p), n))
    real, imaginary = real * turn - imaginary * shift, imaginary * turn + real * shift
    real, imaginary = jnp.swapaxes(real, -1, -2), jnp.swapaxes(imaginary, -1, -2)
    cosine, sine = _wave(np.arange(q), np.arange(q), q)
    out = real @ cosine - imaginary @ sine  # [*b p q] over s_p and s_q
    return jnp.swapaxes(out, -1, -2).reshape(*batch, n)
