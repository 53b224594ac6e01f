"""Where a result comes from: command, revision of the code, date, machine."""

import datetime
import os
import pathlib
import platform
import shlex
import subprocess
import sys

import jax

from realaudio_jax import __version__


def describe_run() -> dict[str, str]:
    """The command, revision, date and device of this process, as names and values for people."""
    device = jax.devices()[0]
    kind = 'CPU' if device.platform == 'cpu' else device.device_kind
    now = datetime.datetime.now(datetime.UTC)
    return {
        'command': shlex.join(['python', *sys.orig_argv[1:]]),
        'revision': revision(),
        'date': f'{now:%Y-%m-%d %H:%M} UTC',
        'device': f'{len(jax.devices())} x {kind}',
        'machine': f'{os.cpu_count()} CPU cores, {platform.machine()}',
        'versions': f'Python {platform.python_version()}, JAX {jax.__version__}',
    }


def revision() -> str:
    """The version and, in a git checkout of the project, what `git describe` says.

    'dirty' at the end: the checkout differs from that commit.
    """
    home = pathlib.Path(__file__).resolve().parents[1]
    if not (home / '.git').exists():  # an installed package may lie inside somebody else's checkout
        return __version__
    command = ['git', 'describe', '--always', '--tags', '--dirty']
    try:
        found = subprocess.run(
            command, cwd=home, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f'{__version__}, {found.stdout.strip()}'
