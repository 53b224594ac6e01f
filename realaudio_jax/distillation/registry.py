"""Recipes by name, a name of `distillation.RECIPES` or the dotted path of a class anywhere else.

    make('scm', available, segments=(1, 4))
    make('my_package.my_recipe.MyRecipe', available)

A recipe's settings are the fields of its dataclass.
"""

import dataclasses
import difflib
from collections.abc import Mapping

import jax.numpy as jnp

from realaudio_jax import by_name
from realaudio_jax.distillation import RECIPES
from realaudio_jax.distillation.recipe import Recipe, WeightedSum
from realaudio_jax.typing import Any


def recipe_class(name: str) -> type:
    """The class of a recipe; see `by_name.find`.

    Raises:
        ValueError: there is no such recipe.
    """
    recipe = by_name.find(name, RECIPES, 'recipe')
    if not (isinstance(recipe, type) and dataclasses.is_dataclass(recipe)) or not hasattr(
        recipe, 'loss'
    ):
        raise ValueError(f'no recipe {name!r}: it is no dataclass with a method `loss`')
    return recipe


def make(name: str, available: Mapping[str, Any] | None = None, **settings: Any) -> Recipe:
    """A recipe with its settings.

    Args:
        name: see `recipe_class`.
        available: what any recipe may need, such as student, teacher, path, guidance_range and
            teachers; a recipe gets those that are fields of its own and not in `settings`.
        settings: fields of the recipe. Lists become tuples. Numbers of fields that are leaves of
            the pytree become arrays: arguments of a compiled step.

    Raises:
        ValueError: no such recipe, a setting that it does not have, or one that it lacks; or what
            the recipe's own `require(**values)` refuses, if it has one.
    """
    recipe = recipe_class(name)
    fields = {field.name: field for field in dataclasses.fields(recipe)}
    for given in settings:
        if given not in fields:
            near = difflib.get_close_matches(given, fields, 1)
            hint = f'did you mean {near[0]!r}?' if near else f'it has {", ".join(fields)}'
            raise ValueError(f'recipe {name!r} has no setting {given!r}: {hint}')
    values = {key: value for key, value in (available or {}).items() if key in fields} | settings
    required = [f.name for f in fields.values() if f.default is f.default_factory]
    missing = [key for key in required if key not in values]
    if missing:
        raise ValueError(f'recipe {name!r} needs {", ".join(missing)}')
    if hasattr(recipe, 'require'):
        recipe.require(**values)
    return recipe(**{key: _as_field(fields[key], value) for key, value in values.items()})


def make_sum(parts: Mapping[str, Mapping[str, Any]], available: Mapping[str, Any]) -> WeightedSum:
    """A weighted sum of recipes.

    Args:
        parts: by name (see `recipe_class`) the settings of each, with its 'weight' (1 if absent).
        available: see `make`.

    Raises:
        ValueError: see `make`.
    """
    weights = {name: jnp.float32(part.get('weight', 1.0)) for name, part in parts.items()}
    recipes = {
        name: make(name, available, **{k: v for k, v in part.items() if k != 'weight'})
        for name, part in parts.items()
    }
    return WeightedSum(weights, recipes)


def _as_field(field: dataclasses.Field, value: Any) -> Any:
    """A setting of a config as the value of a field."""
    if isinstance(value, int | float) and field.metadata.get('pytree_node', True):
        return jnp.asarray(value, jnp.int32 if isinstance(value, int) else jnp.float32)
    return _as_tuple(value)


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list | tuple) else value
