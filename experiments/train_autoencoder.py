"""Solves for the code, trains the decoder by maximum likelihood, then against a discriminator.

python -m experiments.train_autoencoder --config=configs/foley_autoencoder.py --workdir=DIR
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from experiments.common import define_config, define_devices, define_workdir, run, run_workdir
from realaudio_jax import audio as signal
from realaudio_jax import losses, processes
from realaudio_jax.data.attribution import note_recordings
from realaudio_jax.data.cache import (
    cache_key,
    code_digest,
    ensure,
    fill_arrays,
    open_arrays,
)
from realaudio_jax.data.crop_mixture import CropMixture
from realaudio_jax.data.recordings_cache import folder_digest
from realaudio_jax.models import autoencoder
from realaudio_jax.models.autoencoder import (
    LEVELS,
    Autoencoder,
    samples_per_latent,
)
from realaudio_jax.models.discriminator import Discriminator
from realaudio_jax.packing import save_params
from realaudio_jax.random import random_key
from realaudio_jax.release import AUTOENCODER_KEY, AUTOENCODER_NAME, load_params
from realaudio_jax.training.checkpoints import Checkpointer
from realaudio_jax.training.loop import Progress, StopRequest, require_finite
from realaudio_jax.training.pca import fit_pca, level_weight
from realaudio_jax.training.run_folder import run_folder
from realaudio_jax.training.sharding import jit_update, place, shard_batch, training_mesh
from realaudio_jax.training.state import apply_gradients, create_state
from realaudio_jax.training.writers import MetricWriter
from realaudio_jax.typing import Array, PyTree

_CONFIG = define_config('configs/foley_autoencoder.py')
define_workdir()
_RECORDINGS = flags.DEFINE_string('recordings', None, 'Folder of sounds; none: foley alone.')

_CODE = flags.DEFINE_string('code', None, 'An autoencoder.safetensors whose code is kept.')
_MODEL_PARALLEL = define_devices()
SOLVED = ('mean', 'kernel', 'residual')  # of the decoder, by `pca.fit_pca`


def spectral_loss(output, audio, sample_rate, config):
    """The weighted losses on spectra. Returns (loss, metrics)."""
    mel, linear = losses.mel_loss(output, audio, sample_rate)
    metrics = {
        'mel': jnp.mean(mel),
        'linear': jnp.mean(linear),
        'energy': jnp.mean(losses.energy_loss(output, audio, sample_rate)),
        'complex': jnp.mean(losses.complex_loss(output, audio)),
    }
    loss = (
        config.mel_weight * metrics['mel']
        + config.linear_weight * metrics['linear']
        + config.energy_weight * metrics['energy']
        + config.complex_weight * metrics['complex']
    )
    return loss, metrics


def likelihood_step(state, frozen, levels, key, *, model, tx, config):
    """One step of the decoder's networks on ln p(levels | latents). Returns (state, metrics)."""
    noise = jax.random.normal(key, (*levels.shape[:2], model.channels))

    def loss_fn(decoder):
        params = merge(frozen, decoder)
        weight = level_weight(**config.weights)
        return -jnp.mean(model.apply(params, levels, noise, weight, method='log_likelihood'))

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return apply_gradients(state, grads, tx, config.ema_decay), {'loss': loss}


def adversarial_step(
    state, frozen, audio, key, *, sample_rate, model, discriminator, tx, discriminator_tx, config
):
    """One step of decoder and discriminator, the code frozen. Returns (state, metrics)."""
    posterior = model.apply(frozen, audio, sample_rate, method='posterior')
    latents = posterior.sample(jax.random.normal(key, posterior.mean.shape))

    def generator_loss(decoder):
        output = model.apply(merge(frozen, decoder), latents, sample_rate, method='decode')
        fake, fake_features = discriminator.apply(state['discriminator'].params, output)
        _, real_features = discriminator.apply(state['discriminator'].params, audio)
        spectra, metrics = spectral_loss(output, audio, sample_rate, config)
        adversarial = losses.generator_hinge(fake)
        features = losses.feature_matching(real_features, fake_features)
        loss = (
            config.adversarial_spectral_weight * spectra
            + config.adversarial_weight * adversarial
            + config.feature_weight * features
        )
        metrics |= {'loss': loss, 'generator': adversarial, 'features': features}
        return loss, (metrics, output)

    def discriminator_loss(params, output):
        real, _ = discriminator.apply(params, audio)
        fake, _ = discriminator.apply(params, output)
        return losses.discriminator_hinge(real, fake)

    grads, (metrics, output) = jax.grad(generator_loss, has_aux=True)(state['decoder'].params)
    d_loss, d_grads = jax.value_and_grad(discriminator_loss)(
        state['discriminator'].params, jax.lax.stop_gradient(output)
    )
    state = {
        'step': state['step'] + 1,
        'decoder': apply_gradients(state['decoder'], grads, tx, config.ema_decay),
        'discriminator': apply_gradients(state['discriminator'], d_grads, discriminator_tx, 0.0),
    }
    return state, metrics | {'discriminator': d_loss}


def merge(params: PyTree, networks: PyTree) -> PyTree:
    """The autoencoder's parameters with other networks in its decoder."""
    tree = params['params']
    return {'params': {**tree, 'decoder': {**tree['decoder'], **networks}}}


def networks(params: PyTree) -> PyTree:
    """What is trained: the decoder without the code that was solved for."""
    return {k: v for k, v in params['params']['decoder'].items() if k not in SOLVED}


def level_pool(folder: pathlib.Path, model: Autoencoder, data: CropMixture, config) -> np.ndarray:
    """Band levels [crops, L, E] of `pool_batches` batches: measured once, they serve every step.

    Args:
        folder: where caches lie.
        model, data, config: see `train`.
    """
    measure = jax.jit(
        lambda audio, rate: model.apply({'params': {}}, audio, rate, method='levels'),
        static_argnums=1,
    )
    key = cache_key(
        'levels',
        data=data.digest,
        batches=config.pool_batches,
        crop_latents=config.crop_latents,
        rates=config.rates,
        code=code_digest(autoencoder, signal),
    )

    def measured():
        with Progress(config.pool_batches, 'levels') as progress:
            for i in range(config.pool_batches):
                audio, rate = crops(data, i, config)
                yield {'levels': np.asarray(measure(audio, rate), np.float16)}
                progress.update(i + 1)

    count = config.pool_batches * config.batch_size
    made = ensure(folder / key, lambda new: fill_arrays(new, count, measured()))
    return open_arrays(made)[0]['levels']


def crops(data: CropMixture, index: int, config) -> tuple[np.ndarray, int]:
    """Batch `index` and its sample rate, the configured rates in turn."""
    rate = config.rates[index % len(config.rates)]
    return data.crops(index, config.crop_latents * samples_per_latent(rate)), rate


def evaluate(model: Autoencoder, held_out: np.ndarray, weight: np.ndarray):
    """A function of parameters: figures of held-out crops from the posterior's mean."""

    @jax.jit
    def figures(params: PyTree, held_out: Array) -> dict[str, Array]:
        levels = model.apply(params, held_out, 48_000, method='levels')
        mean = model.apply(params, held_out, 48_000, method='encode')
        output = model.apply(params, mean, 48_000, method='decode')
        still = jnp.zeros_like(mean)
        likelihood = model.apply(params, levels, still, weight, method='log_likelihood')
        mel, linear = losses.mel_loss(output, held_out, 48_000)
        return {
            'held_out_loss': -jnp.mean(likelihood),
            'held_out_mel': jnp.mean(mel),
            'held_out_linear': jnp.mean(linear),
        }

    return lambda params: figures(params, held_out)


def run_stage(stage, state, step_fn, params_of, draw, held_out_figures, config, workdir, steps):
    """The loop of every stage: data, step, log, evaluate, save. Returns (state, finished)."""
    with (
        MetricWriter(workdir) as writer,
        Checkpointer(workdir / stage) as checkpointer,
        StopRequest() as stop,
    ):
        state = checkpointer.restore(state) or state
        start = int(_step(state))
        with Progress(steps, stage, start) as progress:
            for step in range(start, steps):
                key = jax.random.fold_in(random_key(config.seed), step)
                state, metrics = step_fn(state, draw(step), key)
                if (step + 1) % config.log_every == 0:
                    require_finite(metrics['loss'], step, checkpointer)
                    writer.write(step + 1, metrics, stage)
                progress.update(step + 1, metrics['loss'])
                if (step + 1) % config.eval_every == 0:
                    held_out = held_out_figures(params_of(state))
                    writer.write(step + 1, held_out, stage)
                    shown = ', '.join(f'{k} {float(v):.4f}' for k, v in held_out.items())
                    progress.say(f'{stage} {step + 1}: {shown}')
                done, stopped = step + 1 == steps, stop.agreed(step + 1)
                if (step + 1) % config.save_every == 0 or done or stopped:
                    require_finite(metrics['loss'], step, checkpointer, params_of(state))
                    checkpointer.save(state)
                if stopped:
                    break
    return state, int(_step(state)) >= steps


def _step(state) -> Array:
    return state['step'] if isinstance(state, dict) else state.step


def train(
    config, workdir: pathlib.Path, recordings: str | None, code=None, model_parallel: int = 1
) -> PyTree | None:
    """All stages; writes autoencoder.safetensors. Returns the parameters, None if stopped.

    Args:
        config: see `configs/foley_autoencoder.py`.
        workdir: where everything goes.
        recordings: folder with metadata.csv, or None for foley alone.
        code: an autoencoder.safetensors whose code is kept, so that latents stay what they are.
        model_parallel: devices that share one copy of the networks.
    """
    model = Autoencoder(**config.model.to_dict())
    data = CropMixture(recordings, config.foley_fraction, config.batch_size, config.seed)
    held_out = CropMixture(
        recordings, config.foley_fraction, config.eval_crops, config.seed + 1, 'held_out'
    ).crops(0, config.crop_latents * 1920)
    weight = level_weight(**config.weights)
    held_out_figures = evaluate(model, held_out, weight)

    audio = jnp.zeros((1, 4 * 1920, 2))
    params = jax.jit(lambda key: model.init(key, audio, jnp.zeros((1, 4, model.channels)), 48_000))(
        random_key(config.seed)
    )
    pool = level_pool(workdir / 'levels', model, data, config)
    # Decided once: a teacher may already have been trained on the latents of this code.
    code_path = workdir / 'code.safetensors'

    def with_code() -> PyTree:
        if code or code_path.exists():
            return load_params(code or code_path, params)
        every = max(1, len(pool) * config.crop_latents // 40_000)
        solved = fit_pca(params, pool.reshape(-1, LEVELS)[::every].astype(np.float32), weight)
        save_params(code_path, solved)
        return solved

    mesh = training_mesh(config.batch_size, model_parallel=model_parallel)
    params = place(mesh, processes.first_then_all(with_code, 'code'))
    rows = processes.share(config.batch_size)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        config.warmup_steps,
        max(config.likelihood_steps, config.warmup_steps + 1),
        1e-5,
    )
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.99))
    state = place(mesh, create_state(networks(params), tx))
    step_fn = jit_update(
        functools.partial(likelihood_step, model=model, tx=tx, config=config), mesh
    )

    def some_levels(step):
        rng = np.random.default_rng([config.seed, step])
        chosen = np.sort(rng.choice(len(pool), config.batch_size, replace=False))
        return shard_batch(mesh, pool[chosen[rows]].astype(np.float32))

    def some_sounds(step):
        audio, rate = crops(data, config.pool_batches + step, config)
        return shard_batch(mesh, audio[rows]), rate

    # Frozen parameters are an argument of the compiled step, not part of its closure.
    state, finished = run_stage(
        'likelihood',
        state,
        lambda state, levels, key: step_fn(state, params, levels, key),
        lambda s: merge(params, s.ema_params),
        some_levels,
        held_out_figures,
        config,
        workdir,
        config.likelihood_steps,
    )
    if not finished:
        return None
    trained = state.ema_params
    save_to(workdir, merge(params, trained), config)
    if not config.adversarial_steps:
        return merge(params, trained)

    discriminator = Discriminator()
    schedule = optax.cosine_decay_schedule(
        config.adversarial_learning_rate, config.adversarial_steps, 0.02
    )
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b1=0.8, b2=0.99))
    discriminator_tx = optax.adam(config.discriminator_learning_rate, b1=0.8, b2=0.99)
    weights = jax.jit(discriminator.init)(random_key(config.seed), audio)
    state = {
        'step': jnp.zeros((), jnp.int32),
        'decoder': create_state(trained, tx),
        'discriminator': create_state(weights, discriminator_tx),
    }
    state = place(mesh, state)
    step_fn = jit_update(
        functools.partial(
            adversarial_step,
            model=model,
            discriminator=discriminator,
            tx=tx,
            discriminator_tx=discriminator_tx,
            config=config,
        ),
        mesh,
        static_argnames=('sample_rate',),
    )
    state, finished = run_stage(
        'adversarial',
        state,
        lambda state, batch, key: step_fn(state, params, batch[0], key, sample_rate=batch[1]),
        lambda s: merge(params, s['decoder'].ema_params),
        some_sounds,
        held_out_figures,
        config,
        workdir,
        config.adversarial_steps,
    )
    if not finished:
        return None
    params = merge(params, state['decoder'].ema_params)
    save_to(workdir, params, config)
    return params


def save_to(workdir: pathlib.Path, params: PyTree, config) -> None:
    """Writes parameters and their model's size, of several processes by the first."""
    metadata = {AUTOENCODER_KEY: json.dumps(config.model.to_dict())}
    path = workdir / AUTOENCODER_NAME
    processes.only_first(lambda: save_params(path, params, metadata), path.name)


def main(argv):
    """Runs the command line."""
    del argv
    inputs = {'recordings': _RECORDINGS.value, 'code': _CODE.value}
    with run_folder(run_workdir(), _CONFIG.value, inputs, folder_digest=folder_digest) as workdir:
        processes.only_first(
            lambda: note_recordings(workdir, _RECORDINGS.value, [_CODE.value]), 'recordings'
        )
        train(_CONFIG.value, workdir, *inputs.values(), _MODEL_PARALLEL.value)


if __name__ == '__main__':
    run(main)
