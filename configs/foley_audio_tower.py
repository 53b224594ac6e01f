"""The audio tower of release `foley`: an embedder for Frechet distance and prompt similarity.

    python -m experiments.train_audio_tower --config=configs/foley_audio_tower.py \
        --recordings=DIR --workdir=runs/foley_audio_tower

Reproduces: `audio_tower.safetensors` in `realaudio_jax/releases/foley`. Cost and result of the
shipped weights were not recorded. It is trained with the release, so it is no independent
evaluator.
"""

import ml_collections


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """The settings, of a variant if one is named."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.scenes = 6_000  # rendered once as log-mel
    config.scene_seconds = 5.0
    config.held_out = 256
    config.foley_weight = 0.4  # share of procedural sounds
    config.batch_size = 128
    config.model = ml_collections.ConfigDict(
        dict(width=192, blocks=2, deep_width=288, deep_blocks=3)
    )
    config.gain_db = 6.0  # augmentation: random level, plus or minus
    config.steps = 800
    config.learning_rate = 1e-3
    config.weight_decay = 0.05
    config.warmup_steps = 50
    config.ema_decay = 0.99
    config.log_every = 20  # steps
    config.eval_every = 100
    config.save_every = 200
    if variant == 'test':
        config.scenes = config.held_out = config.batch_size = 4
        config.scene_seconds = 1.0
        config.model.update(dict(width=16, blocks=1, deep_width=16, deep_blocks=1))
        config.steps = 4
        config.warmup_steps = 1
        config.log_every = config.eval_every = config.save_every = 2
    elif variant:
        raise ValueError(f'no variant {variant!r} of this config; there is :test')
    return config.lock()
