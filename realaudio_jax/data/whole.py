"""Unmixed recordings with their captions, for training on captions without a timeline.

A mixed scene holds short excerpts at random places. Who asks for 'a rooster' and says no more means
what somebody recorded under that name: a whole crow, where it stood, and how often it came.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from realaudio_jax.data import captions, crops, wording
from realaudio_jax.data.scenes import MAX_PEAK, Scene, SceneConfig, faded
from realaudio_jax.data.sources import Clip, Recordings
from realaudio_jax.typing import SAMPLE_RATE

SHORTEST_SECONDS = 4.0  # what is shorter is mostly a single hit


def whole_recordings(
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
            f'{recordings.folder}: no recording of {SHORTEST_SECONDS:g} to {seconds:g} s; '
            'ask for none'
        )
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        yield whole_recording(rng, recordings, fit[rng.integers(len(fit))], seconds, config)


def fitting(recordings: Recordings, seconds: float) -> list[int]:
    """Indices of the recordings of 4 s up to `seconds`."""
    clips = enumerate(recordings.clips)
    return [i for i, record in clips if SHORTEST_SECONDS <= record.seconds <= seconds]


def whole_recording(
    rng: np.random.Generator, recordings: Recordings, i: int, seconds: float, config: SceneConfig
) -> Scene:
    """Recording i as a scene without events; see `whole_recordings`.

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
    audio = crops.random_stereo(rng, clip.audio)
    heard = [audio[int(a * SAMPLE_RATE) : int(b * SAMPLE_RATE)] for a, b in clip.active]
    wanted_db = config.level_dbfs + config.draw_gain_db(rng)
    level_db = wanted_db - 20 * np.log10(crops.rms(np.concatenate(heard)))
    audio = faded(audio * np.float32(10 ** (level_db / 20)), 0.002, 0.01)
    room = config.augment.room(rng) if config.augment else None
    if room is not None:
        audio += room.tail(audio)
    crops.limit(audio, MAX_PEAK)
    texts = dict.fromkeys((*record.texts, record.label.replace('_', ' ').lower()))
    text = list(texts)[rng.integers(len(texts))]
    if config.variants and rng.random() < config.variants:
        names = wording.variants(text)
        text = names[rng.integers(len(names))]
    if record.captions:  # somebody's own words for all that is heard
        caption = record.captions[rng.integers(len(record.captions))]
    elif record.kind == 'ambience':
        caption = captions.make_caption(rng, [], text)
    else:
        caption = captions.make_caption(rng, [captions.Heard(text, clip.active[0][0])])
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
