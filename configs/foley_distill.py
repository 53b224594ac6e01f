"""The main job: distils the teacher of release `foley` to 8, 4, 2 and 1 steps in ten minutes.

    python -m experiments.distill --config=configs/foley_distill.py [--recordings=DIR] --workdir=DIR

Reproduces: the main job's table in docs/results.md. The shipped student cannot be made again by one
command: eight runs, partly scripts, led to it (docs/trials/foley-release.md).

Variants: `:release`, more updates and evaluation scenes; `:gpu`, batches for a GPU in bfloat16;
`:test`, seconds. One value: `--config.stages[5].updates=400`.

Cost: docs/results.md, with device and date. Result: docs/results.md.
"""

from typing import Any

import ml_collections

from realaudio_jax.distillation import progressive


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """The settings, of a variant if one is named."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.teacher = 'release'  # of the folder or name in --release
    config.student_steps = (1, 2, 4, 8)  # that the student is calibrated for and evaluated at
    config.dataset = 'mixed'  # 'tfds' keeps its scenes as a TensorFlow dataset
    config.scenes = 384  # encoded once
    config.scene_seconds = 5.0
    config.foley_weight = 0.4  # share of procedural sounds, where there are recordings
    config.recordings = 1_200  # unmixed, with their captions, for stages that take some
    config.crop_seconds = 5.0  # shortest crop; at least half of a batch is whole scenes
    config.batch_size = 16
    # Of the network's products in training; None is float32.
    config.dtype = ml_collections.config_dict.placeholder(str)
    config.guidance_range = (1.0, 4.0)  # scales folded into the student
    config.condition_dropout = ml_collections.ConfigDict(
        dict(text=0.1, timeline=0.15, loudness=0.15, init=0.15)
    )
    config.onset_weight = 4.0  # weight of the frames around each onset in the loss
    config.rank = 0  # of a low-rank adapter to train; 0: the whole network
    config.teacher_samples = ml_collections.ConfigDict()  # data of the energy score
    config.teacher_samples.steps = 12
    config.teacher_samples.batch_size = 10
    config.teacher_samples.recordings = False  # for the captions of recordings, too
    config.teacher_samples.condition_dropout = ml_collections.ConfigDict(
        dict(text=0.08, timeline=0.25)
    )
    config.stages = stages()
    config.ema_decay = 0.98
    config.log_every = 10  # updates
    config.save_every = 100
    config.calibration_scenes = 48  # training scenes for moment matching and onset lag
    config.eval_scenes = 48
    config.eval_seconds = 5.0
    config.report_prompts = 4
    if variant == 'release':
        config.scenes = 512
        config.stages = stages(folding=32, consistency=260, energy=150)
        config.eval_scenes = 64
    elif variant == 'gpu':
        config.scenes = 12_000
        config.scene_seconds = 10.0
        config.foley_weight = 0.3
        config.crop_seconds = 1.0
        config.batch_size = 128
        config.dtype = 'bfloat16'
        config.condition_dropout.timeline = 0.3
        config.teacher_samples.batch_size = 200
        config.stages = stages(folding=150, consistency=3_000, energy=2_000, energy_batch=64)
        config.ema_decay = 0.995
        config.log_every = 100
        config.save_every = 100_000
        config.eval_scenes = 64
        config.eval_seconds = 10.0
    elif variant == 'test':
        config.student_steps = (1, 4)  # a program is compiled for each, and for its teacher
        config.scenes = 4
        config.scene_seconds = config.crop_seconds = 1.0
        config.recordings = 2
        config.batch_size = 2
        config.teacher_samples.steps = 2
        config.stages = stages((4, 2), 2, 2, 2, energy_batch=2, segments=(1, 2))
        config.log_every = 1
        config.save_every = 2
        config.calibration_scenes = config.eval_scenes = 2  # so that programs serve both
        config.eval_seconds = 1.0
        config.report_prompts = 1
    elif variant:
        raise ValueError(
            f'no variant {variant!r} of this config; there are :release, :gpu and :test'
        )
    return config.lock()


def stages(
    steps: tuple[int, ...] = (64, 32, 16, 8, 4),
    folding: int = 12,
    consistency: int = 240,
    energy: int = 0,
    energy_batch: int = 8,
    counts: tuple[int, ...] = (1, 2, 4, 8),
    segments: tuple[int, ...] = (1, 1, 2, 2, 4, 8),
    kept_segments: tuple[int, ...] = (4, 8),
    teacher_step: float = 1 / 32,
    learning_rates: tuple[float, float, float] = (3e-4, 4e-4, 2e-4),
) -> list[dict[str, Any]]:
    """Progressive stages, the first of which folds the guidance in, then consistency and energy.

    Args:
        steps: of the student after each progressive stage.
        folding, consistency, energy: updates, of each progressive stage and of the other two.
        energy_batch: items of the last; two samples are made of each.
        counts: step counts of the consistency loss, one drawn per item.
        segments: of the energy score, one drawn per update.
        kept_segments: of the consistency loss beside it.
        teacher_step: of the consistency loss.
        learning_rates: of the three.
    """
    made = progressive.stages(steps, updates=folding, learning_rate=learning_rates[0])
    kept = dict(teacher_step=teacher_step, segments=counts)
    made.append(
        dict(recipe='consistency', **kept, updates=consistency, learning_rate=learning_rates[1])
    )
    if energy:
        made.append(
            dict(
                name='energy',
                recipe={
                    'energy': dict(segments=segments),
                    'consistency': kept | dict(segments=kept_segments),
                },
                data='teacher_samples',
                batch_size=energy_batch,
                updates=energy,
                learning_rate=learning_rates[2],
                merge_weight=0.8,
            )
        )
    return made
