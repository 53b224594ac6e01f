"""All distillation stages at paper size, for a GPU or TPU.

    python -m experiments.distill --config=configs/base_distill.py --release=DIR --recordings=DIR \
        --workdir=runs/base_distill

Not run: no cost, no result. The tests check its shapes with `jax.eval_shape`.
"""

import ml_collections

from configs import foley_distill


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """The settings, of a variant if one is named."""
    config = foley_distill.get_config(variant)
    if variant != 'test':
        config.scenes = 100_000
        config.scene_seconds = 10.0
        config.batch_size = 256
        config.stages = foley_distill.stages(
            folding=10_000,
            consistency=50_000,
            teacher_step=1 / 64,
            learning_rates=(1e-4, 1e-4, 1e-4),
        )
        config.ema_decay = 0.999
        config.save_every = 2_000
        config.eval_scenes = 1_000
        config.eval_seconds = 10.0
    return config
