"""How every experiment starts: flags read with one-line errors, logs kept to warnings."""

import contextlib
import difflib
import functools
import hashlib
import importlib.util
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from logging import Formatter
from typing import Any, TextIO

from absl import app, flags, logging
from ml_collections import config_flags

from realaudio_jax import __version__, processes
from realaudio_jax.cache import remove_damaged_program
from realaudio_jax.io import atomic_path, printable
from realaudio_jax.memory import keep_freed_memory
from realaudio_jax.random import pin_process
from realaudio_jax.training.loop import STOPPED, main_guard

# Modules whose functions define flags for experiments: --help shows these among their own.
_SHARED_FLAGS = (__name__, 'experiments.watermark_flags')


def run(main: Callable[[Sequence[str]], Any]) -> None:
    """Runs an absl main; a user's mistake, in a flag or later, is one line and status 1.

    Libraries log from warnings up; `-v=0` shows what they say besides. Memory that is freed is
    kept: a step of training or a big network's call would take as many fresh pages as a sound.
    Settings of JAX that change what a seed draws are those of `random.pin_process`. Where there are
    the flags of `define_devices`, the process joins the others of its run first; one that fails
    ends at once, so that the others notice.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # not a terminal or file, as in a notebook
            stream.reconfigure(errors='backslashreplace')  # whatever a terminal cannot show
    warnings.showwarning = show_warning
    logging.get_absl_handler().setFormatter(Formatter('%(message)s'))
    keep_freed_memory()
    pin_process()
    try:
        app.run(main_guard(_joined(main)), flags_parser=main_guard(parse_flags))
    except SystemExit as ended:
        # At once: Python's own end amid a compilation of XLA crashes, and JAX's waits for others.
        if ended.code == STOPPED or (ended.code and processes.count() > 1):
            processes.has_spoken()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended.code if isinstance(ended.code, int) else 1)
        raise


def _joined(main: Callable[[Sequence[str]], Any]) -> Callable[[Sequence[str]], Any]:
    """A main between meeting the other processes of its run and leaving them."""

    @functools.wraps(main)
    def joined(argv: Sequence[str]) -> Any:
        values = flags.FLAGS
        if 'coordinator' in values:
            processes.connect(
                values.coordinator, values.processes, values.process, values.lost_after_s
            )
        with processes.lost_is_one_line():
            result = main(argv)
        processes.leave()
        return result

    return joined


def say(line: str, stream: TextIO | None = None) -> None:
    """Prints a line. A reader that is gone or a full disk does not end what has been done."""
    stream = sys.stdout if stream is None else stream
    try:
        print(line, file=stream, flush=True)
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):  # what is left goes nowhere, at exit too
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def warn(line: str) -> None:
    """Prints one line of warning."""
    say(f'warning: {line}', sys.stderr)


def show_warning(message: Any, *place: Any, **more: Any) -> None:
    """Warnings of libraries as one line each, without the code that they came from."""
    if not remove_damaged_program(str(message)):
        warn(printable(' '.join(str(message).split()), 300))


def define_config(default: str, values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder:
    """The flag --config, of an ml_collections file, with --config.key=value for each of its keys.

    Nothing is read before `parse_flags`, so that a typo is its one line: with a default of its own
    the flag would load the file, and fail, while the experiment is being imported.
    """
    argv = [sys.argv[0], f'--config={default}', *sys.argv[1:]]
    return config_flags.DEFINE_config_file(
        'config', default, 'Config file, with :variant.', flag_values=values, sys_argv=argv
    )


def define_workdir(values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder:
    """The flag --workdir of the experiments that train; see `run_workdir`."""
    return flags.DEFINE_string(
        'workdir',
        None,
        'Where everything goes; none: runs/CONFIG, or runs/CONFIG_VARIANT.',
        flag_values=values,
    )


def define_out(help: str, values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder:
    """The flag --out, a folder that has to be named: '' would be the one where the user stands."""
    out = flags.DEFINE_string('out', None, help, required=True, flag_values=values)
    flags.register_validator(
        'out', lambda folder: folder != '', 'name a folder; . is this one', flag_values=values
    )
    return out


def define_devices(values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder:
    """The flags of a run on several devices and hosts, see docs/several_devices.md.

    Returns:
        --model_parallel; `run` reads the others.
    """
    flags.DEFINE_string(
        'coordinator',
        '',
        'HOST:PORT of process 0; auto: as SLURM, Open MPI or a TPU slice say; none: one process, '
        'or what SLURM or Open MPI started.',
        flag_values=values,
    )
    flags.DEFINE_integer(
        'processes',
        None,
        'Processes of the run, with --coordinator=HOST:PORT.',
        1,
        flag_values=values,
    )
    flags.DEFINE_integer('process', None, 'Which of them this is, from 0.', 0, flag_values=values)
    flags.DEFINE_float(
        'lost_after_s',
        processes.LOST_AFTER_S,
        'Seconds without a sign of life after which a process counts as lost and the run ends.',
        1.0,
        flag_values=values,
    )
    return flags.DEFINE_integer(
        'model_parallel', 1, 'Devices that share one copy of the model.', 1, flag_values=values
    )


def run_workdir(values: flags.FlagValues = flags.FLAGS) -> str:
    """The folder of a run: --workdir, or one that its config and variant name.

    'configs/foley_distill.py:test' is 'runs/foley_distill_test', so that a trial never stands in
    the way of the run that it tried.
    """
    if values['workdir'].value:
        return values['workdir'].value
    file, _, variant = config_flags.get_config_filename(values['config']).partition(':')
    return f'runs/{pathlib.PurePath(file).stem}{f"_{variant}" if variant else ""}'


def go_on_as(module: str, *arguments: str) -> None:
    """Ends this program and runs another one of the project in its place, a process of its own.

    All memory of this one is free for it, on the device too. What it prints, Ctrl-C and its exit
    status are those that the user sees. Of several processes of a run the first alone goes on.

    Args:
        module: such as 'experiments.evaluate'.
        arguments: of its command line.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    processes.leave()
    if not processes.is_first():
        return
    here = str(pathlib.Path(__file__).resolve().parents[1])
    paths = [here, *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = os.environ | {'PYTHONPATH': os.pathsep.join(paths)}
    command = [sys.executable, '-m', module, *arguments]
    if os.name == 'nt':  # there `execve` would return to the shell at once
        sys.exit(subprocess.call(command, env=environment))
    os.execve(sys.executable, command, environment)


def refuse_ignored(flag: str, *ignored: flags.FlagHolder) -> None:
    """ValueError where flags are given that another one makes useless."""
    given = [f'--{other.name}' for other in ignored if other.value != other.default]
    if given:
        raise ValueError(f'{flag} makes no use of {", ".join(given)}; leave that out')


def define_workers() -> flags.FlagHolder:
    """The flag --workers, of the experiments that mix scenes."""
    return flags.DEFINE_integer(
        'workers', 0, 'Processes that mix scenes; 0: none besides this.', lower_bound=0
    )


def default_name(prompt: str, events: str | None, **settings: Any) -> str:
    """A file name from a request, without suffix: 'a-dog-barks-seed0-4steps-10s-1f2e3d'.

    Args:
        prompt, events: its words.
        settings: everything else that changes the sound; seed, steps and seconds are written out,
            of the others and the events there is a digest if any is given.
    """
    words = re.findall(r'\w+', f'{prompt} {"" if prompt.strip() else events or ""}'.lower())
    text = '-'.join(words).encode()[:60].decode(errors='ignore').rstrip('-') or 'sound'
    shown = f'seed{settings.pop("seed")}-{settings.pop("steps")}steps-{settings.pop("seconds"):g}s'
    rest = {name: value for name, value in settings.items() if value}
    rest |= {'events': events} if events else {}
    digest = hashlib.sha256(repr(sorted(rest.items())).encode('utf-8', 'replace')).hexdigest()[:6]
    return f'{text}-{shown}' + (f'-{digest}' if rest else '')


class Measurements:
    """What an experiment has measured so far, so that one that was stopped goes on where it was.

    Args:
        folder: of the measurements, one JSON file each.
        settings: under which they are made.

    Raises:
        ValueError: the folder holds measurements under other settings.
    """

    def __init__(self, folder: pathlib.Path, settings: Mapping[str, Any]):
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        found = self('settings', dict, settings)
        if found != dict(settings):
            changed = sorted(k for k in {*found, *settings} if found.get(k) != settings.get(k))
            raise ValueError(
                f'{printable(folder)} holds measurements of another {", ".join(changed)}; '
                'name another --workdir, or remove that folder'
            )

    def __call__(self, name: str, measure: Callable, *args: Any) -> Any:
        """The measurement of this name; it is made if there is none.

        Args:
            name: of a file, without its suffix; anything but letters and digits becomes '_'.
            measure: gives what JSON can hold.
            args: of `measure`.
        """
        path = self._folder / f'{re.sub(r"[^a-z0-9]+", "_", name.lower())}.json'
        if not path.is_file():
            measured = json.dumps(measure(*args))
            with atomic_path(path) as temporary:  # what fails in here is said to be the file's
                temporary.write_text(measured, encoding='utf-8')
        return json.loads(path.read_text(encoding='utf-8'))


def unused(path: pathlib.Path) -> pathlib.Path:
    """The path, or the first of path-2, path-3, ... that is not there."""
    found, count = path, 1
    while found.exists():
        count += 1
        found = path.with_stem(f'{path.stem}-{count}')
    return found


def parse_flags(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses the command line.

    Args:
        argv: the program's name and its arguments.
        values: takes the flags.

    Returns:
        The program's name.

    Raises:
        ValueError: a flag, value, config file, config key or further argument that is not known;
            one line with the remedy.
    """
    if any(re.fullmatch('--?(help|helpshort|h)', arg) for arg in argv[1:]):
        say(usage(argv[0], values))
        sys.exit(0)
    if any(re.fullmatch('--?version', arg) for arg in argv[1:]):
        say(f'realaudio_jax {__version__}')
        sys.exit(0)
    if 'config' in values and not any(re.match('--?help', arg) for arg in argv[1:]):
        name = _config_file(argv)
        if name is None:
            name = values['config'].default_as_str.strip("'")
            argv = [argv[0], f'--config={name}', *argv[1:]]
        _check_config_file(name.split(':', 1)[0])
    try:
        rest = values(list(argv))
    except flags.Error as error:
        # An error inside a config file comes with its traceback: the last line says what is wrong.
        lines = str(error).strip().splitlines()
        raise ValueError(re.sub(r'^\w+Error: ', '', lines[-1].strip())) from error
    except (AttributeError, KeyError) as error:
        message = _config_key_error(str(error), argv)
        if message is None:
            raise
        raise ValueError(message) from error
    _expand_home(values)
    _refuse_nan(values)
    if len(rest) > 1:
        raise ValueError(
            f'do not know what to do with {rest[1]!r}; write --name=value, and quotes around a '
            'value with spaces'
        )
    if 'verbosity' in values and values['verbosity'].using_default_value:
        values.verbosity = -1  # warnings; absl itself would choose 0, information
    return rest


def _expand_home(values: flags.FlagValues) -> None:
    """Gives '~/x' its folder in every flag: a shell leaves it alone behind '--name='."""
    for name in values:
        value = values[name].value
        if isinstance(value, str) and re.match('~(/|$)', value):
            values[name].value = os.path.expanduser(value)
            if values[name].value == value:
                raise ValueError(f'--{name}={value}: there is no home folder; write it in full')


def _refuse_nan(values: flags.FlagValues) -> None:
    """NaN is on neither side of a bound, so no flag's own bounds refuse it."""
    for name in values:
        if isinstance(values[name].value, float) and math.isnan(values[name].value):
            raise ValueError(f'--{name}=nan: give a number')


def listed(flag: flags.FlagHolder, kind: type = int) -> list[Any]:
    """The values of a list flag.

    Args:
        flag: of `flags.DEFINE_list`.
        kind: int, float or str.

    Raises:
        ValueError: there is none, one stands there twice, or one is not of this kind.
    """
    shown = f'--{flag.name}={",".join(flag.value)}'
    try:
        found = [kind(text) for text in flag.value]
    except ValueError:
        kinds = {int: 'whole numbers', float: 'numbers'}
        raise ValueError(f'{printable(shown)}: give {kinds[kind]}, commas between') from None
    if not found or len(set(found)) < len(found):
        raise ValueError(f'{printable(shown)}: give one or more, each once')
    return found


def usage(program: str, values: flags.FlagValues = flags.FLAGS) -> str:
    """What --help prints: what the program does, its flags and, if it has one, its config."""
    parts = [(sys.modules['__main__'].__doc__ or '').strip(), '', 'flags:']
    by_module = values.flags_by_module_dict()
    shared = [flag for module in _SHARED_FLAGS for flag in by_module.get(module, ())]
    known = {flag.name: flag for flag in [*values.get_key_flags_for_module(program), *shared]}
    for _, flag in sorted(known.items()):
        default = '' if flag.default in (None, '', [], False) else f' ({flag.default_as_str})'
        parts.append(f'  --{flag.name}: {" ".join((flag.help or "").split())}{default}')
    if 'config' in values:
        parts += ['', *_config_help(values['config'].default_as_str.strip("'"))]
    return '\n'.join([*parts, '', '--helpfull lists the flags of libraries too.'])


def _config_help(name: str) -> list[str]:
    """Lines on a config file: its variants and top fields."""
    if not pathlib.Path(name).is_file():
        return [f'{name} is not here: start in the folder that holds configs/ to see its fields']
    spec = importlib.util.spec_from_file_location('config_of_help', name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        module.get_config('?')
        variants = []
    except ValueError as error:  # it lists them
        variants = re.findall(r':(\w+)', str(error))
    lines = [f'variant: --config={name}:{variant}' for variant in variants]
    lines.append(f'fields of {name}, set as --config.NAME=VALUE:')
    for field, value in module.get_config().items():
        shown = f'{{{", ".join(value)}}}' if hasattr(value, 'keys') else repr(value)
        lines.append(f'  {field}: {printable(shown, 100)}')
    return lines


def _config_file(argv: Sequence[str]) -> str | None:
    """The last value of --config."""
    found = None
    for i, arg in enumerate(argv):
        if match := re.match('--?config=(.*)', arg):
            found = match[1]
        elif re.fullmatch('--?config', arg) and i + 1 < len(argv):
            found = argv[i + 1]
    return found


def _check_config_file(name: str) -> None:
    path = pathlib.Path(name)
    if path.is_file():
        return
    others = {
        p.name: p
        for folder in (path.parent, pathlib.Path('configs'))
        for p in folder.glob('*.py')
        if p.name != '__init__.py'
    }
    close = difflib.get_close_matches(path.with_suffix('.py').name, others, n=1, cutoff=0.5)
    if close:
        remedy = f'did you mean {others[close[0]]}?'
    elif others:
        remedy = f'there are {", ".join(sorted(map(str, others.values())))}'
    else:
        remedy = 'name a file, or start in the folder that holds configs/'
    raise ValueError(f'no config file {name!r}; {remedy}')


def _config_key_error(message: str, argv: Sequence[str]) -> str | None:
    """One line for an unknown key of a config, or None for any other error."""
    match = re.search(r'Did you mean "(\w+)" instead of "(\w+)"', message)
    key = match[2] if match else (re.findall(r'\w+', message) or [''])[0]
    override = next((a for a in argv if re.match(rf'--?(no)?config\.(.*\.)?{key}\b', a)), None)
    if not key or override is None:
        return None
    remedy = f'did you mean {match[1]!r}?' if match else 'the keys are those of the config file'
    return f'the config has no key {key!r} ({override}); {remedy}'
