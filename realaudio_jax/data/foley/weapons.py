"""Shots, blasts and things that fly: blast waves, decaying noises and sweeps."""

import numpy as np

from realaudio_jax.data.foley.catalogue import event
from realaudio_jax.data.foley.impacts import struck
from realaudio_jax.data.foley.primitives import (
    Mono,
    bandpass,
    between,
    blast,
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
    swept,
    times,
    tone,
    wander,
    white,
)


def gunshot(rng: np.random.Generator) -> Mono:
    """Synthesizes a gunshot."""
    n = samples(rng.uniform(0.6, 1.2))
    # A muzzle's positive phase is well below a millisecond to a few: small arms to rifles.
    shot = 3.0 * blast(n, between(rng, 2.5e-4, 1.2e-3), 1.0)
    gas = white(rng, n)
    shot += 1.3 * bandpass(gas, between(rng, 900, 2200), 0.5) * decay(n, rng.uniform(0.08, 0.2))
    shot += 0.8 * lowpass(white(rng, n), 350) * strike(n, 2e-3, rng.uniform(0.2, 0.4))
    action = struck(rng, between(rng, 1800, 3000), 60, 8, 5e-5)
    place(shot, action, rng.uniform(0.03, 0.07), 0.05)
    shot = np.tanh(1.5 * shot)
    return room(rng, shot, rng.uniform(0.7, 1.6), rng.uniform(0.4, 1.0), between(rng, 1800, 5000))


def explosion(rng: np.random.Generator) -> Mono:
    """Synthesizes an explosion."""
    n = samples(2.9)
    rumble = lowpass(lowpass(white(rng, n), between(rng, 90, 220)), 500)
    rumble *= strike(n, 0.01, rng.uniform(1.8, 2.8)) * np.exp(0.25 * wander(rng, n, 9))
    body = 2.0 * blast(n, between(rng, 8e-3, 2e-2)) + 2.5 * rumble / rumble.std() * 0.3
    fire = bandpass(white(rng, n), between(rng, 300, 700), 0.6) * strike(n, 3e-3, 0.8)
    debris = crackle(rng, 250 * line(n, (0, 0), (0.15, 1), (1, 0)), 600, 3000, 4.0)
    out = np.tanh(1.6 * (body + 1.0 * fire)) + 0.02 * debris / (debris.std() + 1e-9) * decay(n, 2.0)
    return out * line(n, (0, 1), (0.6, 1), (1, 0))


def thunder(rng: np.random.Generator) -> Mono:
    """Synthesizes thunder."""
    n = samples(3.0)
    out = np.zeros(n)
    # The channel is long and crooked: its parts are heard one after another.
    for at in np.append(0.0, rng.exponential(0.12, rng.integers(8, 16))):
        crack = blast(samples(0.08), between(rng, 4e-4, 5e-3))
        place(out, crack, at, np.exp(-4 * at) * rng.uniform(0.4, 1.2))
    tear = highpass(white(rng, n), 700) * strike(n, 2e-3, rng.uniform(0.3, 0.7))
    rumble = lowpass(white(rng, n), between(rng, 110, 260)) * np.exp(0.6 * wander(rng, n, 5))
    rumble *= strike(n, 0.08, rng.uniform(3.0, 5.0)) / rumble.std()
    out = out + 0.35 * tear + 0.4 * rumble
    return np.tanh(room(rng, out, 1.2, 0.6, 1500)[:n]) * line(n, (0, 1), (0.5, 1), (1, 0)) ** 2


def laser(rng: np.random.Generator) -> Mono:
    """Synthesizes a laser gun."""
    n = samples(rng.uniform(0.18, 0.45))
    high, low = between(rng, 2200, 5000), between(rng, 120, 400)
    pitch = low + (high - low) * np.exp(-times(n) * rng.uniform(9, 22))
    wobble = 1 + 0.25 * tone(np.full(n, between(rng, 30, 120)))
    wave = tone(pitch * wobble, between(rng, 3, 12))
    return wave * strike(n, 1e-3, n / 48_000 * 1.5)


def ricochet(rng: np.random.Generator) -> Mono:
    """Synthesizes a ricochet."""
    n = samples(rng.uniform(0.5, 0.9))
    pitch = between(rng, 2200, 3800) * line(n, (0, 1), (1, rng.uniform(0.35, 0.6)))
    pitch *= 1 + 0.03 * tone(np.full(n, between(rng, 25, 60)))
    whine = tone(pitch, 2.0) * (1 + 0.5 * wander(rng, n, 25)) * strike(n, 0.02, 0.9)
    hit = highpass(white(rng, n), 2000) * decay(n, 0.05)
    return room(rng, 0.5 * whine + hit, 0.8, 0.3)


def whoosh(rng: np.random.Generator) -> Mono:
    """Synthesizes a whoosh."""
    n = samples(rng.uniform(0.3, 0.8))
    middle = rng.uniform(0.4, 0.6)
    low, high = between(rng, 250, 500), between(rng, 1200, 3000)
    rise = line(n, (0, 0), (middle, 1), (1, 0.1))
    air = swept(rng, low * (high / low) ** rise, 0.6)
    return air * np.sin(np.pi * line(n, (0, 0.03), (middle, 0.5), (1, 1))) ** 3


def sword(rng: np.random.Generator) -> Mono:
    """Synthesizes a drawn sword."""
    ring = struck(rng, between(rng, 900, 1700), between(rng, 1500, 3500), 28, 2e-5, 1.3)
    n = len(ring)
    slide = highpass(white(rng, n), 4500) * strike(n, 4e-3, 0.2)
    out = ring / np.abs(ring).max() + 0.4 * slide
    bite = struck(rng, between(rng, 1500, 2500), 900, 16, 2e-5, 0.8)
    place(out, bite, rng.uniform(0.01, 0.04), 0.2)
    return room(rng, out, 0.5, 0.15, 8000)


def arrow(rng: np.random.Generator) -> Mono:
    """Synthesizes an arrow."""
    n = samples(0.5)
    string = tone(np.full(n, between(rng, 70, 130)), 30.0) * decay(n, 0.25)
    flight = swept(rng, line(n, (0, 3500), (1, 1200)), 0.5) * strike(n, 0.02, 0.5)
    snap = bandpass(white(rng, n), 1500, 0.8) * decay(n, 0.02)
    return 0.5 * string / np.abs(string).max() + 0.5 * flight + snap


def gun_reload(rng: np.random.Generator) -> Mono:
    """Synthesizes a reloaded gun."""
    out = np.zeros(samples(0.9))
    for at, pitch, gain in ((0.0, 1500, 0.8), (0.06, 2300, 0.5), (0.32, 1100, 1.0)):
        part = struck(rng, pitch * rng.uniform(0.8, 1.25), 45, 12, 5e-5)
        place(out, part, at * rng.uniform(0.85, 1.2), gain / np.abs(part).max())
    n = samples(0.22)
    slide = bandpass(white(rng, n), 3200, 1.0) * line(n, (0, 0.2), (0.7, 1), (1, 0))
    place(out, slide, 0.09, 0.35)
    thud = partials([between(rng, 200, 320)], [0.06], [0.6], samples(0.1))
    place(out, thud, 0.33)
    return room(rng, out, 0.25, 0.15)


FOLEYS = (
    event('gunshot', gunshot, 'a gunshot', 'gun shot', 'a gun is fired', 'a pistol shot'),
    event('explosion', explosion, 'an explosion', 'a bomb explodes', 'a big blast'),
    event('thunder', thunder, 'a thunder clap', 'thunder', 'thunder cracks and rumbles'),
    event('laser', laser, 'a laser shot', 'laser gun', 'a science fiction blaster fires'),
    event('ricochet', ricochet, 'a bullet ricochets', 'ricochet', 'a ricocheting bullet whines'),
    event('whoosh', whoosh, 'a whoosh', 'something swings through the air', 'swoosh'),
    event('sword', sword, 'swords clash', 'sword clash', 'a blade hits a blade'),
    event('arrow', arrow, 'an arrow is shot', 'bow shot', 'a bow releases an arrow'),
    event('gun_reload', gun_reload, 'a gun is reloaded', 'gun reload', 'cocking a gun'),
)
