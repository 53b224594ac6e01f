"""Updates of every training loop on four devices: each computes a quarter, the result is one's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from configs import foley_audio_tower, foley_autoencoder, foley_teacher
from realaudio_jax import mesh as mesh_module
from realaudio_jax.distillation.progressive import Progressive
from realaudio_jax.distillation.recipe import STUDENT
from realaudio_jax.mesh import make_mesh
from realaudio_jax.metrics.embedders.tower import tower_template
from realaudio_jax.models.audio_tower import WINDOW_FRAMES, AudioTower
from realaudio_jax.models.autoencoder import LEVELS, Autoencoder
from realaudio_jax.models.denoiser import PATH, Denoiser, as_denoiser
from realaudio_jax.random import random_key
from realaudio_jax.release import autoencoder_template, denoiser_template
from realaudio_jax.teachers import ConditionDropout
from realaudio_jax.teachers.release import guided_denoiser, prepare, to_batch
from realaudio_jax.training.sharding import data_mesh, jit_update, place, replicate, shard_batch
from realaudio_jax.training.state import create_state, with_learning_rate
from realaudio_jax.typing import LATENT_CHANNELS, MAX_EVENTS, MAX_TEXT_TOKENS, TEXT_WIDTH

SIZE, FRAMES = 8, 6


def batch():
    """Pairwise different items."""
    rng = np.random.default_rng(1)

    def normal(*shape):
        return rng.normal(size=(SIZE, *shape)).astype(np.float32)

    onset = rng.uniform(0, 0.1, (SIZE, MAX_EVENTS)).astype(np.float32)
    made = {
        'latents': normal(FRAMES, LATENT_CHANNELS),
        'text': normal(MAX_TEXT_TOKENS, TEXT_WIDTH),
        'text_mask': np.ones((SIZE, MAX_TEXT_TOKENS), bool),
        'event_text': normal(MAX_EVENTS, TEXT_WIDTH),
        'onset_s': onset,
        'offset_s': onset + np.float32(0.1),
        'gain_db': normal(MAX_EVENTS),
        'event_mask': normal(MAX_EVENTS) > 0,
        'loudness_db': normal(FRAMES) - 30,
        'seconds': np.linspace(0.12, 0.24, SIZE).astype(np.float32),
    }
    return to_batch({name: jnp.asarray(array) for name, array in made.items()})


def assert_same_update(step, params, batch, rest, tx, model_parallel=1):
    """One update on one device and on four, from the same parameters.

    Args:
        step: (state, ...) to (state, metrics), by plain gradient descent.
        params: that are trained.
        batch: whose arrays are split.
        rest: of a batch on a mesh: the arguments behind the state.
        tx: the optimizer.
        model_parallel: of the four devices, how many share a model.
    """
    results, work = {}, {}
    meshes = {
        1: make_mesh(devices=jax.devices()[:1]),
        4: data_mesh(SIZE, model_parallel=model_parallel),
    }
    for count, mesh in meshes.items():
        state, split = create_state(place(mesh, params), tx), shard_batch(mesh, batch)
        held = {s.data.shape[0] for x in jax.tree.leaves(split) for s in x.addressable_shards}
        assert held == {SIZE // mesh.shape['data']}
        given = state, *rest(mesh, split)
        compiled = jit_update(step, mesh).lower(*given).compile()
        work[count] = compiled.cost_analysis()['flops']
        results[count] = compiled(*given)
    assert 0.2 < work[4] / work[1] < 0.35 + 0.15 * (model_parallel - 1)  # of one device
    (one, metrics_1), (four, metrics_4) = results[1], results[4]
    for name, value in metrics_1.items():
        np.testing.assert_allclose(metrics_4[name], value, rtol=1e-4, err_msg=name)
    gradients = [
        np.abs(g).max() for g in jax.tree.leaves(jax.tree.map(np.subtract, params, one.params))
    ]
    for a, b, own in zip(*map(jax.tree.leaves, (one.params, four.params)), gradients, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4 * max(own, 1e-2 * max(gradients)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-5), one.ema_params, four.ema_params
    )


def test_a_distillation_step_on_four_devices_is_that_of_one(experiment):
    """With plain gradient descent the update is the gradient, so both are compared."""
    model = Denoiser(**tiny.CONFIG['denoiser'])
    teacher, student = (tiny.random_params(denoiser_template(model), seed) for seed in (1, 2))
    recipe = Progressive(
        jnp.int32(4),
        functools.partial(as_denoiser, model),
        functools.partial(guided_denoiser, model),
        PATH,
        ratio=1,
        from_teacher=True,
    )
    tx = with_learning_rate(optax.sgd)
    step = functools.partial(
        experiment('distill').train_step,
        tx=tx,
        prepare=functools.partial(prepare, dropout=ConditionDropout(), onset_weight=4.0),
        ema_decay=0.9,
    )
    mask = jax.tree.map(lambda leaf: jnp.ones(()), student)
    assert_same_update(
        step,
        {STUDENT: student},
        batch(),
        lambda mesh, split: (
            (None, None, replicate(mesh, teacher), recipe, split, random_key(3), 1.0, mask)
        ),
        tx,
    )


@pytest.mark.parametrize('model_parallel', [1, 2])
def test_a_step_of_the_teachers_training_on_four_devices_is_that_of_one(
    experiment, monkeypatch, model_parallel
):
    monkeypatch.setattr(mesh_module, 'SMALL', 256)
    run, config = experiment('train_teacher'), foley_teacher.get_config('test')
    model = Denoiser(**tiny.CONFIG['denoiser'])
    params, tx = tiny.random_params(denoiser_template(model), 1), with_learning_rate(optax.sgd)
    step = functools.partial(run.train_step, model=model, tx=tx, config=config)
    assert_same_update(
        step,
        params,
        batch(),
        lambda mesh, split: (None, split, random_key(3), 1.0),
        tx,
        model_parallel,
    )


def test_a_step_of_the_autoencoder_on_four_devices_is_that_of_one(experiment):
    run, config = experiment('train_autoencoder'), foley_autoencoder.get_config('test')
    model = Autoencoder(**tiny.CONFIG['autoencoder'])
    params, tx = tiny.random_params(autoencoder_template(model), 1), optax.sgd(1.0)
    levels = np.random.default_rng(0).normal(size=(SIZE, 5, LEVELS)).astype(np.float32)
    assert_same_update(
        functools.partial(run.likelihood_step, model=model, tx=tx, config=config),
        run.networks(params),
        levels,
        lambda mesh, split: (replicate(mesh, params), split, random_key(3)),
        tx,
    )


def test_a_step_of_the_tower_on_four_devices_is_that_of_one(experiment):
    """Each compares its sounds with all captions, so that a part is done four times."""
    run, config = experiment('train_audio_tower'), foley_audio_tower.get_config('test')
    model, tx = AudioTower(**config.model), optax.sgd(1e2)  # its gradients are small
    rng = np.random.default_rng(0)
    sounds = {
        'log_mel': rng.normal(size=(SIZE, 2 * WINDOW_FRAMES, 64)).astype(np.float32),
        'text': rng.normal(size=(SIZE, TEXT_WIDTH)).astype(np.float32),
    }
    assert_same_update(
        functools.partial(run.train_step, model=model, tx=tx, ema_decay=0.9),
        tiny.random_params(tower_template(model), 1),
        sounds,
        lambda mesh, split: (split,),
        tx,
    )
