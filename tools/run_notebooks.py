"""Runs the notebooks from top to bottom and stores their outputs in them.

    python tools/run_notebooks.py [quickstart step_ablation ...]

Needs the extra `test`. Each runs in a kernel of this interpreter, in a temporary folder, with the
shipped release.
"""

import argparse
import base64
import io
import os
import pathlib
import sys
import tempfile

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
COLABS = ROOT / 'colabs'


class ThisInterpreter(AsyncKernelManager):
    """Every kernel is the interpreter that runs this script, whatever its name."""

    @property
    def kernel_spec(self):
        argv = [sys.executable, '-m', 'ipykernel_launcher', '-f', '{connection_file}']
        return KernelSpec(argv=argv, display_name='this', language='python')


def small_png(encoded: str) -> str:
    """A PNG in base64 with 128 colours, a third of the size of a spectrogram in full colour."""
    image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert('RGB')
    buffer = io.BytesIO()
    image.quantize(128).save(buffer, 'PNG', optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def run(path: pathlib.Path) -> None:
    """Executes one notebook and writes it with its outputs, without times and progress lines."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            kernel_manager_class=ThisInterpreter,
            timeout=3600,
            resources={'metadata': {'path': folder}},
        )
        client.execute()
    for cell in notebook.cells:
        cell.metadata.pop('execution', None)
        if cell.cell_type == 'code':
            cell.outputs = [o for o in cell.outputs if o.get('name') != 'stderr']
            for output in cell.outputs:
                if 'image/png' in output.get('data', {}):
                    output.data['image/png'] = small_png(output.data['image/png'])
    nbformat.write(notebook, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='*', default=sorted(p.stem for p in COLABS.glob('*.ipynb')))
    before = os.environ.get('PYTHONPATH')
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), before]))
    for name in parser.parse_args().names:
        run(COLABS / f'{name}.ipynb')
        print(name)


if __name__ == '__main__':
    main()
