"""A tiny distillation, and what two processes do with it: `python several_processes.py 0 PORT DIR`.

Imported, it gives the same distillation to a test, for one process.
"""

import functools
import json
import os
import pathlib
import signal
import sys

import jax
import numpy as np

from configs.foley_distill import get_config
from experiments import distill as experiment
from realaudio_jax import processes
from realaudio_jax.data.cache import EncodedScenes, ensure
from realaudio_jax.data.latent_crops import RandomCrops
from realaudio_jax.distillation.setup import DistillationSetup
from realaudio_jax.models.denoiser import PATH, Denoiser, as_denoiser
from realaudio_jax.random import pin_process
from realaudio_jax.release import denoiser_template
from realaudio_jax.teachers import ConditionDropout
from realaudio_jax.teachers.release import guided_denoiser, prepare, to_batch
from realaudio_jax.typing import LATENT_CHANNELS, MAX_EVENTS, MAX_TEXT_TOKENS, TEXT_WIDTH

UPDATES, BATCH, SCENES, FRAMES = 20, 8, 12, 6
LOST_AFTER_S = 6.0  # time that the one that is left waits
FIRST_SIGNAL, SECOND_SIGNAL = 6, 13  # batches


def scenes() -> EncodedScenes:
    """Pairwise different ones."""
    rng = np.random.default_rng(1)

    def normal(*shape):
        return rng.normal(size=(SCENES, *shape)).astype(np.float32)

    onset = rng.uniform(0, 0.1, (SCENES, MAX_EVENTS)).astype(np.float32)
    return EncodedScenes(
        {
            'latents': normal(FRAMES, LATENT_CHANNELS),
            'text': normal(MAX_TEXT_TOKENS, TEXT_WIDTH),
            'text_mask': np.ones((SCENES, MAX_TEXT_TOKENS), bool),
            'event_text': normal(MAX_EVENTS, TEXT_WIDTH),
            'onset_s': onset,
            'offset_s': onset + np.float32(0.1),
            'gain_db': normal(MAX_EVENTS),
            'event_mask': normal(MAX_EVENTS) > 0,
            'loudness_db': normal(FRAMES) - 30,
            'seconds': np.linspace(0.12, 0.24, SCENES).astype(np.float32),
        }
    )


class Signalling(RandomCrops):
    """Crops; before batch `at` the process signals itself."""

    at, number = -1, 0

    def __next__(self):
        if self.get_state()['next'] == self.at:
            os.kill(os.getpid(), self.number)
        return super().__next__()


def distill(workdir, updates=UPDATES, model_parallel=1, at=-1, number=0):
    """`experiments.distill.distill` of a network of random parameters, one stage."""
    model = Denoiser(width=64, depth=1, heads=2)
    leaves, tree = jax.tree.flatten(denoiser_template(model))
    rng = np.random.default_rng(2)
    params = [np.float32(0.1 * rng.normal(size=leaf.shape)) for leaf in leaves]
    params = jax.tree.unflatten(tree, params)
    setup = DistillationSetup(
        functools.partial(guided_denoiser, model),
        functools.partial(as_denoiser, model),
        PATH,
        params,
        params,
        to_batch,
        functools.partial(prepare, dropout=ConditionDropout(), onset_weight=4.0),
    )
    config = get_config('test').unlock()
    config.batch_size, config.save_every, config.log_every = BATCH, 10, 5
    config.stages = [dict(config.stages[0], updates=UPDATES)]
    stages = experiment.plan(config, setup)
    stages[-1] = experiment.dataclasses.replace(stages[-1], updates=updates)
    data = Signalling(scenes(), BATCH, 0, 0.08)
    data.at, data.number = at, number
    batches = experiment.StageData({stages[0].batches: data})
    return experiment.distill(config, setup, stages, batches, pathlib.Path(workdir), model_parallel)


def main(index: int, port: str, folder: pathlib.Path) -> None:
    """Both processes: a cache, an error of the first, a stop, and the end of one of them."""
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
    stop = FIRST_SIGNAL if index == 1 else -1
    found['student'] = distill(folder / 'run', at=stop, number=signal.SIGTERM)
    (folder / f'{index}.json').write_text(json.dumps(found))
    distill(folder / 'run', at=SECOND_SIGNAL if index == 1 else -1, number=signal.SIGKILL)
    print('not reached')


if __name__ == '__main__':
    main(int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3]))
