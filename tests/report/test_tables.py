import json
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.report.tables import pivot, tall_table, write_results

ROWS = [
    {'name': 'KAD', 'value': 1.23456789, 'unit': '', 'n': 64, 'steps': 4, 'seed': 0},
    {'name': 'onset F1', 'value': np.float32(0.5), 'unit': '%', 'n': 32, 'steps': 4, 'seed': 0},
    {'name': 'KAD', 'value': jnp.float32(2.0), 'n': 64, 'steps': 8, 'seed': 0, 'note': 'a|b'},
]


def test_json_keeps_every_digit_and_the_given_order(tmp_path):
    json_path, _ = write_results(tmp_path / 'run', ROWS, 'Quality')
    rows = json.loads(json_path.read_text(), parse_constant=pytest.fail)
    assert isinstance(rows, list)
    assert [row['name'] for row in rows] == ['KAD', 'onset F1', 'KAD']
    assert rows[0] == ROWS[0]
    assert rows[2]['value'] == 2.0 and rows[2]['unit'] == ''


def test_markdown_groups_names_rounds_values_and_states_shared_settings_once(tmp_path):
    _, path = write_results(tmp_path, ROWS, 'Quality')
    lines = path.read_text().splitlines()
    assert lines[0] == '# Quality'
    assert 'All rows: seed 0.' in lines
    table = [
        [cell.strip() for cell in line.replace('\\|', '/').strip('|').split('|')]
        for line in lines
        if line.startswith('|')
    ]
    assert table[0] == ['name', 'value', 'unit', 'n', 'steps', 'note']
    assert table[2:] == [
        ['KAD', '1.235', '', '64', '4', ''],
        ['KAD', '2', '', '64', '8', 'a/b'],
        ['onset F1', '0.5', '%', '32', '4', ''],
    ]


def test_a_tall_table_has_a_line_for_each_figure():
    rows = [
        {'name': 'KAD', 'value': 1.5, 'model': 'a', 'steps': 4},
        {'name': 'onset', 'value': 2.0, 'unit': 'ms', 'model': 'a', 'steps': 4},
        {'name': 'KAD', 'value': 3.0, 'model': 'b'},
    ]
    lines = [
        [cell.strip() for cell in line.split('|')[1:-1]] for line in tall_table(rows).splitlines()
    ]
    assert lines[0] == ['', 'a 4', 'b']
    assert lines[2:] == [['KAD', '1.5', '3'], ['onset (ms)', '2', '']]


def test_not_finite_values_are_null_and_said(tmp_path):
    json_path, path = write_results(tmp_path, [{'name': 'KAD', 'value': np.nan}], 'Quality')
    assert json.loads(json_path.read_text())[0]['value'] is None
    assert 'not finite' in path.read_text()


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        ([], 'no results to write'),
        ([{'value': 1.0}], 'lacks name'),
        ([{'name': 'KAD', 'value': np.ones(3)}], "'value' of result 'KAD' is an array"),
        ([{'name': 'KAD', 'value': 1.0, 'seed': [1]}], "'seed' of result 'KAD' is a list"),
    ],
)
def test_bad_rows_are_named_and_write_nothing(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        write_results(tmp_path / 'run', rows, 'Quality')
    assert not (tmp_path / 'run').exists()


def test_a_failed_write_leaves_the_earlier_table(tmp_path, monkeypatch):
    write_results(tmp_path, ROWS, 'Earlier')

    def fail(self, *args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_text', fail)
    with pytest.raises(OSError):
        write_results(tmp_path, ROWS, 'Later')
    assert {path.name for path in tmp_path.iterdir()} == {'results.json', 'results.md'}
    assert 'Earlier' in (tmp_path / 'results.md').read_text()


def test_names_that_are_not_utf_8_are_written_as_escapes(tmp_path):
    name = os.fsdecode(b'caf\xe9')
    rows = [{'name': name, 'value': 1.0, 'note': name, 'folder': Path(f'{name}\nx')}]
    as_json, as_markdown = write_results(tmp_path, rows, 'Odd names')
    (row,) = json.loads(as_json.read_text(encoding='utf-8'))
    assert row['name'] == row['note'] == r'caf\udce9' and row['folder'] == r'caf\xe9\nx'
    assert r'caf\xe9\nx' in as_markdown.read_text(encoding='utf-8')


def test_rows_that_differ_in_guidance_alone_are_lines_of_their_own():
    def row(name, value, **settings):
        return {'name': name, 'value': value, 'seed': 0, 'low': value - 1} | settings

    wide = pivot(
        [
            row('KAD', 5.0, model='real'),
            row('KAD', 1.0, model='student', steps=4, guidance=2.0, sampler='ddim'),
            row('KAD', 2.0, model='student', steps=4, guidance=3.0, sampler='ddim'),
            row('KAD', 3.0, model='student', steps=4, guidance=3.0, sampler='ping_pong'),
            row('onset', 4.0, model='student', steps=4, guidance=3.0, sampler='ddim', unit='ms'),
        ]
    )
    assert [tuple(line.values()) for line in wide] == [
        ('real', None, None, None, 5.0, None),
        ('student', 4, 2.0, 'ddim', 1.0, None),
        ('student', 4, 3.0, 'ddim', 2.0, 4.0),
        ('student', 4, 3.0, 'ping_pong', 3.0, None),
    ]
    assert list(wide[0]) == ['model', 'steps', 'guidance', 'sampler', 'KAD', 'onset (ms)']
    with pytest.raises(ValueError, match="two results 'KAD' have the same settings"):
        pivot([row('KAD', 1.0, model='real'), row('KAD', 2.0, model='real')])
