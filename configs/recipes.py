"""All recipes on one teacher: the same start, data, seeds and budget; see configs/one_recipe.py.

    python -m experiments.compare_recipes --config=configs/recipes.py --workdir=runs/recipes

Variants: `:hour`, one budget, seed and learning rate, no times, for an hour beside other work;
`:gpu`, longer, for a GPU; `:test`, seconds. With --budget_s=540 a call stops after that long, and
the same command goes on.

Cost: some two hours on two cores, an estimate; `:hour`, about an hour beside other work.
Result: docs/recipes.md.
"""

import ml_collections

from configs.one_recipe import RECIPES


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """The settings, of a variant if one is named."""
    config = ml_collections.ConfigDict()
    config.recipes = tuple(RECIPES)
    config.suffix = ''  # of the variants of configs/one_recipe.py
    # Learning rates tried for each recipe, on a seed of their own.
    config.rates = (5e-5, 2e-4, 8e-4)
    config.tuning_updates = 16
    config.training_scenes = 192  # encoded once for each seed
    config.tuning_scenes = 24
    config.tuning_seed = 100
    config.seeds = (1, 2, 3)  # of the runs that are reported: data, noise and scenes
    config.updates = 20  # of every recipe, for the comparison at equal updates
    # Seconds of training, without compilation, for that at equal time: 'cpu' is of computing on all
    # cores, about two for each of the clock on two cores, and other work on the machine hardly
    # changes it; 'wall' is of the clock.
    config.clock = 'cpu'
    config.seconds = 60.0
    config.budgets = ('seconds', 'updates')
    # From which the others' differences are measured: named beforehand, so that no seed chooses it.
    config.baseline = 'consistency'
    config.scenes = 24  # held out, of each seed
    config.steps = (1, 2, 4, 8)  # of the students that are evaluated
    config.distances = ('fad', 'fad_inf', 'kad')
    config.diversity_prompts = 2
    config.times = True  # of a sound, measured last: other work on the machine spoils them
    # Of --embedder_weights, beside the release's own: none of them chooses anything here, and no
    # release has been chosen by the second.
    config.embedders = ('yamnet', 'gpvad')
    config.stop_s = 30.0  # before the end of --budget_s, in which a run saves
    if variant == 'hour':  # one recipe of each kind
        config.recipes = ('consistency', 'shortcut', 'mean_flow', 'dmd', 'arc', 'energy')
        # no choice of a rate; these updates tell what one costs, and some recipes draw their length
        config.rates, config.tuning_updates, config.tuning_seed = (4e-4,), 24, 1
        config.seeds, config.budgets, config.seconds = (1,), ('seconds',), 100.0
        config.distances, config.diversity_prompts, config.times = ('fad', 'kad'), 0, False
    elif variant == 'gpu':
        config.tuning_updates, config.updates = 1_000, 6_000
        config.clock, config.seconds = 'wall', 300.0
        config.training_scenes = 4_000
        config.scenes, config.tuning_scenes, config.diversity_prompts = 256, 64, 16
    elif variant == 'test':
        config.suffix = ',test'
        config.recipes = ('consistency', 'dmd')
        config.rates = (2e-4,)
        config.tuning_updates, config.updates, config.seconds = 3, 2, 0.2
        config.training_scenes, config.tuning_scenes, config.scenes = 4, 2, 2
        config.seeds, config.budgets = (1,), ('updates',)
        config.steps, config.distances, config.diversity_prompts = (1, 4), ('kad',), 1
        config.times = False
    elif variant:
        raise ValueError(f'no variant {variant!r} of this config; there are :hour, :gpu and :test')
    return config.lock()
