"""Evaluates a release on a set of scenes: metrics of each sampler config, with two references.

Every config makes the same scenes from the same noise, so rows differ by the config alone. Two
reference rows stand beside them: real against real (no generator can be expected below it) and
reconstruction against real (no sampler can go below what its decoder gives).
"""

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
from realaudio_jax.metrics.rows import REAL, RECONSTRUCTION, mean_row
from realaudio_jax.metrics.similarity import step_coherence


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
        return f'{sampler.model} {sampler.steps}'

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

    def diversity_samples(sampler):
        """SAMPLES sounds of each of the first scenes, from as many seeds."""
        repeated = [scene for scene in scenes[:diversity_prompts] for _ in range(SAMPLES)]
        return generate_scenes(generator, repeated, sampler, seed + len(scenes), batch).floats()

    rows = evaluator.floor(others)
    say(REAL, len(scenes), len(scenes))
    ceiling = reconstruct(generator, scenes, batch)
    rows += evaluator.rows(evaluator.measure(ceiling.floats()), {'model': RECONSTRUCTION}, True)
    say(RECONSTRUCTION, len(scenes), len(scenes))
    measured: dict[SamplerConfig, SceneMeasurements] = {}
    if reference is not None:
        kept = make(reference)
        nothing = np.zeros(len(scenes))
        measured[reference] = evaluator.measure(kept.floats(), nothing)
        if reference not in samplers:
            finished(reference)
    for sampler in samplers:
        columns = sampler.columns(generator)
        again = reference is not None and sampler == reference
        sounds = kept if again else make(sampler)
        if not again:
            error = None if reference is None else latent_errors(sounds.latents, kept.latents)
            measured[sampler] = evaluator.measure(sounds.floats(), error)
        rows += evaluator.rows(measured[sampler], columns)
        if reference is not None:
            to = columns | {'to': f'{reference.model} {reference.steps}'}
            latent = step_coherence(sounds.latents, kept.latents)
            rows.append(mean_row('latent cosine', latent, seed=seed) | to)
            coherence = evaluator.coherence(measured[sampler].windows, measured[reference].windows)
            rows += [row | to for row in coherence]
        if diversity_prompts:
            rows.append(evaluator.diversity(diversity_samples(sampler)) | columns)
        rows.append({'name': 'NFE', 'value': sampler.nfe, 'unit': '', 'n': 1} | columns)
        if latency_repeats:
            rows.append(latency_row(generator, scenes[0], sampler, latency_repeats))
        finished(sampler)
    for i, (first, second) in enumerate(comparisons, 1):
        columns = first.columns(generator)
        rows += evaluator.differences(measured[first], measured[second], second.label, columns)
        say('differences', i, len(comparisons))
    return rows
