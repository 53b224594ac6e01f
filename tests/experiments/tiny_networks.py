"""The baselines of the benchmark at a size of seconds, for JAX and for torch."""

from realaudio_jax.models.roberta import ClapText
from realaudio_jax.teachers import audioldm2, t5, t5gemma
from realaudio_jax.teachers.audioldm2.language_model import LanguageModel
from realaudio_jax.teachers.audioldm2.projection import Projection
from realaudio_jax.teachers.audioldm2.unet import UNet
from realaudio_jax.teachers.audioldm2.vae import Autoencoder
from realaudio_jax.teachers.audioldm2.vocoder import Vocoder
from realaudio_jax.teachers.stable_audio_3 import conditioners as conditioners_3
from realaudio_jax.teachers.stable_audio_3 import denoise as denoise_3
from realaudio_jax.teachers.stable_audio_3 import same
from realaudio_jax.teachers.stable_audio_3 import transformer as transformer_3
from realaudio_jax.teachers.stable_audio_open import conditioners, denoise, oobleck, transformer

AUDIOLDM2 = audioldm2.Networks(
    clap=ClapText(16, 600, 12, 16, 1, 2, 10),
    t5=t5.T5Encoder(20, 14, 5, 20, 1, 2, feed_forward='gated-gelu'),
    projection=Projection(12),
    language_model=LanguageModel(12, 2, 1, 24),
    unet=UNet(3, (8, 12), (False, True), (2, 2), ((None, 0, 1),) * 2, blocks=1, groups=4),
    autoencoder=Autoencoder((8, 12), 3, 1, 4),
    vocoder=Vocoder(16, (5, 4, 2), (16, 16, 4), (3,), ((1, 3),)),
    trained_frames=64,
    bands=16,
)


def open_networks(baselines):
    """Stable Audio Open; `baselines` is experiments.baselines, which each test imports anew."""
    predictors = denoise.Networks(
        transformer.Transformer(
            channels=4,
            frames=8,
            depth=1,
            heads=2,
            key_heads=1,
            head_width=8,
            context_width=6,
            context_input=6,
            timing_input=12,
            level_features=4,
        ),
        conditioners.Projection(text_width=5, width=6),
    )
    return baselines.OpenNetworks(
        predictors, oobleck.Oobleck(8, 8, (2, 4), (1, 2), 4), t5.T5Encoder(20, 5, 3, 8, 1, 2)
    )


def small_networks(baselines):
    """Stable Audio 3, as `open_networks`."""
    predictors = denoise_3.Networks(
        transformer_3.Transformer(4, 1, 2, 8, 32, 12, 12, 5, 8, 3, text_tokens=24),
        conditioners_3.Duration(12, 8, 0.0, 4.0),
    )
    autoencoder = same.SAME(4, 2, 1000, 32, 8, (2,), (4,), (1,), head_width=8)
    text_encoder = t5gemma.T5GemmaEncoder(16, 12, 4, 16, 1, 2, 2, 4.0)
    return baselines.SmallNetworks(predictors, autoencoder, text_encoder)
