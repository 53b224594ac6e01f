"""Things struck, dropped, slammed and broken: modal synthesis with the damping of each material."""

import numpy as np

from realaudio_jax.data.foley.catalogue import event
from realaudio_jax.data.foley.primitives import (
    Mono,
    Number,
    bandpass,
    between,
    crackle,
    decay,
    formants,
    highpass,
    line,
    lowpass,
    partials,
    place,
    room,
    samples,
    strike,
    tone,
    wander,
    white,
)

# Flexural modes of a free bar (Rossing), the common ancestor of struck objects.
_BAR = np.array([1.0, 2.757, 5.404, 8.933, 13.34, 18.64])


def struck(
    rng: np.random.Generator,
    fundamental: Number,
    quality: Number,
    count: int = 12,
    contact: Number = 3e-4,
    longest: Number = 2.4,
) -> Mono:
    """A rigid body hit once.

    A mode of frequency f and quality factor Q rings t60 = ln(1000) Q / (pi f) = 2.2 Q / f. A
    contact of duration T excites modes up to about 1 / T.

    Args:
        rng: source of randomness (shape of the body and place of the hit).
        fundamental: lowest mode in Hz.
        quality: Q; about 30 for wood or stone, 300 for glass, 1,000 and more for metal.
        count: number of modes.
        contact: contact time in seconds.
        longest: upper bound of t60 in seconds.
    """
    extra = 1.0 + rng.exponential(4.0, max(0, count - len(_BAR)))
    ratios = np.concatenate([_BAR * rng.uniform(0.93, 1.07, len(_BAR)), extra])
    frequency = fundamental * ratios / ratios[0]
    t60 = np.minimum(2.2 * quality * rng.uniform(0.6, 1.4, len(ratios)) / frequency, longest)
    gains = np.abs(rng.standard_normal(len(ratios))) + 0.2
    gains /= 1 + (frequency * contact) ** 2
    gains[0] = max(gains[0], 1.0)
    return partials(frequency, t60, gains, samples(max(t60.max(), 0.06)))


def _with_click(
    rng: np.random.Generator, body: Mono, pitch: Number, gain: Number, t60: Number
) -> Mono:
    n = min(len(body), samples(2 * t60))
    out = body / np.abs(body).max()
    click = bandpass(white(rng, n), pitch, 0.8) * decay(n, t60)
    out[:n] += gain * click / np.abs(click).max()
    return out


def wood(rng: np.random.Generator) -> Mono:
    """Synthesizes a hit on wood."""
    pitch = between(rng, 220, 700)
    body = struck(rng, pitch, rng.uniform(25, 60), 10, 6e-4)
    hit = _with_click(rng, body, between(rng, 1200, 2500), 0.5, 0.015)
    return room(rng, hit, rng.uniform(0.15, 0.35), rng.uniform(0.05, 0.2))


def metal(rng: np.random.Generator) -> Mono:
    """Synthesizes a hit on metal."""
    body = struck(rng, between(rng, 350, 1400), between(rng, 900, 3000), 24, 1e-4)
    hit = _with_click(rng, body, 5000, 0.3, 0.01)
    return room(rng, hit, rng.uniform(0.3, 0.6), rng.uniform(0.05, 0.2), 8000)


def stone(rng: np.random.Generator) -> Mono:
    """Synthesizes a hit on stone."""
    body = struck(rng, between(rng, 900, 2200), rng.uniform(25, 50), 14, 1e-4)
    out = _with_click(rng, body, between(rng, 2500, 4000), 1.0, 0.02)
    thud = partials([between(rng, 110, 180)], [0.06], [0.5], samples(0.1))
    full = np.zeros(max(len(out), len(thud)))
    place(full, out, 0.0)
    place(full, thud, 0.0)
    return room(rng, full, rng.uniform(0.2, 0.4), rng.uniform(0.05, 0.2))


def glass_clink(rng: np.random.Generator) -> Mono:
    """Synthesizes the clink of a glass."""
    pitch = between(rng, 1500, 3200)
    first = struck(rng, pitch, between(rng, 500, 1100), 10, 4e-5, 1.4)
    second = struck(rng, pitch * rng.uniform(1.05, 1.4), between(rng, 500, 1100), 10, 4e-5, 1.4)
    out = np.zeros(max(len(first), len(second)))
    place(out, first, 0.0)
    place(out, second, 0.0, 0.8)
    return out


def glass_break(rng: np.random.Generator) -> Mono:
    """Synthesizes breaking glass."""
    out = np.zeros(samples(rng.uniform(1.0, 1.9)))
    n = samples(0.25)
    crash = highpass(white(rng, n), 1800) * decay(n, rng.uniform(0.12, 0.25))
    place(out, crash, 0.0, 0.8)
    shards = [struck(rng, between(rng, 2200, 7000), 200, 8, 3e-5, 0.35) for _ in range(10)]
    spread = rng.uniform(0.14, 0.28)
    for at in rng.exponential(spread, rng.integers(80, 150)):
        gain = 0.35 * np.exp(-at / (2.5 * spread)) * rng.uniform(0.2, 1.0)
        place(out, shards[rng.integers(10)], at, gain)
    thump = partials([between(rng, 150, 300)], [0.08], [0.6], samples(0.15))
    place(out, thump, 0.0)
    return room(rng, out, 0.3, 0.15, 9000)


def coin(rng: np.random.Generator) -> Mono:
    """Synthesizes a dropped coin."""
    ring = struck(rng, between(rng, 3800, 6500), between(rng, 1200, 2200), 9, 2e-5, 0.6)
    out = np.zeros(samples(1.6))
    at, gap, gain = 0.0, rng.uniform(0.13, 0.24), 1.0
    # Each bounce keeps a fixed part of the speed, so gaps and levels shrink geometrically.
    bounce = rng.uniform(0.62, 0.8)
    while gap > 0.012 and at < 1.2:
        place(out, ring, at, gain * rng.uniform(0.7, 1.0))
        at, gap, gain = at + gap, gap * bounce, gain * bounce
    return out


def door_slam(rng: np.random.Generator) -> Mono:
    """Synthesizes a slammed door."""
    n = samples(0.6)
    base = between(rng, 55, 95)
    ratios = np.array([1.0, 1.6, 2.3, 3.4, 4.7, 6.5, 9.1])
    gains = rng.uniform(0.5, 1.0, 7) / ratios**0.5
    panel = partials(base * ratios, rng.uniform(0.3, 0.5) / ratios**0.6, gains, n)
    out = panel / np.abs(panel).max()
    out += 0.7 * lowpass(white(rng, n), 1500) * decay(n, 0.06)
    for at in rng.uniform(0.0, 0.07, 3):
        latch = struck(rng, between(rng, 1200, 2600), 60, 8, 1e-4)
        place(out, latch, at, 0.12)
    return room(rng, out, rng.uniform(0.5, 1.1), rng.uniform(0.3, 0.7), 2500)


def door_knock(rng: np.random.Generator) -> Mono:
    """Synthesizes a knock on a door."""
    count, gap = rng.integers(2, 5), rng.uniform(0.14, 0.25)
    pitch = between(rng, 140, 260)
    out = np.zeros(samples(count * gap + 0.5))
    for i in range(count):
        hit = _with_click(rng, struck(rng, pitch, 14, 8, 8e-4), 1500, 0.7, 0.012)
        place(out, hit, i * gap * rng.uniform(0.97, 1.03), rng.uniform(0.7, 1.0))
    return room(rng, out, 0.35, rng.uniform(0.2, 0.4), 3000)


def door_creak(rng: np.random.Generator) -> Mono:
    """Synthesizes a creaking door."""
    n = samples(rng.uniform(0.7, 1.7))
    # Stick and slip: a jittery train of small jerks that the door's panel colours.
    arch = line(n, (0, 0.5), (rng.uniform(0.2, 0.8), 1.0), (1, rng.uniform(0.4, 0.9)))
    rate = between(rng, 90, 260) * arch * np.exp(0.15 * wander(rng, n, 12))
    jerks = tone(rate, 400.0) * (1 + 0.3 * wander(rng, n, 30))
    scale = rng.uniform(0.8, 1.3)
    peaks = [(480, 60, 0), (960, 90, 2), (1700, 140, 2), (2600, 220, -2), (4100, 500, -8)]
    voice = formants(jerks, [(f * scale, width, gain) for f, width, gain in peaks])
    level = line(n, (0, 0.2), (0.1, 1), (0.85, 0.8), (1, 0)) * np.exp(0.4 * wander(rng, n, 6))
    return room(rng, voice * level, 0.4, 0.25, 4000)


def punch(rng: np.random.Generator) -> Mono:
    """Synthesizes a punch."""
    n = samples(0.3)
    body = partials([between(rng, 70, 120), between(rng, 150, 240)], [0.16, 0.1], [1.0, 0.5], n)
    slap = bandpass(white(rng, n), between(rng, 700, 1600), 0.7) * strike(n, 5e-4, 0.06)
    return np.tanh(2.0 * body + 1.6 * slap)


def box_crash(rng: np.random.Generator) -> Mono:
    """Synthesizes a crashing box."""
    out = np.zeros(samples(1.1))
    bodies = [struck(rng, between(rng, 120, 600), 20, 9, 6e-4) for _ in range(6)]
    for at in np.append(0.0, rng.exponential(0.16, rng.integers(10, 20))):
        place(out, bodies[rng.integers(6)], at, np.exp(-2.5 * at) * rng.uniform(0.3, 1.0))
    n = samples(0.5)
    splinter = crackle(rng, 1500 * decay(n, 0.6), 900, 4000, 3.0)
    place(out, splinter / np.abs(splinter).max(), 0.0, 0.7)
    return room(rng, out, 0.4, 0.2, 4000)


FOLEYS = (
    event('wood_impact', wood, 'wood is struck', 'a knock on a wooden block', 'wooden impact'),
    event('metal_impact', metal, 'metal is struck', 'a metal clang', 'metallic impact'),
    event('stone_impact', stone, 'stone hits stone', 'a rock is struck', 'stone impact'),
    event('glass_clink', glass_clink, 'glasses clink', 'a toast of two glasses', 'glass clink'),
    event(
        'glass_break',
        glass_break,
        'glass breaks',
        'a window shatters',
        'breaking glass',
        'glass shattering',
    ),
    event('coin', coin, 'a coin drops on a table', 'coin drop', 'a falling coin bounces'),
    event('door_slam', door_slam, 'a door slams', 'door slam', 'someone slams the door shut'),
    event('door_knock', door_knock, 'someone knocks on a door', 'door knock', 'knocking'),
    event('door_creak', door_creak, 'a door creaks', 'creaking door', 'a squeaky hinge'),
    event('punch', punch, 'a punch lands', 'a body blow', 'someone is punched'),
    event('crate_smash', box_crash, 'a wooden crate breaks', 'crate smash', 'wood splintering'),
)
