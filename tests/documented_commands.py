"""The command lines of README, docs and docstrings, parsed by the programs that they name.

    python tests/documented_commands.py < lines.json

reads {module or tool: [[arguments, whole], ...]} and prints what is wrong with each, in the same
order, or null. Programs are imported, none is run. `whole` is false of a mention in a sentence,
which may leave out what is required and the values of flags.
"""

import argparse
import ast
import contextlib
import importlib
import importlib.util
import json
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Iterator
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXTRAS = (
    'playwright',
    'playwright.sync_api',
    'websockets',
    'websockets.sync',
    'websockets.sync.client',
)


def command_lines(text: str) -> Iterator[tuple[str, list[str], bool]]:
    """(program, arguments, whole) of the commands in a text, continued lines joined.

    A program is a module such as 'experiments.sample', or a file such as 'tools/scaling.py'. What
    stands in brackets is optional and counts as given.
    """
    text = re.sub(r'\\\n\s*|\n\s+(?=\[?--)', ' ', text)
    for start, line in re.findall(r'(.*)\bpython ((?:-m experiments\.|tools/)[^`\n|]*)', text):
        words = shlex.split(line.split(' && ')[0].replace('[', '').replace(']', ''), comments=True)
        words = words[1:] if words[0] == '-m' else words
        if set(words) & {'&', '>', '<'}:
            words = words[: min(words.index(w) for w in {'&', '>', '<'} & set(words))]
        yield words[0], words[1:], '`' not in start
    for line in re.findall(r'`((?:experiments\.)?[a-z]\w+ --[^`\n]*)`', text):
        words = shlex.split(line)
        name = words[0].removeprefix('experiments.')
        if name != words[0] or (ROOT / 'experiments' / f'{name}.py').is_file():
            yield f'experiments.{name}', words[1:], False


def pages() -> Iterator[tuple[str, str]]:
    """(path, text) of README, docs and docstrings; trials name the revision of their commands."""
    for path in sorted({*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')}):
        if 'trials' not in path.parts and path.name != 'CHANGELOG.md':
            yield str(path.relative_to(ROOT)), path.read_text(encoding='utf-8')
    for path in sorted((ROOT / 'realaudio_jax').rglob('*.md')):
        yield str(path.relative_to(ROOT)), path.read_text(encoding='utf-8')
    for folder in ('configs', 'experiments', 'tools'):
        for path in sorted((ROOT / folder).glob('*.py')):
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))
            yield str(path.relative_to(ROOT)), docstring or ''


def parsed(program: str, arguments: list[str], whole: bool) -> str | None:
    """What the flags of a module say against the arguments."""
    # A config's settings become flags by what `sys.argv` holds when the module is imported.
    with mock.patch.object(sys, 'argv', [program, *arguments]):
        importlib.import_module(program)
        from absl import flags

        from experiments import common

        names = [re.sub('^--?|=.*', '', argument) for argument in arguments]
        if not whole:  # '--run' without a value is none of a switch
            switches = {f'no{name}' for name in flags.FLAGS if flags.FLAGS[name].boolean}
            missing = {n for n in names if not n.startswith('config.')} - switches - {*flags.FLAGS}
            if missing:
                return f'there is no flag --{missing.pop()}'
            arguments = [argument for argument in arguments if '=' in argument]
        try:
            common.parse_flags([program, *arguments])
        except ValueError as error:
            if whole or 'must have a value other than None' not in str(error):
                return str(error)
    return None


class _Parsed(Exception):
    """The arguments have been read; the tool goes no further."""


def stand_in_for_extras() -> None:
    """Modules of extras that are not installed can be imported: to read flags none is used."""
    for package in {name.split('.')[0] for name in EXTRAS} - {*sys.modules}:
        if importlib.util.find_spec(package) is None:
            modules = [name for name in EXTRAS if name.split('.')[0] == package]
            sys.modules |= {name: mock.MagicMock() for name in modules}


def tool_parsed(program: str, arguments: list[str]) -> str | None:
    """The same of a file whose `main` reads its arguments with argparse, or takes none."""
    if 'argparse' not in (ROOT / program).read_text(encoding='utf-8'):
        return f'takes no arguments: {arguments}' if arguments else None
    parse = argparse.ArgumentParser.parse_args

    def refuse(parser: argparse.ArgumentParser, message: str) -> None:
        raise ValueError(message)

    def parse_args(parser: argparse.ArgumentParser) -> None:
        parse(parser)
        raise _Parsed

    spec = importlib.util.spec_from_file_location('tool', ROOT / program)
    module = importlib.util.module_from_spec(spec)
    stand_in_for_extras()
    spec.loader.exec_module(module)
    with (
        mock.patch.object(sys, 'argv', [program, *arguments]),
        mock.patch.multiple(argparse.ArgumentParser, parse_args=parse_args, error=refuse),
    ):
        try:
            module.main()
        except _Parsed:
            return None
        except ValueError as error:
            return str(error)
    return 'reads no arguments'


def forget_experiments() -> None:
    """Experiments define flags of the same names: each is imported with none of another."""
    from absl import flags

    for flag in list(flags.FLAGS):
        module = flags.FLAGS.find_module_defining_flag(flag, '') or ''
        if module.startswith('experiments') or flag.startswith('config.'):
            delattr(flags.FLAGS, flag)
    for name in [name for name in sys.modules if name.split('.')[0] == 'experiments']:
        del sys.modules[name]


def errors(program: str, lines: list[tuple[list[str], bool]]) -> list[str | None]:
    """What is wrong with each line of a program; None where nothing is."""
    found = []
    for arguments, whole in lines:
        forget_experiments()
        try:
            if program.endswith('.py'):
                found.append(tool_parsed(program, arguments))
            else:
                found.append(parsed(program, arguments, whole))
        except (ModuleNotFoundError, FileNotFoundError) as error:
            found.append(str(error))
    return found


def main() -> None:
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    with contextlib.redirect_stdout(sys.stderr):
        found = {name: errors(name, lines) for name, lines in json.load(sys.stdin).items()}
    json.dump(found, sys.stdout)


if __name__ == '__main__':
    main()
