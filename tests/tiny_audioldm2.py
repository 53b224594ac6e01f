"""A tiny random AudioLDM 2 in the layout its authors publish, written with no torch."""

import json
import pathlib

import jax
import numpy as np
import safetensors.numpy
from tiny import random_params
from tiny_teacher import write_t5, write_tokenizer

from realaudio_jax.teachers import importing
from realaudio_jax.teachers.audioldm2 import language_model, model, pipeline, unet, vocoder

# Parameters of the full-size originals, counted by the reference test. The language model is
# counted without its table of tokens, CLAP without its audio tower: neither is read.
COUNTS = {
    'unet': 346_943_496,
    'autoencoder': 55_376_873,
    'vocoder': 55_264_897,
    'projection': 1_184_256,
    'language_model': 85_842_432,
    'clap': 125_302_016,
    't5': 341_231_104,
}
CONFIGS = {
    'unet': unet.FIXED | {
        '_class_name': 'AudioLDM2UNet2DConditionModel', 'sample_size': 16, 'in_channels': 3,
        'out_channels': 3, 'block_out_channels': [8, 12],
        'down_block_types': ['DownBlock2D', 'CrossAttnDownBlock2D'],
        'up_block_types': ['CrossAttnUpBlock2D', 'UpBlock2D'],
        'cross_attention_dim': [[None, 6, 12], [None, 6, 12]], 'attention_head_dim': 2,
        'layers_per_block': 1, 'transformer_layers_per_block': 1, 'norm_num_groups': 2,
        'norm_eps': 1e-5,
    },
    'vae': {
        '_class_name': 'AutoencoderKL', 'in_channels': 1, 'out_channels': 1,
        'block_out_channels': [4, 8], 'latent_channels': 3, 'layers_per_block': 1,
        'norm_num_groups': 2, 'down_block_types': ['DownEncoderBlock2D'] * 2,
        'up_block_types': ['UpDecoderBlock2D'] * 2, 'scaling_factor': 0.5,
    },
    'vocoder': {
        'architectures': ['SpeechT5HifiGan'], 'model_in_dim': 8, 'sampling_rate': 16_000,
        'upsample_initial_channel': 8, 'upsample_rates': [5, 32],
        'upsample_kernel_sizes': [16, 64], 'resblock_kernel_sizes': [3],
        'resblock_dilation_sizes': [[1, 3]], 'leaky_relu_slope': 0.1, 'normalize_before': False,
    },
    'text_encoder': {
        'architectures': ['ClapModel'],
        'text_config': {
            'vocab_size': 13, 'max_position_embeddings': 30, 'hidden_size': 10,
            'intermediate_size': 12, 'num_hidden_layers': 1, 'num_attention_heads': 2,
            'projection_dim': 5, 'pad_token_id': 1,
        },
    },
    'projection_model': {'_class_name': 'AudioLDM2ProjectionModel', 'langauge_model_dim': 6},
    'language_model': {
        'architectures': ['GPT2Model'], 'n_embd': 6, 'n_head': 2, 'n_layer': 1, 'n_positions': 64,
        'layer_norm_epsilon': 1e-5, 'max_new_tokens': 3,
    },
}  # fmt: skip
SCHEDULER = {
    '_class_name': 'DDIMScheduler',
    'beta_start': 0.0015,
    'beta_end': 0.0195,
    'beta_schedule': 'scaled_linear',
    'num_train_timesteps': 1000,
    'steps_offset': 1,
    'set_alpha_to_one': False,
    'prediction_type': 'epsilon',
    'clip_sample': False,
}
STEMS = {'unet': 'diffusion_pytorch_model', 'vae': 'diffusion_pytorch_model'}


def write(folder: pathlib.Path, **unet) -> pathlib.Path:
    """Writes the pipeline's folder and returns it; `unet` changes the U-Net's config."""
    for name, config in (CONFIGS | {'unet': CONFIGS['unet'] | unet}).items():
        write_json(folder / name / 'config.json', config)
    write_json(folder / 'model_index.json', {'_class_name': 'AudioLDM2Pipeline'})
    write_json(folder / 'scheduler' / 'scheduler_config.json', SCHEDULER)
    write_t5(folder / 'text_encoder_2', feed_forward='gated-gelu')
    write_tokenizer(folder / 'tokenizer_2')
    write_tokenizer(folder / 'tokenizer')
    networks, imports = pipeline.read_networks(folder)
    shapes = model.parameter_shapes(networks)
    for seed, (name, (part, options)) in enumerate(imports.items()):
        if name != 't5':
            stem = STEMS.get(part.name, 'model')
            tensors = original_tensors(random_params(shapes[name], seed), options)
            if name == 'clap':  # what stands beside the text tower in the published file
                tensors['audio_model.batch_norm.weight'] = np.ones(3, np.float32)
                tensors['text_model.embeddings.position_ids'] = np.arange(30)[None]
            safetensors.numpy.save_file(tensors, part / f'{stem}.safetensors')
    return folder


def write_json(path: pathlib.Path, content: dict) -> None:
    """Writes a file, and its folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def original_tensors(params, options: dict) -> dict[str, np.ndarray]:
    """Parameters under the original's names, in the original's layout."""
    tensors = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        path = jax.tree_util.keystr(path, simple=True, separator='/')
        array = np.asarray(leaf)
        layout = options.get('layout', importing.torch_layout)
        if path.endswith('/kernel') and layout is not language_model.layout:
            transposed = layout is vocoder.layout and path.startswith('upsamplers_')
            array = (
                np.moveaxis(array, 0, -1) if transposed else np.moveaxis(array, (-1, -2), (0, 1))
            )
        name = importing.original_name(path, options.get('names', ()))
        tensors[name] = np.array(array, order='C')
    return tensors
