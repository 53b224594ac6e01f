"""What an update of each recipe costs, in forward passes of the network it trains.

    python tools/measure_recipe_costs.py [--batch=8 --seconds=5 --repeats=5] [dmd arc ...]

For release `foley` or another, with random latents: what they hold does not change the work. A
gradient of each recipe's loss by all networks that it trains is timed, in turn with a forward pass,
so that a machine that slows down slows both; each cost is the median over the turns of the quotient
of the two. "Operations" is the same quotient of XLA's own count of floating-point operations of
the compiled programs, which no other work on the machine changes; it counts the body of a loop once
and both sides of a choice, so that it is no guide for energy, multi_teacher, dmd, arc, shortcut.
"""

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from configs.one_recipe import RECIPES
from realaudio_jax.distillation import registry
from realaudio_jax.distillation.recipe import (
    STUDENT,
    Batch,
    Recipe,
    all_networks,
    as_student_params,
    snr_weighted_error,
)
from realaudio_jax.memory import keep_freed_memory
from realaudio_jax.noise import diffuse
from realaudio_jax.release import empty_conditioning
from realaudio_jax.teachers import Teacher, load_teacher
from realaudio_jax.typing import LATENT_RATE

FORWARD, REGRESSION = 'forward pass', 'regression on data'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='*', help='of recipes; none: all of configs/one_recipe.py')
    parser.add_argument('--release', default='foley')
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--seconds', type=float, default=5.0)
    parser.add_argument('--repeats', type=int, default=5)
    args = parser.parse_args()
    keep_freed_memory()
    teacher = load_teacher('release', args.release)
    batch = random_batch(args.batch, int(args.seconds * LATENT_RATE) // 2 * 2)
    made = {
        FORWARD: compiled(forward(teacher), None, teacher, batch),
        REGRESSION: compiled(regression(teacher), None, teacher, batch),
    }
    for name in args.names or RECIPES:
        recipe = recipe_of(teacher, name)
        made[name] = compiled(update(recipe), recipe, teacher, batch)
    times = {name: [] for name in made}
    for turn in range(args.repeats + 1):
        for name, (run, _) in made.items():
            begin = time.perf_counter()
            jax.block_until_ready(run(jax.random.key(turn)))
            times[name].append(time.perf_counter() - begin)
    print(f'{"":22}{"forward passes":>15}{"operations":>12}{"seconds":>9}')
    base = np.array(times[FORWARD][1:])
    for name, (_, operations) in made.items():
        took = np.array(times[name][1:])
        ratio = operations / made[FORWARD][1]
        print(f'{name:22}{np.median(took / base):15.1f}{ratio:12.1f}{np.median(took):9.3f}')


def random_batch(size: int, frames: int) -> Batch:
    """Random latents of one length, with the shapes of a training batch."""
    rng = np.random.default_rng(0)
    c = jax.tree.map(jnp.asarray, empty_conditioning(size, frames))
    latents = jnp.asarray(rng.normal(size=c.init.shape), jnp.float32)
    return Batch(latents, jnp.ones((size, frames)), c, jnp.full(size, 2.0))


def forward(teacher: Teacher) -> Callable:
    """One evaluation of the student."""

    def run(networks, target, teacher_params, batch, key):
        ones = jnp.ones(len(batch.latents))
        x = jax.random.normal(key, batch.latents.shape)
        return teacher.student(networks[STUDENT], batch.conditioning, ones, ones)(x, 0.7 * ones)

    return run


def regression(teacher: Teacher) -> Callable:
    """The gradient of the plain loss of denoising."""

    def loss(networks, target, teacher_params, batch, key):
        ones, noise = jnp.ones(len(batch.latents)), jax.random.normal(key, batch.latents.shape)
        t = 0.7 * ones
        x_t = diffuse(teacher.path, batch.latents, noise, t)
        x0 = teacher.student(networks[STUDENT], batch.conditioning, ones, ones)(x_t, t)
        return jnp.mean(snr_weighted_error(x0, batch.latents, teacher.path, t, batch.mask))

    return jax.grad(loss)


def recipe_of(teacher: Teacher, name: str) -> Recipe:
    """A recipe of configs/one_recipe.py, as in its last stage."""
    stage = dict(RECIPES[name][-1])
    recipe = stage.pop('recipe')
    settings = {k: v for k, v in stage.items() if k not in ('name', 'target', 'data')}
    available = dict(student=teacher.student, teacher=teacher.guided, path=teacher.path)
    if isinstance(recipe, str):
        return registry.make(recipe, available, **settings)
    return registry.make_sum(recipe, available)


def update(recipe: Recipe) -> Callable:
    """The gradient of a recipe's loss by all networks that it trains."""

    def loss(networks, target, teacher_params, batch, key):
        params = as_student_params(networks)
        return jnp.mean(recipe.loss(params, target, teacher_params, batch, key)[0])

    return jax.grad(loss)


def compiled(
    program: Callable, recipe: Recipe | None, teacher: Teacher, batch: Batch
) -> tuple[Callable, float]:
    """A program as a call of a key, and the operations that XLA counts in it."""
    key, student = jax.random.key(0), teacher.initial_student()[0]
    networks = {STUDENT: student}
    if recipe is not None:
        networks = all_networks(recipe, student, student, batch, key)
    arguments = networks, student, teacher.teacher_params, batch
    made = jax.jit(program).lower(*arguments, key).compile()
    return lambda key: made(*arguments, key), made.cost_analysis()['flops']


if __name__ == '__main__':
    main()
