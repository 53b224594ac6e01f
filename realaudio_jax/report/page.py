"""One page to read, hear and see a run: the summary, the metrics, the sounds, the run's facts.

`write_report` joins them in one HTML file that needs no other file and no network. Sounds are
embedded as Ogg Vorbis and spectrograms as WebP, in the best quality that keeps the page below
`MAX_BYTES`, so that it can be sent and opened anywhere.
"""

import base64
import io
import os
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import soundfile

from realaudio_jax import audio as audio_lib
from realaudio_jax.io import atomic_path
from realaudio_jax.report import html
from realaudio_jax.report.summary import Table
from realaudio_jax.spectrogram import spectrogram_image
from realaudio_jax.timeline import Event
from realaudio_jax.typing import Float

MAX_BYTES = 4_000_000
PLAYED_LUFS = -23.0  # of the players: EBU R 128
_MOST_DB = 40.0  # that a player is raised by: silence stays silent
_COMPRESSION = (0.4, 0.6, 0.8, 1.0)  # of Vorbis, as libsndfile counts: 0 is best, 1 is smallest
_BLOCK = 65_536  # samples written at once: libvorbis needs stack in proportion


@dataclass(frozen=True)
class ReportClip:
    """One sound of a report.

    Attributes:
        prompt: what was asked for; sounds of one prompt stand in one row.
        label: what made it, such as 'teacher, 50 steps' or 'real'.
        audio: float in [-1, 1] or int16, [S] or [S, A].
        sample_rate: Hz.
        events: those asked for.
    """

    prompt: str
    label: str
    audio: np.ndarray
    sample_rate: int
    events: Sequence[Event] = ()


def without_paths(command: str) -> str:
    """A command for others to read: of each path that lies elsewhere only its last part.

    'python -m x --recordings=/home/ann/sounds --config=configs/a.py' keeps 'sounds' and
    'configs/a.py'.
    """

    def shown(value: str) -> str:
        path = pathlib.PureWindowsPath(value)  # knows both slashes
        return path.name if path.root or path.drive or value.startswith(('~', '..')) else value

    tokens = []
    for token in shlex.split(command):
        flag, equals, values = token.rpartition('=')
        tokens.append(flag + equals + ','.join(map(shown, values.split(','))))
    return shlex.join(tokens)


def write_report(
    path: str | os.PathLike,
    title: str,
    clips: Sequence[ReportClip],
    sentences: Sequence[str] = (),
    tables: Sequence[Table] = (),
    warnings: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    note: str = '',
) -> None:
    """Writes the report of a run as one HTML page.

    Args:
        path: of the HTML, written whole or not at all.
        title: its heading.
        clips: sounds; those of one prompt stand side by side, in the order given.
        sentences: the result in words.
        tables: of metrics.
        warnings: metrics that cannot be relied on, in words.
        facts: names and values shown at the end; a command goes through `without_paths` first.
        note: what a listener should know of the sounds and drawings, said before them.

    Raises:
        ValueError: a clip has no samples, or some that are not finite.
        OSError: the file cannot be written.
    """
    rows: dict[str, list[ReportClip]] = {}
    for clip in clips:
        rows.setdefault(clip.prompt, []).append(clip)
    images = {id(clip): spectrogram_image(clip.audio, clip.sample_rate) for clip in clips}
    for compression in _COMPRESSION:
        sounds = {id(clip): vorbis(clip.audio, clip.sample_rate, compression) for clip in clips}
        if 4 / 3 * sum(map(len, [*sounds.values(), *images.values()])) < 0.95 * MAX_BYTES:
            break
    body = [html.lead(sentences)] if sentences else []
    body += [html.table(table.title, table.headings, table.lines, table.note) for table in tables]
    if warnings:
        body.append(html.warnings(warnings))
    if note:
        body.append(html.key(note))
    body += [
        html.row(
            prompt,
            [(event.text, event.onset_s, event.offset_s) for event in row[0].events],
            [
                html.player(
                    clip.label,
                    _description(clip),
                    data_uri('audio/ogg', sounds[id(clip)]),
                    data_uri('image/webp', images[id(clip)]),
                    len(clip.audio) / clip.sample_rate,
                    [(event.onset_s, event.offset_s) for event in clip.events],
                )
                for clip in row
            ],
        )
        for prompt, row in rows.items()
    ]
    if facts:
        body.append(html.details('The run', facts))
    page = html.page(title, body)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding='utf-8')


def _description(clip: ReportClip) -> str:
    said = '; '.join(f'{e.text} from {e.onset_s:g} to {e.offset_s:g} s' for e in clip.events)
    return f'Spectrogram of {clip.label}: {clip.prompt}' + (f'. Events: {said}' if said else '')


def played(sound: Float[np.ndarray, 'S 2'], sample_rate: int) -> Float[np.ndarray, 'S 2']:
    """A sound at the level of the players, `PLAYED_LUFS`.

    Args:
        sound: in [-1, 1].
        sample_rate: Hz.
    """
    batch = jnp.asarray(sound, jnp.float32)[None]
    change_db = min(PLAYED_LUFS - float(audio_lib.loudness_lufs(batch, sample_rate)[0]), _MOST_DB)
    louder = batch * 10 ** (change_db / 20)
    return jax.device_get(audio_lib.limit(louder, sample_rate))[0]


def vorbis(audio: np.ndarray, sample_rate: int, compression: float) -> bytes:
    """A sound as an Ogg Vorbis file.

    Args:
        audio: float in [-1, 1] or int16, [S] or [S, A].
        sample_rate: Hz.
        compression: as libsndfile counts, 0 (best) to 1 (smallest).
    """
    audio = np.asarray(audio)
    audio = audio if audio.dtype == np.int16 else audio_lib.to_pcm16(audio)
    channels = 1 if audio.ndim == 1 else audio.shape[1]
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer, 'w', sample_rate, channels, 'VORBIS', format='OGG', compression_level=compression
    ) as file:
        for first in range(0, len(audio), _BLOCK):
            file.write(audio[first : first + _BLOCK])
    return buffer.getvalue()


def data_uri(kind: str, data: bytes) -> str:
    """The `data:` address of a file of a MIME type."""
    return f'data:{kind};base64,{base64.b64encode(data).decode()}'
