"""All recipes on one teacher: the same start, data, seeds and budget; see configs/one_recipe.py.

    python -m experiments.compare_recipes --config=configs/recipes.py --workdir=runs/recipes

Variants: `:gpu`, longer, for a GPU; `:test`, seconds.

Cost, result: docs/recipes.md.
"""

import ml_collections

from configs.one_recipe import RECIPES


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.recipes = tuple(RECIPES)
    config.suffix = ''  # of the variants of configs/one_recipe.py
    config.rates = (2e-4, 8e-4)  # learning rates tried for each recipe, on a seed of their own
    config.tuning_updates = 60
    config.tuning_scenes = 24
    config.tuning_seed = 100
    config.seeds = (1, 2, 3)  # of the runs that are reported: data, noise and scenes
    config.updates = 240  # of every recipe, for the comparison at equal updates
    config.seconds = 120.0  # of training, without compilation, for that at equal time
    config.budgets = ('seconds',)  # 'updates', 'seconds' or both
    config.scenes = 48  # held out, of each seed
    if variant == 'gpu':
        config.tuning_updates, config.updates, config.seconds = 1_000, 6_000, 300.0
        config.budgets = ('updates', 'seconds')
        config.scenes = 256
    elif variant == 'test':
        config.suffix = ',test'
        config.recipes = ('consistency', 'shortcut')
        config.rates = (2e-4,)
        config.tuning_updates, config.updates, config.seconds = 2, 2, 0.2
        config.tuning_scenes = config.scenes = 2
        config.seeds = (1,)
        config.budgets = ('updates',)
    elif variant:
        raise ValueError(f'no variant {variant!r} of this config; there are :gpu and :test')
    return config.lock()
