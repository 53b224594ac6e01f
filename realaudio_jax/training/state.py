"""State of a training run and its update: optimizer step, then average of the weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from realaudio_jax.training.sharding import place
from realaudio_jax.typing import Array, Float, Int, PyTree


class TrainState(flax.struct.PyTreeNode):
    """Everything a run needs to continue, as one pytree.

    Args:
        step: int32 scalar, number of updates already applied.
        params: trainable parameters.
        ema_params: exponential moving average of `params`, same structure and dtypes.
        opt_state: state of the optax transformation.
    """

    # Not shape-checked: transformations put tracers, shardings and structs in these fields.
    step: Any
    params: Any
    ema_params: Any
    opt_state: Any


def create_state(params: PyTree, tx: optax.GradientTransformation) -> TrainState:
    """State of step 0, whose average equals the parameters.

    The average is a copy, never the same buffer, so a jitted step may donate the whole state. If
    some parameters are on a mesh, so is all the rest: an update would put it there, and a jitted
    step be compiled a second time for where its arguments are.

    Args:
        params: initial parameters.
        tx: optimizer.

    Returns:
        The state before the first update.
    """
    average, opt_state = _beginning(params, tx)
    state = TrainState(
        step=jnp.zeros((), jnp.int32), params=params, ema_params=average, opt_state=opt_state
    )
    mesh = next(filter(None, map(_mesh_of, jax.tree.leaves(params))), None)
    if mesh is None:
        return state
    return place(mesh, state)


@functools.partial(jax.jit, static_argnums=1)
def _beginning(params: PyTree, tx: optax.GradientTransformation) -> tuple[PyTree, Any]:
    """The first average and optimizer state: one program, not one for each shape of parameter."""
    return jax.tree.map(jnp.array, params), tx.init(params)


def _mesh_of(leaf: Any) -> Mesh | None:
    """The mesh that an array is on; None for one that is on no mesh, or traced."""
    if isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, jax.Array):
        return None
    return leaf.sharding.mesh if isinstance(leaf.sharding, NamedSharding) else None


def ema_decay_at(step: Int[Array, ''], decay: float) -> Float[Array, '']:
    """Decay of the average at one step: min(decay, (1 + step) / (10 + step)).

    The ramp lets the average forget the random initial weights.

    Args:
        step: updates applied before this one.
        decay: final decay, 0 to 1; 0 keeps the average equal to the parameters.

    Returns:
        The decay to use, a float32 scalar.
    """
    step = jnp.asarray(step, jnp.float32)
    return jnp.minimum(jnp.float32(decay), (1.0 + step) / (10.0 + step))


def with_learning_rate(
    build: Callable[[Any], optax.GradientTransformation],
) -> optax.GradientTransformation:
    """An optimizer whose learning rate is an argument of each update, see `apply_gradients`.

    A schedule inside the compiled step would make another program of every length of run.

    Args:
        build: learning rate to optimizer.
    """
    return optax.inject_hyperparams(build)(learning_rate=0.0)


def apply_gradients(
    state: TrainState,
    grads: PyTree,
    tx: optax.GradientTransformation,
    ema_decay: float,
    learning_rate: Float[Array, ''] | float | None = None,
) -> TrainState:
    """One update: params += tx(grads); ema = d * ema + (1 - d) * params, d from `ema_decay_at`.

    Args:
        state: state before the update.
        grads: gradients, the structure of `state.params`.
        tx: the optimizer that made `state.opt_state`.
        ema_decay: final decay of the average, 0 to 1.
        learning_rate: of this update, for an optimizer made by `with_learning_rate`.

    Returns:
        The state after the update, its step one larger.
    """
    opt_state = state.opt_state
    if learning_rate is not None:
        rate = {'learning_rate': jnp.asarray(learning_rate, jnp.float32)}
        opt_state = opt_state._replace(hyperparams=opt_state.hyperparams | rate)
    updates, opt_state = tx.update(grads, opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    decay = ema_decay_at(state.step, ema_decay)

    def average(old: Array, new: Array) -> Array:
        # Summed in float32 or wider: in bfloat16 an increment of 1e-4 would be rounded away.
        mean = decay * old + (1.0 - decay) * new
        return mean.astype(old.dtype)

    return TrainState(
        step=state.step + 1,
        params=params,
        ema_params=jax.tree.map(average, state.ema_params, params),
        opt_state=opt_state,
    )
