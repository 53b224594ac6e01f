"""Recipes by name, a name of `distillation.RECIPES` or the dotted path of a class anywhere else.

    make('scm', available, segments=(1, 4))
    make('my_package.my_recipe.MyRecipe', available)

A recipe's settings are the fields of its dataclass.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping

import jax.numpy as jnp

from realaudio_jax import by_name
from realaudio_jax.distillation import RECIPES
from realaudio_jax.distillation.recipe import Count, Recipe, WeightedSum
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


def check(name: str, settings: Mapping[str, Any]) -> type:
    """The class of a recipe that has these settings.

    Args:
        name: see `recipe_class`.
        settings: fields of the recipe.

    Raises:
        ValueError: no such recipe, a setting that it does not have, or one that is not of the type
            of its field.
    """
    recipe = recipe_class(name)
    fields = {field.name: field for field in dataclasses.fields(recipe)}
    for given, value in settings.items():
        if given not in fields:
            near = difflib.get_close_matches(given, fields, 1)
            hint = f'did you mean {near[0]!r}?' if near else f'it has {", ".join(fields)}'
            raise ValueError(f'recipe {name!r} has no setting {given!r}: {hint}')
        field = fields[given]
        if not _fits(value, field.type):
            has_default = field.default is not dataclasses.MISSING
            like = f'a value like {field.default!r}' if has_default else f'a {field.type}'
            raise ValueError(f'recipe {name!r} cannot have {given}={value!r}; give {like}')
    return recipe


def check_sum(parts: Mapping[str, Any]) -> None:
    """Refuses what `make_sum` cannot make, but for settings that are lacking.

    Raises:
        ValueError: see `check`; or no recipe, or one without settings and weight by name.
    """
    if not parts:
        raise ValueError('a sum of no recipes; name one or more')
    for name, part in parts.items():
        if not hasattr(part, 'items'):
            raise ValueError(
                f'recipe {name!r} of a sum is {part!r}; give its settings by name, such as '
                "{'weight': 0.5}"
            )
        if not _fits(part.get('weight', 1.0), float):
            raise ValueError(f'the weight of recipe {name!r} is {part["weight"]!r}; give a number')
        check(name, _without_weight(part))


def make(name: str, available: Mapping[str, Any] | None = None, **settings: Any) -> Recipe:
    """A recipe with its settings.

    Args:
        name: see `recipe_class`.
        available: what any recipe may need, such as student, teacher, path, guidance_range and
            teachers; a recipe gets those that are fields of its own and not in `settings`.
        settings: fields of the recipe. Lists become tuples. Numbers of fields that are leaves of
            the pytree become arrays: arguments of a compiled step.

    Raises:
        ValueError: see `check`; or a setting that the recipe lacks, or what its own
            `require(**values)` refuses, if it has one.
    """
    recipe = check(name, settings)
    fields = {field.name: field for field in dataclasses.fields(recipe)}
    values = {key: value for key, value in (available or {}).items() if key in fields} | settings
    required = [f.name for f in fields.values() if f.default is f.default_factory]
    missing = [key for key in required if key not in values]
    if missing:
        raise ValueError(f'recipe {name!r} needs {", ".join(missing)}')
    if hasattr(recipe, 'require'):
        recipe.require(**values)
    return recipe(**{key: _as_field(fields[key], value) for key, value in values.items()})


def make_sum(parts: Mapping[str, Any], available: Mapping[str, Any]) -> WeightedSum:
    """A weighted sum of recipes.

    Args:
        parts: by name (see `recipe_class`) the settings of each, with its 'weight' (1 if absent).
        available: see `make`.

    Raises:
        ValueError: see `make` and `check_sum`.
    """
    check_sum(parts)
    weights = {name: jnp.float32(part.get('weight', 1.0)) for name, part in parts.items()}
    recipes = {name: make(name, available, **_without_weight(part)) for name, part in parts.items()}
    return WeightedSum(weights, recipes)


def _without_weight(part: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name != 'weight'}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a setting is of the type of a field, as far as it is of numbers and tuples."""
    args = typing.get_args(kind)
    if kind is bool or kind is types.NoneType:
        return isinstance(value, kind)
    if kind is int or kind == Count:
        return type(value) is int and (kind is int or value >= 1)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in args)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or not value:
            return False
        kinds = args[:1] * len(value) if args[-1] is ... else args
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    return True


def _as_field(field: dataclasses.Field, value: Any) -> Any:
    """A setting of a config as the value of a field."""
    if isinstance(value, int | float) and field.metadata.get('pytree_node', True):
        return jnp.asarray(value, jnp.int32 if isinstance(value, int) else jnp.float32)
    return _as_tuple(value)


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list | tuple) else value
