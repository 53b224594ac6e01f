"""The recipe that docs/recipes.md writes out works as it stands there."""

import pathlib
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import toys

PAGE = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'recipes.md'


def test_best_student_is_where_the_teachers_steps_end():
    """For Gaussian data it is known: the product of the teacher's DDIM steps."""
    (source,) = re.findall(r'^```python\n(.*?)^```', PAGE.read_text(), re.MULTILINE | re.DOTALL)
    module = types.ModuleType('own_recipe')
    exec(source, module.__dict__)
    steps = 5
    recipe = module.KnowledgeDistillation(
        toys.linear_student, toys.gaussian_teacher, toys.PATHS['cosine'], steps
    )
    grid = np.linspace(1, 0, steps + 1)
    best = np.prod([toys.ddim_factor(t, s) for t, s in zip(grid, grid[1:], strict=False)])

    @jax.jit
    @jax.value_and_grad
    def loss(student):
        found, _ = recipe.loss(student, None, 1.0, toys.batch(), jax.random.key(0))
        return jnp.mean(found)

    value, slope = loss(jnp.float32(best))
    assert value < 1e-9 and abs(slope) < 1e-5
    assert loss(jnp.float32(best + 0.1))[0] > 1e-3
