"""The stages of a distillation: what `config.stages` lists, checked and with their recipes made.

Mistakes in the settings are found by `stage_settings`, before any network is loaded.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from realaudio_jax.distillation import registry
from realaudio_jax.distillation.recipe import Recipe
from realaudio_jax.distillation.setup import DistillationSetup

# Data of a stage: mixed scenes; these and unmixed recordings, where there are any; or what the
# guided teacher samples for the conditions of the scenes, and the recordings.
DATA = SCENES, WITH_RECORDINGS, SAMPLES = 'scenes', 'scenes_and_recordings', 'teacher_samples'


# Kind, smallest and largest value of the numbers of a stage.
_RANGES = {
    'updates': (int, 0, math.inf),
    'learning_rate': (int | float, 0, 1),
    'batch_size': (int, 1, math.inf),
    'merge_weight': (int | float, 0, 1),
}


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of the run: a recipe, how many updates, at which learning rate, on which data."""

    name: str
    updates: int
    learning_rate: float
    data: str
    batch_size: int
    target_is_average: bool  # else the student as it was when the stage began
    merge_weight: float  # of the student after the stage against the one before it
    frozen: str  # what stays as it was: a regular expression of parameters' names; '': nothing
    recipe: Recipe

    @property
    def batches(self) -> str:
        """Name of its batches in `StageData`: stages on the same data continue one another's."""
        return f'{self.data}, {self.batch_size}'


def plan(config, setup: DistillationSetup) -> list[Stage]:
    """The stages of `config.stages`, each a dict:

        recipe: name or dotted path (see `distillation.registry`), or {name: {'weight': 1.0, ...}}
            with the settings of each recipe of a weighted sum.
        updates, learning_rate: of the stage.
        name: under which its metrics are written; none: the recipe's.
        target: 'average' of the student, or 'previous', the student of the stage before.
        data: 'scenes', 'scenes_and_recordings', or 'teacher_samples'.
        batch_size: none: that of the config.
        merge_weight: of the student after the last stage against the one before it, 0 to 1.
        frozen: regular expression of the parameters that are not trained.
        anything else: settings of the recipe.

    Raises:
        ValueError: a stage that cannot be run; one line that says what is wrong.
    """
    available = dict(
        student=setup.student,
        teacher=setup.teacher,
        path=setup.path,
        guidance_range=config.guidance_range,
        teachers=setup.teachers,
    )
    stages = [stage_of(dict(given), config.batch_size, available) for given in config.stages]
    for stage in stages[:-1]:
        if stage.updates and stage.merge_weight != 1:
            raise ValueError(
                f'merge_weight of stage {stage.name!r} is not 1: only the last stage goes part of '
                'the way'
            )
    return stages


def stage_settings(
    settings: dict[str, Any], batch_size: int
) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """A stage of a config: what `Stage` has, its recipe, and the settings of that.

    Needs no network, so that a mistake is found before any is loaded.

    Raises:
        ValueError: see `plan`.
    """
    lacking = {'recipe', 'updates', 'learning_rate'} - set(settings)
    if lacking:
        raise ValueError(f'a stage {settings} lacks {", ".join(sorted(lacking))}')
    recipe, target = settings.pop('recipe'), settings.pop('target', 'average')
    is_sum = hasattr(recipe, 'items')
    if not isinstance(recipe, str) and not is_sum:
        raise ValueError(f'recipe is {recipe!r}; give a name, or the settings of several by name')
    name = settings.pop('name', ' + '.join(recipe) if is_sum else recipe)
    own = {
        'name': name,
        'target_is_average': target == 'average',
        'updates': settings.pop('updates'),
        'learning_rate': settings.pop('learning_rate'),
        'data': settings.pop('data', SCENES),
        'batch_size': settings.pop('batch_size', batch_size),
        'merge_weight': settings.pop('merge_weight', 1.0),
        'frozen': settings.pop('frozen', ''),
    }
    if target not in ('average', 'previous'):
        raise ValueError(f"stage {name!r}: target is {target!r}, use 'average' or 'previous'")
    if own['data'] not in DATA:
        known = ', '.join(map(repr, DATA))
        raise ValueError(f'stage {name!r}: data is {own["data"]!r}, use one of {known}')
    for key, (kind, low, high) in _RANGES.items():
        value = own[key]
        if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
            whole = 'whole number' if kind is int else 'number'
            to = f' to {high:g}' if high < math.inf else ' or more'
            raise ValueError(f'stage {name!r}: {key} is {value!r}, give a {whole}, {low:g}{to}')
    if not is_sum:
        registry.check(recipe, settings)
    elif settings:
        raise ValueError(f'stage {name!r}: {", ".join(settings)} belongs to one recipe of the sum')
    else:
        registry.check_sum(recipe)
    return own, recipe, settings


def stage_of(settings: dict[str, Any], batch_size: int, available: Mapping[str, Any]) -> Stage:
    """One stage of `plan`."""
    own, recipe, settings = stage_settings(settings, batch_size)
    if isinstance(recipe, str):
        made = registry.make(recipe, available, **settings)
    else:
        made = registry.make_sum(recipe, available)
    return Stage(recipe=made, **own)
