"""Small random Stable Audio 3 models of diffusers that keep every feature of the real one."""

import pathlib

import tiny_teacher
from stable_audio import diffusers, randomise, torch, transformers


def transformer(differential: bool = False):
    torch.manual_seed(0)
    return randomise(
        diffusers.StableAudio3DiTModel(
            io_channels=6,
            embed_dim=32,
            depth=2,
            num_heads=4,
            cond_token_dim=12,
            global_cond_dim=12,
            local_add_cond_dim=7,
            timestep_features_dim=8,
            ff_mult=3.0,
            num_memory_tokens=5,
            use_differential_attention=differential,
        )
    )


def autoencoder(levels: int = 1):
    """Its heads of 8 features; with 2 levels some layers have the sine, as in the large one."""
    torch.manual_seed(0)
    return randomise(
        diffusers.AutoencoderSAME(
            patch_size=6,
            encoder_channels=8,
            encoder_c_mults=[2, 3][:levels],
            encoder_strides=[4, 2][:levels],
            encoder_transformer_depths=[2, 3][:levels],
            latent_dim=6,
            dim_heads=8,
            sampling_rate=1000,
            sliding_window=levels,
            encoder_sinusoidal_blocks=[0],
            decoder_sinusoidal_blocks=[0, 3][:levels],
        )
    )


def duration():
    module = diffusers.pipelines.stable_audio_3.StableAudio3DurationEmbedder
    torch.manual_seed(0)
    return randomise(module(output_dim=12, fourier_dim=8, max_val=30.0))


def text_encoder(vocabulary: int):
    part = transformers.T5GemmaModuleConfig(
        vocab_size=vocabulary,
        hidden_size=12,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=6,
        query_pre_attn_scalar=6,
    )
    config = transformers.T5GemmaConfig(encoder=part, decoder=part, is_encoder_decoder=False)
    torch.manual_seed(0)
    return randomise(transformers.T5GemmaEncoderModel(config))


def pipeline(folder: pathlib.Path, stochastic: bool):
    """A whole pipeline, saved to `folder`."""
    tiny_teacher.write_tokenizer(folder / 'words', max_tokens=9)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / 'words' / 'tokenizer.json'),
        pad_token='<pad>',
        eos_token='</s>',
        unk_token='<unk>',
        model_max_length=9,
        padding_side='left',
    )
    parts = diffusers.StableAudio3Pipeline(
        vae=autoencoder(),
        text_encoder=text_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        duration_embedder=duration(),
        transformer=transformer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=1, stochastic_sampling=stochastic
        ),
    )
    parts.set_progress_bar_config(disable=True)
    parts.save_pretrained(folder / 'model')
    return parts, folder / 'model'
