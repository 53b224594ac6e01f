"""Calibration and evaluation of a distillation run, each a function of its folder alone.

`experiments.distill` calls `finish_run` after training; `experiments.evaluate --run=DIR` calls it
again, without training. All it needs is in the folder: `run.json` with the config, and `release/`.
"""

import dataclasses
import json
import pathlib
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import audio as audio_lib
from realaudio_jax.data.prepared import scene_source
from realaudio_jax.data.scenes import Scene, make_scenes
from realaudio_jax.generator import Generator
from realaudio_jax.integrity import digest
from realaudio_jax.io import atomic_path, write_audio
from realaudio_jax.metrics.calibration import calibrate_moments, calibrate_onsets
from realaudio_jax.metrics.cost import latency_row
from realaudio_jax.metrics.evaluation import Made, evaluate
from realaudio_jax.metrics.figures import ENOUGH_CLIPS
from realaudio_jax.metrics.judges import held_out_scenes, load_judges
from realaudio_jax.metrics.results import write_results
from realaudio_jax.metrics.setting import REFERENCE, Setting, equal_evaluations
from realaudio_jax.metrics.summary import Summary, summarise
from realaudio_jax.packing import save_params
from realaudio_jax.release import MOMENTS_NAME, STUDENT_NAME, load_moments
from realaudio_jax.release_config import ReleaseConfig
from realaudio_jax.report import ReportClip, plot_spectrogram, without_paths, write_report
from realaudio_jax.training.loop import Progress, print_to_stderr, stop_says
from realaudio_jax.training.run_folder import RUN_NAME, read_run
from realaudio_jax.typing import SAMPLE_RATE

# In the folder of a run.
RELEASE, SECONDS, CALIBRATION = 'release', 'seconds.json', 'calibration.json'
PLAYED_LUFS = -23.0  # of the report's players: EBU R 128
_MOST_DB = 40.0  # that a player is raised by: silence stays silent


def finish_run(
    workdir: pathlib.Path,
    embedder_weights: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Summary:
    """What follows training: calibration, evaluation and the report; see the two functions below.

    A stop says what is kept, and how to go on.
    """
    weights = f' --embedder_weights={shlex.quote(embedder_weights)}' if embedder_weights else ''
    run = f'{shlex.quote(str(workdir))}{weights}'
    calibrated = False

    def kept() -> str:
        done = 'the student and its calibration are' if calibrated else 'the student is'
        return f'stopped; {done} kept: go on with python -m experiments.evaluate --run={run}'

    with stop_says(kept):
        calibrate_run(workdir)
        calibrated = True
        return evaluate_run(workdir, embedder_weights, changes)


def calibrate_run(workdir: pathlib.Path) -> None:
    """Moments and onset compensation of a run's student, measured on scenes of the training split.

    They are kept in `calibration.json` of the run, and not measured again for the same student.

    Args:
        workdir: of a finished `experiments.distill`.

    Raises:
        FileNotFoundError: there is no such run, or it has no release yet.
    """
    run, release = _finished(workdir)
    config, begin = run['config'], time.monotonic()
    settings = {name: config[name] for name in ('seed', 'calibration_scenes', 'eval_seconds')}
    measured_for = settings | {'student': digest(release / STUDENT_NAME)}
    path = pathlib.Path(workdir) / CALIBRATION
    kept = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
    if kept.get('measured_for') == measured_for:
        moments = jax.tree.map(np.float32, kept['moments'], is_leaf=lambda x: isinstance(x, list))
        save_params(release / MOMENTS_NAME, moments)
        given = dataclasses.replace(ReleaseConfig.read(release), onset_lead_s=kept['onset_lead_s'])
        given.write(release)
        print_to_stderr(f'calibration is that of {path}')
        return
    source = scene_source(run['inputs']['recordings'], config['foley_weight'], 'train')
    scenes = list(
        make_scenes(config['seed'], source, config['calibration_scenes'], config['eval_seconds'])
    )
    # measured anew, not on top of an earlier calibration
    dataclasses.replace(ReleaseConfig.read(release), onset_lead_s=0.0).write(release)
    few = Setting('student', min(4, max(config['consistency']['segments'])))
    counts = len(ReleaseConfig.read(release).student.steps) + 1  # and the teacher
    with Progress((counts + 1) * len(scenes), 'calibration') as progress:
        calibrate_moments(release, scenes, config['seed'], progress.update)
        lead = calibrate_onsets(
            release,
            scenes,
            few,
            config['seed'],
            lambda n: progress.update(counts * len(scenes) + n),
        )
    found = {
        'measured_for': measured_for,
        'onset_lead_s': lead,
        'moments': jax.tree.map(np.ndarray.tolist, jax.device_get(load_moments(release))),
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(found), encoding='utf-8')
    record_seconds(workdir, 'calibration', time.monotonic() - begin)


def evaluate_run(
    workdir: pathlib.Path,
    embedder_weights: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Summary:
    """Figures of a run's student and teacher on held-out scenes, samples and the report page.

    Writes `results.json`, `results.md`, `samples/`, `spectrogram.png` and `report.html`.

    Args:
        workdir: of a finished `experiments.distill`.
        embedder_weights: folder of YAMNet weights, for an independent judge.
        changes: of the run's settings for its evaluation: seed, eval_scenes, eval_seconds.

    Returns:
        What came out, as text and tables.

    Raises:
        FileNotFoundError: there is no such run, or it has no release yet.
    """
    run, release = _finished(workdir)
    config, begin = run['config'] | dict(changes or {}), time.monotonic()
    seconds, seed = config['eval_seconds'], config['seed']
    recordings = run['inputs']['recordings']
    generator = Generator(release)
    tower, embedders = load_judges(release, embedder_weights)
    scenes, others = held_out_scenes(recordings, config['eval_scenes'], seconds, seed)
    students = [Setting('student', steps) for steps in config['consistency']['segments']]
    equal = equal_evaluations(students)
    teachers = [teacher for _, teacher in equal] + [REFERENCE]
    few = min(students, key=lambda setting: abs(setting.steps - 4))
    distances = ['kad']
    if len(scenes) >= ENOUGH_CLIPS['Frechet distance']:
        distances.append('fad')
    shown: dict[Setting, list[np.ndarray]] = {}

    def keep(setting: Setting, made: Made) -> None:
        shown[setting] = made.sounds[: config['report_prompts']]

    comparisons = [*equal, (few, REFERENCE)]
    timed = (few, REFERENCE)
    sounds = len(scenes) * (len(students) + len(teachers) + 2)
    print_to_stderr(
        f'evaluation: {len(scenes)} held-out scenes, then differences, times of one sound and the '
        'report; programs are compiled on the way'
    )
    with Progress(sounds + len(comparisons) + len(timed) + 1, 'evaluation') as progress:
        finished: dict[str, int] = {}

        def say(label: str, done: int, total: int) -> None:
            finished[label] = done
            progress.update(sum(finished.values()))

        rows = evaluate(
            generator,
            scenes,
            [*students, *teachers],
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
        for i, setting in enumerate(timed, 1):
            rows.append(latency_row(generator, scenes[0], setting))
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
        order = [REFERENCE, *students]
        _write_page(workdir, run, config, summary, scenes, {s: shown[s] for s in order}, few)
        say('report', 1, 1)
    return summary


def record_seconds(workdir: pathlib.Path, step: str, seconds: float, add: bool = False) -> None:
    """Keeps how long a step of a run took.

    Args:
        workdir: of the run.
        step: 'training', 'calibration' or 'evaluation'.
        seconds: wall time.
        add: to what was kept, as for a training that goes on.
    """
    path = workdir / SECONDS
    kept = _seconds(workdir)
    kept[step] = round(seconds + (kept.get(step, 0.0) if add else 0.0), 1)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(kept), encoding='utf-8')


def _seconds(workdir: pathlib.Path) -> dict[str, float]:
    path = workdir / SECONDS
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}


def _finished(workdir: pathlib.Path) -> tuple[dict[str, Any], pathlib.Path]:
    """What a run folder says of itself, and its release."""
    workdir = pathlib.Path(workdir)
    run = read_run(workdir)
    if run is None or 'consistency' not in run['config']:
        raise FileNotFoundError(
            f'{workdir} is no run of experiments.distill: it has no {RUN_NAME} of one'
        )
    if not (workdir / RELEASE / 'config.json').is_file():
        raise FileNotFoundError(
            f'{workdir} has no finished student; give experiments.distill the same command again '
            'and it goes on'
        )
    return run, workdir / RELEASE


def _write_page(
    workdir: pathlib.Path,
    run: Mapping[str, Any],
    config: Mapping[str, Any],
    summary: Summary,
    scenes: Sequence[Scene],
    shown: Mapping[Setting, Sequence[np.ndarray]],
    few: Setting,
) -> None:
    """Samples, one spectrogram, and the report."""
    clips = []
    for i, scene in enumerate(scenes[: config['report_prompts']]):
        sounds = {'real': scene.audio}
        sounds |= {s.label: audio_lib.from_pcm16(made[i]) for s, made in shown.items()}
        for label, sound in sounds.items():
            name = f'{i}-{label.replace(", ", "-").replace(" ", "-")}.wav'
            write_audio(workdir / 'samples' / name, sound, SAMPLE_RATE)
            clips.append(
                ReportClip(scene.caption, label, _played(sound), SAMPLE_RATE, scene.events)
            )
    plot_spectrogram(
        workdir / 'spectrogram.png', shown[few][0], SAMPLE_RATE, scenes[0].events, scenes[0].caption
    )
    start = run['starts'][-1]
    taken = ', '.join(f'{step} {seconds:.0f}' for step, seconds in _seconds(workdir).items())
    updates = {name: c['updates'] for name, c in config.items() if 'updates' in _dict(c)}
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
        'settings': f'all of them: {RUN_NAME}; all figures: results.json',
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
        f'{PLAYED_LUFS:g} LUFS; samples/ and all figures have the level that the decoder gave.',
    )


def _dict(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def _played(sound: np.ndarray) -> np.ndarray:
    """A sound at the level of the report's players."""
    batch = jnp.asarray(sound, jnp.float32)[None]
    change_db = min(PLAYED_LUFS - float(audio_lib.loudness_lufs(batch, SAMPLE_RATE)[0]), _MOST_DB)
    louder = batch * 10 ** (change_db / 20)
    return jax.device_get(audio_lib.limit(louder, SAMPLE_RATE))[0]
