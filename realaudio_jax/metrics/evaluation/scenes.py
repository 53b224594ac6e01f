"""Evaluates sounds generated for known scenes: distances, prompt similarity, onset accuracy."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from realaudio_jax.data.datasets import scene_source
from realaudio_jax.data.scenes import Scene, make_scenes
from realaudio_jax.metrics.bootstrap import paired_bootstrap
from realaudio_jax.metrics.distances import Windows, distance_rows
from realaudio_jax.metrics.embedders.base import Embedder, embed_clips
from realaudio_jax.metrics.embedders.tower import Tower
from realaudio_jax.metrics.frechet import frechet_difference
from realaudio_jax.metrics.kernel import kernel_difference
from realaudio_jax.metrics.onsets import (
    COLLARS_MS,
    OnsetAccuracy,
    event_counts,
    f1_of_counts,
    onset_accuracy,
    summarise_onsets,
)
from realaudio_jax.metrics.probe import class_scores
from realaudio_jax.metrics.rows import (
    CLAP_SCORE,
    CLASS_FOUND,
    CLASS_SCORE,
    DIVERSITY,
    FRECHET_DISTANCE,
    KERNEL_DISTANCE,
    LATENT_ERROR,
    ONSET_MEDIAN,
    ONSET_P90,
    ONSETS_NEAR,
    REAL,
    difference_row,
    mean_row,
    statistic_row,
)
from realaudio_jax.metrics.similarity import cosine, diversity
from realaudio_jax.timeline import Event
from realaudio_jax.typing import SAMPLE_RATE, Float

SAMPLES = 4  # sounds of one prompt, for diversity
_COLLAR_MS = 50  # of ONSETS_NEAR


@dataclasses.dataclass(frozen=True)
class SceneMeasurements:
    """Measurements of one sound for each scene, from which metrics are computed.

    Attributes:
        windows: vectors of each sound, for each embedder.
        timing: events asked for and what came of them, of the scenes that ask for events.
        class_hits: 100 where the class heard is one of the scene's, else 0; None without a tower.
        latent_error: distance to the reference's latents, see `latent_errors`; None without one.
    """

    windows: list[Windows]
    timing: list[tuple[tuple[Event, ...], OnsetAccuracy]]
    class_hits: Float[np.ndarray, 'N'] | None
    latent_error: Float[np.ndarray, 'N'] | None = None


def latent_errors(
    latents: Float[np.ndarray, 'N L C'], reference: Float[np.ndarray, 'N L C']
) -> Float[np.ndarray, 'N']:
    """Distance of each sound's latents to the reference's from the same noise.

    Root mean square of the difference over the standard deviation of the reference's latents about
    the mean of each channel: 0 is the same sound, 1 as far as that mean, and about 1.4 a sound that
    has nothing to do with it.
    """
    spread = np.sqrt(np.mean(np.square(reference - reference.mean((0, 1), keepdims=True))))
    difference = np.asarray(latents, np.float64) - reference
    return np.sqrt(np.mean(np.square(difference), axis=(1, 2))) / spread


class SceneEvaluator:
    """Evaluator of sounds for a set of scenes; embeds the real scenes once.

    Args:
        scenes: what was asked for, with the real sound.
        tower: for distances and the CLAP score; None leaves them out.
        embedders: further networks, for distances.
        distances: names in `distances.DISTANCES`.
        seed: of the bootstrap.
        resamples: draws of a distance's interval.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        tower: Tower | None,
        embedders: Sequence[Embedder],
        distances: Sequence[str] = ('fad',),
        seed: int = 0,
        resamples: int = 200,
    ):
        self.scenes, self.tower, self.seed = scenes, tower, seed
        self.embedders = ([tower.embedder] if tower else []) + list(embedders)
        self.distances, self.resamples = tuple(distances), resamples
        self.captions = [scene.caption for scene in scenes]
        self.real = self.measure(scene.audio for scene in scenes)
        self.windows = self.real.windows

    def embed(self, clips: Iterable[np.ndarray]) -> list[Windows]:
        """Embeddings of sounds at 48 kHz, by each embedder."""
        clips = list(clips)
        return [embed_clips(e, clips, SAMPLE_RATE) for e in self.embedders]

    def measure(
        self,
        sounds: Iterable[np.ndarray],
        latent_error: Float[np.ndarray, 'N'] | None = None,
    ) -> SceneMeasurements:
        """Listens to one sound per scene: float [S 2] at 48 kHz, in the order of the scenes."""
        sounds = list(sounds)
        windows = self.embed(sounds)
        timing = [
            (scene.events, onset_accuracy(sound, SAMPLE_RATE, scene.events))
            for sound, scene in zip(sounds, self.scenes, strict=True)
            if scene.events
        ]
        return SceneMeasurements(windows, timing, self._class_hits(windows), latent_error)

    def floor(self, others: Sequence[Scene] | None = None) -> list[dict]:
        """Rows of real scenes, as if generated: against `others`, or half against half."""
        columns = {'model': REAL}
        windows = self.windows
        second = self.embed(scene.audio for scene in others) if others else windows
        rows = []
        for embedder, a, b in zip(self.embedders, windows, second, strict=True):
            a, b = (a, b) if others else (a[::2], b[1::2])
            rows += self._distances(a, b, embedder, False)
        rows += self._of_each(self.real)
        rows = [row | columns for row in rows]
        wrong = self._prompt_similarity(windows, self.captions[1:] + self.captions[:1])
        return rows + [row | {'model': 'real, caption of another scene'} for row in wrong]

    def rows(self, measured: SceneMeasurements, columns: dict, paired: bool = False) -> list[dict]:
        """Metric rows of one generated sound for each scene.

        Args:
            measured: the sounds, of `measure`.
            columns: what names the set in the table.
            paired: each sound was made from the scene's own.
        """
        rows = []
        for embedder, a, b in zip(self.embedders, self.windows, measured.windows, strict=True):
            rows += self._distances(a, b, embedder, paired)
        return [row | columns for row in rows + self._of_each(measured)]

    def differences(
        self, a: SceneMeasurements, b: SceneMeasurements, against: str, columns: dict
    ) -> list[dict]:
        """Metrics of a minus those of b, from the same scenes and noise, with paired intervals.

        Args:
            a, b: two sets of sounds.
            against: names b.
            columns: what names a in the table.
        """

        def row(
            figure: str, unit: str, statistic: Callable, of: Callable[[SceneMeasurements], Sequence]
        ):
            found = paired_bootstrap(statistic, of(a), of(b), seed=self.seed)
            return difference_row(figure, against, found, unit)

        def onsets(pick: Callable) -> Callable[[list], float]:
            return lambda drawn: pick(summarise_onsets(np.concatenate(drawn)))

        def mean(drawn: list) -> float:
            return float(np.mean(drawn))

        rows = []
        if a.latent_error is not None and b.latent_error is not None:
            rows.append(row(LATENT_ERROR, '', mean, lambda m: list(m.latent_error)))
        for embedder, real, x, y in zip(
            self.embedders, self.windows, a.windows, b.windows, strict=True
        ):
            found = kernel_difference(real, x, y, self.resamples, seed=self.seed)
            difference = difference_row(KERNEL_DISTANCE, against, found)
            rows.append(difference | {'embedder': embedder.name})
            if 'fad' in self.distances:
                found = frechet_difference(real, y, x, self.resamples, seed=self.seed)
                difference = difference_row(FRECHET_DISTANCE, against, found)
                rows.append(difference | {'embedder': embedder.name})
        if a.class_hits is not None:
            rows.append(row(CLASS_FOUND, '%', mean, lambda m: list(m.class_hits)))
        if a.timing:
            errors = lambda m: [timing.onset_ms for _, timing in m.timing]  # noqa: E731
            median, near = (lambda s: s.median_ms), (lambda s: 100 * s.hit_rate[_COLLAR_MS])
            rows.append(row(ONSET_MEDIAN, 'ms', onsets(median), errors))
            rows.append(row(ONSET_P90, 'ms', onsets(lambda s: s.p90_ms), errors))
            rows.append(row(ONSETS_NEAR, '%', onsets(near), errors))
        return [found | columns for found in rows]

    def coherence(self, windows: Sequence[Windows], kept: Sequence[Windows]) -> list[dict]:
        """Cosine of each sound's mean vector with that of its counterpart, for each embedder.

        Means are taken from the mean of the real scenes: embeddings that are positive throughout
        would have a high cosine whatever they were of.
        """
        rows = []
        for embedder, real, a, b in zip(self.embedders, self.windows, windows, kept, strict=True):
            centre = np.concatenate(real).mean(0)
            pair = [np.stack([w.mean(0) for w in side]) - centre[None, :] for side in (a, b)]
            row = mean_row('embedding cosine', cosine(*pair), seed=self.seed)
            rows.append(row | {'embedder': embedder.name})
        return rows

    def diversity(self, sounds: Iterable[np.ndarray]) -> dict:
        """Mean diversity over prompts; the sounds hold SAMPLES consecutive ones for each prompt."""
        embedder = self.embedders[0]
        means = np.stack([w.mean(0) for w in embed_clips(embedder, sounds, SAMPLE_RATE)])
        means -= np.concatenate(self.windows[0]).mean(0)[None, :]
        values = [diversity(means[i : i + SAMPLES]) for i in range(0, len(means), SAMPLES)]
        row = mean_row(DIVERSITY, values, seed=self.seed)
        return row | {'embedder': embedder.name}

    def _distances(self, a, b, embedder, paired):
        return distance_rows(a, b, embedder, self.distances, self.seed, self.resamples, paired)

    def _class_hits(self, windows: Sequence[Windows]) -> Float[np.ndarray, 'N'] | None:
        """Whether the class name nearest to each sound, by the tower, is one of the scene's."""
        if self.tower is None:
            return None
        classes = sorted({label for scene in self.scenes for label in scene.labels})
        names = self.tower.embed_text([label.replace('_', ' ') for label in classes])
        nearest = (self.tower.pool(windows[0]) @ names.T).argmax(1)
        hits = [classes[k] in scene.labels for k, scene in zip(nearest, self.scenes, strict=True)]
        return 100.0 * np.array(hits)

    def _of_each(self, measured: SceneMeasurements) -> list[dict]:
        """Metrics that need no reference set."""
        rows = self._prompt_similarity(measured.windows, self.captions)
        if measured.class_hits is not None:
            row = mean_row(CLASS_FOUND, measured.class_hits, '%', self.seed)
            rows.append(row | {'embedder': self.tower.embedder.name})
        if measured.latent_error is not None:
            rows.append(mean_row(LATENT_ERROR, measured.latent_error, seed=self.seed))
        return rows + self._timing(measured.timing)

    def _prompt_similarity(self, windows, texts):
        """Rows of prompt similarity, by the audio tower and by classes of tagging embedders."""
        rows = []
        if self.tower:
            found_scores = self.tower.clap_scores(windows[0], texts)
            row = mean_row(CLAP_SCORE, found_scores, seed=self.seed)
            rows.append(row | {'embedder': self.tower.embedder.name})
        for embedder, found in zip(self.embedders, windows, strict=True):
            if embedder.class_scores is None or not embedder.class_names:
                continue
            scores = [embedder.class_scores(vectors) for vectors in found]
            found_scores = class_scores(scores, texts, embedder.class_names)
            found_scores = found_scores[~np.isnan(found_scores)]  # prompts that name no class
            if found_scores.size:
                row = mean_row(CLASS_SCORE, found_scores, seed=self.seed)
                rows.append(row | {'embedder': embedder.name})
        return rows

    def _timing(self, clips: Sequence[Any]) -> list[dict]:
        """Rows of onset and offset accuracy over scenes with events; intervals are over scenes."""
        if not clips:
            return []

        def row(name, unit, statistic, values=clips):
            return statistic_row(name, statistic, values, unit, self.seed)

        rows = []
        for kind in ('onset', 'offset'):
            errors = [getattr(timing, f'{kind}_ms') for _, timing in clips]
            errors = [found for found in errors if len(found)]
            if not errors:
                continue

            def of(pick):
                return lambda drawn: pick(summarise_onsets(np.concatenate(drawn)))

            count = {'n': sum(map(len, errors))}
            rows += [
                row(name, unit, of(pick), errors) | count
                for name, unit, pick in (
                    (f'{kind} error, median', 'ms', lambda s: s.median_ms),
                    (f'{kind} error, 90th percentile', 'ms', lambda s: s.p90_ms),
                    *(
                        (f'{kind}s within {c} ms', '%', lambda s, c=c: 100 * s.hit_rate[c])
                        for c in COLLARS_MS
                    ),
                    (f'{kind}s missed', '%', lambda s: 100 * s.missed),
                )
            ]
        counts = [event_counts((events, timing.found), 0.2, None) for events, timing in clips]
        return rows + [
            row('onset F1, 200 ms', '%', lambda drawn: 100 * f1_of_counts(drawn), counts),
            row(
                'onsets unasked for, per scene',
                '',
                lambda drawn: float(np.mean([len(t.spurious_s) for _, t in drawn])),
            ),
            row(
                'energy outside the events',
                'dB',
                lambda drawn: float(np.nanmean([t.outside_db for _, t in drawn])),
            ),
        ]


def held_out_scenes(
    recordings: str | None, count: int, seconds: float, seed: int, foley_weight: float = 0.0
) -> tuple[list[Scene], list[Scene]]:
    """Two disjoint sets of scenes from recordings kept out of training (or procedural foley).

    Args:
        recordings: folder with metadata.csv; None for foley.
        count: scenes in each set.
        seconds: of each scene.
        seed: of the mixer; the first set is made from its own captions, the second is the floor.
        foley_weight: share of procedural sounds among the recordings.
    """
    source = scene_source(recordings, foley_weight, 'held_out')
    scenes = list(make_scenes(seed, source, 2 * count, seconds))
    return scenes[:count], scenes[count:]
