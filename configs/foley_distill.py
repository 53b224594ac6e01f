"""The main job: the `foley` teacher distilled to 8, 4, 2 and 1 steps in ten minutes on two cores.

    python -m experiments.distill --config=configs/foley_distill.py [--recordings=DIR] --workdir=DIR

With `:release` it is the first of three runs that made the shipped `student.safetensors`: more
updates of the same recipes and more evaluation scenes. The second went on from it with crops of 4
to 10 s, for the first had seen 5 s alone:

    python -m experiments.distill --config=configs/foley_distill.py --recordings=DIR \
        --student=FIRST/student.safetensors --config.scenes=1200 --config.scene_seconds=10 \
        --config.crop_seconds=4 --config.foley_weight=0.3 --config.progressive.updates=0 \
        --config.consistency.updates=280 --config.consistency.learning_rate=3e-4

The third (2026-11-27) went on from the second, with the third teacher of configs/foley_teacher.py:

    python -m experiments.distill --config=configs/foley_distill.py --recordings=DIR \
        --release=DIR_WITH_THAT_TEACHER --student=SECOND/student.safetensors \
        --config.scenes=2500 --config.scene_seconds=10 --config.crop_seconds=4 \
        --config.foley_weight=0.3 --config.absence.timeline=0.35 \
        --config.progressive.updates=0 --config.consistency.updates=900 \
        --config.eval_seconds=10 --embedder_weights=DIR

Cost of the default on two CPU cores: 427 to 459 s from foley alone, 397 to 486 s with
recordings and YAMNet (training 200 s of it); the machine has been half as fast on other days.
`:release` took some 25 minutes beside other work, the second run 15. It brought the student from
1.44, 1.30, 1.94 and 2.60 of the teacher's Frechet distance at 10 s, with 8, 4, 2 and 1 steps, to
1.08, 1.07, 1.76 and 2.00. The third took 30 minutes, 1.9 s an update; of its teacher, a better
one, it stands at 1.02, 1.10, 1.50 and 2.48: one step alone lost. Result: README. `:gpu` is written
for a GPU and has not been run.
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
    config.energy.batch_size = 8  # two samples of each
    config.energy.updates = 40
    config.energy.learning_rate = 2e-4
    config.energy.answer_steps = 12
    config.energy.absence = ml_collections.ConfigDict(dict(text=0.08, timeline=0.25))
    config.ema_decay = 0.98
    config.log_every = 10  # updates
    config.save_every = 100
    config.calibration_scenes = 48  # of the training split, for the lead of onsets
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
