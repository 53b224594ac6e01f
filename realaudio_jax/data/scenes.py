"""A scene mixer: sounds of a source placed on a timeline, with their exact times and a caption.

After Scaper (Salamon et al., WASPAA 2017): events are drawn over an optional background, at random
times, levels and durations, and the annotation is what was placed, not what was detected.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import multiprocessing
from collections.abc import Callable, Iterator

import numpy as np

from realaudio_jax.data import captions, label_text, signal
from realaudio_jax.data.augment import Augment, Room
from realaudio_jax.data.sources import MIN_EVENT_SECONDS, Clip, Recordings, Source
from realaudio_jax.timeline import Event
from realaudio_jax.typing import MAX_EVENTS, SAMPLE_RATE, Float

ONSET_FLOOR_DB = -36.0  # a sound begins where it first comes this close to its loudest millisecond
OFFSET_FLOOR_DB = -45.0  # and ends where it was last this close
FRAME = SAMPLE_RATE // 1000  # samples, 1 ms: the grid of onsets and offsets
MAX_TRIES = 100  # clips that are drawn for a scene until one of them can be heard
MAX_PEAK = 0.95
SHORTEST_UNMIXED_S = 4.0  # what is shorter is mostly a single hit


@dataclasses.dataclass(frozen=True)
class SceneConfig:
    """What scenes are drawn from. Levels are RMS over the sounding part; probabilities in [0, 1].

    Attributes:
        kinds: probability of 1, 2, ... different sounds (fewer where the scene is short).
        repeat: probability that a sound comes more than once.
        max_repeats: how often at most.
        ambience: probability of a background.
        ambience_alone: probability that a scene with a background has no events.
        level_dbfs: level of an event of gain 0, dBFS.
        gain_sd_db, gain_limits_db: spread and range of event gains, dB; half of the sounds have 0.
        snr_db: range of the events' level above the background's, dB.
        max_event_seconds: events are cut to this.
        cut: probability that events are cut to a random duration, 0.3 s to `max_event_seconds`.
        own_end_s: a sound of at most this many seconds is not cut by that: it ends as it ends.
        pan: probability that a sound lies off the middle.
        variants: probability that a sound goes by another name, see `label_text.variants`.
        augment: how sounds and scenes are changed; None leaves them as they are.
    """

    kinds: tuple[float, ...] = (0.34, 0.28, 0.18, 0.1, 0.06, 0.04)
    repeat: float = 0.35
    max_repeats: int = 5
    ambience: float = 0.5
    ambience_alone: float = 0.12
    level_dbfs: float = -20.0
    gain_sd_db: float = 5.0
    gain_limits_db: tuple[float, float] = (-12.0, 6.0)
    snr_db: tuple[float, float] = (3.0, 24.0)
    max_event_seconds: float = 5.0
    cut: float = 0.4
    own_end_s: float = 0.0
    pan: float = 0.6
    variants: float = 0.0
    augment: Augment | None = None

    def draw_gain_db(self, rng: np.random.Generator) -> float:
        """A gain by spread and range."""
        return float(np.clip(rng.normal(0.0, self.gain_sd_db), *self.gain_limits_db))


@dataclasses.dataclass(frozen=True)
class Scene:
    """Stereo sound at 48 kHz, peak at most 0.95, and everything known about it.

    `events` are in order of onset, one for each repetition; `labels` are the sources' classes.
    """

    audio: Float[np.ndarray, 'S 2']
    caption: str
    events: tuple[Event, ...]
    labels: tuple[str, ...]
    seconds: float
    ambience: str | None


def segments(clip: Clip) -> list[np.ndarray]:
    """Cuts a clip into its sounding parts, silence before and after each removed.

    Args:
        clip: the sound; its active regions say roughly where it sounds.

    Returns:
        one [S] or [S, 2] array for each region that has sound, starting within 1 ms of where it
        rises above `ONSET_FLOOR_DB`, faded in over 1 ms and out over at most 10 ms.
    """
    found = []
    for start, end in clip.active:
        part = clip.audio[int(start * SAMPLE_RATE) : int(np.ceil(end * SAMPLE_RATE))]
        frames = len(part) // FRAME
        if frames < MIN_EVENT_SECONDS * 1000:
            continue
        level = signal.frame_power(part[: frames * FRAME], FRAME)
        if level.max() < 1e-9:
            continue
        # a tick alone is no onset: the 10 ms that follow must be as loud
        ahead = np.convolve(np.pad(level, (0, 9)), np.full(10, 0.1, np.float32), 'valid')
        begun = np.minimum(level, ahead) > level.max() * 10 ** (ONSET_FLOOR_DB / 10)
        first = int(np.argmax(begun)) if begun.any() else 0
        last = frames - int(np.argmax(level[::-1] > level.max() * 10 ** (OFFSET_FLOOR_DB / 10)))
        if last - first >= MIN_EVENT_SECONDS * 1000:
            found.append(faded(part[first * FRAME : last * FRAME], 0.001, 0.01))
    return found


def faded(audio: np.ndarray, in_s: float, out_s: float) -> np.ndarray:
    """A copy with linear fades of `in_s` and `out_s` seconds (at most half the sound each)."""
    audio = audio.copy()
    for seconds, part in ((in_s, audio), (out_s, audio[::-1])):
        n = min(int(seconds * SAMPLE_RATE), len(audio) // 2)
        ramp = np.linspace(0.0, 1.0, n + 1, dtype=np.float32)[:n]
        part[:n] *= ramp if audio.ndim == 1 else ramp[:, None]
    return audio


def place_in_stereo(audio: np.ndarray, pan: float) -> np.ndarray:
    """Constant-power pan with the delay between two ears, sqrt(2) cos/sin of (pan + 1) pi / 4.

    Args:
        audio: [S] or [S, 2]; of a stereo sound the channels are balanced, without a delay.
        pan: -1 left to 1 right.

    Returns:
        [S, 2]; the louder channel is not delayed, the other by up to 0.6 ms.
    """
    angle = (pan + 1) * np.pi / 4
    gains = np.float32(np.sqrt(2)) * np.array([np.cos(angle), np.sin(angle)], np.float32)
    if audio.ndim == 2:
        return audio * gains[None, :]
    out = np.zeros((len(audio), 2), np.float32)
    lag = min(round(abs(pan) * 0.0006 * SAMPLE_RATE), len(audio) - 1)
    near, far = (0, 1) if pan <= 0 else (1, 0)
    out[:, near] = audio * gains[near]
    out[lag:, far] = audio[: len(audio) - lag] * gains[far]
    return out


def _onsets(rng: np.random.Generator, count: int, duration: float, seconds: float) -> list[float]:
    """Times of the repetitions of one sound: evenly spaced in half of the cases, else anywhere."""
    room = max(0.0, seconds - min(duration, 0.5 * seconds))
    if count == 1:
        return [0.0 if rng.random() < 0.05 else rng.uniform(0.0, room)]
    if rng.random() < 0.5:
        step = min(max(duration, 0.15) * rng.uniform(1.0, 2.5) + 0.1, seconds / count)
        start = rng.uniform(0.0, max(0.0, seconds - count * step))
        return [start + step * (i + rng.uniform(-0.05, 0.05) * (i > 0)) for i in range(count)]
    return sorted(rng.uniform(0.0, room, count).tolist())


def _ambience_bed(rng: np.random.Generator, clip: Clip, samples: int) -> np.ndarray:
    """The background [S, 2] at RMS 1, looped with equal-power crossfades where it is too short."""
    audio = clip.audio
    overlap = min(SAMPLE_RATE // 2, len(audio) // 4)
    while len(audio) < samples:
        ramp = np.sqrt(np.linspace(0.0, 1.0, overlap, dtype=np.float32))
        ramp = ramp if audio.ndim == 1 else ramp[:, None]
        seam = audio[-overlap:] * ramp[::-1] + clip.audio[:overlap] * ramp
        audio = np.concatenate([audio[:-overlap], seam, clip.audio[overlap:]])
    start = int(rng.integers(len(audio) - samples + 1))
    bed = signal.random_stereo(rng, audio[start : start + samples])
    fade_in, fade_out = rng.uniform(0.005, 1.0, 2) ** 2
    return faded(bed / np.float32(signal.rms(bed)), float(fade_in), float(fade_out))


def _kinds(rng: np.random.Generator, config: SceneConfig, seconds: float) -> int:
    drawn = 1 + rng.choice(len(config.kinds), p=np.array(config.kinds) / sum(config.kinds))
    return int(min(drawn, max(1, round(seconds))))


def _add_sound(
    rng: np.random.Generator, mix: np.ndarray, clip: Clip, config: SceneConfig, room: int
) -> tuple[list[Event], float]:
    """Adds a sound, once or more often, to the mix; returns its events and its pan."""
    found, seconds = segments(clip), len(mix) / SAMPLE_RATE
    if not found:
        return [], 0.0
    footsteps = 'step' in clip.text or 'walk' in clip.text
    count = 1
    if rng.random() < (0.8 if footsteps else config.repeat) and seconds > 1.0:
        count = int(rng.integers(2, config.max_repeats + 1)) + 2 * footsteps
    first = int(rng.integers(len(found)))
    fit = int(seconds * SAMPLE_RATE / len(found[first]))  # long sounds are not piled up
    count = min(count, room, max(1, fit))
    longest = config.max_event_seconds
    if rng.random() < config.cut:
        longest = float(np.exp(rng.uniform(np.log(0.3), np.log(config.max_event_seconds))))
    gain_db = 0.0
    if rng.random() < 0.5:
        gain_db = config.draw_gain_db(rng)
    pan = float(rng.uniform(-1.0, 1.0)) if rng.random() < config.pan else 0.0
    events: list[Event] = []
    for i, onset in enumerate(_onsets(rng, count, len(found[first]) / SAMPLE_RATE, seconds)):
        piece = found[(first + i) % len(found)]
        at = min(round(onset * 1000) * FRAME, len(mix) - int(MIN_EVENT_SECONDS * SAMPLE_RATE))
        own_end = len(piece) <= config.own_end_s * SAMPLE_RATE
        most = config.max_event_seconds if own_end else longest
        length = min(int(most * 1000) * FRAME, len(mix) - at)
        if len(piece) > length:
            piece = faded(piece[:length], 0.0, min(0.1, length / SAMPLE_RATE / 4))
        level = 10 ** (config.level_dbfs / 20) / signal.rms(piece)
        level = min(level, 0.9 / float(np.abs(piece).max()))  # a click has little energy
        placed = place_in_stereo(piece, pan) * np.float32(level * 10 ** (gain_db / 20))
        mix[at : at + len(piece)] += placed
        events.append(
            Event(clip.text, at / SAMPLE_RATE, (at + len(piece)) / SAMPLE_RATE, round(gain_db, 2))
        )
    return events, pan


def _changed(rng: np.random.Generator, clip: Clip, config: SceneConfig) -> Clip:
    """A sound as the source gave it, or under another name and augmented."""
    if config.variants and rng.random() < config.variants:
        texts = label_text.variants(clip.text)
        clip = dataclasses.replace(clip, text=texts[rng.integers(len(texts))])
    return config.augment.clip(rng, clip) if config.augment else clip


def _room_words(rng: np.random.Generator, room: Room) -> str:
    """What a caption says of the room, in a third of the cases."""
    if room.decay_s is None or rng.random() > 0.33:
        return ''
    if room.decay_s < 0.4:
        return ' in a small room'
    words = (' in a room', ' indoors') if room.decay_s < 0.8 else (' in a large hall', ' with echo')
    return words[rng.integers(2)]


def _with_room(caption: str, words: str) -> str:
    """The words at the end of a caption, before its full stop."""
    return f'{caption[:-1]}{words}.' if caption.endswith('.') else caption + words


def make_scene(
    rng: np.random.Generator,
    source: Source,
    seconds: float = 10.0,
    config: SceneConfig | None = None,
) -> Scene:
    """Mixes one scene.

    Args:
        rng: everything random comes from here.
        source: where sounds come from.
        seconds: duration of the scene.
        config: what it is drawn from; None is `SceneConfig()`.

    Returns:
        the scene. Before an event's onset its sound is exactly absent, and it starts within a
        millisecond of the onset; the event ends at its offset, but for the tail of a room.

    Raises:
        ValueError: every sound the source gave was silent, and there is no background.
    """
    config = config or SceneConfig()
    samples = round(seconds * SAMPLE_RATE)
    mix = np.zeros((samples, 2), np.float32)
    ambience, bed = None, None
    room = config.augment.room(rng) if config.augment else None
    backgrounds_alone = 'event' not in source.kinds
    if 'ambience' in source.kinds and (rng.random() < config.ambience or backgrounds_alone):
        ambience = _changed(rng, source.pick(rng, 'ambience', seconds + 0.5), config)
        bed = _ambience_bed(rng, ambience, samples)
    alone = bed is not None and (rng.random() < config.ambience_alone or backgrounds_alone)
    events: list[Event] = []
    heard: list[captions.CaptionItem] = []
    labels: list[str] = []
    wanted = 0 if alone else _kinds(rng, config, seconds)
    for tried in range(MAX_TRIES if wanted else 0):
        # some clips turn out to be silent or already in the scene
        enough = tried >= 4 * wanted and (events or bed is not None)
        if enough or len(labels) == wanted or len(events) == MAX_EVENTS:
            break
        clip = source.pick(rng, 'event', 2 * config.max_event_seconds)
        if clip.label in labels:
            continue
        clip = _changed(rng, clip, config)
        added, pan = _add_sound(rng, mix, clip, config, MAX_EVENTS - len(events))
        if added:
            events += added
            labels.append(clip.label)
            said = clip.caption if len(added) == 1 else ''  # it tells of the sound once
            heard.append(captions.CaptionItem(said or clip.text, added[0].onset_s, len(added), pan))
    if not events and bed is None:
        raise ValueError('the source gave only silent sounds; a scene needs one that is heard')
    if room is not None:
        mix += room.tail(mix)
    if bed is not None:
        snr_db = rng.uniform(*config.snr_db) if events else 0.0
        mix += bed * np.float32(10 ** ((config.level_dbfs - snr_db) / 20))
        labels.append(ambience.label)
    if config.augment:
        mix *= config.augment.scene_gain(rng)
    signal.limit(mix, MAX_PEAK)
    behind = (ambience.caption or ambience.text) if ambience else None
    caption = captions.make_caption(rng, heard, behind)
    if room is not None and heard:
        caption = _with_room(caption, _room_words(rng, room))
    return Scene(
        audio=mix,
        caption=caption,
        events=tuple(sorted(events, key=_by_onset)),
        labels=tuple(labels),
        seconds=samples / SAMPLE_RATE,
        ambience=ambience.text if ambience else None,
    )


def _by_onset(event: Event) -> tuple[float, float]:
    return event.onset_s, event.offset_s


def make_scenes(
    seed: int,
    source: Source,
    count: int,
    seconds: float = 10.0,
    config: SceneConfig | None = None,
    workers: int = 0,
) -> Iterator[Scene]:
    """Yields `count` scenes; scene i depends on (seed, i) alone, so any part can be made again.

    A source with a `spawn_key` has a stream of random numbers of its own: no seed of it draws what
    a seed of another source draws.

    Args:
        seed, source, seconds, config: see `make_scene`.
        count: how many.
        workers: processes that make them, a few scenes ahead; 0 makes them here, when asked for.
    """
    make = functools.partial(_numbered_scene, seed, source, seconds, config)
    yield from in_order(make, 0, count, workers)


def in_order(
    make: Callable[[int], Scene], first: int, count: int, workers: int = 0
) -> Iterator[Scene]:
    """Yields make(first), make(first + 1), ..., made in other processes where there are some.

    Args:
        make: depends on the number alone; goes to each worker once.
        first: the first number.
        count: how many.
        workers: processes, which work a few scenes ahead; 0 makes each here, when asked for.
    """
    if not workers:
        yield from map(make, range(first, first + count))
        return
    # Spawned: a process that has started JAX's threads must not be forked.
    context = multiprocessing.get_context('spawn')
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, context, initializer=_keep, initargs=(make,)
    )
    try:
        ahead = collections.deque()
        for i in range(first, first + count):
            ahead.append(pool.submit(_numbered, i))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def scene_rng(seed: int, i: int, source: Source) -> np.random.Generator:
    """All that is random in scene i of a source, see `make_scenes`."""
    stream = np.random.SeedSequence([seed, i], spawn_key=getattr(source, 'spawn_key', ()))
    return np.random.default_rng(stream)


def _numbered_scene(seed, source, seconds, config, i: int) -> Scene:
    return make_scene(scene_rng(seed, i, source), source, seconds, config)


_make: Callable[[int], Scene]  # of a worker: the source is sent to it once


def _keep(make: Callable[[int], Scene]) -> None:
    global _make
    _make = make


def _numbered(i: int) -> Scene:
    return _make(i)


def unmixed_recordings(
    seed: int, recordings: Recordings, count: int, seconds: float, config: SceneConfig | None = None
) -> Iterator[Scene]:
    """Yields `count` recordings of 4 s up to `seconds`, evenly drawn; scene i depends on (seed, i).

    Args:
        seed: of the choice, the stereo image, the level and the wording.
        recordings: where they come from.
        count: how many.
        seconds: of the longest.
        config: gives level and its spread; None is `SceneConfig()`.

    Returns:
        scenes without events, each as long as its recording. The sounding part has the level of an
        event in a mixed scene.

    Raises:
        ValueError: no recording is of such a length.
    """
    config = config or SceneConfig()
    fit = fitting(recordings, seconds)
    if not fit:
        raise ValueError(
            f'{recordings.folder}: no recording of {SHORTEST_UNMIXED_S:g} to {seconds:g} s; '
            'ask for none'
        )
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        yield unmixed_recording(rng, recordings, fit[rng.integers(len(fit))], seconds, config)


def fitting(recordings: Recordings, seconds: float) -> list[int]:
    """Indices of the recordings of 4 s up to `seconds`."""
    clips = enumerate(recordings.clips)
    return [i for i, record in clips if SHORTEST_UNMIXED_S <= record.seconds <= seconds]


def unmixed_recording(
    rng: np.random.Generator, recordings: Recordings, i: int, seconds: float, config: SceneConfig
) -> Scene:
    """Recording i as a scene without events; see `unmixed_recordings`.

    Args:
        rng: of the changes of `config.augment`, the stereo image, the level and the wording.
        recordings: where it comes from.
        i: index into its clips.
        seconds: what is longer, once augmented, is cut to this.
        config: of levels and changes.
    """
    record, clip = recordings.clips[i], recordings.load(i)
    if config.augment:
        clip = _cut(config.augment.clip(rng, clip), seconds)
    audio = signal.random_stereo(rng, clip.audio)
    heard = [audio[int(a * SAMPLE_RATE) : int(b * SAMPLE_RATE)] for a, b in clip.active]
    wanted_db = config.level_dbfs + config.draw_gain_db(rng)
    level_db = wanted_db - 20 * np.log10(signal.rms(np.concatenate(heard)))
    audio = faded(audio * np.float32(10 ** (level_db / 20)), 0.002, 0.01)
    room = config.augment.room(rng) if config.augment else None
    if room is not None:
        audio += room.tail(audio)
    signal.limit(audio, MAX_PEAK)
    texts = dict.fromkeys((*record.texts, record.label.replace('_', ' ').lower()))
    text = list(texts)[rng.integers(len(texts))]
    if config.variants and rng.random() < config.variants:
        names = label_text.variants(text)
        text = names[rng.integers(len(names))]
    if record.captions:  # somebody's own words for all that is heard
        caption = record.captions[rng.integers(len(record.captions))]
    elif record.kind == 'ambience':
        caption = captions.make_caption(rng, [], text)
    else:
        caption = captions.make_caption(rng, [captions.CaptionItem(text, clip.active[0][0])])
    return Scene(
        audio=audio,
        caption=caption,
        events=(),
        labels=(record.label,),
        seconds=len(audio) / SAMPLE_RATE,
        ambience=text if record.kind == 'ambience' else None,
    )


def _cut(clip: Clip, seconds: float) -> Clip:
    """The first `seconds` of a sound, its active regions with it."""
    audio = clip.audio[: round(seconds * SAMPLE_RATE)]
    end = len(audio) / SAMPLE_RATE
    active = tuple((a, min(b, end)) for a, b in clip.active if a < end)
    return dataclasses.replace(clip, audio=audio, active=active or ((0.0, end),))
