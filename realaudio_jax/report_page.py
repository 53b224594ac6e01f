"""The HTML of a report: templates, style and the players' behaviour; every text is escaped."""

import html
import string
from collections.abc import Mapping, Sequence
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1b22; --soft: #5d5b68; --paper: #fafafc; --card: #fff;
  --line: #dddbe4; --accent: #6c2ea0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #eceaf0; --soft: #a9a6b5; --paper: #121117; --card: #1c1b23; --line: #35333f;
    --accent: #d3a8f5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1500px; padding: 2rem clamp(1rem, 4vw, 3rem) 4rem;
  color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; text-wrap: balance; }
h2 { font-size: 1.15rem; line-height: 1.3; margin: 0 0 .7rem; overflow-wrap: anywhere; }
h3 { font-size: .95rem; margin: 0; font-weight: 600; }
.intro { max-width: 75ch; color: var(--soft); margin: 0; white-space: pre-line; }
section { margin-top: 2.2rem; }
.note { color: var(--soft); font-size: .875rem; margin: .5rem 0 0; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 10px;
  background: var(--card); width: fit-content; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .9rem; text-align: right; white-space: nowrap; }
th { font-weight: 600; vertical-align: bottom; }
thead th { white-space: normal; max-width: 12em; border-bottom: 1px solid var(--line);
  color: var(--soft); }
tbody tr + tr > * { border-top: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
.clips { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  overflow: hidden; }
figcaption { display: flex; align-items: center; justify-content: space-between; gap: .8rem;
  padding: .5rem .5rem .5rem .9rem; }
audio { height: 36px; width: min(300px, 62%); }
.drawing { position: relative; background: #14131a; cursor: pointer; }
.drawing img { display: block; width: 100%; height: auto; }
.head { position: absolute; top: 0; bottom: 0; width: 2px; margin-left: -1px; background: #fff;
  opacity: 0; pointer-events: none; left: calc(var(--left) * 100%); }
.head.on { opacity: .9; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.5rem; margin: 0;
  font-size: .9rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: .85rem; }
@media (max-width: 640px) {
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .6rem; } }
"""

# One sound at a time; a line over the spectrogram follows it; a click there goes to that time.
_BEHAVIOUR = """
const left = $left, right = $right;
for (const figure of document.querySelectorAll('figure')) {
  const audio = figure.querySelector('audio'), drawing = figure.querySelector('.drawing');
  const head = figure.querySelector('.head'), seconds = Number(figure.dataset.seconds);
  const draw = () => {
    const part = left + (right - left) * Math.min(1, audio.currentTime / seconds);
    head.style.left = 100 * part + '%';
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
    const part = event.offsetX / drawing.clientWidth;
    audio.currentTime = seconds * Math.min(1, Math.max(0, (part - left) / (right - left)));
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
$intro
$body
</main>
<script>$behaviour</script>
</body>
</html>
""")

_PLAYER = string.Template("""<figure data-seconds="$seconds">
<figcaption><h3>$label</h3>
<audio controls preload="metadata" src="$sound" aria-label="$label"></audio></figcaption>
<div class="drawing"><img src="$image" alt="$description"><div class="head"></div></div>
</figure>""")


def page(title: str, intro: str, body: Sequence[str], time_axis: tuple[float, float]) -> str:
    """The whole document.

    Args:
        title: plain text.
        intro: plain text; its line breaks stay.
        body: HTML of `table`, `section` and `details`.
        time_axis: where time begins and ends in a spectrogram, as parts of its width.
    """
    left, right = time_axis
    return _PAGE.substitute(
        title=html.escape(title),
        style=_STYLE.replace('var(--left)', f'{left:g}'),
        intro=f'<p class="intro">{html.escape(intro)}</p>' if intro else '',
        body='\n'.join(body),
        behaviour=string.Template(_BEHAVIOUR).substitute(left=f'{left:g}', right=f'{right:g}'),
    )


def table(title: str, headings: Sequence[str], lines: Sequence[Sequence[str]], note: str) -> str:
    """A section with a table; the first cell of a line heads it."""
    head = ''.join(f'<th scope="col">{html.escape(text)}</th>' for text in headings)
    rows = []
    for first, *others in lines:
        cells = ''.join(f'<td>{html.escape(text)}</td>' for text in others)
        rows.append(f'<tr><th scope="row">{html.escape(first)}</th>{cells}</tr>')
    under = f'<p class="note">{html.escape(note)}</p>' if note else ''
    return (
        f'<section><h2>{html.escape(title)}</h2><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{html.escape(title)}"><table><thead><tr>{head}</tr></thead>\n'
        f'<tbody>\n{chr(10).join(rows)}\n</tbody></table></div>{under}</section>'
    )


def section(title: str, figures: Sequence[str]) -> str:
    """Players of one prompt, side by side."""
    return (
        f'<section><h2>{html.escape(title)}</h2>\n<div class="clips">\n{chr(10).join(figures)}\n'
        '</div></section>'
    )


def player(label: str, description: str, sound: str, image: str, seconds: float) -> str:
    """One sound with its spectrogram.

    Args:
        label: what made it.
        description: for readers who do not see the drawing.
        sound, image: `data:` addresses.
        seconds: duration.
    """
    return _PLAYER.substitute(
        label=html.escape(label),
        description=html.escape(description),
        sound=sound,
        image=image,
        seconds=f'{seconds:.6g}',
    )


def details(title: str, metadata: Mapping[str, Any]) -> str:
    """A section of names and values."""
    items = ''.join(
        f'<dt>{html.escape(str(name))}</dt><dd>{html.escape(str(value))}</dd>'
        for name, value in metadata.items()
    )
    return f'<section><h2>{html.escape(title)}</h2><dl>{items}</dl></section>'
