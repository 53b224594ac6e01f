import copy
import glob
import os
import pathlib
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from absl import flags
from absl.testing import flagsaver

import realaudio_jax
from experiments import common
from realaudio_jax.io import write_audio
from realaudio_jax.training.loop import main_guard

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def generator(tiny_release):
    return realaudio_jax.load(tiny_release)


@pytest.fixture
def sample(experiment, generator, monkeypatch, tmp_path, capsys):
    """`sample(prompt='rain')` runs the experiment: (exit status, output, errors)."""
    module = experiment('sample')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('REALAUDIO_TRACEBACK', raising=False)
    monkeypatch.setattr(
        module.realaudio_jax,
        'load',
        lambda name, mark, precision: copy.copy(generator).in_precision(precision),
    )
    monkeypatch.setattr(warnings, 'showwarning', common.show_warning)
    flags.FLAGS.mark_as_parsed()

    def run(**values):
        defaults = dict(prompt='rain', seconds=0.5, steps=1)
        with flagsaver.flagsaver(**{**defaults, **values}):
            try:
                status = main_guard(module.main)(['sample']) or 0
            except SystemExit as leave:
                status = leave.code
        out, err = capsys.readouterr()
        lines = err.splitlines(keepends=True)
        return status, out, ''.join(x for x in lines if not x.startswith('preparing the program'))

    return run


def test_a_sound_and_its_drawing_are_made(sample):
    status, out, err = sample(
        prompt='A dog, barking', events='gunshot@0.1-0.3', seed=3, spectrogram='x/a.png'
    )
    (name,) = glob.glob('a-dog-barking-seed3-1steps-0.5s-??????.wav')
    assert (status, err) == (0, '')
    assert out.count('\n') == 1
    for part in (name, '0.5 s at 48000 Hz', '1 steps', 'seed 3', 'peak', ' ms '):
        assert part in out
    info = soundfile.info(name)
    assert (info.frames, info.samplerate, info.channels) == (24_000, 48_000, 2)
    assert pathlib.Path('x/a.png').read_bytes().startswith(b'\x89PNG')


def test_products_in_int8_are_another_sound_under_another_name(sample):
    for precision in ('float32', 'int8'):
        assert sample(prompt='dog', seed=4, precision=precision)[0] == 0
    first, second = (pathlib.Path(name) for name in sorted(glob.glob('dog-*.wav'), key=len))
    assert first.name == 'dog-seed4-1steps-0.5s.wav' and second.name.startswith(first.stem)
    assert first.read_bytes() != second.read_bytes()


def test_variations_have_consecutive_seeds_and_names(sample):
    assert sample(seed=4, out='one.wav')[0] == 0
    status, out, _ = sample(count=3, seed=3, out='a.wav')
    assert status == 0 and sorted(os.listdir()) == ['a-0.wav', 'a-1.wav', 'a-2.wav', 'one.wav']
    assert [
        f'seed {seed}' in line for seed, line in zip((3, 4, 5), out.splitlines(), strict=True)
    ] == [True] * 3
    assert pathlib.Path('a-1.wav').read_bytes() == pathlib.Path('one.wav').read_bytes()
    assert sample(count=2)[0] == 0 and pathlib.Path('rain-seed1-1steps-0.5s.wav').exists()
    status, _, err = sample(count=2, spectrogram='a.png')
    assert status == 1 and '--spectrogram draws one sound' in err


def test_long_sounds_and_loops_are_made_in_windows(sample, generator, monkeypatch):
    short = generator.generate('rain', seconds=0.5, steps=1)
    calls = []
    monkeypatch.setattr(type(generator), 'run', lambda _, p: calls.append(p.call) or short)
    for values in (
        dict(seconds=12.0, events='dog bark@11-11.5', out='a.wav'),
        dict(seconds=10.0, loop=True, out='b.wav'),
    ):
        assert sample(**values)[0] == 0
    assert [(call.seconds, call.loop) for call in calls] == [(12.0, False), (10.0, True)]
    assert len(glob.glob('*.wav')) == 2


def test_init_audio_is_converted_with_a_line_that_says_so(sample):
    write_audio('mono.wav', 0.1 * np.sin(np.arange(8_000) / 9), 32_000)
    status, out, err = sample(init_audio='mono.wav', keep='0-0.2', out='b.flac')
    assert status == 0 and 'mono to stereo, 32000 Hz to 48000 Hz' in out
    assert 'lasts 0.25 s of 0.5 s' in err and soundfile.info('b.flac').format == 'FLAC'
    write_audio('long.wav', 0.1 * np.sin(np.arange(24_000) / 9), 32_000)
    _, _, err = sample(init_audio='long.wav')
    assert 'counts for nothing' in err
    assert 'lasts 0.75 s; all after its first 0.5 s is left out' in err


def test_what_is_cut_or_cannot_be_read_is_said(sample):
    status, _, err = sample(prompt='rain and wind ' * 40, out='a.wav')
    assert status == 0 and err.startswith('warning: text of') and 'cut to 64' in err
    status, _, err = sample(prompt='\U0001f436', events='\u96e8@0-0.3', out='b.wav')
    assert status == 0 and err.count('nothing of it is left: write it in English') == 2


def test_prompts_like_nothing_in_training_name_the_nearest_labels(sample):
    status, _, err = sample(prompt='quantum physics', events='church bells@0-0.3', out='a.wav')
    assert status == 0 and err.count('\n') == 1
    assert 'knows nothing like "quantum physics"; nearest: ' in err and '(--list' in err


def test_the_labels_are_listed(sample):
    status, out, _ = sample(list=True, release='foley')
    assert status == 0 and 'thunder' in out.splitlines() and len(out.splitlines()) > 500
    assert not os.listdir()


def test_a_default_name_never_takes_the_place_of_another_file(sample):
    for _ in range(3):
        assert sample(prompt='rain')[0] == 0
    stem = 'rain-seed0-1steps-0.5s'
    assert sorted(os.listdir()) == [f'{stem}{end}.wav' for end in ('-2', '-3', '')]
    assert sample(prompt='rain', steps=2)[0] == 0 and len(os.listdir()) == 4
    _, out, _ = sample(prompt='rain', out='a.wav')
    assert 'in place of' not in out
    _, out, _ = sample(prompt='rain', out='a.wav')
    assert out.startswith('a.wav, in place of an older one: ')


def test_a_print_that_fails_leaves_the_file_and_status_0(sample, monkeypatch):
    class Gone:
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

        def fileno(self):
            raise OSError

    monkeypatch.setattr(sys, 'stdout', Gone())
    assert sample(out='a.wav')[0] == 0 and soundfile.info('a.wav').frames == 24_000


def test_silence_is_an_error_or_a_warning(sample, generator, monkeypatch):
    real = generator.programs

    def silent(bucket, request, init=None):
        pcm, diagnostics, latents = real(bucket, request, init)
        return 0 * pcm, diagnostics.replace(silent=jnp.ones(1, bool)), latents

    silent.get, silent.params = real.get, real.params
    monkeypatch.setattr(generator, 'programs', silent)
    status, _, err = sample(out='a.wav', loudness='off')
    assert status == 0 and "warning: 'rain' is silent" in err and os.listdir() == ['a.wav']
    status, out, err = sample(out='b.wav')
    assert (status, out) == (1, '') and os.listdir() == ['a.wav']
    assert err.count("'rain' came out silent with seed") == 4
    assert err.splitlines()[-1].startswith("error: 'rain' stays silent with 5 seeds")


def test_a_sound_that_is_not_finite_is_no_file(sample, generator, monkeypatch):
    programs = copy.copy(generator.programs)
    programs.params = {
        **programs.params,
        'student': jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), programs.params['student']),
    }
    monkeypatch.setattr(generator, 'programs', programs)
    status, out, err = sample(out='a.wav')
    assert (status, out) == (1, '') and not os.listdir()
    assert err.splitlines()[-1].startswith("error: the sound for 'rain' is not finite")


@pytest.mark.parametrize(
    ('values', 'line'),
    [
        (dict(events='bang@0.4-0.9'), "event 1 ('bang') is outside the clip of 0.5 s"),
        (dict(model='teacher', guidance=float('nan')), 'guidance_scale is nan; choose 0 to 100'),
        (dict(loudness='loud'), "--loudness is 'loud'; give LUFS such as -23, or off"),
        (dict(loudness='3'), 'loudness is 3; choose -70 to 0'),
        (dict(steps=3), 'the student has no 3 steps; choose one of 1, 2, 4, 8'),
        (dict(seconds=0.2), 'seconds is 0.2; choose 0.5 to 86400'),
        (dict(sample_rate=22_050), 'sample_rate is 22050; choose 48000 or 44100'),
        (dict(strength=0.5), 'need --init_audio'),
        (dict(init_audio='nan.wav'), 'nan.wav: it holds NaN'),
        (dict(init_audio='empty.wav'), 'empty.wav: it holds no samples'),
        (dict(init_audio='text.wav'), 'text.wav: damaged or not a sound file'),
        (dict(init_audio='none.wav'), 'none.wav: there is no such file'),
        (dict(init_audio='ok.wav', keep='0-x'), "--keep has '0-x'"),
        (dict(init_audio='ok.wav', keep='0-2'), 'cannot keep 0 to 2 s'),
        (dict(init_audio='ok.wav', strength=float('nan')), 'strength is nan'),
        (dict(out='a.mp3'), 'cannot write a.mp3: choose a name ending in .wav or .flac or .ogg'),
        (dict(out='ok.wav/a.wav'), 'no folder you may write to'),
        (dict(spectrogram='a.jpg'), 'cannot write a.jpg: choose a name ending in .png'),
        (dict(prompt=' '), 'nothing to make'),
        (dict(watermark_key='off', watermark_payload=3), '--watermark_payload=3: without a mark'),
    ],
)
def test_a_mistake_is_one_line_and_no_file(values, line, sample):
    write_audio('ok.wav', np.zeros((24_000, 2)), 48_000)
    soundfile.write('nan.wav', np.full(99, np.nan), 48_000, subtype='FLOAT')
    soundfile.write('empty.wav', np.zeros(0), 48_000)
    pathlib.Path('text.wav').write_text('no sound')
    before = sorted(os.listdir())
    status, out, err = sample(**values)
    assert (status, out) == (1, '') and sorted(os.listdir()) == before
    errors = [part for part in err.splitlines() if not part.startswith('warning: ')]
    assert len(errors) == 1 and errors[0].startswith('error: ') and line in errors[0]


def test_the_process_ends_with_one_line_and_status_1(tmp_path):
    result = subprocess.run(
        [sys.executable, '-m', 'experiments.sample', '--release=fooley', '--prompt=rain'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1 and result.stdout == '' and not os.listdir(tmp_path)
    assert result.stderr.startswith("error: no release 'fooley'")
    assert result.stderr.count('\n') == 1
