"""A tiny distillation, and what two processes do with it: `python several_processes.py 0 PORT DIR`.

Imported, it gives the same distillation to a test, for one process.
"""

import json
import os
import pathlib
import signal
import sys

import flax.struct
import jax.numpy as jnp
import numpy as np

from configs.foley_distill import get_config
from experiments import distill as experiment
from realaudio_jax import processes
from realaudio_jax.data.cache import EncodedScenes, ensure
from realaudio_jax.data.latent_crops import RandomCrops
from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.distillation.setup import DistillationSetup
from realaudio_jax.noise import CosinePath
from realaudio_jax.random import pin_process
from realaudio_jax.typing import Leaf

UPDATES, BATCH, SCENES, FRAMES, EVENTS, CHANNELS, WIDTH = 12, 8, 12, 6, 2, 64, 256
LOST_AFTER_S = 4.0
SIGNAL_AT = 6  # batch


@flax.struct.dataclass
class Text:
    """Conditioning of the tiny network."""

    text: Leaf['B C']


def scenes() -> EncodedScenes:
    """Pairwise different ones."""
    rng = np.random.default_rng(1)

    def normal(*shape):
        return rng.normal(size=(SCENES, *shape)).astype(np.float32)

    onset = rng.uniform(0, 0.1, (SCENES, EVENTS)).astype(np.float32)
    return EncodedScenes(
        {
            'latents': normal(FRAMES, CHANNELS),
            'loudness_db': normal(FRAMES),
            'text': normal(CHANNELS),
            'text_mask': np.ones((SCENES, 1), bool),
            'event_text': normal(EVENTS, 1),
            'onset_s': onset,
            'offset_s': onset + np.float32(0.1),
            'gain_db': normal(EVENTS),
            'event_mask': normal(EVENTS) > 0,
            'seconds': np.linspace(0.12, 0.24, SCENES).astype(np.float32),
        }
    )


def network(params, conditioning, *scales):
    """An MLP whose kernels are large enough to be split over the axis 'model'."""

    def denoise(x, t):
        hidden = jnp.tanh((x + conditioning.text[:, None]) @ params['mlp_in']['kernel'])
        scale = sum(scales) + t
        return hidden @ params['mlp_out']['kernel'] * (1 + params['gain'] * scale)[:, None, None]

    return denoise


def to_batch(rows) -> Batch:
    mask = (jnp.arange(FRAMES)[None] / 25 < rows['seconds'][:, None]).astype(jnp.float32)
    return Batch(rows['latents'], mask, Text(rows['text']), None)


class Signalling(RandomCrops):
    """Crops; before batch `at` the process sends itself SIGTERM."""

    at = -1

    def __next__(self):
        if self.get_state()['next'] == self.at:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__next__()


def distill(workdir, model_parallel=1, at=-1):
    """`experiments.distill.distill` of one stage."""
    rng = np.random.default_rng(2)
    params = {
        'mlp_in': {'kernel': np.float32(rng.normal(size=(CHANNELS, WIDTH)) / 8)},
        'mlp_out': {'kernel': np.float32(rng.normal(size=(WIDTH, CHANNELS)) / 16)},
        'gain': np.float32(0.1),
    }
    setup = DistillationSetup(
        network, network, CosinePath(), params, params, to_batch, lambda batch, key: batch
    )
    config = get_config('test').unlock()
    config.batch_size, config.save_every, config.log_every = BATCH, 10, 5
    config.stages = [dict(config.stages[0], updates=UPDATES)]
    stages = experiment.plan(config, setup)
    data = Signalling(scenes(), BATCH, 0, 0.08)
    data.at = at
    batches = experiment.StageData({stages[0].batches: data})
    return experiment.distill(config, setup, stages, batches, pathlib.Path(workdir), model_parallel)


def main(index: int, port: str, folder: pathlib.Path) -> None:
    """Both processes: a cache, an error of the first, a stop, and the end of the second."""
    pin_process()
    processes.connect(f'localhost:{port}', 2, index, LOST_AFTER_S)
    found = {'first': processes.is_first(), 'any': processes.any_process(index == 1)}

    def build(temporary: pathlib.Path) -> None:
        (temporary / 'by').write_text(str(index))

    found['cache'] = (ensure(folder / 'cache', build) / 'by').read_text()
    try:
        processes.only_first(lambda: int('x'), 'a number')
    except (ValueError, processes.OtherProcessError) as error:
        found['error'] = f'{type(error).__name__}: {error}'
    found['student'] = distill(folder / 'run', at=SIGNAL_AT if index == 1 else -1)
    (folder / f'{index}.json').write_text(json.dumps(found))
    if index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    processes.any_process(False)  # as in a loop: devices wait for those of the other


if __name__ == '__main__':
    main(int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3]))
