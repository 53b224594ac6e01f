"""A release from recordings: autoencoder, teacher and student, each trained once.

    python -m experiments.make_release --config=configs/release.py --recordings=DIR \
        --workdir=runs/release

Each piece names the config of the experiment that it runs and the settings that differ from it; the
command lines that come of it are printed, and can be given by hand.

Variants: `:gpu`, batches of 512 sounds of 10 s in bfloat16, of scenes that 16 cores mix beside it;
`:test`, seconds.

Cost, result: docs/making_a_release.md says what is measured and what is not.
"""

import ml_collections


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """The settings, of a variant if one is named."""
    config = ml_collections.ConfigDict()
    config.base = 'foley'  # release that gives the text encoder, its tokenizer and the embedder
    config.stop_s = 45.0  # seconds before the end of --budget_s at which a piece is told to save
    config.autoencoder = piece('configs/foley_autoencoder.py')
    sought = dict(  # of the teacher, at every size of batch
        dropout=0.1,
        emphasis=dict(weight=2.0),  # t from 0.5 to 0.95 twice as often
        patience=2_000,  # steps
    )
    config.teacher = piece(
        'configs/foley_teacher.py:fresh',  # scenes mixed and augmented anew all along
        scene_seconds=10.0,
        batch_seconds=640.0,
        scenes=4_000,  # pool of mixed scenes
        data=dict(uses=4.0),
        model=dict(width=384, depth=8, heads=6),  # 16.8 M parameters
        optimizer='muon',
        steps=3_000,
        warmup_steps=100,
        ema_decay=0.999,
        **sought,
    )
    config.distill = piece(
        'configs/foley_distill.py:release',
        scenes=1_000,
        scene_seconds=10.0,
        crop_seconds=5.0,
    )
    config.calibration = ml_collections.ConfigDict(dict(scenes=128, seconds=5.0, steps=4))
    config.evaluation = ml_collections.ConfigDict(dict(scenes=512, seconds=10.0, steps='1,4'))
    config.workers = 0  # processes that mix scenes beside each experiment
    if variant == 'gpu':
        config.workers = 15  # of 16 cores
        config.teacher = piece(
            'configs/foley_teacher.py:gpu',
            scenes=12_000,
            batch_seconds=5_120.0,
            data=dict(fresh=True, uses=16.0),
            condition_dropout=dict(
                timeline=0.33
            ),  # with the unmixed quarter, half is by caption alone
            model=dict(width=384, depth=8, heads=6),
            steps=6_000,
            **sought,
        )
        config.distill = piece('configs/foley_distill.py:gpu')
    elif variant == 'test':
        config.autoencoder = piece(
            'configs/foley_autoencoder.py:test',
            adversarial_steps=0,
            eval_every=1_000,
            model=dict(channels=72, decoder=dict(width=384, blocks=3, directions=512)),
        )
        config.teacher = piece('configs/foley_teacher.py:test')
        config.distill = piece('configs/foley_distill.py:test')
        config.calibration.update(scenes=2, seconds=1.0)
        config.evaluation.update(scenes=2, seconds=1.0, steps='1')
    elif variant:
        raise ValueError(f'no variant {variant!r} of this config; there are :gpu and :test')
    return config.lock()


def piece(config: str, **settings) -> ml_collections.ConfigDict:
    """The config file of an experiment, with its variant, and what differs from it."""
    return ml_collections.ConfigDict(dict(config=config, settings=settings))
