"""One executable from token ids to PCM: how often it compiles and runs, and what it promises.

A tolerance of one PCM step (1 / 32768) stands wherever programs of different shapes are compared:
XLA may sum in another order, and a value half-way between two steps then rounds the other way.
"""

import dataclasses
import gc
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from realaudio_jax import program as program_lib
from realaudio_jax import samplers
from realaudio_jax.audio import to_pcm16
from realaudio_jax.mesh import make_mesh
from realaudio_jax.models.autoencoder import Autoencoder
from realaudio_jax.models.denoiser import PATH, Denoiser, as_denoiser
from realaudio_jax.models.text_encoder import TextEncoder, parameter_shapes
from realaudio_jax.noise import ddim_step, diffuse, time_grid
from realaudio_jax.program import (
    MOMENTS,
    Networks,
    ProgramCache,
    StrengthPath,
    condition,
    sample_latents,
    start_noise,
)
from realaudio_jax.program_io import CAPACITIES, Bucket, InitAudio, request_shapes
from realaudio_jax.release import autoencoder_template, denoiser_template
from realaudio_jax.training.sharding import replicate
from realaudio_jax.typing import LATENT_CHANNELS

STEP = 1  # PCM steps
LENGTH = 6  # latent frames
VOCABULARY = 31


def bucket(batch, **settings):
    return Bucket(batch, LENGTH, **{'steps': 2, 'sample_rate': 48_000, **settings})


@pytest.fixture(scope='module')
def networks():
    return Networks(
        text_encoder=TextEncoder(VOCABULARY, positions=64, heads=2, hidden=16, layers=1),
        autoencoder=Autoencoder(**tiny.CONFIG['autoencoder']),
        denoiser=Denoiser(width=24, depth=1, heads=2),
    )


@pytest.fixture(scope='module')
def params(networks):
    shapes = {
        'text_encoder': parameter_shapes(networks.text_encoder),
        'autoencoder': autoencoder_template(networks.autoencoder),
        'student': denoiser_template(networks.denoiser),
        'teacher': denoiser_template(networks.denoiser),
    }
    return {name: tiny.random_params(tree, i) for i, (name, tree) in enumerate(shapes.items())}


@pytest.fixture(scope='module')
def programs(networks, params):
    """Over all four devices."""
    mesh = make_mesh()
    return ProgramCache(networks, replicate(mesh, params), mesh)


def request(which, items):
    """A request whose row for an item is a function of the item alone."""
    shapes, _ = request_shapes(which)
    rows = []
    for item in items:
        rng = np.random.default_rng(item)
        onset = rng.uniform(0, 0.2, shapes.onset_s.shape[1])
        rows.append(
            dict(
                token_ids=rng.integers(0, VOCABULARY, shapes.token_ids.shape[1]),
                token_mask=np.arange(shapes.token_mask.shape[1]) < rng.integers(1, 9),
                event_ids=rng.integers(0, VOCABULARY, shapes.event_ids.shape[1:]),
                event_token_mask=np.indices(shapes.event_ids.shape[1:])[1] < 6,
                onset_s=onset,
                offset_s=onset + 0.05,
                gain_db=rng.uniform(-6, 0, len(onset)),
                event_mask=np.arange(len(onset)) < 2,
                loudness_db=np.full(LENGTH, -20.0),
                loudness_mask=False,
                seconds=LENGTH / 25,
                seed=item,
                guidance_scale=2.0,
                strength=1.0,
                target_lufs=np.nan,
            )
        )
    return type(shapes)(
        **{
            name: jnp.asarray(np.stack([row[name] for row in rows]), getattr(shapes, name).dtype)
            for name in rows[0]
        }
    )


def run(programs, which, items, init=None, **changes):
    asked = request(which, items).replace(**changes)
    return jax.device_get(programs(which, asked, init))


def steps_between(a, b):
    return np.abs(np.asarray(a, np.int32) - np.asarray(b, np.int32)).max()


@pytest.fixture(scope='module')
def four(programs):
    """PCM, diagnostics and latents of items 5, 6, 7, 8."""
    return run(programs, bucket(4), (5, 6, 7, 8))


def test_what_comes_out(four):
    pcm, diagnostics, latents = four
    assert pcm.shape == (4, LENGTH * 1920, 2) and pcm.dtype == np.int16
    assert latents.shape == (4, LENGTH, 64)
    assert diagnostics.finite.all() and not diagnostics.silent.any()
    np.testing.assert_allclose(diagnostics.peak, np.abs(pcm).max(axis=(1, 2)) / 32768, atol=1e-4)
    assert steps_between(pcm[0], pcm[1]) > 100


def test_same_seed_same_sound_at_any_batch_and_position(programs, four):
    """Batches of 1, 4 and 16; tolerance one PCM step."""
    sixteen, _, _ = run(programs, bucket(16), (*range(20, 31), 8, 5, 40, 41, 6))
    one, _, _ = run(programs, bucket(1), (6,))
    pcm = four[0]
    assert steps_between(one[0], pcm[1]) <= STEP
    for place, row in ((11, 3), (12, 0), (15, 1)):
        assert steps_between(sixteen[place], pcm[row]) <= STEP
    reordered, _, _ = run(programs, bucket(4), (8, 7, 6, 5))
    assert steps_between(reordered[::-1], pcm) <= STEP


def test_room_that_is_not_used_changes_nothing(programs, four):
    full, small = request(bucket(4), (5, 6, 7, 8)), bucket(4, capacity=CAPACITIES[0])

    def cut(x, like):
        return x[tuple(slice(size) for size in like.shape)]

    short = jax.tree.map(cut, full, request_shapes(small)[0])
    pcm, _, _ = jax.device_get(programs(small, short, None))
    assert steps_between(pcm, four[0]) <= STEP


def test_another_seed_is_another_sound(programs, four):
    pcm, _, _ = run(programs, bucket(4), (5, 6, 7, 8), seed=jnp.asarray([5, 9, 7, 8], jnp.int32))
    assert steps_between(pcm[1], four[0][1]) > 100 and steps_between(pcm[0], four[0][0]) <= STEP


def test_four_devices_make_what_one_makes(networks, params, programs, four):
    assert programs.batch_sharding(bucket(4)).shard_shape((4, 3)) == (1, 3)
    assert programs.batch_sharding(bucket(3)).shard_shape((3, 3)) == (3, 3)
    mesh = make_mesh(devices=jax.devices()[:1])
    alone = ProgramCache(networks, replicate(mesh, params), mesh)
    pcm, _, _ = run(alone, bucket(4), (5, 6, 7, 8))
    assert steps_between(pcm, four[0]) <= STEP


def test_one_generation_runs_one_executable(programs, four, tmp_path):
    """As the profiler saw it: on each device one execution, of the one program."""
    asked = jax.device_put(request(bucket(4), (1, 2, 3, 4)), programs.batch_sharding(bucket(4)))
    jax.block_until_ready(asked)
    with jax.profiler.trace(tmp_path):
        jax.block_until_ready(programs(bucket(4), asked))
    (profile,) = pathlib.Path(tmp_path).rglob('*.xplane.pb')
    runs = [
        match.groups()
        for plane in jax.profiler.ProfileData.from_file(str(profile)).planes
        for line in plane.lines
        for event in line.events
        if (match := re.fullmatch(r'\[(\d+)\] .*Execute \((\w+)\)', event.name))
    ]
    assert sorted(runs) == [(str(i), 'jit_generate') for i in range(4)]


def test_a_second_call_neither_traces_nor_compiles(programs, four):
    asked, count, events = request(bucket(4), (1, 2, 3, 4)), len(programs), []

    def listen(name, seconds, **kwargs):
        events.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.block_until_ready(programs(bucket(4), asked))
        assert [name for name in events if '/compile/' in name] == []
        jax.jit(lambda x: x * 3 + 1)(jnp.ones(11))  # the listener does hear compilations
        assert [name for name in events if '/compile/' in name] != []
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(programs) == count


def test_the_lowered_program_has_one_entry(programs):
    text = programs.lower(bucket(1, sampler='ping_pong')).as_text()
    assert len(re.findall(r'func\.func public @', text)) == 1 and '@main' in text


def test_a_sampler_that_does_not_exist(programs):
    with pytest.raises(ValueError, match="not sampled with 'euler'; choose ddim or ping_pong"):
        programs.lower(bucket(1, sampler='euler'))


def test_parameters_are_arguments_and_damaged_ones_are_noticed(programs, four, monkeypatch):
    """The same executable with NaN in the student: diagnostics says so, and the sound is zero."""
    count = len(programs)
    broken = jax.tree.map(lambda x: x * jnp.nan, programs.params['student'])
    monkeypatch.setattr(programs, 'params', {**programs.params, 'student': broken})
    pcm, diagnostics, _ = run(programs, bucket(4), (5, 6, 7, 8))
    assert not diagnostics.finite.any() and not pcm.any() and len(programs) == count


def test_init_audio_strength_and_kept_regions(networks, params, programs, four):
    """Per item: strength 1 is no init at all, almost 0 is init itself, kept samples are exact."""
    which = bucket(4, init=True)
    rng = np.random.default_rng(0)
    audio = (0.1 * rng.normal(size=(4, LENGTH * 1920, 2))).astype(np.float32)
    keep = np.zeros((4, LENGTH * 1920), np.float32)
    keep[2, : 3 * 1920], keep[3] = 1.0, 1.0
    pcm, diagnostics, latents = run(
        programs,
        which,
        (5, 6, 7, 8),
        InitAudio(audio=audio, keep=keep),
        strength=jnp.asarray([1.0, 1e-4, 0.7, 1.0]),
    )
    encode = jax.jit(lambda p, x: networks.autoencoder.apply(p, x, 48_000, method='encode'))
    init = np.asarray(encode(params['autoencoder'], audio))
    assert diagnostics.finite.all()
    assert steps_between(pcm[0], four[0][0]) <= STEP
    np.testing.assert_allclose(latents[1], init[1], atol=0.01)
    np.testing.assert_allclose(latents[2, :3], init[2, :3], atol=1e-4)
    assert np.abs(latents[2, 3:] - init[2, 3:]).max() > 0.1
    np.testing.assert_allclose(latents[3], init[3], atol=1e-4)
    given = to_pcm16(audio)
    assert steps_between(pcm[3], given[3]) <= STEP
    assert diagnostics.peak[2] < 0.89 or steps_between(pcm[2, :1920], given[2, :1920]) <= STEP


def latents_of(networks, params, which, init=None, mask=None, **changes):
    """The sampler alone, not compiled: latents of items 5 and 6, and what it was told."""
    asked = request(which, (5, 6)).replace(**changes)
    init = jnp.zeros((2, LENGTH, LATENT_CHANNELS)) if init is None else init
    mask = jnp.zeros((2, LENGTH)) if mask is None else mask
    c = condition(networks, params, asked, init, mask)
    return sample_latents(networks, params, asked, c, which), asked, c


def test_a_student_walks_the_grid_of_its_count_of_steps(networks, params):
    walk = dataclasses.replace(networks, grid_powers=((4, 3.0), (2, 2.0)))
    even, asked, c = latents_of(networks, params, bucket(2))
    got = latents_of(walk, params, bucket(2))[0]
    key_start = jax.random.split(jax.random.key(0))[0]
    x = start_noise(key_start, asked.seed, LENGTH)
    for t, s in ((1.0, 0.25), (0.25, 0.0)):
        denoise = as_denoiser(
            networks.denoiser, params['student'], c, asked.guidance_scale, jnp.full(2, t - s)
        )
        x = ddim_step(PATH, x, denoise(x, jnp.full(2, t)), t, s)
    np.testing.assert_allclose(got, x, atol=1e-4)
    assert jnp.abs(got - even).max() > 0.01
    teacher = bucket(2, student=False)
    same = [latents_of(n, params, teacher)[0] for n in (networks, walk)]
    np.testing.assert_array_equal(*same)


def test_a_teacher_is_guided_away_from_a_negative_prompt(networks, params):
    """An empty one is no text; else x0 = negative + scale (conditional - negative)."""
    which = bucket(2, student=False, steps=1, negative=True)
    ids = jnp.asarray(np.random.default_rng(3).integers(0, VOCABULARY, (2, 64)), jnp.int32)
    mask = jnp.arange(64)[None] < jnp.asarray([[0], [5]])
    plain, asked, c = latents_of(networks, params, bucket(2, student=False, steps=1))
    got = latents_of(networks, params, which, negative_ids=ids, negative_mask=mask)[0]
    np.testing.assert_allclose(got[0], plain[0], atol=1e-4)
    assert jnp.abs(got[1] - plain[1]).max() > 1e-3
    text = networks.text_encoder.apply({'params': params['text_encoder']}, ids, mask)
    away = c.unconditional().replace(text=text, text_mask=mask)
    x = start_noise(jax.random.split(jax.random.key(0))[0], asked.seed, LENGTH)
    negative, conditional = (
        as_denoiser(networks.denoiser, params['teacher'], a)(x, jnp.ones(2)) for a in (away, c)
    )
    np.testing.assert_allclose(got, negative + 2.0 * (conditional - negative), atol=1e-4)


def test_latents_of_a_student_are_brought_to_its_moments(networks, params):
    rng = np.random.default_rng(0)
    gain, shift = jnp.asarray(rng.uniform(0.5, 2, (2, LATENT_CHANNELS)), jnp.float32)
    told = params | {MOMENTS: {'2': {'gain': gain, 'shift': shift}}}

    def both(**settings):
        return (latents_of(networks, p, bucket(2, **settings))[0] for p in (params, told))

    as_is, brought = both()
    np.testing.assert_allclose(brought, as_is * gain[None, None] + shift[None, None], atol=1e-5)
    for settings in ({'student': False}, {'steps': 4}):  # they have none
        np.testing.assert_array_equal(*both(**settings))


def test_a_variation_is_brought_as_far_as_it_is_new(networks, params):
    gain, shift = jnp.full(LATENT_CHANNELS, 2.0), jnp.full(LATENT_CHANNELS, 1.0)
    told = params | {MOMENTS: {'2': {'gain': gain, 'shift': shift}}}
    which = bucket(2, init=True)
    kept = jnp.arange(LENGTH)[None] < jnp.asarray([[0], [3]])
    init = jnp.ones((2, LENGTH, LATENT_CHANNELS))
    asked = {'strength': jnp.asarray([0.5, 1.0]), 'mask': kept.astype(jnp.float32)}
    as_is, brought = (latents_of(networks, p, which, init, **asked)[0] for p in (params, told))
    np.testing.assert_allclose(brought[0], 1.5 * as_is[0] + 0.5, atol=1e-5)
    np.testing.assert_allclose(brought[1, 3:], 2 * as_is[1, 3:] + 1, atol=1e-5)
    np.testing.assert_array_equal(brought[1, :3], 1.0)


def test_noise_of_a_frame_is_a_function_of_seed_and_frame():
    jitted = jax.jit(start_noise, static_argnums=2)

    def draw(seeds, length):
        return np.asarray(jitted(jax.random.key(0), jnp.asarray(seeds), length))

    long = draw([3, 9], 200)
    np.testing.assert_array_equal(draw([9, 4, 3], 4)[[2, 0]], long[:, :4])
    assert abs(long.mean()) < 0.03 and abs(long.std() - 1) < 0.03
    rows = long.reshape(-1, 64)
    assert len(np.unique(rows[:, 0])) == len(rows)  # no frame is another's


@pytest.fixture
def small_programs(networks):
    """A cache whose programs are real executables of next to nothing, and the lines it says."""

    class Small(ProgramCache):
        def lower(self, bucket):
            return jax.jit(lambda x: x * bucket.steps + 0.5).lower(jnp.ones(bucket.batch))

    lines = []
    return Small(networks, {}, make_mesh(devices=jax.devices()[:1]), log=lines.append), lines


def test_programs_are_few_and_those_that_go_are_freed(small_programs):
    programs, lines = small_programs
    programs.max_programs = 2
    first, second, third = buckets = [bucket(b, steps=1) for b in (3, 5, 7)]
    jnp.ones(3), jnp.ones(5), jnp.ones(7)
    client = jax.devices()[0].client
    gc.collect()
    before = len(client.live_executables())
    for which in (first, second, first, third, first):
        programs.get(which)
    gc.collect()
    assert [b in programs for b in buckets] == [True, False, True]
    assert len(client.live_executables()) - before == 2
    assert len(lines) == 3 and '5 sounds of up to 0 s at 48000 Hz, student, 1 steps' in lines[1]


def test_a_forked_process_is_told_to_spawn(small_programs, monkeypatch):
    programs, _ = small_programs
    programs.get(bucket(3))
    monkeypatch.setattr(program_lib.os, 'getpid', lambda: -1)
    with pytest.raises(RuntimeError, match='forked .*spawn'):
        programs.get(bucket(3))


def test_strength_path_is_the_path_in_other_units():
    strength = jnp.asarray([0.3, 1.0, 0.8])
    path, u = StrengthPath(strength), jnp.asarray([0.5, 0.25, 1.0])
    np.testing.assert_allclose(path.alpha(u), PATH.alpha(u * strength), rtol=1e-6)
    np.testing.assert_allclose(path.sigma(u), PATH.sigma(u * strength), rtol=1e-6)
    step = 1e-3
    for rate, level in zip(path.derivatives(u), (path.alpha, path.sigma), strict=True):
        slope = (level(u + step) - level(u - step)) / (2 * step)
        np.testing.assert_allclose(rate, slope, atol=1e-3)
    log_snr = 2 * jnp.log(path.alpha(u * 0.9) / path.sigma(u * 0.9))
    np.testing.assert_allclose(path.time_of_log_snr(log_snr), u * 0.9, rtol=1e-4)


@pytest.mark.parametrize('sampler', [samplers.ddim, samplers.dpm_solver_pp_2m])
def test_items_of_different_strength_do_not_meet(sampler):
    """Each item equals the plain sampler from its own start level."""
    strength = jnp.asarray([0.3, 1.0, 0.8])
    x0, eps = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 5)), jnp.float32)
    start = diffuse(PATH, x0, eps, strength)

    def denoise(x, t):
        return jnp.tanh(x) * jnp.cos(t)[:, None, None]

    got = sampler(
        lambda x, u: denoise(x, u * strength), StrengthPath(strength), start, time_grid(4)
    )
    for i, level in enumerate((0.3, 1.0, 0.8)):
        want = sampler(denoise, PATH, start[i : i + 1], time_grid(4, start=level))
        np.testing.assert_allclose(got[i], want[0], atol=1e-4)
