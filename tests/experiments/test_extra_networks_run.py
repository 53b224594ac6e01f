"""A stage whose recipe trains a network beside the student: its rate, its resume, what is saved."""

import importlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.distillation.setup import DistillationSetup
from realaudio_jax.noise import CosinePath
from realaudio_jax.training.state import apply_gradients, create_state


def test_each_network_is_clipped_by_itself_and_has_its_own_rate(experiment):
    """The first step of Adam is as long as the learning rate, whatever the gradient."""
    tx = experiment('distill').optimizer({'fake': 3.0})
    params = {'student': jnp.ones(2), 'fake': jnp.ones(3)}
    state = create_state(params, tx)
    grads = {'student': jnp.full(2, 1e-3), 'fake': jnp.full(3, -1e4)}
    after = apply_gradients(state, grads, tx, 0.9, 0.01).params
    np.testing.assert_allclose(after['student'] - 1, -0.01, rtol=1e-3)
    np.testing.assert_allclose(after['fake'] - 1, 0.03, rtol=1e-3)


class Batches:
    """Batches of random latents; the n-th is always the same."""

    def __init__(self):
        self.done = 0

    def next(self, stage):
        self.done += 1
        latents = np.random.default_rng(self.done).normal(size=(stage.batch_size, 3, 2))
        return {'latents': latents.astype(np.float32)}

    def get_state(self):
        return self.done

    def set_state(self, state):
        self.done = state


def student(params, c, guidance, step_size):
    def denoise(x, t):
        told = params['b'] * (t + 0.1 * guidance + step_size)
        return params['a'] * jnp.sin(x) * (1 + told)[:, None, None]

    return denoise


def test_a_stage_with_further_networks_goes_on_where_it_was_and_leaves_the_student(
    experiment, tmp_path
):
    """Stopped in the middle of it, after a stage without; the same weights as without a stop."""
    run = experiment('distill')
    config = importlib.import_module('configs.foley_distill').get_config('test').unlock()
    config.stages = [
        dict(recipe='scm', segments=(1,), updates=1, learning_rate=1e-2),
        dict(recipe='dmd', segments=(1, 2), updates=3, learning_rate=1e-2),
    ]
    config.save_every = 1
    setup = DistillationSetup(
        teacher=lambda params, c, guidance: student(params, c, guidance, 0 * guidance),
        student=student,
        path=CosinePath(),
        teacher_params={'a': jnp.float32(0.9), 'b': jnp.float32(0.2)},
        student_params={'a': jnp.float32(0.8), 'b': jnp.float32(0.1)},
        to_batch=lambda arrays: Batch(
            jnp.asarray(arrays['latents']), jnp.ones((len(arrays['latents']), 3)), None
        ),
        prepare=lambda batch, key: batch,
    )
    stages = run.plan(config, setup)
    whole = run.distill(config, setup, stages, Batches(), tmp_path)
    assert whole.keys() == {'a', 'b'}  # and none of the further networks
    assert abs(whole['a'] - 0.8) > 1e-3 and abs(whole['b'] - 0.1) > 1e-3
    saved = sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir())
    assert saved == [3, 4]
    shutil.rmtree(tmp_path / 'checkpoints' / '4')
    again = run.distill(config, setup, stages, Batches(), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again, whole)
