"""The autoencoder of the `foley` release: 48 and 44.1 kHz stereo to 25 x 64 latents a second.

Reproduces: the encoder and decoder in `realaudio_jax/releases/foley`.

    python -m experiments.train_autoencoder --config=configs/foley_autoencoder.py \
        --recordings=DIR --workdir=runs/foley_autoencoder

Cost: 13 minutes on two CPU cores shared with other work (0.45 s a step where nothing else runs),
half a minute of it for the levels of 3,840 crops of 2 s.

Variants: `:wide`, 96 numbers a latent frame: nearer to the original by every embedder, but so far
no gain in what a teacher makes (docs/trials/codec.md); `:test`, seconds.

Result: docs/results/foley_autoencoder.json, both codes; alternatives docs/trials/codec.md.
"""

import ml_collections


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """The settings, of a variant if one is named."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.batch_size = 32
    config.crop_latents = 50  # latent frames, 2 s
    config.rates = (48_000, 48_000, 48_000, 44_100)  # Hz, in turn
    config.foley_fraction = 0.25  # of the crops
    config.model = ml_collections.ConfigDict()
    config.model.channels = 64  # of the latents; a denoiser knows the code it was trained on
    config.model.decoder = ml_collections.ConfigDict()
    # Of levels in the choice of the code's directions: those of the side, and above so many Hz.
    config.weights = ml_collections.ConfigDict(dict(side=0.15, high=0.25, high_hz=8_000.0))

    config.pool_batches = (
        120  # of band levels: the code is solved for on them, stage 1 draws from them
    )

    # Stage 1: the decoder's networks by maximum likelihood, on levels alone.
    config.likelihood_steps = 600
    config.learning_rate = 1e-3
    config.warmup_steps = 100
    config.ema_decay = 0.995

    # Stage 2: sound against a discriminator, with losses on spectra.
    config.adversarial_steps = 0  # not run for this release
    config.mel_weight = 1.0
    config.linear_weight = 1.0
    config.energy_weight = 1.0
    config.complex_weight = 0.4
    config.adversarial_learning_rate = 3e-4
    config.discriminator_learning_rate = 3e-4
    config.adversarial_spectral_weight = 4.0
    config.adversarial_weight = 0.3
    config.feature_weight = 1.0

    config.log_every = 50  # steps
    config.eval_every = 200  # steps
    config.save_every = 200  # steps
    config.eval_crops = 32
    if variant == 'wide':
        config.model.channels = 96
    elif variant == 'test':
        config.batch_size = 2
        config.crop_latents = 5
        config.rates = (48_000,)
        config.pool_batches = 2
        config.likelihood_steps = 4
        config.adversarial_steps = 4
        config.warmup_steps = 1
        config.log_every = config.eval_every = config.save_every = 2
        config.eval_crops = 2
        config.model.decoder.update(dict(width=16, blocks=1, directions=24))
    elif variant:
        raise ValueError(f'no variant {variant!r} of this config; there are :wide and :test')
    return config.lock()
