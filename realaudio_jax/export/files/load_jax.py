"""Runs an exported program with JAX alone: `load(folder, seconds)(**inputs)['audio']`."""

import json
import pathlib

import jax
import jax.export
import numpy as np


def load(folder, seconds):
    """The program of a folder for sounds of up to so many seconds; README.md lists the inputs."""
    folder = pathlib.Path(folder)
    about = json.loads((folder / 'program.json').read_text())
    programs = [p for p in about['programs'] if p['seconds'] >= seconds and 'stablehlo' in p]
    if not programs:
        raise ValueError(f'{folder} has no StableHLO program for {seconds} s')
    program = programs[0]
    exported = jax.export.deserialize(bytearray((folder / program['stablehlo']).read_bytes()))
    with np.load(folder / 'weights.npz') as arrays:
        weights = jax.device_put([arrays[str(i)] for i in range(len(arrays.files))])
    call = jax.jit(exported.call)
    return lambda **inputs: call(weights, inputs)
