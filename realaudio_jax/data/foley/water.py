"""Water: singing bubbles and splashes."""

import numpy as np

from realaudio_jax.data.foley.catalogue import event
from realaudio_jax.data.foley.primitives import (
    Mono,
    Number,
    between,
    decay,
    highpass,
    line,
    lowpass,
    place,
    room,
    samples,
    strike,
    swept,
    times,
    tone,
    white,
)


def bubble_note(rng: np.random.Generator, low: Number, high: Number) -> Mono:
    """One bubble (van den Doel 2005): Minnaert's damped tone that rises as it nears the surface.

    Its damping is 0.13 f + 0.0072 f^1.5 per second; `low` and `high` bound its pitch in Hz.
    """
    pitch = between(rng, low, high)
    damping = 0.13 * pitch + 0.0072 * pitch**1.5
    n = samples(min(6.9 / damping, 0.25))
    rise = rng.uniform(0.0, 0.15) * damping
    return tone(pitch * (1 + rise * times(n))) * np.exp(-damping * times(n))


def drip(rng: np.random.Generator) -> Mono:
    """Synthesizes a dripping drop."""
    out = np.zeros(samples(0.3))
    n = samples(0.01)
    place(out, highpass(white(rng, n), 3000) * decay(n, 0.006), 0.0, 0.12)
    n = samples(0.16)
    pitch = between(rng, 700, 1800) * (1 + rng.uniform(0.2, 0.7) * line(n, (0, 0), (1, 1)))
    place(out, tone(pitch) * strike(n, 8e-4, rng.uniform(0.09, 0.15)), rng.uniform(0.001, 0.004))
    if rng.random() < 0.5:
        place(out, bubble_note(rng, 900, 2500), rng.uniform(0.05, 0.12), 0.3)
    return room(rng, out, rng.uniform(0.3, 1.2), rng.uniform(0.1, 0.5))


def bubbles(rng: np.random.Generator) -> Mono:
    """Synthesizes bubbles in water."""
    count = rng.integers(4, 14)
    out = np.zeros(samples(1.3))
    for at in np.append(0.0, np.sort(rng.uniform(0.03, 1.0, count))):
        n = samples(rng.uniform(0.05, 0.12))
        pitch = between(rng, 250, 700) * line(n, (0, 1), (1, rng.uniform(1.3, 2.2)))
        place(out, tone(pitch) * strike(n, 3e-3, n / 48_000), at, rng.uniform(0.3, 1.0))
    return out


def splash(rng: np.random.Generator) -> Mono:
    """Synthesizes a splash in water."""
    n = samples(rng.uniform(0.9, 1.4))
    size = between(rng, 0.6, 1.4)
    slap = lowpass(white(rng, n), 700 / size) * decay(n, 0.1)
    spray = swept(rng, line(n, (0, 1400), (0.2, 3200), (1, 2200)), 1.0)
    spray *= strike(n, 0.015, 1.3) / spray.std()
    out = 2.0 * slap + 0.5 * spray
    for at in rng.exponential(0.2, 50).clip(max=0.9):
        place(out, bubble_note(rng, 350 / size, 2200 / size), 0.04 + at, rng.uniform(0.1, 0.7))
    return out


def pour(rng: np.random.Generator) -> Mono:
    """Synthesizes poured water."""
    n = samples(rng.uniform(1.2, 2.2))
    out = np.zeros(n + samples(0.3))
    fill = between(rng, 500, 800), between(rng, 1100, 1700)  # the air column gets shorter
    for at in rng.uniform(0.0, n / 48_000, rng.integers(150, 300)):
        rising = fill[0] * (fill[1] / fill[0]) ** (at * 48_000 / n)
        place(out, bubble_note(rng, 0.8 * rising, 2.2 * rising), at, rng.uniform(0.2, 1.0))
    hiss = swept(rng, line(n, (0, fill[0] * 1.5), (1, fill[1] * 1.5)), 0.5)
    place(out, hiss / hiss.std() * line(n, (0, 0.4), (0.03, 1), (0.95, 1), (1, 0)), 0.0, 0.25)
    return room(rng, out, 0.25, 0.15)


FOLEYS = (
    event('water_drip', drip, 'a drop of water falls', 'water drip', 'dripping water'),
    event('bubbles', bubbles, 'bubbles rise in water', 'bubbles', 'bubbling water'),
    event('splash', splash, 'something splashes into water', 'water splash', 'a splash'),
    event('pour', pour, 'water is poured into a glass', 'pouring a drink', 'pouring water'),
)
