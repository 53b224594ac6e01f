"""The schema of config.json: what loads, and the one line of everything that does not."""

import dataclasses
import json

import pytest
import tiny

from realaudio_jax.integrity import verify, write_manifest
from realaudio_jax.models.audio_tower import AudioTower
from realaudio_jax.models.autoencoder import Autoencoder, Decoder
from realaudio_jax.models.denoiser import Denoiser
from realaudio_jax.release import RELEASES
from realaudio_jax.release_config import (
    AudioTowerConfig,
    AutoencoderConfig,
    DecoderConfig,
    DenoiserConfig,
    PretrainedStudentConfig,
    ReleaseConfig,
    StudentConfig,
)

FULL = {
    **tiny.CONFIG,
    'student': {
        'steps': [1, 2, 4],
        'guidance_range': [1.0, 4.0],
        'guidance': 2.5,
        'teacher_adapter': 0.5,
        'grid_powers': {'4': 2.0},
    },
    'audio_tower': {'width': 12, 'blocks': 1},
    'onset_lead_s': 0.009,
}


@pytest.mark.parametrize(
    ('module', 'section'),
    [
        (Denoiser, DenoiserConfig),
        (Autoencoder, AutoencoderConfig),
        (Decoder, DecoderConfig),
        (AudioTower, AudioTowerConfig),
    ],
)
def test_every_argument_of_a_network_is_in_the_schema_with_its_default(module, section):
    arguments = {f.name: f.default for f in dataclasses.fields(module)}
    # Dropout is of a training run, how products are computed of a device: not of the weights.
    others = {'parent', 'name', 'dropout', 'attention'}
    if module in (Autoencoder, Decoder):
        others.add('dtype')
    arguments = {k: v for k, v in arguments.items() if k not in others}
    known = {f.name: f.default for f in dataclasses.fields(section)}
    if module is Autoencoder:  # whose decoder has a section of its own
        assert arguments.keys() == known.keys()
        assert arguments['channels'] == known['channels']
    elif module is Decoder:  # whose channels are the autoencoder's
        assert arguments == known | {'channels': AutoencoderConfig().channels}
    else:
        assert arguments == known


def test_what_is_written_is_read(tmp_path):
    config = ReleaseConfig.from_dict(FULL)
    config.write(tmp_path)
    assert ReleaseConfig.read(tmp_path) == config
    assert config.student.grid_powers == ((4, 2.0),) and config.audio_tower.head_width == 512
    text = json.loads((tmp_path / 'config.json').read_text())
    assert text['student'] == FULL['student'] and text['format_version'] == 1
    assert 'dtype' not in text['denoiser']
    write_manifest(tmp_path)
    dataclasses.replace(config, guidance=3).write(tmp_path)
    assert verify(tmp_path), 'the manifest follows what is written'
    other = PretrainedStudentConfig('audioldm2', config.student)
    other.write(tmp_path / 'student')
    assert PretrainedStudentConfig.read(tmp_path / 'student') == other


def test_the_shipped_release_is_of_the_schema():
    for path in RELEASES.glob('*/config.json'):
        assert ReleaseConfig.read(path.parent).name == path.parent.name


def changed(path: str, value) -> dict:
    """FULL with one value another; its place written with dots."""
    config = json.loads(json.dumps(FULL))
    *parents, name = path.split('.')
    part = config
    for parent in parents:
        part = part[parent]
    part[name] = value
    return config


@pytest.mark.parametrize(
    ('path', 'value', 'line'),
    [
        ('denoiser.heads', 0, 'denoiser.heads is 0: give a whole number from 1 to 256'),
        ('denoiser.width', '256', 'denoiser.width is "256": give a whole number'),
        ('denoiser.width', 25, 'denoiser.width is 25: give a multiple of 4, twice heads'),
        ('denoiser.width', 24.0, 'denoiser.width is 24.0: give a whole number'),
        ('denoiser.width', True, 'denoiser.width is True: give a whole number'),
        ('denoiser.depth', 10**9, 'denoiser.depth is 1000000000: give .* from 1 to 128'),
        ('denoiser.expansion', float('nan'), 'NaN is no number of JSON'),
        ('denoiser.expansion', 1e308, 'denoiser.expansion is 1e'),
        ('denoiser.dtype', 'int8', 'denoiser.dtype is "int8": give one of float32'),
        ('denoiser.dpeth', 3, "denoiser.dpeth is not a setting; did you mean 'depth'?"),
        ('denoiser', [1], 'denoiser is .1.: give names and values'),
        ('autoencoder.channels', 96, 'denoiser.channels is 64: give 96, .* of the autoencoder'),
        ('autoencoder.decoder.blocks', -1, 'autoencoder.decoder.blocks is -1'),
        ('autoencoder.decoder', None, 'autoencoder.decoder is None: give names'),
        ('audio_tower.patch', 3, 'audio_tower.patch is 3: give one of'),
        ('student.grid_power', {'4': 2}, "student.grid_power is not .* mean 'grid_powers'"),
        ('student.grid_powers', {'8': 2}, r'student.grid_powers is 8: name one of the steps'),
        ('student.grid_powers', {'4': 0}, r'student.grid_powers.4 is 0: give a number from 0.1'),
        ('student.grid_powers', {'\u0664': 2}, 'student.grid_powers names .*a count of steps'),
        ('student.grid_powers', 2.0, 'student.grid_powers is 2.0: give a power for counts'),
        ('student.grid_powers', [4], r'student.grid_powers is .4.: give a power for counts'),
        ('student.grid_powers', [[4]], r'student.grid_powers is ..4..: give a power for counts'),
        ('student.steps', [], 'student.steps is .*: give a list of counts'),
        ('student.steps', [1, 1], 'student.steps is .1, 1.: give each count once'),
        ('student.steps', 4, 'student.steps is 4: give a list'),
        ('student.steps', [1, 2.5, 4], 'student.steps is 2.5: give a whole number'),
        ('student.guidance_range', [4, 1], 'guidance_range is .4, 1.: give the least'),
        ('student.guidance_range', ['a', 1], 'guidance_range is "a": give a number'),
        ('student.guidance', 5, 'student.guidance is 5.0: give 1 to 4, its range'),
        ('teacher.steps', 0, 'teacher.steps is 0'),
        ('guidance', '2', 'guidance is "2": give a number'),
        ('guidance', 10**400, 'guidance is 1000'),
        ('name', 'x' * 200, 'name is .*: give up to 100 printable characters'),
        ('sample_rate', 44_100, 'sample_rate is 44100'),
        ('onset_lead_s', -1, 'onset_lead_s is -1'),
        ('onset_lead', 0.1, "onset_lead is not a setting; did you mean 'onset_lead_s'"),
    ],
)
def test_a_wrong_value_is_one_line_before_any_network(tmp_path, path, value, line):
    text = json.dumps(changed(path, value) | {'format_version': 1})
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(ValueError, match=line) as caught:
        ReleaseConfig.read(tmp_path)
    message = str(caught.value)
    assert 'config.json' in message and '\n' not in message and len(message) < 350


def test_what_is_missing_is_named():
    for name in ('denoiser', 'student'):
        with pytest.raises(ValueError, match=f'{name} is missing; add it'):
            ReleaseConfig.from_dict({k: v for k, v in FULL.items() if k != name})
    with pytest.raises(ValueError, match='student.steps is missing'):
        StudentConfig.from_dict({'guidance_range': [1, 2]})


@pytest.mark.parametrize(
    ('text', 'line'),
    [
        (b'{"width": 38', 'damaged'),
        (b'\xff\xfe', 'damaged'),
        (b'[1]', 'no format_version'),
        (b'{"width": 3}', 'no format_version'),
        (b'{"format_version": true}', 'no format_version'),
        (b'{"format_version": 99}', 'reads up to 1; upgrade'),
        (b'{"format_version": 1, "name": "a", "name": "b"}', "'name' is given twice"),
        (b'{"format_version": 1, "guidance": Infinity}', 'Infinity is no number of JSON'),
        (b'[' * 90_000, 'damaged'),
        (b' ' * 200_000, 'over 100,000 bytes'),
        (b'{"format_version": 1, "guidance": ' + b'9' * 9_000 + b'}', 'damaged'),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, text, line):
    (tmp_path / 'config.json').write_bytes(text)
    with pytest.raises(ValueError, match=line) as caught:
        ReleaseConfig.read(tmp_path)
    message = str(caught.value)
    assert 'config.json' in message and '\n' not in message and len(message) < 350


def test_no_config_is_no_release(tmp_path):
    with pytest.raises(FileNotFoundError, match='no release at .*; check the name'):
        ReleaseConfig.read(tmp_path / 'none')


def test_curves_of_a_denoiser_are_named_once_each():
    config = DenoiserConfig.from_dict({'curves': ['pitch', 'brightness']})
    assert config.curves == ('pitch', 'brightness')
    assert Denoiser(**config.to_dict()).curves == ('pitch', 'brightness')
    assert 'curves' not in DenoiserConfig.from_dict({}).to_dict()
    for wrong in (['tone'], ['pitch', 'pitch'], 'pitch', [1], 3):
        with pytest.raises(ValueError, match='give a list of brightness, pitch, each once'):
            DenoiserConfig.from_dict({'curves': wrong})
