// Sound in the browser: clips, streams over the WebSocket, WAV files.

let shared = null;

/** The page's AudioContext; made at the first click, as browsers ask for. */
export async function audioContext(rate = 48000) {
  if (!shared) {
    shared = new AudioContext({ sampleRate: rate, latencyHint: 'interactive' });
    shared.workletReady = shared.audioWorklet.addModule('demo/worklet.js');
  }
  await Promise.all([shared.resume(), shared.workletReady]);
  return shared;
}

/** Both channels of interleaved 16-bit samples, as numbers from -1 to 1. */
export function channels(pcm) {
  const count = pcm.length / 2;
  const left = new Float32Array(count);
  const right = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    left[i] = pcm[2 * i] / 32768;
    right[i] = pcm[2 * i + 1] / 32768;
  }
  return [left, right];
}

/** A WAV file of interleaved 16-bit samples. */
export function wavFile(pcm, rate) {
  const head = new DataView(new ArrayBuffer(44));
  const text = (at, letters) => [...letters].forEach((c, i) => head.setUint8(at + i, c.charCodeAt(0)));
  text(0, 'RIFF');
  head.setUint32(4, 36 + pcm.byteLength, true);
  text(8, 'WAVEfmt ');
  head.setUint32(16, 16, true);
  head.setUint16(20, 1, true);
  head.setUint16(22, 2, true);
  head.setUint32(24, rate, true);
  head.setUint32(28, 4 * rate, true);
  head.setUint16(32, 4, true);
  head.setUint16(34, 16, true);
  text(36, 'data');
  head.setUint32(40, pcm.byteLength, true);
  return new Blob([head, pcm], { type: 'audio/wav' });
}

/** Plays a clip from a second on. */
export class Clip {
  constructor(context, pcm, rate, from, ended) {
    const buffer = context.createBuffer(2, pcm.length / 2, rate);
    channels(pcm).forEach((data, i) => buffer.copyToChannel(data, i));
    this.context = context;
    this.source = new AudioBufferSourceNode(context, { buffer });
    this.source.connect(context.destination);
    this.source.onended = ended;
    this.source.start(0, from);
    this.begin = context.currentTime - from;
  }

  get position() {
    return Math.max(0, this.context.currentTime - this.begin);
  }

  stop() {
    this.source.onended = null;
    this.source.stop();
    this.source.disconnect();
  }
}

/**
 * A stream of the server: plays it, says how far it has played, and edits it.
 *
 * `on` has functions: piece(first, pcm, editable), begins(), ended(), refused(message),
 * failed(line).
 */
export class LiveStream {
  constructor(context, start, on) {
    Object.assign(this, { context, on, played: 0, editable: 0, end: null, isOpen: true, edits: 0 });
    this.node = new AudioWorkletNode(context, 'stream-player', { numberOfInputs: 0, outputChannelCount: [2] });
    this.node.connect(context.destination);
    this.node.port.onmessage = ({ data }) => this.#isAt(data);
    const address = new URL('stream', location.href);
    address.protocol = address.protocol.replace('http', 'ws');
    address.hash = '';
    this.socket = new WebSocket(address);
    this.socket.binaryType = 'arraybuffer';
    this.socket.onopen = () => this.#say({ type: 'start', ...start });
    this.socket.onmessage = ({ data }) => this.#hear(data);
    this.socket.onclose = () => {
      if (this.isOpen && this.end === null) this.#fail('the connection to the server is gone');
    };
  }

  /** Puts a timeline in place; what comes of it arrives at `on`. */
  edit(fields) {
    this.edits += 1;
    this.#say({ type: 'edit', id: this.edits, ...fields });
  }

  close() {
    this.isOpen = false;
    this.node.disconnect();
    this.socket.close();
  }

  #say(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  #fail(line) {
    this.close();
    this.on.failed(line);
  }

  #isAt({ played, begins, runsDry }) {
    if (!this.isOpen) return;
    if (begins) this.on.begins();
    if (played !== this.played) this.#say({ type: 'played', frame: played });
    this.played = played;
    if (this.end !== null && played >= this.end) {
      this.close();
      this.on.ended();
    }
  }

  #hear(data) {
    if (!this.isOpen) return;
    if (data instanceof ArrayBuffer) {
      const head = new DataView(data);
      const number = (at) => Number(head.getBigUint64(at, true));
      const pcm = new Int16Array(data, 16);
      const [left, right] = channels(pcm);
      this.editable = number(8);
      this.node.port.postMessage({ left, right }, [left.buffer, right.buffer]);
      this.on.piece(number(0), pcm, this.editable);
      return;
    }
    const message = JSON.parse(data);
    if (message.from !== undefined) this.editable = message.from;
    if (message.type === 'ended') this.end = message.frames;
    else if (message.type === 'edited') this.on.edited(message);
    else if (message.type === 'refused') this.on.refused(message);
    else if (message.type === 'error') this.#fail(message.error);
  }
}
