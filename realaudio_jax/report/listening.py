"""A blind listening test: a page of pairs of sounds, and what the answers say.

Each pair is one prompt by two systems. Which of them is sound A is drawn anew for each pair and
stands in a file of its own, the key, so that neither the page nor its source tells. The page is
one HTML file that needs no network; it asks two questions of each pair and saves the answers as
JSON. The preference for a system is the mean over pairs of

    +1 where it is preferred, 0 where neither is, -1 where the other is,

each pair's value being the mean over listeners, and its interval a bootstrap over pairs.
"""

import dataclasses
import hashlib
import html
import json
import os
import pathlib
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from realaudio_jax.io import atomic_path, printable
from realaudio_jax.metrics.rows import mean_row
from realaudio_jax.report.page import data_uri, vorbis

KEY_NAME, PAGE_NAME = 'key.json', 'listen.html'
QUESTIONS = {
    'fits': 'Which fits the words better?',
    'sounds': 'Which sounds better, whatever the words say?',
}
ANSWERS = {'a': 1.0, 'same': 0.0, 'b': -1.0}  # preference for sound A


@dataclasses.dataclass(frozen=True)
class Pair:
    """One prompt by two systems.

    Attributes:
        prompt: what was asked for; shown.
        group: kind of sound, such as 'tones'; preferences are counted for each.
        sounds: float in [-1, 1] or int16, [S] or [S, A]: of the first and of the second system.
    """

    prompt: str
    group: str
    sounds: tuple[np.ndarray, np.ndarray]


def write_listening_test(
    folder: str | os.PathLike,
    systems: tuple[str, str],
    pairs: Sequence[Pair],
    sample_rate: int,
    seed: int = 0,
) -> None:
    """Writes the page and its key.

    Args:
        folder: for `listen.html` and `key.json`, made when missing.
        systems: what made the first and the second sound of every pair; only the key names them.
        pairs: in any order; the page has its own.
        sample_rate: Hz, of all sounds.
        seed: of the order of pairs and of sides.

    Raises:
        ValueError: there are no pairs, or both systems have one name.
    """
    if not pairs:
        raise ValueError('a listening test needs at least one pair of sounds')
    if systems[0] == systems[1]:
        raise ValueError(f'both systems are called {systems[0]!r}; give them two names')
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(pairs))
    first_is_a = draw.permutation(np.arange(len(pairs)) % 2 == 0)  # as often A as B
    items, sides = [], []
    for index in order:
        pair = pairs[index]
        a = 0 if first_is_a[index] else 1
        sounds = [vorbis(pair.sounds[side], sample_rate, 0.4) for side in (a, 1 - a)]
        items.append({'prompt': pair.prompt, 'sounds': [data_uri('audio/ogg', s) for s in sounds]})
        sides.append({'prompt': pair.prompt, 'group': pair.group, 'a': systems[a]})
    # Names this page in its answers; the sounds, and so the sides, cannot be read from it.
    digest = hashlib.sha256(json.dumps([seed, items]).encode()).hexdigest()[:16]
    key = {'test': digest, 'systems': list(systems), 'pairs': sides}
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The key last: where there is one, the test is whole.
    for name, text in ((PAGE_NAME, _page(digest, items)), (KEY_NAME, json.dumps(key, indent=2))):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text + '\n', encoding='utf-8')


def preference_rows(
    key_path: str | os.PathLike, answer_paths: Sequence[str | os.PathLike], seed: int = 0
) -> list[dict[str, Any]]:
    """What listeners prefer, for each question, in all pairs and in each group.

    Args:
        key_path: `key.json` of the test.
        answer_paths: files that the page saved, one for each listener.
        seed: of the bootstrap.

    Returns:
        Rows of a results table; a positive value prefers the first system. A pair that nobody
        answered counts for nothing.

    Raises:
        ValueError: a file is no key or no answers, is named twice, belongs to another test, or
            nothing is answered.
    """
    key = _read(key_path, 'the key of a listening test', ('test', 'systems', 'pairs'))
    try:
        first, second = key['systems']
        signs = [{first: 1.0, second: -1.0}[pair['a']] for pair in key['pairs']]
        groups = [pair['group'] for pair in key['pairs']]
        if not all(isinstance(group, str) for group in groups):
            raise TypeError('a group has no name')
    except (KeyError, TypeError, ValueError):
        raise ValueError(f'{printable(key_path)} is not the key of a listening test') from None
    if len(set(map(os.path.realpath, answer_paths))) < len(answer_paths):
        raise ValueError(f'{printable(", ".join(map(str, answer_paths)))}: give each file once')
    given: dict[str, list[list[float]]] = {name: [[] for _ in signs] for name in QUESTIONS}
    for path in answer_paths:
        found = _read(path, 'answers to a listening test', ('test', 'answers'))
        if found['test'] != key['test']:
            raise ValueError(f'{printable(path)} answers another test than {printable(key_path)}')
        for i, question, answer in _answers(found['answers'], len(signs), path):
            given[question][i].append(signs[i] * ANSWERS[answer])
    rows = []
    for question, pairs in given.items():
        for group in (None, *dict.fromkeys(sorted(groups))):
            chosen = [
                float(np.mean(values))
                for values, its in zip(pairs, groups, strict=True)
                if values and group in (None, its)
            ]
            if chosen:
                row = mean_row(f'preference, {question}', chosen, seed=seed)
                settings = {'for': first, 'over': second, 'group': group or 'all'}
                rows.append(row | settings | {'listeners': len(answer_paths)})
    if not rows:
        raise ValueError('nothing is answered yet')
    return rows


def _read(path: str | os.PathLike, kind: str, fields: Sequence[str]) -> Mapping[str, Any]:
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(field in found for field in fields):
        raise ValueError(f'{printable(path)} is not {kind}')
    return found


def _answers(found: Any, count: int, path: str | os.PathLike):
    """(pair, question, answer) of a file, each checked."""
    if not isinstance(found, list) or len(found) != count:
        raise ValueError(f'{printable(path)} should hold {count} answers')
    for i, answers in enumerate(found):
        if not isinstance(answers, dict):
            raise ValueError(f'{printable(path)}: answer {i + 1} is not a set of questions')
        for question, answer in answers.items():
            if question not in QUESTIONS or answer not in list(ANSWERS):
                said = printable(f'{question}: {answer}')
                raise ValueError(f'{printable(path)}: no such answer, {said}')
            yield i, question, answer


def _page(test: str, items: Sequence[Mapping[str, Any]]) -> str:
    sections = []
    for i, item in enumerate(items):
        questions = ''.join(
            f'<fieldset><legend>{html.escape(text)}</legend>'
            + ''.join(
                f'<label><input type="radio" name="{i} {name}" value="{answer}"> {shown}</label>'
                for answer, shown in zip(ANSWERS, ('A', 'No difference', 'B'), strict=True)
            )
            + '</fieldset>'
            for name, text in QUESTIONS.items()
        )
        players = ''.join(
            f'<button type="button" aria-pressed="false">{side}</button>'
            f'<audio preload="auto" src="{sound}"></audio>'
            for side, sound in zip(('A', 'B'), item['sounds'], strict=True)
        )
        sections.append(
            f'<section aria-label="Pair {i + 1}"><p class="count">{i + 1} of {len(items)}</p>'
            f'<h2>{html.escape(item["prompt"])}</h2><div class="players">{players}</div>'
            f'<div class="bar"><div></div></div>{questions}</section>'
        )
    return _PAGE.substitute(
        test=test, style=_STYLE, behaviour=_BEHAVIOUR, pairs='\n'.join(sections)
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #1c1b22; --soft: #5d5b68; --paper: #fafafc; --card: #fff;
  --line: #c9c6d3; --on: #2456b8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #eceaf0; --soft: #a9a6b5; --paper: #121117; --card: #1c1b23; --line: #45424f;
    --on: #8ab4ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 640px; padding: 1.2rem 1rem 3rem; color: var(--ink);
  background: var(--paper); font: 16px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.4rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; line-height: 1.3; margin: 0 0 .8rem; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 1rem; }
section:not(.shown) { display: none; }
.count, .note { color: var(--soft); font-size: .85rem; margin: 0 0 .3rem; }
.players { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; }
button { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--line);
  border-radius: 6px; padding: .6rem .8rem; cursor: pointer; }
button[aria-pressed='true'] { border-color: var(--on); box-shadow: inset 0 0 0 1px var(--on); }
button:disabled { opacity: .45; cursor: default; }
:focus-visible { outline: 2px solid var(--on); outline-offset: 2px; }
.bar { height: 4px; background: var(--line); border-radius: 2px; margin: .6rem 0 1rem; }
.bar div { height: 100%; width: 0; background: var(--on); border-radius: 2px; }
fieldset { border: 0; padding: 0; margin: 0 0 .9rem; }
legend { padding: 0; margin-bottom: .3rem; }
label { display: inline-block; padding: .25rem 1rem .25rem 0; }
nav { display: flex; gap: .6rem; margin: .8rem 0 .5rem; }
nav span { flex: 1; }
"""

# Two sounds at one position, so that one can be heard in place of the other at any moment; the
# answers are kept in the browser until they are saved, where it allows that.
_BEHAVIOUR = """
const test = document.body.dataset.test, sections = [...document.querySelectorAll('section')];
const previous = document.getElementById('previous'), next = document.getElementById('next');
const save = document.getElementById('save'), state = document.getElementById('state');
const inputs = [...document.querySelectorAll('input')];
let shown = 0;

const stored = () => {
  try { return JSON.parse(localStorage.getItem('answers ' + test)) || {}; } catch { return {}; }
};
const answers = stored();
for (const input of inputs) {
  input.checked = answers[input.name] === input.value;
  input.addEventListener('change', () => {
    answers[input.name] = input.value;
    try { localStorage.setItem('answers ' + test, JSON.stringify(answers)); } catch {}
    count();
  });
}

const count = () => {
  const questions = new Set(inputs.map((input) => input.name)).size;
  state.textContent = `${Object.keys(answers).length} of ${questions} questions answered`;
};
const stop = () => {
  for (const audio of document.querySelectorAll('audio')) audio.pause();
  for (const button of document.querySelectorAll('.players button')) {
    button.setAttribute('aria-pressed', 'false');
  }
};
const show = (index) => {
  stop();
  shown = index;
  sections.forEach((section, i) => section.classList.toggle('shown', i === shown));
  previous.disabled = shown === 0;
  next.disabled = shown === sections.length - 1;
};
const toggle = (section, side) => {
  const buttons = section.querySelectorAll('.players button');
  const sounds = section.querySelectorAll('audio');
  const wasOn = buttons[side].getAttribute('aria-pressed') === 'true';
  const at = Math.max(...[...sounds].map((audio) => (audio.paused ? 0 : audio.currentTime)));
  stop();
  if (wasOn) return;
  sounds[side].currentTime = at;
  sounds[side].play();
  buttons[side].setAttribute('aria-pressed', 'true');
};
sections.forEach((section) => {
  const bar = section.querySelector('.bar div'), sounds = section.querySelectorAll('audio');
  section.querySelectorAll('.players button').forEach((button, side) => {
    button.addEventListener('click', () => toggle(section, side));
  });
  for (const audio of sounds) {
    audio.addEventListener('timeupdate', () => {
      if (!audio.paused) bar.style.width = 100 * audio.currentTime / audio.duration + '%';
    });
    audio.addEventListener('ended', () => { stop(); bar.style.width = 0; });
  }
});
previous.addEventListener('click', () => show(shown - 1));
next.addEventListener('click', () => show(shown + 1));
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'a' || event.key === 'b') toggle(sections[shown], event.key === 'a' ? 0 : 1);
  if (event.key === 'n' && !next.disabled) show(shown + 1);
  if (event.key === 'p' && !previous.disabled) show(shown - 1);
});
save.addEventListener('click', () => {
  const given = sections.map(() => ({}));
  for (const [name, value] of Object.entries(answers)) {
    const [pair, question] = name.split(' ');
    given[pair][question] = value;
  }
  const text = JSON.stringify({ test, answers: given }, null, 2);
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  link.download = 'answers.json';
  link.click();
  URL.revokeObjectURL(link.href);
});
show(0);
count();
"""

_PAGE = string.Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Listening test</title>
<style>$style</style>
</head>
<body data-test="$test">
<h1>Listening test</h1>
<p class="note">Two sounds were made for the same words. Listen with headphones, switch between them
as often as you like, and answer; a question may stay open. Keys: A and B play, N and P go to the
next and the previous pair.</p>
<main>
$pairs
</main>
<nav><button type="button" id="previous">Previous</button>
<button type="button" id="next">Next</button><span></span>
<button type="button" id="save">Save answers</button></nav>
<p class="note" id="state" role="status"></p>
<script>$behaviour</script>
</body>
</html>
""")
