"""The main job: distils the teacher of release `foley` to 8, 4, 2 and 1 steps in ten minutes.

    python -m experiments.distill --config=configs/foley_distill.py [--recordings=DIR] --workdir=DIR

Reproduces: the main job's table in docs/results.md. The shipped student cannot be made again by one
command: eight runs, partly scripts, led to it (docs/trials/foley-release.md).

Variants: `:release`, more updates and evaluation scenes; `:gpu`, batches for a GPU in bfloat16;
`:test`, seconds.

Cost: docs/results.md, with device and date. Result: docs/results.md.
"""

import ml_collections


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.scenes = 384  # encoded once
    config.scene_seconds = 5.0
    config.foley_weight = 0.4  # share of procedural sounds, where there are recordings
    config.crop_seconds = 5.0  # shortest crop; at least half of a batch is whole scenes
    config.batch_size = 16
    # Of the network's products in training; None is float32.
    config.dtype = ml_collections.config_dict.placeholder(str)
    config.guidance_range = (1.0, 4.0)  # scales folded into the student
    config.absence = ml_collections.ConfigDict(
        dict(text=0.1, timeline=0.15, loudness=0.15, init=0.15)
    )
    config.onset_weight = 4.0  # weight of the frames around each onset in the loss
    config.rank = 0  # of a low-rank adapter to train; 0: the whole network
    config.progressive = ml_collections.ConfigDict()
    # Student steps of each stage; the first folds the guidance in.
    config.progressive.steps = (64, 32, 16, 8, 4)
    config.progressive.updates = 12  # per stage
    config.progressive.learning_rate = 3e-4
    config.consistency = ml_collections.ConfigDict()
    config.consistency.segments = (1, 2, 4, 8)
    config.consistency.teacher_step = 1 / 32
    config.consistency.updates = 240
    config.consistency.learning_rate = 4e-4
    config.energy = ml_collections.ConfigDict()
    # One is drawn per update: one and two steps twice as often.
    config.energy.segments = (1, 1, 2, 2, 4, 8)
    config.energy.consistency_weight = 1.0
    config.energy.consistency_segments = (4, 8)
    config.energy.batch_size = 8  # items; two samples are made of each
    config.energy.updates = 0
    config.energy.learning_rate = 2e-4
    config.energy.share = 0.8  # merge weight of the student after this stage against the one before
    config.energy.frozen = ''  # regular expression of parameters that are not trained
    config.energy.recordings = 1_200  # unmixed recordings with their captions, where there are any
    config.energy.answer_steps = 12
    config.energy.answer_batch_size = 10
    config.energy.answer_recordings = False  # teacher samples for the captions of recordings, too
    config.energy.absence = ml_collections.ConfigDict(dict(text=0.08, timeline=0.25))
    config.multi_teacher = ml_collections.ConfigDict()
    config.multi_teacher.updates = 0  # updates; needs --multi_teacher
    config.multi_teacher.learning_rate = 1e-3
    # (steps, network for t > 0.5, network below), one drawn per update.
    config.multi_teacher.trajectories = ((1, 0, 0), (2, 0, 0), (4, 0, 0), (8, 0, 0))
    config.multi_teacher.frozen = ''
    config.ema_decay = 0.98
    config.log_every = 10  # updates
    config.save_every = 100
    config.calibration_scenes = 48  # training scenes for moment matching and onset lag
    config.eval_scenes = 48
    config.eval_seconds = 5.0
    config.report_prompts = 4
    if variant == 'release':
        config.scenes = 512
        config.progressive.updates = 32
        config.consistency.updates = 260
        config.energy.updates = 150
        config.eval_scenes = 64
    elif variant == 'gpu':
        config.scenes = 12_000
        config.scene_seconds = 10.0
        config.foley_weight = 0.3
        config.crop_seconds = 1.0
        config.batch_size = 128
        config.dtype = 'bfloat16'
        config.absence.timeline = 0.3
        config.progressive.updates = 150
        config.consistency.updates = 3_000
        config.energy.batch_size = 64
        config.energy.answer_batch_size = 200
        config.energy.updates = 2_000
        config.ema_decay = 0.995
        config.log_every = 100
        config.save_every = 100_000
        config.eval_scenes = 64
        config.eval_seconds = 10.0
    elif variant == 'test':
        config.scenes = 4
        config.scene_seconds = config.crop_seconds = 1.0
        config.batch_size = 2
        config.progressive.steps = (4, 2)
        config.progressive.updates = 2
        config.consistency.segments = (1, 2, 4, 8)
        config.consistency.updates = 2
        config.energy.segments = (1, 2)
        config.energy.batch_size = 2
        config.energy.updates = 2
        config.energy.recordings = 2
        config.energy.answer_steps = 2
        config.log_every = 1
        config.save_every = 2
        config.calibration_scenes = 2
        config.eval_scenes = 4
        config.eval_seconds = 1.0
        config.report_prompts = 1
    elif variant:
        raise ValueError(
            f'no variant {variant!r} of this config; there are :release, :gpu and :test'
        )
    return config.lock()
