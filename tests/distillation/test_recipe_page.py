"""The recipe that docs/recipes.md writes out works as it stands there."""

import pathlib
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import toys

from realaudio_jax.distillation import Progressive, registry

PAGE = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'recipes.md'
RECIPE, CONFIG = re.findall(r'^```python\n(.*?)^```', PAGE.read_text(), re.MULTILINE | re.DOTALL)


def run(source, name):
    module = types.ModuleType(name)
    exec(source, module.__dict__)
    return module


def test_best_student_is_where_the_teachers_steps_end():
    """For Gaussian data it is known: the product of the teacher's DDIM steps."""
    module = run(RECIPE, 'own_recipe')
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


def test_a_stage_by_dotted_path_is_the_recipe_with_its_settings(tmp_path, monkeypatch):
    (tmp_path / 'own_recipe.py').write_text(RECIPE)
    monkeypatch.syspath_prepend(tmp_path)
    first, second = run(CONFIG, 'own_config').get_config().stages
    made = []
    available = dict(
        student=toys.linear_student,
        teacher=toys.gaussian_teacher,
        path=toys.PATH,
        guidance_range=(1.0, 4.0),
        teachers=None,
    )
    for stage in (first, second):
        kept = {
            k: v
            for k, v in stage.items()
            if k not in ('name', 'updates', 'learning_rate', 'target')
        }
        made.append(registry.make(kept.pop('recipe'), available, **kept))
    assert isinstance(made[0], Progressive) and made[0].from_teacher
    assert type(made[1]).__name__ == 'KnowledgeDistillation' and made[1].teacher_steps == 16
    loss, _ = made[1].loss(0.5, None, 1.0, toys.batch(), jax.random.key(0))
    assert np.isfinite(loss).all()
