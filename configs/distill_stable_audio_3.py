"""Stable Audio 3 small distilled further, to 4, 2 and 1 steps, for a GPU: all stages.

    python -m experiments.distill --config=configs/distill_stable_audio_3.py --teacher=DIR \
        [--recordings=DIR] --workdir=runs/distill_stable_audio_3

DIR holds the model in the layout of diffusers (model_index.json and its folders). Data are scenes,
encoded once by the teacher's own autoencoder, and their captions by its own text encoder.

The published model is distilled already, to 8 steps with fresh noise and no guidance: hence no
guidance here and steps of an eighth. Its student walks even steps without fresh noise. A model that
is not distilled takes a wider `guidance_range` and more, smaller steps.

Not run at full size yet: no cost and no result to report. `:test` distils a tiny random teacher.
"""

import ml_collections

from configs import distill_stable_audio_open


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    config = distill_stable_audio_open.get_config(variant).unlock()
    config.teacher = 'stable_audio_3'
    if variant == 'test':
        config.progressive.steps = (2,)
        config.energy.updates = 0  # it compiles longest; Stable Audio Open goes through it
    else:
        config.scene_seconds = 10.0  # up to 120 s, whose length the teacher is told
        config.guidance_range = (1.0, 1.0)
        config.progressive.steps = (8, 4)
        config.consistency.segments = (1, 2, 4)
        config.consistency.teacher_step = 1 / 8
        config.energy.segments = (1, 1, 2, 2, 4)
        config.energy.consistency_segments = (4,)
        config.energy.answer_steps = 8
        config.eval_teacher_steps = 8
        config.eval_guidance = 1.0
    return config.lock()
