"""Timelines: the three forms agree, round trips are exact, and every mistake is named."""

import json
import time

import numpy as np
import pytest

from realaudio_jax.timeline import Event, Timeline

EVENTS = (
    Event('gunshot', 2.3, 2.8, -6.0),
    Event('dog bark', 0.5, 0.9),
    Event('dog bark', 4.0, 4.4),
)
SHORT = 'gunshot@2.3-2.8:-6dB; dog bark@0.5-0.9,4-4.4'
DICTS = [
    {'text': 'gunshot', 'onset_s': 2.3, 'offset_s': 2.8, 'gain_db': -6},
    {'text': ' dog bark ', 'onset_s': 0.5, 'offset_s': 0.9},
    {'text': 'dog bark', 'onset_s': 4, 'offset_s': 4.4},
]


@pytest.mark.parametrize(
    'spec',
    [
        SHORT,
        '  gunshot @ 2.3s - 2.8 s : -6.0 DB ;dog bark@.5-.9 , 4.0-44e-1;',
        json.dumps(DICTS),
        json.dumps({'events': DICTS}),
        DICTS,
        {'events': SHORT},
        EVENTS,
        list(EVENTS),
        [('gunshot', 2.3, 2.8, -6), ['dog bark', 0.5, 0.9], EVENTS[2]],
        [('gunshot', np.float64(2.3), 2.8, np.int32(-6)), DICTS[1], DICTS[2]],
        Timeline(EVENTS),
    ],
)
def test_all_forms_say_the_same(spec):
    assert Timeline.parse(spec, 10).events == EVENTS


@pytest.mark.parametrize('spec', [None, '', '  ', ';', '[]', [], (), {}, Timeline()])
def test_nothing_is_no_events(spec):
    timeline = Timeline.parse(spec, 0.5)
    assert timeline == Timeline() and timeline.to_string() == '' and timeline.to_json() == '[]'
    assert not timeline.arrays()['mask'].any()


def test_the_short_form_written():
    assert Timeline.parse(DICTS, 10).to_string() == SHORT


def test_round_trips_are_exact_for_any_events():
    rng = np.random.default_rng(0)
    texts = ['dog bark', 'a@b', 'glass, then wood', 'kick: hard', "cat's 3-4 meows", 'Tür', 'x']
    for count in range(17):
        times = np.sort(rng.uniform(0, 10, (count, 2)), axis=1)
        gains = rng.choice([0.0, -24.0, 6.0, rng.normal()], count)
        events = [
            (str(rng.choice(texts)), onset * 10.0 ** -rng.integers(9), offset, gain)
            for (onset, offset), gain in zip(times, gains, strict=True)
        ]
        timeline = Timeline.parse(events, 10)
        assert [tuple(vars(event).values()) for event in timeline.events] == events
        assert Timeline.parse(timeline.to_string(), 10) == timeline
        assert Timeline.parse(timeline.to_json(), 10) == timeline
        assert Timeline.parse(timeline, 10) == timeline
        with_curve = Timeline.parse(events, 0.28 + 10, loudness_db=rng.uniform(-80, 0, 257))
        assert Timeline.parse(with_curve.to_json(), 10.28) == with_curve != timeline


def test_texts_beyond_the_short_form_go_through_json():
    for text in ('rain; wind', '[noise]', '{x}'):
        timeline = Timeline.parse([(text, 1, 2)], 10)
        assert Timeline.parse(timeline.to_json(), 10) == timeline
        with pytest.raises(ValueError, match='use to_json'):
            timeline.to_string()
    with pytest.raises(ValueError, match='no loudness curve: use to_json'):
        Timeline((), np.zeros(5)).to_string()


def test_arrays_are_padded():
    arrays = Timeline.parse(SHORT, 10).arrays(5)
    expected = {
        'onset_s': [2.3, 0.5, 4.0, 0, 0],
        'offset_s': [2.8, 0.9, 4.4, 0, 0],
        'gain_db': [-6, 0, 0, 0, 0],
        'mask': [True, True, True, False, False],
    }
    assert arrays.keys() == expected.keys()
    for name, values in expected.items():
        assert arrays[name].dtype == (bool if name == 'mask' else np.float32)
        np.testing.assert_array_equal(arrays[name], np.asarray(values, arrays[name].dtype))
    with pytest.raises(ValueError, match=r"event 3 \('dog bark'\) is one too many of 3.*holds 2"):
        Timeline.parse(SHORT, 10).arrays(2)


def _second(**changes):
    return [DICTS[0], {'text': 'bell', 'onset_s': 1.0, 'offset_s': 2.0, **changes}]


BELL = r"event 2 \('bell'\)"
MISTAKES = {
    'offset before onset': ('a@1-2; bell@3-2', rf'{BELL} does not end after.*3 to 2 s.*later'),
    'no length': (_second(offset_s=1.0), rf'{BELL} does not end after'),
    'outside': ('a@1-2;bell@9-12', rf'{BELL} is outside the clip of 10 s.*9 to 12 s.*by 10 s'),
    'just outside': (_second(offset_s=10.001), rf'{BELL} is outside the clip'),
    'far outside': (_second(onset_s=20, offset_s=21), rf'{BELL} is outside.*20 to 21 s'),
    'negative': ('a@1-2;bell@-1-2', rf'{BELL} starts before the clip.*0 s or more'),
    'nan': (_second(onset_s=float('nan')), rf'{BELL} has onset_s = nan: give a finite number'),
    'inf': ('a@1-2;bell@1-inf', rf'{BELL} has offset_s = inf: give a finite'),
    'nan in JSON': ('[["a",1,2],["bell",1,2,NaN]]', rf'{BELL} has gain_db = nan'),
    'huge integer': (_second(offset_s=10**400), rf'{BELL} has offset_s = a huge number'),
    'too many': ('bell@' + ','.join(['1-2'] * 17), r"event 17 \('bell'\) is one too many of 17"),
    'no text': ('a@1-2; @1-2', r"event 2 \(''\) has no text: say what sounds"),
    'blank text': (_second(text='  '), 'event 2 .* has no text'),
    'text no string': (_second(text=3), r"event 2 \('3'\) has no text"),
    'no @': ('a@1-2; bell', rf"{BELL} cannot be read, as it has no '@': write text@onset-offset"),
    'no span': ('a@1-2;bell@3', rf"{BELL} cannot be read, as '3' is no time span"),
    'empty span': ('a@1-2;bell@', rf"{BELL} cannot be read, as '' is no time span"),
    'words': ('a@1-2;bell@one-two', rf"{BELL} cannot be read, as 'one-two' is no time span"),
    'gain with no unit': ('a@1-2;bell@1-2:-6', rf"{BELL} cannot be read, as '1-2:-6'"),
    'last of spans': ('bell@1-2,3-', r"event 2 \('bell'\) cannot be read, as '3-'"),
    'loud': ('a@1-2;bell@1-2:+6.5dB', rf'{BELL} has a gain of 6.5 dB: give one from -24 to 6 dB'),
    'faint': (_second(gain_db=-25), rf'{BELL} has a gain of -25 dB'),
    'not JSON': ('[{"text": "bell", ]', r'look like JSON but are not \(.*column'),
    'string for number': (_second(onset_s='1'), rf"{BELL} has onset_s = '1': give a number"),
    'bool for number': (_second(onset_s=True), rf'{BELL} has onset_s = True: give a number'),
    'unknown field': (_second(onset=1), rf"{BELL} has the unknown field 'onset': use text, ons"),
    'missing field': (['a@1-2'], r"event 1 \('a@1-2'\) is no event: pass an Event"),
    'missing offset': ([{'text': 'bell', 'onset_s': 1}], r"event 1.*lacks the field 'offset_s'"),
    'short tuple': ([('bell', 1)], 'event 1 .* is no event'),
    'span in a text': (
        'a@1-2, bell@3-4',
        r"event 1 \('a@1-2, bell'\) holds the time '@1-2.*;",
    ),
    'no semicolon': ('a@1-2 bell@3-4', 'event 1 .* put a semicolon between two sounds'),
    'span in JSON': ([('bell @ .5s-2', 1, 2)], "event 1.*holds the time '@ .5s-2'"),
    'span with a dash of print': (
        'bell@0.2\N{EN DASH}0.5, dog bark@1.5-1.8',
        "event 1.*holds the time '@0.2.*semicolon",
    ),
    'span in words': ('bell @ 0.2 to 0.5, dog bark@1.5-1.8', "event 1.*holds the time '@ 0.2 to"),
    'onset alone': ('bell@0.2, dog bark@1.5-1.8', "event 1.*holds the time '@0.2, dog.*onset-off"),
    'dotless i': ('a@1-2;bell@1-\u0131nf', rf"{BELL} cannot be read, as '1-\u0131nf' is no time"),
    'other digits': ('a@1-2;bell@\u0661-\u0662', rf'{BELL} cannot be read'),
    'underscores': ('a@1-2;bell@1_0-2', rf"{BELL} cannot be read, as '1_0-2' is no time span"),
    'a million characters': ('x' * 10**6, 'events are 1,000,000 characters long: .*100,000'),
    'a long text': ([('x' * 2000, 1, 2)], "event 1 .'x{40}'. has a text of 2,000 characters"),
    'deep JSON': ('[' * 90_000, r'look like JSON but are not \(it is nested too deeply'),
    'digits in JSON': ('[["a",1,' + '9' * 9_000 + ']]', 'are not .Exceeds the limit'),
    'digits': ('a@1-' + '9' * 9_000, "event 1 .'a'. has offset_s = inf: give a finite number"),
    'events in events': ({'events': {'events': []}}, 'events are of type dict: pass a list'),
    'two million': ([('bell', 1, 2)] * 2_000_000, "event 17 .'bell'. is one too many of 2000000"),
    'one event': (DICTS[0], "unknown part 'gain_db'.*a list of events"),
    'number': (7, 'events are of type int: pass a list'),
    'JSON number': ('{"events": 7}', 'events are of type int: pass a list'),
}


@pytest.mark.parametrize('spec, message', MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_named_with_their_remedy(spec, message):
    with pytest.raises(ValueError, match=message) as error:
        Timeline.parse(spec, 10)
    assert '\n' not in str(error.value) and len(str(error.value)) < 260


def test_the_end_of_the_clip_is_inside():
    assert Timeline.parse('a@0-0.3', 0.1 + 0.1 + 0.1).events[0].offset_s == 0.3
    assert Timeline.parse('a@0-0.30000000000000004', 0.3).events
    for seconds in (0, -1, float('nan'), float('inf')):
        with pytest.raises(ValueError, match='clip length must be above 0'):
            Timeline.parse('', seconds)
    for seconds in (1e308, 10**5000, 86_401):
        with pytest.raises(ValueError, match='at most 86400'):
            Timeline.parse('', seconds)
    for seconds in (None, '5', True, [5]):
        with pytest.raises(ValueError, match='clip length is .*: give a number of seconds'):
            Timeline.parse('', seconds)


def test_loudness_curves_are_checked():
    frames = 70  # 2.8 s
    curve = np.linspace(-80, 0, frames)
    for spec, argument in ((None, curve), ({'loudness_db': curve.tolist()}, None)):
        got = Timeline.parse(spec, 2.8, loudness_db=argument).loudness_db
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, curve.astype(np.float32))
    wrong = {
        'a clip of 2.8 s needs 70 values, 25 per second': curve[:-1],
        'shape .*needs 70 values': curve[None],
        'is nan at frame 3: keep it from -80 to 0 dB': np.where(np.arange(70) == 3, np.nan, curve),
        'is 0.5 at frame 69': np.where(np.arange(70) == 69, 0.5, curve),
        'is -81 at frame 2: keep it from': np.where(np.arange(70) == 2, -81, curve),
        'is -inf at frame 0': np.where(np.arange(70) == 0, -np.inf, curve),
        "is 'loud' at frame 0: keep it from": ['loud'] * 70,
        "is '1_0' at frame 0": ['1_0'] * 70,  # NumPy reads it as 10
        'must hold numbers: give 70 values in dB': 'x' * 70,
        'is a huge number at frame 0': [10**400] * 70,
        'is .*j.* at frame 0': np.full(70, 1j),
    }
    for message, values in wrong.items():
        with pytest.raises(ValueError, match=message):
            Timeline.parse(None, 2.8, loudness_db=values)
    with pytest.raises(ValueError, match='given twice'):
        Timeline.parse({'loudness_db': curve.tolist()}, 2.8, loudness_db=curve)


@pytest.mark.parametrize(
    'spec',
    [
        'a@' + '1' * 30_000 + '-' + '1' * 30_000 + ':' + '1' * 30_000 + 'x',
        'a@1-2' + ' ' * 90_000 + 'x',
        'a@1' + ' ' * 45_000 + '-' + ' ' * 45_000 + 'x',
        '@ ' * 45_000 + 'x',
        'a@' * 45_000 + '1-2',
        'a@1-2,' * 15_000,
        ';' * 90_000,
    ],
    ids=range(7),
)
def test_reading_takes_time_in_proportion_to_the_length(spec):
    begin = time.process_time()
    try:
        Timeline.parse(spec, 10)
    except ValueError as error:
        assert len(str(error)) < 260
    assert time.process_time() - begin < 0.5  # backtracking would take minutes


def test_a_curve_in_nested_events_is_never_lost():
    curve = np.full(70, -9.0, np.float32)
    inner = Timeline.parse('bell@1-2', 2.8, loudness_db=curve)
    assert Timeline.parse({'events': inner}, 2.8) == inner
    with pytest.raises(ValueError, match='given twice'):
        Timeline.parse({'events': inner, 'loudness_db': curve}, 2.8)


def test_timelines_with_curves_compare():
    a, b = (Timeline(EVENTS, np.full(3, level)) for level in (-10.0, -20.0))
    assert a == Timeline(EVENTS, np.full(3, -10.0)) and a != b and a != Timeline(EVENTS) and a != 1


def test_further_curves_travel_in_every_form_and_come_back():
    curves = {'brightness': [1000.0] * 25, 'pitch': [None, 440.0] + [None] * 23}
    timeline = Timeline.parse('a@0-1', 1.0, curves=curves)
    assert timeline.curves['pitch'][1] == 440.0 and np.isnan(timeline.curves['pitch'][2:]).all()
    again = Timeline.parse(timeline.to_json(), 1.0)
    assert again == timeline and Timeline.parse(again, 1.0) == timeline
    assert Timeline.parse({'events': 'a@0-1', 'curves': curves}, 1.0) == timeline
    assert timeline != Timeline.parse('a@0-1', 1.0)
    other = Timeline.parse('a@0-1', 1.0, curves=curves | {'brightness': [999.0] * 25})
    assert timeline != other
    with pytest.raises(ValueError, match='to_json'):
        timeline.to_string()


@pytest.mark.parametrize(
    ('curves', 'message'),
    [
        ({'tone': [1.0] * 25}, "no curve 'tone': give brightness, pitch"),
        ({'pitch': [440.0] * 24}, r'pitch has shape \[24\]: a clip of 1 s needs 25 values'),
        ({'pitch': [440.0] * 24 + [9e9]}, 'pitch is 9e.09 at frame 24: keep it from 20 to 8000 Hz'),
        ({'pitch': ['x'] * 25}, "pitch is 'x' at frame 0"),
        ({'pitch': 'x' * 25}, 'must hold numbers'),
        ({'pitch': 440.0}, 'must hold numbers'),
        ({'brightness': [True] * 25}, 'brightness is True at frame 0'),
        ([1.0], 'curves are of type list'),
    ],
)
def test_a_wrong_curve_is_one_line(curves, message):
    for arguments in ({'spec': None, 'curves': curves}, {'spec': {'curves': curves}}):
        with pytest.raises(ValueError, match=message) as raised:
            Timeline.parse(arguments['spec'], 1.0, curves=arguments.get('curves'))
        assert '\n' not in str(raised.value)


def test_curves_are_given_once():
    curves = {'pitch': [440.0] * 25}
    with pytest.raises(ValueError, match='curves are given twice'):
        Timeline.parse({'curves': curves}, 1.0, curves=curves)
