"""Twelve prompts with their timelines as OGG files and spectrograms, and a page that plays them.

python -m experiments.examples --workdir=docs/examples

Every example has the same seed, and none is left out.
"""

import pathlib
import re

from absl import flags

import realaudio_jax
from experiments.common import run
from realaudio_jax.io import atomic_path
from realaudio_jax.spectrogram import plot_spectrogram
from realaudio_jax.timeline import Timeline
from realaudio_jax.training.loop import Progress

_RELEASE = flags.DEFINE_string('release', 'foley', 'A shipped release, or a folder.')
_STEPS = flags.DEFINE_integer('steps', 4, 'Denoiser steps of the student.')
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of every example.', 0)
_WORKDIR = flags.DEFINE_string('workdir', 'docs/examples', 'Where everything goes.')

SECONDS = 10.0
EXAMPLES = (  # (prompt, timeline)
    ('dog barking in the rain', 'gunshot@2.3-2.8'),
    ('a dog barks three times', 'dog bark@1-1.4,3-3.4,6-6.4'),
    ('glass breaking', 'glass breaking@2-3; door slam@5-5.6'),
    ('steady rain', ''),
    ('waves roll onto a beach', ''),
    ('a clock ticks in a quiet room', 'clock tick@' + ','.join(f'{t}-{t}.1' for t in range(1, 9))),
    ('a helicopter passes', ''),
    ('fire crackling', 'explosion@4-6.5'),
    ('a rooster crows at dawn', 'rooster@2-3.5,6-7.5:-6dB'),
    (
        'footsteps on wood, then a door slams',
        'footstep@'
        + ','.join(f'{0.5 * k:g}-{0.5 * k + 0.15:g}' for k in range(1, 11))
        + '; door slam@7-7.8',
    ),
    ('', 'gunshot@1-1.4,1.6-2,2.2-2.6; explosion@5-7'),
    ('a chainsaw starts and stops', 'chainsaw@2-7'),
)


def main(argv):
    del argv
    folder = pathlib.Path(_WORKDIR.value)
    generator = realaudio_jax.load(_RELEASE.value)
    lines = []
    with Progress(len(EXAMPLES), 'examples') as progress:
        for i, (prompt, events) in enumerate(EXAMPLES):
            timeline = Timeline.parse(events or None, SECONDS)
            sound = generator.generate(prompt, timeline, SECONDS, _STEPS.value, _SEED.value)
            words = re.findall(r'\w+', (prompt or events).lower())
            name = '-'.join([f'{i + 1:02}', *words])[:60]
            sound.save(folder / f'{name}.ogg')
            plot_spectrogram(
                folder / f'{name}.png', sound.audio, sound.sample_rate, timeline.events, prompt
            )
            asked = [f'"{prompt}"' if prompt else 'no prompt', f'`{events}`' if events else '']
            lines += [
                f'**{i + 1}.** {", ".join(filter(None, asked))} ([OGG]({name}.ogg))\n',
                f'<audio controls preload="none" src="{name}.ogg"></audio>\n',
                f'![Spectrogram of example {i + 1}, its events drawn over it]({name}.png)\n',
            ]
            progress.update(i + 1)
    head = (
        '# Twelve examples\n\n'
        f'{_STEPS.value} steps, seed {_SEED.value} for all, {SECONDS:g} s of 48 kHz stereo; '
        'stored as Ogg Vorbis. Made by\n\n'
        f'    python -m experiments.examples --steps={_STEPS.value} --seed={_SEED.value}\n'
    )
    with atomic_path(folder / 'README.md') as temporary:
        temporary.write_text('\n'.join([head, *lines]), encoding='utf-8')


if __name__ == '__main__':
    run(main)
