"""A blind listening test of two systems: makes its page, and counts the answers.

python -m experiments.listening_test --systems=student:4,teacher:50 --workdir=DIR
python -m experiments.listening_test --folders=DIR,DIR --workdir=DIR
python -m experiments.listening_test --answers=FILE,FILE --workdir=DIR

The first makes 24 pairs of a release, six each of tones, attacks, steady sounds and wide scenes;
the second pairs the files of one name in two folders, whose subfolders are groups. Both leave
listen.html, which needs no network, and key.json, which a listener should not see. The third
reads what the page saved and leaves results.json.
"""

import datetime
import os
import pathlib

import numpy as np
from absl import flags

from experiments.common import run, say, warn
from realaudio_jax.audio import from_pcm16
from realaudio_jax.generator import load
from realaudio_jax.io import printable
from realaudio_jax.metrics.evaluation.generate import SamplerConfig, generate_prompts
from realaudio_jax.report.listening import (
    KEY_NAME,
    PAGE_NAME,
    Pair,
    preference_rows,
    write_listening_test,
)
from realaudio_jax.report.page import played
from realaudio_jax.report.tables import write_results
from realaudio_jax.sound_files import counted, find_sounds, read_sound, some
from realaudio_jax.timeline import Timeline
from realaudio_jax.training.loop import Progress
from realaudio_jax.typing import MAX_SECONDS, SAMPLE_RATE

_SYSTEMS = flags.DEFINE_list(
    'systems', ['student:4', 'teacher:50'], 'Two of MODEL:STEPS, both of --release.'
)
_RELEASE = flags.DEFINE_string('release', 'foley', 'A shipped release, or a folder.')
_FOLDERS = flags.DEFINE_list('folders', [], 'Two folders of sounds to compare instead.')
_ANSWERS = flags.DEFINE_list('answers', [], 'Files that the page saved: they are counted.')
_SECONDS = flags.DEFINE_float(
    'seconds',
    5.0,
    'Duration of each sound of a release; events that end later are left out.',
    0.5,
    10.0,
)
_PAIRS = flags.DEFINE_integer(
    'pairs', 24, 'How many pairs; of folders, drawn at random.', lower_bound=1
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of noise, order, sides and intervals.', lower_bound=0)
_WORKDIR = flags.DEFINE_string('workdir', 'runs/listening_test', 'Where everything goes.')

PROMPTS = {  # group: (prompt, timeline)
    'tones': (
        ('a church bell rings', ''),
        ('a police siren', ''),
        ('a referee blows the whistle', 'a referee blows the whistle@1-1.6,3-4'),
        ('a piano chord', ''),
        ('birds sing in a forest', ''),
        ('a telephone rings', ''),
    ),
    'attacks': (
        ('gunshots', 'gunshot@0.5-1,1.5-2,3-3.6'),
        ('a dog barks', 'dog bark@0.5-0.9,1.4-1.8,3.5-3.9'),
        ('glass breaks', 'glass breaking@1-2'),
        (
            'footsteps on a wooden floor',
            'footstep@' + ','.join(f'{t / 2:g}-{t / 2 + 0.15:g}' for t in range(1, 9)),
        ),
        ('a door slams', 'door slam@1-1.6,3-3.6'),
        ('a hand clap', 'hand clap@0.5-0.7,1-1.2,1.5-1.7,3-3.2'),
    ),
    'steady': (
        ('steady rain', ''),
        ('waves on a beach', ''),
        ('cold wind', ''),
        ('a crackling fireplace', ''),
        ('a stream flows', ''),
        ('a vacuum cleaner', ''),
    ),
    'stereo': (
        ('a thunderstorm with rain', 'thunder@1-4'),
        ('a helicopter passes', ''),
        ('an audience applauds', ''),
        ('people talking in a hallway', ''),
        ('a subway train', ''),
        ('crickets at night, an owl far away', ''),
    ),
}


def two(names: list[str], flag: str) -> tuple[str, str]:
    """The two values of a flag.

    Raises:
        ValueError: there are not two.
    """
    if len(names) != 2:
        raise ValueError(f'--{flag} takes two values with a comma between, not {len(names)}')
    return names[0], names[1]


def sampler_config(text: str) -> SamplerConfig:
    """The sampler that MODEL:STEPS names.

    Raises:
        ValueError: it names none.
    """
    model, _, steps = text.partition(':')
    if model not in ('student', 'teacher') or not (steps.isascii() and steps.isdecimal()):
        raise ValueError(f'--systems: {text!r} is not like student:4 or teacher:50')
    return SamplerConfig(model, int(steps))


def pairs_of_release(
    release: str, systems: tuple[str, str], seconds: float, count: int, seed: int
) -> list[Pair]:
    """Pairs of a release's sounds, each from one noise, groups in turn."""
    samplers = [sampler_config(text) for text in systems]
    if samplers[0] == samplers[1]:
        raise ValueError(f'--systems: both are {systems[0]}; name two')
    most = sum(map(len, PROMPTS.values()))
    if count > most:
        raise ValueError(f'--pairs={count}: there are {most} prompts for a release')
    generator = load(release)
    for sampler in samplers:
        sampler.check(generator.config)
    chosen = [
        (group, *prompt)
        for prompts in zip(*PROMPTS.values(), strict=True)
        for group, prompt in zip(PROMPTS, prompts, strict=True)
    ][:count]
    prompts = [prompt for _, prompt, _ in chosen]
    timelines = [within(events, seconds) for *_, events in chosen]
    made: list[list[np.ndarray]] = []
    with Progress(len(chosen) * len(samplers), 'sounds') as progress:
        for done, sampler in enumerate(samplers):
            found = generate_prompts(
                generator,
                prompts,
                timelines,
                seconds,
                sampler,
                seed,
                progress=lambda n, done=done: progress.update(done * len(chosen) + n),
            )
            made.append([from_pcm16(sound) for sound in found.sounds])
    return [
        Pair(prompt, group, (played(first, SAMPLE_RATE), played(second, SAMPLE_RATE)))
        for (group, prompt, _), first, second in zip(chosen, *made, strict=True)
    ]


def within(events: str, seconds: float) -> Timeline:
    """The timeline without the events that end after the sound does."""
    whole = Timeline.parse(events or None, MAX_SECONDS).events
    return Timeline(tuple(event for event in whole if event.offset_s <= seconds))


def pairs_of_folders(folders: tuple[str, str], count: int, seed: int) -> list[Pair]:
    """Pairs of files of one name in two folders, of those that both have; both cut to the shorter.

    Raises:
        ValueError: the folders are one, have no file name in common, or one of them has two sounds
            of a name.
    """
    if os.path.realpath(folders[0]) == os.path.realpath(folders[1]):
        raise ValueError(f'--folders: {folders[0]} is named twice; name two')
    found = []
    for folder in map(pathlib.Path, folders):
        named: dict[pathlib.Path, pathlib.Path] = {}
        for path in find_sounds(folder).sounds:
            other = named.setdefault(path.relative_to(folder).with_suffix(''), path)
            if other != path:
                raise ValueError(
                    f'{printable(folder)} has {printable(other.name)} and {printable(path.name)}, '
                    'and a pair takes one sound of a name; move one of them'
                )
        found.append(named)
    first, second = found
    names = sorted(set(first) & set(second))
    if not names:
        raise ValueError(
            f'{folders[0]} and {folders[1]} have no sound of one name in common; '
            'the files of a pair are called alike'
        )
    alone = sorted(map(str, set(first) ^ set(second)))
    if alone:
        warn(f'left out, in one folder alone: {counted(len(alone), "sound")}, {some(alone)}')
    if len(names) > count:
        drawn = np.random.default_rng(seed).choice(len(names), count, replace=False)
        names = [names[i] for i in sorted(drawn)]
    pairs = []
    for name in names:
        sounds = [_stereo(read_sound(paths[name]).audio) for paths in found]
        length = min(map(len, sounds))
        sounds = [played(sound[:length], SAMPLE_RATE) for sound in sounds]
        group = name.parent.name or 'sounds'
        pairs.append(Pair(name.name.replace('_', ' ').replace('-', ' '), group, tuple(sounds)))
    return pairs


def _stereo(audio: np.ndarray) -> np.ndarray:
    return np.broadcast_to(audio, (len(audio), 2)).astype(np.float32)


def main(argv):
    del argv
    workdir = pathlib.Path(_WORKDIR.value)
    if _ANSWERS.value:
        if not (workdir / KEY_NAME).is_file():
            raise FileNotFoundError(
                f'no {KEY_NAME} in {workdir}; give the --workdir in which the page was made'
            )
        rows = preference_rows(workdir / KEY_NAME, _ANSWERS.value, _SEED.value)
        common = {'seed': _SEED.value, 'date': datetime.date.today().isoformat()}
        rows = [row | common for row in rows]
        _, table = write_results(workdir, rows, 'Listening test')
        print(table.read_text(encoding='utf-8'))
        return
    if (workdir / KEY_NAME).exists() and (workdir / PAGE_NAME).exists():
        raise ValueError(
            f'{workdir} holds a listening test already, whose answers need its key; '
            'give another --workdir'
        )
    if _FOLDERS.value:
        names = two(_FOLDERS.value, 'folders')
        pairs = pairs_of_folders(names, _PAIRS.value, _SEED.value)
    else:
        names = two(_SYSTEMS.value, 'systems')
        pairs = pairs_of_release(_RELEASE.value, names, _SECONDS.value, _PAIRS.value, _SEED.value)
    write_listening_test(workdir, names, pairs, SAMPLE_RATE, _SEED.value)
    page = workdir / PAGE_NAME
    say(
        f'{page}: {counted(len(pairs), "pair")}, {os.path.getsize(page) / 1e6:.1f} MB. '
        f'{KEY_NAME} beside it says which is which: keep it from listeners.'
    )


if __name__ == '__main__':
    run(main)
