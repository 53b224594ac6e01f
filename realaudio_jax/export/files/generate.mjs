// node generate.mjs "dog barking in the rain" --events="gunshot@2.3-2.8" --seconds=10 --out=dog.wav
// Needs onnxruntime-node:  npm install onnxruntime-node
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import * as ort from 'onnxruntime-node';

import { Tokenizer, generate, parseEvents, programFor, wav } from './realaudio.mjs';

const text = { type: 'string' };
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { events: text, seconds: text, seed: text, guidance: text, loudness: text, out: text },
});
const folder = dirname(fileURLToPath(import.meta.url));
const json = async (name) => JSON.parse(await readFile(join(folder, name), 'utf8'));

const about = await json('program.json');
const number = (name) => (values[name] === undefined ? undefined : Number(values[name]));
const request = {
  prompt: positionals.join(' '),
  events: parseEvents(values.events ?? ''),
  seconds: number('seconds') ?? about.programs.at(-1).seconds,
  seed: number('seed'),
  guidance: number('guidance'),
  loudness: number('loudness'),
};
const program = programFor(about, request.seconds);
const tokenizer = new Tokenizer(await json('tokenizer.json'));
let start = performance.now();
const session = await ort.InferenceSession.create(join(folder, program.onnx));
const loaded = performance.now() - start;
start = performance.now();
const sound = await generate(ort, session, about, program, tokenizer, request);
const ran = performance.now() - start;
await writeFile(values.out ?? 'sound.wav', wav(sound));
if (sound.lufs < about.silent_lufs) console.error('it came out silent: try another seed');
console.log(`${values.out ?? 'sound.wav'}: loaded in ${loaded.toFixed()} ms, made in ${ran.toFixed()} ms`);
