"""Settings of the process, which a user's environment may change, change neither sound nor draw."""

import os
import subprocess
import sys

import jax
import numpy as np

from realaudio_jax.generator import Generator
from realaudio_jax.random import random_key

AMBIENT = {
    'JAX_DEFAULT_PRNG_IMPL': 'rbg',
    'JAX_THREEFRY_PARTITIONABLE': '0',
    'JAX_ENABLE_X64': '1',
    'JAX_DEFAULT_MATMUL_PRECISION': 'bfloat16',
    'JAX_NUMPY_DTYPE_PROMOTION': 'strict',
}
_SCRIPT = """
import pathlib, sys
import jax
import numpy as np
from realaudio_jax.generator import Generator
from realaudio_jax.random import pin_process, random_key

release, out = map(pathlib.Path, sys.argv[1:])
sound = Generator(release).generate('dog', 'bark@0.1-0.3', 0.5, 2, seed=3, sampler='ping_pong')
pin_process()
draw = jax.random.normal(random_key(5), (3, 7))
np.savez(out, pcm=sound.pcm, draw=draw, other=jax.random.uniform(jax.random.key(2), (5,)))
"""


def test_ambient_settings_change_no_sound_and_no_draw(tiny_release, tmp_path):
    """All at once, in a process of their own; the draws are those of an entry point."""
    out = tmp_path / 'made.npz'
    command = [sys.executable, '-c', _SCRIPT, str(tiny_release), str(out)]
    subprocess.run(command, check=True, env=os.environ | AMBIENT)
    made = np.load(out)
    sound = Generator(tiny_release).generate(
        'dog', 'bark@0.1-0.3', 0.5, 2, seed=3, sampler='ping_pong'
    )
    np.testing.assert_array_equal(made['pcm'], sound.pcm)
    draws = jax.random.normal(random_key(5), (3, 7)), jax.random.uniform(random_key(2), (5,))
    for name, want in zip(('draw', 'other'), draws, strict=True):
        assert made[name].dtype == np.float32
        np.testing.assert_array_equal(made[name], want)
