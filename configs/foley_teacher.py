"""The teacher of release `foley`: text and timeline to latents, 50 DDIM steps with guidance.

    python -m experiments.train_teacher --config=configs/foley_teacher.py --recordings=DIR \
        --workdir=runs/foley_teacher

Trains a teacher of the released size from nothing. The shipped one cannot be made again by one
command: three runs and an adapter led to it (docs/trials/foley-release.md).

Variants: `:own`, an adapter on sounds of one's own (docs/own_data.md); `:gpu`, sixteen times
the batch in bfloat16; `:fresh`, scenes mixed anew in every step; `:test`, seconds.

Cost: 51 minutes on two CPU cores shared with other work (2.1 s a step alone), 2026-11-25.
Result: held-out loss 0.349 after 1,200 steps, 0.338 after the three runs; docs/results.md.
"""

import ml_collections


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """The settings, of a variant if one is named."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.scenes = 2_500  # encoded once
    config.scene_seconds = 10.0
    config.foley_weight = 0.4  # share of procedural sounds
    config.recordings = 0  # unmixed recordings with their captions, beside the scenes
    config.data = ml_collections.ConfigDict(
        dict(
            fresh=False,  # scenes are mixed anew all along and augmented, docs/datasets.md
            uses=1.0,  # how often a fresh scene is drawn on average, of `scenes`; 1: never twice
            unmixed=0.25,  # share of fresh scenes that are unmixed recordings with their captions
            balance=1.0,  # of recordings in fresh scenes; 1: by label, 0: by file
            responses='',  # folder of measured impulse responses, beside synthetic rooms
        )
    )
    config.batch_seconds = 160.0  # seconds of sound in a batch, padding included
    config.crop_seconds = 0.5  # shortest crop; half of a batch is whole scenes
    config.model = ml_collections.ConfigDict(dict(width=256, depth=8, heads=4))
    config.model.curves = ()  # besides loudness: ('brightness', 'pitch'), docs/timeline.md
    config.condition_dropout = ml_collections.ConfigDict(
        dict(text=0.1, timeline=0.15, loudness=0.15, init=0.15)
    )
    config.onset_weight = 4.0  # weight of the frames around each onset in the loss
    # Noise levels t between low and high, where it is decided what sounds, count so many times as
    # often among those drawn.
    config.emphasis = ml_collections.ConfigDict(dict(low=0.5, high=0.95, weight=1.0))
    config.dropout = 0.0  # of what each attention and MLP adds
    config.patience = 0  # steps without a lower held-out loss that end the run; 0: it goes on
    config.rank = 0  # of a low-rank adapter to train (with adam); 0: the whole network
    config.steps = 1_200
    config.optimizer = 'muon'  # or 'adamw', 'adam'
    config.learning_rate = 1e-3
    config.warmup_steps = 50
    config.ema_decay = 0.995
    config.log_every = 50  # steps
    config.eval_every = 200
    config.save_every = 200
    if variant == 'gpu':
        config.scenes = 12_000
        config.foley_weight = 0.3
        config.batch_seconds = 2_560.0
        config.model.dtype = 'bfloat16'
        config.condition_dropout.timeline = 0.3
        config.steps = 8_000
        config.warmup_steps = 200
        config.ema_decay = 0.999
        config.log_every = config.eval_every = 500
        config.save_every = 4_000
    elif variant == 'fresh':
        config.data.fresh = True
        config.condition_dropout.timeline = (
            0.33  # with the unmixed quarter, half is by caption alone
        )
    elif variant == 'own':
        config.scenes = 300
        config.foley_weight = 0.2
        config.batch_seconds = 80.0
        config.rank = 20
        config.optimizer = 'adam'
        config.warmup_steps = 10
        config.steps = 150
        config.ema_decay = 0.98
        config.log_every = 10
        config.eval_every = config.save_every = 50
    elif variant == 'test':
        config.scenes = 4
        config.scene_seconds = 2.0
        config.batch_seconds = 4.0
        config.model.update(dict(width=16, depth=1, heads=2))
        config.optimizer = 'adamw'  # compiles in a fraction of the time
        config.steps = 4
        config.warmup_steps = 1
        config.log_every = config.eval_every = config.save_every = 2
    elif variant:
        raise ValueError(
            f'no variant {variant!r} of this config; there are :own, :fresh, :gpu and :test'
        )
    return config.lock()
