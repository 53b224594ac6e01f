"""The teacher of the `foley` release: text and timeline to latents, sampled with 50 DDIM steps.

Reproduces: `teacher.safetensors` in `realaudio_jax/releases/foley`.

    python -m experiments.train_teacher --config=configs/foley_teacher.py \
        --autoencoder=FILE --recordings=DIR --workdir=runs/foley_teacher

Cost: 26 minutes for 2,000 steps on two CPU cores shared with other work, held-out loss 0.368.
Then, with
`--init=FILE --config.scenes=1500 --config.seed=11 --config.steps=1000 --config.learning_rate=5e-4
--config.warmup_steps=100 --config.ema_decay=0.998`, another 22 minutes, shared too; held-out loss
on other scenes after 100, 300, 500, 700, 1,000 steps: 0.336, 0.325, 0.315, 0.310, 0.306. It was
still falling. The figures of its sound are in the README.
"""

import ml_collections


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.scenes = 2_500  # encoded once
    config.scene_seconds = 10.0
    config.foley_weight = 0.4  # share of sounds from procedural foley
    config.batch_seconds = 160.0  # seconds of sound in a batch, whatever the length of its crops
    config.model = ml_collections.ConfigDict(dict(width=256, depth=8, heads=4))
    config.absence = ml_collections.ConfigDict(
        dict(text=0.1, timeline=0.15, loudness=0.15, init=0.15)
    )
    config.steps = 1_200
    config.optimizer = 'muon'  # or 'adamw'
    config.learning_rate = 1e-3
    config.warmup_steps = 50
    config.ema_decay = 0.995
    config.log_every = 50  # steps
    config.eval_every = 200
    config.save_every = 200
    if variant == 'test':
        config.scenes = 4
        config.scene_seconds = 2.0
        config.batch_seconds = 4.0
        config.model.update(dict(width=16, depth=1, heads=2))
        config.steps = 4
        config.warmup_steps = 1
        config.log_every = config.eval_every = config.save_every = 2
    elif variant:
        raise ValueError(f'no variant {variant!r} of this config; there is :test')
    return config.lock()
