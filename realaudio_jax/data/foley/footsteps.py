"""Single footsteps: a heel, then the ball of the foot, on different grounds."""

import numpy as np

from realaudio_jax.data.foley.catalogue import event
from realaudio_jax.data.foley.primitives import (
    Mono,
    Number,
    bandpass,
    between,
    compressed,
    crackle,
    decay,
    highpass,
    line,
    lowpass,
    partials,
    place,
    room,
    samples,
    strike,
    white,
)


def _thump(rng: np.random.Generator, n: int, low: Number, high: Number, t60: Number) -> Mono:
    """The weight of the body: a few strongly damped low partials."""
    frequency = between(rng, low, high) * np.array([1.0, 1.7, 2.6])
    return partials(frequency, t60 / np.array([1.0, 1.5, 2.0]), np.array([1.0, 0.5, 0.3]), n)


def _heel_and_ball(rng: np.random.Generator, heel: Mono, ball: Mono) -> Mono:
    delay = rng.uniform(0.07, 0.14)
    out = np.zeros(samples(delay) + max(len(heel), len(ball)))
    place(out, heel, 0.0)
    place(out, ball, delay, rng.uniform(0.3, 0.7))
    return out


def gravel(rng: np.random.Generator) -> Mono:
    """Synthesizes a footstep on gravel."""

    def crunch(seconds: Number) -> Mono:
        n = samples(seconds)
        density = between(rng, 2000, 5000) * line(n, (0, 0.2), (0.1, 1), (0.6, 0.6), (1, 0.05))
        stones = crackle(rng, density, 1800, 9000, rng.uniform(1.5, 3.0), 6)
        stones += 0.4 * crackle(rng, 0.3 * density, 600, 1800, 2.0, 2)
        grit = highpass(white(rng, n), 3000) * strike(n, 0.01, seconds)
        fall = line(n, (0, 1), (0.5, 0.8), (1, 0)) ** 2
        return (compressed(stones) + 0.5 * grit) * fall + 0.6 * _thump(rng, n, 90, 150, 0.06)

    return _heel_and_ball(rng, crunch(rng.uniform(0.14, 0.25)), crunch(rng.uniform(0.2, 0.35)))


def wood(rng: np.random.Generator) -> Mono:
    """Synthesizes a footstep on wood."""
    base = between(rng, 90, 170)
    ratios = np.array([1.0, 1.63, 2.34, 3.1, 4.4, 6.2, 9.0]) * rng.uniform(0.95, 1.05, 7)

    def knock(hard: Number) -> Mono:
        n = samples(0.35)
        gains = rng.uniform(0.4, 1.0, 7) / ratios**0.6
        board = partials(base * ratios, between(rng, 0.18, 0.3) / ratios**0.5, gains, n)
        sole = bandpass(white(rng, n), between(rng, 1500, 3000), 1.0) * decay(n, 0.02)
        return board + hard * sole

    step = _heel_and_ball(rng, knock(1.2), knock(0.6))
    return room(rng, step, rng.uniform(0.2, 0.4), rng.uniform(0.15, 0.35), 3000)


def concrete(rng: np.random.Generator) -> Mono:
    """Synthesizes a footstep on concrete."""
    heel_pitch = between(rng, 1700, 3200)

    def tap(hard: Number) -> Mono:
        n = samples(0.12)
        click = bandpass(white(rng, n), heel_pitch, 1.2) * decay(n, 0.028)
        scrape = highpass(white(rng, n), 2500) * strike(n, 0.01, 0.09)
        return hard * click + 0.09 * scrape + 0.3 * _thump(rng, n, 110, 190, 0.05)

    step = _heel_and_ball(rng, tap(1.5), tap(0.8))
    return room(rng, step, rng.uniform(0.3, 0.8), rng.uniform(0.15, 0.5), 6000)


def grass(rng: np.random.Generator) -> Mono:
    """Synthesizes a footstep on grass."""

    def swish(seconds: Number) -> Mono:
        n = samples(seconds)
        blades = bandpass(white(rng, n), between(rng, 1200, 2200), 0.6)
        blades *= line(n, (0, 0.1), (0.25, 1), (1, 0)) ** 2
        rustle = crackle(rng, np.full(n, 500.0) * line(n, (0, 0.3), (0.3, 1), (1, 0)), 900, 3000, 2)
        soft = 0.8 * blades + 0.25 * compressed(rustle) * line(n, (0, 1), (1, 0)) ** 2
        return lowpass(soft, 4000) + 0.7 * _thump(rng, n, 70, 110, 0.07)

    return _heel_and_ball(rng, swish(rng.uniform(0.15, 0.25)), swish(rng.uniform(0.2, 0.3)))


def snow(rng: np.random.Generator) -> Mono:
    """Synthesizes a footstep on snow."""
    n = samples(rng.uniform(0.3, 0.5))
    # Snow gives way in many small collapses that get denser and higher as it is packed.
    density = line(n, (0, 800), (0.6, 4000), (1, 500))
    packed = crackle(rng, density, 700, 2400, 4.0, 6)
    squeak = crackle(rng, 0.5 * density, 1500, 3200, 9.0, 3)
    pressure = line(n, (0, 0.6), (0.15, 1), (0.6, 0.8), (1, 0))
    body = compressed(packed) + 0.4 * compressed(squeak)
    return body * pressure**2 + 0.5 * _thump(rng, n, 80, 120, 0.08)


FOLEYS = (
    event(
        'footstep_gravel',
        gravel,
        'a footstep on gravel',
        'gravel footstep',
        'a step crunching on gravel',
        'someone steps on gravel',
    ),
    event(
        'footstep_wood',
        wood,
        'a footstep on a wooden floor',
        'wooden floor footstep',
        'someone steps on floorboards',
        'a step on wood',
    ),
    event(
        'footstep_concrete',
        concrete,
        'a footstep on concrete',
        'concrete footstep',
        'a hard shoe steps on pavement',
        'a heel click on stone',
    ),
    event(
        'footstep_grass',
        grass,
        'a footstep on grass',
        'grass footstep',
        'a soft step in the grass',
        'someone steps on a lawn',
    ),
    event(
        'footstep_snow',
        snow,
        'a footstep in snow',
        'snow footstep',
        'a step crunching in the snow',
        'someone steps on packed snow',
    ),
)
