"""Prints how large the code is that a reader meets, from the entry points inwards.

    python tools/measure_structure.py

Reachable files are those that an entry point imports, directly or through others, inside
functions too. Nothing is imported or run: the sources are parsed.
"""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ('realaudio_jax', 'experiments', 'configs')


def imported(path: pathlib.Path, root: pathlib.Path) -> set[pathlib.Path]:
    """The files of this project that a source file imports, packages' `__init__.py` included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
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


def measures(root: pathlib.Path = ROOT) -> list[tuple[str, str]]:
    """(what, value) of every measure."""
    rows = []
    for name, entry in (
        ('experiments/distill.py', root / 'experiments' / 'distill.py'),
        ('import realaudio_jax', root / 'realaudio_jax' / '__init__.py'),
    ):
        files = reachable(entry, root)
        rows.append(
            (f'files / lines reachable from {name}', f'{len(files)} / {lines(files):,}'),
        )
    page = root / 'docs' / 'batch.md'
    if page.is_file():
        rows.append(('files a distillation batch crosses (docs/batch.md)', str(len(crossed(page)))))
    metrics = [f for f in (root / 'realaudio_jax' / 'metrics').glob('*.py') if f.stem[0] != '_']
    rows.append(('top-level modules of metrics/', str(len(metrics))))
    configs = {f.stem: prose(f) for f in sorted((root / 'configs').glob('[a-z]*.py'))}
    longest = max(configs, key=configs.get)
    rows.append(('most lines of prose in a config', f'{configs[longest]} ({longest})'))
    rows.append(('words of README', f'{len((root / "README.md").read_text().split()):,}'))
    code = [f for folder in (*PACKAGES, 'tests', 'tools') for f in (root / folder).rglob('*.py')]
    # Two words here, so that this line is no match itself.
    skips = sum(f.read_text().count('# fmt: ' + 'skip') for f in code)
    rows.append(('formatter switched off for a statement', str(skips)))
    return rows


def main() -> None:
    for what, value in measures():
        print(f'{what:52} {value}')


if __name__ == '__main__':
    main()
