"""Stable Audio Open distilled to 8, 4, 2 and 1 steps in its own latents, for a GPU.

    python -m experiments.distill --config=configs/distill_stable_audio_open.py --teacher=DIR \
        [--recordings=DIR] --workdir=runs/distill_stable_audio_open

DIR holds stable-audio-open-1.0 as published (model_index.json and its folders). Scenes are encoded
once by the teacher's autoencoder; captions pass its own text encoder.

Not run at full size: no cost, no result. `:test` distils a tiny random teacher.
"""

import ml_collections


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.teacher = 'stable_audio_open'
    config.seed = 0
    config.scenes = 20_000  # encoded once
    config.scene_seconds = 10.0  # silence to the end of the teacher's window of 47.55 s
    config.foley_weight = 0.2  # share of procedural sounds, where there are recordings
    config.batch_size = 16
    config.guidance_range = (1.0, 8.0)  # scales folded into the student
    config.absence = ml_collections.ConfigDict(dict(text=0.1))
    config.progressive = ml_collections.ConfigDict()
    config.progressive.steps = (64, 32, 16, 8, 4)
    config.progressive.updates = 2_000  # per stage
    config.progressive.learning_rate = 2e-5
    config.consistency = ml_collections.ConfigDict()
    config.consistency.segments = (1, 2, 4, 8)
    config.consistency.teacher_step = 1 / 64
    config.consistency.updates = 20_000
    config.consistency.learning_rate = 2e-5
    config.energy = ml_collections.ConfigDict()
    config.energy.segments = (1, 1, 2, 2, 4, 8)
    config.energy.consistency_weight = 1.0
    config.energy.consistency_segments = (4, 8)
    config.energy.batch_size = 8  # items; two samples are made of each
    config.energy.updates = 5_000
    config.energy.learning_rate = 1e-5
    config.energy.share = 0.8  # merge weight of the student after this stage against the one before
    config.energy.frozen = ''
    config.energy.answer_steps = 25  # steps of the guided teacher, sampled once for each scene
    config.energy.answer_batch_size = 10
    config.ema_decay = 0.999
    config.log_every = 50  # updates
    config.save_every = 1_000
    config.eval_scenes = 16  # sampled at once
    config.eval_teacher_steps = 50
    config.eval_guidance = 4.0
    if variant == 'test':
        config.scenes = 4
        config.scene_seconds = 1.0
        config.batch_size = 2
        config.progressive.steps = (2, 1)
        config.progressive.updates = 2
        config.consistency.segments = (2,)
        config.consistency.updates = 2
        config.energy.segments = config.energy.consistency_segments = (2,)
        config.energy.batch_size = 2
        config.energy.updates = 2
        config.energy.answer_steps = 2
        config.log_every = 1
        config.save_every = 2
        config.eval_scenes = 2
        config.eval_teacher_steps = 2
    elif variant:
        raise ValueError(f'no variant {variant!r} of this config; there is :test')
    return config.lock()
