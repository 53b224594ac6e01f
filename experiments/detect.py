"""Finds the watermark of generated sound in a sound file.

python -m experiments.detect --in=sound.wav
"""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable

from absl import flags

from experiments.common import run, say
from realaudio_jax.io import printable
from realaudio_jax.release import AUTOENCODER_NAME, find_release
from realaudio_jax.watermark import Watermark, read_key
from realaudio_jax.watermark_detection import LEAST_LOG_P, Detection, Detector, detect_file

_IN = flags.DEFINE_string('in', None, 'The sound file, of any length and rate.', required=True)
_KEY = flags.DEFINE_string(
    'key', 'public', "Whose mark: 'public', 32 or more hexadecimal digits, or a file with a key."
)
_RELEASE = flags.DEFINE_string('release', 'foley', 'The release that may have made it.')
_JSON = flags.DEFINE_bool('json', False, 'Print the result as JSON.')


def _p(found: Detection) -> str:
    least = math.exp(LEAST_LOG_P)
    return f'p {"=" if found.p_value > least else "<"} {max(found.p_value, least):.2g}'


def describe(found: Detection, key: bytes) -> str:
    """A result in words."""
    name = str(Watermark(key))
    if found.present is None:
        return f'cannot tell: {found.reason}'
    if not found.present:
        return f'no mark of the {name} found ({_p(found)})'
    payload = 'payload not read'
    if found.payload is not None:
        digits = 2 + found.payload_bits // 4
        payload = f'payload {found.payload} ({found.payload:#0{digits}x})'
    speed = f', played {100 * (found.speed - 1):+.1f}% fast' if found.speed != 1 else ''
    return f'marked with the {name} ({_p(found)}), {payload}{speed}'


def progress(every_s: float = 10.0) -> Callable[[float], None]:
    """Says now and then how far a long file has been searched; for `detect_file`.

    Args:
        every_s: least time between two lines, seconds.
    """
    shown = time.monotonic()

    def watch(at_s: float) -> None:
        nonlocal shown
        if time.monotonic() - shown >= every_s:
            shown = time.monotonic()
            say(f'{at_s / 60:.1f} minutes searched', sys.stderr)

    return watch


def main(argv):
    del argv
    key = read_key(_KEY.value)
    detector = Detector(key, find_release(_RELEASE.value) / AUTOENCODER_NAME)
    found = detect_file(_IN.value, detector, progress())
    if _JSON.value:
        say(json.dumps({'file': _IN.value, 'key': str(Watermark(key))} | dataclasses.asdict(found)))
    else:
        say(f'{printable(_IN.value)}: {describe(found, key)}')


if __name__ == '__main__':
    run(main)
