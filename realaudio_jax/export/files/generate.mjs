// node generate.mjs "dog barking in the rain" --events="gunshot@2.3-2.8" --seconds=10 --out=dog.wav
// Needs onnxruntime-node:  npm install --ignore-scripts onnxruntime-node
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { Tokenizer, generate, inputs, parseEvents, programFor, unreadable, wav } from './realaudio.mjs';

const folder = dirname(fileURLToPath(import.meta.url));
const json = async (name) => {
  const text = await readFile(join(folder, name), 'utf8');
  try {
    return JSON.parse(text);
  } catch (error) {
    return unreadable(name, error);
  }
};

async function runtime() {
  try {
    return await import('onnxruntime-node');
  } catch (error) {
    if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error;
    throw new Error(`onnxruntime-node is not installed: run npm install --ignore-scripts onnxruntime-node in ${folder}`);
  }
}

async function main() {
  const text = { type: 'string' };
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { events: text, seconds: text, seed: text, guidance: text, loudness: text, out: text },
  });
  const number = (name) => {
    const found = values[name] === undefined ? undefined : Number(values[name] || NaN);
    if (Number.isNaN(found)) throw new Error(`--${name}=${values[name]}: give a number`);
    return found;
  };
  const about = await json('program.json');
  const request = {
    prompt: positionals.join(' '),
    events: parseEvents(values.events ?? ''),
    seconds: number('seconds') ?? about.programs.at(-1).seconds,
    seed: number('seed'),
    guidance: number('guidance'),
    loudness: number('loudness'),
  };
  const program = programFor(about, request.seconds);
  if (!program.onnx) throw new Error('there is no ONNX file here: export with --kinds=onnx');
  const tokenizer = new Tokenizer(await json('tokenizer.json'));
  inputs(about, program, tokenizer, request); // what cannot be is said before anything is loaded
  const ort = await runtime();
  let start = performance.now();
  const session = await ort.InferenceSession.create(join(folder, program.onnx))
    .catch((error) => unreadable(program.onnx, error));
  const loaded = performance.now() - start;
  start = performance.now();
  const sound = await generate(ort, session, about, program, tokenizer, request);
  const ran = performance.now() - start;
  const out = values.out ?? 'sound.wav';
  await writeFile(out, wav(sound));
  if (sound.lufs < about.silent_lufs) console.error('it came out silent: try another seed');
  console.log(`${out}: loaded in ${loaded.toFixed()} ms, made in ${ran.toFixed()} ms`);
}

main().catch((error) => {
  console.error(`error: ${error.message.split('\n')[0]}`);
  process.exitCode = 1;
});
