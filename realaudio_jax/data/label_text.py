"""Readable English for the terse labels of sound libraries, and which labels are ambiences.

A label without an entry here keeps its own words, so a folder with readable labels needs nothing.
"""

import json
import pathlib
import re

TABLES = pathlib.Path(__file__).parent / 'label_tables.json'  # of texts and synonyms
_TABLES = json.loads(TABLES.read_text('utf-8'))

_PITCH = re.compile(r'(voices? aa|voices? oo|prep piano)(?: ?[a-g]b?| \w+ oo)$')  # 'prep pianoc'
_NOT_AMBIENCES = re.compile(r'\b(wind ?up|brakes|ball ?bearing)\b')
_AMBIENCES = re.compile(
    r'\b(rain|rainstorm|rainfall|drizzle|heavyrain|waves?|sea|ocean|wind|storm|thunderstorm|'
    r'snowstorm|snowing|flurries|weather|helicopter|fire crackling|fireplace|campfire|crowd|'
    r'coffee-shop|cafe|restaurant|summer-night|night|birds|crickets|indoors|underground|'
    r'ambian?ce|ambience|ambi|hallway\w*|traffic|city|forest|stream|river|brook|waterfall|'
    r'machinery|hum|air ?compressor|air ?blower|dryer|vacuum|engine noise|driving|room tone|'
    r'pink noise|white noise|boat|train|chatter)\b'
)


def _parsed(table: str) -> dict[str, tuple[str, ...]]:
    return {label: tuple(texts) for label, texts in _TABLES[table].items()}


_TEXTS = _parsed('texts')
_SYNONYMS = {text: (text, *names) for text, names in _parsed('synonyms').items()}
_GROUPS = _SYNONYMS | {  # and by the other names
    name: group
    for group in _SYNONYMS.values()
    for name in group
    if sum(name in other for other in _SYNONYMS.values()) == 1
}
_BY_PREFIX = sorted(_parsed('sonic_pi_texts').items(), key=lambda item: -len(item[0]))


def readable(label: str, file: str = '') -> tuple[str, ...]:
    """English for a label, without an article; the first one is the plainest.

    Args:
        label: as the library wrote it.
        file: the file's name; its first folder names the library, and in the Sonic Pi samples it
            says more than the label.

    Returns:
        at least one text, for example ('footstep on gravel', 'step on gravel').
    """
    key = ' '.join(label.lower().replace('_', ' ').split())
    if file.startswith('sonic_pi/'):
        stem = file.split('/')[-1].rsplit('.', 1)[0].replace('_', ' ')
        for prefix, texts in _BY_PREFIX:
            if stem.startswith(prefix):
                return texts
    for known in (f'{file.split("/")[0]}/{key}', key):
        if known in _TEXTS:
            return _TEXTS[known]
    if key.startswith('weather '):
        sky, season = key.split()[1:3] if len(key.split()) >= 3 else (key.split()[1], 'day')
        return (f'{sky} {season} day outdoors', 'outdoor ambience')
    if key.startswith('piano note'):
        return ('piano note', 'grand piano note')
    key = _PITCH.sub(r'\1', key)
    if key in _TEXTS:
        return _TEXTS[key]
    words = [word for word in key.split() if word not in _TABLES['dropped_words']]
    return (' '.join(_TABLES['repairs'].get(word, word) for word in words),)


def from_name(name: str) -> str:
    """The words in the name of a file or folder, without suffix: 'door_slam-02' -> 'door slam'.

    A name without letters stays as it is.
    """
    words = name.replace('_', ' ').replace('-', ' ').split()
    return ' '.join(w for w in words if not w.isdigit()).rstrip('0123456789 ') or name


def as_phrase(caption: str) -> str:
    """A caption as a part of a longer one: 'A dog barks.' -> 'a dog barks'."""
    words = caption.rstrip(' .!').split(' ')
    if words[0][1:].islower() or len(words[0]) == 1 and words[0] != 'I':
        words[0] = words[0].lower()
    return ' '.join(words)


def is_ambience(label: str) -> bool:
    """Whether a label names something that goes on in the background."""
    text = label.lower().replace('_', ' ')
    return bool(_AMBIENCES.search(text)) and not _NOT_AMBIENCES.search(text)


def variants(text: str) -> tuple[str, ...]:
    """Names that people give a sound, the text itself first: 'dog bark', 'barking dog', 'dog'.

    Args:
        text: any name of a sound; what the table does not know has no other.
    """
    return tuple(dict.fromkeys((text, *_GROUPS.get(text.lower(), ()))))
