"""The baselines of the benchmark table through diffusers and transformers (extra `reference`).

The same weights from the same folder, or random ones of the same sizes; the same split of a sound's
time as `experiments.systems`. Only `experiments.benchmark --torch` imports this.
"""

import functools
import os
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any

import diffusers
import torch
import transformers

from experiments import systems
from realaudio_jax.teachers import audioldm2, t5
from realaudio_jax.teachers.audioldm2.pipeline import GUIDANCE

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
COMPILED = ('unet', 'transformer', 'vocoder')  # whole modules; of an autoencoder both halves
SPECIAL = ('<s>', '<pad>', '</s>', '<unk>', '<mask>')


def audioldm2_system(
    folder: str | None,
    seconds: float,
    dtype: str,
    steps: int,
    compiled: bool,
    networks: audioldm2.Networks | None = None,
) -> systems.System:
    """AudioLDM 2 of diffusers.

    Args:
      folder, seconds, dtype, steps, networks: as in `systems.audioldm2_system`.
      compiled: by torch.compile.
    """
    networks = networks or audioldm2.Networks()
    if folder:
        pipe = _published(diffusers.AudioLDM2Pipeline, folder, dtype)
        sample_rate = pipe.vocoder.config.sampling_rate
    else:
        pipe, sample_rate = _random_audioldm2(networks, dtype), networks.sample_rate
    # The tower that hears sounds, which no prompt needs.
    pipe.text_encoder.audio_model = pipe.text_encoder.audio_projection = None
    factor, bands = pipe.vae_scale_factor, pipe.vocoder.config.model_in_dim
    hop = functools.reduce(lambda a, b: a * b, pipe.vocoder.config.upsample_rates)
    frames = -(-round(seconds * sample_rate / hop) // factor)
    kind = pipe.unet.dtype
    shape = (1, pipe.unet.config.in_channels, frames, bands // factor)
    start = torch.randn(shape, dtype=kind, device=DEVICE)
    mel = torch.zeros((1, 1, frames * factor, bands), dtype=kind, device=DEVICE)
    _ready(pipe, compiled)

    def text():
        states, mask, generated = pipe.encode_prompt(systems.PROMPT, DEVICE, 1, True)
        parts = {'prompt_embeds': states, 'generated_prompt_embeds': generated}
        asked = {name: x[1:] for name, x in parts.items()} | {'attention_mask': mask[1:]}
        empty = {f'negative_{name}': x[:1] for name, x in parts.items()}
        return asked | empty | {'negative_attention_mask': mask[:1]}

    def decode(latents):
        return pipe.mel_spectrogram_to_waveform(
            pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
        )

    return _system(
        pipe, 'AudioLDM 2', folder, steps,
        sample_rate=sample_rate,
        channels=1,
        made_s=frames * factor * hop / sample_rate,
        text=text,
        sample=lambda c, taken: pipe(
            **c, audio_length_in_s=seconds, num_inference_steps=taken, guidance_scale=GUIDANCE,
            latents=start, output_type='latent',
        ).audios,
        decode=decode,
        encode=lambda: pipe.vae.encode(mel).latent_dist.mean,
    )  # fmt: skip


def stable_audio_open_system(
    folder: str | None,
    seconds: float,
    dtype: str,
    steps: int,
    whole: bool,
    compiled: bool,
    networks: systems.OpenNetworks | None = None,
) -> systems.System:
    """Stable Audio Open of diffusers.

    Args:
      folder, seconds, dtype, steps, whole, networks: as in `systems.stable_audio_open_system`.
      compiled: by torch.compile.
    """
    scheduling = _import_scheduling()
    networks = networks or systems.OpenNetworks()
    if folder:
        pipe = _published(diffusers.StableAudioPipeline, folder, dtype)
    else:
        pipe = _random_stable_audio_open(networks, scheduling, dtype)
    shape = (1, pipe.transformer.config.in_channels, networks.frames(seconds, whole))
    samples = shape[-1] * pipe.vae.hop_length
    start = torch.randn(shape, dtype=pipe.transformer.dtype, device=DEVICE)
    silence = start.new_zeros(1, pipe.vae.config.audio_channels, samples)
    _ready(pipe, compiled)

    def text():
        tokens = pipe.tokenizer(
            systems.PROMPT, padding='max_length', max_length=pipe.tokenizer.model_max_length,
            return_tensors='pt',
        ).to(DEVICE)  # fmt: skip
        return {
            'prompt_embeds': pipe.text_encoder(**tokens)[0],
            'attention_mask': tokens['attention_mask'],
        }

    return _system(
        pipe, networks.name(seconds, whole), folder, steps,
        sample_rate=pipe.vae.config.sampling_rate,
        channels=pipe.vae.config.audio_channels,
        made_s=samples / pipe.vae.config.sampling_rate,
        text=text,
        sample=lambda c, taken: pipe(
            **c, audio_end_in_s=seconds, num_inference_steps=taken, output_type='latent',
            guidance_scale=systems.OPEN_GUIDANCE, latents=start,
        ).audios,
        decode=lambda latents: pipe.vae.decode(latents).sample,
        encode=lambda: pipe.vae.encode(silence).latent_dist.mean,
    )  # fmt: skip


def _system(pipe, name, folder, steps, **parts) -> systems.System:
    """A system of a pipeline's parts, each of which returns when its work is done."""
    modules = [module for module in pipe.components.values() if hasattr(module, 'parameters')]
    calls = {name: part if not callable(part) else _finished(part) for name, part in parts.items()}
    return systems.System(
        name=name,
        weights=pathlib.Path(folder).name if folder else systems.RANDOM,
        steps=steps,
        guided=True,
        parameters=sum(p.numel() for module in modules for p in module.parameters()),
        device=torch.cuda.get_device_name() if DEVICE == 'cuda' else systems.device_name(),
        peak=lambda: torch.cuda.max_memory_allocated() if DEVICE == 'cuda' else None,
        **calls,
    )


def _finished(part: Callable) -> Callable:
    """`part` without gradients, until the device has done it; what torch cannot do is one line."""

    @torch.no_grad()
    def call(*args):
        try:
            result = part(*args)
            if DEVICE == 'cuda':
                torch.cuda.synchronize()
        except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise systems.CannotMeasure(f'torch.compile fails: {reason}') from error
        return result

    return call


def _ready(pipe: Any, compiled: bool) -> None:
    """Moves a pipeline to the device, with as many threads as XLA takes, and compiles it."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    pipe.to(DEVICE)
    pipe.set_progress_bar_config(disable=True)
    if compiled:
        heavy = [pipe.components[name] for name in COMPILED if name in pipe.components]
        for module in (*heavy, pipe.vae.encoder, pipe.vae.decoder):
            module.compile()


def _published(kind: Any, folder: str, dtype: str) -> Any:
    systems.require_memory(systems.weight_bytes(folder))
    return kind.from_pretrained(folder, dtype=getattr(torch, dtype))


def _random(kind: Any, dtype: str, *args, **kwargs) -> Any:
    """A module with the random weights of its own kind."""
    return kind(*args, **kwargs).to(getattr(torch, dtype)).eval()


def _random_t5(encoder: t5.T5Encoder, dtype: str) -> Any:
    config = transformers.T5Config(
        vocab_size=encoder.vocabulary, d_model=encoder.width, d_kv=encoder.head_width,
        d_ff=encoder.hidden, num_layers=encoder.layers, num_heads=encoder.heads,
        feed_forward_proj=encoder.feed_forward,
    )  # fmt: skip
    return _random(transformers.T5EncoderModel, dtype, config)


def _t5_tokenizer(max_tokens: int) -> Any:
    """Every word is unknown; for random weights."""
    pieces = [('<pad>', 0.0), ('</s>', 0.0), ('<unk>', -2.0), ('\u2581', -3.0)]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=max_tokens)


def _random_audioldm2(n: audioldm2.Networks, dtype: str) -> Any:
    """The pipeline with random weights, of the sizes of `n`."""
    unet, vae, voice, text, language = n.unet, n.autoencoder, n.vocoder, n.clap, n.language_model
    levels = len(vae.channels)
    width = {None: None, 0: n.projection.width, 1: n.t5.width}
    crossed = ['CrossAttn' if attends else '' for attends in unet.attends]
    clap = {
        'vocab_size': text.vocabulary, 'hidden_size': text.width, 'intermediate_size': text.hidden,
        'num_attention_heads': text.heads, 'num_hidden_layers': text.layers,
        'max_position_embeddings': text.positions, 'projection_dim': text.dimension,
    }  # fmt: skip
    networks = {
        'unet': _random(
            diffusers.AudioLDM2UNet2DConditionModel, dtype, sample_size=n.trained_frames,
            in_channels=unet.latent_channels, out_channels=unet.latent_channels,
            block_out_channels=unet.channels,
            down_block_types=tuple(f'{c}DownBlock2D' for c in crossed),
            up_block_types=tuple(f'{c}UpBlock2D' for c in reversed(crossed)),
            cross_attention_dim=tuple(tuple(width[i] for i in level) for level in unet.sees),
            attention_head_dim=unet.heads, layers_per_block=unet.blocks,
            norm_num_groups=unet.groups,
        ),
        'vae': _random(
            diffusers.AutoencoderKL, dtype, in_channels=1, out_channels=1,
            block_out_channels=vae.channels, latent_channels=vae.latent_channels,
            layers_per_block=vae.blocks, norm_num_groups=vae.groups,
            down_block_types=('DownEncoderBlock2D',) * levels,
            up_block_types=('UpDecoderBlock2D',) * levels, scaling_factor=n.scaling,
        ),
        'vocoder': _random(
            transformers.SpeechT5HifiGan, dtype,
            transformers.SpeechT5HifiGanConfig(
                model_in_dim=n.bands, sampling_rate=n.sample_rate, normalize_before=False,
                upsample_initial_channel=voice.width, upsample_rates=list(voice.rates),
                upsample_kernel_sizes=list(voice.windows),
                resblock_kernel_sizes=list(voice.block_windows),
                resblock_dilation_sizes=list(map(list, voice.block_dilations)),
            ),
        ),
        'text_encoder': _random(
            transformers.ClapModel, dtype,
            transformers.ClapConfig(text_config=clap, projection_dim=text.dimension),
        ),
        'text_encoder_2': _random_t5(n.t5, dtype),
        'projection_model': _random(
            diffusers.AudioLDM2ProjectionModel, dtype, text.dimension, n.t5.width,
            n.projection.width,
        ),
        'language_model': _random(
            transformers.GPT2LMHeadModel, dtype,
            transformers.GPT2Config(
                n_embd=language.width, n_layer=language.layers, n_head=language.heads,
                n_positions=language.positions, n_inner=language.hidden,
            ),
        ),
    }  # fmt: skip
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
            beta_start=n.schedule.first, beta_end=n.schedule.last, clip_sample=False,
            beta_schedule='scaled_linear', set_alpha_to_one=False, steps_offset=n.schedule.offset,
        ),
    )  # fmt: skip


def _random_stable_audio_open(n: systems.OpenNetworks, scheduling: Any, dtype: str) -> Any:
    """The pipeline with random weights, of the sizes of `n`."""
    transformer, projection, coder = (
        n.predictors.transformer,
        n.predictors.projection,
        n.autoencoder,
    )
    return diffusers.pipelines.stable_audio.StableAudioPipeline(
        vae=_random(
            diffusers.AutoencoderOobleck, dtype, encoder_hidden_size=coder.encoder_width,
            downsampling_ratios=list(coder.strides), channel_multiples=list(coder.multiples),
            decoder_channels=coder.decoder_width, decoder_input_channels=coder.channels,
            audio_channels=coder.audio_channels, sampling_rate=coder.sample_rate,
        ),
        text_encoder=_random_t5(n.text_encoder, dtype),
        projection_model=_random(
            diffusers.pipelines.stable_audio.StableAudioProjectionModel, dtype,
            projection.text_width, projection.width, projection.low, projection.high,
        ),
        tokenizer=_t5_tokenizer(systems.OPEN_TOKENS),
        transformer=_random(
            diffusers.StableAudioDiTModel, dtype, sample_size=transformer.frames,
            in_channels=transformer.channels, out_channels=transformer.channels,
            num_layers=transformer.depth, attention_head_dim=transformer.head_width,
            num_attention_heads=transformer.heads,
            num_key_value_attention_heads=transformer.key_heads,
            cross_attention_dim=transformer.context_width,
            time_proj_dim=transformer.level_features,
            global_states_input_dim=transformer.timing_input,
            cross_attention_input_dim=transformer.context_input,
        ),
        scheduler=scheduling.CosineDPMSolverMultistepScheduler(),
    )  # fmt: skip


def _import_scheduling() -> Any:
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


# By the name of a row, as `systems.ROWS`: (folders, seconds, dtype, compiled) -> the system.
ROWS: dict[str, Callable[..., systems.System]] = {
    'audioldm2': lambda folders, seconds, dtype, compiled: audioldm2_system(
        folders['audioldm2'], seconds, dtype, 50, compiled
    ),
    'stable_audio_open': lambda folders, seconds, dtype, compiled: stable_audio_open_system(
        folders['stable_audio_open'], seconds, dtype, 20, True, compiled
    ),
    'stable_audio_open_short': lambda folders, seconds, dtype, compiled: stable_audio_open_system(
        folders['stable_audio_open'], seconds, dtype, 20, False, compiled
    ),
}
