"""Stable Audio Open distilled to 8, 4, 2 and 1 steps in its own latents, for a GPU.

    python -m experiments.distill --config=configs/distill_stable_audio_open.py --teacher=DIR \
        [--recordings=DIR] --workdir=runs/distill_stable_audio_open

DIR holds stable-audio-open-1.0 as published (model_index.json and its folders). Scenes are encoded
once by the teacher's autoencoder; captions pass its own text encoder. `--config.rank=16` trains
low-rank adapters alone, for a device that holds no optimizer of a billion parameters.

Not run at full size: no cost, no result. `:test` distils a tiny random teacher.
"""

from typing import Any

import ml_collections

from configs import foley_distill


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """The settings, of a variant if one is named."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.teacher = 'stable_audio_open'
    config.student_steps = (1, 2, 4, 8)
    config.dataset = 'mixed'
    config.scenes = 20_000  # encoded once
    config.scene_seconds = 10.0  # silence to the end of the teacher's window of 47.55 s
    config.foley_weight = 0.2  # share of procedural sounds, where there are recordings
    config.recordings = 0  # unmixed, with their captions, for stages that take some
    config.crop_seconds = ml_collections.config_dict.placeholder(float)  # None: whole scenes
    config.batch_size = 16
    config.dtype = 'float32'  # of the teacher's parameters
    config.guidance_range = (1.0, 8.0)  # scales folded into the student
    config.condition_dropout = ml_collections.ConfigDict(dict(text=0.1))
    config.onset_weight = 1.0  # the teacher has no timeline
    config.rank = 0  # of a low-rank adapter to train; 0: the whole network
    config.teacher_samples = ml_collections.ConfigDict()
    config.teacher_samples.steps = 25
    config.teacher_samples.batch_size = 10
    config.teacher_samples.recordings = False
    config.teacher_samples.condition_dropout = ml_collections.ConfigDict(dict(text=0.0))
    config.stages = stages()
    config.ema_decay = 0.999
    config.log_every = 50  # updates
    config.save_every = 1_000
    config.eval_scenes = 16  # sampled at once
    config.eval_teacher_steps = 50
    config.eval_guidance = 4.0
    if variant == 'test':
        config.student_steps = (2,)
        config.scenes = 4
        config.scene_seconds = 1.0
        config.batch_size = 2
        config.teacher_samples.steps = 2
        config.stages = test_stages(energy=2)
        config.log_every = 1
        config.save_every = 2
        config.eval_scenes = 2
        config.eval_teacher_steps = 2
    elif variant:
        raise ValueError(f'no variant {variant!r} of this config; there is :test')
    return config.lock()


def stages(**changes: Any) -> list[dict[str, Any]]:
    """`foley_distill.stages` at the rates and updates of a billion parameters."""
    settings = dict(
        folding=2_000,
        consistency=20_000,
        energy=5_000,
        teacher_step=1 / 64,
        learning_rates=(2e-5, 2e-5, 1e-5),
    )
    return foley_distill.stages(**settings | changes)


def test_stages(energy: int = 0) -> list[dict[str, Any]]:
    """Two updates each; the energy stage is slowest to compile."""
    changes = dict(energy_batch=2, counts=(2,), segments=(2,), kept_segments=(2,))
    return stages(steps=(2,), folding=2, consistency=2, energy=energy, **changes)
