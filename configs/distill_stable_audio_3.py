"""Stable Audio 3 small distilled further, to 4, 2 and 1 steps, for a GPU.

    python -m experiments.distill --config=configs/distill_stable_audio_3.py --teacher=DIR \
        [--recordings=DIR] --workdir=runs/distill_stable_audio_3

DIR holds the model in the layout of diffusers (model_index.json and its folders). Scenes are
encoded once by the teacher's autoencoder; captions pass its own text encoder.

The published model is itself distilled, to 8 steps with fresh noise and without guidance: hence a
guidance range of 1 and teacher steps of 1/8. The student takes even steps without fresh noise.

Not run at full size: no cost, no result. `:test` distils a tiny random teacher.
"""

import ml_collections

from configs import distill_stable_audio_open


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """The settings, of a variant if one is named."""
    config = distill_stable_audio_open.get_config(variant)
    config.teacher = 'stable_audio_3'
    if variant == 'test':
        config.stages = distill_stable_audio_open.test_stages()
    else:
        config.student_steps = (1, 2, 4)
        config.scene_seconds = 10.0  # up to 120 s; the teacher takes the duration as an input
        config.guidance_range = (1.0, 1.0)
        config.teacher_samples.steps = 8
        config.stages = distill_stable_audio_open.stages(
            steps=(8, 4),
            counts=(1, 2, 4),
            segments=(1, 1, 2, 2, 4),
            kept_segments=(4,),
            teacher_step=1 / 8,
        )
        config.eval_teacher_steps = 8
        config.eval_guidance = 1.0
    return config
