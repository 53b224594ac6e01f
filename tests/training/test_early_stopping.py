"""The best weights are kept over a stop, and the run ends so many steps after them."""

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.training.early_stopping import EarlyStopping


def weights(value):
    return {'dense': {'kernel': jnp.full((2, 3), value, jnp.float32)}}


def test_it_ends_after_the_lowest_loss_and_gives_its_weights(tmp_path):
    losses = {10: 3.0, 20: 1.0, 30: 2.0, 40: 1.5}
    first = EarlyStopping(tmp_path, 20)
    for step, loss in list(losses.items())[:3]:
        first.update(step, loss, weights(step))
        assert not first.ends(step)
    resumed = EarlyStopping(tmp_path, 20)  # from a checkpoint of step 20
    for step in (30, 40):
        resumed.update(step, losses[step], weights(step))
    assert resumed.ends(40) and resumed.step == 20
    jax.tree.map(np.testing.assert_array_equal, resumed.best(weights(40)), weights(20))


def test_without_patience_it_keeps_nothing_and_never_ends(tmp_path):
    stopping = EarlyStopping(tmp_path, 0)
    stopping.update(10, 1.0, weights(10))
    assert not stopping.ends(10_000) and not list(tmp_path.iterdir())
    last = weights(20)
    assert stopping.best(last) is last
