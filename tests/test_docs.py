"""README and docs: links, anchors, commands, settings and names of the code are those there are."""

import ast
import functools
import importlib.util
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import documented_commands
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = sorted(
    [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *(ROOT / 'docs').rglob('*.md')]
    + [ROOT / 'realaudio_jax' / 'releases' / 'foley' / 'README.md']
)
# Names in trials are those of the revision that they name.
CURRENT = [page for page in PAGES if 'trials' not in page.parts]
FILE_SUFFIXES = {'csv', 'html', 'json', 'jsonl', 'md', 'npz', 'png', 'py', 'safetensors', 'txt'}


def page_id(page):
    return str(page.relative_to(ROOT))


def module_of(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(text):
    """The fragments of a page's headings, as hosts and MkDocs form them."""
    without_code = re.sub(r'^```.*?^```', '', text, flags=re.MULTILINE | re.DOTALL)
    found = set()
    for heading in re.findall(r'^#+ +(.+)$', without_code, re.MULTILINE):
        words = re.sub(r'[^\w\- ]', '', heading.lower())
        found.add(words.strip().replace(' ', '-'))
    return found


@pytest.mark.parametrize('page', PAGES, ids=page_id)
def test_links_and_anchors_resolve(page):
    text = page.read_text()
    links = re.findall(r'\]\(([^)\s]+)\)', text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        if re.match(r'[a-z]+:', link):
            continue
        name, _, fragment = link.partition('#')
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f'{link}: no such file'
        if page.is_relative_to(ROOT / 'docs'):
            assert target.is_relative_to(ROOT / 'docs'), f'{link}: the site does not hold it'
        if fragment:
            assert fragment in anchors(target.read_text()), f'{link}: no such heading'


def test_site_lists_pages_that_exist():
    listed = re.findall(r': (\S+\.md)$', (ROOT / 'mkdocs.yml').read_text(), re.MULTILINE)
    assert 'index.md' in listed
    for name in listed:
        assert (ROOT / 'docs' / name).is_file(), name


def test_site_builds_and_fetches_nothing(tmp_path):
    """With the extra `docs`; strict: a name in api.md that is gone is an error."""
    pytest.importorskip('material')
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet']
    subprocess.run([*command, '--site-dir', str(tmp_path)], cwd=ROOT, check=True)
    for page in tmp_path.rglob('*.html'):
        elements = re.findall(r'<(?:link|script|img)[^>]*>', page.read_text())
        fetched = [e for e in elements if re.search(r'(?:href|src)="https?:', e)]
        assert not fetched, page


def test_readme_holds_the_commands_that_tools_read():
    lines = (ROOT / 'README.md').read_text().splitlines()
    assert "    pip install -e '.[test]' && pytest" in lines
    main = 'python -m experiments.distill --config=configs/foley_distill.py'
    assert f'    pip install -e . && {main}' in lines


@functools.cache
def errors_by_page():
    """What the programs say against the command lines of each page: {page: [line: error]}."""
    given, places = {}, {}
    for page, text in documented_commands.pages():
        for program, arguments, whole in documented_commands.command_lines(text):
            given.setdefault(program, []).append((arguments, whole))
            places.setdefault(program, []).append(page)
    result = subprocess.run(
        [sys.executable, documented_commands.__file__],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    )
    assert not result.returncode, result.stderr
    found = {page: [] for page, _ in documented_commands.pages()}
    for program, errors in json.loads(result.stdout).items():
        pairs = zip(places[program], given[program], errors, strict=True)
        for page, (arguments, _), error in pairs:
            if error:
                found[page].append(f'{program} {shlex.join(arguments)}: {error}')
    return found


@pytest.mark.parametrize('page', [page for page, _ in documented_commands.pages()])
def test_programs_read_their_documented_command_lines(page):
    """Modules, flags, their values, configs and settings, by the parsers of the programs."""
    assert not errors_by_page()[page]


def test_command_lines_are_found_whole_and_in_sentences():
    text = """
Do `python tools/scaling.py` or `evaluate --run` but not `other --run`, and

    cd here && python -m experiments.sample --prompt='a dog' \\
        [--out=a.wav]   # a comment
    python -m experiments.serve --port=1 &
"""
    assert list(documented_commands.command_lines(text)) == [
        ('tools/scaling.py', [], False),
        ('experiments.sample', ['--prompt=a dog', '--out=a.wav'], True),
        ('experiments.serve', ['--port=1'], True),
        ('experiments.evaluate', ['--run'], False),
    ]


@functools.cache
def names_defined(path):
    """Functions, classes, methods and module-level values of a source file, dotted."""
    found = set()

    def visit(body, prefix):
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
                visit(node.body, f'{prefix}{node.name}.')
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found.update(prefix + t.id for t in targets if isinstance(t, ast.Name))
            elif isinstance(node, ast.If | ast.With | ast.For | ast.While | ast.Try):
                visit(node.body, prefix)

    visit(ast.parse(path.read_text()).body, '')
    return found


def steps(page):
    """(file, names) of the rows of a page's table: | what | `file.py` | `name`, `name` |."""
    rows = re.findall(r'^\|[^|]*\| `([^`|]+\.py)` \|([^|]*)\|', page.read_text(), re.MULTILINE)
    return [(file, re.findall(r'`([\w.]+)`', names)) for file, names in rows]


@pytest.mark.parametrize('name', ['batch', 'prompt'])
def test_ways_through_the_code_name_what_exists(name):
    page = ROOT / 'docs' / f'{name}.md'
    rows = steps(page)
    assert len(rows) >= 8
    for file, names in rows:
        assert (ROOT / file).is_file(), file
        assert names, f'{file}: no name'
        missing = set(names) - names_defined(ROOT / file)
        assert not missing, f'{file}: {missing}'
    mentioned = re.findall(
        r'`((?:realaudio_jax|experiments|configs|docs)/[\w/.]+)`', page.read_text()
    )
    assert all((ROOT / file).exists() for file in mentioned)


def places(name, start):
    """(file, name in it) of a dotted name of the package or of a folder in it: all it may mean."""
    parts = name.removeprefix('realaudio_jax.').split('.')
    for folder in {start, ROOT / 'realaudio_jax'}:
        for end in range(len(parts), 0, -1):
            stem = folder.joinpath(*parts[:end])
            files = (stem / '__init__.py', stem.parent / f'{stem.name}.py')
            if file := next((file for file in files if file.is_file()), None):
                yield file, '.'.join(parts[end:])
                break


def exists(file, name):
    """Whether a source file defines a name, or a class of such a member: `state.params`."""
    return not name or any(f'.{found}'.endswith(f'.{name}') for found in names_defined(file))


def test_dotted_names_in_docs_and_docstrings_exist():
    folders = [ROOT / name for name in ('realaudio_jax', 'experiments', 'configs')]
    missing = []
    for file in [*CURRENT, *(file for folder in folders for file in folder.rglob('*.py'))]:
        names = set(re.findall(r'`((?:[a-z_]\w*\.)+\w+)(?:\(\))?`', file.read_text()))
        for name in {name for name in names if name.rpartition('.')[2] not in FILE_SUFFIXES}:
            found = list(places(name, file.parent))
            if found and not any(exists(*place) for place in found):
                missing.append(f'{file.relative_to(ROOT)}: {name}')
    assert not missing


def test_reachable_follows_imports_to_the_end(tmp_path):
    measure = module_of(ROOT / 'tools' / 'measure_structure.py')
    package = tmp_path / 'realaudio_jax'
    (package / 'models').mkdir(parents=True)
    for name, text in {
        '__init__.py': '"""Package."""\n',
        'a.py': 'import numpy\n\n\ndef f():\n    from realaudio_jax.models import b\n',
        'types.py': 'if TYPE_CHECKING:\n    import realaudio_jax.a\nimport realaudio_jax.c\n',
        'models/__init__.py': '',
        'models/b.py': 'import realaudio_jax.c\n',
        'c.py': 'x = 1\ny = 2\n',
        'alone.py': 'x = 1\n',
    }.items():
        (package / name).write_text(text)
    found = measure.reachable(package / 'a.py', tmp_path)
    names = {str(path.relative_to(package)) for path in found}
    assert names == {'a.py', '__init__.py', 'models/b.py', 'c.py'}
    assert measure.lines(found) == 5 + 1 + 1 + 2
    found = measure.reachable(package / 'types.py', tmp_path)
    assert {path.name for path in found} == {'types.py', '__init__.py', 'c.py'}


def test_training_loads_no_generator():
    """Nor does what a config names; and the measure counts whatever the training imports."""
    measure = module_of(ROOT / 'tools' / 'measure_structure.py')
    code = """
import sys
import experiments.distill
print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'realaudio_jax'))
from realaudio_jax import by_name, data, distillation, teachers
for table in (data.DATASETS, distillation.RECIPES, teachers.TEACHERS):
    for name in table:
        by_name.find(name, table)
print(*(n for n in sys.modules if n.split('.')[0] == 'realaudio_jax'))
"""
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported, named = (line.split() for line in result.stdout.splitlines())
    assert not {'realaudio_jax.generator', 'realaudio_jax.program'} & set(named)
    counted = {str(path) for path in measure.reachable(ROOT / 'experiments' / 'distill.py')}
    empty = {path for path in imported if not pathlib.Path(path).read_text().strip()}
    assert set(imported) - empty <= counted


def test_figure_uses_measured_times_where_there_are_any():
    plot = module_of(ROOT / 'tools' / 'plot_quality_time.py')
    speed = [
        {'system': system, 'steps': steps, 'name': name, 'value': value}
        for system, steps, evaluations in (('student', 4, 4), ('teacher', 50, 100))
        for name, value in (
            ('time', 7.0),
            ('text', 0.5),
            ('denoiser', 8.0),
            ('decode', 1.0),
            ('evaluations', evaluations),
        )
    ]
    judged = {'name': 'Frechet distance', 'embedder': 'YAMNet', 'value': 4.0, 'low': 3, 'high': 5}
    quality = [judged | {'model': 'student', 'steps': n, 'nfe': n} for n in (4, 2)]
    quality += [judged | {'embedder': 'other', 'model': 'student', 'steps': 1, 'nfe': 1}]
    points = {p['steps']: p for p in plot.quality_and_time(quality, speed)}
    assert set(points) == {2, 4}
    assert points[4]['time'] == 7.0 and points[4]['measured']
    assert points[2]['time'] == 0.5 + 1.0 + 2 * 2.0 and not points[2]['measured']
