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
from realaudio_jax.metrics.embedders import Embedder, embed_clips
from realaudio_jax.metrics.events import onset_errors, summarise_onsets
from realaudio_jax.metrics.figures import REAL, Windows, distance_row, mean_row
from realaudio_jax.metrics.latency import measure
from realaudio_jax.metrics.tower import Tower
from realaudio_jax.models.autoencoder import samples_per_latent
from realaudio_jax.models.denoiser import latent_frames
from realaudio_jax.program import Bucket
from realaudio_jax.timeline import Timeline
from realaudio_jax.typing import SAMPLE_RATE, Float, Int16

RECONSTRUCTION = 'reconstruction against real'


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a set of sounds is made.

    Attributes:
        model: 'student' or 'teacher'.
        steps: of the sampler.
        sampler: see `program.Bucket`.
        guidance: scale; None is the release's own.
    """

    model: str = 'student'
    steps: int = 4
    sampler: str = 'ddim'
    guidance: float | None = None

    @property
    def nfe(self) -> int:
        """Evaluations of the denoiser for one sound: the teacher's guidance needs two a step."""
        return self.steps * (1 if self.model == 'student' else 2)

    def columns(self, generator: Generator) -> dict:
        """The columns that name this setting in a table."""
        guidance = generator.config['guidance'] if self.guidance is None else self.guidance
        return {
            'model': self.model,
            'steps': self.steps,
            'nfe': self.nfe,
            'sampler': self.sampler,
            'guidance': guidance,
        }


REFERENCE = Setting('teacher', 50)


@dataclasses.dataclass(frozen=True)
class Made:
    """Sounds made by one setting: int16 [S 2] each, and the latents [N L C] they came from."""

    sounds: list[Int16[np.ndarray, 'S 2']]
    latents: Float[np.ndarray, 'N L C']

    def floats(self) -> Iterable[np.ndarray]:
        """The sounds as float32 in [-1, 1], one at a time."""
        return (np.float32(pcm) / np.float32(32767) for pcm in self.sounds)


def make_sounds(
    generator: Generator,
    scenes: Sequence[Scene],
    setting: Setting,
    seed: int = 0,
    batch: int = 8,
    progress: Callable[[int], None] | None = None,
) -> Made:
    """A sound for the caption and timeline of each scene; scene i has seed `seed + i`.

    Args:
        generator: the release.
        scenes: all of one duration.
        setting: how.
        seed: of the first scene's noise.
        batch: sounds per call; the last call is filled up with the last scene.
        progress: called with the number of sounds made.

    Raises:
        ValueError: scenes of several durations, or none.
        FloatingPointError: a sound is not finite.
    """
    seconds = one_duration(scenes)
    bucket = _bucket(setting, seconds, batch)
    guidance = setting.columns(generator)['guidance']
    samples = round(seconds * SAMPLE_RATE)
    sounds, latents = [], []
    for first in range(0, len(scenes), batch):
        part = list(scenes[first : first + batch])
        full = part + part[-1:] * (batch - len(part))
        request = generator.request(
            [scene.caption for scene in full],
            [Timeline(scene.events) for scene in full],
            seconds,
            [seed + first + min(i, len(part) - 1) for i in range(batch)],
            guidance,
            bucket.length,
        )
        pcm, health, z = jax.device_get(generator.programs(bucket, request))
        for i in range(len(part)):
            if not health.finite[i]:
                raise FloatingPointError(
                    f'{setting.model} at {setting.steps} steps: the sound for '
                    f'{part[i].caption!r} is not finite; lower the guidance scale'
                )
        sounds.extend(pcm[i, :samples].copy() for i in range(len(part)))
        latents.append(z[: len(part), : latent_frames(seconds)])
        if progress:
            progress(len(sounds))
    return Made(sounds, np.concatenate(latents))


def reconstruct(generator: Generator, scenes: Sequence[Scene], batch: int = 8) -> Made:
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
    batch: int = 8,
    latency_repeats: int = 9,
    resamples: int = 200,
    distances: Sequence[str] = ('fad',),
    progress: Callable[[str, int, int], None] | None = None,
) -> list[dict]:
    """Figures of each setting on the scenes, and of the two references.

    Args:
        generator: the release.
        scenes: what is asked for, with the real sound; all of one duration, and two or more.
        settings: rows, in the order of the table.
        tower: the release's audio tower, for a Frechet distance and prompt agreement.
        embedders: further judges, for Frechet distances.
        others: other scenes of the same distribution, for 'real against real'; without them it
            compares two halves of `scenes`, and few clips make a distance larger.
        reference: whose latents the latents of all settings are compared with; None for no cosine.
        seed: of the noise and of the bootstrap.
        batch: sounds per call.
        latency_repeats: timed calls at batch 1 for each setting; 0 leaves latency out.
        resamples: bootstrap draws of the intervals.
        distances: names in `figures.DISTANCES`.
        progress: called with (what is made, done, total).

    Returns:
        Flat rows for `write_results`: name, value, unit, n, low and high (95% interval), model,
        steps, nfe, sampler, guidance, embedder. Frechet distances are to the sound of `scenes`.

    Raises:
        ValueError: scenes of several durations, or fewer than two.
    """
    one_duration(scenes)
    if len(scenes) < 2:
        raise ValueError(f'{len(scenes)} scene is no set; evaluate 2 or more')
    judge = _Judge(scenes, tower, embedders, seed, resamples)
    say = progress or (lambda *_: None)

    def made(setting):
        label = f'{setting.model} {setting.steps}'
        return make_sounds(
            generator, scenes, setting, seed, batch, lambda n: say(label, n, len(scenes))
        )

    rows = judge.real(others)
    say(REAL, len(scenes), len(scenes))
    rows += judge.rows(reconstruct(generator, scenes, batch), {'model': RECONSTRUCTION}, True)
    say(RECONSTRUCTION, len(scenes), len(scenes))
    kept = made(reference) if reference is not None else None
    for setting in settings:
        columns = setting.columns(generator)
        sounds = kept if setting == reference else made(setting)
        rows += judge.rows(sounds, columns)
        if kept is not None:
            cosines = step_coherence(sounds.latents, kept.latents)
            to = f'{reference.model} {reference.steps}'
            rows.append(mean_row('latent cosine', cosines) | columns | {'to': to})
        rows.append({'name': 'NFE', 'value': setting.nfe, 'unit': '', 'n': 1} | columns)
        if latency_repeats:
            rows.append(latency_row(generator, scenes[0], setting, latency_repeats))
    return rows


def latency_row(generator: Generator, scene: Scene, setting: Setting, repeats: int = 9) -> dict:
    """Time of one call at batch 1, PCM on the host, median of `repeats`."""
    columns = setting.columns(generator)
    bucket = _bucket(setting, scene.seconds, 1)
    request = generator.request(
        [scene.caption], Timeline(scene.events), scene.seconds, [0], columns['guidance'],
        bucket.length,
    )  # fmt: skip
    stats = measure(lambda: jax.device_get(generator.programs(bucket, request)), repeats)
    return {
        'name': 'time per sound', 'value': stats.median, 'unit': 'ms', 'n': repeats,
        'high': stats.p95, 'seconds': scene.seconds,
    } | columns  # fmt: skip


def one_duration(scenes: Sequence[Scene]) -> float:
    """The duration that all scenes have, s.

    Raises:
        ValueError: there is none, or there are several.
    """
    found = sorted({scene.seconds for scene in scenes})
    if len(found) != 1:
        raise ValueError(f'scenes last {found} seconds; give scenes of one duration')
    return found[0]


class _Judge:
    """The real side of every comparison, computed once."""

    def __init__(self, scenes, tower, embedders, seed, resamples):
        self.scenes, self.tower, self.seed, self.resamples = scenes, tower, seed, resamples
        self.embedders = ([tower.embedder] if tower else []) + list(embedders)
        self.windows = self.embed([scene.audio for scene in scenes])

    def embed(self, clips: Sequence[np.ndarray]) -> list[Windows]:
        return [embed_clips(e, clips, SAMPLE_RATE) for e in self.embedders]

    def real(self, others: Sequence[Scene] | None) -> list[dict]:
        """What real scenes reach: the floor of every figure."""
        columns, rows = {'model': REAL}, []
        second = self.embed([scene.audio for scene in others]) if others else self.windows
        for embedder, a, b in zip(self.embedders, self.windows, second, strict=True):
            a, b = (a, b) if others else (a[::2], b[1::2])
            rows.append(distance_row(a, b, embedder, self.seed, self.resamples) | columns)
        rows += self._agreement(self.windows, columns)
        rows += self._onsets([scene.audio for scene in self.scenes], columns)
        if self.tower:
            texts = [scene.caption for scene in self.scenes]
            wrong = self.tower.agreement(self.windows[0], texts[1:] + texts[:1])
            columns = {'model': 'real, caption of another scene', 'embedder': self._name}
            rows.append(mean_row('prompt agreement', wrong) | columns)
        return rows

    def rows(self, made: Made, columns: dict, paired: bool = False) -> list[dict]:
        """Distances, agreement and onset errors of a set of sounds."""
        rows, windows = [], self.embed(list(made.floats()))
        for embedder, a, b in zip(self.embedders, self.windows, windows, strict=True):
            row = distance_row(a, b, embedder, self.seed, self.resamples, paired)
            rows.append(row | columns)
        return rows + self._agreement(windows, columns) + self._onsets(made.floats(), columns)

    @property
    def _name(self) -> str:
        return self.tower.embedder.name

    def _agreement(self, windows, columns):
        if not self.tower:
            return []
        cosines = self.tower.agreement(windows[0], [scene.caption for scene in self.scenes])
        return [mean_row('prompt agreement', cosines) | columns | {'embedder': self._name}]

    def _onsets(self, sounds, columns):
        errors = [
            onset_errors(sound, SAMPLE_RATE, [event.onset_s for event in scene.events])
            for sound, scene in zip(sounds, self.scenes, strict=True)
            if scene.events
        ]
        if not errors:
            return []
        found = summarise_onsets(np.concatenate(errors))
        figures = (
            ('onset error, median', found.median_ms, 'ms'),
            ('onset error, 90th percentile', found.p90_ms, 'ms'),
            ('onsets missed', 100 * found.missed, '%'),
        )
        return [
            {'name': name, 'value': value, 'unit': unit, 'n': found.count} | columns
            for name, value, unit in figures
        ]


def _bucket(setting: Setting, seconds: float, batch: int) -> Bucket:
    return Bucket(
        batch=batch,
        length=latent_frames(np.ceil(seconds)),
        steps=setting.steps,
        sample_rate=SAMPLE_RATE,
        student=setting.model == 'student',
        sampler=setting.sampler,
    )
