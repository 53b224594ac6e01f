"""The figures of a release on a set of scenes: one table for distilling, ablating and judging.

Every row of settings makes the same scenes from the same noise, so rows differ by the settings
alone. Two reference rows stand beside them: real against real (no generator can be expected below
it) and reconstruction against real (no sampler can go below what its decoder gives).
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np

from realaudio_jax import audio as audio_lib
from realaudio_jax.data.scenes import Scene
from realaudio_jax.generator import Generator
from realaudio_jax.metrics.agreement import step_coherence
from realaudio_jax.metrics.cost import latency_row
from realaudio_jax.metrics.embedders import Embedder
from realaudio_jax.metrics.figures import REAL, RECONSTRUCTION, mean_row
from realaudio_jax.metrics.scene_judge import SAMPLES, Measured, SceneJudge, latent_errors
from realaudio_jax.metrics.setting import REFERENCE, Setting, bucket_of
from realaudio_jax.metrics.tower import Tower
from realaudio_jax.models.autoencoder import samples_per_latent
from realaudio_jax.models.denoiser import latent_frames
from realaudio_jax.timeline import Timeline
from realaudio_jax.typing import SAMPLE_RATE, Float, Int16

BATCH = 8  # sounds per call


@dataclasses.dataclass(frozen=True)
class Made:
    """Sounds made by one setting: int16 [S 2] each, and the latents [N L C] they came from."""

    sounds: list[Int16[np.ndarray, 'S 2']]
    latents: Float[np.ndarray, 'N L C']

    def floats(self) -> Iterable[np.ndarray]:
        """The sounds as float32 in [-1, 1], one at a time."""
        return map(audio_lib.from_pcm16, self.sounds)


def make_sounds(
    generator: Generator,
    scenes: Sequence[Scene],
    setting: Setting,
    seed: int = 0,
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
    loudness_db: Sequence[np.ndarray] | None = None,
) -> Made:
    """A sound for the caption and timeline of each scene; see `make_texts`.

    Args:
        scenes: all of one duration.
        loudness_db: a curve for each scene, see `Timeline`; None asks for none.

    Raises:
        ValueError: scenes of several durations, or none.
    """
    seconds = one_duration(scenes)
    curves = loudness_db or [None] * len(scenes)
    timelines = [Timeline(s.events, curve) for s, curve in zip(scenes, curves, strict=True)]
    captions = [scene.caption for scene in scenes]
    return make_texts(generator, captions, timelines, seconds, setting, seed, batch, progress)


def make_texts(
    generator: Generator,
    prompts: Sequence[str],
    timelines: Sequence[Timeline],
    seconds: float,
    setting: Setting,
    seed: int = 0,
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
) -> Made:
    """A sound for each prompt and its timeline; sound i has seed `seed + i`.

    Args:
        generator: the release.
        prompts, timelines: what is asked for; one timeline for each prompt.
        seconds: of each sound.
        setting: how.
        seed: of the first sound's noise.
        batch: sounds per call; the last call is filled up with the last prompt.
        progress: called with the number of sounds made.

    Raises:
        FloatingPointError: a sound is not finite.
    """
    bucket = bucket_of(setting, seconds, batch)
    guidance = setting.columns(generator)['guidance']
    samples = round(seconds * SAMPLE_RATE)
    sounds, latents = [], []
    for first in range(0, len(prompts), batch):
        rows = [min(first + i, len(prompts) - 1) for i in range(batch)]
        request = generator.request(
            [prompts[i] for i in rows], [timelines[i] for i in rows], seconds,
            [seed + i for i in rows], guidance, bucket.length,
        )  # fmt: skip
        pcm, health, z = jax.device_get(generator.programs(bucket, request))
        count = min(batch, len(prompts) - first)
        for i in range(count):
            if not health.finite[i]:
                raise FloatingPointError(
                    f'{setting.model} at {setting.steps} steps: the sound for '
                    f'{prompts[first + i]!r} is not finite; lower the guidance scale'
                )
        sounds.extend(pcm[i, :samples].copy() for i in range(count))
        latents.append(z[:count, : latent_frames(seconds)])
        if progress:
            progress(len(sounds))
    return Made(sounds, np.concatenate(latents))


def reconstruct(generator: Generator, scenes: Sequence[Scene], batch: int = BATCH) -> Made:
    """The scenes through the release's autoencoder, and nothing else; limited as a program does."""
    seconds = one_duration(scenes)
    length, samples = latent_frames(np.ceil(seconds)), round(seconds * SAMPLE_RATE)
    model, params = generator.networks.autoencoder, generator.params['autoencoder']

    @jax.jit
    def through(params, audio):
        z = model.apply(params, audio, SAMPLE_RATE, method='encode')
        sound = model.apply(params, z, SAMPLE_RATE, method='decode')
        return audio_lib.to_pcm16(audio_lib.limit(sound, SAMPLE_RATE)), z

    sounds, latents = [], []
    for first in range(0, len(scenes), batch):
        part = scenes[first : first + batch]
        audio = np.zeros((batch, length * samples_per_latent(SAMPLE_RATE), 2), np.float32)
        for row, scene in zip(audio, part, strict=False):
            row[:samples] = scene.audio
        pcm, z = jax.device_get(through(params, audio))
        sounds.extend(pcm[i, :samples].copy() for i in range(len(part)))
        latents.append(z[: len(part), : latent_frames(seconds)])
    return Made(sounds, np.concatenate(latents))


def evaluate(
    generator: Generator,
    scenes: Sequence[Scene],
    settings: Sequence[Setting],
    tower: Tower | None = None,
    embedders: Sequence[Embedder] = (),
    others: Sequence[Scene] | None = None,
    reference: Setting | None = REFERENCE,
    seed: int = 0,
    batch: int = BATCH,
    latency_repeats: int = 9,
    resamples: int = 200,
    distances: Sequence[str] = ('kad',),
    diversity_prompts: int = 0,
    comparisons: Sequence[tuple[Setting, Setting]] = (),
    made: Callable[[Setting, Made], None] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[dict]:
    """Figures of each setting on the scenes, and of the two references.

    Args:
        generator: the release.
        scenes: what is asked for, with the real sound; all of one duration, and two or more.
        settings: rows, in the order of the table.
        tower: the release's audio tower, for distances and prompt agreement.
        embedders: further judges, for distances.
        others: other scenes of the same distribution, for 'real against real'; without them it
            compares two halves of `scenes`, and few clips make a distance larger.
        reference: with whose latents and embeddings those of all settings are compared, from the
            same noise; None for no cosine.
        seed: of the noise and of the bootstrap.
        batch: sounds per call.
        latency_repeats: timed calls at batch 1 for each setting; 0 leaves latency out.
        resamples: bootstrap draws of the intervals.
        distances: names in `figures.DISTANCES`.
        diversity_prompts: scenes of which several sounds are made, for their diversity.
        comparisons: pairs of `settings` whose difference is measured, scene by scene from the same
            noise; see `SceneJudge.differences`.
        made: called with each setting and what it made, for whoever keeps some of the sounds.
        progress: called with (what is made, done, total).

    Returns:
        Flat rows for `write_results`: name, value, unit, n, low and high (95% interval), model,
        steps, nfe, sampler, guidance, embedder. Distances are to the sound of `scenes`. Sounds
        are judged at the level that the decoder gave them, see `make_texts`.

    Raises:
        ValueError: scenes of several durations, or fewer than two.
    """
    one_duration(scenes)
    if len(scenes) < 2:
        raise ValueError(f'{len(scenes)} scene is no set; evaluate 2 or more')
    judge = SceneJudge(scenes, tower, embedders, distances, seed, resamples)
    say = progress or (lambda *_: None)

    def make(setting: Setting) -> Made:
        label = f'{setting.model} {setting.steps}'
        sounds = make_sounds(
            generator, scenes, setting, seed, batch, lambda n: say(label, n, len(scenes))
        )
        if made is not None:
            made(setting, sounds)
        return sounds

    def diversity_samples(setting):
        """SAMPLES sounds of each of the first scenes, from as many seeds."""
        repeated = [scene for scene in scenes[:diversity_prompts] for _ in range(SAMPLES)]
        return make_sounds(generator, repeated, setting, seed + len(scenes), batch).floats()

    rows = judge.floor(others)
    say(REAL, len(scenes), len(scenes))
    ceiling = reconstruct(generator, scenes, batch)
    rows += judge.rows(judge.measure(ceiling.floats()), {'model': RECONSTRUCTION}, True)
    say(RECONSTRUCTION, len(scenes), len(scenes))
    measured: dict[Setting, Measured] = {}
    if reference is not None:
        kept = make(reference)
        nothing = np.zeros(len(scenes))
        measured[reference] = judge.measure(kept.floats(), nothing)
    for setting in settings:
        columns = setting.columns(generator)
        again = reference is not None and setting == reference
        sounds = kept if again else make(setting)
        if not again:
            error = None if reference is None else latent_errors(sounds.latents, kept.latents)
            measured[setting] = judge.measure(sounds.floats(), error)
        rows += judge.rows(measured[setting], columns)
        if reference is not None:
            to = columns | {'to': f'{reference.model} {reference.steps}'}
            latent = step_coherence(sounds.latents, kept.latents)
            rows.append(mean_row('latent cosine', latent, seed=seed) | to)
            coherence = judge.coherence(measured[setting].windows, measured[reference].windows)
            rows += [row | to for row in coherence]
        if diversity_prompts:
            rows.append(judge.diversity(diversity_samples(setting)) | columns)
        rows.append({'name': 'NFE', 'value': setting.nfe, 'unit': '', 'n': 1} | columns)
        if latency_repeats:
            rows.append(latency_row(generator, scenes[0], setting, latency_repeats))
    for first, second in comparisons:
        columns = first.columns(generator)
        rows += judge.differences(measured[first], measured[second], second.label, columns)
    return rows


def one_duration(scenes: Sequence[Scene]) -> float:
    """The duration that all scenes have, s.

    Raises:
        ValueError: there is none, or there are several.
    """
    found = sorted({scene.seconds for scene in scenes})
    if len(found) != 1:
        raise ValueError(f'scenes last {found} seconds; give scenes of one duration')
    return found[0]
