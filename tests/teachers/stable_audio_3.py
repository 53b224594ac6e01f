"""Small random Stable Audio 3 models of diffusers that keep every feature of the real one."""

from stable_audio import diffusers, randomise


def transformer(differential: bool = False):
    return randomise(
        diffusers.StableAudio3DiTModel(
            io_channels=6, embed_dim=32, depth=2, num_heads=4, cond_token_dim=12,
            global_cond_dim=12, local_add_cond_dim=7, timestep_features_dim=8, ff_mult=3.0,
            num_memory_tokens=5, use_differential_attention=differential,
        )
    )  # fmt: skip
