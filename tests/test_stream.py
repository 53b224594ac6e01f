"""Sound of any length: chunks are the whole, edits are heard from the next hop on, loops close."""

import dataclasses
import itertools
import math
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax import longform, samplers, stream
from realaudio_jax.generator import Generator
from realaudio_jax.longform import AHEAD, BEFORE, SETTLE, Place, Schedule
from realaudio_jax.models.denoiser import PATH
from realaudio_jax.noise import time_grid
from realaudio_jax.program import TEXT_SIZES, encode_texts
from realaudio_jax.stream import (
    LongCall,
    Maker,
    check_edit,
    make_loop,
    make_sound,
    window_timeline,
)
from realaudio_jax.timeline import Event, Timeline
from realaudio_jax.typing import LATENT_CHANNELS

SMALL = Schedule(window=60, hop=10, context=34, swap=6, tail=4)
STEP = 1  # of 16 bits, where programs of different shapes are compared
SHORT = {'steps': 1, 'schedule': SMALL}
PER_FRAME = 1920


@pytest.fixture(scope='module')
def generator(tiny_release):
    return Generator(tiny_release, log=lambda line: None)


def maker_of(generator, **given):
    call = LongCall(**{'prompt': 'rain', 'steps': 1, 'schedule': SMALL, **given})
    return Maker(generator.programs, generator.tokenizer, generator.config, call), call.timelines[0]


def joined(chunks):
    return np.concatenate([chunk.pcm for chunk in chunks])


@pytest.fixture(scope='module')
def rain(generator):
    """3 s of it."""
    return joined(generator.stream('rain', 'dog@1.5-2:-6dB', seconds=3.0, seed=3, **SHORT))


def test_chunks_follow_each_other_and_end_with_the_sound(generator, rain):
    chunks = list(generator.stream('rain', 'dog@1.5-2:-6dB', seconds=3.0, seed=3, **SHORT))
    assert [chunk.start for chunk in chunks[1:]] == [
        chunk.start + len(chunk.pcm) for chunk in chunks[:-1]
    ]
    assert chunks[0].start == 0 and rain.shape == (3 * 48_000, 2) and rain.dtype == np.int16
    np.testing.assert_array_equal(joined(chunks), rain)  # same seed, same sound
    assert chunks[1].seconds == SMALL.hop / 25 and np.abs(rain).max() > 100
    assert sum(len(chunk.power) for chunk in chunks) >= 30
    other = joined(generator.stream('rain', 'dog@1.5-2:-6dB', seconds=3.0, seed=4, **SHORT))
    assert np.abs(other.astype(int) - rain).max() > 100


def test_a_stream_is_the_sound_made_at_once(generator, rain):
    maker, timeline = maker_of(generator, events='dog@1.5-2:-6dB', seconds=3.0, seed=3)
    made = make_sound(maker, timeline, 3.0)
    np.testing.assert_array_equal(made.pcm, rain)
    assert made.latents.shape == (76, LATENT_CHANNELS) and made.lufs > -70
    assert np.abs(made.latents[-1]).max() > 0


def test_chunks_side_by_side_are_one_chunk(generator):
    """The decoder, the gains of events, offset and limiter, in chunks of 10 frames and of 40."""
    maker, timeline = maker_of(generator, events='dog@0.5-0.9:-12dB', seconds=2.0, loudness=None)
    latents = np.random.default_rng(0).normal(size=(74, LATENT_CHANNELS)).astype(np.float32)

    def made(hop):
        carry, pcm = longform.first_carry(1, 48_000), []
        for first in range(0, 50, hop):
            frames = first - BEFORE + np.arange(BEFORE + hop + AHEAD)
            place = Place(
                frames=frames.astype(np.int32),
                inside=frames >= 0,
                is_first=np.bool_(first == 0),
                since=np.int32(first * PER_FRAME),
                left=np.int32(2**30),
                fade_out_s=np.full(1, 0.02, np.float32),
                gain_db=np.full(1, 9.0, np.float32),
            )
            part = window_timeline(timeline, first - BEFORE, len(frames))
            given = np.where(frames[:, None] >= 0, latents[np.maximum(frames, 0)], 0)
            out, _, carry = maker.chunk(given.astype(np.float32), part, place, carry)
            pcm.append(out)
        return np.concatenate(pcm).astype(int)[SETTLE * PER_FRAME :]

    whole, parts = made(50), made(10)
    assert len(whole) == len(parts) == 40 * PER_FRAME and np.abs(whole).max() > 300
    assert np.abs(whole - parts).max() <= STEP


def test_what_is_held_does_not_grow(generator):
    endless = generator.stream('rain', seed=3, **SHORT)
    sizes = []
    for chunk in itertools.islice(endless, 8):
        sizes.append(len(endless.latents))
        assert len(chunk.pcm) == SMALL.hop * PER_FRAME
    assert sizes[-1] == sizes[-3] == max(SMALL.context, BEFORE + SMALL.hop + AHEAD)


def test_the_first_window_is_heard_at_once(generator):
    """However short the hop: a chunk settles `SETTLE` frames after it is decoded."""
    for hop in (5, 10):
        schedule = dataclasses.replace(SMALL, hop=hop)
        stream = generator.stream('rain', steps=1, schedule=schedule)
        with mock.patch.object(stream._maker, 'window', wraps=stream._maker.window) as window:
            chunk = next(stream)
        assert window.call_count == 1 and chunk.start == 0
        assert len(chunk.pcm) == hop * PER_FRAME


def test_a_text_is_encoded_once_for_all_streams(generator):
    """As the program of up to 10 s encodes it, short or long."""
    long = 'a dog barks twice at a cat that sits on the roof of a shed in the rain at night'
    programs = generator.programs.with_params({})
    for prompt, fresh in (('rain', 4), (long, 1), ('rain', 0)):  # with dog, wind and no event
        maker, timeline = maker_of(
            generator, prompt=prompt, events='dog@0.5-1; wind@1-2; dog@1.5-2', seconds=3.0
        )
        request = maker.request(timeline, 60, 2.4)
        wanted = encode_texts(programs.networks, programs.params, jax.device_put(request))
        before = programs._texts.cache_info().misses or len(TEXT_SIZES)  # one of each
        texts = programs.encoded_texts(request)
        np.testing.assert_allclose(texts.prompt, wanted.prompt, atol=1e-5)
        np.testing.assert_allclose(texts.events, wanted.events, atol=1e-5)
        assert np.abs(texts.events[0, 0] - texts.events[0, 1]).max() > 1e-2
        assert programs._texts.cache_info().misses - before == fresh
    other = programs.with_params({'text_encoder': programs.params['text_encoder']})
    assert not other._texts.cache_info().currsize  # what other parameters would encode


def test_an_edit_is_heard_from_the_next_hop_on(generator):
    def play(edits):
        playing, pcm = generator.stream('rain', seconds=4.0, seed=3, **SHORT), []
        for index, chunk in enumerate(playing):
            pcm.append(chunk.pcm)
            if index == 2 and edits:
                play.at = playing.editable_s
                playing.edit([('dog', play.at, play.at + 0.4)])
        return np.concatenate(pcm).astype(int)

    plain, edited = play(False), play(True)
    at = round(play.at * 48_000)
    differs = np.flatnonzero(np.abs(plain - edited).max(axis=1) > STEP)
    # The decoder reaches ahead by half its AHEAD frames at most, the level by 100 ms.
    assert at - AHEAD * PER_FRAME < differs[0] < at + SMALL.hop * PER_FRAME


def test_edits_of_the_past_are_refused(generator):
    playing = generator.stream('rain', 'dog@0.2-0.4; wind@0-3', seconds=4.0, **SHORT)
    next(playing)
    at = playing.editable_s
    for events, message in (
        ('dog@0.3-0.4; wind@0-3', "the edit changes 'dog' at 0.3 to 0.4 s, which is already made"),
        ('wind@0-3', "the edit removes 'dog' at 0.2 to 0.4 s, which is already made"),
        (f'dog@0.2-0.4; wind@0-{at - 0.1:.2f}', "the edit changes 'wind'"),
        ('dog@3-5', 'outside the clip of 4 s'),
    ):
        with pytest.raises(ValueError, match=message) as error:
            playing.edit(events)
        assert '\n' not in str(error.value)
    playing.edit(f'dog@0.2-0.4; wind@0-{at + 0.5:.2f}; dog@{at:.2f}-3')  # what is to come may
    assert len(playing.timeline.events) == 3


def test_an_edit_of_events_keeps_the_curves(generator):
    loudness, pitch = np.linspace(-40, -20, 100), [None] * 50 + [440.0] * 50
    made = generator.stream('rain', seconds=4.0, loudness_db=loudness, **SHORT)
    made._timeline.curves['pitch'] = np.float32(pitch)  # this network knows none
    next(made)
    made._maker.curves = ('pitch',)
    made.edit('dog@2-3')
    assert [event.text for event in made.timeline.events] == ['dog']
    np.testing.assert_array_equal(made.timeline.loudness_db, np.float32(loudness))
    np.testing.assert_array_equal(made.timeline.curves['pitch'], np.float32(pitch))
    quieter = np.where(np.arange(100) < 60, loudness, -60.0)
    made.edit({'events': 'dog@2-3', 'loudness_db': quieter})
    assert made.timeline.loudness_db[99] == -60 and 'pitch' in made.timeline.curves
    frames = round(25 * made.editable_s)
    for curve in ({'loudness_db': loudness - 1}, {'curves': {'pitch': [440.0] * 100}}):
        with pytest.raises(ValueError, match=f'before .* s, .* keep its first {frames} values'):
            made.edit({'events': 'dog@2-3', **curve})
    made.edit({'events': 'dog@2-3', 'loudness_db': None, 'curves': None})
    assert made.timeline.loudness_db is None and not made.timeline.curves
    with pytest.raises(ValueError, match=f'changes pitch .* first {frames} values, None'):
        made.edit({'events': [], 'curves': {'pitch': pitch[:20] + [440.0] * 80}})
    made.edit({'events': [], 'curves': {'pitch': pitch}, 'loudness_db': loudness})
    assert made.timeline.curves['pitch'][60] == 440 and made.timeline.loudness_db is not None


def test_an_edit_takes_only_curves_that_the_release_follows(generator):
    made = generator.stream('rain', seconds=4.0, **SHORT)
    with pytest.raises(ValueError, match="has no curve 'pitch'"):
        made.edit({'events': [], 'curves': {'pitch': [440.0] * 100}})
    assert not made.timeline.curves


def test_curves_of_a_sound_without_end_may_be_short(generator):
    made = generator.stream('rain', loudness_db=np.array([-30.0] * 10 + [-40.0]), **SHORT)
    made.edit({'events': [], 'loudness_db': [-30.0] * 10 + [-40.0] * 40})
    made._begun = 40  # it has held its last value
    made.edit({'events': [], 'loudness_db': [-30.0] * 10 + [-40.0] * 30 + [-50.0]})
    assert (
        window_timeline(made.timeline, 30, 20).loudness_db.tolist() == [-40.0] * 10 + [-50.0] * 10
    )
    for curve, message in (
        ([-30.0] * 10 + [-40.0] * 10 + [-50.0], 'keep its first 40 values'),
        ([], 'needs 1 to 2160000 values'),
    ):
        with pytest.raises(ValueError, match=message):
            made.edit({'events': [], 'loudness_db': curve})


def test_a_chunk_that_failed_is_made_when_it_is_asked_for_again(generator, rain, monkeypatch):
    made = generator.stream('rain', 'dog@1.5-2:-6dB', seconds=3.0, seed=3, **SHORT)
    pcm = [next(made).pcm, next(made).pcm]
    for step in ('window', 'chunk'):
        with monkeypatch.context() as patch:
            patch.setattr(made._maker, step, lambda *args: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                next(made)
    np.testing.assert_array_equal(joined(made), rain[sum(map(len, pcm)) :])


def test_an_edit_keeps_what_began_and_goes_on():
    old = Timeline((Event('wind', 0.0, 9.0),))
    check_edit(old, Timeline((Event('wind', 0.0, 5.0), Event('dog', 5.0, 6.0))), 4.0)
    with pytest.raises(ValueError, match=r'edit what comes from 5\.5 s on'):
        check_edit(old, Timeline((Event('wind', 0.0, 5.0),)), 5.5)


def test_what_ended_a_window_ago_may_be_left_out():
    old = Timeline((Event('dog', 0.0, 1.0), Event('cat', 1.0, 2.0)))
    check_edit(old, Timeline((Event('cat', 1.0, 2.0),)), 11.5)
    with pytest.raises(ValueError, match="removes 'cat'"):
        check_edit(old, Timeline(()), 11.5)
    with pytest.raises(ValueError, match="changes 'dog'"):
        check_edit(old, Timeline((Event('dog', 0.0, 0.5), Event('cat', 1.0, 2.0))), 11.5)


def test_another_prompt_is_heard_from_the_next_hop_on(generator, rain):
    playing, pcm = generator.stream('rain', 'dog@1.5-2:-6dB', seconds=3.0, seed=3, **SHORT), []
    for index, chunk in enumerate(playing):
        pcm.append(chunk.pcm)
        if index == 1:
            at = playing.editable_s
            playing.edit(playing.timeline, 'wind')
    assert playing.prompt == 'wind'
    differs = np.flatnonzero(np.abs(np.concatenate(pcm).astype(int) - rain).max(axis=1) > STEP)
    assert differs[0] > round((at - AHEAD / 25) * 48_000)
    with pytest.raises(ValueError, match='characters'):
        playing.edit(playing.timeline, 'x' * 10**6)


def test_bad_input_is_refused_in_one_line(generator):
    for given, message in (
        ({'seconds': math.inf}, 'seconds is inf; choose 0.5 to 86400'),
        ({'seconds': 0.0}, 'seconds is 0; choose 0.5 to 86400'),
        ({'seconds': 0.0, 'loop': True}, 'seconds is 0; choose 0.5 to 86400'),
        ({'seconds': 12.0, 'events': 'dog@12-13'}, 'outside the clip of 12 s'),
        ({'seconds': 8.0, 'loop': True}, 'a loop of 8 s is shorter than a window; give 10 or more'),
        ({'seconds': 12.3, 'loop': True}, 'no multiple of 0.2 s; give 12.4'),
        ({'seconds': math.nan, 'loop': False}, 'seconds is nan; choose 0.5 to 86400'),
        ({'seconds': True, 'loop': False}, 'seconds is True; choose 0.5 to 86400'),
        ({'seconds': 10**400, 'loop': False}, 'seconds is a huge number; choose 0.5 to 86400'),
        (
            {'seconds': 12.0, 'init_audio': np.zeros((9, 2))},
            'init_audio is for sounds of up',
        ),
        (
            {'seconds': 12.0, 'sampler': 'ping_pong'},
            'sampler ping_pong is for sounds of up',
        ),
        (
            {'seconds': 60.0, 'events': [('dog', i / 2, i / 2 + 0.2) for i in range(40, 60)]},
            '20 events sound between 19.5 and 29.5 s: 10 s hold 16',
        ),
    ):
        stated = given if 'loop' in given or given['seconds'] not in (0,) else None
        make = generator.generate if stated else generator.stream
        with pytest.raises(ValueError, match=message) as error:
            make(**{'prompt': 'rain', **given})
        assert '\n' not in str(error.value)
    with pytest.raises(ValueError, match='multiple of 5'):
        Schedule(hop=12)
    for given, message in (
        ({'window': 60}, 'a hop of 25 .* does not fit: .* has 0 left; give a longer window'),
        ({'hop': 50}, 'a hop of 50 .* does not fit: .* has 25 left; give 5 to 25'),
        ({'window': 251}, 'window is 251 latent frames; give an even number'),
    ):
        with pytest.raises(ValueError, match=message):
            Schedule(**given)


def test_more_than_a_window_goes_through_windows(generator, monkeypatch):
    calls = []

    def made(maker, timeline, seconds):
        calls.append((maker.prompt, maker.seed, len(timeline.events), seconds))
        return stream.LongSound(np.zeros((5, 2), np.int16), -20.0, np.zeros((2, 64), np.float32))

    monkeypatch.setattr('realaudio_jax.generator.make_sound', made)
    events = [('dog', float(i), i + 0.5) for i in range(40)]
    given = (['rain', 'wind'], events, 300.0)
    sounds = generator.generate(*given, seed=5)
    assert calls == [('rain', 5, 40, 300.0), ('wind', 6, 40, 300.0)] and sounds[1].seed == 6
    prepared = generator.prepare(*given, seed=5)
    assert len(calls) == 2  # nothing is made
    again = generator.run(prepared)
    assert calls[2:] == calls[:2] and [sound.seed for sound in again] == [5, 6]


def test_the_part_of_a_timeline_in_a_window():
    curve = np.linspace(-40, -20, 100).astype(np.float32)
    events = Event('wind', 0.0, 4.0), Event('dog', 3.5, 3.9, -6.0)
    timeline = Timeline(events, curve)
    part = window_timeline(timeline, 75, 50)
    assert part.events == (Event('wind', 0.0, 1.0), Event('dog', 0.5, 3.9 - 3.0, -6.0))
    np.testing.assert_array_equal(part.loudness_db, [*curve[75:], *[curve[-1]] * 25])
    assert not window_timeline(timeline, 100, 50).events
    around = window_timeline(timeline, 75, 50, 100)  # comes round
    assert around.events == (
        Event('wind', 0.0, 1.0),
        Event('wind', 1.0, 2.0),
        Event('dog', 0.5, 3.9 - 3.0, -6.0),
    )
    np.testing.assert_array_equal(around.loudness_db, [*curve[75:], *curve[:25]])


def test_windows_go_over_into_each_other_token_by_token():
    kept = stream.swapped(40, 80)
    shares = kept.reshape(5, 16).mean(axis=1)
    assert shares[0] > 0.7 and shares[-1] < 0.3 and (np.diff(shares) <= 0).all()
    np.testing.assert_array_equal(kept[::2], kept[1::2])  # tokens are two frames
    later = stream.swapped(60, 80)[:60]  # of the next window: what was settled stays so
    assert (later >= kept[20:]).all() and later.sum() > kept[20:].sum()
    assert not stream.swapped(3, 0).size


@pytest.mark.parametrize('sampler', [samplers.ddim, samplers.dpm_solver_pp_2m])
def test_a_ring_is_sampled_as_one(sampler):
    """With a denoiser that looks at nothing around it, it is what the sampler makes of all."""
    rng = np.random.default_rng(0)
    x, data = rng.normal(size=(2, 13, 3)).astype(np.float32)
    grid = time_grid(4, power=2.0)

    def predict(first, x, time):
        return 0.8 * data[(first + np.arange(6)) % 13] + 0.1 * x + time

    def denoise(x, t):
        return 0.8 * data[None] + 0.1 * x + t[:, None, None]

    wanted = sampler(denoise, PATH, jnp.asarray(x[None]), grid)
    extrapolates = sampler is samplers.dpm_solver_pp_2m
    made = longform.sample_ring(predict, x, np.asarray(grid), 6, extrapolates)
    np.testing.assert_allclose(made, wanted[0], atol=1e-5)


def test_every_frame_of_a_ring_has_a_quarter_of_a_window_around_it():
    for length in (250, 255, 375, 1000):
        whole, moved = (longform.ring_parts(length, 250, step) for step in (0, 1))
        for parts in (whole, moved):
            assert max(count for _, count in parts) <= 125
            frames = np.concatenate([first + np.arange(count) for first, count in parts])
            assert sorted(frames % length) == list(range(length))
        apart = np.abs(np.subtract.outer([a for a, _ in whole], [a for a, _ in moved]))
        assert np.minimum(apart, length - apart).min() > 25


def test_a_loop_has_no_seam(generator):
    """Decoded round and round it repeats."""
    maker, timeline = maker_of(generator, seconds=3.0, loop=True, events='dog@2.5-2.9')
    made = make_loop(maker, timeline, 3.0)
    assert made.pcm.shape == (3 * 48_000, 2) and made.latents.shape == (75, LATENT_CHANNELS)
    around = np.abs(np.diff(np.concatenate([made.pcm, made.pcm]).astype(int), axis=0)).max(axis=1)
    seam = slice(3 * 48_000 - 2, 3 * 48_000 + 1)
    assert around[seam].max() < np.quantile(around, 0.999)
    again, _ = maker_of(generator, seconds=3.0, loop=True, events='dog@2.5-2.9')
    np.testing.assert_array_equal(make_loop(again, timeline, 3.0).pcm, made.pcm)


def test_the_level_follows_slowly_and_jumps_for_nothing(generator):
    """Power that rises by 20 dB: the gain falls by 3 dB a second at most, and never above a cap."""
    place = Place(*(np.zeros(1) for _ in range(2)), np.bool_(False), *(np.zeros(1),) * 4)
    carry = dataclasses.replace(
        longform.first_carry(1, 48_000),
        power=np.full(1, 1e-4, np.float32),
        parts=np.full(1, 100.0, np.float32),
        levels=np.full((1, 6), 17.7, np.float32),
    )
    maker, timeline = maker_of(generator, seconds=3.0)
    request = maker.request(timeline, 60, 3.0)
    power = jnp.asarray([[1e-4] * 8 + [1e-2] * 40])
    level, (mean, _) = longform.follow_level(power, request, place, carry)
    level = np.asarray(level[0])
    loudness = -0.691 + 10 * np.log10(1e-2)
    np.testing.assert_allclose(level[:6], 17.7, rtol=1e-5)
    assert (level[11:46] <= -23 + 12 - loudness + 1e-3).all()
    assert (np.diff(level) <= 0.15 + 1e-4).all() and (np.diff(level[12:46]) >= -0.3 - 1e-4).all()
    assert 1e-4 < float(mean[0]) < 1e-2
