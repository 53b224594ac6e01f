"""The notebooks run from top to bottom, and what they say of their results is so.

Each runs in a kernel of this interpreter, whatever kernels are registered on the machine. The two
about a release are given tiny random networks.
"""

import json
import os
import pathlib
import sys

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient

COLABS = pathlib.Path(__file__).resolve().parents[1] / 'colabs'
NAMES = ['distill_your_own', 'quickstart', 'step_ablation']


class ThisInterpreter(AsyncKernelManager):
    """Every kernel is the interpreter that runs the tests, whatever its name."""

    @property
    def kernel_spec(self):
        argv = [sys.executable, '-m', 'ipykernel_launcher', '-f', '{connection_file}']
        return KernelSpec(argv=argv, display_name='tests', language='python')


def read(name):
    return nbformat.read(COLABS / f'{name}.ipynb', as_version=4)


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Runs a notebook with parameters in place; returns it and the values of expressions."""

    def run(name, environment=(), parameters='', values='{}'):
        notebook = read(name)
        if parameters:
            (at,) = [
                i
                for i, c in enumerate(notebook.cells)
                if 'parameters' in c.metadata.get('tags', ())
            ]
            notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(parameters))
        notebook.cells.append(
            nbformat.v4.new_code_cell(f'import json\nprint(json.dumps({values}))')
        )
        strict = {'JAX_NUMPY_RANK_PROMOTION': 'raise', 'JAX_DEBUG_KEY_REUSE': 'true'}
        one_device = [f for f in os.environ['XLA_FLAGS'].split() if 'device_count' not in f]
        usual = {'REALAUDIO_CACHE': str(tmp_path / 'cache'), 'XLA_FLAGS': ' '.join(one_device)}
        for key, value in (usual | strict | dict(environment)).items():
            monkeypatch.setenv(key, value)
        monkeypatch.delenv('MPLBACKEND', raising=False)  # the kernel's own draws into the page
        client = NotebookClient(
            notebook,
            kernel_manager_class=ThisInterpreter,
            timeout=1200,
            resources={'metadata': {'path': str(tmp_path)}},
        )
        client.execute()
        return notebook, json.loads(notebook.cells[-1].outputs[-1].text)

    return run


def shown(notebook, cell, kind):
    """Whether a cell shows something of a MIME type."""
    (found,) = [c for c in notebook.cells if c.id == cell]
    return any(kind in output.get('data', {}) for output in found.outputs)


@pytest.mark.parametrize('name', NAMES)
def test_outputs_are_stored(name):
    """Of one run from top to bottom, without errors, local paths or warnings."""
    notebook = read(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert len(outputs) >= 2
    for output in outputs:
        assert output.output_type != 'error' and output.get('name') != 'stderr'
        text = output.get('text', '') + output.get('data', {}).get('text/plain', '')
        assert '/home/' not in text and '/tmp/' not in text and str(COLABS.parent) not in text
    assert (COLABS / f'{name}.ipynb').stat().st_size < 1_000_000


def test_every_notebook_is_tested():
    assert sorted(path.stem for path in COLABS.glob('*.ipynb')) == NAMES


def test_first_sound_in_five_cells(execute, tiny_release):
    notebook, found = execute(
        'quickstart',
        {'REALAUDIO_RELEASE': str(tiny_release)},
        values="""{
            'samples': len(sound.pcm), 'again': bool((again.pcm == sound.pcm).all()),
            'other': bool((other.pcm == sound.pcm).all()),
            'moved': bool((moved.pcm == sound.pcm).all()),
        }""",
    )
    ids = [cell.id for cell in notebook.cells[:6]]
    assert ids == ['intro', 'install', 'load', 'generate', 'play', 'spectrogram']
    assert shown(notebook, 'play', 'text/html') and shown(notebook, 'spectrogram', 'image/png')
    assert found['samples'] == 5 * 48_000
    assert found['again'] and not found['other'] and not found['moved']
    (mistake,) = [cell for cell in notebook.cells if cell.id == 'mistake']
    assert 'gunshot' in mistake.outputs[0].text


def test_step_ablation(execute, tiny_release):
    notebook, rows = execute(
        'step_ablation',
        {'REALAUDIO_RELEASE': str(tiny_release)},
        'SECONDS, STUDENT_STEPS, TEACHER_STEPS, REFERENCE_STEPS = 1.0, (1,), (1, 16), 50\n'
        'PROMPTS = PROMPTS[:2]',
        'rows',
    )
    assert [(row['model'], row['steps'], row['nfe']) for row in rows] == [
        ('student', 1, 1),
        ('teacher', 1, 2),
        ('teacher', 16, 32),
        ('teacher', 50, 100),
    ]
    assert all(-1 <= row['cosine'] <= 1 + 1e-6 and row['ms'] > 0 for row in rows)
    few, many, reference = (row['cosine'] for row in rows[1:])
    assert few < many <= reference + 1e-6 and reference == pytest.approx(1)  # DDIM converges
    assert shown(notebook, 'plot', 'image/png')


def test_a_toy_teacher_is_distilled(execute):
    optimised = {'XLA_FLAGS': ''}  # it computes for longer than it compiles
    notebook, distance = execute('distill_your_own', optimised, values='distance')
    assert list(distance) == [
        'data',
        'teacher, 50',
        'teacher, 4',
        'progressive, 4',
        *(f'{name}, {steps}' for name in ('consistency', 'mean flow') for steps in (4, 2, 1)),
    ]
    assert distance['data'] < distance['teacher, 50'] < distance['teacher, 4'] / 2
    assert distance['progressive, 4'] < distance['teacher, 4'] / 2
    assert distance['consistency, 4'] < distance['teacher, 4'] / 2
    assert distance['consistency, 4'] < distance['mean flow, 4']
    assert distance['mean flow, 1'] < distance['consistency, 1'] / 2
    assert shown(notebook, 'plot', 'image/png')
