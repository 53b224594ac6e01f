// Pictures of sound: log power over time and frequency.

const SIZE = 1024;
const ROWS = 128;
const LOW = 60; // Hz
const HIGH = 16000;
const RANGE = 75; // dB
const COLOURS = [[12, 14, 26], [42, 32, 92], [120, 42, 110], [206, 74, 78], [246, 158, 84], [252, 240, 190]];

/** Real FFT power of windowed samples, by a complex FFT in place. */
function powers(re, im, twiddles) {
  for (let i = 1, j = 0; i < SIZE; i++) {
    let bit = SIZE >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [re[i], re[j]] = [re[j], re[i]];
  }
  im.fill(0);
  for (let length = 2; length <= SIZE; length <<= 1) {
    const half = length >> 1;
    const stride = SIZE / length;
    for (let start = 0; start < SIZE; start += length) {
      for (let k = 0; k < half; k++) {
        const c = twiddles[2 * k * stride];
        const s = twiddles[2 * k * stride + 1];
        const a = start + k;
        const b = a + half;
        const x = re[b] * c - im[b] * s;
        const y = re[b] * s + im[b] * c;
        re[b] = re[a] - x;
        im[b] = im[a] - y;
        re[a] += x;
        im[a] += y;
      }
    }
  }
}

/** Draws interleaved 16-bit samples; what lies beyond them, up to `seconds`, stays dark. */
export function drawSpectrogram(canvas, pcm, rate, seconds) {
  const columns = 800;
  const context = canvas.getContext('2d');
  canvas.width = columns;
  canvas.height = ROWS;
  const image = context.createImageData(columns, ROWS);
  const window = Float32Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));
  const twiddles = Float32Array.from({ length: SIZE }, (_, i) => {
    const angle = (-2 * Math.PI * (i >> 1)) / SIZE;
    return i % 2 ? Math.sin(angle) : Math.cos(angle);
  });
  const bins = Array.from({ length: ROWS + 1 }, (_, i) => (LOW * (HIGH / LOW) ** (i / ROWS) * SIZE) / rate);
  const re = new Float32Array(SIZE);
  const im = new Float32Array(SIZE);
  const frames = pcm.length / 2;
  const levels = new Float32Array(columns * ROWS).fill(-200);
  let loudest = -60;
  for (let x = 0; x < columns; x++) {
    const middle = Math.round(((x + 0.5) / columns) * seconds * rate);
    if (middle >= frames) break;
    for (let i = 0; i < SIZE; i++) {
      const at = middle - SIZE / 2 + i;
      re[i] = at < 0 || at >= frames ? 0 : ((pcm[2 * at] + pcm[2 * at + 1]) / 65536) * window[i];
    }
    powers(re, im, twiddles);
    for (let row = 0; row < ROWS; row++) {
      const first = Math.floor(bins[row]);
      const last = Math.max(first + 1, Math.ceil(bins[row + 1]));
      let sum = 1e-12;
      for (let k = first; k < last; k++) sum += re[k] * re[k] + im[k] * im[k];
      const level = 10 * Math.log10(sum / (last - first));
      levels[x * ROWS + row] = level;
      loudest = Math.max(loudest, level);
    }
  }
  for (let x = 0; x < columns; x++) {
    for (let row = 0; row < ROWS; row++) {
      const share = Math.min(1, Math.max(0, 1 + (levels[x * ROWS + row] - loudest) / RANGE));
      const place = share * (COLOURS.length - 1);
      const low = Math.min(Math.floor(place), COLOURS.length - 2);
      const at = 4 * ((ROWS - 1 - row) * columns + x);
      for (let c = 0; c < 3; c++) {
        image.data[at + c] = COLOURS[low][c] + (place - low) * (COLOURS[low + 1][c] - COLOURS[low][c]);
      }
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}
