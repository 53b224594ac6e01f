// Text and a timeline to the inputs of an exported program, and its audio to a WAV file.
// No dependencies: the same file serves Node and browsers.

/** BERT's WordPiece tokenizer, from the object in tokenizer.json. */
export class Tokenizer {
  constructor(json) {
    this.vocab = new Map(Object.entries(json.model.vocab));
    this.prefix = json.model.continuing_subword_prefix;
    this.longest = json.model.max_input_chars_per_word;
    [this.start, this.end, this.unknown] = ['[CLS]', '[SEP]', '[UNK]'].map((t) => this.vocab.get(t));
  }

  words(text) {
    const clean = text
      .replace(/[\t\n\r]|\p{Zs}/gu, ' ')
      .replace(/[\u0000\ufffd]|\p{C}/gu, '')
      .replace(/[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u{20000}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu, ' $& ')
      .normalize('NFD')
      .replace(/\p{Mn}/gu, '')
      .toLowerCase();
    return clean.replace(/[!-/:-@[-`{-~]|\p{P}/gu, ' $& ').split(' ').filter(Boolean);
  }

  pieces(word) {
    const letters = [...word];
    const ids = [];
    if (letters.length > this.longest) return [this.unknown];
    for (let from = 0; from < letters.length; ) {
      let to = letters.length;
      const piece = () => (from ? this.prefix : '') + letters.slice(from, to).join('');
      while (to > from && !this.vocab.has(piece())) to--;
      if (to === from) return [this.unknown];
      ids.push(this.vocab.get(piece()));
      from = to;
    }
    return ids;
  }

  /** `count` ids: start, text, end, then 0; a text that is too long is cut. */
  encode(text, count) {
    const ids = [this.start, ...this.words(text).flatMap((word) => this.pieces(word))];
    const cut = [...ids.slice(0, count - 1), this.end];
    return [...cut, ...Array(count - cut.length).fill(0)];
  }
}

// Threefry-2x32 (Salmon et al. 2011), 20 rounds: two words of key and two of counter to two words.
function threefry([k0, k1], x0, x1) {
  const keys = [k0, k1, k0 ^ k1 ^ 0x1bd11bda];
  const turns = [[13, 15, 26, 6], [17, 29, 16, 24]];
  x0 = (x0 + keys[0]) | 0;
  x1 = (x1 + keys[1]) | 0;
  for (let round = 0; round < 5; round++) {
    for (const turn of turns[round % 2]) {
      x0 = (x0 + x1) | 0;
      x1 = ((x1 << turn) | (x1 >>> (32 - turn))) ^ x0;
    }
    x0 = (x0 + keys[(round + 1) % 3]) | 0;
    x1 = (x1 + keys[(round + 2) % 3] + round + 1) | 0;
  }
  return [x0, x1];
}

// Inverse error function (Giles 2010, single precision).
function inverseErf(x) {
  let w = -Math.log((1 - x) * (1 + x));
  const near = w < 5;
  const weights = near
    ? [2.81022636e-8, 3.43273939e-7, -3.5233877e-6, -4.39150654e-6, 0.00021858087, -0.00125372503,
       -0.00417768164, 0.246640727, 1.50140941]
    : [-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613,
       0.00943887047, 1.00167406, 2.83297682];
  w = near ? w - 2.5 : Math.sqrt(w) - 3;
  return weights.reduce((sum, weight) => sum * w + weight, 0) * x;
}

/** Standard normal noise of a seed, frame after frame: that of the same seed in Python. */
export function noise(seed, frames, channels) {
  const out = new Float32Array(frames * channels);
  const item = threefry(threefry([0, 0], 0, 0), 0, seed);
  const low = -0.9999999403953552; // the float32 after -1
  for (let frame = 0; frame < frames; frame++) {
    const key = threefry(item, 0, frame);
    for (let channel = 0; channel < channels; channel++) {
      const [a, b] = threefry(key, 0, channel);
      const unit = ((a ^ b) >>> 9) / 2 ** 23;
      const uniform = Math.max(low, Math.fround(unit * Math.fround(1 - low) + low));
      out[frame * channels + channel] = Math.SQRT2 * inverseErf(uniform);
    }
  }
  return out;
}

/** The frame of the watermark at which the sound of a seed starts, as in Python. */
export function tapeStart(seed) {
  const [a, b] = threefry(threefry([0, 24], 0, seed), 0, 0);
  return ((a ^ b) >>> 0) % 1024;
}

/** Events of 'gunshot@2.3-2.8; dog@4-6:-6': text, seconds from and to, and gain in dB. */
export function parseEvents(text) {
  return text.split(';').filter((part) => part.trim()).map((part) => {
    const found = /^\s*(.+?)\s*@\s*([\d.]+)\s*-\s*([\d.]+)\s*(?::\s*(-?[\d.]+)\s*)?$/.exec(part);
    if (!found) throw new Error(`event '${part.trim()}': write it as gunshot@2.3-2.8`);
    return { text: found[1], onset: +found[2], offset: +found[3], gain: +(found[4] ?? 0) };
  });
}

/** The program of a folder that is long enough. */
export function programFor(about, seconds) {
  const found = about.programs.find((program) => program.seconds >= seconds - 1e-6);
  if (!found || seconds < about.min_seconds) {
    const longest = about.programs.at(-1).seconds;
    throw new Error(`${seconds} s: choose ${about.min_seconds} to ${longest} s`);
  }
  return found;
}

/**
 * The inputs of a program, as [type, data, dims] by name.
 * @param request {prompt, events: [{text, onset, offset, gain}], seconds, seed, guidance, loudness}
 */
export function inputs(about, program, tokenizer, request) {
  const { events: most, event_tokens: words, text_tokens: tokens } = about.capacity;
  const { prompt = '', events = [], seconds, seed = 0 } = request;
  const guidance = request.guidance ?? about.guidance_scale;
  const [least, largest] = about.guidance_range;
  if (!(guidance >= least && guidance <= largest)) {
    throw new Error(`guidance ${guidance}: choose ${least} to ${largest}`);
  }
  if (!(Number.isInteger(seed) && seed >= 0 && seed < 2 ** 31)) {
    throw new Error(`seed ${seed}: choose a whole number from 0 to ${2 ** 31 - 1}`);
  }
  const loudness = request.loudness ?? about.loudness;
  if (!(Number.isNaN(loudness) || (loudness >= -70 && loudness <= 0))) {
    throw new Error(`loudness ${loudness}: choose -70 to 0 LUFS`);
  }
  if (events.length > most) throw new Error(`${events.length} events: choose ${most} at most`);
  for (const { text, onset, offset, gain = 0 } of events) {
    if (!text.trim()) throw new Error('an event has no text: say what sounds, such as dog bark');
    if (!(onset >= 0 && onset < offset && offset <= seconds + 1e-6)) {
      throw new Error(`event '${text}' from ${onset} to ${offset} s: not within ${seconds} s`);
    }
    if (!(gain >= -24 && gain <= 6)) throw new Error(`event '${text}' at ${gain} dB: choose -24 to 6 dB`);
  }
  const ids = prompt.trim() ? tokenizer.encode(prompt, tokens) : Array(tokens).fill(0);
  const eventIds = events.flatMap((event) => tokenizer.encode(event.text, words));
  const column = (name) => Array.from({ length: most }, (_, i) => events[i]?.[name] ?? 0);
  const floats = (values) => Float32Array.from(values);
  return {
    token_ids: ['int32', Int32Array.from(ids), [1, tokens]],
    event_ids: [
      'int32',
      Int32Array.from({ length: most * words }, (_, i) => eventIds[i] ?? 0),
      [1, most, words],
    ],
    onset_s: ['float32', floats(column('onset')), [1, most]],
    offset_s: ['float32', floats(column('offset')), [1, most]],
    gain_db: ['float32', floats(column('gain')), [1, most]],
    seconds: ['float32', floats([seconds]), [1]],
    guidance_scale: ['float32', floats([guidance]), [1]],
    target_lufs: ['float32', floats([loudness]), [1]],
    noise: [
      'float32',
      noise(seed, program.frames, about.latent_channels),
      [1, program.frames, about.latent_channels],
    ],
    tape_start: ['int32', Int32Array.from([tapeStart(seed)]), [1]],
  };
}

/**
 * One sound: {audio: Float32Array of left and right in turn, sampleRate, lufs}.
 * @param ort onnxruntime-node or onnxruntime-web; @param session of the program's ONNX file.
 */
export async function generate(ort, session, about, program, tokenizer, request) {
  const feeds = {};
  for (const [name, tensor] of Object.entries(inputs(about, program, tokenizer, request))) {
    if (session.inputNames.includes(name)) feeds[name] = new ort.Tensor(...tensor);
  }
  const { audio, lufs } = await session.run(feeds);
  const samples = Math.round(request.seconds * about.sample_rate);
  return {
    audio: audio.data.slice(0, 2 * samples),
    sampleRate: about.sample_rate,
    lufs: lufs.data[0],
  };
}

/** Throws what is wrong with a file of the folder, in one line. */
export function unreadable(name, error) {
  throw new Error(`${name} cannot be read: ${error.message.split('\n')[0]}; SHA256SUMS tells whether it is whole`);
}

/** A 16-bit stereo WAV file. */
export function wav({ audio, sampleRate }) {
  const bytes = new DataView(new ArrayBuffer(44 + 2 * audio.length));
  const text = (at, letters) => [...letters].forEach((l, i) => bytes.setUint8(at + i, l.charCodeAt(0)));
  text(0, 'RIFF');
  bytes.setUint32(4, 36 + 2 * audio.length, true);
  text(8, 'WAVEfmt ');
  bytes.setUint32(16, 16, true);
  bytes.setUint16(20, 1, true);
  bytes.setUint16(22, 2, true);
  bytes.setUint32(24, sampleRate, true);
  bytes.setUint32(28, 4 * sampleRate, true);
  bytes.setUint16(32, 4, true);
  bytes.setUint16(34, 16, true);
  text(36, 'data');
  bytes.setUint32(40, 2 * audio.length, true);
  audio.forEach((x, i) => bytes.setInt16(44 + 2 * i, Math.max(-32768, Math.min(32767, Math.round(x * 32768))), true));
  return new Uint8Array(bytes.buffer);
}
