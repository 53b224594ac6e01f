"""A tiny random Stable Audio 3 in the layout of diffusers, written with no torch."""

import json
import pathlib

import numpy as np
import tiny_teacher

from realaudio_jax.teachers import t5gemma
from realaudio_jax.teachers.stable_audio_3 import conditioners, pipeline, same, transformer

CONFIGS = {
    'transformer': {
        '_class_name': transformer.CLASS_NAME, 'io_channels': 4, 'patch_size': 1, 'embed_dim': 16,
        'depth': 1, 'num_heads': 2, 'cond_token_dim': 12, 'global_cond_dim': 12,
        'local_add_cond_dim': 5, 'timestep_features_dim': 8, 'ff_mult': 2.0,
        'num_memory_tokens': 3, 'use_differential_attention': False,
    },
    'duration_embedder': {
        '_class_name': conditioners.CLASS_NAME, 'output_dim': 12, 'fourier_dim': 8, 'min_val': 0.0,
        'max_val': 4.0, 'min_freq': 0.5, 'max_freq': 10_000.0,
    },
    'vae': {
        '_class_name': same.CLASS_NAME, 'audio_channels': 2, 'patch_size': 32,
        'encoder_channels': 8, 'encoder_c_mults': [2], 'encoder_strides': [4],
        'encoder_transformer_depths': [1], 'latent_dim': 4, 'use_differential_attention': True,
        'dim_heads': 8, 'ff_mult': 2, 'sliding_window': 1, 'encoder_sinusoidal_blocks': [0],
        'decoder_sinusoidal_blocks': [0], 'sampling_rate': 1000,
    },
    'text_encoder': {
        'architectures': [t5gemma.CLASS_NAME], 'model_type': 't5gemma',
        'encoder': {
            'vocab_size': len(tiny_teacher.WORDS) + 3, 'hidden_size': 12, 'head_dim': 4,
            'intermediate_size': 16, 'num_hidden_layers': 1, 'num_attention_heads': 2,
            'num_key_value_heads': 2, 'query_pre_attn_scalar': 4, 'attn_logit_softcapping': 50.0,
            'sliding_window': 4096, 'rms_norm_eps': 1e-6, 'attention_bias': False,
            'hidden_activation': 'gelu_pytorch_tanh', 'layer_types': ['sliding_attention'],
        },
    },
}  # fmt: skip
MODULES = {
    'transformer': (transformer, transformer.read_transformer),
    'duration_embedder': (conditioners, conditioners.read_duration),
    'vae': (same, same.read_autoencoder),
    'text_encoder': (t5gemma, t5gemma.read_encoder),
}
SCHEDULE = {
    '_class_name': pipeline.SCHEDULER,
    'num_train_timesteps': 1,
    'shift': 1.0,
    'stochastic_sampling': True,
}


def same_layout(path: str, array: np.ndarray) -> np.ndarray:
    """The inverse of `same.layout`."""
    leaf = path.rsplit('/', 1)[-1]
    if leaf == 'direction':
        return array.T[..., None]
    shapes = {
        'length': (-1, 1, 1),
        'token': (1, 1, -1),
        'latent_scale': (1, -1, 1),
        'latent_bias': (1, -1, 1),
    }
    return tiny_teacher.torch_layout(path, array.reshape(shapes.get(leaf, array.shape)))


def write(folder: pathlib.Path, max_tokens: int = 24) -> pathlib.Path:
    """A whole model: latent frames of 128 samples at 1 kHz, up to 4 s."""
    for name, (module, read) in MODULES.items():
        (folder / name).mkdir(parents=True)
        (folder / name / 'config.json').write_text(json.dumps(CONFIGS[name]))
        names = getattr(module, 'NAMES', ())
        layout = same_layout if name == 'vae' else tiny_teacher.torch_layout
        shapes = module.parameter_shapes(read(folder / name))
        tiny_teacher.write_model(folder / name, CONFIGS[name], shapes, names, layout)
    tiny_teacher.write_tokenizer(folder / 'tokenizer', max_tokens)
    (folder / 'scheduler').mkdir()
    (folder / 'scheduler' / 'scheduler_config.json').write_text(json.dumps(SCHEDULE))
    (folder / 'model_index.json').write_text(json.dumps({'_class_name': pipeline.CLASS_NAME}))
    return folder
