"""A distillation step on four devices: each computes a quarter, and the result is that of one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tiny

from realaudio_jax.distillation.progressive import Progressive
from realaudio_jax.distillation.recipe import STUDENT
from realaudio_jax.mesh import make_mesh
from realaudio_jax.models.denoiser import PATH, Denoiser, as_denoiser
from realaudio_jax.random import random_key
from realaudio_jax.release import denoiser_template
from realaudio_jax.teachers import ConditionDropout
from realaudio_jax.teachers.release import guided_denoiser, prepare, to_batch
from realaudio_jax.training.sharding import data_mesh, replicate, shard_batch
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
    step = jax.jit(
        functools.partial(
            experiment('distill').train_step,
            tx=tx,
            prepare=functools.partial(prepare, dropout=ConditionDropout(), onset_weight=4.0),
            ema_decay=0.9,
        )
    )
    mask = jax.tree.map(lambda leaf: jnp.ones(()), student)
    meshes = {1: make_mesh(devices=jax.devices()[:1]), 4: data_mesh(SIZE)}
    results, work = {}, {}
    for count, mesh in meshes.items():
        params = replicate(mesh, student)
        split = shard_batch(mesh, batch())
        assert {s.data.shape[0] for s in split.latents.addressable_shards} == {SIZE // count}
        given = (
            create_state({STUDENT: params}, tx),
            None,
            None,
            replicate(mesh, teacher),
            recipe,
            split,
        )
        compiled = step.lower(*given, random_key(3), 1.0, mask).compile()
        work[count] = compiled.cost_analysis()['flops']
        results[count] = compiled(*given, random_key(3), 1.0, mask)
    assert 0.2 < work[4] / work[1] < 0.35  # of one device
    (one, metrics_1), (four, metrics_4) = results[1], results[4]
    for name, value in metrics_1.items():
        np.testing.assert_allclose(metrics_4[name], value, rtol=1e-4, err_msg=name)
    trees = one.params, four.params, {STUDENT: student}
    for a, b, before in zip(*map(jax.tree.leaves, trees), strict=True):
        gradient = np.asarray(before) - np.asarray(a)
        np.testing.assert_allclose(b, a, atol=1e-4 * max(np.abs(gradient).max(), 1e-6))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one.ema_params, four.ema_params
    )
