"""Lasting stereo backgrounds: decorrelated noises and many small placed grains."""

import numpy as np
import scipy.signal

from realaudio_jax.data.foley.catalogue import ambience
from realaudio_jax.data.foley.primitives import (
    Mono,
    Number,
    Stereo,
    bandpass,
    between,
    crackle,
    decay,
    highpass,
    line,
    lowpass,
    panned,
    place,
    samples,
    shaped,
    slope,
    strike,
    tone,
    wander,
    white,
)
from realaudio_jax.data.foley.voices import VOWELS, bird_syllable, clap, formants, scaled, throat
from realaudio_jax.data.foley.water import bubble_note


def _scatter(
    rng: np.random.Generator, n: int, grains: list[Mono], rate: Number, spread: Number = 0.8
) -> Stereo:
    """Random grains at random times and places, `rate` per second, sizes log-normal."""
    out = np.zeros((n, 2))
    seconds, longest = n / 48_000, max(map(len, grains)) / 48_000
    count = rng.poisson(rate * (seconds + longest))
    starts = rng.uniform(-longest, seconds, count)
    gains = np.exp(spread * rng.standard_normal(count))
    for at, gain in zip(starts, gains, strict=True):
        place(out, grains[rng.integers(len(grains))], at, gain * panned(rng.random()))
    return out


def _hall(rng: np.random.Generator, x: np.ndarray, t60: Number, wet: Number) -> Stereo:
    """`x` ([S] or [S, 2]) in a diffuse field that differs left and right."""
    n = samples(t60)
    tail = lowpass(rng.standard_normal((n, 2)) * decay(n, t60)[:, None], 4000)
    tail *= wet / np.sqrt(np.sum(tail**2, axis=0, keepdims=True))
    dry = np.broadcast_to(x[:, None] if x.ndim == 1 else x, (len(x), 2)).astype(np.float32)
    return dry + scipy.signal.oaconvolve(dry, tail.astype(np.float32), axes=0)[: len(x)]


def rain(rng: np.random.Generator, n: int) -> Stereo:
    """Synthesizes rain."""
    hiss = shaped(rng, n, slope(between(rng, 500, 1200), between(rng, 7000, 13_000), -2), 2)
    drops = [bubble_note(rng, 1500, 6000) for _ in range(20)]
    for _ in range(20):
        m = samples(0.008)
        drops.append(bandpass(white(rng, m), between(rng, 2000, 8000), 1.5) * decay(m, 0.006))
    patter = _scatter(rng, n, drops, between(rng, 80, 300), 0.7)
    return hiss + rng.uniform(0.8, 2.0) * patter


def wind(rng: np.random.Generator, n: int) -> Stereo:
    """Synthesizes wind."""
    gust = wander(rng, n, 0.5)
    out = shaped(rng, n, slope(60, 350, -3), 2) * np.exp(0.25 * gust)[:, None]
    for centre in between(rng, 280, 420) * 1.6 ** np.arange(4):
        # Higher bands answer more to gusts: that is the howl.
        lift = np.exp(0.35 * gust + 0.25 * wander(rng, n, 0.8)) * (300 / centre) ** 0.5
        band = shaped(rng, n, slope(centre / 1.1, centre * 1.1), 2)
        out += 0.55 * lift[:, None] * band
    return out


def engine(rng: np.random.Generator, n: int) -> Stereo:
    """Synthesizes a running engine."""
    # Four strokes: a cylinder fires every second turn, so four are half a cycle apart in pairs.
    turns = between(rng, 13, 40) * (1 + 0.01 * wander(rng, n, 2.0))
    firing = sum(
        rng.uniform(0.7, 1.0) * tone(turns / 2, 2500.0, i / 4 + rng.uniform(-0.01, 0.01))
        for i in range(4)
    )
    firing = firing + 0.5 * white(rng, n) * np.maximum(firing, 0)
    scale = rng.uniform(0.8, 1.25)
    pipes = ((75, 40, 3), (160, 70, 3), (340, 140, 1), (720, 300, -3), (1800, 1200, -8))
    exhaust = formants(firing, scaled(pipes, scale))
    rattle = shaped(rng, n, slope(150, 3000, -4), 2)
    side = 0.25 * scipy.signal.lfilter([-0.6, 1.0], [1.0, -0.6], np.roll(exhaust, 211))
    stereo = np.stack([exhaust + side, exhaust - side], axis=1)
    return stereo / exhaust.std() + 0.22 * rattle


def fire(rng: np.random.Generator, n: int) -> Stereo:
    """Synthesizes a crackling fire."""
    roar = shaped(rng, n, slope(40, 300, -3), 2) * np.exp(0.3 * wander(rng, n, 3))[:, None]
    hiss = 0.12 * shaped(rng, n, slope(2000, 9000), 2)
    small = np.full(n, between(rng, 12, 30))
    cracks = np.stack([crackle(rng, small, 1500, 6000, 2.5, 2) for _ in range(2)], axis=1)
    pops = []
    for _ in range(12):
        m = samples(0.05)
        pop = bandpass(white(rng, m), between(rng, 700, 3000), 1.2) * strike(m, 2e-4, 0.025)
        pops.append(pop / np.abs(pop).max())
    loud = _scatter(rng, n, pops, between(rng, 3, 8), 0.6)
    return 0.6 * roar + hiss + np.tanh(2.0 * cracks) + 4.0 * np.tanh(loud)


def sea(rng: np.random.Generator, n: int) -> Stereo:
    """Synthesizes waves on a shore."""
    seconds = n / 48_000
    out = 0.25 * shaped(rng, n, slope(60, 700, -2), 2)
    low, high = shaped(rng, n, slope(80, 900, -2), 2), shaped(rng, n, slope(900, 8000, -2), 2)
    at, swell, foam = -rng.uniform(2.0, 5.0), np.zeros(n), np.zeros(n)
    while at < seconds:
        m, gain = samples(between(rng, 4.5, 7.0)), rng.uniform(0.6, 1.0)
        place(swell, line(m, (0, 0), (0.35, 1), (0.5, 0.5), (1, 0)) ** 2, at, gain)
        place(foam, line(m, (0, 0), (0.3, 0.15), (0.42, 1), (0.6, 0.45), (1, 0)) ** 1.5, at, gain)
        at += rng.uniform(3.0, 5.0)
    return out + swell[:, None] * low + foam[:, None] * high


def siren(rng: np.random.Generator, n: int) -> Stereo:
    """Synthesizes a siren."""
    period = rng.choice([rng.uniform(0.3, 0.45), rng.uniform(3.0, 5.0)])
    cycle = (np.arange(n) / 48_000 / period + rng.random()) % 1.0
    rise = np.interp(cycle, [0, 0.4, 1.0], [0.0, 1.0, 0.0])
    low = between(rng, 480, 700)
    wail = tone(low * between(rng, 2.0, 2.6) ** rise, 12.0)
    wail = formants(wail, ((1000, 900, 0), (2400, 1500, -3)))
    street = 0.1 * shaped(rng, n, slope(60, 800, -3), 2)
    return _hall(rng, wail / wail.std(), rng.uniform(0.8, 1.6), rng.uniform(0.4, 0.9)) + street


def crowd(rng: np.random.Generator, n: int) -> Stereo:
    """Synthesizes a talking crowd."""
    syllables = []
    for _ in range(32):
        m, size = samples(rng.uniform(0.11, 0.3)), between(rng, 0.95, 1.25)
        pitch = 115 * size**3 * rng.uniform(0.85, 1.4)
        bend = line(m, (0, rng.uniform(0.9, 1.1)), (1, rng.uniform(0.8, 1.1)))
        vowel = formants(
            throat(rng, pitch * bend, 150.0, 0.1), scaled(VOWELS[rng.choice(list('aeiou'))], size)
        )
        vowel *= line(m, (0, 0), (0.2, 1), (0.7, 0.8), (1, 0)) / vowel.std()
        if rng.random() < 0.4:
            k = samples(rng.uniform(0.05, 0.1))
            hush = highpass(white(rng, k), between(rng, 2500, 5000))
            vowel = np.concatenate([hush * line(k, (0, 0), (0.5, 0.5), (1, 0)), vowel])
        syllables.append(vowel)
    talk = _scatter(rng, n, syllables, between(rng, 60, 110), 0.35)
    talk = _hall(rng, talk, rng.uniform(0.4, 0.8), rng.uniform(0.5, 1.0))
    return talk + 0.15 * shaped(rng, n, slope(80, 600, -3), 2)


def machine_hum(rng: np.random.Generator, n: int) -> Stereo:
    """Synthesizes the hum of a machine."""
    mains = rng.choice([50.0, 60.0]) * np.ones(n)
    orders = np.array([1, 2, 3, 4, 6, 8, 10, 12])
    gains = np.array([0.5, 1, 0.3, 0.6, 0.35, 0.2, 0.12, 0.08]) * rng.uniform(0.4, 1.4, 8)
    left = np.zeros(n)
    for gain, order in zip(gains, orders, strict=True):
        left += gain * tone(mains * order, phase=rng.random())
    hum = np.stack([left, np.roll(left, rng.integers(40, 120))], axis=1)
    fan = shaped(rng, n, slope(120, between(rng, 500, 1200), -2), 2)
    whirr = 0.05 * tone(between(rng, 500, 1400) * (1 + 0.002 * wander(rng, n, 1)))
    return hum + rng.uniform(0.25, 0.6) * fan + whirr[:, None]


def forest(rng: np.random.Generator, n: int) -> Stereo:
    """Synthesizes birds in a forest."""
    seconds = n / 48_000
    birds = np.zeros((n, 2))
    for _ in range(rng.integers(5, 9)):  # singers, each with its tree, song and pace
        notes = [bird_syllable(rng) for _ in range(rng.integers(1, 4))]
        gap, where, loud = rng.uniform(0.03, 0.12), panned(rng.random()), between(rng, 0.15, 1.0)
        at = rng.uniform(-2.0, 2.0)
        while at < seconds:
            for i in range(rng.integers(2, 9)):
                note = notes[i % len(notes)]
                place(birds, note, at, loud * where)
                at += len(note) / 48_000 + gap
            at += rng.uniform(0.5, 2.5)
    leaves = shaped(rng, n, slope(300, 5000, -3), 2) * np.exp(0.2 * wander(rng, n, 0.5))[:, None]
    return _hall(rng, birds, rng.uniform(0.8, 1.5), 0.5) + rng.uniform(0.06, 0.12) * leaves


def stream(rng: np.random.Generator, n: int) -> Stereo:
    """Synthesizes a running stream."""
    notes = [bubble_note(rng, 350, 3500) for _ in range(60)]
    gurgle = _scatter(rng, n, notes, between(rng, 150, 400), 0.5)
    rush = shaped(rng, n, slope(350, 4000, -2), 2)
    return 3.0 * np.tanh(gurgle / (3.0 * gurgle.std())) + rng.uniform(0.3, 0.7) * rush


def crickets(rng: np.random.Generator, n: int) -> Stereo:
    """Synthesizes crickets."""
    out = 0.03 * shaped(rng, n, slope(100, 2500, -3), 2)
    seconds = n / 48_000
    for _ in range(rng.integers(4, 8)):
        m, pulses = samples(rng.uniform(0.014, 0.022)), rng.integers(2, 5)
        pulse = tone(np.full(m, between(rng, 3900, 5200))) * np.sin(np.pi * line(m, (0, 0), (1, 1)))
        chirp = np.tile(np.pad(pulse, (0, m // 2)), pulses)
        where, loud = panned(rng.random()), between(rng, 0.1, 1.0)
        period = len(chirp) / 48_000 + rng.uniform(0.15, 0.5)
        at = -rng.uniform(0, period)
        while at < seconds:
            place(out, chirp, at, loud * where)
            at += period * rng.uniform(0.97, 1.03)
    return out


def helicopter(rng: np.random.Generator, n: int) -> Stereo:
    """Synthesizes a helicopter."""
    blades = np.full(n, rng.uniform(10, 17))
    chop = tone(blades, 25.0)
    slap = lowpass(chop + 0.6 * white(rng, n) * np.maximum(chop, 0), between(rng, 180, 320))
    wash = shaped(rng, n, slope(200, 2500, -3), 2) * (0.4 + np.maximum(chop, 0))[:, None]
    turbine = 0.05 * tone(np.full(n, between(rng, 1800, 3000)) * (1 + 0.001 * wander(rng, n, 1)))
    return (slap / slap.std())[:, None] + 0.8 * wash + turbine[:, None]


def applause(rng: np.random.Generator, n: int) -> Stereo:
    """Synthesizes applause."""
    claps = [clap(rng) for _ in range(24)]
    claps = [c[: samples(0.05)] / np.abs(c).max() for c in claps]
    hands = _scatter(rng, n, claps, between(rng, 90, 250), 0.5)
    return _hall(rng, hands, rng.uniform(0.6, 1.2), rng.uniform(0.4, 0.8))


FOLEYS = (
    ambience('rain', rain, 'rain falls', 'rain', 'steady rainfall', 'a rain shower'),
    ambience('wind', wind, 'wind blows', 'wind', 'howling wind', 'a windy day'),
    ambience('engine', engine, 'a car engine runs', 'engine', 'an idling motor'),
    ambience('fire', fire, 'a fire crackles', 'crackling fire', 'a burning campfire'),
    ambience('sea_waves', sea, 'waves on a beach', 'sea waves', 'the ocean surf'),
    ambience('siren', siren, 'a siren wails', 'siren', 'an emergency vehicle siren'),
    ambience('crowd', crowd, 'people talk', 'crowd chatter', 'the babble of a crowded room'),
    ambience('machine_hum', machine_hum, 'a machine hums', 'electric hum', 'a humming fridge'),
    ambience('forest_birds', forest, 'birds sing in a forest', 'birdsong', 'a forest morning'),
    ambience('stream', stream, 'a stream flows', 'a babbling brook', 'a small river'),
    ambience('crickets', crickets, 'crickets chirp at night', 'crickets', 'a summer night'),
    ambience('helicopter', helicopter, 'a helicopter flies', 'helicopter', 'helicopter rotor'),
    ambience('applause', applause, 'an audience applauds', 'applause', 'people clap their hands'),
)
