"""A deeper network begins as the shallower one; a rotated code needs nothing but new ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from realaudio_jax.models.autoencoder import Autoencoder
from realaudio_jax.models.denoiser import Denoiser
from realaudio_jax.release import autoencoder_template, denoiser_template, empty_conditioning
from realaudio_jax.training.warm_start import change_code, deepen

MODEL = Denoiser(width=24, depth=2, heads=2)
T = jnp.asarray([0.3, 0.8])


@pytest.fixture(scope='module')
def params():
    return tiny.random_params(denoiser_template(MODEL), 0)


@pytest.fixture(scope='module')
def conditioning():
    c = empty_conditioning(2, 6)
    given = np.random.default_rng(1).normal(size=c.init.shape).astype(np.float32)
    mask = np.tile(np.arange(6) < 2, (2, 1)).astype(np.float32)
    return jax.tree.map(jnp.asarray, c.replace(init=given, init_mask=mask))


def apply(params, x, conditioning, depth=2):
    ones = jnp.ones(2)
    return MODEL.clone(depth=depth).apply(params, x, T, conditioning, ones, 0 * ones)


@pytest.fixture(scope='module')
def x():
    return jax.random.normal(jax.random.key(2), (2, 6, 64))


def test_more_blocks_begin_as_the_same_function(params, conditioning, x):
    deeper = deepen(params, 5)
    assert jax.tree.structure(deeper) == jax.tree.structure(denoiser_template(MODEL.clone(depth=5)))
    want = apply(params, x, conditioning)
    np.testing.assert_allclose(apply(deeper, x, conditioning, 5), want, atol=1e-5)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(deeper)]
    assert len(set(buffers)) == len(buffers)  # or a step could not donate its state
    # The old blocks are spread: neither end is all new.
    alive = [
        np.abs(deeper['params'][f'block_{i}']['mlp_out']['kernel']).max() > 0 for i in range(5)
    ]
    assert alive == [True, False, False, True, False]
    with pytest.raises(ValueError, match='2 blocks do not fit into 1'):
        deepen(params, 1)


def test_a_rotated_code_needs_new_ends_alone(params, conditioning, x):
    """x R in, v R out: white noise looks the same in every rotation."""
    old = tiny.random_params(autoencoder_template(Autoencoder(**tiny.CONFIG['autoencoder'])), 3)
    rng = np.random.default_rng(4)
    basis, _ = np.linalg.qr(rng.normal(size=(1024, 64)))
    rotation, _ = np.linalg.qr(rng.normal(size=(64, 64)))

    def code(turn, mean):
        ends = {
            'encoder': {'kernel': basis @ turn, 'mean': mean},
            'decoder': {'kernel': (basis @ turn).T, 'mean': mean},
        }
        tree = {k: old['params'][k] | jax.tree.map(jnp.asarray, ends[k]) for k in ends}
        return {'params': old['params'] | tree}

    shift = 0.1 * rng.normal(size=64)
    mean = rng.normal(size=1024)
    before, after = code(np.eye(64), mean), code(rotation, mean)
    changed = change_code(params, before, after)
    turned = conditioning.replace(init=conditioning.init @ rotation)
    want = apply(params, x, conditioning) @ rotation
    np.testing.assert_allclose(apply(changed, x @ rotation, turned), want, atol=2e-4)

    # Where the means differ, given latents are shifted too: e is the same sound in both.
    moved = code(rotation, mean + basis @ shift)
    changed = change_code(params, before, moved)
    turned = conditioning.replace(init=(conditioning.init - shift[None, None]) @ rotation)
    np.testing.assert_allclose(apply(changed, x @ rotation, turned), want, atol=2e-4)
