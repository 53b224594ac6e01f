// Timelines: events, their short form as text, and what a server is asked for.

export const GAINS = [-24, 6]; // dB
export const LEVELS = [-60, 0]; // dB, of the loudness curve as drawn
export const FRAMES = 25; // values of the loudness curve in a second
export const SHORTEST = 0.05; // s

const NUMBER = '[-+]?(?:\\d+\\.?\\d*|\\.\\d+)';
const SPAN = new RegExp(`^\\s*(${NUMBER})\\s*s?\\s*-\\s*(${NUMBER})\\s*s?\\s*(?::\\s*(${NUMBER})\\s*db\\s*)?$`, 'i');
let names = 0;

export const rounded = (x, step = 0.01) => Number((Math.round(x / step) * step).toFixed(3));
export const clamped = (x, low, high) => Math.min(high, Math.max(low, x));

export function makeEvent(text, onset, offset, gain = 0) {
  names += 1;
  return { name: `e${names}`, text, onset, offset, gain };
}

/** Events of 'dog bark@1-1.4:-6dB,3-3.4; wind@0-5'; an Error says what cannot be read. */
export function parseText(text) {
  const events = [];
  for (const part of text.split(';').filter((x) => x.trim())) {
    const at = part.lastIndexOf('@');
    if (at < 0) throw new Error(`“${part.trim()}” has no @: write text@from-to in seconds`);
    const what = part.slice(0, at).trim();
    if (!what) throw new Error(`“${part.trim()}” has no text before the @`);
    for (const span of part.slice(at + 1).split(',')) {
      const found = SPAN.exec(span);
      if (!found) throw new Error(`“${span.trim()}” is no time span: write from-to, or from-to:gaindB`);
      const [onset, offset, gain] = found.slice(1).map((x) => Number(x ?? 0));
      if (offset <= onset) throw new Error(`“${what}” does not end after it starts`);
      events.push(makeEvent(what, onset, offset, gain));
    }
  }
  return events;
}

/** The short form of events. */
export function toText(events) {
  const spans = new Map();
  for (const event of events) {
    const gain = event.gain ? `:${event.gain}dB` : '';
    const span = `${rounded(event.onset)}-${rounded(event.offset)}${gain}`;
    spans.set(event.text, [...(spans.get(event.text) ?? []), span]);
  }
  return [...spans].map(([text, list]) => `${text}@${list.join(',')}`).join('; ');
}

/** Events as the server takes them. */
export function toFields(events) {
  return events.map((e) => ({ text: e.text, onset_s: e.onset, offset_s: e.offset, gain_db: e.gain }));
}

/** Events from a file: short form, list or list of lists. */
export function fromFields(events) {
  if (typeof events === 'string') return parseText(events);
  return (events ?? []).map((e) => (Array.isArray(e)
    ? makeEvent(...e)
    : makeEvent(e.text, e.onset_s, e.offset_s, e.gain_db ?? 0)));
}

/** Spans with a new one painted over them, or [from, to] taken out of them; sorted, joined. */
export function painted(spans, from, to, keeps) {
  const cut = spans.flatMap(([a, b]) => [[a, Math.min(b, from)], [Math.max(a, to), b]]).filter(([a, b]) => b - a > 0.005);
  if (keeps) cut.push([from, to]);
  cut.sort((x, y) => x[0] - y[0]);
  const joined = [];
  for (const [a, b] of cut) {
    const last = joined.at(-1);
    if (last && a <= last[1] + 0.005) last[1] = Math.max(last[1], b);
    else joined.push([a, b]);
  }
  return joined.map(([a, b]) => [rounded(a), rounded(b)]);
}

/**
 * The timeline that may be asked of a stream: what it has already made stays as it is, later events
 * are those of the editor.
 */
export function merged(standing, wanted, editable) {
  const past = standing.filter((e) => e.onset < editable).map((e) => {
    const now = wanted.find((w) => w.name === e.name);
    const grows = now && now.onset === e.onset && now.text === e.text && now.gain === e.gain;
    return grows && Math.min(now.offset, e.offset) > editable ? { ...e, offset: now.offset } : e;
  });
  const gone = new Set(past.map((e) => e.name));
  return [...past, ...wanted.filter((e) => e.onset >= editable && !gone.has(e.name)).map((e) => ({ ...e }))];
}
