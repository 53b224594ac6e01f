"""Writes releases: parameters as strict safetensors files, and a whole release from its parts.

`release` reads them. Floats may be stored as int8, or as int4 of which two make one uint8, with a
float32 scale `<name>.scale` for each channel, see `quantisation`. The channel is the last axis
(Flax kernels), the row of an embedding. A kernel's channel may be cut into blocks of inputs with a
scale each: one large weight then coarsens its block alone. Each axis of a scale divides the same
axis of its parameter.
"""

import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors.numpy

from realaudio_jax import integrity
from realaudio_jax.io import atomic_path
from realaudio_jax.models import text_encoder as text_lib
from realaudio_jax.quantisation import pack_int4, quantise
from realaudio_jax.release import (
    AUTOENCODER_NAME,
    GENERATOR_FILES,
    MOMENTS_NAME,
    SCALE_SUFFIX,
    STUDENT_NAME,
    TEACHER_NAME,
    TOWER_NAME,
    VERIFY_REMEDY,
    VOCABULARY_NAME,
    adapter_name,
    checksum,
    find_release,
    load_denoiser_and_adapter,
    load_params,
    read_release,
)
from realaudio_jax.release_config import CONFIG_NAME, FORMAT_VERSION, ReleaseConfig
from realaudio_jax.trees import named_leaves
from realaudio_jax.typing import PyTree

NETWORK_KEY = 'denoiser'  # of a trained teacher's metadata: the module's arguments as JSON
STORAGE_DTYPES = {
    'float32': np.dtype(np.float32),
    'float16': np.dtype(np.float16),
    'bfloat16': np.dtype(ml_dtypes.bfloat16),
    'int8': np.dtype(np.int8),
    'int4': np.dtype(np.uint8),  # two of them
}
BITS = {'int8': 8, 'int4': 4}

# Files that a new release takes over from an older one where it is not given others.
FROZEN = (
    text_lib.WEIGHTS_NAME,
    text_lib.TOKENIZER_NAME,
    'NOTICE-text-encoder.txt',
    VOCABULARY_NAME,
)


def save_release(
    folder: str | os.PathLike,
    config: ReleaseConfig | Mapping[str, Any],
    params: Mapping[str, PyTree],
    base: str | os.PathLike,
    dtype: str = 'float16',
    block: int | None = None,
) -> None:
    """Writes a release: the given networks, and copies of an older release's other files.

    Args:
        folder: where; made if it is missing.
        config: or what its JSON holds; an audio tower is copied if this describes one.
        params: by file stem: 'autoencoder', 'teacher', 'student', 'student_adapter' and the like.
            One that is not given is copied; moments are, if the student and the teacher are.
        base: name or folder of the release that gives the rest.
        dtype, block: how the networks given are stored, see `save_params`.

    Raises:
        OSError: the disk is full or the folder cannot be written.
        ValueError: a bad config, or a base that is damaged.
    """
    folder, base, config = pathlib.Path(folder), find_release(base), ReleaseConfig.of(config)
    integrity.verify(base, remedy=VERIFY_REMEDY)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / integrity.MANIFEST_NAME).unlink(missing_ok=True)  # true again at the end
    given = {f'{stem}.safetensors' for stem in params}
    given |= {adapter_name(name) for name in given}
    tower = (TOWER_NAME,) if config.audio_tower else ()
    networks = (TEACHER_NAME, STUDENT_NAME)
    copied = [*FROZEN, *tower, AUTOENCODER_NAME, *networks, *map(adapter_name, networks)]
    if given & {*networks, *map(adapter_name, networks)}:
        (folder / MOMENTS_NAME).unlink(missing_ok=True)
    else:
        copied.append(MOMENTS_NAME)
    for name in copied:
        if name not in given and (base / name).is_file() and base != folder:
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(base / name, temporary)
    for stem, tree in params.items():
        (folder / adapter_name(f'{stem}.safetensors')).unlink(missing_ok=True)
        save_params(folder / f'{stem}.safetensors', tree, dtype=dtype, block=block)
    config.write(folder)
    read = (CONFIG_NAME, *GENERATOR_FILES, *tower)
    integrity.write_manifest(folder, [name for name in read if (folder / name).exists()])


def initial_weights_path(source: str | os.PathLike, name: str) -> pathlib.Path:
    """Path of a training run's initial weights: `source` itself, or a file in that release.

    Args:
        source: a .safetensors file, or the name or folder of a release.
        name: TEACHER_NAME or STUDENT_NAME.

    Raises:
        FileNotFoundError: as `find_release`.
    """
    path = pathlib.Path(source)
    return path if path.suffix == '.safetensors' else find_release(source) / name


def load_initial_weights(
    source: str | os.PathLike, name: str, shapes: PyTree
) -> tuple[PyTree, PyTree | None]:
    """Initial weights of a training run and, separately, an adapter or None.

    Args:
        source: see `initial_weights_path`; a file has no adapter.
        name, shapes: see `load_denoiser_and_adapter`.

    Raises:
        FileNotFoundError, ValueError: as `find_release` and `load_denoiser_and_adapter`.
    """
    path = initial_weights_path(source, name)
    if path == pathlib.Path(source):
        return load_params(path, shapes), None
    read_release(path.parent)
    return load_denoiser_and_adapter(path.parent, name, shapes)


def save_params(
    path: str | os.PathLike,
    params: PyTree,
    metadata: Mapping[str, str] | None = None,
    dtype: str | None = None,
    block: int | None = None,
) -> None:
    """Writes a tree of arrays as one safetensors file, whole or not at all.

    Equal arrays and strings give equal bytes. A folder with a manifest lists the file anew.

    Args:
        path: the file; its folder is made if it is missing.
        params: nested dicts of arrays: floats, integers or booleans.
        metadata: extra strings for the file's header.
        dtype: storage of the floats: a key of STORAGE_DTYPES, or None to keep each as it is. With
            'int8' or 'int4', vectors and scalars, which are small, stay float32, and with 'int4'
            an odd last axis is int8. Integers stay as they are.
        block: of `quantise`, for the kernels stored as integers.

    Raises:
        ValueError: an unknown dtype, a reserved or repeated name, or a value that is not finite or
            too large for `dtype`.
        OSError: the disk is full or the folder cannot be written.
    """
    if dtype is not None and dtype not in STORAGE_DTYPES:
        raise ValueError(f'cannot store as {dtype!r}: choose one of {", ".join(STORAGE_DTYPES)}')
    tensors = {}
    for name, leaf in named_leaves(params):
        if name in tensors or name.endswith(SCALE_SUFFIX):
            raise ValueError(f'cannot save {path}: rename {name!r}, a repeated or reserved name')
        # Linen trees may hold transposed views; safetensors wants rows in order.
        array = np.array(leaf, order='C')
        if not jnp.issubdtype(array.dtype, jnp.floating):
            tensors[name] = array
            continue
        kind = array.dtype if dtype is None else STORAGE_DTYPES[dtype]
        bits = BITS.get(dtype) if array.ndim > 1 else None
        if dtype in BITS:
            kind = np.dtype(np.float32)
        with np.errstate(over='ignore'):  # reported just below, with the name
            finite = np.isfinite(array.astype(kind)).all()
        if not finite:
            raise ValueError(
                f'cannot save {path}: {name} is not finite as {kind}; '
                'keep the last good parameters or choose a wider dtype'
            )
        if bits is None:
            tensors[name] = array.astype(kind)
            continue
        axis, bits = (
            0 if name.split('/')[-1] == 'embedding' else -1,
            8 if array.shape[-1] % 2 else bits,
        )
        values, tensors[name + SCALE_SUFFIX] = quantise(array, axis, block, bits)
        tensors[name] = pack_int4(values) if bits == 4 else values
    header = dict(metadata or {}) | {
        'format_version': str(FORMAT_VERSION),
        'crc32': checksum(tensors),
    }
    encoded = _sorted_header(safetensors.numpy.save(tensors, header))
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)
    integrity.update_manifest(pathlib.Path(path).parent, pathlib.Path(path).name)


def _sorted_header(encoded: bytes) -> bytes:
    """The same file with the strings of its header in the order of their names.

    The safetensors library writes them in another order in every process.
    """
    size = 8 + int.from_bytes(encoded[:8], 'little')
    header = json.loads(encoded[8:size])
    header['__metadata__'] = dict(sorted(header['__metadata__'].items()))
    text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
    text += b' ' * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, 'little') + text + encoded[size:]
