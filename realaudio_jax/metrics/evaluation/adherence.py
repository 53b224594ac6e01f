"""Prompt adherence: class prompts recognised by a probe, and requested loudness curves.

Both make sounds of their own, beside those of `metrics.evaluation`: a scene's caption and timeline
say too much at once for a metric of one control.
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.ndimage

from realaudio_jax.data.scene_encoder import frame_loudness
from realaudio_jax.data.scenes import Scene
from realaudio_jax.generator import Generator
from realaudio_jax.metrics.bootstrap import paired_bootstrap
from realaudio_jax.metrics.embedders.base import Embedder, embed_clips
from realaudio_jax.metrics.evaluation.generate import (
    SamplerConfig,
    generate_prompts,
    generate_scenes,
)
from realaudio_jax.metrics.probe import LinearProbe
from realaudio_jax.metrics.rows import REAL, difference_row, mean_row
from realaudio_jax.timeline import Timeline
from realaudio_jax.typing import SAMPLE_RATE, Array, Float

PROBE_SECONDS = 5.0  # of the clips that the probe of ESC-10 was fitted to
CLASS_FOUND, CURVE_FOLLOWED = 'class found by the probe', 'loudness correlation'
Say = Callable[[str, int, int], None]
AnyArray = np.ndarray | Array


def class_rows(
    generator: Generator,
    samplers: Sequence[SamplerConfig],
    probe: LinearProbe,
    embedder: Embedder,
    per_class: int,
    seconds: float = PROBE_SECONDS,
    seed: int = 0,
    progress: Say | None = None,
    comparisons: Sequence[tuple[SamplerConfig, SamplerConfig]] = (),
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
        comparisons: pairs of `samplers` whose difference is measured, sound by sound.
    """
    labels = [label for label in probe.classes for _ in range(per_class)]
    name = {'unit': '%', 'embedder': embedder.name}
    rows = [
        {'name': CLASS_FOUND, 'value': 100 * probe.accuracy, 'n': probe.clips, 'model': REAL} | name
    ]
    all_hits = {}
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
        hits = 100.0 * probe.hits(np.stack([w.mean(0) for w in windows]), labels)
        rows.append(mean_row(CLASS_FOUND, hits, '%', seed) | name | sampler.columns(generator))
        all_hits[sampler] = list(hits)
    for first, second in comparisons:
        found = paired_bootstrap(np.mean, all_hits[first], all_hits[second], seed=seed)
        row = difference_row(CLASS_FOUND, second.label, found, '%')
        rows.append(row | name | first.columns(generator))
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


def loudness_correlation(
    requested_db: Float[AnyArray, 'L'],
    audio: Float[AnyArray, 'S *A'],
    sample_rate: int,
    floor_db: float = -80.0,
) -> float:
    """Pearson correlation between a requested and a measured loudness curve, in [-1, 1].

    Args:
        requested_db: level in dB at L evenly spaced frames that share the sound among them.
        audio: [S] or [S A] in [-1, 1], at least one sample per frame.
        sample_rate: Hz. Levels are RMS over a frame and its neighbours, smoothed as they would be
            by a meter of 100 ms.
        floor_db: lower levels count as this.

    Returns:
        The correlation; blind to a constant offset and to range. NaN where either curve is flat.
    """
    wanted = np.maximum(np.asarray(requested_db, np.float64), floor_db)
    power = np.square(np.asarray(audio, np.float64).reshape(len(audio), -1)).mean(1)
    bounds = np.round(np.linspace(0, len(power), len(wanted) + 1)).astype(int)
    frames = np.add.reduceat(power, bounds[:-1]) / np.diff(bounds)
    width = max(1, round(0.1 * sample_rate * len(wanted) / len(power)))
    smooth = scipy.ndimage.uniform_filter1d(frames, width, mode='nearest')
    found = np.maximum(10 * np.log10(np.maximum(smooth, 1e-12)), floor_db)
    if np.ptp(wanted) < 1e-9 or np.ptp(found) < 1e-9:
        return float('nan')
    return float(np.corrcoef(wanted, found)[0, 1])


def _told(progress: Say | None, sampler: SamplerConfig, what: str, total: int):
    label = f'{sampler.model} {sampler.steps}, {what}'
    return progress and (lambda done: progress(label, done, total))
