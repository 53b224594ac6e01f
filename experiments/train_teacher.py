"""Trains the teacher: v-prediction on latents of scenes, with text and timeline.

python -m experiments.train_teacher --config=configs/foley_teacher.py --workdir=DIR
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from experiments.common import (
    define_config,
    define_devices,
    define_workdir,
    define_workers,
    run,
    run_workdir,
)
from realaudio_jax import low_rank, processes
from realaudio_jax.data.attribution import note_recordings
from realaudio_jax.data.cache import encode_scenes, joined
from realaudio_jax.data.datasets import MixedScenes, fresh_crops, scene_source
from realaudio_jax.data.fresh import FreshCrops
from realaudio_jax.data.frozen_encoders import FrozenEncoders, load_frozen_encoders
from realaudio_jax.data.latent_crops import RandomCrops
from realaudio_jax.data.recordings_cache import folder_digest
from realaudio_jax.data.scene_encoder import SceneEncoder
from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.models.denoiser import PATH, Denoiser
from realaudio_jax.noise import diffuse
from realaudio_jax.packing import (
    NETWORK_KEY,
    initial_weights_path,
    load_initial_weights,
    save_params,
)
from realaudio_jax.random import random_key
from realaudio_jax.release import (
    TEACHER_NAME,
    denoiser_template,
    find_release,
    load_autoencoder,
    read_release,
    read_tensors,
)
from realaudio_jax.teachers import ConditionDropout
from realaudio_jax.teachers.release import prepare, to_batch, with_onset_weight
from realaudio_jax.training.checkpoints import Checkpointer
from realaudio_jax.training.early_stopping import EarlyStopping
from realaudio_jax.training.loop import Progress, StopRequest, require_finite
from realaudio_jax.training.run_folder import run_folder
from realaudio_jax.training.sharding import (
    jit_update,
    place,
    replicate,
    shard_batch,
    training_mesh,
)
from realaudio_jax.training.state import (
    TrainState,
    apply_gradients,
    create_state,
    with_learning_rate,
)
from realaudio_jax.training.warm_start import change_code, deepen, with_curves
from realaudio_jax.training.writers import MetricWriter
from realaudio_jax.typing import Array, PyTree

_CONFIG = define_config('configs/foley_teacher.py')
define_workdir()
_RECORDINGS = flags.DEFINE_string(
    'recordings', None, 'Folder of sounds, see docs/own_data.md; none: foley alone.'
)
_RELEASE = flags.DEFINE_string('release', 'foley', 'Gives text encoder and autoencoder.')
_INIT = flags.DEFINE_string(
    'init',
    None,
    'A teacher.safetensors to start from, or a release, whose adapter is trained on if the config '
    'has a rank; none: from nothing. A release gives the size of the network, too.',
)
_INIT_CODE = flags.DEFINE_string(
    'init_code', None, 'The autoencoder.safetensors whose latents --init knows, if it is another.'
)
_AUTOENCODER = flags.DEFINE_string('autoencoder', None, 'Another autoencoder.safetensors.')
_WORKERS = define_workers()
_MODEL_PARALLEL = define_devices()


def diffusion_loss(
    model: Denoiser,
    params: PyTree,
    batch: Batch,
    key: Array,
    emphasis: tuple[float, float, float] | None = None,
    dropout: Array | None = None,
) -> Array:
    """Mean |v - v_hat|^2 over real frames [B], t stratified over the batch (2107.00630, I.1).

    Args:
        model, params, batch, key: network, its parameters, what it learns, of times and noise.
        emphasis: (low, high, w): times from low to high are drawn w times as often; None: evenly.
        dropout: key of the network's dropout; None: none.
    """
    size = batch.latents.shape[0]
    key_t, key_noise = jax.random.split(key)
    t = (jax.random.uniform(key_t) + jnp.arange(size) / size) % 1.0
    if emphasis:
        t = emphasised(t, *emphasis)
    eps = jax.random.normal(key_noise, batch.latents.shape)
    x_t = diffuse(PATH, batch.latents, eps, t)
    v = PATH.alpha(t)[:, None, None] * eps - PATH.sigma(t)[:, None, None] * batch.latents
    ones = jnp.ones(size)
    rngs = {} if dropout is None else {'dropout': dropout}
    prediction = model.apply(params, x_t, t, batch.conditioning, ones, jnp.zeros(size), rngs=rngs)
    error = jnp.mean(jnp.square(prediction - v), axis=-1) * batch.mask
    return jnp.sum(error, axis=-1) / jnp.maximum(jnp.sum(batch.mask, axis=-1), 1.0)


def emphasised(u: Array, low: float, high: float, weight: float) -> Array:
    """Quantile u of a density on [0, 1] that is `weight` times as high between low and high."""
    edges = np.array([0.0, low, high, 1.0])
    masses = np.diff(edges) * (1.0, weight, 1.0)
    return jnp.interp(u, jnp.asarray(np.cumsum([0, *masses]) / masses.sum()), jnp.asarray(edges))


def train_step(state, base, batch, key, learning_rate, *, model, tx, config):
    """One update of what is trained of a network, see `low_rank.trainable`; (state, metrics)."""
    key, dropout = jax.random.split(key) if config.dropout else (key, None)
    key_conditions, key_loss = jax.random.split(key)
    batch = prepare(
        batch, key_conditions, ConditionDropout(**config.condition_dropout), config.onset_weight
    )
    emphasis = tuple(config.emphasis.values()) if config.emphasis.weight != 1 else None

    def loss_fn(trained):
        params = low_rank.join(base, trained)
        return jnp.mean(diffusion_loss(model, params, batch, key_loss, emphasis, dropout))

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    state = apply_gradients(state, grads, tx, config.ema_decay, learning_rate)
    return state, {'loss': loss, 'gradient_norm': optax.tree.norm(grads)}


def optimizer(learning_rate, name: str) -> optax.GradientTransformation:
    """AdamW, or Muon (Jordan 2024) for the matrices of the blocks and AdamW for everything else.

    Muon's updates are brought to the size of Adam's (Liu et al. 2025, arXiv 2502.16982, eq. 4), so
    one learning rate serves both. Adam, which leaves alone what has no gradient, is for adapters.
    """
    if name == 'adam':
        step = optax.adam(learning_rate, b2=0.99)
    elif name == 'adamw':
        step = optax.adamw(learning_rate, b2=0.99)
    elif name == 'muon':
        step = optax.contrib.muon(
            learning_rate,
            weight_decay=1e-4,
            adam_b2=0.99,
            adam_weight_decay=1e-4,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=_matrices_of_blocks,
        )
    else:
        raise ValueError(f'no optimizer {name!r}; use adam, adamw or muon')
    return optax.chain(optax.clip_by_global_norm(1.0), step)


def _matrices_of_blocks(params: PyTree) -> PyTree:
    def dimensions(path, leaf):
        inside = any('block_' in str(key) for key in path)
        return optax.contrib.MuonDimensionNumbers() if inside and leaf.ndim == 2 else None

    return jax.tree_util.tree_map_with_path(dimensions, params)


def init_state(model: Denoiser, batch: Batch, tx, seed: int) -> TrainState:
    """Fresh parameters and optimizer."""
    size = batch.latents.shape[0]
    ones = jnp.ones(size)
    params = jax.jit(model.init)(
        random_key(seed), batch.latents, ones, batch.conditioning, ones, ones
    )
    return create_state(params, tx)


def warm_start(
    model: Denoiser, encoders: FrozenEncoders, init, init_code, release
) -> tuple[PyTree, PyTree | None]:
    """An earlier teacher, as deep as `model`, for today's latents and curves, and its adapter.

    An adapter becomes part of a network that is changed; else it stays apart. None: it had none.
    """
    names = read_tensors(initial_weights_path(init, TEACHER_NAME))
    curves = tuple(c for c in model.curves if f'params/curve_{c}/kernel' in names)
    depth = len({name.split('/')[1] for name in names if '/block_' in name})
    earlier = model.clone(depth=depth, curves=curves)
    if init_code:
        old, code = load_autoencoder(release, init_code)
        earlier = earlier.clone(channels=old.channels)
    params, adapter = load_initial_weights(init, TEACHER_NAME, denoiser_template(earlier))
    if init_code or depth != model.depth or curves != model.curves:
        params, adapter = low_rank.merge(params, adapter), None
    if init_code:
        params = change_code(params, code, encoders.autoencoder_params)
    return with_curves(deepen(params, model.depth), model.curves), adapter


def network_of(config, init) -> dict:
    """The denoiser's arguments: the config's, or those of the release that the run begins with.

    A config that has more blocks than that release makes it deeper.
    """
    wanted = config.model.to_dict()
    if not init or initial_weights_path(init, TEACHER_NAME) == pathlib.Path(init):
        return wanted
    known = read_release(find_release(init)).denoiser.to_dict()
    return wanted | known | {'depth': max(wanted['depth'], known['depth'])}


def training_crops(
    encoders: FrozenEncoders,
    config,
    batch_size: int,
    dataset: MixedScenes,
    unmixed: int,
    folder: pathlib.Path,
    workers: int,
    curves: tuple[str, ...],
) -> RandomCrops | FreshCrops:
    """Endless batches of scenes mixed once, or, with `config.data.fresh`, anew all along."""
    c, seconds, seed = config.data, config.scene_seconds, config.seed
    if c.fresh:
        if config.recordings:
            raise ValueError(
                'config.recordings belongs to scenes that are mixed once; with config.data.fresh '
                'set config.data.unmixed'
            )
        return fresh_crops(
            encoders,
            scene_source(dataset.recordings, dataset.foley_weight, balance=c.balance),
            seconds,
            seed,
            batch_size,
            config.crop_seconds,
            config.scenes,
            c.uses,
            c.unmixed,
            c.responses,
            folder,
            workers,
            curve_names=curves,
        )
    encoder = SceneEncoder(encoders, curves=curves)
    sets = {'scenes': dataset.mixed('train', config.scenes, seconds, seed, workers)}
    if config.recordings and unmixed:
        sets['recordings'] = dataset.unmixed(config.recordings, seconds, seed)
    encoded = []
    for name, scenes in sets.items():
        with Progress(scenes.count, name) as progress:
            encoded.append(encode_scenes(encoder, scenes, folder, progress.update))
    return RandomCrops(joined(*encoded), batch_size, seed, config.crop_seconds)


def train(
    config,
    workdir: pathlib.Path,
    recordings,
    release,
    autoencoder,
    init=None,
    init_code=None,
    workers: int = 0,
    model_parallel: int = 1,
) -> PyTree | None:
    """The run; writes teacher.safetensors. Returns the averaged parameters, None if stopped."""
    if config.rank and config.optimizer != 'adam':
        raise ValueError(f'{config.optimizer} would change the base of an adapter; use adam')
    dataset = MixedScenes(recordings, config.foley_weight)
    unmixed = dataset.require(config.scene_seconds)
    if config.recordings and recordings and not unmixed:
        raise ValueError(
            f'{recordings}: no recording of 4 to {config.scene_seconds:g} s for config.recordings; '
            'leave it at 0'
        )
    encoders = load_frozen_encoders(release, autoencoder)
    network = network_of(config, init) | {'channels': encoders.autoencoder.channels}
    curves = tuple(network.get('curves') or ())
    held_out = encode_scenes(
        SceneEncoder(encoders, curves=curves),
        dataset.mixed(
            'held_out', min(64, config.scenes), config.scene_seconds, config.seed + 1, workers
        ),
        workdir / 'latents',
    )

    batch_size = max(1, int(config.batch_seconds / config.scene_seconds))
    mesh = training_mesh(batch_size, model_parallel=model_parallel)
    data = training_crops(
        encoders, config, batch_size, dataset, unmixed, workdir / 'latents', workers, curves
    )
    model = Denoiser(**network, dropout=config.dropout)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, min(config.warmup_steps, config.steps // 2), config.steps, 1e-5
    )
    rates = np.asarray(jax.vmap(schedule)(jnp.arange(config.steps)))
    tx = with_learning_rate(functools.partial(optimizer, name=config.optimizer))
    held_out_batch = to_batch(held_out.rows(slice(None)))
    state = init_state(model, jax.tree.map(lambda x: x[:1], held_out_batch), tx, config.seed)
    base, parts = None, (state.params, None)
    if init:
        parts = warm_start(model, encoders, init, init_code, release)
    if init or config.rank:
        base, trained = low_rank.trainable(random_key(config.seed), *parts, config.rank)
        state = create_state(trained, tx)
    state, base = place(mesh, state), place(mesh, base)
    step_fn = jit_update(
        functools.partial(train_step, model=model, tx=tx, config=config),
        mesh,
        donate_argnums=(0,),
    )
    evaluate = jax.jit(
        lambda base, trained, batch: jnp.mean(
            diffusion_loss(model, low_rank.join(base, trained), batch, random_key(0))
        )
    )
    held_out_onsets = with_onset_weight(held_out_batch, 1e3)  # hardly anything else counts
    held_out_batch, held_out_onsets = replicate(mesh, (held_out_batch, held_out_onsets))

    key = random_key(config.seed)
    with (
        MetricWriter(workdir) as writer,
        Checkpointer(workdir / 'checkpoints') as checkpointer,
        StopRequest() as stop,
    ):
        state = checkpointer.restore(state, data) or state
        start, stopping = int(state.step), EarlyStopping(workdir, config.patience)
        ended = start >= config.steps or stopping.ends(start)
        with Progress(config.steps, 'teacher', start) as progress:
            for step in range(start, start if ended else config.steps):
                batch = shard_batch(mesh, to_batch(next(data)))
                state, metrics = step_fn(
                    state, base, batch, jax.random.fold_in(key, step), rates[step]
                )
                done = step + 1
                if done % config.log_every == 0:
                    require_finite(metrics['loss'], step, checkpointer)
                    writer.write(done, metrics, 'teacher')
                progress.update(done, metrics['loss'])
                if done % config.eval_every == 0:
                    losses = {
                        'held_out_loss': evaluate(base, state.ema_params, held_out_batch),
                        'held_out_loss_at_onsets': evaluate(
                            base, state.ema_params, held_out_onsets
                        ),
                    }
                    writer.write(done, losses, 'teacher')
                    figures = (f'{name} {float(loss):.4f}' for name, loss in losses.items())
                    progress.say(f'teacher {done}: {", ".join(figures)}'.replace('_', ' '))
                    stopping.update(done, float(losses['held_out_loss']), state.ema_params)
                ended = done == config.steps or stopping.ends(done)
                stopped = stop.agreed(done)
                if done % config.save_every == 0 or ended or stopped:
                    require_finite(metrics['loss'], step, checkpointer, state.ema_params)
                    checkpointer.save(state, data)
                if ended or stopped:
                    break
    if isinstance(data, FreshCrops):
        data.close()
    if not ended:
        return None
    params = low_rank.join(base, stopping.best(state.ema_params))
    network.pop('dtype', None)  # of this run's products, not of the network
    metadata = {NETWORK_KEY: json.dumps(network)}
    processes.only_first(
        lambda: save_params(workdir / 'teacher.safetensors', params, metadata), 'teacher'
    )
    return params


def main(argv):
    """Runs the command line."""
    del argv
    given = (_RECORDINGS, _RELEASE, _AUTOENCODER, _INIT, _INIT_CODE)
    inputs = {flag.name: flag.value for flag in given}
    with run_folder(run_workdir(), _CONFIG.value, inputs, folder_digest=folder_digest) as workdir:
        starts = [initial_weights_path(_INIT.value, TEACHER_NAME)] if _INIT.value else []
        processes.only_first(
            lambda: note_recordings(workdir, _RECORDINGS.value, starts), 'recordings'
        )
        train(_CONFIG.value, workdir, *inputs.values(), _WORKERS.value, _MODEL_PARALLEL.value)


if __name__ == '__main__':
    run(main)
