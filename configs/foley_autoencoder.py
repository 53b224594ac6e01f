"""The autoencoder of the `foley` release: 48 and 44.1 kHz stereo to 25 x 64 latents a second.

Reproduces: the encoder and decoder in `realaudio_jax/releases/foley`.

    python -m experiments.train_autoencoder --config=configs/foley_autoencoder.py \
        --recordings=DIR --workdir=runs/foley_autoencoder

Cost: 13 minutes on two CPU cores, shared with other work, for 1,500 steps of 32 crops of 2 s; these
came from a cache of 3,520 crops (the release keeps the code of an earlier fit, `--code=FILE`).
Result on 161 held-out recordings (first 10 s of each), Frechet distance (YAMNet) to the originals
and log-mel L1; the rows below the line take away what the release does not know:

| | Frechet distance | log-mel L1 |
|---|---|---|
| Opus, 13 kbit/s | 2.75 | 0.348 |
| code, white noise in its bands (before this decoder) | 6.6 | 0.241 |
| code, magnitudes of its bands, four iterations of eq. 3, no draw | 11.0 | 0.166 |
| code, draw with one spread for all sounds | 3.87 | 0.196 |
| code, trained draw, temperature 1 | 4.41 | 0.217 |
| code, trained draw, temperature 0.85 | 3.83 | 0.204 |
| **code, trained draw, temperature 0.75 (the release)** | 3.74 | 0.198 |
| the same after 500 steps | 3.66 | 0.196 |
| code, trained draw, temperature 0.5, 500 steps | 5.55 | 0.181 |
| --- | | |
| code, draw with the true spread of each sound (5 latent frames around) | 3.75 | 0.209 |
| code, draw with the true slow mean and spread (11 frames around) | 2.47 | 0.175 |
| code and the true 512 further coordinates | 0.99 | 0.102 |
| exact levels, eq. 3 | 0.74 | 0.096 |
| exact levels, white noise in their bands | 4.99 | 0.201 |
| exact magnitudes of all bins, phases of noise | 2.60 | 0.137 |
| exact magnitudes of all bins, four iterations of eq. 3 | 0.66 | 0.085 |

So phases and the spread of the draw are not the limit: what is missing is detail of the spectrum
that stays for some 0.4 s (partials), which 64 directions of a single latent frame do not hold. The
next code should look at several frames.

Losses per coordinate at steps 500, 1,000, 1,500: held-out 0.032, -0.062, -0.102; training -0.025,
-0.125, -0.212. Networks trained on distances between spectra in place of the code reached 26.7 in
an hour and a half; on top of it they lowered the log-mel distance to 0.178 and raised this to 16.9.
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
    if variant == 'test':
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
        raise ValueError(f'no variant {variant!r} of this config; there is :test')
    return config.lock()
