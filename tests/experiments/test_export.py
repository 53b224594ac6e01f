"""What `experiments.export` refuses before a release is loaded and a folder made."""

import importlib.util

import pytest
from absl import flags
from absl.testing import flagsaver

from realaudio_jax.training.loop import main_guard


@pytest.mark.parametrize(
    ('given', 'line'),
    [
        ({'seconds': ['two']}, '--seconds=two: give numbers, commas between'),
        ({'seconds': ['2', '20']}, 'seconds=20: choose 0.5 to 10'),
        ({'seconds': ['0']}, 'seconds=0: choose 0.5 to 10'),
        ({'seconds': ['nan']}, 'seconds=nan: choose 0.5 to 10'),
        ({'seconds': ['2', '2.0000001']}, 'seconds=2,2: give one or more, each once'),
        ({'sample_rate': 32_000}, 'sample_rate=32000: choose 48000 or 44100'),
        ({'kinds': ['tflite']}, 'kinds=tflite: choose onnx, stablehlo or both'),
        ({'kinds': ['stablehlo'], 'check': 1}, '--check runs the ONNX files; add onnx to --kinds'),
        ({'check': 1}, "--check needs onnxruntime: pip install 'realaudio_jax[export]'"),
    ],
)
def test_a_mistake_is_one_line(experiment, monkeypatch, capsys, tmp_path, given, line):
    module = experiment('export')
    flags.FLAGS.mark_as_parsed()
    monkeypatch.setattr(module.realaudio_jax, 'load', lambda name: pytest.fail('it was loaded'))
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with flagsaver.flagsaver(out=str(tmp_path / 'out'), **given), pytest.raises(SystemExit):
        main_guard(module.main)(['export'])
    err = capsys.readouterr().err
    assert err.startswith(f'error: {line}') and err.count('\n') == 1
    assert not (tmp_path / 'out').exists()
