"""Timelines: the events of a sound, with their times in seconds; parsing, checks, arrays.

A timeline is written in any of three forms, all equal:

    short     'gunshot@2.3-2.8:-6dB; dog bark@0.5-0.9,4.0-4.4'
    JSON      '[{"text": "gunshot", "onset_s": 2.3, "offset_s": 2.8, "gain_db": -6}, ...]'
    Python    [Event('gunshot', 2.3, 2.8, -6), ('dog bark', 0.5, 0.9), {'text': ..., ...}]

None, '' and [] mean no events. The grammar of the short form, where spaces are free:

    timeline   = sounds *( ';' sounds )
    sounds     = text '@' span *( ',' span )          one event for each span
    span       = onset '-' offset [ ':' gain 'dB' ]   seconds; without a gain, 0 dB

The text reaches to the last '@' before ';'. A text that holds ';' or begins with '[' or '{' needs
one of the other forms. A text that itself holds '@' and a time is an error: a ';' was forgotten, or
the span is not of this form. A loudness curve travels in JSON and Python as
`{'events': [...], 'loudness_db': [...]}`, or as an argument of `Timeline.parse`. So do further
curves, `{'events': [...], 'curves': {'brightness': [...], 'pitch': [...]}}`, in Hz, with None where
a frame is left free; a release says which it has.

Reading takes time in proportion to the length of the input, which is bounded.
"""

import dataclasses
import itertools
import json
import numbers
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from realaudio_jax.typing import LATENT_RATE, MAX_EVENTS

MIN_GAIN_DB, MAX_GAIN_DB = -24.0, 6.0  # what `finishing.apply_gains` and the limiter carry out
MIN_LOUDNESS_DB, MAX_LOUDNESS_DB = -80.0, 0.0
CURVES = {'brightness': (20.0, 24_000.0), 'pitch': (20.0, 8_000.0)}  # lowest and highest, Hz
MAX_CHARACTERS = 100_000  # of a timeline as text
MAX_TEXT = 1_000  # characters of one event's text
MAX_CLIP_SECONDS = 86_400.0  # a day
TOLERANCE_S = 1e-6  # by which rounding may put an offset beyond the end of the clip

_EXAMPLE = "'gunshot@2.3-2.8; dog bark@0.5-0.9:-6dB,4.0-4.4'"
# Possessive quantifiers (`++`) give nothing back: no input makes a match try twice. ASCII alone, so
# that neither other digits nor letters that fold to these ('\u0131nf') are numbers.
_NUMBER = r'[-+]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:e[-+]?+[0-9]++)?+'
_VALUE = rf'({_NUMBER}|[-+]?+(?:nan|inf))'  # what is no time fails later
_SPAN = re.compile(
    rf'\s*+{_VALUE}\s*+s?+\s*+-\s*+{_VALUE}\s*+s?+\s*+(?::\s*+{_VALUE}\s*+db\s*+)?+',
    re.IGNORECASE | re.ASCII,
)
# A time after '@': what follows may be any dash or word for 'to', or nothing.
_TIME_IN_TEXT = re.compile(rf'@\s*+{_NUMBER}', re.IGNORECASE | re.ASCII)


@dataclasses.dataclass(frozen=True)
class Event:
    """One sound and its place; checked when it enters a timeline (`Timeline.parse`).

    Attributes:
        text: what sounds, in English.
        onset_s: start, in seconds from the start of the clip, 0 or more.
        offset_s: end, in seconds, after the onset and within the clip.
        gain_db: level against the usual one for such a sound, -24 to 6 dB.
    """

    text: str
    onset_s: float | int
    offset_s: float | int
    gain_db: float | int = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Timeline:
    """The events of one clip, in the order given, and optionally its loudness over time.

    Attributes:
        events: the events; made by `parse` they are known to fit the clip.
        loudness_db: None, or the level wanted in each latent frame (25 per second), float32 [L],
            -80 to 0 dB relative to full scale.
        curves: further curves by name, one of `CURVES`, Hz in each latent frame, float32 [L], NaN
            where none is wanted.
    """

    events: tuple[Event, ...] = ()
    loudness_db: np.ndarray | None = None
    curves: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @classmethod
    def parse(
        cls,
        spec: Any,
        seconds: Any,
        max_events: int = MAX_EVENTS,
        loudness_db: Any = None,
        curves: Any = None,
        curves_may_end: bool = False,
    ) -> 'Timeline':
        """Reads a timeline in any of its forms and checks it against the clip.

        Args:
            spec: a string in the short form or JSON; a sequence of Event, mapping or tuple
                (text, onset_s, offset_s[, gain_db]); a mapping with 'events', 'loudness_db' and
                'curves'; a Timeline; or None.
            seconds: length of the clip, a number of seconds up to 86,400.
            max_events: how many events the clip may hold.
            loudness_db: a curve of round(25 seconds) values in dB, if `spec` carries none.
            curves: further curves by name, of the same length, in Hz or None, if `spec` has none.
            curves_may_end: whether curves may be shorter than the clip.

        Returns:
            The timeline, its times and gains as floats and its texts without outer spaces.

        Raises:
            ValueError: anything wrong, in one line naming the event and the remedy.
        """
        seconds = _clip_seconds(seconds)
        entries, curve, further = _entries(spec)
        if curve is not None and loudness_db is not None:
            raise ValueError('loudness_db is given twice: keep the one in events or the other')
        if further and curves:
            raise ValueError('curves are given twice: keep those in events or the others')
        _check_count(entries, max_events)
        events = tuple(_checked(i, entry, seconds) for i, entry in enumerate(entries, 1))
        loudness = loudness_db if curve is None else curve
        if loudness is not None:
            limits = MIN_LOUDNESS_DB, MAX_LOUDNESS_DB
            loudness = _curve('loudness_db', loudness, seconds, limits, 'dB', curves_may_end)
        return cls(events, loudness, _curves(further or curves, seconds, curves_may_end))

    def to_string(self) -> str:
        """The timeline in the short form; neighbouring events of one text share it.

        Raises:
            ValueError: the short form cannot carry this timeline; `to_json` can.
        """
        if self.loudness_db is not None or self.curves:
            what = 'curves' if self.loudness_db is None else 'loudness curve'
            raise ValueError(f'the short form carries no {what}: use to_json')
        parts = []
        for text, group in itertools.groupby(self.events, lambda event: event.text):
            if ';' in text or text[:1] in ('[', '{'):
                raise ValueError(f'the short form cannot carry the text {text!r}: use to_json')
            parts.append(f'{text}@{",".join(_span(event) for event in group)}')
        return '; '.join(parts)

    def to_json(self) -> str:
        """The timeline as JSON: a list of events, or an object of events and curves."""
        events = [dataclasses.asdict(event) for event in self.events]
        parts = {}
        if self.loudness_db is not None:
            parts['loudness_db'] = self.loudness_db.tolist()
        if self.curves:
            parts['curves'] = {
                name: [None if np.isnan(x) else x for x in curve.tolist()]
                for name, curve in self.curves.items()
            }
        return json.dumps({'events': events} | parts if parts else events)

    def arrays(self, max_events: int = MAX_EVENTS) -> dict[str, np.ndarray]:
        """Times and gains of the events as arrays, padded to a fixed size.

        Returns:
            onset_s, offset_s (seconds) and gain_db (dB), float32 [E], and mask, bool [E], which is
            True for events; the padding holds 0 and False.

        Raises:
            ValueError: more events than `max_events`.
        """
        _check_count(self.events, max_events)
        padded = {
            name: np.zeros(max_events, np.float32) for name in ('onset_s', 'offset_s', 'gain_db')
        }
        for name, values in padded.items():
            values[: len(self.events)] = [getattr(event, name) for event in self.events]
        return {**padded, 'mask': np.arange(max_events) < len(self.events)}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Timeline):
            return NotImplemented
        if self.curves.keys() != other.curves.keys() or self.events != other.events:
            return False
        for name, curve in self.curves.items():
            if not np.array_equal(curve, other.curves[name], equal_nan=True):
                return False
        curves = [t.loudness_db for t in (self, other)]
        if any(curve is None for curve in curves):
            return curves[0] is curves[1]
        return np.array_equal(*curves)

    __hash__ = None


def _clip_seconds(seconds: Any) -> float:
    """The length of a clip as a float, checked."""
    if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real):
        raise ValueError(f'the clip length is {shown(seconds)}: give a number of seconds')
    if not 0 < seconds <= MAX_CLIP_SECONDS:  # NaN compares false
        raise ValueError(
            f'the clip length must be above 0 seconds and at most {MAX_CLIP_SECONDS:g}, not '
            f'{shown(seconds)}'
        )
    return float(seconds)


def _entries(spec: Any) -> tuple[Sequence, Any, Any]:
    """The raw entries of any form, and the loudness and further curves it carries, or None."""
    if isinstance(spec, str):
        spec = _from_text(spec)
    if not isinstance(spec, Mapping):
        return _entry_list(spec)
    unknown = sorted(map(str, spec.keys() - {'events', 'loudness_db', 'curves'}))
    if unknown:
        raise ValueError(
            f'events have the unknown part {shown(unknown[0])}: use events, '
            'loudness_db and curves, or a list of events'
        )
    events = spec.get('events')
    entries, curve, further = _entry_list(_from_text(events) if isinstance(events, str) else events)
    if curve is not None and spec.get('loudness_db') is not None:
        raise ValueError('loudness_db is given twice: keep one of the two')
    if further and spec.get('curves'):
        raise ValueError('curves are given twice: keep one of the two')
    loudness = spec.get('loudness_db') if curve is None else curve
    return entries, loudness, further or spec.get('curves')


def _entry_list(spec: Any) -> tuple[Sequence, Any, Any]:
    """The raw entries of what is neither text nor a mapping, and a timeline's own curves."""
    if spec is None:
        return [], None, None
    if isinstance(spec, Timeline):
        return spec.events, spec.loudness_db, spec.curves
    if isinstance(spec, Sequence) and not isinstance(spec, (str, bytes)):
        return spec, None, None
    raise ValueError(f'events are of type {type(spec).__name__}: pass a list, JSON or {_EXAMPLE}')


def _from_text(spec: str) -> Any:
    """What JSON holds, or the entries of the short form."""
    if len(spec) > MAX_CHARACTERS:
        raise ValueError(
            f'events are {len(spec):,} characters long: a clip needs at most {MAX_CHARACTERS:,}'
        )
    spec = spec.strip()
    if not spec.startswith(('[', '{')):
        return _short_form(spec)
    try:
        return json.loads(spec)
    except RecursionError:
        reason = 'it is nested too deeply'
    except ValueError as error:  # JSONDecodeError, and a number of over 4,300 digits
        reason = str(error).splitlines()[0][: 2 * _SHOWN]
    raise ValueError(
        f'events look like JSON but are not ({reason}): correct them, or write {_EXAMPLE}'
    )


def _short_form(spec: str) -> list[tuple]:
    """Entries (text, onset, offset, gain) of the short form, their numbers not yet checked."""
    entries = []
    for part in spec.split(';'):
        if not part.strip():
            continue  # nothing at all, or a trailing ';'
        text, at, spans = part.strip().rpartition('@')
        for span in spans.split(','):
            match = _SPAN.fullmatch(span) if at else None
            if match is None:
                wrong = f'{shown(span.strip())} is no time span' if at else "it has no '@'"
                name = _name(len(entries) + 1, text.rstrip() or part.strip())
                raise ValueError(
                    f'{name} cannot be read, as {wrong}: write text@onset-offset or '
                    f'text@onset-offset:gaindB in seconds and dB, such as {_EXAMPLE}'
                )
            onset, offset, gain = match.groups()
            entries.append((text.rstrip(), float(onset), float(offset), float(gain or 0)))
    return entries


def _fields(index: int, entry: Any) -> dict[str, Any]:
    """The four values of an entry, whichever form it has."""
    names = [field.name for field in dataclasses.fields(Event)]
    if isinstance(entry, Event):
        entry = dataclasses.asdict(entry)
    if isinstance(entry, (tuple, list)) and 3 <= len(entry) <= 4:
        entry = dict(zip(names, entry, strict=False))
    if not isinstance(entry, Mapping):
        raise ValueError(
            f'{_name(index, entry)} is no event: pass an Event, a mapping with {", ".join(names)}, '
            'or a tuple (text, onset_s, offset_s[, gain_db])'
        )
    name = _name(index, entry.get('text', '?'))
    for key in entry:
        if key not in names:
            raise ValueError(f'{name} has the unknown field {shown(key)}: use {", ".join(names)}')
    for key in names[:3]:
        if key not in entry:
            raise ValueError(f"{name} lacks the field '{key}': add it")
    return {'gain_db': 0.0, **entry}


def _checked(index: int, entry: Any, seconds: float) -> Event:
    """The event of an entry, or the error that says what is wrong with it."""
    fields = _fields(index, entry)
    text = fields.pop('text')
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'{_name(index, text)} has no text: say what sounds, such as "dog bark"')
    text = text.strip()
    name = _name(index, text)
    if len(text) > MAX_TEXT:
        raise ValueError(f'{name} has a text of {len(text):,} characters: keep to {MAX_TEXT:,}')
    if (time := _TIME_IN_TEXT.search(text)) is not None:
        raise ValueError(
            f'{name} holds the time {shown(text[time.start() :])}: write onset-offset after '
            f'@ and put a semicolon between two sounds, as in {_EXAMPLE}'
        )
    for key, value in fields.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise ValueError(f'{name} has {key} = {shown(value)}: give a number')
        if not abs(value) < 1e9:  # NaN compares false; more is no time and no level
            raise ValueError(f'{name} has {key} = {shown(value)}: give a finite number')
    event = Event(text, **{key: float(value) for key, value in fields.items()})
    times = f'{event.onset_s:g} to {event.offset_s:g} s'
    if event.onset_s < 0:
        raise ValueError(f'{name} starts before the clip ({times}): give an onset of 0 s or more')
    if event.offset_s <= event.onset_s:
        raise ValueError(f'{name} does not end after it starts ({times}): put the offset later')
    if event.offset_s > seconds + TOLERANCE_S:
        raise ValueError(
            f'{name} is outside the clip of {seconds:g} s ({times}): end it by {seconds:g} s or '
            'make the clip longer'
        )
    if not MIN_GAIN_DB <= event.gain_db <= MAX_GAIN_DB:
        raise ValueError(
            f'{name} has a gain of {event.gain_db:g} dB: '
            f'give one from {MIN_GAIN_DB:g} to {MAX_GAIN_DB:g} dB'
        )
    return event


def _check_count(entries: Sequence, max_events: int):
    if len(entries) > max_events:
        raise ValueError(
            f'{_name(max_events + 1, _text_of(entries[max_events]))} is one too many of '
            f'{len(entries)}: a clip holds {max_events} events, so remove some or split the clip'
        )


def _text_of(entry: Any) -> Any:
    """The text of an entry of any form, as far as it has one; for messages."""
    if isinstance(entry, Event):
        return entry.text
    if isinstance(entry, Mapping):
        return entry.get('text', '?')
    return entry[0] if isinstance(entry, (tuple, list)) and entry else entry


def _curves(given: Any, seconds: float, may_end: bool) -> dict[str, np.ndarray]:
    """Further curves by name as float32 [L] in Hz, NaN where none is wanted, checked."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(
            f'curves are of type {type(given).__name__}: give names ({", ".join(CURVES)}) and '
            'values'
        )
    for name in given:
        if name not in CURVES:
            raise ValueError(f'there is no curve {shown(name)}: give {", ".join(CURVES)}')
    return {
        name: _curve(name, values, seconds, CURVES[name], 'Hz', may_end, may_be_free=True)
        for name, values in given.items()
    }


def _curve(
    name: str,
    values: Any,
    seconds: float,
    limits: tuple[float, float],
    unit: str,
    may_end: bool,
    may_be_free: bool = False,
) -> np.ndarray:
    """A curve as float32 [L], checked; where frames may be free, None and NaN become NaN."""
    frames, (low, high) = round(seconds * LATENT_RATE), limits
    if hasattr(values, 'dtype'):
        values = np.asarray(values)
        shape = list(values.shape)
    elif isinstance(values, Sequence) and not isinstance(values, (str, bytes)):
        shape = [len(values)]  # not through NumPy, which reads text as numbers
    else:
        raise ValueError(f'{name} must hold numbers: give {frames} values in {unit}')
    count = f'1 to {frames}' if may_end else f'{frames}'
    if len(shape) != 1 or not (1 if may_end else frames) <= shape[0] <= frames:
        raise ValueError(
            f'{name} has shape {shape}: a clip of {seconds:g} s needs {count} values, '
            f'{LATENT_RATE} per second'
        )
    curve = np.full(shape[0], np.nan, np.float32)
    for index, value in enumerate(values):
        if value is None and may_be_free:
            continue
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number or not (low <= value <= high or (may_be_free and value != value)):
            free = ', or None where it is free' if may_be_free else ''
            raise ValueError(
                f'{name} is {shown(value)} at frame {index}: keep it from {low:g} to {high:g} '
                f'{unit}{free}'
            )
        curve[index] = value
    return curve


def _name(index: int, text: Any) -> str:
    """How messages name an event: its position, counted from 1, and its text."""
    return f'event {index} ({shown(text if isinstance(text, str) else shown(text))})'


_SHOWN = 40  # characters of a user's value in a message


def shown(value: Any) -> str:
    """A user's value as a message shows it: one line, cut, whatever it is."""
    if isinstance(value, str):
        return repr(value[:_SHOWN])
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        if isinstance(value, numbers.Integral) and abs(value) < 10**15:
            return str(value)
        try:
            return f'{float(value):g}'
        except OverflowError:  # and Python refuses to write more than 4,300 digits
            return 'a huge number'
    return ' '.join(reprlib.repr(value).split())[:_SHOWN]


def _span(event: Event) -> str:
    """The span of an event in the short form; every number reads back as the same float."""
    gain = f':{_decimal(event.gain_db)}dB' if event.gain_db else ''
    return f'{_decimal(event.onset_s)}-{_decimal(event.offset_s)}{gain}'


def _decimal(value: float) -> str:
    return np.format_float_positional(float(value), trim='-')
