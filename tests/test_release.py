"""Releases: exact round trips, bounded quantisation, strict loading, whole files only."""

import json
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from realaudio_jax import packing, release


def example_params():
    rng = np.random.default_rng(0)
    return {
        'block': {
            'kernel': rng.normal(size=(7, 5)).astype(np.float32) * np.logspace(-3, 2, 5)[None, :],
            'bias': rng.normal(size=5).astype(np.float32),
        },
        'table': {'embedding': rng.normal(size=(11, 3)) * np.logspace(-2, 3, 11)[:, None]},
        'conv': {'kernel': rng.normal(size=(3, 2, 5)).astype(np.float32)},
        'scale': np.float32(0.5),
        'lengths': np.arange(4, dtype=np.int32),
    }


@pytest.fixture
def params():
    return jax.tree.map(jnp.asarray, example_params())


def shapes(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


@pytest.mark.parametrize('dtype', [None, 'float32', 'float16', 'bfloat16'])
def test_floats_return_exactly_as_stored(tmp_path, params, dtype):
    path = tmp_path / 'new' / 'p.safetensors'
    packing.save_params(path, params, {'made': 'here'}, dtype=dtype)
    loaded = release.load_params(path, shapes(params))

    def expected(x):
        if dtype is None or not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return x.astype(dtype).astype(x.dtype)

    jax.tree.map(np.testing.assert_array_equal, loaded, jax.tree.map(expected, params))
    assert jax.tree.map(lambda x: x.dtype, loaded) == jax.tree.map(lambda x: x.dtype, params)
    metadata = release.read_metadata(path)
    assert metadata['made'] == 'here' and metadata['format_version'] == '1'
    assert [p.name for p in path.parent.iterdir()] == ['p.safetensors']


def test_bfloat16_template_from_float32_file(tmp_path, params):
    path = tmp_path / 'p.safetensors'
    packing.save_params(path, {'kernel': params['block']['kernel']})
    template = {'kernel': jax.ShapeDtypeStruct((7, 5), jnp.bfloat16)}
    loaded = release.load_params(path, template)['kernel']
    np.testing.assert_array_equal(loaded, params['block']['kernel'].astype(jnp.bfloat16))


def test_transposed_views_keep_their_values(tmp_path):
    kernel = np.arange(15.0, dtype=np.float32).reshape(5, 3).T
    packing.save_params(tmp_path / 'p.safetensors', {'kernel': kernel})
    loaded = release.load_params(tmp_path / 'p.safetensors', {'kernel': kernel})
    np.testing.assert_array_equal(loaded['kernel'], kernel)


def test_int8_error_is_half_a_step_of_its_own_channel(tmp_path, params):
    path = tmp_path / 'p.safetensors'
    packing.save_params(path, params, dtype='int8')
    loaded = release.load_params(path, shapes(params))
    for name, axes in {'block/kernel': 0, 'table/embedding': 1, 'conv/kernel': (0, 1)}.items():
        module, leaf = name.split('/')
        weights = np.asarray(params[module][leaf], np.float64)
        step = np.abs(weights).max(axis=axes, keepdims=True) / 127
        error = np.abs(np.asarray(loaded[module][leaf], np.float64) - weights)
        assert (error <= 0.5001 * step).all() and error.max() > 0, name
    for exact in ('scale', 'lengths'):
        np.testing.assert_array_equal(loaded[exact], params[exact])
    np.testing.assert_array_equal(loaded['block']['bias'], params['block']['bias'])
    stored = safetensors.numpy.load_file(path)
    assert stored['table/embedding'].dtype == np.int8
    assert stored['table/embedding.scale'].shape == (11, 1)
    assert stored['conv/kernel.scale'].shape == (1, 1, 5)


def test_int8_blocks_of_inputs(tmp_path):
    """With one huge weight in a channel, the error elsewhere stays that of its own block."""
    path = tmp_path / 'p.safetensors'
    rng = np.random.default_rng(1)
    params = {
        'dense': {'kernel': rng.normal(size=(12, 5)).astype(np.float32)},
        'conv': {'kernel': rng.normal(size=(2, 8, 3)).astype(np.float32)},
        'odd': {'kernel': rng.normal(size=(7, 3)).astype(np.float32)},
        'table': {'embedding': rng.normal(size=(8, 3)).astype(np.float32)},
    }
    params['dense']['kernel'][5, 2] = 1000.0
    packing.save_params(path, params, dtype='int8', block=4)
    stored = safetensors.numpy.load_file(path)
    assert stored['dense/kernel.scale'].shape == (3, 5)
    assert stored['conv/kernel.scale'].shape == (1, 2, 3)
    assert stored['odd/kernel.scale'].shape == (1, 3)  # 4 does not divide 7
    assert stored['table/embedding.scale'].shape == (8, 1)
    loaded = release.load_params(path, params)
    for name, rows in (('dense', 12), ('conv', 8)):
        weights, got = params[name]['kernel'], np.asarray(loaded[name]['kernel'])
        for start in range(0, rows, 4):
            block = weights[..., start : start + 4, :]
            step = np.abs(block).max(axis=tuple(range(block.ndim - 1)), keepdims=True) / 127
            error = np.abs(got[..., start : start + 4, :] - block)
            assert (error <= 0.5001 * step).all() and error.max() > 0


def test_int4_is_half_of_int8_and_returns_as_stored(tmp_path, params):
    size = {}
    for dtype in ('int8', 'int4'):
        path = tmp_path / f'{dtype}.safetensors'
        packing.save_params(path, params | {'wide': {'kernel': jnp.ones((64, 64))}}, dtype=dtype)
        stored = safetensors.numpy.load_file(path)
        size[dtype] = stored['wide/kernel'].nbytes
    assert size['int4'] == size['int8'] / 2
    assert stored['block/kernel'].dtype == np.int8 and stored['block/kernel'].shape == (7, 5)  # odd
    loaded = release.load_params(path, shapes(params | {'wide': {'kernel': jnp.ones((64, 64))}}))
    np.testing.assert_allclose(loaded['wide']['kernel'], 1.0, rtol=1e-6)
    weights = np.asarray(params['table']['embedding'], np.float64)
    step = np.abs(weights).max(axis=1, keepdims=True) / (7 if weights.shape[1] % 2 == 0 else 127)
    error = np.abs(np.asarray(loaded['table']['embedding'], np.float64) - weights)
    assert (error <= 0.5001 * step).all() and error.max() > 0


def test_int8_of_zeros_is_zeros(tmp_path):
    packing.save_params(tmp_path / 'p.safetensors', {'kernel': np.zeros((2, 3))}, dtype='int8')
    np.testing.assert_array_equal(
        release.read_tensors(tmp_path / 'p.safetensors')['kernel'], np.zeros((2, 3))
    )


def test_every_mismatch_is_in_one_error(tmp_path, params):
    path = tmp_path / 'p.safetensors'
    packing.save_params(path, params, dtype='int8')
    template = shapes(params)
    del template['scale'], template['table']
    template['block']['kernel'] = jax.ShapeDtypeStruct((5, 7), jnp.float32)
    template['lengths'] = jax.ShapeDtypeStruct((4,), jnp.float32)
    template['extra'] = {'bias': jax.ShapeDtypeStruct((2,), jnp.float32)}
    with pytest.raises(ValueError, match='does not fit the model') as caught:
        release.load_params(path, template)
    message = str(caught.value)
    for part in (
        str(path),
        'missing extra/bias',
        'unexpected scale',
        'unexpected table/embedding',
        'block/kernel has shape (7, 5), not (5, 7)',
        'lengths has dtype int32, not float32',
    ):
        assert part in message
    assert '\n' not in message and message.count(';') == 5


def test_integers_are_never_taken_for_floats_or_cut(tmp_path):
    path = tmp_path / 'p.safetensors'
    packing.save_params(path, {'n': np.zeros(3, np.int8)})
    for dtype in (jnp.float32, jnp.int32):
        with pytest.raises(ValueError, match='n has dtype int8'):
            release.load_params(path, {'n': jax.ShapeDtypeStruct((3,), dtype)})


def test_orphan_scale_is_unexpected(tmp_path):
    path = tmp_path / 'p.safetensors'
    safetensors.numpy.save_file({'w': np.ones(3, np.float32), 'v.scale': np.ones(3)}, path)
    with pytest.raises(ValueError, match='unexpected v.scale'):
        release.load_params(path, {'w': jax.ShapeDtypeStruct((3,), jnp.float32)})


@pytest.mark.parametrize('damage', ['truncate', 'empty', 'text', 'pickle', 'flip'])
def test_damaged_file_is_named_with_the_remedy(tmp_path, params, damage):
    path = tmp_path / 'p.safetensors'
    packing.save_params(path, params)
    whole = path.read_bytes()
    path.write_bytes(
        {
            'truncate': whole[:-9],
            'empty': b'',
            'text': b'<html>not found</html>' * 9,
            'pickle': pickle.dumps({'a': 1}),
            'flip': whole[:-2] + bytes([whole[-2] ^ 16]) + whole[-1:],
        }[damage]
    )
    with pytest.raises(ValueError, match='damaged.*get the release again') as caught:
        release.load_params(path, shapes(params))
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='no weights at .*gone.safetensors; check'):
        release.load_params(tmp_path / 'gone.safetensors', {})


@pytest.mark.parametrize(
    ('value', 'dtype'),
    [(np.nan, None), (np.inf, 'int8'), (np.nan, 'int8'), (1e6, 'float16'), (np.nan, 'bfloat16')],
)
def test_not_finite_is_never_saved(tmp_path, value, dtype):
    kernel = np.ones((2, 3), np.float32)
    kernel[1, 2] = value
    with pytest.raises(ValueError, match='a/kernel is not finite'):
        packing.save_params(tmp_path / 'p.safetensors', {'a': {'kernel': kernel}}, dtype=dtype)
    assert not list(tmp_path.iterdir())


def test_bad_arguments_to_save(tmp_path):
    with pytest.raises(ValueError, match="'int2'.*choose one of float32"):
        packing.save_params(tmp_path / 'p.safetensors', {}, dtype='int2')
    with pytest.raises(ValueError, match="rename 'kernel.scale'"):
        packing.save_params(tmp_path / 'p.safetensors', {'kernel.scale': np.ones(2)})


FULL_DISK = """
import pathlib, resource, sys
import numpy as np
from realaudio_jax import packing, release
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    packing.save_params(sys.argv[1], {'kernel': np.ones((99, 99), np.float32)})
except OSError as error:
    print(error)
"""


def test_full_disk_leaves_the_old_file(tmp_path):
    """A file-size limit stands in for the full disk: the write fails half way."""
    path = tmp_path / 'p.safetensors'
    packing.save_params(path, {'kernel': np.ones((2, 3), np.float32)})
    before = path.read_bytes()
    done = subprocess.run(
        [sys.executable, '-c', FULL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    assert f'cannot write {path}' in done.stdout and done.stdout.count('\n') == 1
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ['p.safetensors']


SAME_BYTES = """
import sys
import numpy as np
from realaudio_jax import packing, release
metadata = {name: name.upper() for name in 'qwertyuiop'}
packing.save_params(sys.argv[1], {'a': np.arange(7.0), 'b': np.ones((3, 2), np.int8)}, metadata)
"""


def test_equal_weights_are_equal_files(tmp_path):
    """In another process the library's own hash table has another order."""
    files = [tmp_path / f'{i}.safetensors' for i in range(2)]
    for path in files:
        subprocess.run([sys.executable, '-c', SAME_BYTES, str(path)], check=True)
    first, second = (path.read_bytes() for path in files)
    assert first == second
    names = list(safetensors.safe_open(files[0], framework='np').metadata())
    assert {'crc32', 'format_version', *'qwertyuiop'} == set(names)
    header = json.loads(first[8 : 8 + int.from_bytes(first[:8], 'little')])
    assert list(header['__metadata__']) == sorted(names)
    shape = {'a': jax.ShapeDtypeStruct((7,), jnp.float32), 'b': np.ones((3, 2), np.int8)}
    np.testing.assert_array_equal(release.load_params(files[0], shape)['a'], np.arange(7.0))


def test_a_hundred_mismatches_are_ten_and_a_count(tmp_path):
    path = tmp_path / 'p.safetensors'
    packing.save_params(path, {f'w{i:03}': np.ones(2) for i in range(100)})
    with pytest.raises(ValueError, match='unexpected w009; and 90 more; load') as caught:
        release.load_params(path, {})
    assert len(str(caught.value)) < 500
