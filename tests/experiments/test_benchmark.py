"""The benchmark at a size of seconds: every system built tiny, and what the table says of it."""

import dataclasses
import json
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_audioldm2
import tiny_networks


@pytest.fixture
def benchmark(experiment):
    return experiment('benchmark')


def fake(systems, **changes):
    """Guided, ten steps of 20 ms each."""
    arguments = {
        'name': 'AudioLDM 2',
        'weights': systems.RANDOM,
        'steps': 10,
        'guided': True,
        'parameters': 7,
        'sample_rate': 16_000,
        'channels': 1,
        'made_s': 1.0,
        'flag': 'audioldm2',
        'text': lambda: jnp.zeros(1),
        'sample': lambda c, taken: time.sleep(0.02 * taken),
        'decode': lambda latents: jnp.ones(2),
        'encode': lambda: jnp.ones(3),
        **changes,
    }
    return systems.System(**arguments)


def figures(rows):
    return {row['name']: row['value'] for row in rows}


def test_a_part_of_the_sampler_is_measured_and_marked(benchmark):
    taken = []
    sleep = lambda c, steps: taken.append(steps) or time.sleep(0.02 * steps)  # noqa: E731
    system = fake(benchmark.systems, sample=sleep)
    found = benchmark.measure_system(system, 1.0, 4, 0.0, 1)
    assert taken == [2, 2]  # four evaluations, two a step; one call to compile, one to count
    assert 0.19 < figures(found)['time'] < 0.6 and figures(found)['evaluations'] == 20
    assert 0.19 < figures(found)['denoiser'] <= figures(found)['time']
    assert {row['extrapolated from evaluations'] for row in found} == {4}


def test_a_short_sampler_is_measured_whole(benchmark):
    found = benchmark.measure_system(fake(benchmark.systems), 2.0, 4, 60.0, 2)
    assert all('extrapolated from evaluations' not in row for row in found)
    assert 0.19 < figures(found)['time'] < 0.6
    assert figures(found)['real-time factor'] == pytest.approx(figures(found)['time'] / 2)
    assert {row['n'] for row in found if row['unit'] == 's' and row['name'] != 'made'} == {2}


def test_a_slow_part_is_called_twice(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, 'SLOW_S', 0.01)
    calls = []
    result, stats = benchmark.timed(lambda: calls.append(1) or time.sleep(0.02) or 'x', 9)
    assert len(calls) == 2 and stats.n == 1 and result == 'x'


@pytest.mark.parametrize('name', ['student', 'audioldm2', 'open', 'small'])
def test_parts_fit_together(benchmark, tiny_release, name):
    """From prompt to sound and back to latents, in shapes: nothing is compiled."""
    baselines = benchmark.baselines
    if name == 'student':
        system = benchmark.systems.this_model(str(tiny_release), 0.5, True, 2)
    elif name == 'audioldm2':
        networks = tiny_networks.AUDIOLDM2
        system = baselines.audioldm2_system(None, 0.1, 'float32', 3, networks)
    elif name == 'small':
        networks = tiny_networks.small_networks(baselines)
        system = baselines.stable_audio_3_system(None, 0.3, 'float32', 3, networks)
    else:
        networks = tiny_networks.open_networks(baselines)
        arguments = None, 0.001, 'float32', 3, False, networks
        system = baselines.stable_audio_open_system(*arguments)
    conditioning = jax.eval_shape(system.text)
    latents = jax.eval_shape(lambda c: system.sample(c, 1), conditioning)
    sound, encoded = jax.eval_shape(system.decode, latents), jax.eval_shape(system.encode)
    assert jax.tree.leaves(encoded)[0].shape == latents.shape and system.parameters > 0
    if name == 'student':
        assert sound.shape == (1, 26 * 1920, 2)  # of whole seconds, and an even number of frames
    else:
        assert sound.size == round(system.made_s * system.sample_rate) * system.channels
    if name == 'open':
        assert sound.shape == (1, 48, 2) and networks.frames(0.001, True) == 8
        with pytest.raises(ValueError, match='cannot make a clip of 10 s: choose up to 0.00145'):
            networks.frames(10.0, True)
    if name == 'small':
        assert sound.shape == (1, 384, 2) and system.evaluations_per_step == 1
        with pytest.raises(ValueError, match='cannot make a clip of 10 s: choose up to 4 s'):
            networks.frames(10.0)


def test_random_weights_give_finite_sound(benchmark):
    """Neither more nor fewer steps than asked for are taken."""
    networks = tiny_networks.open_networks(benchmark.baselines)
    arguments = None, 1e-3, 'float32', 3, True, networks
    system = benchmark.baselines.stable_audio_open_system(*arguments)
    parts = [system.sample(system.text(), steps) for steps in (1, 3)]
    assert np.abs(parts[0] - parts[1]).max() > 1e-3
    assert np.isfinite(system.decode(parts[1])).all() and np.isfinite(system.run()).all()


def test_a_published_model_from_its_folder(benchmark, tmp_path):
    """Its own tokenizer and weights; nothing is compiled."""
    folder = tiny_audioldm2.write(tmp_path)
    system = benchmark.baselines.audioldm2_system(str(folder), 0.1, 'float32', 2)
    stored = sum(path.stat().st_size for path in folder.rglob('*.safetensors'))
    assert system.weights == folder.name and 0.5 < 4 * system.parameters / stored < 1
    assert system.sounds is not None and system.sample_rate == 16_000


def test_sounds_of_a_published_model_are_stereo_at_48_khz(benchmark):
    class Model:
        def generate(self, prompts, seconds, steps, seed, frames):
            assert (prompts, steps, frames) == (['dog barks'], 2, 7)
            return np.full((1, round(16_000 * seconds)), 0.1 * seed, np.float32)

    sounds = benchmark.systems.published_sounds(Model(), 16_000, 2, frames=7)
    scene = benchmark.systems.Scene(np.zeros((0, 2), np.float32), 'dog barks', (), (), 0.5, None)
    found = list(sounds([scene, scene], 3))
    assert [sound.shape for sound in found] == [(24_000, 2)] * 2
    np.testing.assert_allclose([s[12_000] for s in found], [[0.3, 0.3], [0.4, 0.4]], atol=1e-3)


def test_quality_of_the_scenes_own_sound(benchmark, tower_release):
    """A system that returns what was asked for is at distance 0 by each judge."""
    system = fake(benchmark.systems, sounds=lambda scenes, seed: [s.audio for s in scenes])
    found = benchmark.quality_rows(system, str(tower_release), 4, 1.0, 0)
    assert [row['name'] for row in found] == ['FAD', 'CLAP score']
    assert all(row['n'] == 4 and row['embedder'].startswith('audio tower') for row in found)
    assert abs(found[0]['value']) < 1e-3 and -1 <= found[1]['value'] <= 1


def timed_row(model, system, runtime, value, **settings):
    row = {'name': 'time', 'value': value, 'unit': 's', 'model': model, 'steps': 20}
    return row | {'system': system, 'runtime': runtime} | settings


def test_the_table_has_ratios_stars_and_judges(benchmark, tmp_path):
    table = benchmark.benchmark_table
    rows = [
        timed_row('Open', 'open', 'jax', 6.0, **{'extrapolated from evaluations': 4}),
        timed_row('Open (torch, eager)', 'open', 'torch, eager', 8.0),
        timed_row('Open (torch, compiled)', 'open', 'torch, compiled', 'fails: no compiler'),
        timed_row('Open', 'open', 'jax', 40, **{'extrapolated from evaluations': 4})
        | {'name': 'evaluations', 'unit': ''},
        timed_row('Open', 'open', 'jax', 2.5, embedder='yamnet (abc)') | {'name': 'FAD'},
        timed_row('Open', 'open', 'jax', 3.5, embedder='audio tower (d)') | {'name': 'FAD'},
    ]
    (ratio,) = table.ratio_rows(rows)
    assert ratio['value'] == 0.75 and ratio['model'] == 'Open (torch, eager)'
    text = table.write_tables(rows, tmp_path, 10.0)
    assert '6*' in text and '8*' not in text
    assert 'Open: extrapolated from 4 of 40 evaluations' in text
    assert '2.5 (yamnet), 3.5 (audio tower)' in text and '0.75' in text
    assert '| not measured |' in text and '(torch, compiled): fails: no compiler.' in text
    assert (tmp_path / 'benchmark.md').read_text() == text
    assert (tmp_path / 'benchmark.png').read_bytes().startswith(b'\x89PNG')


def test_the_whole_command(benchmark, tiny_release, tmp_path, monkeypatch, capsys):
    """A measured row, a row without enough memory, and the files."""
    systems = benchmark.systems

    def build(folders, seconds, dtype):
        assert folders['release'] == str(tiny_release)
        return fake(systems)

    monkeypatch.setitem(benchmark.ROWS, 'audioldm2', build)
    monkeypatch.setitem(benchmark.ROWS, 'teacher', lambda *_: systems.require_memory(1e18))
    monkeypatch.setattr(
        benchmark, 'measure_row', lambda name, runtime, workdir: benchmark.row_here(name, runtime)
    )
    argv = [
        'benchmark',
        f'--release={tiny_release}',
        f'--workdir={tmp_path}',
        '--seconds=1',
        '--rows=audioldm2,teacher',
        '--limit_s=0',
        '--repeats=1',
    ]
    benchmark.flags.FLAGS(argv)
    benchmark.main(argv)
    text = (tmp_path / 'benchmark.md').read_text()
    assert text in capsys.readouterr().out
    measured, reported = text.split('Reported elsewhere, not measured')
    assert 'needs --audioldm2 and --scenes' in measured
    assert 'too little memory: needs about' in measured
    assert 'ElevenLabs Turbo' in reported and 'ElevenLabs' not in measured
    rows = json.loads((tmp_path / 'results.json').read_text())
    assert all(row.get('reported elsewhere') for row in rows if row['model'] == 'AudioLM')


def test_a_row_in_its_own_process(benchmark, tmp_path, monkeypatch):
    """Its flags, its figures; memory that is short is said in the row, a wrong folder ends all."""
    seen = []

    def process(code, error='', rows=None):
        def call(command, env, **kwargs):
            seen.append((command, env))
            if rows is not None:
                (tmp_path / 'row.json').write_text(json.dumps(rows))
            return subprocess.CompletedProcess([], code, '', error)

        monkeypatch.setattr(benchmark.subprocess, 'run', call)

    process(0, rows=[{'name': 'time', 'value': 1.0}])
    monkeypatch.setattr(benchmark.sys, 'argv', ['benchmark.py', '--seconds=2'])
    assert benchmark.measure_row('student', 'jax', tmp_path) == [{'name': 'time', 'value': 1.0}]
    assert seen[0][0][3:] == ['--seconds=2', '--row=student:jax', f'--workdir={tmp_path}']
    process(-9)
    (row,) = benchmark.measure_row('audioldm2', 'jax', tmp_path)
    assert row['value'] == 'too little memory' and row['system'] == 'audioldm2'
    process(1, "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: 9\n")
    (row,) = benchmark.measure_row('audioldm2', 'torch, eager', tmp_path)
    assert row['value'] == 'too little memory' and seen[-1][1]['JAX_PLATFORMS'] == 'cpu'
    process(1, 'warning\nerror: no folder x; check the name\n')
    with pytest.raises(ValueError, match='row audioldm2: no folder x; check the name'):
        benchmark.measure_row('audioldm2', 'jax', tmp_path)
    (row,) = benchmark.measure_row('audioldm2', 'torch, compiled', tmp_path)
    assert row['value'] == 'fails: error: no folder x; check the name'


def test_flags_that_cannot_be_served(benchmark, tmp_path, monkeypatch):
    def refused(*argv):
        argv = ['benchmark', f'--workdir={tmp_path}', *argv]
        benchmark.flags.FLAGS(argv)
        with pytest.raises(ValueError) as error:
            benchmark.main(argv)
        return str(error.value)

    assert "no row 'nobody'; there are student, teacher" in refused('--rows=student,nobody')
    assert 'no row named; there are student' in refused('--rows=')
    monkeypatch.setattr(
        benchmark.importlib.util, 'find_spec', lambda name: None if name == 'torch' else 'x'
    )
    wanted = '--torch needs torch: pip install "realaudio_jax[reference]"'
    assert refused('--rows=student', '--torch') == wanted


def test_the_model_at_paper_size_is_timed_as_a_release_is(benchmark, tiny_release):
    """Its parts, compiled one by one, make the sound of the whole program."""
    systems = benchmark.systems
    system = systems.paper_size(str(tiny_release), 1.0, 'bfloat16', 4, variant='test')
    pcm, diagnostics, latents = system.run()
    assert pcm.shape[1] >= 48_000 and diagnostics.finite.all() and latents.shape[1:] == (26, 64)
    chained = system.decode(system.sample(system.text(), 4))
    np.testing.assert_allclose(
        chained[0].astype(int), pcm[0][: len(chained[0])].astype(int), atol=400
    )
    assert system.weights == systems.RANDOM and not system.guided
    tiny = systems.this_model(str(tiny_release), 1.0, True, 4)
    assert system.parameters != tiny.parameters and tiny.weights == 'tiny'
    assert 'base' in benchmark.ROWS and 'base' not in benchmark.DEFAULT_ROWS
    paper = systems.paper_networks('bfloat16')
    assert paper.autoencoder.channels == paper.denoiser.channels == 128


def test_each_way_to_compute_the_model_makes_the_same_sound(benchmark, tiny_release):
    """Where its products are rounded, nearly; cuDNN's attention by the operation that XLA has."""
    systems = benchmark.systems
    plain = systems.Execution()

    def latents(**changes):
        how = dataclasses.replace(plain, **changes)
        systems.EXECUTIONS['other'] = how
        try:
            name = 'other'
            system = systems.paper_size(str(tiny_release), 1.0, 'float32', 4, 'test', name)
            pcm, diagnostics, latents = system.run()
        finally:
            del systems.EXECUTIONS['other']
        assert diagnostics.finite.all()
        return pcm.astype(float), latents

    pcm, exact = latents()
    fused_pcm, fused = latents(attention='xla', text=True, decode=True)
    np.testing.assert_allclose(fused, exact, atol=1e-4 * np.abs(exact).max())
    assert np.std(fused_pcm - pcm) < 0.01 * np.std(pcm)
    _, rounded = latents(int8=True)
    assert 1e-5 < np.std(rounded - exact) / np.std(exact) < 0.1
