"""Pipelines of diffusers with random weights, of the sizes of the JAX baselines.

Their tokenizers know no word: what a prompt says does not change what it costs.
"""

import sys
import types
from typing import Any

import diffusers
import tokenizers
import torch
import transformers

from experiments import baselines
from realaudio_jax.teachers import t5
from realaudio_jax.teachers.audioldm2 import Networks

SPECIAL = ('<s>', '<pad>', '</s>', '<unk>', '<mask>')


def _random(kind: Any, dtype: str, *args, **kwargs) -> Any:
    """A module with the random weights of its own kind."""
    return kind(*args, **kwargs).to(getattr(torch, dtype)).eval()


def _random_t5(encoder: t5.T5Encoder, dtype: str) -> Any:
    config = transformers.T5Config(
        vocab_size=encoder.vocabulary,
        d_model=encoder.width,
        d_kv=encoder.head_width,
        d_ff=encoder.hidden,
        num_layers=encoder.layers,
        num_heads=encoder.heads,
        feed_forward_proj=encoder.feed_forward,
    )
    return _random(transformers.T5EncoderModel, dtype, config)


def _t5_tokenizer(max_tokens: int) -> Any:
    """Every word is unknown; for random weights."""
    pieces = [('<pad>', 0.0), ('</s>', 0.0), ('<unk>', -2.0), ('\u2581', -3.0)]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=max_tokens)


def audioldm2(n: Networks, dtype: str) -> Any:
    """The pipeline with random weights, of the sizes of `n`."""
    unet, vae, voice, text, language = n.unet, n.autoencoder, n.vocoder, n.clap, n.language_model
    levels = len(vae.channels)
    width = {None: None, 0: n.projection.width, 1: n.t5.width}
    crossed = ['CrossAttn' if attends else '' for attends in unet.attends]
    clap = {
        'vocab_size': text.vocabulary,
        'hidden_size': text.width,
        'intermediate_size': text.hidden,
        'num_attention_heads': text.heads,
        'num_hidden_layers': text.layers,
        'max_position_embeddings': text.positions,
        'projection_dim': text.dimension,
    }
    networks = {
        'unet': _random(
            diffusers.AudioLDM2UNet2DConditionModel,
            dtype,
            sample_size=n.trained_frames,
            in_channels=unet.latent_channels,
            out_channels=unet.latent_channels,
            block_out_channels=unet.channels,
            down_block_types=tuple(f'{c}DownBlock2D' for c in crossed),
            up_block_types=tuple(f'{c}UpBlock2D' for c in reversed(crossed)),
            cross_attention_dim=tuple(tuple(width[i] for i in level) for level in unet.sees),
            attention_head_dim=unet.heads,
            layers_per_block=unet.blocks,
            norm_num_groups=unet.groups,
        ),
        'vae': _random(
            diffusers.AutoencoderKL,
            dtype,
            in_channels=1,
            out_channels=1,
            block_out_channels=vae.channels,
            latent_channels=vae.latent_channels,
            layers_per_block=vae.blocks,
            norm_num_groups=vae.groups,
            down_block_types=('DownEncoderBlock2D',) * levels,
            up_block_types=('UpDecoderBlock2D',) * levels,
            scaling_factor=n.scaling,
        ),
        'vocoder': _random(
            transformers.SpeechT5HifiGan,
            dtype,
            transformers.SpeechT5HifiGanConfig(
                model_in_dim=n.bands,
                sampling_rate=n.sample_rate,
                normalize_before=False,
                upsample_initial_channel=voice.width,
                upsample_rates=list(voice.rates),
                upsample_kernel_sizes=list(voice.windows),
                resblock_kernel_sizes=list(voice.block_windows),
                resblock_dilation_sizes=list(map(list, voice.block_dilations)),
            ),
        ),
        'text_encoder': _random(
            transformers.ClapModel,
            dtype,
            transformers.ClapConfig(text_config=clap, projection_dim=text.dimension),
        ),
        'text_encoder_2': _random_t5(n.t5, dtype),
        'projection_model': _random(
            diffusers.AudioLDM2ProjectionModel,
            dtype,
            text.dimension,
            n.t5.width,
            n.projection.width,
        ),
        'language_model': _random(
            transformers.GPT2LMHeadModel,
            dtype,
            transformers.GPT2Config(
                n_embd=language.width,
                n_layer=language.layers,
                n_head=language.heads,
                n_positions=language.positions,
                n_inner=language.hidden,
            ),
        ),
    }
    networks['language_model'].config.max_new_tokens = n.generated
    words = {token: i for i, token in enumerate(SPECIAL)}
    return diffusers.AudioLDM2Pipeline(
        **networks,
        tokenizer=transformers.RobertaTokenizer(
            vocab=words, merges=[], model_max_length=min(512, text.positions - text.padding - 1)
        ),
        tokenizer_2=_t5_tokenizer(512),
        feature_extractor=transformers.ClapFeatureExtractor(),
        scheduler=diffusers.DDIMScheduler(
            beta_start=n.schedule.first,
            beta_end=n.schedule.last,
            clip_sample=False,
            beta_schedule='scaled_linear',
            set_alpha_to_one=False,
            steps_offset=n.schedule.offset,
        ),
    )


def stable_audio_open(n: baselines.OpenNetworks, dtype: str) -> Any:
    """The pipeline with random weights, of the sizes of `n`."""
    transformer, projection, coder = (
        n.predictors.transformer,
        n.predictors.projection,
        n.autoencoder,
    )
    return diffusers.pipelines.stable_audio.StableAudioPipeline(
        vae=_random(
            diffusers.AutoencoderOobleck,
            dtype,
            encoder_hidden_size=coder.encoder_width,
            downsampling_ratios=list(coder.strides),
            channel_multiples=list(coder.multiples),
            decoder_channels=coder.decoder_width,
            decoder_input_channels=coder.channels,
            audio_channels=coder.audio_channels,
            sampling_rate=coder.sample_rate,
        ),
        text_encoder=_random_t5(n.text_encoder, dtype),
        projection_model=_random(
            diffusers.pipelines.stable_audio.StableAudioProjectionModel,
            dtype,
            projection.text_width,
            projection.width,
            projection.low,
            projection.high,
        ),
        tokenizer=_t5_tokenizer(baselines.OPEN_TOKENS),
        transformer=_random(
            diffusers.StableAudioDiTModel,
            dtype,
            sample_size=transformer.frames,
            in_channels=transformer.channels,
            out_channels=transformer.channels,
            num_layers=transformer.depth,
            attention_head_dim=transformer.head_width,
            num_attention_heads=transformer.heads,
            num_key_value_attention_heads=transformer.key_heads,
            cross_attention_dim=transformer.context_width,
            time_proj_dim=transformer.level_features,
            global_states_input_dim=transformer.timing_input,
            cross_attention_input_dim=transformer.context_input,
        ),
        scheduler=import_scheduling().CosineDPMSolverMultistepScheduler(),
    )


def stable_audio_3(n: baselines.SmallNetworks, dtype: str) -> Any:
    """The pipeline with random weights, of the sizes of `n`."""
    transformer, duration = n.predictors.transformer, n.predictors.duration
    coder, text = n.autoencoder, n.text_encoder
    width = transformer.heads * transformer.head_width
    part = transformers.T5GemmaModuleConfig(
        vocab_size=text.vocabulary,
        hidden_size=text.width,
        head_dim=text.head_width,
        intermediate_size=text.hidden,
        num_hidden_layers=text.layers,
        num_attention_heads=text.heads,
        num_key_value_heads=text.key_heads,
        query_pre_attn_scalar=int(text.query_scalar),
    )
    words = {token: i for i, token in enumerate(('<pad>', '</s>', '<unk>'))}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token='<unk>'))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return diffusers.StableAudio3Pipeline(
        vae=_random(
            diffusers.AutoencoderSAME,
            dtype,
            patch_size=coder.patch,
            audio_channels=coder.audio_channels,
            encoder_channels=coder.width,
            encoder_c_mults=list(coder.multiples),
            encoder_strides=list(coder.strides),
            encoder_transformer_depths=list(coder.depths),
            latent_dim=coder.channels,
            use_differential_attention=coder.differential,
            dim_heads=coder.head_width,
            ff_mult=coder.expansion,
            sliding_window=coder.window,
            encoder_sinusoidal_blocks=list(coder.encoder_sines),
            decoder_sinusoidal_blocks=list(coder.decoder_sines),
            sampling_rate=coder.sample_rate,
        ),
        text_encoder=_random(
            transformers.T5GemmaEncoderModel,
            dtype,
            transformers.T5GemmaConfig(encoder=part, decoder=part, is_encoder_decoder=False),
        ),
        tokenizer=transformers.PreTrainedTokenizerFast(
            tokenizer_object=words,
            pad_token='<pad>',
            eos_token='</s>',
            unk_token='<unk>',
            model_max_length=transformer.text_tokens,
            padding_side='left',
        ),
        duration_embedder=_random(
            diffusers.pipelines.stable_audio_3.StableAudio3DurationEmbedder,
            dtype,
            output_dim=duration.width,
            fourier_dim=duration.features,
            min_val=duration.low,
            max_val=duration.high,
        ),
        transformer=_random(
            diffusers.StableAudio3DiTModel,
            dtype,
            io_channels=transformer.channels,
            embed_dim=width,
            depth=transformer.depth,
            num_heads=transformer.heads,
            cond_token_dim=transformer.context_input,
            global_cond_dim=transformer.duration_input,
            local_add_cond_dim=transformer.local_input,
            timestep_features_dim=transformer.level_features,
            ff_mult=transformer.hidden / width,
            num_memory_tokens=transformer.memory,
            use_differential_attention=transformer.differential,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=1, stochastic_sampling=n.schedule.stochastic
        ),
    )


def import_scheduling() -> Any:
    """The module of Stable Audio Open's scheduler, which imports torchsde for its noise.

    Where that is not installed, each step has fresh noise: the same distribution, the same time.
    """
    try:
        import torchsde  # noqa: F401
    except ImportError:
        sys.modules['torchsde'] = types.ModuleType('torchsde')
        from diffusers.schedulers import scheduling_cosine_dpmsolver_multistep as scheduling

        class FreshNoise:
            def __init__(self, x, **kwargs):
                self.like = x

            def __call__(self, sigma, sigma_next):
                return torch.randn_like(self.like)

        scheduling.BrownianTreeNoiseSampler = FreshNoise
    from diffusers.schedulers import scheduling_cosine_dpmsolver_multistep as scheduling

    return scheduling
