// The page: a timeline that is dragged, drawn on and heard. What the server is asked for stands in
// `state`; everything that is seen is drawn from it by `show`.

import { Clip, LiveStream, audioContext, wavFile } from './audio.js';
import { drawSpectrogram } from './spectrogram.js';
import {
  FRAMES, GAINS, LEVELS, SHORTEST, clamped, fromFields, makeEvent, merged, painted, parseText, rounded, toFields, toText,
} from './timeline.js';

const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.hash.slice(1)).get('token');
const AHEAD_S = 0.45; // of a stream, made before it is played

const state = {
  prompt: $('prompt').value,
  seconds: 10,
  seed: 0,
  steps: 4,
  events: [makeEvent('dog bark', 2, 2.5), makeEvent('dog bark', 6, 6.5, -6), makeEvent('gunshot', 4, 4.6)],
  loudness: null, // or a value in dB for each frame
  keep: [],
  base: null, // what is kept of: a take
  takes: {}, // by steps: {pcm, rate, ms, asked, events, measured}
  selected: null, // name of an event
};
const sound = { clip: null, live: null, standing: [], pcm: null, wanted: 0 };
const times = { click: null, heard: null }; // ms; of the last click that made sound
window.demo = { state, sound, times };

// ---------------------------------------------------------------- what is asked for

function fields(steps) {
  const asked = {
    prompt: state.prompt, events: toFields(state.events), seconds: state.seconds, steps, seed: state.seed,
  };
  if (state.loudness) asked.loudness_db = state.loudness.map((x) => rounded(x, 0.1));
  return asked;
}

const isKeeping = () => state.keep.length > 0 && state.base !== null;
const asked = (steps) => JSON.stringify([fields(steps), isKeeping() ? [state.keep, state.base.asked] : null]);
const take = () => state.takes[state.steps];
const isFresh = (one, steps) => one !== undefined && one.asked === asked(steps);

let request = null; // the AbortController of the one that runs

/** Makes the sound of some steps; null where another request took its place, or it failed. */
async function make(steps) {
  request?.abort();
  const mine = new AbortController();
  request = mine;
  const key = asked(steps);
  const events = state.events.map((e) => ({ ...e }));
  const body = { ...fields(steps), format: 'pcm' };
  if (isKeeping()) {
    body.init_audio = await base64(wavFile(state.base.pcm, state.base.rate));
    body.keep = state.keep;
  }
  say(`Making it in ${steps} ${steps === 1 ? 'step' : 'steps'} …`);
  const begin = performance.now();
  try {
    const headers = { 'Content-Type': 'application/json', ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    const response = await fetch('generate', { method: 'POST', headers, body: JSON.stringify(body), signal: mine.signal });
    if (!response.ok) {
      say((await response.json()).error, true);
      return null;
    }
    const pcm = new Int16Array(await response.arrayBuffer());
    const rate = Number(response.headers.get('X-Sample-Rate'));
    const ms = Number(/generate;dur=([\d.]+)/.exec(response.headers.get('Server-Timing'))?.[1]);
    const made = { pcm, rate, ms, asked: key, events, measured: null };
    state.takes[steps] = made;
    const notes = response.headers.get('X-Notes');
    say(`${Math.round(performance.now() - begin)} ms, of which the model took ${Math.round(ms)}.${notes ? ` ${notes}` : ''}`);
    measure(made);
    show();
    return made;
  } catch (error) {
    if (error.name !== 'AbortError') say('The server does not answer; is it running?', true);
    return null;
  } finally {
    if (request === mine) request = null;
  }
}

async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = '';
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return btoa(text);
}

/** Asks the server when the events of a take really begin. */
async function measure(made) {
  if (!made.events.length) {
    made.measured = [];
    return;
  }
  const onsets = made.events.map((e) => e.onset).join(',');
  const headers = { 'Content-Type': 'application/octet-stream', ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  try {
    const response = await fetch(`demo/onsets?rate=${made.rate}&onsets=${onsets}`, { method: 'POST', headers, body: made.pcm });
    if (response.ok) made.measured = (await response.json()).measured;
  } catch {
    return; // the next request says that the server is gone
  }
  show();
}

let waiting = null;

/** After an edit: the stream is told, or the sound is made anew. */
function edited({ redraw = true } = {}) {
  if (redraw) show();
  $('text').value = toText(state.events);
  if (sound.live) {
    tellStream();
    return;
  }
  clearTimeout(waiting);
  if (take() || waiting) {
    waiting = setTimeout(() => {
      waiting = null;
      make(state.steps);
    }, 120);
  }
}

// ---------------------------------------------------------------- sound

async function generate() {
  times.click = performance.now();
  times.heard = null;
  stopAll();
  const [context, made] = await Promise.all([audioContext(), make(state.steps)]);
  if (made) playFrom(context, 0);
}

function playFrom(context, second) {
  const made = take() ?? { pcm: sound.pcm, rate: 48000 };
  if (!made.pcm) return;
  sound.clip?.stop();
  sound.clip = new Clip(context, made.pcm, made.rate, second, stopAll);
  heard(context);
  $('play').textContent = 'Stop';
  requestAnimationFrame(moveHead);
}

function heard(context) {
  if (times.click === null || times.heard !== null) return;
  times.heard = performance.now() - times.click + 1000 * (context.baseLatency + (context.outputLatency || 0));
  window.demo.times = { ...times };
}

function stopAll() {
  sound.clip?.stop();
  sound.clip = null;
  sound.live?.close();
  sound.live = null;
  $('play').textContent = 'Play';
  $('live').setAttribute('aria-pressed', 'false');
  $('made').hidden = true;
  $('head').hidden = true;
}

async function togglePlay() {
  if (sound.clip || sound.live) return stopAll();
  times.click = performance.now();
  times.heard = null;
  const context = await audioContext();
  if (!isFresh(take(), state.steps) && !(await make(state.steps))) return undefined;
  return playFrom(context, 0);
}

async function toggleLive() {
  if (sound.live) return stopAll();
  stopAll();
  times.click = performance.now();
  times.heard = null;
  $('live').setAttribute('aria-pressed', 'true');
  const context = await audioContext();
  const { seconds, ...rest } = fields(state.steps);
  const start = { ...rest, seconds, ahead: AHEAD_S, ...(token ? { token } : {}) };
  sound.standing = state.events.map((e) => ({ ...e }));
  sound.pcm = new Int16Array(2 * seconds * 48000);
  const mine = new LiveStream(context, start, {
    begins: () => heard(context),
    piece: (first, pcm, editable) => {
      sound.pcm.set(pcm, 2 * first);
      say(`Playing; what you drag beyond ${(editable / 48000).toFixed(1)} s is heard this time.`);
    },
    edited: () => { sound.standing = sound.wantedEvents; sound.refused = 0; },
    refused: (message) => {
      sound.refused = (sound.refused ?? 0) + 1;
      if (sound.refused < 3) tellStream();
      else say(message.error, true);
    },
    ended: () => {
      const events = sound.standing;
      const made = { pcm: sound.pcm, rate: 48000, ms: NaN, asked: 'live', events, measured: null };
      state.takes[state.steps] = made;
      stopAll();
      say('The end. What was heard stands below.');
      measure(made);
      show();
    },
    failed: (line) => {
      stopAll();
      say(line, true);
    },
  });
  sound.live = mine;
  requestAnimationFrame(moveHead);
  return undefined;
}

function tellStream() {
  sound.wantedEvents = merged(sound.standing, state.events, sound.live.editable / 48000 + 0.005);
  const curve = state.loudness ? { loudness_db: fields(state.steps).loudness_db } : {};
  sound.live.edit({ events: toFields(sound.wantedEvents), prompt: state.prompt, ...curve });
}

function moveHead() {
  const at = sound.live ? sound.live.played / 48000 : sound.clip?.position;
  if (at === undefined) return;
  const track = $('ruler').getBoundingClientRect();
  const left = track.left - $('editor').getBoundingClientRect().left;
  const place = (second) => left + (track.width * clamped(second, 0, state.seconds)) / state.seconds;
  $('head').hidden = false;
  $('head').style.left = `${place(at)}px`;
  $('made').hidden = !sound.live;
  if (sound.live) {
    $('made').style.left = `${left}px`;
    $('made').style.width = `${place(sound.live.editable / 48000) - left}px`;
  }
  requestAnimationFrame(moveHead);
}

// ---------------------------------------------------------------- what is seen

let sayTimer = null;

function say(line, isError = false) {
  clearTimeout(sayTimer);
  $('status').textContent = line;
  $('status').classList.toggle('error', isError);
}

const elements = new Map(); // of events, by name

function show() {
  showLanes();
  showInspector();
  showLoudness();
  showKeep();
  showTakes();
}

function showLanes() {
  const texts = [...new Set(state.events.map((e) => e.text))];
  const lanes = $('lanes');
  while (lanes.children.length > texts.length) lanes.lastChild.remove();
  while (lanes.children.length < texts.length) {
    const row = document.createElement('div');
    row.className = 'row';
    row.innerHTML = '<div class="name"></div><div class="track lane" role="group"></div>';
    row.lastChild.addEventListener('dblclick', addAt);
    lanes.append(row);
  }
  const names = new Set(state.events.map((e) => e.name));
  for (const [name, element] of elements) {
    if (!names.has(name)) {
      element.remove();
      elements.delete(name);
    }
  }
  texts.forEach((text, i) => {
    const [label, track] = lanes.children[i].children;
    label.textContent = text;
    track.setAttribute('aria-label', text);
    track.dataset.text = text;
  });
  for (const event of state.events) {
    const element = elements.get(event.name) ?? eventElement(event.name);
    const track = lanes.children[texts.indexOf(event.text)].lastChild;
    if (element.parentNode !== track) track.append(element);
    element.style.left = `${(100 * event.onset) / state.seconds}%`;
    element.style.width = `${(100 * (event.offset - event.onset)) / state.seconds}%`;
    element.querySelector('.gain').style.top = `${(100 * (GAINS[1] - event.gain)) / (GAINS[1] - GAINS[0])}%`;
    element.classList.toggle('selected', event.name === state.selected);
    element.setAttribute('aria-valuemax', state.seconds);
    element.setAttribute('aria-valuenow', event.onset);
    element.setAttribute('aria-valuetext', described(event));
    element.setAttribute('aria-label', event.text);
    element.title = described(event);
  }
}

function described(event) {
  return `${event.text}, ${event.onset.toFixed(2)} to ${event.offset.toFixed(2)} s, ${event.gain} dB`;
}

function eventElement(name) {
  const element = document.createElement('div');
  element.className = 'event';
  element.tabIndex = 0;
  element.setAttribute('role', 'slider');
  element.setAttribute('aria-valuemin', 0);
  element.innerHTML = '<div class="gain"></div><div class="edge left"></div><div class="edge right"></div>';
  element.addEventListener('focus', () => select(name));
  element.addEventListener('pointerdown', (e) => drag(e, name, element));
  element.addEventListener('keydown', (e) => press(e, name));
  elements.set(name, element);
  return element;
}

const found = (name) => state.events.find((e) => e.name === name);

function select(name) {
  state.selected = name;
  for (const [other, element] of elements) element.classList.toggle('selected', other === name);
  showInspector();
}

function showInspector() {
  const event = found(state.selected);
  for (const id of ['event-text', 'event-onset', 'event-offset', 'event-gain', 'remove']) $(id).disabled = !event;
  const values = event ? [event.text, event.onset, event.offset, event.gain] : ['', '', '', ''];
  ['event-text', 'event-onset', 'event-offset', 'event-gain'].forEach((id, i) => {
    if (document.activeElement !== $(id)) $(id).value = values[i];
  });
  const made = take();
  const index = event && made?.measured ? made.events.findIndex((e) => e.name === event.name) : -1;
  const at = index < 0 ? undefined : made.measured[index];
  if (at === undefined) $('measured').textContent = '';
  else if (at === null) $('measured').textContent = 'no onset was found near it';
  else {
    const late = Math.round(1000 * (at - made.events[index].onset));
    $('measured').textContent = `measured onset ${at.toFixed(3)} s, ${Math.abs(late)} ms ${late < 0 ? 'early' : 'late'}`;
  }
}

function showLoudness() {
  const canvas = $('loudness');
  const box = canvas.getBoundingClientRect();
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(box.width * scale));
  canvas.height = Math.max(1, Math.round(box.height * scale));
  const context = canvas.getContext('2d');
  const height = (x) => (canvas.height * (LEVELS[1] - x)) / (LEVELS[1] - LEVELS[0]);
  $('clear-loudness').hidden = !state.loudness;
  if (!state.loudness) {
    context.fillStyle = '#5c6670';
    context.font = `${12 * scale}px system-ui, sans-serif`;
    context.fillText('draw here; as it comes', 8 * scale, canvas.height / 2 + 4 * scale);
  } else {
    context.beginPath();
    state.loudness.forEach((x, i) => context.lineTo((canvas.width * (i + 0.5)) / state.loudness.length, height(x)));
    context.strokeStyle = '#1f5fbf';
    context.lineWidth = 2 * scale;
    context.stroke();
    context.lineTo(canvas.width, canvas.height);
    context.lineTo(0, canvas.height);
    context.fillStyle = 'rgb(31 95 191 / 12%)';
    context.fill();
  }
  if (document.activeElement === canvas) {
    context.fillStyle = '#5c6670';
    context.fillRect((canvas.width * pen.at) / state.seconds, 0, scale, canvas.height);
  }
  const level = state.loudness ? state.loudness[frameAt(pen.at)] : -30;
  canvas.setAttribute('aria-valuenow', Math.round(level));
  canvas.setAttribute('aria-valuetext', state.loudness ? `${Math.round(level)} dB at ${pen.at.toFixed(1)} s` : 'as it comes');
}

function showKeep() {
  const track = $('keep');
  track.replaceChildren(...state.keep.map(([from, to]) => {
    const span = document.createElement('div');
    span.className = 'span';
    span.style.left = `${(100 * from) / state.seconds}%`;
    span.style.width = `${(100 * (to - from)) / state.seconds}%`;
    return span;
  }));
  const cursor = document.createElement('div');
  cursor.className = 'cursor';
  cursor.style.left = `${(100 * brush.at) / state.seconds}%`;
  track.append(cursor);
  $('clear-keep').hidden = !state.keep.length;
  const spans = state.keep.map(([from, to]) => `${from} to ${to} s`).join(', ') || 'nothing';
  track.setAttribute('aria-valuenow', brush.at);
  track.setAttribute('aria-valuemax', state.seconds);
  track.setAttribute('aria-valuetext', `at ${brush.at.toFixed(1)} s; kept: ${spans}`);
}

let drawn = null; // whose spectrogram stands there

function showTakes() {
  const made = take();
  for (const input of document.querySelectorAll('input[name=steps]')) {
    const one = state.takes[input.value];
    const time = one && !Number.isNaN(one.ms) ? ` <small>${Math.round(one.ms)} ms</small>` : '';
    input.nextElementSibling.innerHTML = input.value + time;
  }
  $('play').disabled = !made && !sound.live;
  $('save-wav').disabled = !made;
  if (made && drawn !== made) {
    drawn = made;
    drawSpectrogram($('spectrogram'), made.pcm, made.rate, state.seconds);
  }
  const marks = [];
  const mark = (kind, second) => {
    const element = document.createElement(kind);
    element.style.left = `${(100 * second) / state.seconds}%`;
    marks.push(element);
  };
  for (const event of made?.events ?? []) mark('i', event.onset);
  for (const at of made?.measured ?? []) if (at !== null) mark('b', at);
  $('marks').replaceChildren(...marks);
  if (made) {
    const words = made.events.map((e, i) => {
      const at = made.measured?.[i];
      return `${e.text} asked at ${e.onset.toFixed(2)} s${at ? `, measured at ${at.toFixed(2)}` : ''}`;
    });
    $('spectrogram').setAttribute('aria-label', `Spectrogram; ${words.join('; ') || 'no events'}`);
  }
}

function showRuler() {
  const step = state.seconds > 5 ? 2 : 1;
  $('ruler').replaceChildren(...Array.from({ length: state.seconds / step + 1 }, (_, i) => {
    const mark = document.createElement('span');
    mark.textContent = i * step;
    mark.style.left = `${(100 * i * step) / state.seconds}%`;
    return mark;
  }));
}

// ---------------------------------------------------------------- events: pointer and keys

/** The second under a pointer. */
function secondAt(e, track) {
  const box = track.getBoundingClientRect();
  return clamped(((e.clientX - box.left) / box.width) * state.seconds, 0, state.seconds);
}

function drag(down, name, element) {
  if (down.button !== 0) return;
  down.preventDefault();
  element.focus();
  element.setPointerCapture(down.pointerId);
  const track = element.parentNode;
  const before = { ...found(name) };
  const grabbed = down.target.classList;
  const from = secondAt(down, track);
  let kind = ['left', 'right'].find((edge) => grabbed.contains(edge)) ?? (grabbed.contains('gain') ? null : 'whole');
  let isMoved = false;

  const move = (e) => {
    const event = found(name);
    const by = secondAt(e, track) - from;
    const [dx, dy] = [Math.abs(e.clientX - down.clientX), Math.abs(e.clientY - down.clientY)];
    if (dx + dy < 1) return;
    kind ??= dy > dx ? 'gain' : 'whole'; // who takes the line of the gain sideways means the event
    if (kind === 'gain') {
      const box = track.getBoundingClientRect();
      const steps = ((down.clientY - e.clientY) / box.height) * (GAINS[1] - GAINS[0]);
      event.gain = clamped(rounded(before.gain + steps, 0.5), ...GAINS);
    } else if (kind === 'left') {
      event.onset = clamped(rounded(before.onset + by), 0, before.offset - SHORTEST);
    } else if (kind === 'right') {
      event.offset = clamped(rounded(before.offset + by), before.onset + SHORTEST, state.seconds);
    } else {
      moveTo(event, before.onset + by);
    }
    isMoved = true;
    show();
  };
  const end = () => {
    element.removeEventListener('pointermove', move);
    element.removeEventListener('pointerup', end);
    element.removeEventListener('pointercancel', end);
    if (isMoved) edited();
  };
  element.addEventListener('pointermove', move);
  element.addEventListener('pointerup', end);
  element.addEventListener('pointercancel', end);
}

/** Moves an event, as long as it is. */
function moveTo(event, onset) {
  const length = event.offset - event.onset;
  event.onset = clamped(rounded(onset), 0, rounded(state.seconds - length));
  event.offset = rounded(event.onset + length);
}

function press(e, name) {
  const event = found(name);
  const step = e.altKey ? 0.01 : 0.05;
  const by = { ArrowLeft: -step, ArrowRight: step }[e.key];
  const louder = { ArrowDown: -1, ArrowUp: 1 }[e.key];
  if (by !== undefined && e.shiftKey) {
    event.offset = clamped(rounded(event.offset + by), event.onset + SHORTEST, state.seconds);
  } else if (by !== undefined) {
    moveTo(event, event.onset + by);
  } else if (louder !== undefined) {
    event.gain = clamped(event.gain + louder, ...GAINS);
  } else if (e.key === 'Delete' || e.key === 'Backspace') {
    remove(name);
  } else {
    return;
  }
  e.preventDefault();
  if (found(name)) edited();
}

function remove(name) {
  const index = state.events.findIndex((e) => e.name === name);
  state.events.splice(index, 1);
  const next = state.events[Math.min(index, state.events.length - 1)];
  state.selected = next?.name ?? null;
  edited();
  (elements.get(state.selected) ?? $('new-text')).focus();
}

function add(text, onset) {
  const begin = clamped(rounded(onset), 0, state.seconds - 0.5);
  const event = makeEvent(text, begin, rounded(begin + 0.5));
  state.events.push(event);
  state.selected = event.name;
  edited();
  elements.get(event.name).focus();
}

function addAt(e) {
  if (e.target === e.currentTarget) add(e.currentTarget.dataset.text, secondAt(e, e.currentTarget));
}

function addNew() {
  const text = $('new-text').value.trim() || $('new-text').placeholder;
  const last = Math.max(0, ...state.events.map((e) => e.offset));
  $('new-text').value = '';
  add(text, last + 0.5 <= state.seconds - 0.5 ? last + 0.5 : 0.5);
}

// ---------------------------------------------------------------- loudness and keep

const pen = { at: 0, last: null };
const brush = { at: 0 };
const frameAt = (second) => clamped(Math.floor(second * FRAMES), 0, state.seconds * FRAMES - 1);

function drawLoudness(from, to, level) {
  state.loudness ??= Array(state.seconds * FRAMES).fill(-30);
  const [a, b] = [frameAt(Math.min(from, to)), frameAt(Math.max(from, to))];
  for (let i = a; i <= b; i++) state.loudness[i] = clamped(level, ...LEVELS);
}

function loudnessPointer(down) {
  if (down.button !== 0) return;
  const canvas = $('loudness');
  down.preventDefault();
  canvas.focus();
  canvas.setPointerCapture(down.pointerId);
  let last = secondAt(down, canvas);
  const move = (e) => {
    const box = canvas.getBoundingClientRect();
    const level = LEVELS[1] - ((e.clientY - box.top) / box.height) * (LEVELS[1] - LEVELS[0]);
    pen.at = secondAt(e, canvas);
    drawLoudness(last, pen.at, level);
    last = pen.at;
    showLoudness();
  };
  const end = () => {
    canvas.removeEventListener('pointermove', move);
    edited();
  };
  move(down);
  canvas.addEventListener('pointermove', move);
  canvas.addEventListener('pointerup', end, { once: true });
}

function loudnessKey(e) {
  const by = { ArrowLeft: -0.2, ArrowRight: 0.2 }[e.key];
  const louder = { ArrowDown: -2, ArrowUp: 2 }[e.key];
  if (by !== undefined) pen.at = clamped(rounded(pen.at + by), 0, state.seconds - 0.2);
  else if (louder !== undefined) {
    const level = (state.loudness?.[frameAt(pen.at)] ?? -30) + louder;
    drawLoudness(pen.at, pen.at + 0.18, level);
    edited({ redraw: false });
  } else return;
  e.preventDefault();
  showLoudness();
}

function paint(from, to, keeps) {
  if (!state.keep.length && keeps) state.base = take() ?? null;
  state.keep = painted(state.keep, rounded(from), rounded(to), keeps);
  showKeep();
}

function keepPointer(down) {
  if (down.button !== 0) return;
  const track = $('keep');
  down.preventDefault();
  track.focus();
  if (!take() && !state.keep.length) {
    say('Generate first: the brush keeps parts of what was made.', true);
    return;
  }
  track.setPointerCapture(down.pointerId);
  const before = state.keep;
  const base = state.base;
  const from = secondAt(down, track);
  const keeps = !before.some(([a, b]) => a <= from && from <= b);
  const move = (e) => {
    const to = secondAt(e, track);
    state.keep = before;
    state.base = base;
    brush.at = rounded(to, 0.1);
    if (Math.abs(to - from) > 0.02) paint(Math.min(from, to), Math.max(from, to), keeps);
  };
  track.addEventListener('pointermove', move);
  track.addEventListener('pointerup', () => {
    track.removeEventListener('pointermove', move);
    keptSaid();
  }, { once: true });
}

function keepKey(e) {
  const by = { ArrowLeft: -0.2, ArrowRight: 0.2 }[e.key];
  if (by !== undefined) {
    brush.at = clamped(rounded(brush.at + by), 0, rounded(state.seconds - 0.2));
    showKeep();
  } else if (e.key === 'Enter') {
    if (!take() && !state.keep.length) say('Generate first: the brush keeps parts of what was made.', true);
    else {
      const middle = brush.at + 0.1;
      paint(brush.at, brush.at + 0.2, !state.keep.some(([a, b]) => a <= middle && middle <= b));
      keptSaid();
    }
  } else return;
  e.preventDefault();
}

function keptSaid() {
  say(state.keep.length ? 'The green part stays; change the rest, or the seed.' : 'Nothing is kept.');
}

// ---------------------------------------------------------------- files

function save(name, blob) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function open(file) {
  try {
    const given = JSON.parse(await file.text());
    const events = fromFields(given.events);
    setSeconds(given.seconds === 5 ? 5 : 10);
    Object.assign(state, {
      prompt: String(given.prompt ?? ''), seed: Number(given.seed ?? 0), steps: Number(given.steps ?? 4), events,
      loudness: given.loudness_db ?? null, keep: [], base: null, selected: null,
    });
    $('prompt').value = state.prompt;
    $('seed').value = state.seed;
    document.querySelector(`input[name=steps][value="${state.steps}"]`).checked = true;
    edited();
  } catch (error) {
    say(`${file.name} is no timeline: ${error.message}`, true);
  }
}

function setSeconds(seconds) {
  stopAll();
  state.seconds = seconds;
  $('seconds').value = seconds;
  state.events = state.events.filter((e) => e.onset < seconds - SHORTEST);
  for (const event of state.events) event.offset = Math.min(event.offset, seconds);
  Object.assign(state, { loudness: null, keep: [], base: null, takes: {} });
  pen.at = brush.at = 0;
  showRuler();
}

// ---------------------------------------------------------------- the page

function listen() {
  $('request').addEventListener('submit', (e) => e.preventDefault());
  $('inspector').addEventListener('submit', (e) => e.preventDefault());
  $('prompt').addEventListener('change', () => { state.prompt = $('prompt').value; edited(); });
  $('seed').addEventListener('change', () => {
    state.seed = clamped(Math.floor(Number($('seed').value) || 0), 0, 2147483647);
    $('seed').value = state.seed;
    edited();
  });
  $('new-seed').addEventListener('click', () => {
    state.seed = Math.floor(Math.random() * 1e6);
    $('seed').value = state.seed;
    edited();
  });
  $('seconds').addEventListener('change', () => { setSeconds(Number($('seconds').value)); edited(); });
  $('text').addEventListener('change', () => {
    const error = $('text-error');
    try {
      const events = parseText($('text').value);
      for (const e of events) if (e.offset > state.seconds) throw new Error(`“${e.text}” ends after ${state.seconds} s`);
      state.events = events;
      state.selected = null;
      error.hidden = true;
      $('text').removeAttribute('aria-invalid');
      edited();
    } catch (problem) {
      error.textContent = problem.message;
      error.hidden = false;
      $('text').setAttribute('aria-invalid', 'true');
    }
  });
  for (const input of document.querySelectorAll('input[name=steps]')) {
    input.addEventListener('change', async () => {
      state.steps = Number(input.value);
      show();
      if (sound.live) return;
      if (!isFresh(take(), state.steps) && !(await make(state.steps))) return;
      if (sound.clip) playFrom(await audioContext(), sound.clip.position); // goes on in the other
    });
  }
  $('compare').addEventListener('click', async () => {
    for (const steps of [1, 2, 4, 8]) {
      if (!isFresh(state.takes[steps], steps) && !(await make(steps))) return;
    }
    say('All four are there: choose one, also while it plays.');
  });
  $('generate').addEventListener('click', generate);
  $('play').addEventListener('click', togglePlay);
  $('live').addEventListener('click', toggleLive);
  $('save-wav').addEventListener('click', () => save('sound.wav', wavFile(take().pcm, take().rate)));
  $('save-json').addEventListener('click', () => {
    save('timeline.json', new Blob([JSON.stringify(fields(state.steps), null, 1)], { type: 'application/json' }));
  });
  $('open-json').addEventListener('click', () => $('file').click());
  $('file').addEventListener('change', () => { if ($('file').files[0]) open($('file').files[0]); $('file').value = ''; });
  $('add').addEventListener('click', addNew);
  $('new-text').addEventListener('keydown', (e) => { if (e.key === 'Enter') { e.preventDefault(); addNew(); } });
  const change = (id, apply) => $(id).addEventListener('change', () => {
    const event = found(state.selected);
    if (event) {
      apply(event, $(id).value);
      $(id).value = event[id.slice('event-'.length)];
      edited();
    }
  });
  change('event-text', (event, value) => { event.text = value.trim() || event.text; });
  change('event-onset', (event, value) => moveTo(event, Number(value)));
  change('event-offset', (event, value) => {
    event.offset = clamped(rounded(Number(value)), event.onset + SHORTEST, state.seconds);
  });
  change('event-gain', (event, value) => { event.gain = clamped(Number(value), ...GAINS); });
  $('remove').addEventListener('click', () => remove(state.selected));
  $('loudness').addEventListener('pointerdown', loudnessPointer);
  $('loudness').addEventListener('keydown', loudnessKey);
  $('loudness').addEventListener('focus', showLoudness);
  $('loudness').addEventListener('blur', showLoudness);
  $('clear-loudness').addEventListener('click', () => { state.loudness = null; edited(); });
  $('keep').addEventListener('pointerdown', keepPointer);
  $('keep').addEventListener('keydown', keepKey);
  $('clear-keep').addEventListener('click', () => { state.keep = []; state.base = null; edited(); });
  document.addEventListener('keydown', (e) => {
    if (e.key === ' ' && !/^(INPUT|SELECT|BUTTON|TEXTAREA|SUMMARY)$/.test(e.target.tagName)) {
      e.preventDefault();
      togglePlay();
    }
  });
  window.addEventListener('resize', show);
}

async function describeServer() {
  try {
    const health = await (await fetch('health')).json();
    $('about').textContent = `release ${health.release}, ${health.device}, watermark: ${health.watermark ?? 'none'}`;
  } catch {
    say('The server does not answer; is it running?', true);
  }
}

listen();
$('text').value = toText(state.events);
showRuler();
show();
describeServer();
