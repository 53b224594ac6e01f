"""Strict import: every key used, every parameter filled, every mismatch named at once."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from realaudio_jax.teachers import importing

TEMPLATE = {
    'block_0': {
        'query': {
            'kernel': jax.ShapeDtypeStruct((3, 5), jnp.float32),
            'bias': jax.ShapeDtypeStruct((5,), jnp.float32),
        },
        'conv': {'kernel': jax.ShapeDtypeStruct((7, 3, 2), jnp.float32)},
    },
    'gain': jax.ShapeDtypeStruct((), jnp.float32),
}
NAMES = ((r'block_(\d+)', r'blocks/\1'), (r'query/', 'to_q/'))


def tensors(dtype=np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        'blocks.0.to_q.weight': (5, 3),
        'blocks.0.to_q.bias': (5,),
        'blocks.0.conv.weight': (2, 3, 7),
        'gain': (),
    }
    return {name: np.asarray(rng.normal(size=s)).astype(dtype) for name, s in shapes.items()}


def save(folder, arrays, name='model.safetensors'):
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(arrays, folder / name)
    return folder


@pytest.mark.parametrize('dtype', [np.float32, np.float16, ml_dtypes.bfloat16])
def test_arrays_arrive_in_our_layout_from_every_precision(tmp_path, dtype):
    arrays = tensors(dtype)
    folder = save(tmp_path, arrays, 'diffusion_pytorch_model.safetensors')
    params = importing.import_params(folder, TEMPLATE, NAMES)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    block = params['block_0']
    as_float = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    np.testing.assert_array_equal(block['query']['kernel'], as_float['blocks.0.to_q.weight'].T)
    np.testing.assert_array_equal(block['query']['bias'], as_float['blocks.0.to_q.bias'])
    conv = np.transpose(as_float['blocks.0.conv.weight'], (2, 1, 0))
    np.testing.assert_array_equal(block['conv']['kernel'], conv)
    np.testing.assert_array_equal(params['gain'], as_float['gain'])
    kept = importing.import_params(folder, TEMPLATE, NAMES, dtype=None)
    assert kept['gain'].dtype == dtype


def test_one_error_lists_every_mismatch(tmp_path):
    arrays = tensors()
    arrays['gain'] = arrays['gain'].astype(np.float64)
    arrays['blocks.0.conv.weight'] = arrays['blocks.0.conv.weight'][:, :2]
    del arrays['blocks.0.to_q.bias']
    arrays['blocks.1.to_q.weight'] = np.zeros((1,), np.float32)
    with pytest.raises(ValueError) as error:
        importing.import_params(save(tmp_path, arrays), TEMPLATE, NAMES)
    for part in (
        'missing blocks.0.to_q.bias',
        'unexpected blocks.1.to_q.weight',
        'blocks.0.conv.weight has shape (7, 2, 2), not (7, 3, 2)',
        'gain is stored as F64',
    ):
        assert part in str(error.value)
    assert '\n' not in str(error.value)


def test_names_for_the_same_tensor_and_tensors_that_are_no_parameters(tmp_path):
    arrays = tensors()
    arrays['tied'] = arrays['gain']
    arrays['steps'] = np.arange(3, dtype=np.int64)
    options = dict(aliases={'tied': 'gain'}, ignored='^steps$')
    params = importing.import_params(save(tmp_path, arrays), TEMPLATE, NAMES, **options)
    np.testing.assert_array_equal(params['gain'], arrays['gain'])
    del arrays['gain']  # under its second name only
    params = importing.import_params(save(tmp_path, arrays), TEMPLATE, NAMES, **options)
    np.testing.assert_array_equal(params['gain'], arrays['tied'])
    arrays['gain'] = np.asarray(arrays['tied'] + 1)
    with pytest.raises(ValueError, match='tied differs from gain'):
        importing.import_params(save(tmp_path, arrays), TEMPLATE, NAMES, **options)


def test_shards_are_read_whole_or_named(tmp_path):
    arrays = tensors()
    first = {k: v for k, v in arrays.items() if k != 'gain'}
    save(tmp_path, first, 'model-1.safetensors')
    save(tmp_path, {'gain': arrays['gain']}, 'model-2.safetensors')
    names = dict.fromkeys(first, 'model-1.safetensors') | {'gain': 'model-2.safetensors'}
    index = json.dumps({'weight_map': names})
    (tmp_path / 'model.safetensors.index.json').write_text(index)
    params = importing.import_params(tmp_path, TEMPLATE, NAMES)
    np.testing.assert_array_equal(params['gain'], arrays['gain'])
    (tmp_path / 'model-2.safetensors').unlink()
    with pytest.raises(ValueError, match='half-downloaded: model-2.safetensors missing'):
        importing.import_params(tmp_path, TEMPLATE, NAMES)


def test_folders_that_are_not_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder'):
        importing.weight_files(tmp_path / 'none')
    with pytest.raises(ValueError, match='half-downloaded: it has none of'):
        importing.weight_files(tmp_path)
    (tmp_path / 'pytorch_model.bin').write_bytes(b'pickle')
    with pytest.raises(ValueError, match='older layout: pytorch_model.bin is a pickle'):
        importing.weight_files(tmp_path)
    path = save(tmp_path, tensors()) / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match='half-downloaded or damaged'):
        importing.import_params(tmp_path, TEMPLATE, NAMES)


def test_configs_of_another_model_or_variant(tmp_path):
    with pytest.raises(FileNotFoundError, match='no config.json'):
        importing.read_model_config(tmp_path, 'Net')
    path = tmp_path / 'config.json'
    path.write_text('{"_class_name": "Net", "wid')
    with pytest.raises(ValueError, match='damaged'):
        importing.read_model_config(tmp_path, 'Net')
    path.write_text('{"_class_name": "Net", "width": 4, "taps": [1, 2]}')
    with pytest.raises(ValueError, match='class Net, not Other'):
        importing.read_model_config(tmp_path, 'Other')
    config = importing.read_model_config(tmp_path, 'Net')
    found = importing.pick(config, tmp_path, {'width': 'width', 'taps': 'strides'}, {'bias': True})
    assert found == {'width': 4, 'strides': (1, 2)}
    with pytest.raises(ValueError, match='no depth; width is 4, not 5'):
        importing.pick(config, tmp_path, {'depth': 'depth'}, {'width': 5})
