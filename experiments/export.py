"""Exports a release for other programs: ONNX for any language, StableHLO for JAX alone.

python -m experiments.export --release=foley --seconds=2,10 --steps=4 --out=DIR

DIR then holds one program for each duration, and what runs them: `generate.mjs` for Node,
`index.html` for browsers, `load_jax.py` for JAX; its README.md says how. See docs/export.md.

--check=20 runs as many requests in onnxruntime (`pip install -e '.[export]'`) and through
`Generator.generate`, and says by how much they differ and how long each takes.
"""

import importlib.util
import json
import pathlib
import time

import numpy as np
from absl import flags

import realaudio_jax
from experiments.common import define_out, listed, run
from experiments.watermark_flags import define_watermark
from realaudio_jax.export import folder as export_folder
from realaudio_jax.export.check import compare
from realaudio_jax.io import atomic_path
from realaudio_jax.typing import MAX_EVENTS

_RELEASE = flags.DEFINE_string('release', 'foley', 'Name or folder of the release.')
_SECONDS = flags.DEFINE_list('seconds', ['2', '10'], 'Longest sound of each program.')
_STEPS = flags.DEFINE_integer('steps', 4, 'Steps of the student.')
_EVENTS = flags.DEFINE_integer('events', 4, 'Room for events of a timeline.', 0, MAX_EVENTS)
_RATE = flags.DEFINE_integer('sample_rate', 48_000, 'Hz: 48000 or 44100.')
_KINDS = flags.DEFINE_list('kinds', ['onnx', 'stablehlo'], 'What to write: onnx, stablehlo.')
_WATERMARK = define_watermark()
_OUT = define_out('Folder of the export.')
_CHECK = flags.DEFINE_integer('check', 0, 'Requests that are compared with ours.', lower_bound=0)


def main(argv):
    del argv
    kinds, seconds = listed(_KINDS, str), listed(_SECONDS, float)
    export_folder.check(seconds, _RATE.value, kinds)
    if _CHECK.value and 'onnx' not in kinds:
        raise ValueError('--check runs the ONNX files; add onnx to --kinds, or leave out --check')
    if _CHECK.value and importlib.util.find_spec('onnxruntime') is None:
        raise ValueError("--check needs onnxruntime: pip install 'realaudio_jax[export]'")
    generator = realaudio_jax.load(_RELEASE.value, mark=_WATERMARK())
    out, start = pathlib.Path(_OUT.value), time.monotonic()
    export_folder.write(generator, out, seconds, _STEPS.value, _EVENTS.value, _RATE.value, kinds)
    print(f'exported in {time.monotonic() - start:.0f} s')
    if _CHECK.value:
        found = compare(generator, out, _CHECK.value)
        with atomic_path(out / 'check.json') as temporary:
            temporary.write_text(json.dumps(found, indent=1) + '\n')
        for row in found['programs']:
            print(
                f'{row["seconds"]:g} s: {row["requests"]} requests, largest difference '
                f'{max(row["difference"]):.1e} of the peak (median '
                f'{np.median(row["difference"]):.1e}); onnxruntime loads in '
                f'{row["onnx_load_s"]:.2f} s and runs in {row["onnx_s"]:.3f} s, ours '
                f'{row["jax_load_s"]:.2f} s and {row["jax_s"]:.3f} s'
            )


if __name__ == '__main__':
    run(main)
