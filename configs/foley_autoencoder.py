"""The autoencoder of the `foley` release: 48 and 44.1 kHz stereo to 25 x 64 latents a second.

Reproduces: the encoder and decoder in `realaudio_jax/releases/foley`.

    python -m experiments.train_autoencoder --config=configs/foley_autoencoder.py \
        --recordings=DIR --workdir=runs/foley_autoencoder

Cost: two minutes on two CPU cores for the fit, which the release uses as it is
(`encoder.safetensors` of the run). Result on 179 held-out recordings, Frechet distance (YAMNet) to
the originals, log-mel L1:

| | Frechet distance | log-mel L1 |
|---|---|---|
| Opus, 13 kbit/s | 2.69 [2.12, 3.63] | 0.368 |
| fit alone | 6.31 [5.30, 7.52] | 0.233 |
| fit, gains calibrated, int8 (the release) | 6.57 [5.54, 7.72] | 0.241 |
| fit, then 900 steps of stage 2 | 16.92 [13.89, 20.59] | 0.178 |
| networks alone: 3,000 steps of stage 1, 2,500 of stage 2 | 26.66 [23.05, 30.50] | 0.317 |

Stage 2 lowers every loss it is trained on and more than doubles the distance: an L1 on spectra
prefers a texture with less spread than noise has. It waits for stage 3 (the discriminator), which
was not run.
"""

import ml_collections


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.batch_size = 32
    config.crop_latents = 50  # latent frames, 2 s
    config.rates = (48_000, 48_000, 48_000, 44_100)  # Hz, in turn
    config.foley_fraction = 0.25  # of the crops
    config.model = ml_collections.ConfigDict()
    config.model.decoder = ml_collections.ConfigDict()

    config.fit_batches = 400  # for the code that is solved for

    # Stage 1: the decoder's networks by maximum likelihood, on levels alone.
    config.likelihood_steps = 1_500
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
    config.eval_every = 500  # steps
    config.save_every = 500  # steps
    config.eval_crops = 32
    if variant == 'test':
        config.batch_size = 2
        config.crop_latents = 5
        config.rates = (48_000,)
        config.fit_batches = 2
        config.likelihood_steps = 4
        config.adversarial_steps = 4
        config.warmup_steps = 1
        config.log_every = config.eval_every = config.save_every = 2
        config.eval_crops = 2
        config.model.decoder.update(dict(width=16, blocks=1, directions=24))
    elif variant:
        raise ValueError(f'no variant {variant!r} of this config; there is :test')
    return config.lock()
