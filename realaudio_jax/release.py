"""Parameters as strict safetensors files, which hold no code.

A parameter's name is its path in the tree joined by '/', as in `encoder/norm/bias`.
Floats are stored as float32, float16, bfloat16, or as int8 with a float32 scale `<name>.scale`:

    q = round(w / s),  s = max |w| / 127  over all axes but the channel's,

so that |w - s q| <= s / 2. The channel is the last axis (Flax kernels), the row of an embedding. A
kernel's channel may be cut into blocks of inputs with a scale each: one large weight then coarsens
its block alone. Each axis of a scale divides the same axis of its parameter.
"""

import json
import os
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from realaudio_jax.integrity import update_manifest
from realaudio_jax.io import atomic_path
from realaudio_jax.release_config import CONFIG_NAME, FORMAT_VERSION, REMEDY
from realaudio_jax.typing import PyTree

SCALE_SUFFIX = '.scale'  # no parameter's own name may end so
STORAGE_DTYPES = {
    'float32': np.dtype(np.float32),
    'float16': np.dtype(np.float16),
    'bfloat16': np.dtype(ml_dtypes.bfloat16),
    'int8': np.dtype(np.int8),
}
_LISTED = 10  # problems that a message lists; it counts the others


def quantise(
    values: np.ndarray, channel_axis: int = -1, block: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 with one scale per channel: q = round(w / s), s = max |w| / 127.

    Args:
      values: floats of at least two axes.
      channel_axis: the axis that keeps a scale of its own.
      block: how many inputs (the last axis but one) share a scale, where that divides them; all
        of them where it is None. Only where the channel is the last axis.

    Returns:
      int8 of the same shape, in [-127, 127], and float32 scales whose axes divide those of
      `values`: whole along the channel, 1 elsewhere, or the number of blocks.
    """
    values = np.asarray(values, np.float32)
    others = tuple(i for i in range(values.ndim) if i != channel_axis % values.ndim)
    size = values.shape[-2]
    if block and channel_axis == -1 and size % block == 0:
        cut = values.reshape(*values.shape[:-2], size // block, block, values.shape[-1])
        # All axes but the blocks' and the channel's; the blocks' then stands where inputs did.
        others = (*range(values.ndim - 2), values.ndim - 1)
        peak = np.max(np.abs(cut), axis=others, keepdims=True).squeeze(values.ndim - 1)
    else:
        peak = np.max(np.abs(values), axis=others, keepdims=True, initial=0.0)
    scale = np.where(peak > 0, peak / 127, 1).astype(np.float32)  # 1 for a channel of zeros
    steps = np.round(values / _expand(scale, values.shape))
    return np.clip(steps, -127, 127).astype(np.int8), scale


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
        'int8', vectors and scalars, which are small, stay float32. Integers are kept as they are.
      block: of `quantise`, for the kernels stored as int8.

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
        if dtype == 'int8' and array.ndim < 2:
            kind = np.dtype(np.float32)
        with np.errstate(over='ignore'):  # reported just below, with the name
            finite = np.isfinite(array if kind == np.int8 else array.astype(kind)).all()
        if not finite:
            raise ValueError(
                f'cannot save {path}: {name} is not finite as {kind}; '
                'keep the last good parameters or choose a wider dtype'
            )
        if kind == np.int8:
            axis = 0 if name.split('/')[-1] == 'embedding' else -1
            tensors[name], tensors[name + SCALE_SUFFIX] = quantise(array, axis, block)
        else:
            tensors[name] = array.astype(kind)
    header = dict(metadata or {}) | {
        'format_version': str(FORMAT_VERSION),
        'crc32': _checksum(tensors),
    }
    encoded = _sorted_header(safetensors.numpy.save(tensors, header))
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)
    update_manifest(pathlib.Path(path).parent, pathlib.Path(path).name)


def load_params(path: str | os.PathLike, template: PyTree) -> PyTree:
    """Reads a file written by `save_params` into the structure of `template`, strictly.

    Args:
      path: the safetensors file.
      template: a tree of arrays or `jax.ShapeDtypeStruct`, as `jax.eval_shape` gives it. Floats
        come back in the template's dtype, whatever float or int8 they were stored as; integers
        and booleans must have been stored in exactly the template's dtype.

    Returns:
      The template's tree, filled with jax arrays.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, or does not fit; the message lists every missing and
        unexpected name and every wrong shape and dtype, up to ten.
    """
    tensors = read_tensors(path)
    wanted = named_leaves(template)
    names = {name for name, _ in wanted}
    problems = [f'missing {name}' for name, _ in wanted if name not in tensors]
    problems += [f'unexpected {name}' for name in sorted(tensors) if name not in names]
    for name, leaf in wanted:
        if name not in tensors:
            continue
        found = tensors[name]
        if found.shape != tuple(leaf.shape):
            problems.append(f'{name} has shape {found.shape}, not {tuple(leaf.shape)}')
        both_float = all(jnp.issubdtype(d, jnp.floating) for d in (found.dtype, leaf.dtype))
        if not both_float and found.dtype != leaf.dtype:
            problems.append(f'{name} has dtype {found.dtype}, not {leaf.dtype}')
    if problems:
        more = f'; and {len(problems) - _LISTED} more' if len(problems) > _LISTED else ''
        raise ValueError(
            f'{path} does not fit the model: {"; ".join(problems[:_LISTED])}{more}; '
            f"load it with its own release's {CONFIG_NAME}"
        )
    leaves = [jnp.asarray(tensors[name], leaf.dtype) for name, leaf in wanted]
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(template), leaves)


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads every array of a safetensors file by name; int8 with a scale comes back as float32.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is truncated or damaged.
    """
    tensors, metadata = _open(path)
    if metadata.get('crc32', _checksum(tensors)) != _checksum(tensors):
        raise ValueError(f'{path} is damaged (its checksum differs); {REMEDY}')
    for name in [n for n in tensors if n.endswith(SCALE_SUFFIX)]:
        owner = name.removesuffix(SCALE_SUFFIX)
        values, scale = tensors.get(owner), tensors[name]
        if values is None or values.dtype != np.int8:
            continue  # an orphan: strict loading lists it as unexpected
        if scale.ndim != values.ndim or any(
            not s or v % s for s, v in zip(scale.shape, values.shape, strict=True)
        ):
            raise ValueError(f'{path}: {name} does not fit {owner} {values.shape}; {REMEDY}')
        tensors[owner] = values.astype(np.float32) * _expand(tensors.pop(name), values.shape)
    return tensors


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Reads the strings in a safetensors file's header.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is truncated or damaged.
    """
    return _open(path, names=())[1]


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """The leaves with their '/'-joined names, in the order of the tree."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(p, simple=True, separator='/'), leaf) for p, leaf in leaves]


def _expand(scale: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Repeats each scale over its block, to a shape that broadcasts to `shape`."""
    for axis, (count, size) in enumerate(zip(scale.shape, shape, strict=True)):
        if 1 < count < size:
            scale = np.repeat(scale, size // count, axis)
    return scale


def _open(path, names=None) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The raw arrays (only `names`, where given) and the header's strings."""
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f'no weights at {path}; check the name or get the release again')
    try:
        with safetensors.safe_open(path, framework='np') as file:
            keys = file.keys() if names is None else names
            # bfloat16 passes only tensor by tensor.
            return {key: file.get_tensor(key) for key in keys}, dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise ValueError(f'{path} is truncated or damaged ({error}); {REMEDY}') from error


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


def _checksum(tensors: Mapping[str, np.ndarray]) -> str:
    """CRC-32 of the arrays' bytes in the order of their names: safetensors itself has none."""
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8), crc)
    return f'{crc:08x}'
