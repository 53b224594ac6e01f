"""Evaluates several students of one teacher: scenes, noise, programs and references are shared.

`evaluate_release` measures one release with everything around it. Here the teacher's sounds are
made once, and all students run in the same compiled programs, so a student costs its own sounds
and nothing else. Students are compared as they were trained, without moment matching; one that is
taken as it is shipped runs in programs of its own.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence

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
    SamplerSet,
    generate_scenes,
)
from realaudio_jax.metrics.evaluation.release import Reference, diversity_row
from realaudio_jax.metrics.evaluation.scenes import SceneEvaluator, SceneMeasurements
from realaudio_jax.models.denoiser import Denoiser
from realaudio_jax.release import (
    MOMENTS_NAME,
    STUDENT_NAME,
    denoiser_template,
    load_denoiser,
    read_release,
)

SHIPPED = 'shipped'  # label of a student that is evaluated as it was released


class StudentEvaluator:
    """Evaluator of students on one set of scenes.

    Args:
        release: of one of the students, or another one of the same networks, not calibrated.
        scenes: what is asked for, with the real sound; all of one duration.
        others: other scenes of the same distribution, for the floor.
        tower, embedders: for distances.
        steps: counts of the student.
        distances: names in `distances.DISTANCES`.
        diversity_prompts: scenes of which several sounds are made, where there is an embedder.
        seed: of the noise and of the bootstrap.
        resamples: bootstrap draws of the intervals.
        batch: sounds per call.
        progress: called with (what is made, done, total), of `samplers` sets of sounds for the
            teacher and for each student.
    """

    def __init__(
        self,
        release: pathlib.Path,
        scenes: Sequence[Scene],
        others: Sequence[Scene],
        tower: Tower | None,
        embedders: Sequence[Embedder],
        steps: Sequence[int],
        distances: Sequence[str],
        diversity_prompts: int = 0,
        seed: int = 0,
        resamples: int = 200,
        batch: int = BATCH,
        progress: Callable[[str, int, int], None] = lambda *_: None,
    ):
        self.generator = Generator(release)
        self._require_uncalibrated(release)
        compared = SamplerSet.with_equal_teachers(steps, [])
        self.students, self.teachers = compared.students, compared.teachers
        for sampler in compared.samplers:
            sampler.check(self.generator.config)
        self.seed, self.batch, self._progress = seed, batch, progress
        self.scenes, self.diversity_prompts = scenes, diversity_prompts
        self.evaluator = SceneEvaluator(scenes, tower, embedders, distances, seed, resamples)
        self._against: dict[str, dict[SamplerConfig, SceneMeasurements]] = {}
        self._floor = self.evaluator.floor(others)
        made = self._make(self.generator, REFERENCE, 'teacher')
        self.reference = Reference.of(self.evaluator, REFERENCE, made)

    def shared_rows(self) -> list[dict]:
        """Rows of real sounds and of the teacher: the reference, and as many evaluations."""
        kept = self.reference
        rows = self._floor + self._rows(self.generator, REFERENCE, kept.made, kept.measured)
        for sampler in self.teachers:
            made = self._make(self.generator, sampler, 'teacher')
            measured = kept.measure(self.evaluator, made)
            rows += self._rows(self.generator, sampler, made, measured)
        return rows

    def time_rows(self, repeats: int = 9) -> list[dict]:
        """Time of one sound at each step count: the same for all students."""
        return [
            latency_row(self.generator, self.scenes[0], sampler, repeats)
            for sampler in (*self.students, *self.teachers, REFERENCE)
        ]

    def student_rows(
        self,
        release: pathlib.Path,
        label: str,
        keep: Callable[[SamplerConfig, GeneratedBatch], None] = lambda *_: None,
        as_shipped: bool = False,
        to_compare: bool = False,
    ) -> list[dict]:
        """Rows of one student at every step count.

        Among them are its differences, with paired intervals, from the teacher's reference and from
        each student for which `to_compare` was asked before, at the same number of steps.

        Args:
            release: of the student.
            label: of the student, in the differences of others and for the progress.
            keep: called with each sampler and what it made.
            as_shipped: with its own moment matching and grid of times; else it may have none.
            to_compare: its measurements are kept, for those that follow.

        Raises:
            ValueError: the release is of other networks, or calibrated.
        """
        generator, rows = self._generator_of(release, as_shipped), []
        for sampler in self.students:
            made = self._make(generator, sampler, label)
            keep(sampler, made)
            measured = self.reference.measure(self.evaluator, made)
            rows += self._rows(generator, sampler, made, measured)
            others = {name: of[sampler] for name, of in self._against.items() if name != label}
            others[REFERENCE.label] = self.reference.measured
            columns = sampler.columns(generator)
            for name, other in others.items():
                rows += self.evaluator.differences(measured, other, name, columns)
            if to_compare:
                self._against.setdefault(label, {})[sampler] = measured
            if self.diversity_prompts and self.evaluator.embedders:
                rows.append(
                    diversity_row(
                        self.evaluator,
                        generator,
                        sampler,
                        self.diversity_prompts,
                        self.seed,
                        self.batch,
                    )
                )
        return rows

    def _generator_of(self, release: pathlib.Path, as_shipped: bool) -> Generator:
        if not as_shipped:
            self._require_uncalibrated(release)
        model = Denoiser(**read_release(release).denoiser.to_dict())
        if model != self.generator.networks.denoiser:
            raise ValueError(f'{release} has another denoiser than {self.generator.folder}')
        if as_shipped:
            return Generator(release)
        params = load_denoiser(release, STUDENT_NAME, denoiser_template(model))
        return self.generator.with_student(params)

    def _make(self, generator: Generator, sampler: SamplerConfig, label: str) -> GeneratedBatch:
        return generate_scenes(
            generator,
            self.scenes,
            sampler,
            self.seed,
            self.batch,
            lambda n: self._progress(f'{label}, {sampler.steps} steps', n, len(self.scenes)),
        )

    def _rows(self, generator, sampler, made, measured) -> list[dict]:
        columns = sampler.columns(generator)
        rows = self.evaluator.rows(measured, columns)
        return rows + self.reference.rows(self.evaluator, made, measured, columns, self.seed)

    @staticmethod
    def _require_uncalibrated(release: pathlib.Path) -> None:
        if (release / MOMENTS_NAME).is_file():
            raise ValueError(f'{release} is calibrated: students are compared as they were trained')


def labels_of(releases: Sequence[pathlib.Path]) -> Mapping[str, pathlib.Path]:
    """Students by name: the folder that holds the release, as a run leaves it.

    Raises:
        ValueError: two have one name.
    """
    labels = {folder.parent.name: folder for folder in releases}
    if len(labels) < len(releases):
        raise ValueError('two students have one name: put their runs into folders of other names')
    return labels
