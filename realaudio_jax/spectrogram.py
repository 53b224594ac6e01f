"""Spectrograms for readers: mel-spaced frequency in Hz, level in dB, events as labelled spans.

The map is perceptually uniform and the range of levels fixed, so that drawings compare.
"""

import io
import os
import warnings
from collections.abc import Sequence

import librosa
import matplotlib.image
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from realaudio_jax.audio import from_pcm16
from realaudio_jax.io import atomic_path
from realaudio_jax.timeline import Event

MIN_DB, MAX_DB = -100.0, -20.0  # of the colours; 0 dB is a sine at full scale
BANDS, WINDOW, HOP_S = 160, 2048, 0.005  # window in samples
PADDING = 4  # FFT sizes to a window, so that the lowest bands hold bins too
_TICKS_HZ = (200, 500, 1000, 2000, 4000, 8000, 16000)
_WIDTH_IN, _SPECTROGRAM_IN, _LANE_IN, _DPI = 6.0, 2.1, 0.22, 144
LEFT, RIGHT = 0.105, 0.855  # of the drawing's width, where time begins and ends
_CHARACTER_IN = 0.074  # width of one character of an event's label
_INK, _PAPER = '#e8e6e3', '#14131a'
_EVENT_COLOURS = (
    '#4cc9f0',
    '#b8f35d',
    '#ffffff',
    '#5ee6a8',
    '#8fb4ff',
    '#e6e05c',
    '#37d6c8',
    '#c9b8ff',
)  # bright against the dark end and the reds of the map


def mel_levels(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Power in mel bands, mean over channels, in dB: 0 dB is a sine at full scale.

    Args:
        audio: float in [-1, 1] or int16, [S] or [S, A].
        sample_rate: Hz.

    Returns:
        float [M, N], M bands and a frame each 5 ms, not below -120 dB.

    Raises:
        ValueError: no samples, or some that are not finite.
    """
    audio = np.asarray(audio)
    audio = from_pcm16(audio) if audio.dtype == np.int16 else audio.astype(np.float32)
    audio = audio[:, None] if audio.ndim == 1 else audio
    if not audio.size:
        raise ValueError('there is no sound to draw: it holds no samples')
    if not np.isfinite(audio).all():
        raise ValueError('cannot draw a sound with NaN or infinite samples; repair it first')
    window = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    padded = np.pad(audio, ((WINDOW // 2, WINDOW // 2), (0, 0)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=0)
    frames = frames[:: round(HOP_S * sample_rate)]  # [N, A, F]
    power = np.mean(np.abs(np.fft.rfft(frames * window, PADDING * WINDOW)) ** 2, axis=1)
    # Equal peaks, not equal areas: a band's level is the power in it. A sine spreads its power over
    # 1.5 bins of a Hann window, each PADDING times.
    filters = librosa.filters.mel(
        sr=sample_rate, n_fft=PADDING * WINDOW, n_mels=BANDS, htk=True, norm=None
    )
    power = filters @ power.T / (1.5 * PADDING * (window.sum() / 2) ** 2)
    return 10 * np.log10(np.maximum(power, 1e-12))


def draw_spectrogram(
    audio: np.ndarray,
    sample_rate: int,
    events: Sequence[Event] = (),
    title: str = '',
) -> Figure:
    """Draws a mel spectrogram, with each event as a labelled span and lines down from its ends.

    Args:
        audio: float in [-1, 1] or int16, [S] or [S, A].
        sample_rate: Hz.
        events: spans to draw, in seconds of this sound.
        title: above the drawing.

    Raises:
        ValueError: no samples, or some that are not finite.
    """
    levels, seconds = mel_levels(audio, sample_rate), len(audio) / sample_rate
    labels = [_label(event) for event in events]
    axis_in = (RIGHT - LEFT) * _WIDTH_IN
    lanes = event_lanes(events, labels, seconds, seconds / axis_in * _CHARACTER_IN)
    lanes_in = _LANE_IN * (max(lanes, default=-1) + 1)
    top_in, bottom_in = (0.34 if title else 0.12), 0.46
    height_in = top_in + lanes_in + _SPECTROGRAM_IN + bottom_in

    figure = Figure(figsize=(_WIDTH_IN, height_in), dpi=_DPI, facecolor=_PAPER)
    FigureCanvasAgg(figure)
    box = (LEFT, bottom_in / height_in, RIGHT - LEFT, _SPECTROGRAM_IN / height_in)
    axes = figure.add_axes(box, facecolor=_PAPER)
    top_mel = librosa.hz_to_mel(sample_rate / 2, htk=True)
    image = axes.imshow(
        levels,
        origin='lower',
        aspect='auto',
        cmap='magma',
        vmin=MIN_DB,
        vmax=MAX_DB,
        extent=(-HOP_S / 2, levels.shape[1] * HOP_S - HOP_S / 2, 0, top_mel),
        interpolation='antialiased',
    )
    ticks = [hz for hz in _TICKS_HZ if hz < sample_rate / 2]
    names = [f'{hz // 1000}k' if hz >= 1000 else str(hz) for hz in ticks]
    axes.set_yticks(librosa.hz_to_mel(ticks, htk=True), names)
    axes.set(xlim=(0, seconds), ylim=(0, top_mel))
    axes.set_xlabel('time (s)', color=_INK, fontsize=9, labelpad=1)
    axes.set_ylabel('frequency (Hz)', color=_INK, fontsize=9, labelpad=2)
    bar_axes = figure.add_axes((RIGHT + 0.012, box[1], 0.014, box[3]))
    bar = figure.colorbar(image, cax=bar_axes, extend='both')
    bar.set_label('level (dB)', color=_INK, fontsize=9, labelpad=1)
    for each in (axes, bar_axes):
        each.tick_params(colors=_INK, labelsize=9, length=2.5)
    for spine in (*axes.spines.values(), bar.outline):
        spine.set_edgecolor('#555566')
    if events:
        box = (LEFT, (bottom_in + _SPECTROGRAM_IN) / height_in, box[2], lanes_in / height_in)
        lane_axes = figure.add_axes(box, sharex=axes)
        lane_axes.set(ylim=(0, max(lanes) + 1), xlim=(0, seconds))
        lane_axes.axis('off')
        _draw_events(axes, lane_axes, events, labels, lanes, seconds)
    if title:
        figure.text(
            LEFT,
            1 - 0.11 / height_in,
            _cut(title, 70),
            color=_INK,
            fontsize=10,
            va='top',
            parse_math=False,
        )
    return figure


def spectrogram_image(audio: np.ndarray, sample_rate: int, width: int = 480) -> bytes:
    """A mel spectrogram alone, without axes, that spans the whole sound: the bytes of a WebP file.

    Args:
        audio, sample_rate: see `mel_levels`.
        width: of the image in pixels, fewer for a sound of fewer frames; its height is `BANDS`.

    Raises:
        ValueError: no samples, or some that are not finite.
    """
    levels = np.clip((mel_levels(audio, sample_rate) - MIN_DB) / (MAX_DB - MIN_DB), 0, 1)
    edges = np.linspace(0, levels.shape[1], min(width, levels.shape[1]) + 1).astype(int)
    means = np.add.reduceat(levels, edges[:-1], axis=1) / np.diff(edges)[None, :]
    colours = matplotlib.colormaps['magma'](means[::-1], bytes=True)[..., :3]
    buffer = io.BytesIO()
    matplotlib.image.imsave(
        buffer, np.ascontiguousarray(colours), format='webp', pil_kwargs={'quality': 70}
    )
    return buffer.getvalue()


def to_png(figure: Figure) -> bytes:
    """A drawing as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph')  # a script that the font lacks shows as boxes
        figure.savefig(buffer, format='png', facecolor=_PAPER)
    return buffer.getvalue()


def plot_spectrogram(
    path: str | os.PathLike,
    audio: np.ndarray,
    sample_rate: int,
    events: Sequence[Event] = (),
    title: str = '',
) -> None:
    """Writes `draw_spectrogram` as PNG, whole or not at all.

    Raises:
        ValueError: no samples, or some that are not finite.
        OSError: the file cannot be written.
    """
    png = to_png(draw_spectrogram(audio, sample_rate, events, title))
    with atomic_path(path) as temporary:
        temporary.write_bytes(png)


def event_lanes(
    events: Sequence[Event], labels: Sequence[str], seconds: float, character_s: float
) -> list[int]:
    """The lane of each event, from 0 up, so that neither spans nor labels of one lane overlap.

    Args:
        events: in any order; earlier onsets are placed first.
        labels: one for each event, beginning at its onset, or ending at the clip's end.
        seconds: duration.
        character_s: width of a label's character, in seconds.
    """
    taken: list[list[tuple[float, float]]] = []
    lanes = [0] * len(events)
    for i in sorted(range(len(events)), key=lambda i: events[i].onset_s):
        start, end = _extent(events[i], labels[i], seconds, character_s)
        for lane, spans in enumerate([*taken, []]):  # noqa: B007
            if all(end <= a or start >= b for a, b in spans):
                break
        if lane == len(taken):
            taken.append([])
        taken[lane].append((start, end))
        lanes[i] = lane
    return lanes


def _extent(event: Event, label: str, seconds: float, character_s: float) -> tuple[float, float]:
    """Where span and label of an event begin and end together, in seconds."""
    width = (len(label) + 1.5) * character_s
    start = max(0.0, min(event.onset_s, seconds - width))
    return start, max(event.offset_s, start + width)


def _draw_events(axes, lane_axes, events, labels, lanes, seconds):
    texts = list(dict.fromkeys(event.text for event in events))  # one text, one colour
    character_s = seconds / ((RIGHT - LEFT) * _WIDTH_IN) * _CHARACTER_IN
    for event, label, lane in zip(events, labels, lanes, strict=True):
        colour = _EVENT_COLOURS[texts.index(event.text) % len(_EVENT_COLOURS)]
        width = event.offset_s - event.onset_s
        lane_axes.barh(lane + 0.5, width, 0.84, event.onset_s, color=colour, alpha=0.3)
        lane_axes.plot([event.onset_s] * 2, [lane + 0.08, lane + 0.92], color=colour, linewidth=2)
        start, _ = _extent(event, label, seconds, character_s)
        lane_axes.text(
            start + character_s / 2,
            lane + 0.47,
            label,
            color='white',
            fontsize=9,
            va='center',
            parse_math=False,
        )
        for time, style in ((event.onset_s, '-'), (event.offset_s, (0, (3, 2)))):
            axes.axvline(time, color=colour, linewidth=1.0, linestyle=style, alpha=0.85)
            lane_axes.plot([time] * 2, [0, lane], color=colour, linewidth=0.7, alpha=0.45)


def _label(event: Event) -> str:
    gain = f' {event.gain_db:+g} dB' if event.gain_db else ''
    return _cut(event.text, 24) + gain


def _cut(text: str, length: int) -> str:
    text = ' '.join(text.split())
    return text if len(text) <= length else text[: length - 1].rstrip() + '…'
