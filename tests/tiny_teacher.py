"""Tiny random teachers in the layouts their authors publish, written with no torch."""

import json
import pathlib

import jax
import numpy as np
import safetensors.numpy
import tokenizers
from tiny import random_params

from realaudio_jax.teachers import importing, t5
from realaudio_jax.teachers.stable_audio_open import (
    conditioners,
    oobleck,
    pipeline,
    transformer,
)

WORDS = ('dog', 'barks', 'rain', 'wind', 'door', 'slams', 'a', 'and', 'then', 'over')


def torch_layout(path: str, array: np.ndarray) -> np.ndarray:
    """The inverse of `importing.torch_layout`."""
    return np.moveaxis(array, (-1, -2), (0, 1)) if path.endswith('/kernel') else array


def oobleck_layout(path: str, array: np.ndarray) -> np.ndarray:
    """The inverse of `oobleck.layout`."""
    leaf = path.rsplit('/', 1)[-1]
    if leaf == 'direction':
        return array.transpose((1, 2, 0) if '/up/' in path else (2, 1, 0))
    shapes = {'length': (-1, 1, 1), 'alpha': (1, -1, 1), 'beta': (1, -1, 1)}
    return array.reshape(shapes.get(leaf, array.shape))


def write_model(
    folder: pathlib.Path, config: dict, shapes, names, layout=torch_layout, seed: int = 0
) -> None:
    """A config.json and random weights under the original's names, in the original's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(config))
    tensors = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(random_params(shapes, seed))[0]:
        path = jax.tree_util.keystr(path, simple=True, separator='/')
        array = layout(path, np.asarray(leaf))
        tensors[importing.original_name(path, names)] = np.array(array, order='C')
    safetensors.numpy.save_file(tensors, folder / 'model.safetensors')


def write_t5(folder: pathlib.Path, width: int = 12, feed_forward: str = 'relu') -> None:
    """A T5 encoder whose vocabulary is that of `write_tokenizer`."""
    config = {
        'architectures': [t5.CLASS_NAME],
        'model_type': 't5',
        'vocab_size': len(WORDS) + 3,
        'd_model': width,
        'd_kv': 5,
        'd_ff': 16,
        'num_layers': 2,
        'num_heads': 2,
        'relative_attention_num_buckets': 8,
        'relative_attention_max_distance': 20,
        'layer_norm_epsilon': 1e-6,
        'feed_forward_proj': feed_forward,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(config))
    write_model(folder, config, t5.parameter_shapes(t5.read_encoder(folder)), t5.NAMES)


def write_tokenizer(folder: pathlib.Path, max_tokens: int = 24) -> None:
    """A tokenizer of a few whole words; all others are <unk>."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: i for i, word in enumerate(('<pad>', '</s>', '<unk>', *WORDS))}
    model = tokenizers.models.WordLevel(vocabulary, unk_token='<unk>')
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single='$A </s>', special_tokens=[('</s>', 1)]
    )
    tokenizer.save(str(folder / 'tokenizer.json'))
    (folder / 'tokenizer_config.json').write_text(json.dumps({'model_max_length': max_tokens}))


def write_stable_audio_open(folder: pathlib.Path) -> pathlib.Path:
    """A whole Stable Audio Open: 22 latent frames of 512 samples at 11,025 Hz, 1.02 s."""
    configs = {
        'transformer': {
            '_class_name': transformer.CLASS_NAME, 'sample_size': 22, 'in_channels': 4,
            'out_channels': 4, 'num_layers': 1, 'attention_head_dim': 8, 'num_attention_heads': 2,
            'num_key_value_attention_heads': 1, 'cross_attention_dim': 10, 'time_proj_dim': 8,
            'global_states_input_dim': 24, 'cross_attention_input_dim': 12,
        },
        'projection_model': {
            '_class_name': conditioners.CLASS_NAME, 'text_encoder_dim': 12,
            'conditioning_dim': 12, 'min_value': 0, 'max_value': 4,
        },
        'vae': {
            '_class_name': oobleck.CLASS_NAME, 'encoder_hidden_size': 8, 'decoder_channels': 4,
            'downsampling_ratios': [4, 8, 16], 'channel_multiples': [1, 1, 2],
            'decoder_input_channels': 4, 'audio_channels': 2, 'sampling_rate': 11_025,
        },
    }  # fmt: skip
    modules = {
        'transformer': (transformer, transformer.read_transformer, torch_layout),
        'projection_model': (conditioners, conditioners.read_projection, torch_layout),
        'vae': (oobleck, oobleck.read_autoencoder, oobleck_layout),
    }
    for name, (module, read, layout) in modules.items():
        (folder / name).mkdir(parents=True)
        (folder / name / 'config.json').write_text(json.dumps(configs[name]))
        shapes = module.parameter_shapes(read(folder / name))
        write_model(folder / name, configs[name], shapes, module.NAMES, layout)
    write_t5(folder / 'text_encoder')
    write_tokenizer(folder / 'tokenizer', max_tokens=64)
    (folder / 'scheduler').mkdir()
    schedule = {'_class_name': pipeline.SCHEDULER, 'sigma_min': 0.3, 'sigma_max': 500}
    (folder / 'scheduler' / 'scheduler_config.json').write_text(json.dumps(schedule))
    index = json.dumps({'_class_name': pipeline.CLASS_NAME})
    (folder / 'model_index.json').write_text(index)
    return folder
