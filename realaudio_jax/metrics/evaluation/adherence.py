"""Prompt adherence: class prompts recognised by a probe, and requested loudness curves.

Both make sounds of their own, beside those of `metrics.evaluation`: a scene's caption and timeline
say too much at once for a figure of one control.
"""

from collections.abc import Callable, Sequence

import numpy as np

from realaudio_jax.data.latent_cache import frame_loudness
from realaudio_jax.data.scenes import Scene
from realaudio_jax.generator import Generator
from realaudio_jax.metrics.embedders.base import Embedder, embed_clips
from realaudio_jax.metrics.evaluation.generate import (
    SamplerConfig,
    generate_prompts,
    generate_scenes,
)
from realaudio_jax.metrics.probe import LinearProbe
from realaudio_jax.metrics.rows import REAL, mean_row
from realaudio_jax.metrics.timing import loudness_correlation
from realaudio_jax.timeline import Timeline
from realaudio_jax.typing import SAMPLE_RATE

PROBE_SECONDS = 5.0  # of the clips that the probe of ESC-10 was fitted to
CLASS_FOUND, CURVE_FOLLOWED = 'class found by the probe', 'loudness correlation'
Say = Callable[[str, int, int], None]


def class_rows(
    generator: Generator,
    samplers: Sequence[SamplerConfig],
    probe: LinearProbe,
    embedder: Embedder,
    per_class: int,
    seconds: float = PROBE_SECONDS,
    seed: int = 0,
    progress: Say | None = None,
) -> list[dict]:
    """Accuracy of a linear probe on sounds whose whole prompt was the name of a class.

    Args:
        generator: the release.
        samplers: rows, after one of real clips, each by a probe that did not see its group.
        probe: fitted to vectors of `embedder`.
        embedder: the network.
        per_class: sounds of each class.
        seconds: of each sound.
        seed: of the first sound's noise, and of the intervals.
        progress: called with (what is made, done, total).
    """
    labels = [label for label in probe.classes for _ in range(per_class)]
    name = {'unit': '%', 'embedder': embedder.name}
    rows = [
        {'name': CLASS_FOUND, 'value': 100 * probe.accuracy, 'n': probe.clips, 'model': REAL} | name
    ]
    for sampler in samplers:
        made = generate_prompts(
            generator,
            labels,
            [Timeline()] * len(labels),
            seconds,
            sampler,
            seed,
            progress=_told(progress, sampler, 'classes', len(labels)),
        )
        windows = embed_clips(embedder, made.floats(), SAMPLE_RATE)
        hits = probe.hits(np.stack([w.mean(0) for w in windows]), labels)
        rows.append(
            mean_row(CLASS_FOUND, 100.0 * hits, '%', seed) | name | sampler.columns(generator)
        )
    return rows


def loudness_rows(
    generator: Generator,
    scenes: Sequence[Scene],
    samplers: Sequence[SamplerConfig],
    seed: int = 0,
    progress: Say | None = None,
) -> list[dict]:
    """Correlation between requested loudness curves and those of the generated sounds.

    Scenes whose curve is flat are left out, and so are sounds whose curve is.

    Args:
        generator: the release.
        scenes: whose captions, timelines and curves are asked for.
        samplers: rows, after one of the scenes' own sound (less than 1: a meter smooths it).
        seed: of the first sound's noise, and of the intervals.
        progress: called with (what is made, done, total).
    """
    curves = [frame_loudness(scene.audio) for scene in scenes]

    def row(sounds):
        found = [
            loudness_correlation(curve, sound, SAMPLE_RATE)
            for curve, sound in zip(curves, sounds, strict=True)
        ]
        return mean_row(CURVE_FOLLOWED, [x for x in found if np.isfinite(x)], seed=seed)

    rows = [row(scene.audio for scene in scenes) | {'model': REAL}]
    for sampler in samplers:
        made = generate_scenes(
            generator,
            scenes,
            sampler,
            seed,
            loudness_db=curves,
            progress=_told(progress, sampler, 'loudness', len(scenes)),
        )
        rows.append(row(made.floats()) | sampler.columns(generator))
    return rows


def _told(progress: Say | None, sampler: SamplerConfig, what: str, total: int):
    label = f'{sampler.model} {sampler.steps}, {what}'
    return progress and (lambda done: progress(label, done, total))
