import contextlib
import json
import pathlib
import time

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
        'wall_s': None,
        'cpu_s': None,
        'loss': 0.5,
        'rate': 1e-4,
    }
    assert second['loss'] is None and second['stage'] == ''
    assert second['time'] >= first['time'] > 1.7e9
    (events,) = (tmp_path / 'run' / 'tensorboard').iterdir()
    assert b'train/loss' in events.read_bytes()


def test_a_record_says_how_long_the_one_before_it_is_ago_and_how_much_was_computed(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(1, {})
        time.sleep(0.3)
        writer.write(2, {})
        begin = time.process_time()
        while time.process_time() - begin < 0.2:
            pass
        writer.write(3, {})
    with MetricWriter(tmp_path) as writer:
        writer.write(4, {})
    first, idle, busy, resumed = _records(tmp_path)
    assert idle['wall_s'] >= 0.3 and idle['cpu_s'] < 0.1
    assert busy['wall_s'] >= busy['cpu_s'] - 0.01 and busy['cpu_s'] >= 0.2
    assert first['cpu_s'] is first['wall_s'] is resumed['cpu_s'] is resumed['wall_s'] is None


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
