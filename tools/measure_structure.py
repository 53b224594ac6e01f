"""Prints how large the code is that a reader meets, from the entry points inwards, and the goals.

    python tools/measure_structure.py

Reachable files are those that an entry point imports, directly or through others, inside
functions too, but not for type checkers alone. Nothing is imported or run: the sources are parsed.
What a name stands for (a teacher, recipe or dataset of a config, see `by_name`) comes on top of
this; the generator, which is what `realaudio_jax.load` stands for, is an entry point of its own.
"""

import ast
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ('realaudio_jax', 'experiments', 'configs')


def nodes_that_run(node: ast.AST) -> Iterator[ast.AST]:
    """A syntax tree's nodes, without what is under `if TYPE_CHECKING:`."""
    yield node
    only_types = isinstance(node, ast.If) and getattr(node.test, 'id', '') == 'TYPE_CHECKING'
    for child in node.orelse if only_types else ast.iter_child_nodes(node):
        yield from nodes_that_run(child)


def imported(path: pathlib.Path, root: pathlib.Path) -> set[pathlib.Path]:
    """The files of this project that a source file imports, packages' `__init__.py` included."""
    found = set()
    for node in nodes_that_run(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f'{node.module}.{alias.name}' for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split('.')
            if parts[0] not in PACKAGES:
                continue
            for end in range(1, len(parts) + 1):
                stem = root.joinpath(*parts[:end])
                found |= {f for f in (stem / '__init__.py', stem.with_suffix('.py')) if f.is_file()}
    return found


def reachable(entry: pathlib.Path, root: pathlib.Path = ROOT) -> set[pathlib.Path]:
    """The entry point and what it imports, to the end; empty files are left out."""
    seen, waiting = set(), [entry]
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting.extend(imported(path, root))
    return {path for path in seen if path.read_text().strip()}


def lines(paths) -> int:
    """Lines of several files."""
    return sum(len(path.read_text().splitlines()) for path in paths)


def prose(path: pathlib.Path) -> int:
    """Lines of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text()), clean=False)
    return len(docstring.strip().splitlines()) if docstring else 0


def crossed(page: pathlib.Path) -> list[str]:
    """The files that the table of a page names, each once, in the order of their first row."""
    rows = re.findall(r'^\|[^|]*\| `([^`|]+\.py)` \|', page.read_text(), re.MULTILINE)
    return list(dict.fromkeys(rows))


def first_lines(files) -> tuple[int, int]:
    """Public docstrings that have a first line, and public modules, classes and functions at all.

    A first line is a sentence of its own: it ends in a period or a colon, and an empty line or the
    end of the docstring follows.
    """
    found = count = 0
    for path in files:
        tree = ast.parse(path.read_text())
        for node in [tree, *public(tree.body)]:
            count += 1
            docstring = (ast.get_docstring(node) or '').splitlines()
            if docstring and docstring[0].endswith(('.', ':')) and not any(docstring[1:2]):
                found += 1
    return found, count


def public(body):
    """Public functions and classes of a module, and public methods of those classes.

    A Linen module's `setup` is none of them: Flax calls it.
    """
    for node in body:
        hidden = getattr(node, 'name', '_')[0] == '_' or node.name == 'setup'
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not hidden:
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body)


def measures(root: pathlib.Path = ROOT) -> list[tuple[str, str, str]]:
    """(what, value, goal) of every measure."""
    rows = []
    for what, entry, goal in (
        ('training: experiments/distill.py', 'experiments/distill.py', '40 / 7,000'),
        ('inference: realaudio_jax.load', 'realaudio_jax/generator.py', '18 / 4,000'),
    ):
        files = reachable(root / entry, root)
        value = f'{len(files)} / {lines(files):,}'
        rows.append((f'files / lines, {what}', value, goal))
    page = root / 'docs' / 'batch.md'
    if page.is_file():
        value = str(len(crossed(page)))
        rows.append(('files a distillation batch crosses (docs/batch.md)', value, '8'))
    metrics = root / 'realaudio_jax' / 'metrics'
    modules = [f for f in metrics.glob('*.py') if f.stem[0] != '_']
    rooms = [f for f in metrics.glob('*/__init__.py')]
    value = f'{len(modules)} + {len(rooms)}'
    rows.append(('top-level modules + packages of metrics/', value, '12 modules'))
    configs = {f.stem: prose(f) for f in sorted((root / 'configs').glob('[a-z]*.py'))}
    longest = max(configs, key=configs.get)
    rows.append(('most lines of prose in a config', f'{configs[longest]} ({longest})', '15'))
    words = len((root / 'README.md').read_text().split())
    rows.append(('words of README', f'{words:,}', '1,300'))
    code = [f for folder in (*PACKAGES, 'tests', 'tools') for f in (root / folder).rglob('*.py')]
    # Two words here, so that this line is no match itself.
    skips = sum(f.read_text().count('# fmt: ' + 'skip') for f in code)
    rows.append(('formatter switched off for a statement', str(skips), '19'))
    package = [f for f in (root / 'realaudio_jax').rglob('*.py') if f.read_text().strip()]
    found, count = first_lines(package)
    value = f'{found / count:.1%} of {count:,}'
    rows.append(('public modules and functions with a first line', value, '97%'))
    return rows


def main() -> None:
    print(f'{"":52} {"today":22} goal, at most')
    for what, value, goal in measures():
        print(f'{what:52} {value:22} {goal}')


if __name__ == '__main__':
    main()
