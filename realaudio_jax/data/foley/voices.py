"""Animals and people: pulse trains and breath through formants."""

import numpy as np

from realaudio_jax.data.foley.catalogue import event
from realaudio_jax.data.foley.primitives import (
    Mono,
    Number,
    Peaks,
    bandpass,
    between,
    compressed,
    formants,
    highpass,
    line,
    place,
    room,
    samples,
    strike,
    tone,
    wander,
    white,
)

# Formants of an adult man (Peterson and Barney 1952): frequency Hz, bandwidth Hz, gain dB.
VOWELS: dict[str, Peaks] = {
    'a': ((730, 90, 0), (1090, 110, -4), (2440, 160, -18), (3400, 250, -26)),
    'e': ((530, 80, 0), (1840, 120, -10), (2480, 160, -14), (3400, 250, -24)),
    'i': ((270, 60, 0), (2290, 130, -14), (3010, 170, -18), (3500, 250, -24)),
    'o': ((570, 80, 0), (840, 100, -5), (2410, 160, -26), (3400, 250, -32)),
    'u': ((300, 60, 0), (870, 100, -12), (2240, 160, -30), (3300, 250, -36)),
}


def scaled(peaks: Peaks, factor: Number) -> Peaks:
    """The formants of a vocal tract `factor` times shorter."""
    return tuple((f * factor, width * factor, gain) for f, width, gain in peaks)


def throat(rng: np.random.Generator, pitch: Mono, sharpness: Number, breath: Number) -> Mono:
    """A voice source: pulses at `pitch` (Hz) with jitter, and noise that pulses with them."""
    jitter = 1 + 0.012 * wander(rng, len(pitch), 40)
    pulses = tone(pitch * jitter, sharpness)
    noise = highpass(white(rng, len(pitch)), 800) * (0.4 + np.abs(pulses))
    return pulses + breath * noise


def morph(x: Mono, vowels: list[Peaks]) -> Mono:
    """Sends `x` through vowel after vowel, cross-faded evenly over its length."""
    place_of = np.linspace(0, len(vowels) - 1, len(x))
    return sum(
        np.clip(1 - np.abs(place_of - i), 0, 1) * formants(x, peaks)
        for i, peaks in enumerate(vowels)
    )


def dog_bark(rng: np.random.Generator) -> Mono:
    """Synthesizes a dog bark."""
    size = between(rng, 0.7, 1.6)  # 1 is a middle-sized dog, higher is smaller
    count = 1 if rng.random() < 0.6 else 2
    length = rng.uniform(0.16, 0.28) / size**0.5
    gap = length + rng.uniform(0.12, 0.25)
    out = np.zeros(samples(count * gap + 0.2))
    for i in range(count):
        n = samples(length)
        arch = line(n, (0, 0.65), (0.25, 1.0), (0.5, 0.95), (1, 0.55))
        pitch = 420 * size * rng.uniform(0.9, 1.1) * arch
        rough = 1 + 0.4 * tone(pitch / 2, 2.0)  # a period-doubled voice sounds harsh
        source = throat(rng, pitch, 60.0, 0.55) * rough
        mouth = ((620, 160, 0), (1150, 200, 1), (1900, 300, -5), (3100, 600, -14))
        opened = ((800, 160, 0), (1450, 220, 1), (2300, 350, -5), (3600, 700, -14))
        bark = morph(source, [scaled(p, size**0.6) for p in (mouth, opened, mouth)])
        level = line(n, (0, 0), (0.06, 1), (0.45, 0.75), (1, 0)) ** 1.5
        place(out, np.tanh(bark * level * 1.5), i * gap, rng.uniform(0.8, 1.0))
    return room(rng, out, rng.uniform(0.25, 0.6), rng.uniform(0.1, 0.35), 4000)


def cat_meow(rng: np.random.Generator) -> Mono:
    """Synthesizes a cat meow."""
    n = samples(rng.uniform(0.55, 1.0))
    arch = line(n, (0, 0.75), (0.3, 1.0), (0.7, 0.95), (1, 0.65))
    pitch = between(rng, 480, 780) * arch * (1 + 0.02 * tone(np.full(n, rng.uniform(5, 8))))
    source = throat(rng, pitch, 90.0, 0.08)
    peaks = [scaled(VOWELS[v], 1.55) for v in ('i', 'e', 'a', 'o', 'u')]
    level = line(n, (0, 0.15), (0.12, 0.6), (0.4, 1), (0.75, 0.7), (1, 0)) ** 1.3
    return room(rng, morph(source, peaks) * level, 0.3, 0.12, 5000)


def bird_syllable(rng: np.random.Generator) -> Mono:
    """One chirp: a short, nearly pure whistle with a fast pitch gesture."""
    n = samples(rng.uniform(0.04, 0.16))
    centre = between(rng, 2600, 5500)
    up, down = rng.uniform(-0.35, 0.35, 2)
    gesture = line(n, (0, 1 - up), (rng.uniform(0.3, 0.7), 1), (1, 1 - down))
    gesture += rng.choice([0.0, 0.06]) * tone(np.full(n, rng.uniform(25, 60)))
    chirp = tone(centre * gesture) + 0.12 * tone(2 * centre * gesture)
    return chirp * np.sin(np.pi * line(n, (0, 0.02), (0.3, 0.5), (1, 1))) ** 1.3


def bird_chirp(rng: np.random.Generator) -> Mono:
    """Synthesizes a bird chirp."""
    syllable, other = bird_syllable(rng), bird_syllable(rng)
    count, gap = rng.integers(2, 6), rng.uniform(0.03, 0.12)
    out = np.zeros(samples(count * (0.16 + gap) + 0.1))
    at = 0.0
    for i in range(count):
        note = other if i % 2 and gap > 0.06 else syllable
        place(out, note, at, rng.uniform(0.7, 1.0))
        at += len(note) / 48_000 + gap
    return room(rng, out, 0.5, 0.15, 8000)


def crow(rng: np.random.Generator) -> Mono:
    """Synthesizes the caw of a crow."""
    count, length = rng.integers(1, 4), rng.uniform(0.28, 0.42)
    base, gap = between(rng, 300, 420), length + rng.uniform(0.08, 0.2)
    out = np.zeros(samples(count * gap + 0.1))
    for i in range(count):
        n = samples(length)
        pitch = base * line(n, (0, 0.85), (0.2, 1.05), (1, 0.8))
        rasp = throat(rng, pitch, 150.0, 0.9) * (1 + 0.4 * wander(rng, n, 90))
        caw = formants(rasp, ((1150, 250, 0), (1750, 300, 0), (2900, 500, -8), (4500, 900, -16)))
        place(out, compressed(caw) * line(n, (0, 0), (0.1, 1), (0.7, 0.8), (1, 0)), i * gap)
    return room(rng, out, 0.8, 0.2, 3500)


def frog(rng: np.random.Generator) -> Mono:
    """Synthesizes the croak of a frog."""
    count = rng.integers(1, 4)
    out = np.zeros(samples(count * 0.45 + 0.1))
    pitch, rate = between(rng, 480, 900), between(rng, 28, 55)
    for i in range(count):
        n = samples(rng.uniform(0.22, 0.34))
        pulses = tone(np.full(n, rate), 12.0)
        glide = pitch * line(n, (0, 0.85), (1, 1.15))
        croak = np.maximum(pulses, 0) * (tone(glide, 3.0) + 0.5 * tone(2.1 * glide))
        place(out, croak * line(n, (0, 0.2), (0.6, 1), (1, 0)), i * 0.45)
    return room(rng, out, 0.4, 0.15, 4000)


def cow(rng: np.random.Generator) -> Mono:
    """Synthesizes the moo of a cow."""
    n = samples(rng.uniform(1.1, 1.9))
    pitch = between(rng, 95, 160) * line(n, (0, 0.7), (0.3, 1.1), (0.7, 1.15), (1, 0.8))
    source = throat(rng, pitch, 250.0, 0.15)
    closed = ((230, 60, 0), (700, 120, -14), (1800, 300, -30))
    wide = ((430, 90, 0), (850, 120, -3), (1900, 250, -14), (3000, 400, -22))
    level = line(n, (0, 0.1), (0.15, 0.6), (0.45, 1), (0.85, 0.7), (1, 0))
    return room(rng, morph(source, [closed, wide, wide, wide]) * level, 0.5, 0.2, 3000)


def sneeze(rng: np.random.Generator) -> Mono:
    """Synthesizes a sneeze."""
    size = between(rng, 0.95, 1.25)
    n = samples(rng.uniform(0.35, 0.5))
    burst = bandpass(white(rng, n), 3400 * size, 0.7) * strike(n, 4e-3, 0.25)
    pitch = 190 * size**2 * rng.uniform(0.7, 1.3) * line(n, (0, 1.5), (0.2, 1.2), (1, 0.6))
    voice = formants(throat(rng, pitch, 120.0, 0.9), scaled(VOWELS['u'], size))
    voice *= line(n, (0, 0), (0.12, 0.6), (0.25, 1), (1, 0))
    return room(rng, burst / burst.std() + 0.9 * voice / voice.std(), 0.3, 0.2)


def cough(rng: np.random.Generator) -> Mono:
    """Synthesizes a cough."""
    size, count = between(rng, 0.9, 1.3), rng.integers(1, 4)
    out = np.zeros(samples(count * 0.34 + 0.2))
    for i in range(count):
        n = samples(rng.uniform(0.2, 0.3))
        burst = white(rng, n) * strike(n, 2e-3, 0.16)
        voice = throat(rng, 150 * size**2 * line(n, (0, 1.3), (1, 0.7)), 100.0, 1.2)
        voice *= line(n, (0, 0.3), (0.3, 1), (1, 0)) * 0.35
        mouth = ((650, 200, 0), (1350, 250, -1), (2500, 400, -4), (3900, 900, -8))
        place(out, formants(burst + voice, scaled(mouth, size)), i * 0.34, 0.85**i)
    return room(rng, out, 0.3, 0.2, 5000)


def laugh(rng: np.random.Generator) -> Mono:
    """Synthesizes a laugh."""
    size, rate = between(rng, 1.0, 1.25), rng.uniform(4.5, 6.0)
    count, base = rng.integers(4, 9), 150 * size**3 * rng.uniform(0.8, 1.3)
    out = np.zeros(samples(count / rate + 0.4))
    for i in range(count):
        n = samples(0.85 / rate)
        pitch = base * (1.25 - 0.06 * i) * line(n, (0, 1.0), (0.4, 1.1), (1, 0.85))
        breath = 0.5 * highpass(white(rng, n), 900) * line(n, (0, 0.4), (0.15, 1), (0.4, 0), (1, 0))
        voice = throat(rng, pitch, 130.0, 0.12) * line(n, (0, 0), (0.2, 0.1), (0.45, 1), (1, 0))
        place(out, formants(voice + breath, scaled(VOWELS['a'], size)), i / rate, 1 - 0.07 * i)
    return room(rng, out, 0.35, 0.2, 6000)


def whistle(rng: np.random.Generator) -> Mono:
    """Synthesizes a human whistle."""
    n = samples(rng.uniform(0.5, 1.0))
    turn = rng.uniform(0.3, 0.6)
    shape = line(n, (0, 0.8), (turn, 1.25), (turn + 0.12, 0.85), (1, rng.uniform(1.0, 1.6)))
    pitch = between(rng, 1200, 1900) * shape * (1 + 0.004 * wander(rng, n, 30))
    level = line(n, (0, 0.1), (0.08, 1), (turn, 0.9), (turn + 0.08, 0.5), (0.8, 1), (1, 0))
    air = bandpass(white(rng, n), 2200, 1.0)
    return room(rng, (tone(pitch) + 0.08 * tone(2 * pitch) + 0.06 * air) * level, 0.6, 0.2)


def clap(rng: np.random.Generator) -> Mono:
    """Synthesizes a clap."""
    n = samples(0.12)
    pitch = between(rng, 900, 1900)  # the pocket of air between the palms
    out = bandpass(white(rng, n), pitch, 1.3) * decay_of_hands(rng, n)
    out += 0.35 * highpass(white(rng, n), 3500) * strike(n, 2e-4, 0.02)
    return room(rng, out, rng.uniform(0.25, 0.7), rng.uniform(0.15, 0.45))


def decay_of_hands(rng: np.random.Generator, n: int) -> Mono:
    """A clap is two or three contacts within some milliseconds."""
    out = strike(n, 2e-4, 0.045)
    for _ in range(rng.integers(1, 3)):
        place(out, strike(n, 2e-4, 0.04), rng.uniform(0.002, 0.009), 0.6)
    return out


FOLEYS = (
    event('dog_bark', dog_bark, 'a dog barks', 'dog bark', 'a dog barking', 'barking dog'),
    event('cat_meow', cat_meow, 'a cat meows', 'cat meow', 'meowing cat'),
    event('bird_chirp', bird_chirp, 'a bird chirps', 'bird chirp', 'chirping bird'),
    event('crow', crow, 'a crow caws', 'crow call', 'cawing crow'),
    event('frog', frog, 'a frog croaks', 'frog croak', 'croaking frog'),
    event('cow', cow, 'a cow moos', 'cow moo', 'mooing cow'),
    event('sneeze', sneeze, 'someone sneezes', 'sneeze', 'a person sneezing'),
    event('cough', cough, 'someone coughs', 'cough', 'a person coughing'),
    event('laugh', laugh, 'someone laughs', 'laughter', 'a person laughing'),
    event('whistle', whistle, 'someone whistles', 'a human whistle', 'whistling with the lips'),
    event('clap', clap, 'a hand clap', 'someone claps once', 'clapping hands'),
)
