"""Evaluates a distillation run from its folder: calibration, metrics, samples and the report page.

`experiments.evaluate --run=DIR` does so after training, and again whenever it is called. All it
needs is in the folder: `run.json` with the config, and the student.
"""

import pathlib
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from realaudio_jax import audio as audio_lib
from realaudio_jax.calibration import calibrate_run
from realaudio_jax.data.scenes import Scene
from realaudio_jax.generator import Generator
from realaudio_jax.io import write_audio
from realaudio_jax.metrics.benchmarking import latency_row
from realaudio_jax.metrics.embedders.registry import load_evaluators
from realaudio_jax.metrics.evaluation.generate import (
    REFERENCE,
    GeneratedBatch,
    SamplerConfig,
    SamplerSet,
)
from realaudio_jax.metrics.evaluation.pretrained import evaluate_pretrained_run
from realaudio_jax.metrics.evaluation.release import evaluate_release
from realaudio_jax.metrics.evaluation.scenes import held_out_scenes
from realaudio_jax.metrics.rows import ENOUGH_CLIPS, FRECHET_DISTANCE
from realaudio_jax.report.page import PLAYED_LUFS, ReportClip, played, without_paths, write_report
from realaudio_jax.report.summary import Summary, summarise
from realaudio_jax.report.tables import wide_table, write_results
from realaudio_jax.spectrogram import plot_spectrogram
from realaudio_jax.training.loop import Progress, print_to_stderr, stop_says
from realaudio_jax.training.run_folder import (
    RELEASE,
    RUN_NAME,
    STUDENT,
    finished_run,
    read_seconds,
    record_seconds,
)
from realaudio_jax.typing import SAMPLE_RATE


def finish_run(
    workdir: pathlib.Path,
    embedder_weights: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> str:
    """What follows training: calibration, evaluation and the report of a run.

    The student of a published model has no release around it: of it the latent cosine to its
    teacher is measured alone, see `pretrained.evaluate_pretrained_run`. A stop says what is kept,
    and how to go on.

    Args:
        workdir, embedder_weights, changes: see `evaluate_run`.

    Returns:
        The summary as text.
    """
    weights = f' --embedder_weights={shlex.quote(embedder_weights)}' if embedder_weights else ''
    run = f'{shlex.quote(str(workdir))}{weights}'
    calibrated = False

    def kept() -> str:
        done = 'the student and its calibration are' if calibrated else 'the student is'
        return f'stopped; {done} kept: go on with python -m experiments.evaluate --run={run}'

    with stop_says(kept):
        if finished_run(workdir)[0]['config']['teacher'] != RELEASE:
            rows = evaluate_pretrained_run(workdir, changes)
            return f'{wide_table(rows)}\ndone: the student is in {workdir / STUDENT}'
        calibrate_run(workdir)
        calibrated = True
        summary = evaluate_run(workdir, embedder_weights, changes)
        return (
            f'{summary.markdown()}\ndone: open {workdir / "report.html"}; the student is in '
            f'{workdir / RELEASE}'
        )


def evaluate_run(
    workdir: pathlib.Path,
    embedder_weights: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Summary:
    """Metrics of a run's student and teacher on held-out scenes, samples and the report page.

    Writes `results.json`, `results.md`, `samples/`, `spectrogram.png` and `report.html`.

    Args:
        workdir: of a finished `experiments.distill`.
        embedder_weights: folder of YAMNet weights, as an independent evaluator.
        changes: of the run's settings for its evaluation: seed, eval_scenes, eval_seconds.

    Returns:
        The summary: sentences and tables.

    Raises:
        FileNotFoundError: there is no such run, or it has no release yet.
    """
    run, release = finished_run(workdir)
    config, begin = run['config'] | dict(changes or {}), time.monotonic()
    seconds, seed = config['eval_seconds'], config['seed']
    recordings = run['inputs']['recordings']
    generator = Generator(release)
    tower, embedders = load_evaluators(release, embedder_weights)
    scenes, others = held_out_scenes(recordings, config['eval_scenes'], seconds, seed)
    compared = SamplerSet.with_equal_teachers(config['student_steps'], [REFERENCE])
    few = min(compared.students, key=lambda sampler: abs(sampler.steps - 4))
    distances = ['kad']
    if len(scenes) >= ENOUGH_CLIPS[FRECHET_DISTANCE]:
        distances.append('fad')
    shown: dict[SamplerConfig, list[np.ndarray]] = {}

    def keep(sampler: SamplerConfig, made: GeneratedBatch) -> None:
        shown[sampler] = made.sounds[: config['report_prompts']]

    comparisons = [*compared.equal_pairs, (few, REFERENCE)]
    timed = (few, REFERENCE)
    sounds = len(scenes) * (len(compared.samplers) + 2)
    print_to_stderr(
        f'evaluation: {len(scenes)} held-out scenes, then differences, times of one sound and the '
        'report; programs are compiled on the way'
    )
    with Progress(sounds + len(comparisons) + len(timed) + 1, 'evaluation') as progress:
        say = progress.update_part
        rows = evaluate_release(
            generator,
            scenes,
            compared.samplers,
            tower,
            embedders,
            others,
            reference=REFERENCE,
            seed=seed,
            latency_repeats=0,
            distances=distances,
            comparisons=comparisons,
            made=keep,
            progress=say,
        )
        for i, sampler in enumerate(timed, 1):
            rows.append(latency_row(generator, scenes[0], sampler))
            say('times', i, len(timed))
        common = {
            'seed': seed,
            'seconds': seconds,
            'scenes': 'held-out foley' if recordings is None else 'held-out recordings',
        }
        rows = [row | common for row in rows]
        write_results(workdir, rows, 'Steps against quality')
        summary = summarise(rows)
        record_seconds(workdir, 'evaluation', time.monotonic() - begin)
        order = [REFERENCE, *compared.students]
        sounds = {sampler: shown[sampler] for sampler in order}
        _write_page(workdir, run, config, summary, scenes, sounds, few, str(generator.mark))
        say('report', 1, 1)
    return summary


def _write_page(
    workdir: pathlib.Path,
    run: Mapping[str, Any],
    config: Mapping[str, Any],
    summary: Summary,
    scenes: Sequence[Scene],
    shown: Mapping[SamplerConfig, Sequence[np.ndarray]],
    few: SamplerConfig,
    mark: str,
) -> None:
    """Samples, one spectrogram, and the report, which says with which key sounds are marked."""
    clips = []
    for i, scene in enumerate(scenes[: config['report_prompts']]):
        sounds = {'real': scene.audio}
        sounds |= {s.label: audio_lib.from_pcm16(made[i]) for s, made in shown.items()}
        for label, sound in sounds.items():
            name = f'{i}-{label.replace(", ", "-").replace(" ", "-")}.wav'
            write_audio(workdir / 'samples' / name, sound, SAMPLE_RATE)
            clips.append(
                ReportClip(
                    scene.caption, label, played(sound, SAMPLE_RATE), SAMPLE_RATE, scene.events
                )
            )
    plot_spectrogram(
        workdir / 'spectrogram.png', shown[few][0], SAMPLE_RATE, scenes[0].events, scenes[0].caption
    )
    start = run['starts'][-1]
    taken = ', '.join(f'{step} {seconds:.0f}' for step, seconds in read_seconds(workdir).items())
    updates = {_stage_name(stage): stage['updates'] for stage in config['stages']}
    facts = {
        'command': without_paths(start['command']),
        'revision': start.get('revision', ''),
        'date': start['date'],
        'device': f'{start["device"]}, {start["machine"]}',
        'seconds': taken,
        'updates': ', '.join(f'{name} {count}' for name, count in updates.items() if count),
        'scenes': f'{config["scenes"]} of {config["scene_seconds"]:g} s for training, '
        f'{len(scenes)} of {config["eval_seconds"]:g} s held out',
        'seed': config['seed'],
        'watermark': f'sounds of teacher and student are marked with the {mark}',
        'settings': f'all of them: {RUN_NAME}; all metrics: results.json',
    }
    write_report(
        workdir / 'report.html',
        'Distilled: fewer steps against the teacher',
        clips,
        summary.sentences,
        [t for t in (summary.figures, summary.differences) if t],
        summary.warnings,
        facts,
        'Lines in the spectrograms: solid where an event was asked to begin, dashed where to end. '
        'Mel scale from 0 to 24 kHz, -100 to -20 dB. Every sound is played at '
        f'{PLAYED_LUFS:g} LUFS; samples/ and all metrics have the level that the decoder gave.',
    )


def _stage_name(stage: Mapping[str, Any]) -> str:
    """The name of a stage, or that of its recipe."""
    recipe = stage['recipe']
    return stage.get('name') or (recipe if isinstance(recipe, str) else ' + '.join(recipe))
