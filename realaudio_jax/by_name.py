"""Objects of other modules by a short name or a dotted path: recipes, teachers, datasets.

    find('progressive', RECIPES)            # a name of the table
    find('my_package.my_recipe.MyRecipe')   # anything that can be imported

A table maps short names to 'package.module:attribute'. A module is imported when it is asked for,
so that a run loads what its config names and nothing else. Packages export classes of their modules
in the same way:

    __getattr__, __dir__ = lazy_attributes(__name__, {'Progressive': 'package.module:Progressive'})
"""

import difflib
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def find(name: str, table: Mapping[str, str], kind: str = 'object') -> Any:
    """The object with a name.

    Args:
        name: a key of the table, or 'package.module.attribute'.
        table: by short name 'package.module:attribute'.
        kind: of the objects, for messages.

    Raises:
        ValueError: there is no such object; one line that names what there is.
    """
    place = table.get(name, name)
    module, separator, attribute = place.rpartition(':' if name in table else '.')
    if not separator:
        near = difflib.get_close_matches(name, table, 1)
        hint = f'did you mean {near[0]!r}?' if near else f'use one of {", ".join(sorted(table))},'
        raise ValueError(f'no {kind} {name!r}: {hint} or a dotted path')
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f'{module}.'.startswith(f'{error.name}.'):
            raise  # the module is there, and imports what is not
        raise ValueError(
            f'no {kind} {name!r}: its module cannot be found; run from its folder, or set '
            'PYTHONPATH'
        ) from None
    if not hasattr(found, attribute):
        raise ValueError(f'no {kind} {name!r}: {module} has no {attribute!r}')
    return getattr(found, attribute)


def lazy_attributes(
    module: str, table: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a module whose attributes are imported at first use (PEP 562).

    Args:
        module: its name.
        table: by attribute 'package.module:attribute'.
    """

    def get(name: str) -> Any:
        if name not in table:
            raise AttributeError(f'module {module!r} has no attribute {name!r}')
        return find(name, table, 'attribute')

    def names() -> list[str]:
        return sorted({*vars(sys.modules[module]), *table})

    return get, names
