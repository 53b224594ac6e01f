import contextlib
import json
import pathlib

import jax.numpy as jnp
import pytest

from realaudio_jax.training.writers import MetricWriter


def _records(workdir):
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    return [json.loads(line, parse_constant=pytest.fail) for line in lines]


def test_one_json_line_per_record_and_events_beside(tmp_path):
    with MetricWriter(tmp_path / 'run') as writer:
        writer.write(3, {'loss': jnp.float32(0.5), 'rate': 1e-4}, stage='train')
        writer.write(4, {'loss': float('nan')})
        first, second = _records(tmp_path / 'run')  # readable while the run goes on
    writer.close()  # twice is once
    assert {key: first[key] for key in first if key != 'time'} == {
        'step': 3,
        'stage': 'train',
        'loss': 0.5,
        'rate': 1e-4,
    }
    assert second['loss'] is None and second['stage'] == ''
    assert second['time'] >= first['time'] > 1.7e9
    (events,) = (tmp_path / 'run' / 'tensorboard').iterdir()
    assert b'train/loss' in events.read_bytes()


def test_a_resumed_run_appends_after_a_cut_line(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(1, {'loss': 2.0})
    with open(tmp_path / 'metrics.jsonl', 'a') as file:
        file.write('{"step": 2, "lo')
    with MetricWriter(tmp_path) as writer:
        writer.write(2, {'loss': 1.0})
    assert [record['step'] for record in _records(tmp_path)] == [1, 2]


@pytest.mark.parametrize(
    ('metrics', 'message'),
    [({'step': 1.0}, "may not be named 'step'"), ({'loss': jnp.ones(3)}, "'loss' is not a scalar")],
)
def test_bad_metrics_are_named(tmp_path, metrics, message):
    with MetricWriter(tmp_path) as writer, pytest.raises(ValueError, match=message):
        writer.write(1, metrics)


@pytest.mark.skipif(not pathlib.Path('/dev/full').exists(), reason='no full device here')
@pytest.mark.parametrize('which', ['lines', 'events'])
def test_a_full_disk_is_one_line_and_no_traceback_of_a_thread(tmp_path, capfd, which):
    writer = MetricWriter(tmp_path)
    full = open('/dev/full', 'w' if which == 'lines' else 'wb')  # noqa: SIM115
    if which == 'lines':
        writer._lines.close()
        writer._lines = full
    else:
        writer._events._py_recordio_writer._writer = full
    with pytest.raises(OSError, match='cannot write metrics in .*No space left.*free some space'):
        writer.write(1, {'loss': 0.5}, 'train')
    with contextlib.suppress(OSError):
        writer.close()
    assert 'Traceback' not in capfd.readouterr().err
