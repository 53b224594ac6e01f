"""The baselines of the benchmark table through diffusers and transformers (extra `reference`).

The same weights from the same folder, or random ones of the same sizes; the same split of a sound's
time as `experiments.baselines`. Only `experiments.benchmark --torch` imports this.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import diffusers
import torch

from experiments import baselines, systems, torch_random
from realaudio_jax.teachers import audioldm2
from realaudio_jax.teachers.audioldm2.pipeline import GUIDANCE

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
COMPILED = ('unet', 'transformer', 'vocoder')  # whole modules; of an autoencoder both halves


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
        folder, seconds, dtype, steps, networks: as in `baselines.audioldm2_system`.
        compiled: by torch.compile.
    """
    networks = networks or audioldm2.Networks()
    if folder:
        pipe = _published(diffusers.AudioLDM2Pipeline, folder, dtype)
        sample_rate = pipe.vocoder.config.sampling_rate
    else:
        pipe, sample_rate = torch_random.audioldm2(networks, dtype), networks.sample_rate
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
        pipe,
        'AudioLDM 2',
        folder,
        steps,
        sample_rate=sample_rate,
        channels=1,
        made_s=frames * factor * hop / sample_rate,
        text=text,
        sample=lambda c, taken: (
            pipe(
                **c,
                audio_length_in_s=seconds,
                num_inference_steps=taken,
                guidance_scale=GUIDANCE,
                latents=start,
                output_type='latent',
            ).audios
        ),
        decode=decode,
        encode=lambda: pipe.vae.encode(mel).latent_dist.mean,
    )


def stable_audio_open_system(
    folder: str | None,
    seconds: float,
    dtype: str,
    steps: int,
    whole: bool,
    compiled: bool,
    networks: baselines.OpenNetworks | None = None,
) -> systems.System:
    """Stable Audio Open of diffusers.

    Args:
        folder, seconds, dtype, steps, whole, networks: as in `baselines.stable_audio_open_system`.
        compiled: by torch.compile.
    """
    torch_random.import_scheduling()
    networks = networks or baselines.OpenNetworks()
    if folder:
        pipe = _published(diffusers.StableAudioPipeline, folder, dtype)
    else:
        pipe = torch_random.stable_audio_open(networks, dtype)
    shape = (1, pipe.transformer.config.in_channels, networks.frames(seconds, whole))
    samples = shape[-1] * pipe.vae.hop_length
    start = torch.randn(shape, dtype=pipe.transformer.dtype, device=DEVICE)
    silence = start.new_zeros(1, pipe.vae.config.audio_channels, samples)
    _ready(pipe, compiled)

    def text():
        tokens = pipe.tokenizer(
            systems.PROMPT,
            padding='max_length',
            max_length=pipe.tokenizer.model_max_length,
            return_tensors='pt',
        ).to(DEVICE)
        return {
            'prompt_embeds': pipe.text_encoder(**tokens)[0],
            'attention_mask': tokens['attention_mask'],
        }

    return _system(
        pipe,
        networks.name(seconds, whole),
        folder,
        steps,
        sample_rate=pipe.vae.config.sampling_rate,
        channels=pipe.vae.config.audio_channels,
        made_s=samples / pipe.vae.config.sampling_rate,
        text=text,
        sample=lambda c, taken: (
            pipe(
                **c,
                audio_end_in_s=seconds,
                num_inference_steps=taken,
                output_type='latent',
                guidance_scale=baselines.OPEN_GUIDANCE,
                latents=start,
            ).audios
        ),
        decode=lambda latents: pipe.vae.decode(latents).sample,
        encode=lambda: pipe.vae.encode(silence).latent_dist.mean,
    )


def stable_audio_3_system(
    folder: str | None,
    seconds: float,
    dtype: str,
    steps: int,
    compiled: bool,
    networks: baselines.SmallNetworks | None = None,
) -> systems.System:
    """Stable Audio 3 small of diffusers.

    Args:
        folder, seconds, dtype, steps, networks: as in `baselines.stable_audio_3_system`.
        compiled: by torch.compile.
    """
    networks = networks or baselines.SmallNetworks()
    if folder:
        pipe = _published(diffusers.StableAudio3Pipeline, folder, dtype)
    else:
        pipe = torch_random.stable_audio_3(networks, dtype)
    rate, one = pipe.vae.config.sampling_rate, pipe.vae.downsampling_ratio
    frames = -(-round(seconds * rate) // one)
    shape = (1, pipe.vae.config.latent_dim, frames)
    start = torch.randn(shape, dtype=pipe.transformer.dtype, device=DEVICE)
    silence = start.new_zeros(1, pipe.vae.config.audio_channels, frames * one)
    _ready(pipe, compiled)

    def text():
        states, mask = pipe.encode_prompt(systems.PROMPT, DEVICE, 1)
        return {'prompt_embeds': states, 'encoder_attention_mask': mask}

    return _system(
        pipe,
        'Stable Audio 3 small',
        folder,
        steps,
        guided=False,
        sample_rate=rate,
        channels=pipe.vae.config.audio_channels,
        made_s=frames * one / rate,
        text=text,
        sample=lambda c, taken: (
            pipe(
                **c,
                duration=seconds,
                num_inference_steps=taken,
                latents=start,
                output_type='latent',
            ).audios
        ),
        decode=lambda latents: pipe.vae.decode(latents).sample,
        encode=lambda: pipe.vae.encode(silence).latents,
    )


def _system(pipe, name, folder, steps, guided=True, **parts) -> systems.System:
    """A system of a pipeline's parts, each of which returns when its work is done."""
    modules = [module for module in pipe.components.values() if hasattr(module, 'parameters')]
    calls = {name: part if not callable(part) else _finished(part) for name, part in parts.items()}
    return systems.System(
        name=name,
        weights=systems.weights_name(folder),
        steps=steps,
        guided=guided,
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
    systems.require_memory_for(folder)
    return kind.from_pretrained(folder, dtype=getattr(torch, dtype))


# By the name of a row, as `baselines.ROWS`: (folders, seconds, dtype, compiled) -> the system.
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
    'stable_audio_3': lambda folders, seconds, dtype, compiled: stable_audio_3_system(
        folders['stable_audio_3'], seconds, dtype, 8, compiled
    ),
}
