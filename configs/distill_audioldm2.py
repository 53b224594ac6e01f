"""AudioLDM 2 distilled to 8, 4, 2 and 1 steps in its own latents, for a GPU.

    python -m experiments.distill --config=configs/distill_audioldm2.py --teacher=DIR \
        [--recordings=DIR] --workdir=runs/distill_audioldm2

DIR holds AudioLDM 2 (base) as published (model_index.json and its folders). Scenes are mixed to
mono and encoded once by the teacher's autoencoder; captions pass its own text encoders.

The student predicts noise, as its teacher does: at t = 1, where alpha is 0.012, an error in eps is
84 times as large in x_0. The effect on one and two steps is not known.

Not run at full size: no cost, no result. `:test` distils a tiny random teacher.
"""

import ml_collections

from configs import distill_stable_audio_open


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """The settings, of a variant if one is named."""
    config = distill_stable_audio_open.get_config(variant)
    config.teacher = 'audioldm2'
    config.guidance_range = (1.0, 5.0)
    config.eval_guidance = 3.5
    if variant == 'test':
        config.stages = distill_stable_audio_open.test_stages()
    else:
        config.scene_seconds = 10.0  # up to 10.24 s, on which the teacher was trained
        config.stages = distill_stable_audio_open.stages(
            steps=(40, 20, 10, 5),  # each divides the teacher's 1,000 noise levels
            teacher_step=1 / 50,
        )
    return config
