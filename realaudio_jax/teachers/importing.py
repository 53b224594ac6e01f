"""Strict import of published weights: folders of safetensors as diffusers and transformers save.

A folder holds a `config.json` and one file of weights, or several with an index that says which
tensor lies where. A parameter's path in our tree is turned into the original's name by rewriting
rules, and its array into our layout by the kind of parameter. Every tensor must be used and every
parameter filled; whatever differs is listed in one error, found from the files' headers before any
weight is read.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from realaudio_jax.trees import named_leaves
from realaudio_jax.typing import PyTree

CONFIG_NAME = 'config.json'
STEMS = ('model', 'diffusion_pytorch_model')  # of transformers and of diffusers
PRECISIONS = ('F32', 'F16', 'BF16')
DTYPES = ('float32', 'bfloat16', 'float16')  # that a network is loaded in
# Parameters whose last name differs; any other keeps its own.
LEAF_NAMES = {'kernel': 'weight', 'scale': 'weight', 'embedding': 'weight'}

Names = Sequence[tuple[str, str]]  # regular expression and replacement, on 'a/b/kernel'
Layout = Callable[[str, np.ndarray], np.ndarray]


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or not an object.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'no {path.name} in {path.parent}: give the folder of the whole model, or download it '
            'again'
        )
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:  # bad JSON and bad UTF-8 alike
        raise ValueError(f'{path} is damaged ({error}); download it again') from error
    if not isinstance(found, dict):
        raise ValueError(f'{path} holds no JSON object; download it again')
    return found


def read_model_config(
    folder: str | os.PathLike, class_name: str, name: str = CONFIG_NAME
) -> dict[str, Any]:
    """The config of one model, which must be of the class named.

    Args:
        folder: of the model.
        class_name: as the original library names the model.
        name: of the file.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: the file is damaged or describes another model.
    """
    config = read_json(pathlib.Path(folder) / name)
    found = config.get('_class_name') or (config.get('architectures') or [None])[0]
    if found != class_name:
        raise ValueError(
            f'{folder} holds a model of class {found or "unknown"}, not {class_name}; give the '
            'folder of that model'
        )
    return config


def require_dtype(name: str) -> np.dtype:
    """The precision of a name in DTYPES, or a ValueError."""
    if name not in DTYPES:
        raise ValueError(f'dtype is {name!r}; choose one of {", ".join(DTYPES)}')
    return jnp.dtype(name)


def require_pipeline(folder: str | os.PathLike, class_name: str, parts: Sequence[str]) -> None:
    """Raises a one-line error for a folder that is no complete diffusers pipeline.

    Args:
        folder: of model_index.json.
        class_name: of the pipeline.
        parts: folders within it.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: another pipeline, the layout of stable-audio-tools, or parts are missing.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'no folder {folder}; check the name or download the model')
    if not (folder / 'model_index.json').is_file() and (folder / 'model_config.json').is_file():
        raise ValueError(
            f'{folder} is of an older layout (model_config.json of stable-audio-tools); give the '
            'folders that diffusers reads, with a model_index.json'
        )
    read_model_config(folder, class_name, 'model_index.json')
    missing = [name for name in parts if not (folder / name).is_dir()]
    if missing:
        raise ValueError(
            f'{folder} is half-downloaded: {", ".join(missing)} missing; download it again'
        )


def require_same(folder: str | os.PathLike, *facts: tuple[str, Any, Any]) -> None:
    """Raises a ValueError for parts whose settings do not agree.

    Args:
        folder: named in the error.
        facts: what it is, and its value in two parts.
    """
    problems = [f'{name} {a} and {b}' for name, a, b in facts if a != b]
    if problems:
        raise ValueError(
            f'the parts of {folder} are of different models: {"; ".join(problems)}; download it '
            'again'
        )


def pick(
    config: Mapping[str, Any],
    folder: str | os.PathLike,
    fields: Mapping[str, str],
    fixed: Mapping[str, Any],
) -> dict[str, Any]:
    """Reads a module's arguments from a config; unsupported settings raise.

    Args:
        config: of the original.
        folder: named in the error.
        fields: argument of the module by key of the config.
        fixed: keys whose value the module has built in; one that is absent counts as that value.

    Returns:
        arguments by name; lists as tuples.

    Raises:
        ValueError: missing keys and values other than the fixed ones, all of them.
    """
    problems = [f'no {key}' for key in fields if key not in config]
    problems += [
        f'{key} is {config[key]!r}, not {value!r}'
        for key, value in fixed.items()
        if config.get(key, value) != value
    ]
    if problems:
        raise ValueError(
            f'the config of {folder} is of an older layout or another variant: '
            f'{"; ".join(problems)}; this port covers the published model only'
        )
    return {
        argument: tuple(config[key]) if isinstance(config[key], list) else config[key]
        for key, argument in fields.items()
    }


def torch_layout(path: str, array: np.ndarray) -> np.ndarray:
    """[out, in, *window] of a torch weight to [*window, in, out] of a kernel; others stay."""
    if path.rsplit('/', 1)[-1] != 'kernel':
        return array
    return np.moveaxis(array, (0, 1), (-1, -2))


def original_name(path: str, names: Names) -> str:
    """The original's name of a parameter: 'block_0/query/kernel' to 'blocks.0.to_q.weight'."""
    for pattern, replacement in names:
        path = re.sub(pattern, replacement, path)
    *modules, leaf = path.split('/')
    return '.'.join([*modules, LEAF_NAMES.get(leaf, leaf)])


def import_params(
    folder: str | os.PathLike,
    template: PyTree,
    names: Names = (),
    *,
    aliases: Mapping[str, str] | None = None,
    ignored: str | None = None,
    layout: Layout = torch_layout,
    dtype: Any = np.float32,
) -> PyTree:
    """Fills a tree of parameters from the weights in a folder, strictly.

    Args:
        folder: of safetensors, whole or in shards; float32, float16 or bfloat16.
        template: a tree of `jax.ShapeDtypeStruct`, as `jax.eval_shape` gives it.
        names: rules from our paths to the original's names, applied in order; see `original_name`.
        aliases: names under which the original may hold a tensor a second time, or instead, by the
            name of the first: {'embed_tokens.weight': 'shared.weight'}.
        ignored: regular expression for names of tensors that are no parameters (tables, counters).
        layout: from the original's array to ours, by path.
        dtype: of the result; None keeps each as it is stored.

    Returns:
        The template's tree, filled with jax arrays.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the weights are missing, damaged or pickled, or do not fit; the message lists
            every missing and unexpected name, every wrong shape and every precision not known.
    """
    leaves = named_leaves(template)
    wanted = {path: original_name(path, names) for path, _ in leaves}
    with contextlib.ExitStack() as stack:
        tensors = _open_all(weight_files(folder), stack)
        problems = _merge_aliases(tensors, aliases or {})
        expected = set(wanted.values())
        problems += [f'missing {name}' for name in wanted.values() if name not in tensors]
        problems += [
            f'unexpected {name}'
            for name in sorted(tensors)
            if name not in expected and not (ignored and re.search(ignored, name))
        ]
        for path, leaf in leaves:
            if wanted[path] in tensors:
                problems += _misfits(path, wanted[path], tensors[wanted[path]], leaf, layout)
        if problems:
            raise ValueError(
                f'{folder} is another model, or of another layout: {"; ".join(problems)}; give the '
                'folder as its authors publish it'
            )
        params = []
        for path in wanted:
            array = layout(path, tensors[wanted[path]].read())
            params.append(jnp.asarray(array, dtype or array.dtype))
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(template), params)


def weight_files(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The safetensors files that hold a model's weights, full precision preferred.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no weights, weights as a pickle only, or some shards missing.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'no folder {folder}; check the name or download the model again')
    for variant in ('', '.fp16', '.bf16'):
        for stem in STEMS:
            single = folder / f'{stem}{variant}.safetensors'
            if single.is_file():
                return [single]
            index = folder / f'{stem}.safetensors.index{variant}.json'
            if index.is_file():
                names = sorted(set(read_json(index).get('weight_map', {}).values()))
                missing = [name for name in names if not (folder / name).is_file()]
                if missing or not names:
                    raise ValueError(
                        f'{folder} is half-downloaded: {", ".join(missing) or "its index"} missing '
                        f'of the {len(names)} files in {index.name}; download it again'
                    )
                return [folder / name for name in names]
    pickles = [p.name for end in ('*.bin', '*.ckpt', '*.pt', '*.pth') for p in folder.glob(end)]
    if pickles:
        raise ValueError(
            f'{folder} is of an older layout: {sorted(pickles)[0]} is a pickle, which is not read; '
            'save the model again as safetensors'
        )
    raise ValueError(
        f'{folder} is half-downloaded: it has none of '
        f'{", ".join(f"{stem}.safetensors" for stem in STEMS)}; download it again'
    )


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """One tensor of an open file, its values not read yet."""

    file: Any
    name: str
    shape: tuple[int, ...]
    precision: str

    def read(self) -> np.ndarray:
        return self.file.get_tensor(self.name)


def _open_all(files: list[pathlib.Path], stack: contextlib.ExitStack) -> dict[str, _Tensor]:
    """Every tensor by name, from the headers."""
    tensors = {}
    for path in files:
        try:
            file = stack.enter_context(safetensors.safe_open(path, framework='np'))
            for name in file.keys():
                header = file.get_slice(name)
                shape = tuple(header.get_shape())
                tensors[name] = _Tensor(file, name, shape, header.get_dtype())
        except safetensors.SafetensorError as error:
            raise ValueError(
                f'{path} is half-downloaded or damaged ({error}); download it again'
            ) from error
    return tensors


def _merge_aliases(tensors: dict[str, _Tensor], aliases: Mapping[str, str]) -> list[str]:
    """Keeps one tensor of each that is stored under two names; lists those that differ."""
    problems = []
    for alias, name in aliases.items():
        if alias not in tensors:
            continue
        second = tensors.pop(alias)
        first = tensors.setdefault(name, second)
        if first is not second and not np.array_equal(first.read(), second.read()):
            problems.append(f'{alias} differs from {name}')
    return problems


def _misfits(path: str, name: str, found: _Tensor, leaf: Any, layout: Layout) -> list[str]:
    """What keeps a tensor from being a parameter, from its header alone."""
    problems = []
    if found.precision not in PRECISIONS:
        problems.append(f'{name} is stored as {found.precision}, not {" or ".join(PRECISIONS)}')
    try:  # a view of one zero costs no memory
        shape = layout(path, np.broadcast_to(np.float32(0), found.shape)).shape
    except ValueError:  # too few axes to be laid out at all
        shape = found.shape
    if shape != tuple(leaf.shape):
        problems.append(f'{name} has shape {shape}, not {tuple(leaf.shape)}')
    return problems
