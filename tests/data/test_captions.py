import re

import numpy as np
import pytest

from realaudio_jax.data.captions import (
    CaptionItem,
    clause,
    is_clause,
    make_caption,
    noun_phrase,
    plural,
)
from realaudio_jax.data.sources import foley

HEARD = (CaptionItem('dog bark', 0.5, 2, -0.9), CaptionItem('door slam', 3.1, 1, 0.6))


def captions(heard, ambience=None, n=300):
    return {make_caption(np.random.default_rng(i), heard, ambience) for i in range(n)}


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('dog bark', 'a dog barks'),
        ('dog barking', 'a dog barks'),
        ('glass breaking', 'glass breaks'),
        ('bullet casings falling', 'bullet casings fall'),
        ('car door closing, from inside', 'a car door closes, from inside'),
        ('footstep on gravel', 'someone steps on gravel'),
        ('a door slams', 'a door slams'),
        ('egg beater and paper', None),
    ],
)
def test_clauses(text, said):
    assert clause(text) == said


def test_clauses_are_told_from_noun_phrases():
    for text in ('a door slams', 'swords clash', 'wood is struck', 'someone slams the door shut'):
        assert is_clause(text), text
    for text in ('door slam', 'glass clink', 'metal pipe clunks', 'a thunder clap', 'heavy rain'):
        assert not is_clause(text), text


def test_articles_and_plurals():
    assert noun_phrase('explosion') == 'an explosion'
    assert noun_phrase('glass breaking') == 'glass breaking'
    assert noun_phrase('dog barking') == 'a dog barking'
    assert noun_phrase('heavy rain') == 'heavy rain'
    assert noun_phrase('a metal clang') == 'a metal clang'
    assert plural('gunshot', 3) == 'three gunshots'
    assert plural('footstep on gravel', 2) == 'two footsteps on gravel'
    assert plural('a body blow', 4) == 'four body blows'
    assert plural('glass breaking', 2) is None


def test_every_register_occurs():
    said = captions(HEARD, 'rain')
    assert len(said) > 60
    assert any(re.fullmatch('dog bark, door slam, rain', text) for text in said)
    assert any('a dog barks twice' in text for text in said)
    assert any('two dog barks' in text for text in said)
    assert any('on the far left' in text for text in said)
    assert any(', then a door slams, over' in text for text in said)


def test_most_captions_name_no_times_but_some_do():
    timed = [re.search('second|at the start', text) is not None for text in captions(HEARD)]
    assert 0.03 < np.mean(timed) < 0.5
    assert any('after three seconds' in text for text in captions(HEARD))


def test_every_sound_is_named():
    for text in captions(HEARD, 'wind'):
        words = text.lower()
        assert 'dog' in words and 'door' in words and 'wind' in words
        assert '  ' not in words and words == words.strip()


def test_sounds_are_named_in_order_where_then_is_said():
    said = [text.lower() for text in captions(HEARD[::-1])]
    in_order = [text.index('dog') < text.index('door') for text in said]
    assert np.mean(in_order) > 0.9  # bare words may come in any order
    assert all(ok for ok, text in zip(in_order, said, strict=True) if 'then' in text)


def test_all_foley_texts_can_be_told():
    rng = np.random.default_rng(0)
    for made in foley.EVENTS.values():
        for text in made.texts:
            for count in (1, 3):
                said = make_caption(rng, [CaptionItem(text, 1.0, count)])
                assert said and not re.search(r'\b(an? an?|the a)\b', said.lower()), said


def test_nothing_to_tell_is_an_error():
    with pytest.raises(ValueError, match='sound'):
        make_caption(np.random.default_rng(0), [])
