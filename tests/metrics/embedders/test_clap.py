"""LAION-CLAP: sizes and refusals without a checkpoint; see test_clap_parity.py for the figures."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from realaudio_jax.metrics.embedders import clap

# Of transformers' ClapModel(ClapConfig()): 153,492,890 parameters and the 2 x 64 statistics of its
# batch norm.
FULL = 153_492_890 + 128


def test_the_published_size():
    network = clap.network_of({'model_type': 'clap'})
    shapes = clap.network_shapes(network)
    leaves = jax.tree_util.tree_leaves(shapes)
    assert sum(np.prod(leaf.shape, dtype=int) for leaf in leaves) == FULL
    found = jax.eval_shape(
        network.apply,
        {'params': shapes},
        jax.ShapeDtypeStruct((3, 1001, 64), np.float32),
        jax.ShapeDtypeStruct((2, 77), np.int32),
        jax.ShapeDtypeStruct((2, 77), bool),
    )
    assert [x.shape for x in found] == [(3, 512), (2, 512)]


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='config.json'):
        clap.load_clap(tmp_path)
    (tmp_path / 'config.json').write_text('{"model_type": "clap"}')
    with pytest.raises(FileNotFoundError, match='model.safetensors'):
        clap.load_clap(tmp_path)
    (tmp_path / 'config.json').write_text('{"model_type": ')
    with pytest.raises(ValueError, match='config.json is damaged'):
        clap.load_clap(tmp_path)


@pytest.mark.parametrize(
    'config, message',
    [
        ({'model_type': 'clip'}, "describes a 'clip', not a CLAP"),
        ({'model_type': 'clap', 'audio_config': {'enable_fusion': True}}, 'enable_fusion is True'),
        (
            {'model_type': 'clap', 'projection_hidden_act': 'gelu'},
            "projection_hidden_act is 'gelu'",
        ),
    ],
)
def test_variants_that_are_not_known_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        clap.network_of(config)


def test_another_model_and_half_a_download(tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'clap'}))
    tensors = {
        'wte.weight': np.zeros((2, 3), np.float32),
        'text_projection.linear1.weight': np.zeros((512, 7), np.float32),
    }
    data = safetensors.numpy.save(tensors)
    (tmp_path / 'model.safetensors').write_bytes(data)
    with pytest.raises(ValueError) as error:
        clap.load_clap(tmp_path)
    message = str(error.value)
    assert 'unexpected wte.weight' in message
    assert 'text_projection.linear1.weight (512, 7) where (512, 768) is wanted' in message
    assert 'missing text_model.encoder.layer.11.attention.self.key.weight' in message
    assert 'missing audio_model.audio_encoder.layers.2.blocks.5.layernorm_after.bias' in message
    (tmp_path / 'model.safetensors').write_bytes(data[:-9])
    with pytest.raises(ValueError, match='truncated or damaged'):
        clap.load_clap(tmp_path)


def test_another_front_end_is_refused(tmp_path):
    (tmp_path / 'config.json').write_text('{"model_type": "clap"}')
    (tmp_path / 'model.safetensors').write_bytes(b'')
    (tmp_path / 'preprocessor_config.json').write_text('{"frequency_min": 0}')
    with pytest.raises(ValueError, match='frequency_min is 0, not 50.0'):
        clap.load_clap(tmp_path)
