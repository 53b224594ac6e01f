"""The denoiser at paper size, for a GPU or TPU: about 340 M parameters, 10 s of 48 kHz stereo.

    python -m experiments.train_teacher --config=configs/base_teacher.py --recordings=DIR \
        --autoencoder=runs/base_autoencoder/autoencoder.safetensors --workdir=runs/base_teacher

Not trained: no cost, no result. The tests check its shapes with `jax.eval_shape`.
"""

import ml_collections

from configs import foley_teacher


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """The settings, of a variant if one is named."""
    config = foley_teacher.get_config(variant)
    if variant != 'test':
        config.scenes = 200_000
        config.batch_seconds = 2_560.0  # 256 sounds of 10 s
        with config.unlocked():
            config.model.update(dict(width=1152, depth=20, heads=18))
        config.steps = 400_000
        config.learning_rate = 2e-4
        config.warmup_steps = 5_000
        config.ema_decay = 0.9999
        config.eval_every = config.save_every = 5_000
    return config
