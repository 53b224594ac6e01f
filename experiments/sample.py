"""Makes sounds from a prompt and a timeline, of any length; or loops.

python -m experiments.sample --prompt='a dog barks in the rain' --events='gunshot@2.3-2.8'
python -m experiments.sample --prompt='waves on a beach' --seconds=120
python -m experiments.sample --prompt='waves on a beach' --seconds=20 --loop
"""

import os
import pathlib
import re
import time
from collections.abc import Iterable

import numpy as np
from absl import flags

import realaudio_jax
from experiments.common import default_name, run, say, unused, warn
from experiments.watermark_flags import define_precision, define_watermark
from realaudio_jax.io import WRITABLE, printable
from realaudio_jax.release import find_release
from realaudio_jax.requests import SAMPLE_RATES
from realaudio_jax.sound_files import read_audio
from realaudio_jax.spectrogram import plot_spectrogram
from realaudio_jax.stream import PreparedLong
from realaudio_jax.typing import SAMPLE_RATE
from realaudio_jax.vocabulary import FAR, load_vocabulary, nearest_labels

_RELEASE = flags.DEFINE_string('release', 'foley', 'A shipped release, or a folder.')
_PROMPT = flags.DEFINE_string('prompt', '', 'What is heard, in English.')
_EVENTS = flags.DEFINE_string(
    'events', None, "What happens when: 'gunshot@2.3-2.8:-6dB; dog bark@0.5-0.9,4.0-4.4', or JSON."
)
_SECONDS = flags.DEFINE_float(
    'seconds', 10.0, 'Duration, 0.5 s and more; beyond 10 s it is made in windows.'
)
_LOOP = flags.DEFINE_bool('loop', False, 'The end goes over into the beginning.')
_STEPS = flags.DEFINE_integer(
    'steps', None, "Denoiser steps; none: 4 for the student, the release's own for the teacher."
)
_SEED = flags.DEFINE_integer(
    'seed', 0, 'Another seed, another take.', lower_bound=0, upper_bound=2**31 - 1
)
_COUNT = flags.DEFINE_integer(
    'count',
    1,
    'Variations, with consecutive seeds; --out=a.wav then gives a-0.wav, a-1.wav, ...',
    1,
)
_SAMPLE_RATE = flags.DEFINE_integer('sample_rate', SAMPLE_RATE, 'Hz: 48000 or 44100.')
_INIT_AUDIO = flags.DEFINE_string('init_audio', None, 'A sound file to vary or to keep parts of.')
_STRENGTH = flags.DEFINE_float(
    'strength', 1.0, 'How far to leave the init audio: above 0 (little) to 1 (altogether).'
)
_KEEP = flags.DEFINE_string('keep', None, "Spans of the init audio that stay, s: '0-1.5,3-4'.")
_LOUDNESS = flags.DEFINE_string(
    'loudness',
    'auto',
    'LUFS that the sound is brought to, such as -16, or off; auto: -23, and off with --init_audio.',
)
_WATERMARK = define_watermark()
_PRECISION = define_precision()
_GUIDANCE = flags.DEFINE_float('guidance', None, "Guidance scale; none: the release's own.")
_MODEL = flags.DEFINE_enum('model', 'student', ['student', 'teacher'], 'Which denoiser.')
_LIST = flags.DEFINE_bool(
    'list', False, 'Print the labels that the release was trained on, and make no sound.'
)
_OUT = flags.DEFINE_string('out', None, 'WAV, FLAC or OGG; none: a name from the request.')
_SPECTROGRAM = flags.DEFINE_string('spectrogram', None, 'PNG to draw the sound into.')

# What changes a sound besides its words, seed, steps and duration.
_CHANGES = (
    _RELEASE,
    _SAMPLE_RATE,
    _INIT_AUDIO,
    _STRENGTH,
    _KEEP,
    _LOUDNESS,
    _GUIDANCE,
    _MODEL,
    _LOOP,
    _PRECISION,
)


def check_output(name: str, suffixes: tuple[str, ...]) -> pathlib.Path:
    """The path of a file to be written, known to have a good suffix and a folder for it.

    Raises:
        ValueError: another suffix, or a folder stands there. OSError: no file can be made there.
    """
    path = pathlib.Path(name)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f'cannot write {name}: choose a name ending in {" or ".join(suffixes)}')
    if path.is_dir():
        raise ValueError(f'cannot write {name}: it is a folder; choose another name')
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(None, f'cannot write {name}: {folder} is no folder you may write to')
    return path


def parse_spans(text: str | None) -> list[tuple[float, float]]:
    """Pairs of seconds from '0-1.5,3-4'.

    Raises:
        ValueError: a part is no span.
    """
    spans = []
    for part in filter(str.strip, (text or '').split(',')):
        match = re.fullmatch(r'\s*([0-9.]+)\s*-\s*([0-9.]+)\s*', part)
        try:
            spans.append((float(match[1]), float(match[2])))
        except (TypeError, ValueError):
            raise ValueError(
                f"--keep has {part.strip()!r}: write spans in seconds such as '0-1.5,3-4'"
            ) from None
    return spans


def parse_loudness(text: str) -> float | str | None:
    """What `generate` takes for --loudness.

    Raises:
        ValueError: it is neither a number, 'off' nor 'auto'.
    """
    if text in ('auto', 'off'):
        return 'auto' if text == 'auto' else None
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'--loudness is {text!r}; give LUFS such as -23, or off') from None


def read_init_audio() -> np.ndarray | None:
    """The init audio at the rate of the result; says where it was converted."""
    if _INIT_AUDIO.value is None:
        if _KEEP.value or _STRENGTH.value != 1:
            raise ValueError('--keep and --strength need --init_audio; name a sound file')
        return None
    return read_audio(_INIT_AUDIO.value, _SAMPLE_RATE.value, log=say)


def list_labels(release: str) -> None:
    """Prints the vocabulary of a release, a label on each line.

    Raises:
        ValueError: it has none.
    """
    folder = find_release(release)
    vocabulary = load_vocabulary(folder)
    if vocabulary is None:
        raise ValueError(f'{folder} lists no labels; see the data its README.md names')
    say('\n'.join(vocabulary.labels))


def warn_of_far_texts(generator: realaudio_jax.Generator, texts: Iterable[str]) -> None:
    """A line for each text that is like nothing the release was trained on."""
    for text in dict.fromkeys(filter(str.strip, texts)):
        nearest = nearest_labels(generator, text)
        if nearest and nearest[0][1] < FAR:
            labels = ', '.join(label for label, _ in nearest)
            warn(
                f'the release knows nothing like "{printable(text, 60)}"; nearest: {labels} '
                '(--list prints all labels)'
            )


def output_path(out: pathlib.Path, variation: int, steps: int) -> pathlib.Path:
    """Where a variation goes: by --out, or by a name from what was asked for that is not taken."""
    if _OUT.value:
        return out if _COUNT.value == 1 else out.with_stem(f'{out.stem}-{variation}')
    changes = {flag.name: flag.value for flag in _CHANGES if flag.value != flag.default}
    words, seed = (_PROMPT.value, _EVENTS.value), _SEED.value + variation
    name = default_name(*words, seed=seed, steps=steps, seconds=_SECONDS.value, **changes)
    return unused(pathlib.Path(f'{name}.wav'))


def main(argv):
    del argv
    prompt, seconds, seed = _PROMPT.value, _SECONDS.value, _SEED.value
    if _LIST.value:
        list_labels(_RELEASE.value)
        return
    if not (prompt.strip() or _EVENTS.value or _INIT_AUDIO.value):
        raise ValueError("nothing to make: give --prompt='a dog barks', --events or --init_audio")
    out = check_output(_OUT.value or 'sound.wav', tuple(WRITABLE))
    if _COUNT.value > 1 and _SPECTROGRAM.value:
        raise ValueError('--spectrogram draws one sound; leave out --count, or the drawing')
    drawing = check_output(_SPECTROGRAM.value, ('.png',)) if _SPECTROGRAM.value else None
    keep, loudness = parse_spans(_KEEP.value), parse_loudness(_LOUDNESS.value)
    mark = _WATERMARK()
    begin = time.perf_counter()
    generator = realaudio_jax.load(_RELEASE.value, mark=mark, precision=_PRECISION.value)
    if _SAMPLE_RATE.value not in SAMPLE_RATES:
        raise ValueError(f'--sample_rate is {_SAMPLE_RATE.value}; choose 48000 or 44100')
    steps = _STEPS.value
    if steps is None:
        steps = 4 if _MODEL.value == 'student' else generator.config.teacher.steps
    init_audio = read_init_audio()
    arguments = dict(
        prompt=prompt,
        events=_EVENTS.value,
        seconds=seconds,
        steps=steps,
        guidance_scale=_GUIDANCE.value,
        model=_MODEL.value,
        sample_rate=_SAMPLE_RATE.value,
        init_audio=init_audio,
        strength=_STRENGTH.value,
        keep=keep,
        loudness=loudness,
        loop=_LOOP.value,
    )
    prepared = generator.prepare(seed=seed, **arguments)
    (timeline,) = prepared.call.timelines
    ready = f' (ready in {time.perf_counter() - begin:.1f} s)'
    if isinstance(prepared, PreparedLong):
        ready = ', with the time of preparing its programs'
    for i in range(_COUNT.value):
        begin = time.perf_counter()
        sound = generator.run(generator.prepare(seed=seed + i, **arguments))
        made = time.perf_counter() - begin
        path = output_path(out, i, steps)
        replaced = ', in place of an older one' if path.exists() else ''
        sound.save(path)
        say(
            f'{printable(path)}{replaced}: {sound.seconds:g} s at {sound.sample_rate} Hz, '
            f'{_MODEL.value}, {steps} steps, seed {sound.seed}, peak {sound.peak:.2f}, '
            f'{sound.lufs:.0f} LUFS as generated, '
            f'{f"marked with the {sound.watermark}" if sound.watermark else "not marked"}, '
            f'made in {1000 * made:.0f} ms{"" if i else ready}'
        )
    if drawing:
        title = f'{prompt} ({_MODEL.value}, {steps} steps, seed {seed})'
        plot_spectrogram(drawing, sound.audio, sound.sample_rate, timeline.events, title)
    warn_of_far_texts(generator, [prompt, *(event.text for event in timeline.events)])


if __name__ == '__main__':
    run(main)
