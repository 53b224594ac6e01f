"""Student and teacher at several step counts from the same noise: quality against time.

python -m experiments.ablate_steps --recordings=DIR --embedder_weights=DIR --workdir=DIR

The teacher can be sampled in several ways (--teacher_samplers=ddim,dpm_solver_pp_2m), and guidance
scales be tried at some of the step counts (--guidance=1,2,3,4 --guidance_steps=4). With
--untrained_steps the student is sampled at any count, without moment matching where it has none.
"""

import collections
import csv
import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence

import matplotlib
from absl import flags

from experiments.common import listed, run
from experiments.watermark_flags import define_precision
from realaudio_jax.generator import load
from realaudio_jax.io import atomic_path
from realaudio_jax.metrics.distances import DISTANCES, check_distances
from realaudio_jax.metrics.embedders.registry import load_evaluators
from realaudio_jax.metrics.evaluation.generate import SamplerConfig, SamplerSet
from realaudio_jax.metrics.evaluation.release import evaluate_release
from realaudio_jax.metrics.evaluation.scenes import held_out_scenes
from realaudio_jax.metrics.rows import (
    ENOUGH_CLIPS,
    FRECHET_DISTANCE,
    FRECHET_INFINITE,
    KERNEL_DISTANCE,
    LATENT_ERROR,
    REAL,
    RECONSTRUCTION,
)
from realaudio_jax.program_io import SAMPLERS
from realaudio_jax.release_config import ReleaseConfig
from realaudio_jax.report.summary import summarise
from realaudio_jax.report.tables import pivot, write_results
from realaudio_jax.training.loop import Progress
from realaudio_jax.typing import MAX_SECONDS, MIN_SECONDS

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib import ticker  # noqa: E402

_RELEASE = flags.DEFINE_string('release', 'foley', 'Name or folder of the release.')
_RECORDINGS = flags.DEFINE_string(
    'recordings', None, 'Folder of sounds, its held-out part; none: procedural foley.'
)
_WEIGHTS = flags.DEFINE_string('embedder_weights', None, 'Folder of YAMNet weights.')
_SCENES = flags.DEFINE_integer('scenes', 128, 'Number of scenes.', lower_bound=2)
_SECONDS = flags.DEFINE_float('seconds', 10.0, 'Duration of each.', MIN_SECONDS, MAX_SECONDS)
_STUDENT = flags.DEFINE_list('student_steps', ['1', '2', '4', '8'], 'Step counts of the student.')
_UNTRAINED = flags.DEFINE_bool(
    'untrained_steps', False, 'Sample the student at counts that it was not trained for, too.'
)
_TEACHER = flags.DEFINE_list(
    'teacher_steps', ['1', '2', '4', '8', '16', '50'], 'Step counts of the teacher.'
)
_SAMPLERS = flags.DEFINE_list('teacher_samplers', ['ddim'], f'Of {", ".join(SAMPLERS["teacher"])}.')
_GUIDANCE = flags.DEFINE_list(
    'guidance', [], "Scales besides the release's own, at --guidance_steps."
)
_GUIDANCE_STEPS = flags.DEFINE_list('guidance_steps', ['4'], 'Step counts of --guidance.')
_METRICS = flags.DEFINE_list(
    'metrics', [], f'Distances: {", ".join(DISTANCES)}; none: kad, and fad of enough scenes.'
)
_TIMES = flags.DEFINE_bool(
    'times', True, 'Measure the time of a sound, which takes an idle machine.'
)
_PRECISION = define_precision()
_SEED = flags.DEFINE_integer('seed', 0, 'Of scenes, noise and intervals.', lower_bound=0)
_WORKDIR = flags.DEFINE_string('workdir', 'runs/ablate_steps', 'Where the tables and the plot go.')

AXES = ('time per sound (ms)', 'NFE')
GUIDANCE_LABEL = 'guidance scale, at the same number of steps'


def ablate(
    release,
    recordings,
    embedder_weights,
    count,
    seconds,
    student_steps,
    teacher_steps,
    seed,
    workdir: pathlib.Path,
    teacher_samplers=('ddim',),
    guidance=(),
    guidance_steps=(),
    metrics=(),
    precision: str = 'float32',
    untrained_steps: bool = False,
    times: bool = True,
) -> list[dict]:
    """Measures every step count; writes results.json, results.md, steps.csv and steps.png."""
    generator = load(release, precision=precision)
    if untrained_steps:
        generator.config = with_steps(generator.config, student_steps)
    compared = SamplerSet.of_steps(student_steps, teacher_steps, teacher_samplers)
    own = {model: generator.default_guidance_scale(model) for model in ('student', 'teacher')}
    scaled = [
        dataclasses.replace(sampler, guidance=scale)
        for sampler in compared.samplers
        for scale in guidance
        if sampler.steps in guidance_steps and scale != own[sampler.model]
    ]
    unmatched = set(guidance_steps) - {sampler.steps for sampler in compared.samplers}
    if guidance and (unmatched or not scaled):
        which = f'{min(unmatched)} is no step count here' if unmatched else "all are a model's own"
        raise ValueError(
            f'--guidance is tried at --guidance_steps, but {which}; name some of --student_steps '
            'and --teacher_steps, and other scales'
        )
    of_flags = {
        'student_steps': compared.students,
        'teacher_steps and --teacher_samplers': compared.teachers,
        'guidance': scaled,
    }
    for flag, chosen in of_flags.items():
        for sampler in chosen:
            try:
                sampler.check(generator.config)
            except ValueError as error:
                raise ValueError(f'--{flag}: {error}') from None
    samplers, pairs = compared.samplers + scaled, compared.equal_pairs
    tower, embedders = load_evaluators(generator.folder, embedder_weights)
    reference = SamplerConfig('teacher', max(teacher_steps))
    scenes, others = held_out_scenes(recordings, count, seconds, seed)
    enough = count >= ENOUGH_CLIPS[FRECHET_DISTANCE]
    with Progress(count * (len(samplers) + 2) + len(pairs), 'steps') as progress:
        rows = evaluate_release(
            generator,
            scenes,
            samplers,
            tower,
            embedders,
            others,
            reference,
            seed,
            distances=metrics or (('kad', 'fad') if enough else ('kad',)),
            latency_repeats=9 if times else 0,
            comparisons=pairs,
            progress=progress.update_part,
        )
    common = {'release': generator.config.name or release, 'seed': seed, 'seconds': seconds}
    common['products'] = precision
    common['sounds'] = 'foley' if recordings is None else 'held-out recordings'
    rows = [row | common for row in rows]
    write_results(workdir, rows, 'Quality and time by number of steps')
    wide = pivot(rows)
    with atomic_path(workdir / 'steps.csv') as path, open(path, 'w', newline='') as file:
        writer = csv.DictWriter(file, wide[0])
        writer.writeheader()
        writer.writerows(wide)
    note = ''
    if not enough:
        note = (
            f'{count} scenes are too few for a Frechet distance, which takes '
            f'{ENOUGH_CLIPS[FRECHET_DISTANCE]} or more: the kernel distance has no bias from their '
            'number'
        )
        print(f'note: {note}', file=sys.stderr, flush=True)
    plot(wide, workdir / 'steps.png', note, own)
    return rows


def with_steps(config: ReleaseConfig, steps: Sequence[int]) -> ReleaseConfig:
    """The settings of a release whose student is sampled at these counts, too."""
    all_steps = tuple(sorted({*config.student.steps, *steps}))
    return dataclasses.replace(config, student=dataclasses.replace(config.student, steps=all_steps))


# Of a model and its sampler: colour, marker, and where its step counts are written.
STYLES = {
    ('teacher', 'ddim'): ('#c44e52', 's', 7),
    ('teacher', 'dpm_solver_pp_2m'): ('#55a868', '^', 7),
    ('student', 'ddim'): ('#4c72b0', 'o', -15),
}


def plot(
    wide: list[dict],
    path: pathlib.Path,
    note: str = '',
    own_guidance: Mapping[str, float] | None = None,
) -> None:
    """Each distance against time and against evaluations, with floor and ceiling; and guidance.

    Args:
        wide: of `report.tables.pivot`. Frechet distances are drawn where there are any, else kernel
            distances, and without either the latent error; times where they were measured.
        path: of the PNG.
        note: under the drawing.
        own_guidance: scale of each model in the first two panels; where `wide` has others, a third
            one is drawn of them.
    """
    own_guidance = own_guidance or {}
    drawn = next(
        name
        for name in (FRECHET_INFINITE, FRECHET_DISTANCE, KERNEL_DISTANCE, LATENT_ERROR)
        if any(column.startswith(name) for column in wide[0])
    )

    def guidance(p):
        return p.get('guidance', own_guidance.get(p['model']))

    scales = {guidance(p) for p in wide if p['model'] in own_guidance}
    panels = [axis for axis in AXES if axis in wide[0]]
    if scales - set(own_guidance.values()):
        panels.append('guidance')
    groups = {
        key: [p for p in wide if (p['model'], p.get('sampler') or 'ddim') == key] for key in STYLES
    }
    measures = [c for c in wide[0] if c.startswith(drawn) and 'minus that of' not in c]
    figure, axes = plt.subplots(
        len(measures),
        len(panels),
        figsize=(5.5 * len(panels), 4.2 * len(measures)),
        squeeze=False,
        sharey='row',
        layout='constrained',
    )
    if note:
        figure.supxlabel(note, fontsize=9)
    for row, measure in zip(axes, measures, strict=True):
        for axis, x in zip(row, panels, strict=True):
            for (model, sampler), points in groups.items():
                colour, marker, above = STYLES[model, sampler]
                points = [p for p in points if p[measure] is not None]
                label = model if sampler == 'ddim' else f'{model}, {sampler}'
                if x == 'guidance':
                    by_steps = collections.defaultdict(list)
                    for p in points:
                        by_steps[p['steps']].append((guidance(p), p[measure]))
                    lines = [sorted(of) for of in by_steps.values() if len(of) > 1]
                    for line in lines:
                        axis.plot(*zip(*line, strict=True), marker=marker, color=colour, lw=1.5)
                    continue
                points = [p for p in points if p[x] and guidance(p) == own_guidance.get(model)]
                points.sort(key=lambda p: p[x])
                if not points:
                    continue
                xs, ys = [p[x] for p in points], [p[measure] for p in points]
                axis.plot(xs, ys, marker=marker, color=colour, label=label, lw=1.5)
                for p in points:
                    axis.annotate(
                        f'{p["steps"]}',
                        (p[x], p[measure]),
                        xytext=(0, above),
                        textcoords='offset points',
                        ha='center',
                        fontsize=9,
                        color=colour,
                    )
            for name, style in ((RECONSTRUCTION, '--'), (REAL, ':')):
                levels = [p[measure] for p in wide if p['model'] == name and p[measure] is not None]
                for level in levels:
                    axis.axhline(level, color='0.35', ls=style, lw=1.2, label=name)
            if x != 'guidance':
                axis.set_xscale('log')
                axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
                axis.xaxis.set_major_formatter('{x:g}')
                axis.xaxis.set_minor_formatter(ticker.NullFormatter())
            axis.set_xlabel({'NFE': 'denoiser evaluations', 'guidance': GUIDANCE_LABEL}.get(x, x))
            axis.margins(y=0.15)
            axis.grid(alpha=0.25, which='both')
        row[0].set_ylabel(measure)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside upper center', ncols=4, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)
    plt.close(figure)


def main(argv):
    del argv
    rows = ablate(
        _RELEASE.value,
        _RECORDINGS.value,
        _WEIGHTS.value,
        _SCENES.value,
        _SECONDS.value,
        listed(_STUDENT),
        listed(_TEACHER),
        _SEED.value,
        pathlib.Path(_WORKDIR.value),
        listed(_SAMPLERS, str),
        listed(_GUIDANCE, float) if _GUIDANCE.value else (),
        listed(_GUIDANCE_STEPS),
        check_distances(_METRICS.value) if _METRICS.value else (),
        _PRECISION.value,
        _UNTRAINED.value,
        _TIMES.value,
    )
    print(summarise(rows).markdown())


if __name__ == '__main__':
    run(main)
