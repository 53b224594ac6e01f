"""The folder of an exported release: its programs make the sounds that the release makes."""

import functools
import http.server
import importlib.util
import json
import shutil
import subprocess
import threading

import numpy as np
import pytest

import realaudio_jax
from realaudio_jax import integrity
from realaudio_jax.export import folder as export_folder
from realaudio_jax.export.check import compare, requests
from realaudio_jax.export.program import inputs_of
from realaudio_jax.program import seed_noise

TEXTS = [
    'Dog barking, loudly!',
    '',
    'Café — naïve 雨 rain',
    'x' * 120,
    "don't stop: 3.5 s\tof\nit",
    'été',
]


@pytest.fixture(scope='module')
def generator(tiny_release):
    return realaudio_jax.load(tiny_release, log=lambda line: None)


@pytest.fixture(scope='module')
def exported(generator, tmp_path_factory):
    folder = tmp_path_factory.mktemp('export')
    export_folder.write(generator, folder, [1.0], steps=2, events=2, log=lambda line: None)
    return folder


@pytest.fixture(scope='module')
def files(generator, tmp_path_factory):
    """The same without the programs themselves."""
    folder = tmp_path_factory.mktemp('files')
    export_folder.write(
        generator, folder, [1.0], steps=2, events=2, kinds=[], log=lambda line: None
    )
    return folder


@pytest.fixture(scope='module')
def about(files):
    return json.loads((files / 'program.json').read_text())


def test_onnx_makes_the_sounds_of_the_release(generator, exported):
    pytest.importorskip('onnxruntime')
    (row,) = compare(generator, exported, 3)['programs']
    assert len(row['difference']) == 3 and max(row['difference']) < 1e-3


def test_jax_alone_makes_the_sounds_of_the_release(generator, exported, about):
    spec = importlib.util.spec_from_file_location('load_jax', exported / 'load_jax.py')
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    with pytest.raises(ValueError, match='no StableHLO program for 1.5 s'):
        loader.load(exported, 1.5)
    (call,) = requests(1, 1.0)
    inputs = inputs_of(generator, about, about['programs'][0], call)
    found = loader.load(exported, 1.0)(**inputs)
    want = generator.generate(**call, steps=2).audio
    assert np.abs(found['audio'][0, : len(want)] - want).max() < 1e-3 * np.abs(want).max()


def test_requests_are_no_shorter_than_a_sound_may_be():
    assert {call['seconds'] for call in requests(6, 0.5)} == {0.5}
    assert {call['seconds'] for call in requests(6, 2.0)} == {2.0, 1.8}


def test_the_folder_is_whole(files):
    assert integrity.verify(files)
    names = {path.name for path in files.iterdir()}
    assert {'NOTICE-text-encoder.txt', 'generate.mjs', 'index.html', 'tokenizer.json'} <= names


def test_steps_that_the_student_has_not(generator, tmp_path):
    with pytest.raises(ValueError, match='3 steps; choose one of 1, 2, 4, 8'):
        export_folder.write(generator, tmp_path, [1.0], steps=3)
    with pytest.raises(ValueError, match='17 events: choose 16'):
        export_folder.write(generator, tmp_path, [1.0], events=17)


def test_what_has_no_program_is_refused_before_a_folder_is_made(generator, tmp_path):
    whole = tmp_path / 'out'
    for given, line in (
        ({'seconds': [0.0]}, 'seconds=0: choose 0.5 to 10'),
        ({'seconds': []}, 'seconds=: give one or more'),
        ({'sample_rate': 32_000}, 'sample_rate=32000: choose 48000 or 44100'),
        ({'kinds': ['tflite']}, 'kinds=tflite: choose'),
        ({'generator': generator.in_precision('int8')}, 'products of int8 have no ONNX program'),
    ):
        call = {'generator': generator, 'folder': whole, 'seconds': [1.0], 'steps': 2} | given
        with pytest.raises(ValueError, match=line):
            export_folder.write(**call)
    assert not whole.exists()


def test_a_manifest_names_what_is_exported_alone(generator, tmp_path):
    (tmp_path / 'ort').mkdir()
    (tmp_path / 'ort' / 'ort.wasm.min.mjs').write_text('of the user')
    export_folder.write(generator, tmp_path, [1.0], steps=2, kinds=[], log=lambda line: None)
    listed = integrity.read_manifest(tmp_path)
    assert 'program.json' in listed and 'ort/ort.wasm.min.mjs' not in listed


@pytest.fixture(scope='module')
def in_node(files):
    """Runs lines of JavaScript beside realaudio.mjs; what they print as JSON."""
    node = shutil.which('node')
    if node is None:
        pytest.skip('no Node here')

    def run(lines: str):
        code = f"""import * as lib from '{files}/realaudio.mjs';
            import {{ readFileSync }} from 'node:fs';
            const json = (name) => JSON.parse(readFileSync('{files}/' + name, 'utf8'));
            {lines}"""
        command = [node, '--input-type=module', '-e', code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize(
    ('given', 'line'),
    [
        (['--seconds=20'], '20 s: choose 0.5 to 1 s'),
        (['--seconds=long'], '--seconds=long: give a number'),
        (['--events=gunshot'], "event 'gunshot': write it as gunshot@2.3-2.8"),
        (['--steps=4'], "Unknown option '--steps'"),
        ([], 'there is no ONNX file here: export with --kinds=onnx'),
    ],
)
def test_a_mistake_in_the_node_command_is_one_line(files, given, line):
    node = shutil.which('node')
    if node is None:
        pytest.skip('no Node here')
    command = [node, files / 'generate.mjs', 'rain', *given]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith(f'error: {line}')
    assert done.stderr.count('\n') == 1 and not done.stdout


def test_node_names_a_file_that_is_cut_short(files, tmp_path):
    node = shutil.which('node')
    if node is None:
        pytest.skip('no Node here')
    shutil.copytree(files, tmp_path / 'cut')
    (tmp_path / 'cut' / 'program.json').write_text('{"programs": [')
    command = [node, tmp_path / 'cut' / 'generate.mjs', 'rain']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count('\n') == 1
    assert done.stderr.startswith('error: program.json cannot be read: ')


@pytest.mark.parametrize(
    ('field', 'line'),
    [
        ('seed: 1.5', 'seed 1.5: choose a whole number from 0 to 2147483647'),
        ('guidance: 9', 'guidance 9: choose 1 to 4'),
        ('loudness: 5', 'loudness 5: choose -70 to 0 LUFS'),
        (
            "events: lib.parseEvents('dog@0.1-0.2:60')",
            "event 'dog' at 60 dB: choose -24 to 6 dB",
        ),
        (
            "events: lib.parseEvents('dog@0.1-0.2:-.')",
            "event 'dog' at NaN dB: choose -24 to 6 dB",
        ),
        (
            "events: lib.parseEvents(' @0.1-0.2')",
            'an event has no text: say what sounds, such as dog bark',
        ),
    ],
)
def test_javascript_refuses_what_python_does(in_node, field, line):
    found = in_node(
        f"""const about = json('program.json');
        const tokenizer = new lib.Tokenizer(json('tokenizer.json'));
        let found = '';
        try {{
          lib.inputs(about, lib.programFor(about, 1), tokenizer, {{ seconds: 1, {field} }});
        }} catch (error) {{ found = error.message; }}
        console.log(JSON.stringify(found));"""
    )
    assert found == line


@pytest.fixture
def page(files, chromium):
    """`page()` is the exported page's address, served with what lies in the folder by then."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=files)
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        opened = chromium.new_page()
        try:
            yield lambda: opened.goto(f'http://127.0.0.1:{server.server_port}/') and opened
        finally:
            opened.close()
            server.shutdown()


def test_the_page_says_what_it_lacks(page, files):
    status = '[role=status]:has-text("Error")'
    text = page().text_content(status, timeout=10_000)
    assert text.startswith('Error: onnxruntime-web is not here: README.md says which')
    (files / 'ort').mkdir()
    (files / 'ort' / 'ort.wasm.min.mjs').write_text('export const nothing = 0;')
    text = page().text_content(status, timeout=10_000)
    assert text == 'Error: there is no ONNX file here: export with --kinds=onnx'
    about = (files / 'program.json').read_text()
    (files / 'program.json').write_text(about[:100])
    text = page().text_content(status, timeout=10_000)
    (files / 'program.json').write_text(about)
    assert text.startswith('Error: program.json cannot be read: ')


def test_javascript_reads_texts_as_python_does(in_node, generator):
    found = in_node(
        f"""const tokenizer = new lib.Tokenizer(json('tokenizer.json'));
        const found = {json.dumps(TEXTS)}.map((text) => tokenizer.encode(text, 12));
        console.log(JSON.stringify(found));"""
    )
    np.testing.assert_array_equal(found, generator.tokenizer.encode(TEXTS, 12)[0])


def test_javascript_draws_the_noise_of_a_seed(in_node):
    found = in_node('console.log(JSON.stringify([...lib.noise(2147483647, 25, 64)]))')
    np.testing.assert_allclose(found, seed_noise(2**31 - 1, 25).reshape(-1), 2e-6, 2e-6)


@pytest.mark.parametrize('prompt', ['rain', ' '])
def test_javascript_makes_the_inputs_of_a_request(in_node, generator, about, prompt):
    call = {
        'prompt': prompt,
        'events': 'dog@0.5-0.9:-6; gunshot@0.1-0.2',
        'seconds': 1.0,
        'seed': 7,
    }
    found = in_node(
        f"""const about = json('program.json'); const call = {json.dumps(call)};
        call.events = lib.parseEvents(call.events);
        const program = lib.programFor(about, 1);
        const tokenizer = new lib.Tokenizer(json('tokenizer.json'));
        const made = lib.inputs(about, program, tokenizer, call);
        for (const name in made) made[name] = [...made[name][1]];
        console.log(JSON.stringify(made));"""
    )
    call['events'] = [('dog', 0.5, 0.9, -6.0), ('gunshot', 0.1, 0.2)]
    want = inputs_of(generator, about, about['programs'][0], call)
    assert found.keys() == want.keys()
    for name, values in want.items():
        np.testing.assert_allclose(found[name], values.reshape(-1), 2e-6, 2e-6, err_msg=name)
