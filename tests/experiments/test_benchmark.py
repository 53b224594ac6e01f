"""The benchmark at a size of seconds: every system built tiny, and what the table says of it."""

import json
import subprocess
import time

import jax
import jax.numpy as jnp
import pytest
import tiny_audioldm2

from realaudio_jax.teachers import t5
from realaudio_jax.teachers.audioldm2 import pipeline
from realaudio_jax.teachers.stable_audio_open import conditioners, denoise, oobleck, transformer


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tiny_audioldm2.write(tmp_path_factory.mktemp('audioldm2'))


@pytest.fixture
def benchmark(experiment):
    return experiment('benchmark')


def fake(systems, **changes):
    """Guided, ten steps of 20 ms each."""
    arguments = {
        'name': 'AudioLDM 2', 'weights': systems.RANDOM, 'steps': 10, 'guided': True,
        'parameters': 7, 'sample_rate': 16_000, 'channels': 1, 'made_s': 1.0,
        'text': lambda: jnp.zeros(1), 'sample': lambda c, taken: time.sleep(0.02 * taken),
        'decode': lambda latents: jnp.ones(2), 'encode': lambda: jnp.ones(3), **changes,
    }  # fmt: skip
    return systems.System(**arguments)


def figures(rows):
    return {row['name']: row['value'] for row in rows}


def test_a_part_of_the_sampler_is_measured_and_marked(benchmark):
    taken = []
    sleep = lambda c, steps: taken.append(steps) or time.sleep(0.02 * steps)  # noqa: E731
    system = fake(benchmark.systems, sample=sleep)
    rows = benchmark.measure_system(system, 1.0, 4, 0.0, 1)
    assert set(taken) == {2}  # four evaluations, two a step
    assert 190 < figures(rows)['time'] < 600 and figures(rows)['evaluations'] == 20
    assert {row['extrapolated from evaluations'] for row in rows} == {4}
    assert figures(rows)['FAD'] == 'needs --audioldm2'


def test_a_short_sampler_is_measured_whole(benchmark):
    rows = benchmark.measure_system(fake(benchmark.systems), 2.0, 4, 60.0, 1)
    found = figures(rows)
    assert {row['extrapolated from evaluations'] for row in rows} == {'no'}
    assert 190 < found['time'] < 600
    assert found['real-time factor'] == pytest.approx(found['time'] / 2000)


@pytest.mark.parametrize('name', ['student', 'audioldm2', 'stable_audio_open'])
def test_tiny_systems_make_sound(benchmark, tiny_release, folder, name):
    """Each is sampled part of the way and whole, and its parts fit together."""
    systems = benchmark.systems
    if name == 'student':
        system = systems.this_model(str(tiny_release), 1.0, True, 2)
    elif name == 'audioldm2':
        networks = pipeline.read_networks(folder)[0]
        system = systems.audioldm2_system(None, 0.3, 'float32', 3, networks)
    else:
        predictors = denoise.Networks(
            transformer.Transformer(
                channels=4, frames=8, depth=1, heads=2, key_heads=1, head_width=8,
                context_width=6, context_input=6, timing_input=12, level_features=4,
            ),
            conditioners.Projection(text_width=5, width=6),
        )  # fmt: skip
        networks = systems.OpenNetworks(
            predictors,
            oobleck.Oobleck(8, 8, (2, 4), (1, 2), 4),
            t5.T5Encoder(20, 5, 3, 8, 1, 2),
        )
        system = systems.stable_audio_open_system(None, 0.001, 'float32', 3, networks)
    conditioning = system.text()
    part = system.sample(conditioning, 1)
    assert part.shape == system.sample(conditioning, system.steps).shape
    for sound in (system.run(), system.decode(part), system.encode()):
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(sound))
    assert system.parameters > 0 and system.channels in (1, 2)


def test_the_whole_command(benchmark, tiny_release, tmp_path, monkeypatch, capsys):
    """A measured row, a row without enough memory, and the files."""
    systems = benchmark.systems

    def build(name, folders, seconds, dtype):
        assert folders['release'] == str(tiny_release)
        if name == 'teacher':
            systems.require_memory(1e18)
        return fake(systems, name=name)

    monkeypatch.setattr(systems, 'build', build)

    def here(name, arguments, workdir):
        path = workdir / 'row.json'
        folders = {'release': arguments[0].removeprefix('--release=')}
        benchmark.write_row(name, folders, 1.0, 'float32', 2, 0.0, 1, path)
        return json.loads(path.read_text())

    monkeypatch.setattr(benchmark, 'measure_row', here)
    argv = [
        'benchmark', f'--release={tiny_release}', f'--workdir={tmp_path}', '--rows=student,teacher'
    ]  # fmt: skip
    benchmark.flags.FLAGS(argv)
    benchmark.main(argv)
    table = (tmp_path / 'benchmark.md').read_text()
    assert table in capsys.readouterr().out
    measured, reported = table.split('Reported elsewhere, not measured:')
    assert 'student' in measured and 'too little memory: needs about' in measured
    assert 'ElevenLabs Turbo' in reported and 'ElevenLabs' not in measured
    assert (tmp_path / 'benchmark.png').read_bytes().startswith(b'\x89PNG')
    rows = json.loads((tmp_path / 'results.json').read_text())
    assert all(row.get('reported elsewhere') for row in rows if row['model'] == 'AudioLM')


def test_a_killed_row_says_so_and_a_wrong_folder_ends_it(benchmark, tmp_path, monkeypatch):
    def process(code, error=''):
        result = subprocess.CompletedProcess([], code, '', error)
        monkeypatch.setattr(benchmark.subprocess, 'run', lambda *a, **k: result)

    process(-9)
    (row,) = benchmark.measure_row('audioldm2', [], tmp_path)
    assert row['value'] == 'too little memory' and row['model'] == 'audioldm2'
    process(1, 'warning\nno folder x; check the name\n')
    with pytest.raises(ValueError, match='row audioldm2: no folder x; check the name'):
        benchmark.measure_row('audioldm2', [], tmp_path)


def test_unknown_row(benchmark, tmp_path):
    argv = ['benchmark', '--rows=student,nobody', f'--workdir={tmp_path}']
    benchmark.flags.FLAGS(argv)
    with pytest.raises(ValueError, match="no row 'nobody'; there are student, teacher"):
        benchmark.main(argv)
