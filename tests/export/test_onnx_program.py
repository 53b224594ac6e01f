"""Operations of JAX in onnxruntime: each against JAX itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.export import onnx_program

onnxruntime = pytest.importorskip('onnxruntime')
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 7, 5)).astype(np.float32)
TABLE = RNG.normal(size=(11, 5)).astype(np.float32)


def step(carry, x):
    return 0.5 * carry + x * TABLE[0], jnp.where(carry > 0, carry, -carry)


OPERATIONS = {
    'elementwise': lambda x: jnp.exp(-jnp.abs(x)) / (1 + x**2) - jnp.tanh(x) * x**3,
    'roots': lambda x: jax.lax.rsqrt(x**2 + 1) + jnp.sqrt(jnp.abs(x)) + (x**2 + 1) ** -0.75,
    'less used': lambda x: jnp.expm1(x) + jax.lax.erfc(x) + jnp.exp2(x) + jnp.log1p(x**2),
    'rounding': lambda x: jnp.floor(x) + jnp.round(3 * x) + jnp.sign(x),
    'remainders': lambda x: jnp.mod((5 * x).astype(jnp.int32), 3).astype(jnp.float32),
    'not finite': lambda x: jnp.isfinite(jnp.where(x > 1, jnp.inf, x)).astype(jnp.float32),
    'broadcasting': lambda x: x + x[:, :1] * jnp.arange(5.0)[None, None] - x[..., :1],
    'choice': lambda x: jnp.where((x > 0) & (x < 1) | (x != x), x, jnp.clip(x, -0.5, 0.2)),
    'shapes': lambda x: jnp.swapaxes(x, 1, 2).reshape(2, 35)[:, ::3],
    'reversed': lambda x: x[:, ::-1],
    'padding': lambda x: jnp.pad(x[:, 1:-1], [(0, 0), (2, 1), (0, 3)]),
    'edges': lambda x: jnp.pad(x, [(0, 0), (1, 2), (0, 0)], mode='edge'),
    'padded booleans': lambda x: jnp.pad(x > 0, [(0, 0), (0, 0), (1, 1)]).astype(jnp.float32),
    'negative padding': lambda x: jax.lax.pad(x, np.float32(0), [(0, 0, 0), (-1, 2, 0), (0, 0, 0)]),
    'joining': lambda x: jnp.concatenate([jnp.stack([x, 2 * x], 1)[:, 0], x], axis=-1),
    'reductions': lambda x: jnp.sum(x, 1) + jnp.max(x, 1) - jnp.min(x, 1),
    'any and all': lambda x: (jnp.any(x > 1, 1) | jnp.all(x > -1, 1)).astype(jnp.float32),
    'products': lambda x: jnp.einsum('btd,bsd->bts', x, x + 1) @ jnp.ones((7, 3)),
    'dense': lambda x: x @ TABLE.T + 1,
    'two axes': lambda x: jnp.einsum('btd,td->b', x, jnp.ones((7, 5))),
    'table': lambda x: jnp.take(TABLE, (jnp.abs(x[..., 0]) * 3).astype(jnp.int32), axis=0),
    'columns': lambda x: x[..., np.array([[0, 4], [3, 3]])],
    'nearest': lambda x: jnp.take_along_axis(x, jnp.argmin(jnp.abs(x), -1, keepdims=True), -1),
    'one by one': lambda x: jnp.take_along_axis(x[:1], jnp.argmax(x[:1], 1, keepdims=True), 1),
    'update': lambda x: x.at[:, 2].set(x[:, 0]),
    'convolution': lambda x: jax.lax.conv_general_dilated(
        x[..., :1], np.ones((5, 1, 1), np.float32), (2,), [(1, 2)], lhs_dilation=(3,),
        dimension_numbers=('NHC', 'HIO', 'NHC'),
    ),
    'scan': lambda x: jax.lax.scan(step, x[0], x)[1] + jax.lax.scan(step, x[0], x)[0],
    'spectrum': lambda x: jnp.abs(jnp.fft.rfft(x.reshape(7, 10)).real) + 1,
    'filtering': lambda x: jnp.fft.irfft(
        jax.lax.complex(*(jnp.fft.rfft(x.reshape(7, 10)).real,) * 2), 10
    ),
    'a branch of a platform': lambda x: jax.lax.platform_dependent(
        x, [x, x], cpu=lambda x, y: x + y[1], default=lambda x, y: 3 * x
    ),
    'a fixed draw': lambda x: x + jax.random.normal(jax.random.key(3, impl='threefry2x32'), (5,)),
}  # fmt: skip


def in_onnx(function, *arrays):
    """Its result by onnxruntime."""
    inputs = {f'x{i}': jax.ShapeDtypeStruct(a.shape, a.dtype) for i, a in enumerate(arrays)}
    model = onnx_program.export(lambda **kw: {'y': function(*kw.values())}, inputs, {})
    session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
    return session.run(['y'], dict(zip(inputs, arrays, strict=True)))[0]


@pytest.mark.parametrize('name', OPERATIONS)
def test_an_operation_gives_what_jax_gives(name):
    with jax.numpy_rank_promotion('allow'):
        want = OPERATIONS[name](jnp.asarray(X))
        found = in_onnx(OPERATIONS[name], X)
    assert found.shape == want.shape and found.dtype == want.dtype
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=2e-5)


def test_a_product_of_integers_is_named():
    """MatMul takes no int8."""
    with pytest.raises(NotImplementedError, match='a product of int8 and int8'):
        in_onnx(lambda x: x @ jnp.ones((5, 5), jnp.int8), np.ones((3, 5), np.int8))


def test_an_operation_without_a_translation_is_named():
    with pytest.raises(NotImplementedError, match='sort'):
        in_onnx(jnp.sort, X)


@pytest.mark.parametrize(
    'values, bytes_each',
    [
        (RNG.normal(size=(64, 64)).astype(np.float16).astype(np.float32), 2),
        (np.float32(0.37) * RNG.integers(-127, 128, (64, 64)).astype(np.float32), 1),
        (RNG.normal(size=(64, 64)).astype(np.float32), 4),
    ],
)
def test_weights_are_stored_in_as_few_bytes_as_hold_them_exactly(values, bytes_each):
    values[0] = 127 * np.float32(0.37)
    if bytes_each == 2:
        values[0] = 1.5
    inputs = {'x': jax.ShapeDtypeStruct((1, 64), np.float32)}
    model = onnx_program.export(lambda x: {'y': x @ values}, inputs, {})
    assert len(model) < values.size * bytes_each + 2_000
    x = np.eye(64, dtype=np.float32)[:1]
    session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
    np.testing.assert_array_equal(session.run(None, {'x': x})[0], values[:1])
