"""Damaged releases: each is one line that names what is wrong.

python tests/fuzz/releases.py [count] [seed]

With a manifest any change is found. Without one (an older release) the config, the tokenizer and
the weights must still fail as one line, or load as what they were. One takes at most a second of
computing time.
"""

import json
import pathlib
import sys
import tempfile
import time
import warnings

import numpy as np

from realaudio_jax.integrity import MANIFEST_NAME
from realaudio_jax.models.autoencoder import Autoencoder
from realaudio_jax.models.denoiser import Denoiser
from realaudio_jax.models.text_encoder import TOKENIZER_NAME, Tokenizer
from realaudio_jax.release import RELEASES, load_moments, read_release, read_tensors
from realaudio_jax.release_config import CONFIG_NAME
from realaudio_jax.vocabulary import load_vocabulary

MOST_SECONDS, MOST_CHARACTERS = 1.0, 1_500
_WEIGHTS = ('student_adapter.safetensors', 'student_moments.safetensors', 'vocabulary.safetensors')
_VALUES = [
    0, -1, 1, 2, 7, 10**9, 10**400, 1e308, 256.0, '256', '', None, True, [], [1], {}, {'a': 1},
    'NaN', float('nan'), float('inf'),
]  # fmt: skip


def _change(rng, config: dict) -> str:
    """The config with one value, name or place another."""
    parts = [config, *(v for v in config.values() if isinstance(v, dict))]
    part = parts[rng.integers(len(parts))]
    names = list(part) or ['new']
    name, value = names[rng.integers(len(names))], _VALUES[rng.integers(len(_VALUES))]
    kind = rng.integers(4)
    if kind == 0:
        part.pop(name, None)
    elif kind == 1:
        part[name[:-1] + 'x'] = part.pop(name, value)
    else:
        part[name] = value
    return json.dumps(config)


def _flip(rng, data: bytes) -> bytes:
    damaged = bytearray(data)
    for bit in rng.integers(0, 8 * len(data), rng.integers(1, 4)):
        damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def damage(rng, folder: pathlib.Path) -> str:
    """Harms one file of a release and returns what was done."""
    kind = rng.integers(6)
    if kind == 0:
        path = folder / CONFIG_NAME
        data = _change(rng, json.loads(path.read_text())).encode()
    elif kind < 3:
        path = folder / (CONFIG_NAME, TOKENIZER_NAME)[kind - 1]
        data = _flip(rng, path.read_bytes())
    else:
        path = folder / _WEIGHTS[rng.integers(len(_WEIGHTS))]
        whole = path.read_bytes()
        other = (folder / _WEIGHTS[rng.integers(len(_WEIGHTS))]).read_bytes()
        cut = int(rng.integers(len(whole)))
        data = [_flip(rng, whole), whole[:cut], other][kind - 3]
    before = path.read_bytes()
    path.unlink()  # a link to the shipped file
    path.write_bytes(data)
    return '' if data == before else path.name


def load(folder: pathlib.Path) -> None:
    """What a Generator reads of these files, but for the big networks."""
    config = read_release(folder)
    Denoiser(**config.denoiser.to_dict()), Autoencoder(**config.autoencoder.to_dict())
    Tokenizer(folder / TOKENIZER_NAME).encode(['a dog barks'])
    load_vocabulary(folder)
    load_moments(folder)
    read_tensors(folder / _WEIGHTS[0])


def run(count: int, seed: int = 0) -> dict[str, int]:
    """How many were refused with a manifest and without, and how many loaded as if whole."""
    found = {'by the manifest': 0, 'without one': 0, 'not noticed without one': 0}
    source = RELEASES / 'foley'
    warnings.simplefilter('ignore')  # of releases without a manifest
    load(source)
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            for file in source.iterdir():
                (folder / file.name).symlink_to(file)
            harmed = damage(rng, folder)
            if not harmed:
                continue
            for manifest in (True, False):
                if not manifest:
                    (folder / MANIFEST_NAME).unlink()
                begin = time.process_time()
                try:
                    load(folder)
                    assert not manifest, f'case {index}: {harmed} was not noticed'
                    found['not noticed without one'] += 1
                except (ValueError, OSError) as error:
                    text = str(error)
                    short = '\n' not in text and len(text) <= MOST_CHARACTERS
                    assert short, f'case {index}: {text[:999]}'
                    assert not manifest or harmed in text, f'case {index}: {text}'
                    found['by the manifest' if manifest else 'without one'] += 1
                took = time.process_time() - begin
                assert took < MOST_SECONDS, f'case {index}: {harmed} took {took:.1f} s'
    return found


if __name__ == '__main__':
    print(run(*map(int, sys.argv[1:] or ['150'])))
