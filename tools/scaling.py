"""What a step at paper size computes and sends, on 8 to 256 devices: on paper, not measured.

    python tools/scaling.py

FLOP are XLA's count of the step as it is lowered for shapes alone (nothing runs, no memory is
taken); bytes follow from the number of parameters. docs/several_devices.md has the table and the
formulas.
"""

import functools
import importlib
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from realaudio_jax.distillation.recipe import STUDENT
from realaudio_jax.distillation.setup import DistillationSetup
from realaudio_jax.mesh import param_sharding
from realaudio_jax.models.denoiser import PATH, Denoiser, as_denoiser
from realaudio_jax.random import random_key
from realaudio_jax.release import denoiser_template
from realaudio_jax.teachers import ConditionDropout
from realaudio_jax.teachers.release import guided_denoiser, prepare, to_batch
from realaudio_jax.training.state import create_state, with_learning_rate
from realaudio_jax.typing import (
    LATENT_CHANNELS,
    LATENT_RATE,
    MAX_EVENTS,
    MAX_TEXT_TOKENS,
    TEXT_WIDTH,
    PyTree,
)

DEVICES = (8, 16, 32, 64, 128, 256)
STEPS = ('teacher', 'student')
BYTES = {
    'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 'f32': 4, 's32': 4, 'u32': 4, 's64': 8,
}  # fmt: skip


def experiment(name: str):
    """experiments.name; each defines flags, and only those of one can be there."""
    for flag in list(flags.FLAGS):
        if 'experiments' in (flags.FLAGS.find_module_defining_flag(flag) or ''):
            delattr(flags.FLAGS, flag)
    return importlib.import_module(f'experiments.{name}')


def batch_shapes(size: int, seconds: float) -> PyTree:
    """Shapes of a recipe's batch of scenes."""
    frames, f32 = round(seconds * LATENT_RATE), jnp.float32

    def shape(*rest, dtype=f32):
        return jax.ShapeDtypeStruct((size, *rest), dtype)

    rows = {
        'latents': shape(frames, LATENT_CHANNELS),
        'text': shape(MAX_TEXT_TOKENS, TEXT_WIDTH),
        'text_mask': shape(MAX_TEXT_TOKENS, dtype=bool),
        'event_text': shape(MAX_EVENTS, TEXT_WIDTH),
        'event_mask': shape(MAX_EVENTS, dtype=bool),
        **{name: shape(MAX_EVENTS) for name in ('onset_s', 'offset_s', 'gain_db')},
        'loudness_db': shape(frames),
        'seconds': shape(),
    }
    return jax.eval_shape(to_batch, rows)


def update_and_shapes(kind: str, size: int, model: Denoiser):
    """An update of `STEPS`, and the shapes of its arguments.

    Args:
        kind: 'teacher', diffusion training; 'student', consistency distillation.
        size: of the batch.
        model: the denoiser.
    """
    params, key = denoiser_template(model), jax.eval_shape(lambda: random_key(0))
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    if kind == 'teacher':
        config = importlib.import_module('configs.base_teacher').get_config()
        run = experiment('train_teacher')
        tx = with_learning_rate(functools.partial(run.optimizer, name=config.optimizer))
        state = jax.eval_shape(lambda p: create_state(p, tx), params)
        update = functools.partial(run.train_step, model=model, tx=tx, config=config)
        batch = batch_shapes(size, config.scene_seconds)
        return update, (state, None, batch, key, rate)
    config, run = (
        importlib.import_module('configs.base_distill').get_config(),
        experiment('distill'),
    )
    setup = DistillationSetup(
        functools.partial(guided_denoiser, model),
        functools.partial(as_denoiser, model),
        PATH,
        params,
        params,
        to_batch,
        functools.partial(prepare, dropout=ConditionDropout(), onset_weight=4.0),
    )
    stage = next(s for s in run.plan(config, setup) if s.name == 'consistency')
    tx = run.optimizer({})
    state = jax.eval_shape(lambda p: create_state({STUDENT: p}, tx), params)
    update = functools.partial(
        run.train_step, tx=tx, prepare=setup.prepare, ema_decay=config.ema_decay
    )
    batch, mask = batch_shapes(size, config.scene_seconds), jax.tree.map(lambda _: rate, params)
    return update, (state, None, None, params, stage.recipe, batch, key, rate, mask)


def lowered_flops(kind: str, size: int, model: Denoiser) -> float:
    """FLOP of one update, by XLA's count of the program before it is optimised."""
    update, shapes = update_and_shapes(kind, size, model)
    return jax.jit(update).lower(*shapes).cost_analysis()['flops']


def compiled(kind: str, size: int, model: Denoiser, mesh: jax.sharding.Mesh):
    """An update compiled for a mesh, from shapes alone: (FLOP of a device, bytes it sends by kind).

    Bytes are those of the results of each collective operation of the program.
    """
    update, shapes = update_and_shapes(kind, size, model)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
    is_batch = [i for i, s in enumerate(shapes) if hasattr(s, 'conditioning')]

    def placed(i, shape):
        if i in is_batch:
            return jax.tree.map(lambda _: split, shape)
        return param_sharding(mesh, shape) if i != len(shapes) - 1 else everywhere

    where = tuple(
        jax.tree.map(lambda _: everywhere, s) if s is None else placed(i, s)
        for i, s in enumerate(shapes)
    )
    made = jax.jit(update, in_shardings=where, out_shardings=(where[0], everywhere))
    program = made.lower(*shapes).compile()
    sent = Counter()
    kinds = 'all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute'
    for types, operation in re.findall(rf'= (.*?) ({kinds})(?:-start)?\(', program.as_text()):
        for dtype, shape in re.findall(r'(\w+)\[([\d,]*)\]', types):
            sent[operation] += BYTES[dtype] * int(np.prod([int(n) for n in shape.split(',') if n]))
    return program.cost_analysis()['flops'], dict(sent)


def table(devices=DEVICES) -> str:
    """The table of docs/several_devices.md."""
    config = importlib.import_module('configs.base_teacher').get_config()
    model = Denoiser(**config.model)
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(denoiser_template(model)))
    size = int(config.batch_seconds / config.scene_seconds)
    flops = {kind: lowered_flops(kind, size, model) for kind in STEPS}
    # What does not grow with the batch, optimizer and average, every device does for itself.
    own = {kind: 2 * lowered_flops(kind, size // 2, model) - flops[kind] for kind in STEPS}
    lines = [
        f'{count / 1e6:.0f} M parameters, a batch of {size} scenes of {config.scene_seconds:g} s; '
        f'one update of the teacher {flops["teacher"] / 1e12:.1f} TFLOP, of which '
        f'{own["teacher"] / 1e12:.2f} whatever the batch; of the student '
        f'{flops["student"] / 1e12:.1f} and {own["student"] / 1e12:.3f}.',
        '',
        '| devices | scenes each | TFLOP each: teacher | student | bytes each sends | '
        'FLOP for each byte: teacher | student |',
        '|---|---|---|---|---|---|---|',
    ]
    for n in devices:
        sent = 2 * (n - 1) / n * 4 * count
        each = [(flops[kind] - own[kind]) / n + own[kind] for kind in STEPS]
        lines.append(
            f'| {n} | {size // n} | {each[0] / 1e12:.2f} | {each[1] / 1e12:.2f} | '
            f'{sent / 1e9:.2f} GB | {each[0] / sent:,.0f} | {each[1] / sent:,.0f} |'
        )
    return '\n'.join(lines)


if __name__ == '__main__':
    print(table())
