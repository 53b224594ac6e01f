"""Small random Stable Audio 3 models of diffusers that keep every feature of the real one."""

from stable_audio import diffusers, randomise, torch


def transformer(differential: bool = False):
    torch.manual_seed(0)
    return randomise(
        diffusers.StableAudio3DiTModel(
            io_channels=6, embed_dim=32, depth=2, num_heads=4, cond_token_dim=12,
            global_cond_dim=12, local_add_cond_dim=7, timestep_features_dim=8, ff_mult=3.0,
            num_memory_tokens=5, use_differential_attention=differential,
        )
    )  # fmt: skip


def autoencoder(levels: int = 1):
    """Its heads of 8 features; with 2 levels some layers have the sine, as in the large one."""
    torch.manual_seed(0)
    return randomise(
        diffusers.AutoencoderSAME(
            patch_size=6, encoder_channels=8, encoder_c_mults=[2, 3][:levels],
            encoder_strides=[4, 2][:levels], encoder_transformer_depths=[2, 3][:levels],
            latent_dim=6, dim_heads=8, sampling_rate=1000, sliding_window=levels,
            encoder_sinusoidal_blocks=[0], decoder_sinusoidal_blocks=[0, 3][:levels],
        )
    )  # fmt: skip
