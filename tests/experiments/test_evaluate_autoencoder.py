import numpy as np
import pytest
import soundfile

from realaudio_jax.metrics.rows import REAL

LENGTHS = (30_000, 40_000, 48_000, 47_999)


@pytest.fixture
def run(experiment, monkeypatch):
    module = experiment('evaluate_autoencoder')
    rng = np.random.default_rng(0)
    clips = [0.1 * rng.normal(size=(n, 2)).astype(np.float32) for n in LENGTHS]
    monkeypatch.setattr(module, 'held_back', lambda folder, count, lossless: clips[:count])
    return module


def test_a_perfect_codec_has_no_error_and_opus_has(run, tower_release, monkeypatch):
    codecs = {None: lambda audio, rate: audio, 'half': lambda audio, rate: audio / 2}
    monkeypatch.setattr(run, 'load_codec', lambda release, path: codecs[path])
    rows = run.evaluate(str(tower_release), None, 'recordings', None, 4, against='half')
    value = {(row['name'], row['model']): row['value'] for row in rows}
    for model in ('autoencoder 48 kHz', 'autoencoder 44.1 kHz'):
        assert value['Frechet distance', model] < 1e-6
        assert value['Frechet distance of the side', model] < 1e-6
        assert value['log-mel L1', model] == 0
        assert value['energy error 16000-20000 Hz', model] == 0
        assert value['multi-resolution STFT', model] == value['stereo width error', model] == 0
        assert value['SI-SDR', model] == value['bandwidth kept', model] == 100
        assert value['roughness ratio', model] == 1
        for name in ('level difference', 'phase difference', 'coherence'):
            # noise of two channels is coherent in few cells, whose phases may all be left out
            assert value.get((f'{name} between channels, error', model), 0) < 1e-6
        assert all(value[f'line over skirt, {hz} Hz', model] > 60 for hz in (220, 3520))
    assert value['Frechet distance', REAL] > 0
    low, high = 'Opus, 12 kbit/s', 'Opus, 24 kbit/s'
    for name in ('log-mel L1', 'multi-resolution STFT'):
        assert value[name, low] > value[name, high] > 0.1
    assert value['SI-SDR', low] < 100 and value['SI-SDR', high] < 100
    assert 11 < value['bit rate', low] < 20 < value['bit rate', high] < 34  # of a second each
    assert value['log-mel L1', 'autoencoder less 48 kHz'] == 0
    difference = 'autoencoder less against'
    assert value['Frechet distance', difference] < 0
    assert value['energy error 250-500 Hz', difference] == pytest.approx(-6.02, abs=0.1)


@pytest.mark.parametrize('rate', [48_000, 44_100])
def test_reconstructions_have_the_length_of_their_original(run, tiny_release, rate):
    reconstruct = run.load_codec(str(tiny_release), None)
    audio = np.random.default_rng(0).normal(size=(rate - 777, 2)).astype(np.float32) * 0.1
    other = reconstruct(audio, rate)
    assert other.shape == audio.shape and np.isfinite(other).all() and np.abs(other).max() <= 1


def test_several_autoencoders_go_by_their_folders(run):
    assert run.named(None) == {'autoencoder': None}
    assert run.named(['a/x.safetensors']) == {'autoencoder': 'a/x.safetensors'}
    assert list(run.named(['a/x.safetensors', 'b/x.safetensors'])) == ['a', 'b']
    with pytest.raises(ValueError, match='different names'):
        run.named(['a/x.safetensors', 'a/y.safetensors'])


def test_too_few_recordings_are_named(run, tower_release):
    with pytest.raises(ValueError, match='holds back 2 recordings'):
        run.evaluate(str(tower_release), None, 'recordings', None, 2)


def test_only_recordings_stored_without_loss_are_taken(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv('REALAUDIO_CACHE', str(tmp_path / 'cache'))
    run = experiment('evaluate_autoencoder')
    rng = np.random.default_rng(0)
    # is_held_out depends on the name of the take alone; 60 names hold back some of each kind
    names = [f'{i}.{"flac" if i % 2 else "ogg"}' for i in range(60)]
    for name in names:
        soundfile.write(tmp_path / name, 0.1 * rng.normal(size=(48_000, 2)), 48_000)
    lines = [f'{name},thing {name}' for name in names]
    (tmp_path / 'metadata.csv').write_text('\n'.join(['file,label', *lines]))
    every, lossless = (len(run.held_back(str(tmp_path), 99, only)) for only in (False, True))
    assert 0 < lossless < every
