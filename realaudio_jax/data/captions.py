"""Captions in varied English for what is heard in a scene."""

import dataclasses
from collections.abc import Sequence

import numpy as np

# base form -> third person; the gerund follows by rule, or stands in _GERUNDS
_VERBS = {
    verb: verb + ('es' if verb.endswith(('s', 'sh', 'ch', 'x', 'z', 'o')) else 's')
    for verb in (
        'bark bang beep blow boom bounce break burn burst buzz call caw chatter chime chirp clang '
        'clap clash clatter click clink clank close clunk cough crack crackle crash creak croak '
        'crow crumble crunch crush cut dig drag drill drip drop explode fall fire flap flow groan '
        'growl grunt hammer hiss hit honk hoot howl hum knock land laugh lap loom meow moan moo '
        'mumble open pass patter pop pour pulse purr quack rage rain ramble rattle read release '
        'ricochet ring roar roll rub rumble run rush rustle scrape scratch scream screech shake '
        'shatter shoot shut shuffle sigh sing sizzle slam slap smash snap sneeze sniff snore sound '
        'speak spin splash splatter splinter spray squeak squeal squelch start step stop strike '
        'swing swish tap tear thud thump tick tinkle toll trickle trill tweet twang wail walk wash '
        'whine whinny whirr whisper whistle whoosh yell yelp zap zip breathe descend drive falter '
        'jingle reload collapse ignite'
    ).split()
} | {'cry': 'cries', 'fly': 'flies', 'die': 'dies', 'whinny': 'whinnies'}
_GERUNDS = (
    {'die': 'dying', 'drag': 'dragging', 'drop': 'dropping', 'drip': 'dripping'}
    | {
        verb: verb + verb[-1] + 'ing'
        for verb in (
            'cut dig flap hit hum lap pop rub run shut slap snap spin step stop tap zap zip zap'
        ).split()
    }
    | {'slam': 'slamming'}
)


def _gerund(verb: str) -> str:
    if verb in _GERUNDS:
        return _GERUNDS[verb]
    return (verb[:-1] if verb.endswith('e') and not verb.endswith('ee') else verb) + 'ing'


_THIRD = set(_VERBS.values()) | {'is', 'are', 'goes', 'hoots'}
_BY_GERUND = {_gerund(verb): (verb, third) for verb, third in _VERBS.items()}
# 'dog bark' may become 'a dog barks'; of the verbs that are nouns too, those where that reads well
_NOUN_VERBS = set(
    'bark slam creak squeak squeal rattle honk chirp crash growl howl meow ring click beep buzz '
    'crackle rumble hiss whistle scream groan caw splash hum sneeze tick clank screech'.split()
)
_ARTICLES = tuple(  # words after which none is added; the first four are articles indeed
    'a an the some someone something one two several many people'.split()
)
_MASS = set(
    'thunder rain wind water fire glass metal wood stone gravel laughter chatter noise music hum '
    'traffic machinery gunfire static debris applause ambience outdoors indoors speech lightning '
    'drizzle surf snow hail breathing'.split()
)
_PREPOSITIONS = 'on of in at from with under through down up over against near by being'.split()
_NUMBERS = 'zero one two three four five six seven eight nine ten'.split()
_SPECIAL = {
    'gunshot': 'a gun fires',
    'explosion': 'something explodes',
    'thunder': 'thunder rumbles',
    'laughter': 'someone laughs',
    'sneeze': 'someone sneezes',
    'burp': 'someone burps',
    'clapping': 'someone claps',
}


@dataclasses.dataclass(frozen=True)
class CaptionItem:
    """One sound as a caption mentions it: words, first onset, count, position in stereo.

    `onset_s` is in seconds from the start of the scene, `pan` in [-1, 1] from left to right.
    """

    text: str
    onset_s: float
    count: int = 1
    pan: float = 0.0


def _head(text: str) -> list[str]:
    """The words up to the first preposition or comma: 'footstep on gravel' -> ['footstep']."""
    words = text.split(',')[0].split()
    cut = next((i for i, word in enumerate(words) if i and word in _PREPOSITIONS), len(words))
    return words[:cut]


def is_clause(text: str) -> bool:
    """Whether a text has a finite verb: 'a door slams', 'swords clash', not 'door slam'."""
    words = text.lower().replace(',', '').split()
    for i, (before, word) in enumerate(zip(words, words[1:], strict=False), 1):
        if word in ('is', 'are'):
            return True
        if word in _THIRD and before not in _ARTICLES[:4]:
            compound = words[0] not in _ARTICLES and i == len(words) - 1 > 1
            if not compound:  # 'metal pipe clunks' names clunks
                return True
        if word in _VERBS and before.endswith('s') and not before.endswith('ss'):
            return True
    return False


def _is_plural(words: Sequence[str]) -> bool:
    last = words[-1].lower()
    return (last.endswith('s') and not last.endswith(('ss', 'us'))) or last in ('people', 'women')


def noun_phrase(text: str) -> str:
    """Gives a text its article where it takes one: 'door slam' -> 'a door slam'."""
    head = _head(text)
    gerund = next((i for i, word in enumerate(head) if word in _BY_GERUND), len(head))
    subject = head[:gerund]
    bare = (
        not subject
        or subject[0].lower() in _ARTICLES
        or is_clause(text)
        or _is_plural(subject)
        or subject[-1].lower() in _MASS
        or (subject[0].endswith('ing') and len(subject[0]) > 4)
    )
    return text if bare else f'{"an" if text[0].lower() in "aeiou" else "a"} {text}'


def clause(text: str) -> str | None:
    """Says a text with a verb: 'dog bark' and 'dog barking' -> 'a dog barks'; None if it cannot."""
    if is_clause(text):
        return text
    if text in _SPECIAL:
        return _SPECIAL[text]
    words = text.split()
    head = _head(text)
    for i, word in enumerate(head):
        if i and word in _BY_GERUND:
            base, third = _BY_GERUND[word]
            verb = base if _is_plural(head[:i]) else third
            rest = text[len(' '.join(head[: i + 1])) :]
            return f'{noun_phrase(" ".join(head[:i]))} {verb}{rest}'
    if len(words) > 1 and words[-1] in _NOUN_VERBS and words[0] not in _ARTICLES:
        return f'{noun_phrase(" ".join(words[:-1]))} {_VERBS[words[-1]]}'
    if words[0] in ('footstep', 'step') and len(words) > 1:
        return ' '.join(['someone steps', *words[1:]])
    return None


def plural(text: str, count: int) -> str | None:
    """'gunshot', 3 -> 'three gunshots'; None where the text cannot be counted like that."""
    words = text.split()
    if words[0].lower() in ('a', 'an'):
        words = words[1:]
    head = _head(' '.join(words))
    if is_clause(text) or not head or head[0].lower() in _ARTICLES:
        return None
    noun = head[-1]
    if any(w in _BY_GERUND or w.endswith(('ing', 'ed')) or w in ('a', 'and') for w in head):
        return None
    if not noun.isalpha() or noun.lower() in _MASS or noun.endswith('s'):
        return None
    words[len(head) - 1] = noun + ('es' if noun.endswith(('sh', 'ch', 'x', 'z')) else 's')
    return ' '.join([_NUMBERS[count] if count <= 10 else 'many', *words])


def _times(count: int) -> str:
    return {1: '', 2: ' twice'}.get(count, f' {_NUMBERS[min(count, 10)]} times')


def _often(rng: np.random.Generator, count: int) -> str:
    if count > 2 and rng.random() < 0.2:
        return ' repeatedly' if count > 3 else ' again and again'
    return _times(count)


def _where(pan: float) -> str:
    if abs(pan) < 0.4:
        return ' in the middle'
    side = 'left' if pan < 0 else 'right'
    return f' on the {side}' if abs(pan) < 0.8 else f' on the far {side}'


def _when(onset_s: float) -> str:
    whole = round(onset_s)
    if onset_s < 0.3:
        return 'at the start'
    if whole < 1:
        return 'after half a second'
    return f'after {_NUMBERS[whole]} second{"s" if whole > 1 else ""}' if whole <= 10 else 'later'


def _say(rng: np.random.Generator, heard: CaptionItem, as_clause: bool, place: bool) -> str:
    where = _where(heard.pan) if place else ''
    if as_clause and (text := clause(heard.text)):
        return f'{text}{_often(rng, heard.count)}{where}'
    many = plural(heard.text, heard.count) if heard.count > 1 else None
    said = many or f'{noun_phrase(heard.text)}{_times(heard.count)}'
    heard_too = as_clause and rng.random() < 0.3 and (many or heard.count == 1)
    verb = ' are heard' if many or _is_plural(_head(heard.text)) else ' is heard'
    return f'{said}{where}{verb if heard_too else ""}'


def _behind(rng: np.random.Generator, said: str, ambience: str) -> str:
    if is_clause(ambience):
        return f'{said} while {ambience}'
    noun = noun_phrase(ambience)
    if noun in _MASS and rng.random() < 0.4:
        noun = f'{("steady", "constant", "soft")[rng.integers(3)]} {noun}'
    joins = ('{s}, over {n}', '{s} with {n} in the background', '{s} over {n}', '{n}, and {s}')
    joins += ('{s}, {n} behind it', 'over {n}, {s}', '{s} and {n}', '{s} against {n}')
    return joins[rng.integers(len(joins))].format(s=said, n=noun)


def make_caption(
    rng: np.random.Generator, heard: Sequence[CaptionItem], ambience: str | None = None
) -> str:
    """Describes a scene.

    Three registers, drawn at random: bare words ('glass breaking, rain'), a list of nouns, or
    clauses. About one in seven names times, one in four says where sounds are; the rest leave both
    to the timeline.

    Args:
        rng: what varies the wording.
        heard: the sounds of the scene.
        ambience: text of the background, if there is one.

    Returns:
        one line of text.

    Raises:
        ValueError: neither sounds nor an ambience.
    """
    if not heard and not ambience:
        raise ValueError('a caption needs a sound or an ambience')
    heard = sorted(heard, key=lambda h: h.onset_s)
    register = rng.random()
    if register < 0.25:
        words = [h.text for h in heard] + ([ambience] if ambience else [])
        if rng.random() < 0.3:
            words = [words[i] for i in rng.permutation(len(words))]
        return (', ' if rng.random() < 0.7 else ' and ').join(words)
    if not heard:
        if is_clause(ambience):
            return ambience
        forms = ('{}', '{}', 'the sound of {}', '{} in the background', 'only {}')
        return forms[rng.integers(len(forms))].format(noun_phrase(ambience))
    as_clause, timed = register > 0.55, rng.random() < 0.15
    placed = rng.random() < 0.25
    said = ''
    for i, item in enumerate(heard):
        place = placed and (abs(item.pan) >= 0.4 or rng.random() < 0.3)
        text = _say(rng, item, as_clause or is_clause(item.text), place)
        if timed:
            when = _when(item.onset_s)
            text = f'{text} {when}' if rng.random() < 0.5 else f'{when} {text}'
        if i == 0:
            said = text
            continue
        last = i == len(heard) - 1
        together = item.onset_s - heard[i - 1].onset_s < 0.3
        if together and not timed:
            join = ' and ' if as_clause else ' together with '
        elif timed:
            join = ', '
        else:
            joins = (', then ', ', followed by ' if not as_clause else ', and then ', ', ')
            join = joins[rng.integers(3)]
            if last and join == ', ':
                join = ' and '
        said += join + text
    if ambience:
        said = _behind(rng, said, ambience)
    if rng.random() < 0.2:
        said = f'{said[0].upper()}{said[1:]}.'
    return said
