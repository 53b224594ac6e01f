"""Evaluates a release on a set of scenes: metrics of each sampler config, with two references.

Every config makes the same scenes from the same noise, so rows differ by the config alone. Two
reference rows stand beside them: real against real (no generator can be expected below it) and
reconstruction against real (no sampler can go below what its decoder gives).
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from realaudio_jax.data.scenes import Scene
from realaudio_jax.generator import Generator
from realaudio_jax.metrics.benchmarking import latency_row
from realaudio_jax.metrics.embedders.base import Embedder
from realaudio_jax.metrics.embedders.tower import Tower
from realaudio_jax.metrics.evaluation.generate import (
    BATCH,
    REFERENCE,
    GeneratedBatch,
    SamplerConfig,
    generate_scenes,
    one_duration,
    reconstruct,
)
from realaudio_jax.metrics.evaluation.scenes import (
    SAMPLES,
    SceneEvaluator,
    SceneMeasurements,
    latent_errors,
)
from realaudio_jax.metrics.rows import LATENT_COSINE, REAL, RECONSTRUCTION, mean_row
from realaudio_jax.metrics.similarity import step_coherence


@dataclasses.dataclass(frozen=True)
class Reference:
    """Sounds of a sampler with which those of others are compared, from the same noise."""

    sampler: SamplerConfig
    made: GeneratedBatch
    measured: SceneMeasurements

    @classmethod
    def of(
        cls, evaluator: SceneEvaluator, sampler: SamplerConfig, made: GeneratedBatch
    ) -> 'Reference':
        """Listens to the sounds; their error to themselves is 0."""
        error = np.zeros(len(made.sounds))
        return cls(sampler, made, evaluator.measure(made.floats(), error))

    def measure(self, evaluator: SceneEvaluator, made: GeneratedBatch) -> SceneMeasurements:
        """Listens to other sounds, with the error of their latents."""
        error = latent_errors(made.latents, self.made.latents)
        return evaluator.measure(made.floats(), error)

    def rows(
        self,
        evaluator: SceneEvaluator,
        made: GeneratedBatch,
        measured: SceneMeasurements,
        columns: dict,
        seed: int = 0,
    ) -> list[dict]:
        """Cosines of latents and embeddings of other sounds with those of the reference."""
        to = columns | {'to': f'{self.sampler.model} {self.sampler.steps}'}
        cosines = step_coherence(made.latents, self.made.latents)
        rows = [mean_row(LATENT_COSINE, cosines, seed=seed)]
        rows += evaluator.coherence(measured.windows, self.measured.windows)
        return [row | to for row in rows]


def diversity_row(
    evaluator: SceneEvaluator,
    generator: Generator,
    sampler: SamplerConfig,
    prompts: int,
    seed: int = 0,
    batch: int = BATCH,
) -> dict:
    """Diversity of SAMPLES sounds of each of the first scenes, from as many seeds."""
    scenes = evaluator.scenes
    repeated = [scene for scene in scenes[:prompts] for _ in range(SAMPLES)]
    made = generate_scenes(generator, repeated, sampler, seed + len(scenes), batch)
    return evaluator.diversity(made.floats()) | sampler.columns(generator)


def evaluate_release(
    generator: Generator,
    scenes: Sequence[Scene],
    samplers: Sequence[SamplerConfig],
    tower: Tower | None = None,
    embedders: Sequence[Embedder] = (),
    others: Sequence[Scene] | None = None,
    reference: SamplerConfig | None = REFERENCE,
    seed: int = 0,
    batch: int = BATCH,
    latency_repeats: int = 9,
    resamples: int = 200,
    distances: Sequence[str] = ('kad',),
    diversity_prompts: int = 0,
    comparisons: Sequence[tuple[SamplerConfig, SamplerConfig]] = (),
    made: Callable[[SamplerConfig, GeneratedBatch], None] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[dict]:
    """Metrics of each sampler config on the scenes, and of the two references.

    Args:
        generator: the release.
        scenes: what is asked for, with the real sound; all of one duration, and two or more.
        samplers: rows, in the order of the table.
        tower: the release's audio tower, for distances and the CLAP score.
        embedders: further networks, for distances.
        others: other scenes of the same distribution, for 'real against real'; without them it
            compares two halves of `scenes`, and few clips make a distance larger.
        reference: with whose latents and embeddings those of all samplers are compared, from the
            same noise; None for no cosine.
        seed: of the noise and of the bootstrap.
        batch: sounds per call.
        latency_repeats: timed calls at batch 1 for each sampler; 0 leaves latency out.
        resamples: bootstrap draws of the intervals.
        distances: names in `distances.DISTANCES`.
        diversity_prompts: scenes of which several sounds are made, for their diversity.
        comparisons: pairs of `samplers` whose difference is measured, scene by scene from the same
            noise; see `SceneEvaluator.differences`.
        made: called with each sampler and what it made, for whoever keeps some of the sounds.
        progress: called with (what is made, done, total): the two references and each sampler,
            `len(scenes)` times each, the last time when it is measured; then each comparison.

    Returns:
        Flat rows for `write_results`: name, value, unit, n, low and high (95% interval), model,
        steps, nfe, sampler, guidance, embedder. Distances are to the sound of `scenes`. Sounds
        are measured at the level that the decoder gave them, see `generate_prompts`.

    Raises:
        ValueError: scenes of several durations, or fewer than two.
    """
    one_duration(scenes)
    if len(scenes) < 2:
        raise ValueError(f'{len(scenes)} scene is no set; evaluate 2 or more')
    evaluator = SceneEvaluator(scenes, tower, embedders, distances, seed, resamples)
    say = progress or (lambda *_: None)

    def label_of(sampler: SamplerConfig) -> str:
        scale = '' if sampler.guidance is None else f', guidance {sampler.guidance:g}'
        method = '' if sampler.method == 'ddim' else f', {sampler.method}'
        return f'{sampler.model} {sampler.steps}{method}{scale}'

    def finished(sampler: SamplerConfig) -> None:
        say(label_of(sampler), len(scenes), len(scenes))

    def make(sampler: SamplerConfig) -> GeneratedBatch:
        label = label_of(sampler)
        sounds = generate_scenes(
            generator, scenes, sampler, seed, batch, lambda n: say(label, n - 1, len(scenes))
        )
        if made is not None:
            made(sampler, sounds)
        return sounds

    rows = evaluator.floor(others)
    say(REAL, len(scenes), len(scenes))
    ceiling = reconstruct(generator, scenes, batch)
    rows += evaluator.rows(evaluator.measure(ceiling.floats()), {'model': RECONSTRUCTION}, True)
    say(RECONSTRUCTION, len(scenes), len(scenes))
    measured: dict[SamplerConfig, SceneMeasurements] = {}
    kept = None
    if reference is not None:
        kept = Reference.of(evaluator, reference, make(reference))
        measured[reference] = kept.measured
        if reference not in samplers:
            finished(reference)
    for sampler in samplers:
        columns = sampler.columns(generator)
        if kept and sampler == reference:
            sounds = kept.made
        else:
            sounds = make(sampler)
            measured[sampler] = (
                kept.measure(evaluator, sounds) if kept else evaluator.measure(sounds.floats())
            )
        rows += evaluator.rows(measured[sampler], columns)
        if kept:
            rows += kept.rows(evaluator, sounds, measured[sampler], columns, seed)
        if diversity_prompts:
            rows.append(
                diversity_row(evaluator, generator, sampler, diversity_prompts, seed, batch)
            )
        rows.append({'name': 'NFE', 'value': sampler.nfe, 'unit': '', 'n': 1} | columns)
        if latency_repeats:
            rows.append(latency_row(generator, scenes[0], sampler, latency_repeats))
        finished(sampler)
    for i, (first, second) in enumerate(comparisons, 1):
        columns = first.columns(generator)
        rows += evaluator.differences(measured[first], measured[second], second.label, columns)
        say('differences', i, len(comparisons))
    return rows
