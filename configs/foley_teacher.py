"""The teacher of the `foley` release: text and timeline to latents, sampled with 50 DDIM steps.

Reproduces: `teacher.safetensors`, `teacher_adapter.safetensors` in `realaudio_jax/releases/foley`.

    python -m experiments.train_teacher --config=configs/foley_teacher.py --recordings=DIR \
        --autoencoder=FILE --init=OLD_TEACHER --init_code=OLD_AUTOENCODER \
        --workdir=runs/foley_teacher

`--init` is the teacher of the release before (5 blocks, 48 minutes of training, in git at ec93fb1),
made deeper and turned to the latents of the new code; without it training begins from nothing.

Cost: 47 minutes on two CPU cores shared with other work, 2.1 s a step where it had them for itself
(1.6 s with AdamW), and some 4 minutes for the scenes. Held-out loss after 200, 400, 600, 800,
1,000, 1,200 steps: 0.395, 0.371, 0.360, 0.353, 0.350, 0.349. That run counted all frames alike;
a second one, `--init` from the first and `--config.steps=1000`, had the weight of onsets below and
took 40 minutes beside other work: held-out loss after 200 to 1,000 steps 0.361, 0.351, 0.345,
0.341, 0.340, at onsets 0.646, 0.633, 0.618, 0.608, 0.604. Onset error at 50 steps fell from 22 to
15 ms, missed onsets from 15% to 6%. A third one (2026-11-27), from the second, dropped the timeline
more than twice as often, since text alone had been learnt least, and mixed other scenes:

    python -m experiments.train_teacher --config=configs/foley_teacher.py --recordings=DIR \
        --init=SECOND/teacher.safetensors --config.absence.timeline=0.35 \
        --config.foley_weight=0.3 --config.steps=1500 --workers=2

1.6 s a step, 61 minutes with other work beside. Held-out loss (of scenes with that share of foley)
after 100, 500, 900, 1,300 and 1,500 steps: 0.358, 0.351, 0.343, 0.339, 0.338, at onsets 0.582,
0.563, 0.554, 0.547, 0.546. The figures of its sound are in the README.

`:gpu` is the same run at sixteen times the batch, in bfloat16. Of the whole network it has been
begun only: 90 steps of 21 ms on an NVIDIA H200 (2026-11-26) brought the held-out loss from 0.3435
after 30 to 0.3399 and 0.3383 after 60 and 90. The fourth run, an adapter of rank 20 on the third
teacher, is from there (2026-11-27); it is `teacher_adapter.safetensors` of the release:

    python -m experiments.train_teacher --config=configs/foley_teacher.py:gpu --recordings=DIR \
        --init=THIRD/teacher.safetensors --config.seed=11 --config.scenes=11700 \
        --config.foley_weight=0.3 --config.recordings=4200 --config.rank=20 \
        --config.optimizer=adam --config.learning_rate=2e-3 --config.warmup_steps=100 \
        --config.steps=6000 --workers=2
    python -m experiments.pack_release --base=BEFORE --teacher=DIR/teacher.safetensors --rank=20 \
        --out=DIR

(BEFORE: the release without adapters, in git at 3a4e5d8.)
Held-out loss before, and after 1,000 to 6,000 steps: 0.2917, 0.2825, 0.2796, 0.2785, 0.2777,
0.2773, 0.2771; at onsets 0.540, 0.534, 0.527, 0.526, 0.525, 0.525 after them. A step took 19 ms
alone, up to 28 beside a student's training; 6,000 took 150 s, compiling 75 s before them. Scenes
and recordings had been mixed and encoded on two CPU cores, 16 minutes, in five parts with seeds of
their own, and their latents rounded to steps of 0.1 (0.3 and 0.15 in the first four channels, which
are larger). What came of it: class prompts 80% for 41%, Frechet distance 4.08 for 4.52 (seed 0;
seed 1: 78%, and 5.01 for 5.28).

Before that, 2,500 steps on 4,500 scenes and 1,800 recordings, all Opus copies, came from 0.288 to
0.275 and were lost with the machine. With batches of 160 s, as two CPU cores carry them, 400 steps
of 1.7 s and a learning rate of 1e-3 brought the loss from 0.2917 to 0.2908, and a probe found no
more of the class prompts (36% for 41%).

Muon against AdamW, 60 steps each from the same start, held-out loss at 20 and 40 steps: 0.438 and
0.432 against 0.460 and 0.453.
"""

import ml_collections


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.scenes = 2_500  # encoded once
    config.scene_seconds = 10.0
    config.foley_weight = 0.4  # share of sounds from procedural foley
    config.recordings = 0  # as they are, by their caption alone, beside the scenes
    config.batch_seconds = 160.0  # seconds of sound in a batch, crops filled up to whole scenes
    config.crop_seconds = 0.5  # the shortest crops; half of a batch are whole scenes
    config.model = ml_collections.ConfigDict(dict(width=256, depth=8, heads=4))
    config.absence = ml_collections.ConfigDict(
        dict(text=0.1, timeline=0.15, loudness=0.15, init=0.15)
    )
    config.onset_weight = 4.0  # of the frames around the onset of an event
    config.rank = 0  # of an adapter, all that is trained then (with adam); 0: the whole network
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
        config.absence.timeline = 0.3
        config.steps = 8_000
        config.warmup_steps = 200
        config.ema_decay = 0.999
        config.log_every = config.eval_every = 500
        config.save_every = 4_000
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
        raise ValueError(f'no variant {variant!r} of this config; there are :gpu and :test')
    return config.lock()
