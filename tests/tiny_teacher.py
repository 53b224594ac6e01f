"""Tiny random teachers in the layouts their authors publish, written with no torch."""

import json
import pathlib

import jax
import numpy as np
import safetensors.numpy
import tokenizers
from tiny import random_params

from realaudio_jax.teachers import importing, t5

WORDS = ('dog', 'barks', 'rain', 'wind', 'door', 'slams', 'a', 'and', 'then', 'over')


def write_model(folder: pathlib.Path, config: dict, shapes, names, seed: int = 0) -> None:
    """A config.json and random weights under the original's names, in the original's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(config))
    tensors = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(random_params(shapes, seed))[0]:
        path = jax.tree_util.keystr(path, simple=True, separator='/')
        array = np.asarray(leaf)
        if path.endswith('/kernel'):
            array = np.moveaxis(array, (-1, -2), (0, 1))
        tensors[importing.original_name(path, names)] = np.array(array, order='C')
    safetensors.numpy.save_file(tensors, folder / 'model.safetensors')


def write_t5(folder: pathlib.Path, width: int = 12, feed_forward: str = 'relu') -> None:
    """A T5 encoder whose vocabulary is that of `write_tokenizer`."""
    config = {
        'architectures': [t5.CLASS_NAME], 'model_type': 't5', 'vocab_size': len(WORDS) + 3,
        'd_model': width, 'd_kv': 5, 'd_ff': 16, 'num_layers': 2, 'num_heads': 2,
        'relative_attention_num_buckets': 8, 'relative_attention_max_distance': 20,
        'layer_norm_epsilon': 1e-6, 'feed_forward_proj': feed_forward,
    }  # fmt: skip
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
