"""Every mistake of a user gets its line, and what is asked for reaches the arrays of a request."""

import jax
import numpy as np
import pytest
import tiny

from realaudio_jax.models.text_encoder import TOKENIZER_NAME, Tokenizer
from realaudio_jax.program_io import CAPACITIES, request_shapes
from realaudio_jax.release import RELEASES
from realaudio_jax.release_config import ReleaseConfig
from realaudio_jax.requests import Call, _prompts, _spans, prepare, tokenise
from realaudio_jax.timeline import Event, Timeline

SHORT = dict(seconds=0.5, steps=2)


@pytest.fixture(scope='module')
def tokenizer():
    return Tokenizer(RELEASES / 'foley' / TOKENIZER_NAME)


@pytest.fixture
def prepared(tokenizer):
    """`prepared('dog', ...)`: what a program takes of the arguments of `generate`."""
    config = ReleaseConfig.of(tiny.CONFIG)

    def make(*args, known=(), **kwargs):
        return prepare(Call(*args, **kwargs), config, tokenizer, known)

    return make


@pytest.mark.parametrize(
    'change, part',
    [
        ({'prompt': []}, 'no prompt'),
        ({'num_variations': 0}, 'num_variations is 0; choose 1 to 64'),
        ({'num_variations': 2, 'seed': [1]}, '1 seeds for 2 sounds'),
        ({'negative_prompt': 'rain'}, 'guidance inside and takes no negative_prompt'),
        ({'negative_prompt': 'x' * 20_000, 'model': 'teacher'}, 'has 20,000 characters'),
        ({'curves': {'pitch': [440.0] * 12}}, "has no curve 'pitch': it follows loudness_db"),
        ({'seconds': 0.4}, '0.5 to 10'),
        ({'seconds': 10.1}, '0.5 to 10'),
        ({'seconds': float('nan')}, '0.5 to 10'),
        ({'init_audio': np.full((9, 2), 1e30)}, 'up to 1e+30'),
        ({'init_audio': np.zeros((9, 2), np.int64)}, 'int64'),
        ({'model': 'pupil'}, 'student or teacher'),
        ({'steps': 3}, '1, 2, 4, 8'),
        ({'model': 'teacher', 'steps': 0}, '1 to 1000'),
        ({'sample_rate': 22_050}, '48000 or 44100'),
        ({'strength': 0.0}, 'above 0'),
        ({'strength': 1.5}, 'strength is 1.5; choose 0 to 1'),
        ({'strength': 0.5}, 'init_audio'),
        ({'keep': [(0.0, 0.2)]}, 'init_audio'),
        ({'guidance_scale': 5.0}, '1 to 4'),
        ({'guidance_scale': float('nan')}, '1 to 4'),
        ({'seed': [1, 2]}, '2 seeds for 1'),
        ({'seed': 5.7}, 'seed is 5.7; give a whole number'),
        ({'steps': 2.5}, 'steps is 2.5; give a whole number'),
        ({'sampler': 'dpm_solver_pp_2m'}, "student is not sampled with 'dpm_solver_pp_2m'; choose"),
        ({'model': 'teacher', 'sampler': 'ping_pong'}, "teacher is not sampled with 'ping_pong'"),
        (
            {'model': 'teacher', 'guidance_scale': float('nan')},
            'guidance_scale is nan; choose 0 to 100',
        ),
        ({'prompt': 'x' * 20_000}, 'a prompt has 20,000 characters'),
        ({'seed': -1}, '2^31'),
        ({'seed': 2**31}, 'seeds 2147483648 to 2147483648: choose'),
        ({'seed': 10**5000}, 'seeds a huge number to a huge number: choose'),
        ({'steps': 10**400}, 'steps is a huge number; choose 1 to 1000'),
        ({'model': 'x' * 1000}, f"model is '{'x' * 40}'; choose"),
        ({'events': 'bark@0.3-0.9'}, 'bark'),
        ({'loudness_db': np.array([-20.0])}, 'loudness_db'),
        ({'loudness_db': np.full(12, np.nan)}, 'loudness_db'),
        ({'init_audio': np.zeros((9, 1))}, '(9, 1)'),
        ({'init_audio': np.zeros((0, 2))}, 'empty'),
        ({'init_audio': np.full((9, 2), np.nan)}, 'NaN'),
        ({'init_audio': np.zeros((9, 2)), 'keep': [(0.2, 0.2)]}, 'start < end'),
        ({'init_audio': np.zeros((9, 2)), 'keep': [(0.0, 0.8)]}, '0.5 s'),
        ({'sampler': 'euler'}, 'euler'),
        ({'loudness': 3.0}, '-70 to 0'),
        ({'loudness': float('nan')}, '-70 to 0'),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_mistakes(prepared, change, part):
    with pytest.raises(ValueError) as caught:
        prepared(**{'prompt': 'dog', **SHORT, **change})
    assert part in str(caught.value) and '\n' not in str(caught.value), caught.value


@pytest.mark.parametrize('value', [None, b'dog', 5, ['dog', None], [('dog',)]])
def test_what_is_no_text_and_no_spans_is_named(value):
    for check, name in ((_prompts, 'prompt'), (lambda x: _spans(x, 2.0), 'keep')):
        with pytest.raises(ValueError) as caught:
            check(value)
        assert str(caught.value).startswith(f'{name} is {value!r}; '), caught.value


def test_room_is_as_small_as_the_request_allows(tokenizer):
    def timeline(count, text='bark'):
        return Timeline(tuple(Event(text, 0.1 * i, 1.0) for i in range(count)))

    def capacity(prompts, timelines):
        return tokenise(tokenizer, prompts, timelines).capacity

    small, middle, large = CAPACITIES
    assert capacity(['dog'], [timeline(0)]) == small
    assert capacity(['dog ' * 14, 'dog'], [timeline(2)]) == small
    assert capacity(['dog ' * 15], [timeline(0)]) == middle
    assert capacity(['dog'], [timeline(3)]) == middle
    assert capacity(['dog ' * 30, 'dog'], [timeline(4)]) == middle
    assert capacity(['dog', 'dog ' * 31], [timeline(4)]) == large
    assert capacity(['dog ' * 500], [timeline(0)]) == large
    assert capacity(['dog'], [timeline(1), timeline(5)]) == large
    assert capacity(['dog'], [timeline(1, 'dog ' * 7)]) == large


def test_each_text_is_tokenised_once(tokenizer, prepared, monkeypatch):
    seen, encode = [], tokenizer._tokenizer.encode

    class Counted:
        def encode(self, text):
            seen.append(text)
            return encode(text)

    monkeypatch.setattr(tokenizer, '_tokenizer', Counted())
    prepared(['dog', 'rain', 'sea'], 'bark@0.1-0.3,0.2-0.4; bell@0.1-0.2', **SHORT)
    assert sorted(seen) == ['', 'bark', 'bell', 'dog', 'rain', 'sea']


def test_texts_that_are_cut_or_cannot_be_read_are_noted(prepared):
    (line,) = prepared('a b ' * 80, **SHORT).notes
    assert line.startswith('text of 162 tokens cut to 64')
    lines = prepared(['\u96e8', '\u96e8'], '\u96e8@0-0.3', **SHORT).notes
    assert len(lines) == 1 and 'write it in English words' in lines[0]


def test_variations_have_a_row_and_a_seed_for_each(prepared):
    asked = prepared(['dog', 'rain'], ['bark@0.1-0.3', ''], seed=5, num_variations=3, **SHORT)
    assert asked.call.prompts == ['dog'] * 3 + ['rain'] * 3 and not asked.call.is_single
    assert asked.call.seeds == [5, 6, 7, 8, 9, 10] and asked.bucket.batch == 8
    request = asked.request
    np.testing.assert_array_equal(request.seed, [5, 6, 7, 8, 9, 10, 10, 10])
    np.testing.assert_array_equal(request.event_mask.sum(axis=1), [1, 1, 1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(request.token_ids[0], request.token_ids[2])
    assert (request.token_ids[2] != request.token_ids[3]).any()
    np.testing.assert_array_equal(asked.with_seeds([1, 2, 3, 4, 5, 6]).seed[-3:], [6, 6, 6])
    assert not prepared('dog', num_variations=2, **SHORT).call.is_single
    assert prepared('dog', **SHORT).call.is_single


def test_a_negative_prompt_is_a_text_of_its_own(prepared, tokenizer):
    plain = prepared('dog', model='teacher', **SHORT)
    assert plain.request.negative_ids is None and not plain.bucket.negative
    asked = prepared(['dog', 'sea'], model='teacher', negative_prompt='wind noise', **SHORT)
    ids, mask = tokenizer.encode(['wind noise'] * 2, CAPACITIES[0].text_tokens)
    np.testing.assert_array_equal(asked.request.negative_ids, ids)
    np.testing.assert_array_equal(asked.request.negative_mask, mask)
    np.testing.assert_array_equal(asked.request.token_ids[:1], plain.request.token_ids)
    shapes, _ = request_shapes(asked.bucket)
    assert jax.tree.map(np.shape, asked.request) == jax.tree.map(lambda x: x.shape, shapes)


def test_curves_of_a_release_that_has_them_are_requested(prepared):
    curves, arguments = ('brightness', 'pitch'), dict(prompt='a', seconds=1.0, steps=2)
    pitch = {'pitch': [None, 2000.0] + [None] * 23}
    call = prepared(**arguments, curves=pitch, known=curves)
    request, (shapes, _) = call.request, request_shapes(call.bucket, 2)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), request) == jax.tree.map(
        lambda x: (x.shape, x.dtype), shapes
    )
    assert np.argwhere(request.curve_mask).tolist() == [[0, 1, 1]]
    assert request.curves[0, 1, 1] == 1.0 and np.isfinite(request.curves).all()
    free = prepared(**arguments, known=curves).request
    assert free.curves.shape == request.curves.shape and not free.curve_mask.any()
    assert prepared(**arguments).request.curves is None
