"""The autoencoder at paper size, for a GPU or TPU: about 90 M parameters, 48 kHz stereo.

    python -m experiments.train_autoencoder --config=configs/base_autoencoder.py \
        --recordings=DIR --workdir=runs/base_autoencoder

Not trained: no cost, no result. The tests check its shapes with `jax.eval_shape`.
"""

import ml_collections

from configs import foley_autoencoder


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """The settings, of a variant if one is named."""
    config = foley_autoencoder.get_config(variant)
    if variant != 'test':
        config.batch_size = 64
        config.crop_latents = 50  # latent frames, 2 s
        with config.unlocked():
            config.model.decoder.update(dict(width=1536, blocks=6, directions=896))
            config.model.channels = 128  # behind 64 a wider decoder has little more to say
        config.pool_batches = 600  # 38,400 crops, 3.9 GB of levels
        config.likelihood_steps = 200_000
        config.adversarial_steps = 400_000
        config.learning_rate = 3e-4
        config.warmup_steps = 2_000
        config.ema_decay = 0.9999
        config.eval_every = config.save_every = 5_000
    return config
