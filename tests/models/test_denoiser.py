"""What may and may not influence the denoiser, and its event features against plain loops."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from realaudio_jax.models.denoiser import (
    PATH,
    Block,
    Conditioning,
    Denoiser,
    as_denoiser,
    attend,
    attention_scores,
    encode_context,
    event_features,
    frame_mask,
    latent_frames,
    rotate,
)
from realaudio_jax.noise import convert
from realaudio_jax.release import denoiser_template, empty_conditioning

MODEL = Denoiser(width=24, depth=2, heads=2)
B, L, T, E, W, C = 2, 20, 5, 3, 384, 64
ONES, ZEROS = np.ones(B, np.float32), np.zeros(B, np.float32)
TIME = np.array([0.3, 0.8], np.float32)


@pytest.fixture(scope='module')
def params():
    return tiny.random_params(denoiser_template(MODEL), 0)


@pytest.fixture(scope='module')
def apply():
    jitted = jax.jit(MODEL.apply)
    return lambda *arguments: np.asarray(jitted(*arguments))


def rand(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_attention_is_its_definition_and_sees_no_hidden_key():
    """softmax(q k^T / sqrt(F)) v, in float64, of the keys that are there."""
    query, key, value = (rand(B, n, 3, 4, seed=n) for n in (6, T, T + 1))
    value = value[:, 1:]
    mask = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]], bool)
    found = attend(attention_scores(query, key), value, jnp.asarray(mask))
    for i in range(B):
        q, k, v = (
            np.moveaxis(np.float64(x[i]), 1, 0) for x in (query, key[:, mask[i]], value[:, mask[i]])
        )
        weights = np.exp(q @ np.swapaxes(k, 1, 2) / 2)
        wanted = weights / weights.sum(-1, keepdims=True) @ v
        np.testing.assert_allclose(found[i], np.moveaxis(wanted, 0, 1).reshape(6, 12), atol=1e-5)


@pytest.mark.parametrize('mask_all', [False, True])
def test_attention_as_one_operation_is_that_of_products(params, apply, mask_all):
    """Self- and cross-attention of `jax.nn.dot_product_attention` predict the same."""
    c = conditioning()
    if mask_all:  # the learned token alone is left
        c = c.unconditional()
    fused = jax.jit(Denoiser(width=24, depth=2, heads=2, attention='xla').apply)
    given = (params, rand(B, L, C, seed=9), TIME, c, ONES, ZEROS)
    want = apply(*given)
    np.testing.assert_allclose(fused(*given), want, atol=2e-5 * np.abs(want).max())


def test_a_context_may_be_encoded_once(params, apply):
    c = conditioning()
    given = (params, rand(B, L, C, seed=9), TIME, c, ONES, ZEROS)
    context = jax.jit(encode_context, static_argnums=0)(MODEL, params, c)
    np.testing.assert_allclose(apply(*given, context), apply(*given), atol=1e-6)
    other = jax.tree.map(jnp.zeros_like, context).replace(mask=context.mask)
    assert np.abs(apply(*given, other) - apply(*given)).max() > 1e-3


def conditioning(length=L, seed=0):
    """All frames of `length` real; the last token and the last event of every item are padding."""
    rng = np.random.default_rng(seed)
    onset = rng.uniform(0.0, 0.5, (B, E)).astype(np.float32)
    return Conditioning(
        text=rand(B, T, W, seed=seed + 1),
        text_mask=jnp.asarray(np.repeat([[True] * (T - 1) + [False]], B, axis=0)),
        event_text=rand(B, E, W, seed=seed + 2),
        onset_s=jnp.asarray(onset),
        offset_s=jnp.asarray(onset + rng.uniform(0.05, 0.3, (B, E)).astype(np.float32)),
        gain_db=jnp.asarray(rng.uniform(-9, 3, (B, E)).astype(np.float32)),
        event_mask=jnp.asarray(np.repeat([[True] * (E - 1) + [False]], B, axis=0)),
        loudness_db=jnp.asarray(-30 + 10 * rand(B, length, seed=seed + 3)),
        loudness_mask=jnp.asarray([True, False]),
        seconds=jnp.full(B, length / 25, jnp.float32),
        init=rand(B, length, C, seed=seed + 4),
        init_mask=jnp.zeros((B, length)).at[:, :4].set(1.0),
    )


def padded(c, extra):
    """The same request in a longer batch, garbage in the padding."""

    def longer(x, seed):
        return jnp.concatenate([x, rand(B, extra, *x.shape[2:], seed=seed)], axis=1)

    return c.replace(
        loudness_db=longer(c.loudness_db, 90),
        init=longer(c.init, 91),
        init_mask=longer(c.init_mask, 92),
    )


def test_padding_changes_nothing(params, apply):
    x, c = rand(B, L, C), conditioning()
    want = apply(params, x, TIME, c, ONES, ZEROS)
    longer = jnp.concatenate([x, 9 * rand(B, 10, C, seed=8)], axis=1)
    got = apply(params, longer, TIME, padded(c, 10), ONES, ZEROS)
    np.testing.assert_allclose(got[:, :L], want, atol=2e-5 * np.abs(want).max())


def test_the_order_of_events_is_free(params, apply):
    x, c = rand(B, L, C), conditioning()
    turn = jnp.asarray([2, 0, 1])
    names = ('event_text', 'onset_s', 'offset_s', 'gain_db', 'event_mask')
    turned = c.replace(**{name: getattr(c, name)[:, turn] for name in names})
    want = apply(params, x, TIME, c, ONES, ZEROS)
    got = apply(params, x, TIME, turned, ONES, ZEROS)
    np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())
    swapped = c.replace(event_text=c.event_text[:, turn])  # other texts at these times do matter
    assert np.abs(apply(params, x, TIME, swapped, ONES, ZEROS) - want).max() > 1e-3


def test_what_is_masked_has_no_influence(params, apply):
    x, c = rand(B, L, C), conditioning()
    other = c.replace(
        text=c.text.at[:, -1].set(7.0),
        event_text=c.event_text.at[:, -1].set(7.0),
        onset_s=c.onset_s.at[:, -1].set(0.33),
        offset_s=c.offset_s.at[:, -1].set(0.44),
        gain_db=c.gain_db.at[:, -1].set(40.0),
        loudness_db=c.loudness_db.at[1].set(-3.0),
        init=c.init.at[:, 4:].set(7.0),
    )
    want = apply(params, x, TIME, c, ONES, ZEROS)
    np.testing.assert_array_equal(apply(params, x, TIME, other, ONES, ZEROS), want)


@pytest.mark.parametrize(
    'name', ['text', 'event_text', 'onset_s', 'offset_s', 'gain_db', 'loudness_db', 'init']
)
def test_what_is_asked_has_influence(params, apply, name):
    x, c = rand(B, L, C), conditioning()
    value = getattr(c, name)
    other = c.replace(**{name: value.at[0, 0].set(value[0, 0] + 0.3)})
    change = np.abs(
        apply(params, x, TIME, other, ONES, ZEROS) - apply(params, x, TIME, c, ONES, ZEROS)
    )
    assert change[0].max() > 1e-4 and change[1].max() == 0


def test_unconditional_forgets_wishes_and_keeps_facts(params, apply):
    x, c, other = rand(B, L, C), conditioning(), conditioning(seed=50)
    wishes = ('text', 'event_text', 'onset_s', 'offset_s', 'gain_db', 'loudness_db')
    want = apply(params, x, TIME, c.unconditional(), ONES, ZEROS)
    changed = c.replace(**{name: getattr(other, name) for name in wishes})
    got = apply(params, x, TIME, changed.unconditional(), ONES, ZEROS)
    np.testing.assert_array_equal(got, want)
    assert np.abs(apply(params, x, TIME, c, ONES, ZEROS) - want).max() > 1e-3
    for fact in ({'seconds': c.seconds * 0.9}, {'init': other.init}):
        changed = c.replace(**fact).unconditional()
        assert np.abs(apply(params, x, TIME, changed, ONES, ZEROS) - want).max() > 1e-4


def test_without_drops_the_items_that_are_marked():
    dropped = conditioning().without(jnp.asarray([True, False]), jnp.asarray([False, True]))
    assert not dropped.text_mask[0].any() and dropped.text_mask[1].any()
    assert dropped.event_mask[0].any() and not dropped.event_mask[1].any()
    assert list(np.asarray(dropped.loudness_mask)) == [True, False]


def test_time_per_item_is_a_constant_time_per_frame(params, apply):
    x, c = rand(B, L, C), conditioning()
    want = apply(params, x, TIME, c, ONES, ZEROS)
    per_frame = np.repeat(TIME[:, None], L, axis=1)
    got = apply(params, x, per_frame, c, ONES, ZEROS)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
    per_frame[:, L // 2 :] = 0.1
    assert np.abs(apply(params, x, per_frame, c, ONES, ZEROS) - want).max() > 1e-3


def test_a_teacher_knows_nothing_of_guidance_and_step_size(params, apply):
    x, c = rand(B, L, C), conditioning()
    other = jax.tree.map(np.array, params)
    for name in ('step_size', 'guidance_scale'):
        other['params'][name]['kernel'] += 1.0
    want = apply(params, x, TIME, c, ONES, ZEROS)
    np.testing.assert_array_equal(apply(other, x, TIME, c, ONES, ZEROS), want)
    for guidance, step in ((ONES + 1, ZEROS), (ONES, ZEROS + 0.25)):
        student = apply(params, x, TIME, c, guidance, step)
        assert np.abs(student - want).max() > 1e-3
        assert np.abs(apply(other, x, TIME, c, guidance, step) - student).max() > 1e-3


def test_bind_turns_the_prediction_into_data(params, apply):
    x, c = rand(B, L, C), conditioning()
    v = apply(params, x, TIME, c, ONES, ZEROS)
    want = convert(jnp.asarray(v), x, TIME, PATH, 'v', 'x0')
    got = jax.jit(lambda p, x, t: as_denoiser(MODEL, p, c)(x, t))(params, x, TIME)
    np.testing.assert_allclose(got, want, atol=1e-4)


def slow_event_features(c, channels, length):
    """Per frame and item, in float64, from the words of the docstring."""
    c = jax.tree.map(lambda x: np.asarray(x, np.float64), c)
    rows = []
    for b in range(B):
        real = [e for e in range(E) if c.event_mask[b, e]]
        for n in range(length):
            start, end, middle = n / 25, (n + 1) / 25, (n + 0.5) / 25
            sounding = np.array(
                [
                    max(0.0, min(end, c.offset_s[b, e]) - max(start, c.onset_s[b, e])) * 25
                    for e in real
                ]
            )
            row = list(
                sum(
                    (s * channels[b, e] for s, e in zip(sounding, real, strict=True)),
                    np.zeros(channels.shape[-1]),
                )
            )
            row.append(max(sounding, default=0.0))
            row.append(
                max(
                    (s * (1 + c.gain_db[b, e] / 20) for s, e in zip(sounding, real, strict=True)),
                    default=0.0,
                )
            )
            for times in (c.onset_s, c.offset_s):
                since = min((middle - times[b, e] for e in real), key=abs, default=-20.0)
                row += [math.tanh(since / scale) for scale in (0.02, 0.08, 0.32, 1.28)]
            asked = c.loudness_mask[b]
            row += [(c.loudness_db[b, n] + 40) / 20 if asked else 0.0, asked]
            rows.append(row)
    return np.array(rows).reshape(B, length, -1)


@pytest.mark.parametrize('events', ['some', 'short', 'none'])
def test_event_features_are_their_definition(events):
    c = conditioning(length=9, seed=4)
    c = c.replace(onset_s=c.onset_s * 0.5)
    if events == 'short':  # within one frame, of 40 ms
        c = c.replace(offset_s=c.onset_s + jnp.asarray([[0.004, 0.01, 0.025]] * B))
    if events == 'none':
        c = c.replace(event_mask=jnp.zeros((B, E), bool))
    channels = rand(B, E, 4)
    want = slow_event_features(c, np.float64(channels), 9)
    np.testing.assert_allclose(event_features(c, channels, 9), want, atol=2e-5)


def test_rotary_products_depend_on_the_difference_of_times():
    query, key = rand(1, 1, 2, 6), rand(1, 1, 2, 6, seed=1)

    def product(a, b):
        at = [rotate(x, jnp.full((1, 1), t)) for x, t in ((query, a), (key, b))]
        return np.sum(np.asarray(at[0]) * np.asarray(at[1]), axis=-1)

    np.testing.assert_allclose(product(0.5, 0.2), product(7.5, 7.2), atol=1e-3)
    assert np.abs(product(0.5, 0.2) - product(0.5, 0.3)).max() > 1e-2
    np.testing.assert_allclose(
        np.linalg.norm(rotate(query, jnp.full((1, 1), 3.3)), axis=-1),
        np.linalg.norm(query, axis=-1),
        rtol=1e-5,
    )


def test_frames_of_a_duration():
    assert [latent_frames(s) for s in (0.5, 0.56, 0.57, 1.0, 10.0)] == [14, 14, 16, 26, 250]
    mask = np.asarray(frame_mask(jnp.asarray([0.5, 0.56, 0.64]), 18))
    np.testing.assert_array_equal(mask.sum(axis=1), [14, 14, 16])
    assert mask[:, :14].all()


def test_paper_size():
    """About 350 M parameters and the shapes of a batch of 10 s, with no memory."""
    model = Denoiser(width=1152, depth=21, heads=18)
    params = denoiser_template(model)
    assert sum(np.prod(x.shape) for x in jax.tree.leaves(params)) == 354_950_848
    c = empty_conditioning(B, 250)
    out = jax.eval_shape(model.apply, params, c.init, ONES, c, ONES, ONES)
    assert out.shape == (B, 250, C)


def products(jaxpr, found):
    """Operand types of the matrix products in a jaxpr and in what it calls."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'dot_general':
            found.append({x.aval.dtype.name for x in equation.invars})
        for value in equation.params.values():
            inner = getattr(value, 'jaxpr', value)
            if hasattr(inner, 'eqns'):
                products(inner, found)
    return found


def test_half_precision_reaches_the_products_of_blocks_and_the_prediction_stays_float32(params):
    half, c = MODEL.clone(dtype='bfloat16'), conditioning()

    def predict(model, params, **kwargs):
        level = jnp.asarray(TIME)
        return model.apply(params, rand(B, L, C), level, c, jnp.ones(B), jnp.zeros(B), **kwargs)

    run = jax.jit(predict, static_argnums=0)
    exact, rounded = run(MODEL, params), run(half, params)
    assert rounded.dtype == exact.dtype == jnp.float32
    distance = jnp.linalg.norm(rounded - exact) / jnp.linalg.norm(exact)
    assert 1e-4 < distance < 0.03
    count = lambda model: products(jax.make_jaxpr(lambda p: predict(model, p))(params).jaxpr, [])  # noqa: E731
    assert {'bfloat16'} not in count(MODEL)
    found, fewer = count(half), count(half.clone(depth=1))
    # of a block: four of attention to itself, five of that to text and events, two of the MLP
    assert found.count({'bfloat16'}) >= 11 * MODEL.depth
    assert not [types for types in found if len(types) > 1]
    assert found.count({'float32'}) == fewer.count({'float32'})  # none of them in a block
    of_blocks = lambda module, _: isinstance(module, Block)  # noqa: E731
    for model, dtype in ((half, jnp.bfloat16), (MODEL, jnp.float32)):
        keep = functools.partial(predict, model, capture_intermediates=of_blocks)
        seen = jax.eval_shape(keep, params)[1]['intermediates']
        assert [x.dtype for x in jax.tree.leaves(seen)] == [dtype] * MODEL.depth
    grads = jax.jit(jax.grad(lambda p: jnp.sum(jnp.square(predict(half, p)))))(params)
    assert all(x.dtype == jnp.float32 and np.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_forward_derivative_is_that_of_finite_differences(params, monkeypatch):
    """Along latents, time and step size at once, through attention, norms and embeddings.

    In float64 throughout: what the network computes in float32 by name is float64 here.
    """
    with jax.enable_x64(True):
        monkeypatch.setattr(jnp, 'float32', jnp.float64)
        wide, c = jax.tree.map(
            lambda x: jnp.asarray(x, jnp.float64 if x.dtype == np.float32 else x.dtype),
            (params, conditioning()),
        )
        rng = np.random.default_rng(4)
        at = (rng.normal(size=(B, L, C)), [0.31, 0.87], [0.125, 0.6])
        along = (rng.normal(size=(B, L, C)), [1.0, -0.7], [0.4, 1.0])
        at, along = (tuple(map(jnp.asarray, values)) for values in (at, along))

        @jax.jit
        def both(h):
            def predict(x, t, step_size):
                return as_denoiser(MODEL, wide, c, jnp.array([1.5, 3.0]), step_size)(x, t)

            def moved(by):
                return predict(*(a + by * b for a, b in zip(at, along, strict=True)))

            _, derivative = jax.jvp(predict, at, along)
            return derivative, (moved(h) - moved(-h)) / (2 * h)

        got, want = both(1e-5)
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, want, atol=1e-6 * np.abs(want).max())
