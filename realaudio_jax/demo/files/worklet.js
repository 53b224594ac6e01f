// Plays the pieces of a stream one after another, in the audio thread, and says how far it is.

const EVERY = 8; // blocks of 128 frames between two reports

class StreamPlayer extends AudioWorkletProcessor {
  constructor() {
    super();
    this.pieces = []; // {left, right}: Float32Array
    this.offset = 0; // within the first piece
    this.played = 0; // frames
    this.blocks = 0;
    this.sounds = false;
    this.port.onmessage = ({ data }) => this.pieces.push(data);
  }

  process(inputs, [[left, right]]) {
    let filled = 0;
    while (filled < left.length && this.pieces.length) {
      const piece = this.pieces[0];
      const count = Math.min(left.length - filled, piece.left.length - this.offset);
      left.set(piece.left.subarray(this.offset, this.offset + count), filled);
      right.set(piece.right.subarray(this.offset, this.offset + count), filled);
      filled += count;
      this.offset += count;
      if (this.offset === piece.left.length) {
        this.pieces.shift();
        this.offset = 0;
      }
    }
    this.played += filled;
    const begins = filled > 0 && !this.sounds;
    if (begins) this.sounds = true;
    if (begins || ++this.blocks % EVERY === 0) {
      const runsDry = this.sounds && filled < left.length;
      this.port.postMessage({ played: this.played, begins, runsDry });
    }
    return true;
  }
}

registerProcessor('stream-player', StreamPlayer);
