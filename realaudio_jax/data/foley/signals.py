"""Bells, instruments, alarms and small machines."""

import numpy as np

from realaudio_jax.data.foley.catalogue import event
from realaudio_jax.data.foley.impacts import struck
from realaudio_jax.data.foley.primitives import (
    Mono,
    Number,
    bandpass,
    between,
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
    times,
    tone,
    white,
)

# A tuned church bell: hum, prime, tierce (a minor third), quint, nominal and above.
_CHURCH = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 2.66, 3.01, 4.17, 5.43, 6.8, 8.2])
_CHURCH_T60 = np.array([2.9, 2.6, 2.4, 1.6, 1.9, 1.2, 1.1, 1.0, 0.7, 0.5, 0.35, 0.25])


def church_bell(rng: np.random.Generator) -> Mono:
    """Synthesizes a church bell."""
    ratios = _CHURCH * rng.uniform(0.995, 1.005, len(_CHURCH))
    pitch, n = between(rng, 260, 560), samples(2.95)
    gains = np.array([0.6, 0.8, 0.9, 0.4, 1.0, 0.5, 0.4, 0.5, 0.4, 0.3, 0.2, 0.15])
    gains = gains * rng.uniform(0.7, 1.2, len(gains))
    split = 1 + rng.uniform(5e-4, 2e-3)  # an imperfect circle: each mode is a beating pair
    frequency = pitch * np.concatenate([ratios, ratios * split])
    tone_ = partials(frequency, np.tile(_CHURCH_T60, 2), np.tile(gains, 2), n)
    tone_ += 0.5 * highpass(white(rng, n), 2000) * decay(n, 0.03)
    return room(rng, tone_, 1.2, 0.15, 3000)


def _chime(rng: np.random.Generator, pitch: Number, t60: Number) -> Mono:
    ratios = np.array([1.0, 2.0, 2.76, 4.07, 5.4, 8.2]) * rng.uniform(0.99, 1.01, 6)
    fall = t60 / np.array([1.0, 1.3, 1.8, 2.4, 3.5, 6.0])
    gains = np.array([1.0, 0.25, 0.5, 0.2, 0.3, 0.2]) * rng.uniform(0.6, 1.2, 6)
    return partials(pitch * ratios, fall, gains, samples(t60))


def small_bell(rng: np.random.Generator) -> Mono:
    """Synthesizes a small bell."""
    return _chime(rng, between(rng, 1500, 3200), rng.uniform(0.9, 1.8))


def doorbell(rng: np.random.Generator) -> Mono:
    """Synthesizes a doorbell."""
    high = between(rng, 580, 780)
    out = np.zeros(samples(2.4))
    place(out, _chime(rng, high, 1.5), 0.0)
    place(out, _chime(rng, high / 1.26, 1.7), rng.uniform(0.45, 0.7), 1.0)
    return room(rng, out, 0.5, 0.15)


def telephone(rng: np.random.Generator) -> Mono:
    """Synthesizes a telephone."""
    seconds, rate = rng.uniform(1.0, 1.8), rng.uniform(18, 25)
    low = between(rng, 900, 1500)
    bells = [_chime(rng, low * ratio, 0.5) for ratio in (1.0, rng.uniform(1.15, 1.3))]
    out = np.zeros(samples(seconds + 0.6))
    for i in range(int(seconds * rate)):  # one clapper between two gongs
        place(out, bells[i % 2], i / rate, rng.uniform(0.8, 1.0))
    return room(rng, out, 0.4, 0.15)


def beep(rng: np.random.Generator) -> Mono:
    """Synthesizes a beep."""
    n = samples(rng.uniform(0.1, 0.5))
    wave = tone(np.full(n, between(rng, 700, 2600)), rng.choice([0.0, 2.0]))
    ramp = min(0.004 * 48_000 / n, 0.2)
    return wave * line(n, (0, 0.1), (ramp, 1), (1 - ramp, 1), (1, 0))


def alarm_clock(rng: np.random.Generator) -> Mono:
    """Synthesizes an alarm clock."""
    pitch, gap = between(rng, 1800, 3200), rng.uniform(0.11, 0.15)
    n = samples(0.55 * gap)
    pulse = tone(np.full(n, pitch), 4.0) * line(n, (0, 0.2), (0.03, 1), (0.93, 1), (1, 0))
    out = np.zeros(samples(2.0))
    for burst in range(rng.integers(2, 4)):
        for i in range(4):
            place(out, pulse, burst * 6.5 * gap + i * gap)
    return out


def car_horn(rng: np.random.Generator) -> Mono:
    """Synthesizes a car horn."""
    n = samples(rng.uniform(0.3, 1.2))
    low = between(rng, 330, 430)
    settle = 1 - 0.03 * decay(n, 0.12)
    reeds = tone(low * settle, 60.0) + tone(low * rng.uniform(1.22, 1.28) * settle, 60.0)
    trumpet = formants(reeds, ((900, 500, 0), (2300, 900, -1), (3600, 1500, -9)))
    ramp = 0.02 * 48_000 / n
    trumpet *= line(n, (0, 0.1), (ramp, 1), (1 - ramp, 1), (1, 0))
    return room(rng, trumpet, rng.uniform(0.4, 1.0), rng.uniform(0.1, 0.4), 3500)


def referee_whistle(rng: np.random.Generator) -> Mono:
    """Synthesizes a referee whistle."""
    n = samples(rng.uniform(0.35, 0.9))
    pea = tone(np.full(n, rng.uniform(28, 45)))  # the ball closes the hole as it runs round
    pitch = between(rng, 2700, 3500) * (1 + 0.02 * pea)
    wave = (tone(pitch) + 0.5 * tone(1.13 * pitch) + 0.1 * tone(2 * pitch)) * (1 + 0.5 * pea)
    level = line(n, (0, 0.1), (0.04, 1), (0.9, 0.9), (1, 0))
    return room(rng, (wave + 0.3 * bandpass(white(rng, n), 3500, 1)) * level, 0.7, 0.25, 7000)


def cymbal(rng: np.random.Generator) -> Mono:
    """Synthesizes a cymbal."""
    n, count, lowest = samples(2.6), 70, between(rng, 340, 470)  # Hz: larger plates are lower
    frequency = lowest * (14_000 / lowest) ** rng.random(count)
    t60 = rng.uniform(1.6, 2.5) * (lowest / frequency) ** 0.12 * rng.uniform(0.6, 1.1, count)
    gains = rng.uniform(0.2, 1, count) * (frequency / 1000) ** 0.3
    plate = partials(frequency, t60, gains, n, rng.uniform(0, 6.28, count))
    wash = highpass(white(rng, n), 4000)
    # Energy climbs from low to high modes during the first tens of milliseconds.
    wash *= 0.5 * strike(n, 0.012, rng.uniform(1.2, 2.0)) + 1.2 * decay(n, 0.1)
    return plate / plate.std() * 0.5 + 2.2 * wash


def bass_drum(rng: np.random.Generator) -> Mono:
    """Synthesizes a bass drum."""
    n = samples(0.6)
    pitch = between(rng, 45, 65) * (1 + 1.6 * np.exp(-times(n) * rng.uniform(25, 50)))
    head = tone(pitch, phase=0.12) * strike(n, 1e-3, rng.uniform(0.35, 0.55))
    return head + 0.3 * bandpass(white(rng, n), 2500, 0.7) * decay(n, 0.02)


def snare_drum(rng: np.random.Generator) -> Mono:
    """Synthesizes a snare drum."""
    n = samples(0.45)
    pitch = between(rng, 165, 230)
    head = partials(
        pitch * np.array([1, 1.59, 2.14, 2.65]), [0.22, 0.16, 0.12, 0.1], [1, 0.7, 0.4, 0.3], n
    )  # the modes of a circular membrane
    wires = formants(white(rng, n), ((2200, 2000, 0), (5500, 5000, 2)))
    return head + 0.9 * wires * strike(n, 8e-4, rng.uniform(0.2, 0.35))


def guitar(rng: np.random.Generator) -> Mono:
    """Synthesizes a plucked guitar string."""
    # Karplus and Strong 1983: a delay line of one period, averaged each time round.
    period = int(48_000 / between(rng, 82, 330))
    string = lowpass(white(rng, period), rng.uniform(3000, 8000))
    rounds = min(samples(2.9) // period, 900)
    loss = 10 ** (-3 * period / (48_000 * rng.uniform(1.6, 2.6)))
    laps = []
    for _ in range(rounds):
        laps.append(string)
        string = loss * 0.5 * (string + np.roll(string, 1))
    pluck = np.concatenate(laps)
    return pluck + 0.6 * formants(pluck, ((105, 30, 0), (210, 50, 0)))


def keyboard_key(rng: np.random.Generator) -> Mono:
    """Synthesizes a key of a keyboard."""
    out = np.zeros(samples(0.25))
    body = between(rng, 500, 900)
    for at, gain in ((0.0, 1.0), (rng.uniform(0.07, 0.13), 0.5)):  # down and up
        n = samples(0.05)
        tick = bandpass(white(rng, n), between(rng, 2500, 4500), 1.0) * decay(n, 0.018)
        case = struck(rng, body, 10, 8, 2e-4)
        place(out, tick / np.abs(tick).max(), at, gain)
        place(out, case / np.abs(case).max(), at + 0.001, 0.5 * gain)
    return out


def clock_tick(rng: np.random.Generator) -> Mono:
    """Synthesizes the tick of a clock."""
    out = np.zeros(samples(0.3))
    parts = struck(rng, between(rng, 1800, 3400), rng.uniform(40, 90), 12, 3e-5)
    parts /= np.abs(parts).max()
    for at, gain in ((0.0, 1.0), (rng.uniform(0.006, 0.012), 0.5), (rng.uniform(0.02, 0.03), 0.3)):
        place(out, parts, at, gain)  # the escapement's unlock, impulse and drop
    return room(rng, out, 0.15, 0.2, 7000)


def camera(rng: np.random.Generator) -> Mono:
    """Synthesizes the shutter of a camera."""
    out = np.zeros(samples(0.4))
    for at, gain in ((0.0, 0.7), (rng.uniform(0.06, 0.12), 1.0)):
        curtain = struck(rng, between(rng, 900, 1800), 18, 12, 5e-5)
        place(out, curtain / np.abs(curtain).max(), at, gain)
        n = samples(0.06)
        place(out, bandpass(white(rng, n), 4500, 0.7) * strike(n, 1e-3, 0.06), at, 0.5 * gain)
    return out


def pickup(rng: np.random.Generator) -> Mono:
    """Synthesizes the pickup of a game."""
    pitch, turn, n = between(rng, 700, 1300), rng.uniform(0.06, 0.1), samples(0.6)
    steps = np.where(times(n) < turn, pitch, pitch * 4 / 3)
    level = np.where(times(n) < turn, 0.8, np.exp(-7 * (times(n) - turn)))
    return np.tanh(3 * tone(steps)) * level * line(n, (0, 1), (0.8, 1), (1, 0))


FOLEYS = (
    event('church_bell', church_bell, 'a church bell rings', 'church bell', 'a big bell tolls'),
    event('small_bell', small_bell, 'a small bell rings', 'hand bell', 'a bell dings'),
    event('doorbell', doorbell, 'a doorbell rings', 'doorbell', 'ding dong at the door'),
    event('telephone', telephone, 'a telephone rings', 'phone ring', 'an old phone ringing'),
    event('beep', beep, 'a beep', 'an electronic beep', 'a device beeps'),
    event('alarm_clock', alarm_clock, 'an alarm clock beeps', 'alarm clock', 'a digital alarm'),
    event('car_horn', car_horn, 'a car honks', 'car horn', 'honking car'),
    event(
        'referee_whistle',
        referee_whistle,
        'a referee blows the whistle',
        'referee whistle',
        'a sports whistle',
    ),
    event('cymbal', cymbal, 'a cymbal crash', 'cymbal', 'crashing cymbal'),
    event('bass_drum', bass_drum, 'a bass drum hit', 'kick drum', 'a deep drum beat'),
    event('snare_drum', snare_drum, 'a snare drum hit', 'snare drum', 'a snare hit'),
    event('guitar', guitar, 'a guitar string is plucked', 'guitar pluck', 'a plucked string'),
    event('keyboard_key', keyboard_key, 'a keyboard key is pressed', 'key press', 'one typed key'),
    event('clock_tick', clock_tick, 'a clock ticks', 'clock tick', 'ticking clock'),
    event('camera', camera, 'a camera shutter clicks', 'camera shutter', 'someone takes a photo'),
    event('pickup', pickup, 'a video game pickup sound', 'game coin collected', 'arcade bonus'),
)
