"""One recipe after a common start, as `experiments.compare_recipes` trains it.

    python -m experiments.distill --config=configs/one_recipe.py:consistency \
        --student=runs/one_recipe_start/release

Variants: `:start`, the one without a name, guidance folded in by one progressive stage, from which
all others begin; and the names in RECIPES. `,test` behind one makes it a matter of seconds.

Cost, result: docs/recipes.md.
"""

from typing import Any

import ml_collections

from configs import foley_distill
from realaudio_jax.distillation import progressive

START = 'start'
FINEST = 64  # steps of the student that the start leaves
SAMPLES = 'teacher_samples'


def halving() -> list[dict[str, Any]]:
    """Progressive stages from the start to one step."""
    return progressive.stages((FINEST, 32, 16, 8, 4, 2, 1))[1:]


# Each recipe's stages; what is not named is as its class has it. All have the same updates in sum.
RECIPES: dict[str, list[dict[str, Any]]] = {
    'progressive': halving(),
    'consistency': [dict(recipe='consistency', teacher_step=1 / 32)],
    'shortcut': [dict(recipe='shortcut')],
    'ctm': [dict(recipe='ctm', teacher_step=1 / 32)],
    'scm': [dict(recipe='scm')],
    'mean_flow': [dict(recipe='mean_flow')],
    'dmd': [dict(recipe='dmd')],
    'arc': [dict(recipe='arc', data=SAMPLES)],
    'energy': [
        dict(
            recipe={
                'energy': dict(segments=(1, 1, 2, 2, 4, 8)),
                'consistency': dict(teacher_step=1 / 32, segments=(4, 8)),
            },
            name='energy',
            data=SAMPLES,
        )
    ],
}


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    name, *rest = {'': START, 'test': f'{START},test'}.get(variant, variant).split(',')
    if name not in (START, *RECIPES) or rest not in ([], ['test']):
        raise ValueError(
            f'no variant {variant!r} of this config; there are '
            f'{", ".join(f":{known}" for known in (START, *RECIPES))}, each with or without '
            '",test"; and :test'
        )
    config = foley_distill.get_config('test' if rest else '').unlock()
    folding = progressive.stages((FINEST,))
    stages = folding if name == START else RECIPES[name]
    updates = 240 if not rest else 2 * len(stages)
    config.stages = [
        dict(stage, updates=updates // len(stages), learning_rate=4e-4) for stage in stages
    ]
    if name == START:
        config.stages[0]['updates'] = 24 if not rest else 2
    return config.lock()
