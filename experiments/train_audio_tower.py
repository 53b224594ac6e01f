"""Trains a release's audio tower against its frozen text encoder.

python -m experiments.train_audio_tower --config=configs/foley_audio_tower.py --workdir=DIR
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from experiments.common import define_config, define_devices, define_workdir, run, run_workdir
from realaudio_jax import processes
from realaudio_jax.data.attribution import note_recordings
from realaudio_jax.data.cache import encode_scenes
from realaudio_jax.data.datasets import MixedScenes
from realaudio_jax.data.loader import batches
from realaudio_jax.data.mel_encoder import MelEncoder
from realaudio_jax.data.recordings_cache import folder_digest
from realaudio_jax.integrity import digest
from realaudio_jax.metrics.embedders.tower import load_text_embedder
from realaudio_jax.models.audio_tower import (
    FLOOR,
    WINDOW_FRAMES,
    AudioTower,
    contrastive_loss,
    cut_windows,
    recall_at_1,
)
from realaudio_jax.models.text_encoder import TOKENIZER_NAME, WEIGHTS_NAME
from realaudio_jax.packing import save_params
from realaudio_jax.random import random_key
from realaudio_jax.release import TOWER_NAME, find_release
from realaudio_jax.training.checkpoints import Checkpointer
from realaudio_jax.training.loop import Progress, StopRequest, require_finite
from realaudio_jax.training.run_folder import run_folder
from realaudio_jax.training.sharding import jit_update, place, shard_batch, training_mesh
from realaudio_jax.training.state import apply_gradients, create_state
from realaudio_jax.training.writers import MetricWriter
from realaudio_jax.typing import Array, PyTree

_CONFIG = define_config('configs/foley_audio_tower.py')
define_workdir()
_RECORDINGS = flags.DEFINE_string('recordings', None, 'Folder of sounds; none: foley alone.')
_RELEASE = flags.DEFINE_string('release', 'foley', 'Gives the text encoder.')
_MODEL_PARALLEL = define_devices()

RECALL_AMONG = 64


def augment(item, rng, gain_db: float):
    """Augments a sound by a random circular shift and a random level."""
    mel = item['log_mel'].astype(np.float32)
    mel = np.roll(mel, rng.integers(len(mel)), axis=0)
    level = np.float32(rng.uniform(-gain_db, gain_db) * np.log(10) / 20)
    mel = np.maximum(mel + level, np.float32(np.log(FLOOR)))
    return {'log_mel': mel, 'text': item['text'].astype(np.float32)}


def loss_of(model: AudioTower, params: PyTree, log_mel: Array, text: Array) -> Array:
    """Contrastive loss of one batch, on windows without overlap."""
    audio, log_scale = model.apply(params, cut_windows(log_mel, WINDOW_FRAMES))
    return contrastive_loss(audio, text, log_scale)


def train_step(state, batch, *, model, tx, ema_decay):
    """One update. Returns (state, metrics)."""
    loss, grads = jax.value_and_grad(
        lambda params: loss_of(model, params, batch['log_mel'], batch['text'])
    )(state.params)
    return apply_gradients(state, grads, tx, ema_decay), {'loss': loss}


def evaluate(embed, params, held_out, among: int = RECALL_AMONG) -> dict[str, float]:
    """Held-out recall@1 among groups of `among`, and the cosine to the own caption.

    Args:
        embed: (params, log_mel) to embeddings, compiled by the caller once for all evaluations.
        params: of the tower.
        held_out: encoded scenes, see `MelEncoder`.
        among: sounds of a group.
    """
    among = min(among, len(held_out))
    recalls, cosines = [], []
    for i in range(0, len(held_out) - among + 1, among):
        audio = embed(params, np.asarray(held_out.arrays['log_mel'][i : i + among], np.float32))
        text = jnp.asarray(held_out.arrays['text'][i : i + among], jnp.float32)
        recalls.append(float(recall_at_1(audio, text)))
        cosines.append(float(jnp.mean(jnp.sum(audio * text, axis=1))))
    return {'recall_at_1': np.mean(recalls), 'cosine': np.mean(cosines)}


def train(
    config, workdir: pathlib.Path, recordings, release, model_parallel: int = 1
) -> PyTree | None:
    """Trains and writes audio_tower.safetensors; returns averaged parameters, None if stopped."""
    folder = find_release(release)
    encode_text = load_text_embedder(folder)
    text_encoder = ' '.join(digest(folder / name) for name in (WEIGHTS_NAME, TOKENIZER_NAME))
    sets, dataset = {}, MixedScenes(recordings, config.foley_weight)
    encoder = MelEncoder(encode_text, text_encoder)
    for split, count in (('train', config.scenes), ('held_out', config.held_out)):
        seed = config.seed + (split == 'held_out')
        with Progress(count, f'{split} scenes') as progress:
            scenes = dataset.mixed(split, count, config.scene_seconds, seed)
            sets[split] = encode_scenes(encoder, scenes, workdir / 'mel', progress.update)

    mesh = training_mesh(config.batch_size, model_parallel=model_parallel)
    data = batches(
        sets['train'],
        config.batch_size,
        config.seed,
        functools.partial(augment, gain_db=config.gain_db),
    )
    model = AudioTower(**config.model)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup_steps, config.steps, 1e-5
    )
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, b2=0.98, weight_decay=config.weight_decay),
    )
    example = cut_windows(jnp.zeros((1, *sets['train'].arrays['log_mel'].shape[1:])), WINDOW_FRAMES)
    state = create_state(jax.jit(model.init)(random_key(config.seed), example), tx)
    state = place(mesh, state)
    step_fn = jit_update(
        functools.partial(train_step, model=model, tx=tx, ema_decay=config.ema_decay),
        mesh,
        donate_argnums=(0,),
    )

    embed = jax.jit(lambda params, log_mel: model.apply(params, cut_windows(log_mel))[0])

    with (
        MetricWriter(workdir) as writer,
        Checkpointer(workdir / 'checkpoints') as checkpointer,
        StopRequest() as stop,
    ):
        state = checkpointer.restore(state, data) or state
        start = int(state.step)
        with Progress(config.steps, 'audio tower', start) as progress:
            for step in range(start, config.steps):
                state, metrics = step_fn(state, shard_batch(mesh, next(data)))
                done = step + 1
                if done % config.log_every == 0:
                    require_finite(metrics['loss'], step, checkpointer)
                    writer.write(done, metrics, 'audio_tower')
                progress.update(done, metrics['loss'])
                if done % config.eval_every == 0 or done == config.steps:
                    figures = evaluate(embed, state.ema_params, sets['held_out'])
                    writer.write(done, figures, 'audio_tower')
                    among = min(RECALL_AMONG, len(sets['held_out']))
                    progress.say(
                        f'audio tower {done}: held-out recall@1 of {among} '
                        f'{figures["recall_at_1"]:.3f}, cosine {figures["cosine"]:.3f}'
                    )
                stopped = stop.agreed(done)
                if done % config.save_every == 0 or done == config.steps or stopped:
                    require_finite(metrics['loss'], step, checkpointer, state.ema_params)
                    checkpointer.save(state, data)
                if stopped:
                    break
    if int(state.step) < config.steps:
        return None
    processes.only_first(
        lambda: save_params(workdir / TOWER_NAME, state.ema_params, dtype='float16'), 'tower'
    )
    return state.ema_params


def main(argv):
    """Runs the command line."""
    del argv
    inputs = {'recordings': _RECORDINGS.value, 'release': _RELEASE.value}
    with run_folder(run_workdir(), _CONFIG.value, inputs, folder_digest=folder_digest) as workdir:
        processes.only_first(lambda: note_recordings(workdir, _RECORDINGS.value), 'recordings')
        train(_CONFIG.value, workdir, *inputs.values(), _MODEL_PARALLEL.value)


if __name__ == '__main__':
    run(main)
