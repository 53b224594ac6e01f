"""The HTML of a report: templates, style and the players' behaviour; every text is escaped."""

import html
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1b22; --soft: #5d5b68; --paper: #fafafc; --card: #fff;
  --line: #dddbe4; --better: #17703c; --worse: #a32a20; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #eceaf0; --soft: #a9a6b5; --paper: #121117; --card: #1c1b23; --line: #35333f;
    --better: #7bd69f; --worse: #ff9d92; --warn: #f0c36a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1320px; padding: 1.2rem clamp(.8rem, 3vw, 2rem) 3rem;
  color: var(--ink); background: var(--paper); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0 0 .4rem; text-wrap: balance; }
h2 { font-size: 1rem; line-height: 1.3; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h3 { font-size: .85rem; margin: 0; font-weight: 600; }
section { margin-top: 1.2rem; }
.lead p { max-width: 105ch; margin: 0 0 .3rem; }
.note, .asked { color: var(--soft); font-size: .8rem; margin: .35rem 0 0; max-width: 120ch; }
.asked { margin: -.2rem 0 .4rem; }
.warnings { color: var(--warn); font-size: .85rem; }
.warnings p { margin: 0 0 .2rem; max-width: 110ch; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); width: fit-content; max-width: 100%; }
table { border-collapse: separate; border-spacing: 0; font-size: .82rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .26rem .65rem; text-align: right; white-space: nowrap; }
th { font-weight: 600; vertical-align: bottom; }
thead th { white-space: normal; max-width: 9.5em; border-bottom: 1px solid var(--line);
  color: var(--soft); }
tbody tr + tr > * { border-top: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
tbody th:first-child { position: sticky; left: 0; background: var(--card); white-space: normal;
  min-width: 8.5em; }
.better { color: var(--better); font-weight: 600; } .worse { color: var(--worse); }
.sideways { display: none; }
.clips { display: grid; gap: .6rem; grid-template-columns: repeat(var(--count), minmax(0, 1fr)); }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  overflow: hidden; }
figcaption { padding: .35rem .5rem .1rem; }
audio { display: block; height: 34px; width: 100%; }
.drawing { position: relative; background: #14131a; cursor: pointer; }
.drawing img { display: block; width: 100%; aspect-ratio: 5 / 3; }
.event { position: absolute; top: 0; bottom: 0; border-left: 1px solid #ffffffb0;
  border-right: 1px dashed #ffffff60; pointer-events: none; }
.head { position: absolute; top: 0; bottom: 0; width: 2px; margin-left: -1px; background: #4cc9f0;
  opacity: 0; pointer-events: none; left: 0; }
.head.on { opacity: 1; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: 0;
  font-size: .85rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: .8rem; }
@media (max-width: 900px) { .clips { grid-template-columns: repeat(3, minmax(0, 1fr)); } }
@media (max-width: 560px) { .clips { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  th, td { padding: .2rem .4rem; } tbody th:first-child { min-width: 12em; }
  thead th { max-width: 6.5em; line-height: 1.15; } .sideways { display: block; margin-top: 0; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
"""

# One sound at a time; a line over the spectrogram follows it; a click there goes to that time.
_BEHAVIOUR = """
for (const figure of document.querySelectorAll('figure')) {
  const audio = figure.querySelector('audio'), drawing = figure.querySelector('.drawing');
  const head = figure.querySelector('.head'), seconds = Number(figure.dataset.seconds);
  const draw = () => {
    head.style.left = 100 * Math.min(1, audio.currentTime / seconds) + '%';
    if (!audio.paused) requestAnimationFrame(draw);
  };
  audio.addEventListener('play', () => {
    for (const other of document.querySelectorAll('audio')) if (other !== audio) other.pause();
    head.classList.add('on');
    draw();
  });
  audio.addEventListener('seeked', draw);
  audio.addEventListener('ended', () => head.classList.remove('on'));
  drawing.addEventListener('click', (event) => {
    const box = drawing.getBoundingClientRect();
    audio.currentTime = seconds * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    audio.play();
  });
}
"""

_PAGE = string.Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<h1>$title</h1>
$body
</main>
<script>$behaviour</script>
</body>
</html>
""")

_PLAYER = string.Template("""<figure data-seconds="$seconds">
<figcaption><h3>$label</h3></figcaption>
<audio controls preload="metadata" src="$sound" aria-label="$label"></audio>
<div class="drawing"><img src="$image" alt="$description">$events<div class="head"></div></div>
</figure>""")


def page(title: str, body: Sequence[str]) -> str:
    """The whole document.

    Args:
        title: plain text.
        body: HTML of the other functions here.
    """
    return _PAGE.substitute(
        title=html.escape(title), style=_STYLE, body='\n'.join(body), behaviour=_BEHAVIOUR
    )


def lead(sentences: Sequence[str]) -> str:
    """HTML of the result in words, one sentence a line."""
    said = ''.join(f'<p>{html.escape(sentence)}</p>' for sentence in sentences)
    return f'<div class="lead">{said}</div>'


def warnings(texts: Sequence[str]) -> str:
    """What to doubt."""
    said = ''.join(f'<p>{html.escape(text[:1].upper() + text[1:])}</p>' for text in texts)
    return f'<section class="warnings" aria-label="Warnings">{said}</section>'


def note(text: str) -> str:
    """A line in small print."""
    return f'<p class="note">{html.escape(text)}</p>'


def key(text: str) -> str:
    """What a reader should know of the players, before them."""
    return f'<section aria-label="Sounds">{note(text)}</section>'


def table(title: str, headings: Sequence[str], lines: Sequence[Sequence[str]], under: str) -> str:
    """A section with a table; the first cell of a line heads it.

    A cell that ends in 'better' or 'worse' is coloured so.
    """
    head = ''.join(f'<th scope="col">{html.escape(text)}</th>' for text in headings)
    rows = []
    for first, *others in lines:
        cells = ''.join(f'<td{_verdict(text)}>{html.escape(text)}</td>' for text in others)
        name = re.sub(r'(\d|−) ', '\\1\xa0', first)  # breaks between models, not within 'steps'
        rows.append(f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>')
    return (
        f'<section><h2>{html.escape(title)}</h2>'
        '<p class="note sideways">The table scrolls sideways →</p>'
        '<div class="scroll" tabindex="0" role="region" '
        f'aria-label="{html.escape(title)}"><table><thead><tr>{head}</tr></thead>\n'
        f'<tbody>\n{chr(10).join(rows)}\n</tbody></table></div>{note(under) if under else ""}'
        '</section>'
    )


def _verdict(text: str) -> str:
    return next((f' class="{word}"' for word in ('better', 'worse') if text.endswith(word)), '')


def row(prompt: str, events: Sequence[tuple[str, float, float]], figures: Sequence[str]) -> str:
    """Players of one prompt, side by side.

    Args:
        prompt: plain text.
        events: text, onset and offset in seconds of each event asked for.
        figures: HTML of `player`.
    """
    spans: dict[str, list[str]] = {}
    for text, onset, offset in events:
        spans.setdefault(text, []).append(f'{onset:.2f}–{offset:.2f}')
    asked = '; '.join(
        f'{", ".join(at)} s' if text == prompt else f'{text} {", ".join(at)} s'
        for text, at in spans.items()
    )
    asked = f'<p class="asked">{html.escape(asked)}</p>' if asked else ''
    return (
        f'<section><h2>{html.escape(prompt)}</h2>{asked}\n'
        f'<div class="clips" style="--count: {len(figures)}">\n{chr(10).join(figures)}\n'
        '</div></section>'
    )


def player(
    label: str,
    description: str,
    sound: str,
    image: str,
    seconds: float,
    events: Sequence[tuple[float, float]],
) -> str:
    """One sound with its spectrogram.

    Args:
        label: what made it.
        description: for readers who do not see the drawing.
        sound, image: `data:` addresses; the image spans the whole sound.
        seconds: duration.
        events: onset and offset of each event asked for, in seconds.
    """
    spans = ''.join(
        f'<div class="event" style="left: {100 * onset / seconds:.2f}%; '
        f'width: {100 * (min(offset, seconds) - onset) / seconds:.2f}%"></div>'
        for onset, offset in events
    )
    return _PLAYER.substitute(
        label=html.escape(label),
        description=html.escape(description),
        sound=sound,
        image=image,
        events=spans,
        seconds=f'{seconds:.6g}',
    )


def details(title: str, metadata: Mapping[str, Any]) -> str:
    """A section of names and values."""
    items = ''.join(
        f'<dt>{html.escape(str(name))}</dt><dd>{html.escape(str(value))}</dd>'
        for name, value in metadata.items()
    )
    return f'<section><h2>{html.escape(title)}</h2><dl>{items}</dl></section>'
