"""The main job: the `foley` teacher distilled to 8, 4, 2 and 1 steps in ten minutes on two cores.

    python -m experiments.distill --config=configs/foley_distill.py [--recordings=DIR] --workdir=DIR

With `:release` it is the first of eight runs that made the shipped student (the last three are its
`student_adapter.safetensors`): more updates of the same recipes and more evaluation scenes. The
second went on from it with crops of 4 to 10 s, for the first had seen 5 s alone:

    python -m experiments.distill --config=configs/foley_distill.py --recordings=DIR \
        --student=FIRST/student.safetensors --config.scenes=1200 --config.scene_seconds=10 \
        --config.crop_seconds=4 --config.foley_weight=0.3 --config.progressive.updates=0 \
        --config.consistency.updates=280 --config.consistency.learning_rate=3e-4

The third (2026-11-27) went on from the second, with the third teacher of configs/foley_teacher.py:

    python -m experiments.distill --config=configs/foley_distill.py --recordings=DIR \
        --release=DIR_WITH_THAT_TEACHER --student=SECOND/student.safetensors \
        --config.scenes=2500 --config.scene_seconds=10 --config.crop_seconds=4 \
        --config.foley_weight=0.3 --config.absence.timeline=0.35 \
        --config.progressive.updates=0 --config.consistency.updates=900 \
        --config.eval_seconds=10 --embedder_weights=DIR

The fourth (2026-11-27) scored what the third made, `energy`, a stage that the default leaves out
to keep its ten minutes. It was run in parts, from the same recipes: 150 updates, then 650 from
their average, with other draws than this command's:

    python -m experiments.distill --config=configs/foley_distill.py --recordings=DIR \
        --student=THIRD/student.safetensors --config.scenes=2500 --config.scene_seconds=10 \
        --config.crop_seconds=4 --config.foley_weight=0.3 --config.absence.init=0.1 \
        --config.progressive.updates=0 --config.consistency.updates=0 \
        --config.energy.updates=800 --config.eval_seconds=10 --embedder_weights=DIR

Trials, Frechet distance (YAMNet) with 1, 2, 4 and 8 steps on 64 held-out scenes of 10 s, seed 1
(teacher 5.28), then the 90th percentile of onset errors in ms; the share was chosen by them:

    third run                                          11.61  7.02  5.42  -      12  18  22  -
    150 updates against recordings, no consistency      6.50  9.79 11.80  -     119 166 170  -
    150 against recordings, consistency beside it       7.22  6.97  6.66  -      35 123 102  -
    150 against the teacher's answers, likewise         7.30  6.27  5.32  -      15  46  59  -
    800 against the teacher's answers, likewise         5.63  6.45  5.42  5.47   47  61  81  84
    0.5 of it, 0.5 of the third run                     7.96  6.59  5.35  5.28   15  29  38  53
    0.7 of it, 0.3 of the third run: the fourth         6.54  6.43  5.33  5.33   23  44  53  55
    0.85 of it, 0.15 of the third run                   5.77  6.41  5.37  5.39   30  53  71  76

The first of these trials scored every step's landing against diffused data, the others the sound
after the last step. Real scenes have late onsets too (133 ms), so what is scored against
recordings of them learns these. All had the gradient of the last step alone, and consistency at
every count, which teaches one and two steps the mean that the energy score takes them away from.

The fifth (2026-11-27) went on from the fourth with the gradient of the last two steps, with
consistency at four and eight steps only, and, by their caption alone, with whole recordings beside
the teacher's answers:

    python -m experiments.distill --config=configs/foley_distill.py --recordings=DIR \
        --student=FOURTH/student.safetensors --config.scenes=2500 --config.scene_seconds=10 \
        --config.crop_seconds=4 --config.foley_weight=0.3 --config.absence.init=0.1 \
        --config.onset_weight=8 --config.progressive.updates=0 --config.consistency.updates=0 \
        --config.energy.updates=950 --config.energy.recordings=2500 --config.energy.share=0.8 \
        --config.energy.frozen='mlp_(in|out)|self_out|block_[0-3]/cross_query' \
        --config.eval_seconds=10 --embedder_weights=DIR

It was run in two parts: 450 updates by a script with these recipes and half as many recordings,
then 500 by this command from there, both with the MLPs frozen alone; the other two were put back
afterwards. What is frozen keeps its bytes, so that git holds the new file, of which more than half
is the old one, as a difference of half its size. Trials, as above, then the class prompts that a
probe finds, in percent, at four steps (the fourth run: 39):

    240 updates from a share of 0.85 of the fourth, gradient
    of two steps, consistency at every count, no recordings    5.81 6.16 5.43  -   32 72 83  -  38
    450, all of the above                                      5.51 5.74 5.39 5.65 40 62 75 75  41
    500 more                                                   5.67 5.91 5.46 5.63 58 69 61 82  45
    0.75 of these, 0.25 of the fourth run                      5.53 5.89 5.32 5.45 51 53 60 73  44
    0.4 of either, 0.2 of the fourth run                       5.51 5.79 5.29 5.48 51 60 73 72  45
    the same, the other frozen parts put back: the fifth       5.51 5.88 5.28 5.43 49 62 81 83  46
    360 more from the mean of both, 1, 2, 2, 2, 4 steps drawn;
    0.5 of it, 0.175 of either, 0.15 of the fourth run         5.55 5.83 5.37 5.53 47 54 74 62  48
    150 more as an adapter of rank 20, channels of latents
    weighed alike, half of the answers recordings              5.50 5.91 5.32  -   52 60 89  -  45

All of these at guidance 2, the teacher's. Asked for more of what it is told, this student
is in time, at the same distance, so its own scale is 2.5 (`student.guidance` of config.json; seeds
0 and 2 came after the choice):

    guidance 1.5, seed 1                                       5.97 6.32 5.72  -   51 92 92  -  45
    guidance 2.5, seed 1                                       5.51 5.92 5.24 5.33 50 53 53 60  44
    guidance 3, seed 1                                         5.60 6.07 5.32  -   48 47 54  -  44
    guidance 2, seed 0 (teacher 4.52)                          5.43 5.61 4.84 4.83 38 45 43 41  46
    guidance 2.5, seed 0                                       5.30 5.74 4.90 4.81 38 41 43 43  44
    guidance 2, seed 2                                         5.88 6.29 5.76 5.87 40 55 57 59  -
    guidance 2.5, seed 2                                       5.91 6.41 5.77 5.78 40 44 51 56  -

The sixth (2026-11-27), an adapter of rank 20 on the fifth's student, is `:gpu` on an NVIDIA H200,
1,500 updates of 64 sounds from the third teacher's answers, 70 to 95 ms each beside other training:

    python -m experiments.distill --config=configs/foley_distill.py:gpu --recordings=DIR \
        --student=FIFTH/student.safetensors --config.seed=11 --config.scenes=11700 \
        --config.foley_weight=0.3 --config.rank=20 --config.crop_seconds=4 \
        --config.absence.init=0.1 --config.absence.timeline=0.15 --config.onset_weight=8 \
        --config.progressive.updates=0 --config.consistency.updates=0 --config.energy.updates=1500 \
        --config.energy.share=1 --config.energy.learning_rate=1e-3 \
        --config.energy.recordings=8400 --config.ema_decay=0.998

(4,200 recordings, each twice.) The fourth teacher, an adapter too, was made meanwhile. That
adapter, added to this student as it is, brings what the teacher has learnt of text into the student
without a step of training, at the price of the distance; the seventh run, on two CPU cores, repairs
that. It trains the sixth's adapter on, with the new teacher's answers to 1,200 scenes and to the
captions of 1,100 recordings, and 800 recordings:

    python -m experiments.pack_release --base=BEFORE --teacher=FOURTH/teacher.safetensors \
        --student=SIXTH/student.safetensors --rank=20 --share=1 --out=PACKED
    python -m experiments.distill --config=configs/foley_distill.py --recordings=DIR \
        --release=PACKED --student=PACKED --config.scenes=1200 --config.scene_seconds=10 \
        --config.crop_seconds=4 --config.foley_weight=0.3 --config.rank=20 \
        --config.absence.text=0.03 --config.absence.timeline=0.05 --config.absence.init=0.1 \
        --config.onset_weight=8 --config.progressive.updates=0 --config.consistency.updates=0 \
        --config.energy.updates=900 --config.energy.learning_rate=5e-4 --config.energy.share=1 \
        --config.energy.segments=1,2,2,4 --config.energy.recordings=1100 \
        --config.energy.answer_recordings --config.energy.answer_steps=10 \
        --config.energy.absence.timeline=0.35

BEFORE is the release without adapters, in git at 3a4e5d8. The run was a script with these recipes,
the 800 recordings others than the 1,100, scales of answers from 1.5. Trials, as above (seed 1, the
fourth teacher: 5.01, 50 ms, 78% at 50 steps), student at guidance 2.5:

    the sixth run                                              5.53 5.57 5.17  -   54 53 43  -  36
    4,100 updates from the fourth teacher's answers, likewise  6.19 5.59 5.35  -  107 67 51  -  45
    the fifth, a share of 1 of the teacher's adapter            -    -    -    -    -  -  -  -  46
    the sixth, a share of 0.5                                  5.78  -   5.60  -   46  - 26  -  45
    the sixth, a share of 1                                    6.61 5.64 6.43  -   61 37 42  -  51
    150 updates of the seventh                                 6.61  -   5.66  -   69  - 47  -  61
    450 of them                                                6.25 5.35 5.55  -   65 51 43  -  56
    900: the seventh                                           6.33 5.45 5.48  -   60 49 36  -  60
    0.75 of it, 0.25 of the sixth                              6.18 5.48 5.51  -   54 49 25  -  56
    0.6 of it, 0.4 of the 4,100 updates above                  6.04 5.59 5.47  -   66 53 32  -  58
    900, guidance 1.7                                          6.10  -   5.57  -   75  - 45  -  54

With one step a probe finds 24% of the class prompts in the sixth run, 61% with the share alone, 46%
after the seventh run.

Each of these is best somewhere. What sounds is settled above t = 1/2, and best by those with the
share; below it the sixth run stands nearest to real sound. Two networks that share a walk, on three
sets of scenes (seeds 0, 1, 2; teacher 4.08, 5.01 and untested): Frechet distance, then the class
prompts found, in percent:

    4 steps, the seventh run alone                             4.53 5.48 5.54   61 60 57
    the seventh above, the sixth below                         4.38 5.37 5.40   72 70 72
    the seventh above 0.9, the sixth below                       -  5.36   -     - 61  -
    the seventh above, the seventh without the share below       -  5.50   -     - 64  -
    4,100 updates above 0.9, the sixth below                   4.31 5.11 5.64   54 52 52
    the mean of these and the seventh above, the sixth below   4.34 5.34 5.61   61 59 59
    the share of 1 above 0.9, the sixth below                  4.69 5.59 5.61   60 60 57
    2 steps, the seventh run alone                             4.93 5.45 5.81   55 52 49
    the share of 1 above, the sixth below                      4.91 5.49 5.57   71 71 71

The eighth (2026-11-27) makes one student of them, `imitation`: the seventh's adapter, trained on
but for its largest parts, which keep their bytes:

    python -m experiments.distill --config=configs/foley_distill.py --recordings=DIR \
        --student=SEVENTH --experts=SIXTH,PACKED,SEVENTH,MEAN --config.scenes=1200 \
        --config.scene_seconds=10 --config.crop_seconds=4 --config.foley_weight=0.3 \
        --config.rank=20 --config.absence.text=0.03 --config.absence.timeline=0.05 \
        --config.absence.init=0.1 --config.progressive.updates=0 --config.consistency.updates=0 \
        --config.imitation.updates=1400 --config.energy.recordings=1900 \
        --config.imitation.walks='((1, 3, 3), (2, 1, 0), (4, 2, 0), (4, 2, 0), (8, 2, 0))' \
        --config.imitation.frozen='block_./(self|mlp|cross_out)'
    python -m experiments.pack_release --base=SEVENTH --student=FILE --rank=20 --out=DIR

SIXTH has the sixth's adapter and no share, MEAN is the mean of PACKED's and SEVENTH's weights. The
run was a script, two steps of a walk at once for 8 sounds, weights 1 / sigma^2, in two parts: 600
updates with PACKED above at four steps, too, then 760 as above. The error (v, mean square) fell
from 0.062, 0.144 and 0.051 at one, two and four steps to 0.021, 0.050 and 0.021. All at guidance
2.5:

    600 updates, 4 steps                                       4.73 5.65   -    65 65  -
    the eighth: 4 steps                                        4.56 5.64 5.51   69 68 68
    2 steps                                                    4.95 5.36 5.61   69 69 68
    1 step (the seventh: 5.97 6.33 6.82, 44 46 44)             5.82 6.42 6.76   51 52 50

Another 300 updates of the energy score, in place of these, of all but the blocks: 5.50 and 5.54 at
four steps of seeds 1 and 2, 64 and 62%, no nearer.

What came after it (2026-11-28) trains nothing. The eighth run, taught by regression, spreads less
than its teacher, about means that are a little off: the deviations of its latents' last 32 channels
over training scenes are 0.95, 0.89, 0.81 and 0.74 of the teacher's with 8, 4, 2 and 1 steps. And
four even steps are not the best four: (1 - i / 4)^2 is finer where it is decided how things sound.
So the release has a power of 2 at four steps (`student.grid_powers` of config.json), and moments:

    python -m experiments.calibrate --release=foley --recordings=DIR --scenes=512 --seconds=10 \
        --foley_weight=0

Frechet distances at 4, 2 and 1 steps of seed 0, then of seed 1 (its own scenes and noise; teacher
4.08, 5.14), with moments of 96 other training scenes:

    the eighth run                                             4.57 4.94 5.81  5.72 5.18 6.05
    the teacher's mean alone                                   4.45 4.75 5.41  5.64 5.05 5.82
    half of the spread, by channel                             4.49 4.59 4.92    -    -    -
    all of the spread, by channel                              4.79 4.75 4.85  6.05 5.19 5.02
    half of it, by the covariance of all channels              4.54 4.57 4.77  5.78 4.97 5.22
    all of it, likewise                                        5.04 4.69 4.45  6.19 5.29 4.93
    mean, and noise of half of what is missing                   -    -    -   6.03 5.31 5.12
    half of the spread, by channel, power 1.5                  4.21 5.71   -   5.31 5.91   -
    the same, power 2                                          4.25   -    -   5.08   -    -
    the same, power 2, 1.3 of the teacher's adapter            4.47   -    -     -    -    -
    steps of 1/2, 1/4, 1/8, 1/8                                4.38   -    -   5.04   -    -

Eight steps are no better for a power (4.81 with 1.5). The student's means are off by 0.05 of a
deviation (root mean square over channels, four steps), which takes many scenes to see: those of two
sets of 128 scenes differ by 0.036 and their gains by 0.026, of two sets of 256 by 0.020 and 0.019.
The release's are of 512. Four steps of seeds 0, 1 and 3 (teacher 4.07, 5.14, 3.85):

    no moments                                                  -    -   4.73
    of 128 scenes                                              4.33 5.11 4.40
    of 512: the release                                        4.30 5.10 4.39
    of 512, 0.7 of the spread                                   -    -   4.36
    of 512, power 1.7, then 2.4                                 -    -   4.54, 4.43
    of 512, guidance 3                                          -    -   4.51

Nothing else that was tried with moments brings four steps nearer by more than scenes differ.
Seeds 3 and 4, moments of 256 scenes, then the class prompts that a probe finds of 240, in percent:

    half of the spread, as in the release (of 512: 67%)        4.44 4.28   64
    0.75 of the spread, then all of it                         4.42 4.29   -    4.43 4.33   -
    guidance 2 (seeds 1 and 5: 5.15 and 4.38, else 5.11, 4.47) 4.34 4.28   65
    guidance 2, 0.75 of the spread                             4.34 4.31   -
    guidance 2.25, 0.75 of the spread                          4.36 4.30   -
    means of x_t after each step, too (128 scenes; else 4.41)  4.45   -    -
    half of the spread of x_t after each step, likewise        4.39   -    -
    40,000 parameters taught these four steps: no moments      4.47 4.17   48
    the same with moments                                      4.54 4.38   -
    the same but for the first step: no moments                4.68 4.28   -
    the same but for the first step, with moments              4.43 4.25   -

Those are all but the matrices (tables, biases, scales, embeddings of level, scale and step), 720
updates of 16 sounds of 10 s, each step against where the teacher's own walk in 48 steps is after
it, from the same noise, for 480 scenes, a quarter of them by their caption alone. The error there
(x0, mean square over max(sigma^2, 0.02)) fell on 32 other scenes from 0.219, 0.024, 0.030, 0.019 at
the four steps to 0.154, 0.020, 0.019, 0.007: regression finds the mean of the teacher's answers
and loses what was asked by name.

Without moments, none of these helped four steps (seed 1, 5.72): another guidance above t = 0.6 than
below, 3.5 and 1.5 or the other way round (5.89, 5.88); other shares of the teacher's adapter above
and below, 0.5, 0 or 0.75 (5.76, 5.83, 5.72); fresh noise for a part of the old (5.73).

Cost of the default on two CPU cores: 373 s from foley alone, 388 s with recordings and YAMNet,
before it measured moments; with them, 78 s on another machine's slow day, 490 s from foley alone.
`:release` (without its last stage) took some 25 minutes beside other work, the second run 15. That
brought the student from 1.44, 1.30, 1.94 and 2.60 of the teacher's Frechet distance at 10 s, with
8, 4, 2 and 1 steps, to 1.08, 1.07, 1.76 and 2.00. The third took 30 minutes, 1.9 s an update; of
its teacher, a better one, it stood at 1.02, 1.10, 1.50 and 2.48. The fourth took 13 minutes for
2,500 answers and 36 for the updates, 2.7 s each; the fifth 54 for the updates, 3.2 s each beside
other work, and 2 for 2,500 recordings; the seventh 8 for its answers and 46 for
its updates, 2.5 s each with nothing beside them; the eighth 33, 1.3 to 1.5 s each.
Result: README.
"""

import ml_collections


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.scenes = 384  # encoded once
    config.scene_seconds = 5.0
    config.foley_weight = 0.4  # share of sounds from procedural foley, where there are recordings
    config.crop_seconds = 5.0  # the shortest crops; whole scenes at least half of a batch
    config.batch_size = 16
    config.dtype = ml_collections.config_dict.placeholder(str)  # of training's products; float32
    config.guidance_range = (1.0, 4.0)  # scales folded into the student
    config.absence = ml_collections.ConfigDict(
        dict(text=0.1, timeline=0.15, loudness=0.15, init=0.15)
    )
    config.onset_weight = 4.0  # of the frames around the onset of an event
    config.rank = 0  # of an adapter, all that is trained then; 0: the whole network
    config.progressive = ml_collections.ConfigDict()
    config.progressive.steps = (
        64,
        32,
        16,
        8,
        4,
    )  # sampling steps; guidance is folded in at the first
    config.progressive.updates = 8  # per stage
    config.progressive.learning_rate = 3e-4
    config.consistency = ml_collections.ConfigDict()
    config.consistency.segments = (1, 2, 4, 8)
    config.consistency.teacher_step = 1 / 32
    config.consistency.updates = 80
    config.consistency.learning_rate = 4e-4
    config.energy = ml_collections.ConfigDict()
    config.energy.segments = (1, 1, 2, 2, 4, 8)  # drawn evenly: one and two steps twice as often
    config.energy.consistency_weight = 1.0
    config.energy.consistency_segments = (4, 8)
    config.energy.batch_size = 8  # two samples of each
    config.energy.updates = 0
    config.energy.learning_rate = 2e-4
    config.energy.share = 0.8  # of the student after this stage, the rest of the one before it
    config.energy.frozen = ''  # names of parameters that stay as they are
    config.energy.recordings = 1_200  # as they are, by their caption alone; where there are any
    config.energy.answer_steps = 12
    config.energy.answer_batch_size = 10
    config.energy.answer_recordings = False  # captions of recordings, too
    config.energy.absence = ml_collections.ConfigDict(dict(text=0.08, timeline=0.25))
    config.imitation = ml_collections.ConfigDict()
    config.imitation.updates = 0  # of --experts
    config.imitation.learning_rate = 1e-3
    config.imitation.walks = ((1, 0, 0), (2, 0, 0), (4, 0, 0), (8, 0, 0))  # see the recipe
    config.imitation.frozen = ''
    config.ema_decay = 0.98
    config.log_every = 10  # updates
    config.save_every = 100
    config.calibration_scenes = 48  # of the training split, for moments and the lead of onsets
    config.eval_scenes = 48
    config.eval_seconds = 5.0
    config.report_prompts = 4
    if variant == 'release':
        config.scenes = 512
        config.progressive.updates = 32
        config.consistency.updates = 260
        config.energy.updates = 150
        config.eval_scenes = 64
    elif variant == 'gpu':
        config.scenes = 12_000
        config.scene_seconds = 10.0
        config.foley_weight = 0.3
        config.crop_seconds = 1.0
        config.batch_size = 128
        config.dtype = 'bfloat16'
        config.absence.timeline = 0.3
        config.progressive.updates = 150
        config.consistency.updates = 3_000
        config.energy.batch_size = 64
        config.energy.answer_batch_size = 200
        config.energy.updates = 2_000
        config.ema_decay = 0.995
        config.log_every = 100
        config.save_every = 100_000
        config.eval_scenes = 64
        config.eval_seconds = 10.0
    elif variant == 'test':
        config.scenes = 4
        config.scene_seconds = config.crop_seconds = 1.0
        config.batch_size = 2
        config.progressive.steps = (4, 2)
        config.progressive.updates = 2
        config.consistency.segments = (1, 2, 4, 8)
        config.consistency.updates = 2
        config.energy.segments = (1, 2)
        config.energy.batch_size = 2
        config.energy.updates = 2
        config.energy.recordings = 2
        config.energy.answer_steps = 2
        config.log_every = 1
        config.save_every = 2
        config.calibration_scenes = 2
        config.eval_scenes = 4
        config.eval_seconds = 1.0
        config.report_prompts = 1
    elif variant:
        raise ValueError(
            f'no variant {variant!r} of this config; there are :release, :gpu and :test'
        )
    return config.lock()
