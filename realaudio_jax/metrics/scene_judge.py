"""Evaluates sounds generated for known scenes: distances, prompt similarity, onset accuracy."""

from collections.abc import Iterable, Sequence

import numpy as np

from realaudio_jax.data.scenes import Scene
from realaudio_jax.metrics.agreement import cosine, diversity
from realaudio_jax.metrics.detection import event_counts, f1_of_counts
from realaudio_jax.metrics.embedders import Embedder, embed_clips
from realaudio_jax.metrics.events import COLLARS_MS, summarise_onsets
from realaudio_jax.metrics.figures import REAL, Windows, distance_rows, mean_row, statistic_row
from realaudio_jax.metrics.probe import class_agreement
from realaudio_jax.metrics.timing import clip_timing
from realaudio_jax.metrics.tower import Tower
from realaudio_jax.typing import SAMPLE_RATE

SAMPLES = 4  # sounds of one prompt, for diversity


class SceneJudge:
    """Evaluator of sounds for a set of scenes; embeds the real scenes once.

    Args:
        scenes: what was asked for, with the real sound.
        tower: for distances and agreement with the caption; None leaves them out.
        embedders: further judges, for distances.
        distances: names in `figures.DISTANCES`.
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
        self.windows = self.embed(scene.audio for scene in scenes)

    def embed(self, clips: Iterable[np.ndarray]) -> list[Windows]:
        """Embeddings of sounds at 48 kHz, by each embedder."""
        clips = list(clips)
        return [embed_clips(e, clips, SAMPLE_RATE) for e in self.embedders]

    def floor(self, others: Sequence[Scene] | None = None) -> list[dict]:
        """Rows of real scenes judged as generated ones: against `others`, or half against half."""
        columns = {'model': REAL}
        windows = self.windows
        second = self.embed(scene.audio for scene in others) if others else windows
        rows = []
        for embedder, a, b in zip(self.embedders, windows, second, strict=True):
            a, b = (a, b) if others else (a[::2], b[1::2])
            rows += self._distances(a, b, embedder, False)
        rows += self._agreement(windows, [scene.caption for scene in self.scenes])
        rows += self._timing(scene.audio for scene in self.scenes)
        rows = [row | columns for row in rows]
        captions = [scene.caption for scene in self.scenes]
        wrong = self._agreement(windows, captions[1:] + captions[:1])
        return rows + [row | {'model': 'real, caption of another scene'} for row in wrong]

    def rows(
        self,
        sounds: Iterable[np.ndarray],
        windows: Sequence[Windows],
        columns: dict,
        paired: bool = False,
    ) -> list[dict]:
        """Metric rows of one generated sound for each scene.

        Args:
            sounds: float [S 2] at 48 kHz, in the order of the scenes.
            windows: their vectors by each embedder, of `embed`.
            columns: what names the set in the table.
            paired: each sound was made from the scene's own.
        """
        rows = []
        for embedder, a, b in zip(self.embedders, self.windows, windows, strict=True):
            rows += self._distances(a, b, embedder, paired)
        rows += self._agreement(windows, [scene.caption for scene in self.scenes])
        return [row | columns for row in rows + self._timing(sounds)]

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
        row = mean_row('diversity of one prompt', values, seed=self.seed)
        return row | {'embedder': embedder.name}

    def _distances(self, a, b, embedder, paired):
        return distance_rows(a, b, embedder, self.distances, self.seed, self.resamples, paired)

    def _agreement(self, windows, texts):
        """Rows of prompt similarity, by the audio tower and by classes of tagging embedders."""
        rows = []
        if self.tower:
            agreement = self.tower.agreement(windows[0], texts)
            row = mean_row('prompt agreement', agreement, seed=self.seed)
            rows.append(row | {'embedder': self.tower.embedder.name})
        for embedder, found in zip(self.embedders, windows, strict=True):
            if embedder.class_scores is None or not embedder.class_names:
                continue
            scores = [embedder.class_scores(vectors) for vectors in found]
            agreement = class_agreement(scores, texts, embedder.class_names)
            agreement = agreement[~np.isnan(agreement)]  # prompts that name no class
            if agreement.size:
                row = mean_row('class agreement', agreement, seed=self.seed)
                rows.append(row | {'embedder': embedder.name})
        return rows

    def _timing(self, sounds):
        """Rows of onset and offset accuracy over scenes with events; intervals are over scenes."""
        clips = [
            (scene.events, clip_timing(sound, SAMPLE_RATE, scene.events))
            for sound, scene in zip(sounds, self.scenes, strict=True)
            if scene.events
        ]
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
                    *((f'{kind}s within {c} ms', '%', lambda s, c=c: 100 * s.hit_rate[c])
                      for c in COLLARS_MS),
                    (f'{kind}s missed', '%', lambda s: 100 * s.missed),
                )
            ]  # fmt: skip
        counts = [event_counts((events, timing.found), 0.2, None) for events, timing in clips]
        return rows + [
            row('onset F1, 200 ms', '%', lambda drawn: 100 * f1_of_counts(drawn), counts),
            row('onsets unasked for, per scene', '',
                lambda drawn: float(np.mean([len(t.spurious_s) for _, t in drawn]))),
            row('energy outside the events', 'dB',
                lambda drawn: float(np.nanmean([t.outside_db for _, t in drawn]))),
        ]  # fmt: skip
