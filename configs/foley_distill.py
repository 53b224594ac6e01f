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
    config.foley_weight = 0.4  # share of sounds from procedural foley, where there are recordings
    config.crop_seconds = 5.0  # the shortest crops; whole scenes at least half of a batch
    config.batch_size = 16
    config.dtype = ml_collections.config_dict.placeholder(str)  # of training's products; float32
    config.guidance_range = (1.0, 4.0)  # scales folded into the student
    config.absence = ml_collections.ConfigDict(
        dict(text=0.1, timeline=0.15, loudness=0.15, init=0.15)
    )
    config.onset_weight = 4.0  # of the frames around the onset of an event
    config.rank = 0  # of an adapter, all that is trained then; 0: the whole network
    config.progressive = ml_collections.ConfigDict()
    config.progressive.steps = (
        64,
        32,
        16,
        8,
        4,
    )  # sampling steps; guidance is folded in at the first
    config.progressive.updates = 8  # per stage
    config.progressive.learning_rate = 3e-4
    config.consistency = ml_collections.ConfigDict()
    config.consistency.segments = (1, 2, 4, 8)
    config.consistency.teacher_step = 1 / 32
    config.consistency.updates = 80
    config.consistency.learning_rate = 4e-4
    config.energy = ml_collections.ConfigDict()
    config.energy.segments = (1, 1, 2, 2, 4, 8)  # drawn evenly: one and two steps twice as often
    config.energy.consistency_weight = 1.0
    config.energy.consistency_segments = (4, 8)
    config.energy.batch_size = 8  # two samples of each
    config.energy.updates = 0
    config.energy.learning_rate = 2e-4
    config.energy.share = 0.8  # of the student after this stage, the rest of the one before it
    config.energy.frozen = ''  # names of parameters that stay as they are
    config.energy.recordings = 1_200  # as they are, by their caption alone; where there are any
    config.energy.answer_steps = 12
    config.energy.answer_batch_size = 10
    config.energy.answer_recordings = False  # captions of recordings, too
    config.energy.absence = ml_collections.ConfigDict(dict(text=0.08, timeline=0.25))
    config.imitation = ml_collections.ConfigDict()
    config.imitation.updates = 0  # of --experts
    config.imitation.learning_rate = 1e-3
    config.imitation.walks = ((1, 0, 0), (2, 0, 0), (4, 0, 0), (8, 0, 0))  # see the recipe
    config.imitation.frozen = ''
    config.ema_decay = 0.98
    config.log_every = 10  # updates
    config.save_every = 100
    config.calibration_scenes = 48  # of the training split, for moments and the lead of onsets
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
