"""Small random Stable Audio Open models of diffusers that keep every feature of the real one."""

import pathlib
import sys
import types

import pytest
import tiny_teacher

torch = pytest.importorskip('torch', reason="no torch: install the extra 'reference'")
diffusers = pytest.importorskip('diffusers', reason="no diffusers: install the extra 'reference'")
transformers = pytest.importorskip(
    'transformers', reason="no transformers: install the extra 'reference'"
)

FRAMES = 20  # latent frames of 40 samples: the model's window


def randomise(model, scale: float = 0.1):
    """Moves every parameter, so that nothing is hidden behind a zero or a one at the start."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def transformer():
    return randomise(
        diffusers.StableAudioDiTModel(
            sample_size=FRAMES,
            in_channels=6,
            out_channels=6,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            num_key_value_attention_heads=2,
            cross_attention_dim=10,
            time_proj_dim=8,
            global_states_input_dim=24,
            cross_attention_input_dim=12,
        )
    )


def autoencoder():
    return randomise(
        diffusers.AutoencoderOobleck(
            encoder_hidden_size=12,
            downsampling_ratios=[2, 4, 5],
            channel_multiples=[1, 2, 3],
            decoder_channels=8,
            decoder_input_channels=6,
            audio_channels=2,
            sampling_rate=11_025,
        )
    )


def projection(text_width: int = 14):
    module = diffusers.pipelines.stable_audio.StableAudioProjectionModel
    return randomise(module(text_width, 12, 0, 8))


def text_encoder(vocabulary: int):
    config = transformers.T5Config(
        vocab_size=vocabulary, d_model=14, d_kv=5, d_ff=20, num_layers=1, num_heads=3
    )
    return randomise(transformers.T5EncoderModel(config))


def save(model, folder: pathlib.Path) -> pathlib.Path:
    model.save_pretrained(folder)
    return folder


class Noise:
    """Stands for the Brownian tree: the noise of each step as it was given."""

    given: list = []

    def __init__(self, *args, **kwargs):
        self.left = list(Noise.given)

    def __call__(self, sigma, sigma_next):
        return self.left.pop(0)


def pipeline(folder: pathlib.Path, patch: pytest.MonkeyPatch):
    """A whole pipeline, saved to `folder`; while `patch` lasts it takes its noise from `Noise`."""
    if 'torchsde' not in sys.modules:  # for the tree, not used here
        patch.setitem(sys.modules, 'torchsde', types.ModuleType('torchsde'))
    from diffusers.schedulers import scheduling_cosine_dpmsolver_multistep as scheduling

    patch.setattr(scheduling, 'BrownianTreeNoiseSampler', Noise)
    tiny_teacher.write_tokenizer(folder / 'words', max_tokens=9)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / 'words' / 'tokenizer.json'),
        pad_token='<pad>',
        eos_token='</s>',
        unk_token='<unk>',
        model_max_length=9,
    )
    parts = diffusers.StableAudioPipeline(
        vae=autoencoder(),
        text_encoder=text_encoder(len(tokenizer)),
        projection_model=projection(),
        tokenizer=tokenizer,
        transformer=transformer(),
        scheduler=scheduling.CosineDPMSolverMultistepScheduler(),
    )
    parts.set_progress_bar_config(disable=True)
    parts.save_pretrained(folder / 'model')
    return parts, folder / 'model'
