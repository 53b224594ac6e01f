"""Checkpoints of a training run on orbax: exact, atomic, strict about what they restore into.

Layout: `<folder>/<step>/state` (the arrays, by flat names such as 'params/dense/kernel'),
`<folder>/<step>/data` (the position of the data iterator, as JSON) and `<folder>/<step>/SHA256SUMS`
(digests of these files, see `integrity`). A checkpoint whose files are not what was written is set
aside as `<folder>/damaged-<step>`, and the newest intact one is taken.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from realaudio_jax import integrity, processes
from realaudio_jax.training.loop import print_to_stderr
from realaudio_jax.trees import named_leaves
from realaudio_jax.typing import PyTree

_LISTED = 10  # differences that a message names; it counts the others
FULL_DISK_SIGNS = ('no space left on device', 'disk quota exceeded')


class Checkpointer:
    """Saves and restores training states, keeping the newest few.

    A checkpoint is written under a temporary name and counts only once complete. Saving returns
    when the checkpoint is on disk. The folder is made by the first save. Of several processes of a
    run each saves the shards that it holds, into one folder that all see; a run of any number of
    devices and processes restores them.

    Args:
        folder: where checkpoints live, one subfolder per step; may be relative.
        keep: how many checkpoints to keep.
        say: takes a line about each checkpoint that is damaged.
    """

    def __init__(
        self, folder: str | Path, keep: int = 2, say: Callable[[str], None] = print_to_stderr
    ):
        self.folder = Path(folder).expanduser().absolute()
        self.keep = keep
        self.say = say
        self._manager: ocp.CheckpointManager | None = None
        if processes.count() > 1:  # all shall open it at the same place
            processes.only_first(
                lambda: self.folder.mkdir(parents=True, exist_ok=True), 'checkpoints'
            )

    def save(self, state: PyTree, data_iterator: Any = None) -> None:
        """Save under the state's own step; a step that is already saved is left as it is.

        Args:
            state: pytree with an attribute or key 'step'.
            data_iterator: has `get_state()` giving bytes or JSON-able values, saved beside.

        Raises:
            ValueError: the folder holds a later step, or the iterator's state is not JSON-able.
            OSError: the disk is full; earlier checkpoints are intact.
        """
        step, latest = _step_of(state), self.latest_step()
        if latest == step:
            return
        if latest is not None and latest > step:
            raise ValueError(
                f'{self.folder} already holds step {latest}, later than step {step} to be saved; '
                'resume from it or choose another folder'
            )
        # Orbax refuses arrays without elements; they carry nothing.
        arrays = {name: _storable(leaf) for name, leaf in _named(state) if np.size(leaf)}
        items: dict[str, Any] = {'state': ocp.args.StandardSave(arrays)}
        if data_iterator is not None:
            items['data'] = ocp.args.JsonSave(_encode(data_iterator.get_state()))
        try:
            manager = self._open(create=True)
            need = sum(leaf.nbytes for leaf in arrays.values())
            processes.only_first(lambda: self._require_space(need), 'space for a checkpoint')
            with _told_once():
                saved = manager.save(step, args=ocp.args.Composite(**items))
            if not saved:
                raise RuntimeError(f'orbax declined to save step {step} in {self.folder}')
            processes.only_first(
                lambda: integrity.write_manifest(self.folder / str(step)), 'checkpoint'
            )
        except Exception as error:
            self._forget_failed(step)
            if _is_full_disk(error):
                raise OSError(
                    errno.ENOSPC,
                    f'the disk is full: cannot save the checkpoint of step {step} in '
                    f'{self.folder}; earlier checkpoints are intact; free some space and resume',
                ) from error
            raise

    def restore(
        self,
        state: PyTree | Callable[[int], PyTree],
        data_iterator: Any = None,
        step: int | None = None,
    ) -> PyTree | None:
        """Restore into the structure, shapes, dtypes and sharding of a template.

        Args:
            state: template, of arrays or `jax.ShapeDtypeStruct`; its values are not read. Where
                the structure changes during a run, a function of the step that gives it.
            data_iterator: has `set_state()`, given what `get_state()` gave at the save.
            step: checkpoint to take; None: the newest intact one. Damaged ones that are newer are
                set aside, each with a line.

        Returns:
            The restored state, or None when there is no checkpoint.

        Raises:
            ValueError: names, shapes or dtypes differ from the template (ten at most are listed),
                there is no iterator state; or `step`, or every checkpoint, is damaged.
            FileNotFoundError: `step` is given and not saved.
        """
        steps = sorted(self._open().all_steps()) if self.folder.is_dir() else []
        if step is None:
            if not steps:
                return None
            step = processes.from_first(lambda: self._newest_intact(steps), 'newest checkpoint')
            if processes.count() > 1:
                self.close()  # the first may have set some aside
        elif step not in steps:
            raise FileNotFoundError(f'{self.folder} holds no step {step}, only {steps}')
        else:
            integrity.verify(self.folder / str(step), remedy='take another step')
        manager = self._open()
        state = state(step) if callable(state) else state
        named = _named(state)
        saved = manager.item_metadata(step)
        _require_match(f'{self.folder}/{step}', dict(named), dict(saved.state.tree))
        if data_iterator is not None and 'data' not in saved:
            raise ValueError(
                f'{self.folder}/{step} was saved without the position of its data; '
                'start a new folder or restore without a data iterator'
            )
        template = {name: _template(leaf) for name, leaf in named if _size(leaf)}
        items: dict[str, Any] = {'state': ocp.args.StandardRestore(template)}
        if data_iterator is not None:
            items['data'] = ocp.args.JsonRestore()
        try:
            restored = manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # of orbax and tensorstore, of any type and many lines
            if (self.folder / f'{step}/{integrity.MANIFEST_NAME}').exists():
                raise
            raise ValueError(
                f'{self.folder}/{step} has no {integrity.MANIFEST_NAME} and cannot be read; remove '
                'it to go on without it'
            ) from error
        if data_iterator is not None:
            data_iterator.set_state(_decode(restored['data']))
        arrays = restored['state']
        leaves = [_as_template(leaf, arrays.get(name)) for name, leaf in named]
        return jax.tree.unflatten(jax.tree.structure(state), leaves)

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self._open().latest_step() if self.folder.is_dir() else None

    def close(self) -> None:
        """Release the folder."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _open(self, create: bool = False) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self.keep, create=create, enable_async_checkpointing=False
            )
            handlers = {
                'state': ocp.StandardCheckpointHandler(),
                'data': ocp.JsonCheckpointHandler(),
            }
            self._manager = ocp.CheckpointManager(
                self.folder, item_handlers=handlers, options=options
            )
        return self._manager

    def _newest_intact(self, steps: Sequence[int]) -> int:
        """The newest step whose files are what was written; newer ones are set aside."""
        damaged = {}
        # The manifest is written last: without one a save did not end. Where no checkpoint has one,
        # they are of a version without manifests and taken unchecked.
        listed = any((self.folder / f'{step}/{integrity.MANIFEST_NAME}').exists() for step in steps)
        for step in reversed(steps):
            try:
                if integrity.verify(self.folder / str(step)) or not listed:
                    break
                damaged[step] = f'it has no {integrity.MANIFEST_NAME}'
            except integrity.IntegrityError as error:
                damaged[step] = str(error).split(': ', 1)[-1].rsplit(';', 1)[0]
        else:
            raise ValueError(
                f'every checkpoint in {self.folder} is damaged; begin again in another folder'
            )
        for found, what in damaged.items():
            aside = self.folder / f'damaged-{found}'
            shutil.rmtree(aside, ignore_errors=True)
            (self.folder / str(found)).rename(aside)
            self.say(f'the checkpoint of step {found} is damaged ({what}): set aside as {aside}')
        if damaged:
            self.close()  # the manager has read the folder
        return step

    def _require_space(self, need: int) -> None:
        if shutil.disk_usage(self.folder).free < need:
            raise OSError(errno.ENOSPC, 'No space left on device')

    def _forget_failed(self, step: int) -> None:
        """Remove what a failed save left, and with it the manager's memory of that step."""
        self._manager = None
        for left in self.folder.glob(f'{step}.*'):
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _told_once() -> Iterator[None]:
    """Keep orbax's worker threads from also logging, with traceback, the error that is raised."""

    def not_an_orbax_error(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR or 'orbax' not in record.pathname

    logger = logging.getLogger('absl')
    logger.addFilter(not_an_orbax_error)
    try:
        yield
    finally:
        logger.removeFilter(not_an_orbax_error)


def _step_of(state: PyTree) -> int:
    return int(state['step'] if isinstance(state, dict) else state.step)


def _named(state: PyTree) -> list[tuple[str, Any]]:
    named = named_leaves(state)
    if len(dict(named)) != len(named):
        raise ValueError("two arrays of the state have the same name; avoid '/' in its keys")
    return named


def _size(leaf: Any) -> int:
    return int(np.prod(_shape_dtype(leaf)[0]))


def _shape_dtype(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    leaf = leaf if hasattr(leaf, 'shape') else np.asarray(leaf)
    return tuple(leaf.shape), np.dtype(leaf.dtype)


def _storable(leaf: Any) -> jax.Array | np.ndarray:
    """What orbax shall store: of one process alone, values that are on the host already.

    Of arrays it would have every device write a part, by a program to cut it for each shape.
    """
    apart = isinstance(leaf, jax.Array) and processes.count() > 1
    return leaf if apart else np.asarray(leaf)


def _template(leaf: Any) -> Any:
    """What orbax shall build for this leaf: a placed array, or a numpy array."""
    shape, dtype = _shape_dtype(leaf)
    if isinstance(leaf, jax.Array) and leaf.committed:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=leaf.sharding)
    if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is not None:
        return leaf
    return np.empty(shape, dtype)


def _as_template(leaf: Any, value: Any) -> Any:
    """The restored value as the template's kind: array, numpy array or Python number."""
    if value is None:  # an array without elements, never saved
        value = np.zeros(*_shape_dtype(leaf))
    if isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)):
        # An uncommitted template stays uncommitted, so that jit may still move it to a mesh.
        return value if isinstance(value, jax.Array) else jnp.array(value, dtype=leaf.dtype)
    if isinstance(leaf, (bool, int, float)):
        return type(leaf)(value)
    return value[()] if isinstance(leaf, np.generic) else value


def _require_match(where: str, wanted: dict[str, Any], saved: dict[str, Any]) -> None:
    problems = []
    for name, leaf in wanted.items():
        shape, dtype = _shape_dtype(leaf)
        if name not in saved:
            if _size(leaf):
                problems.append(f'{name} is missing')
        elif tuple(saved[name].shape) != shape:
            problems.append(f'{name} has shape {tuple(saved[name].shape)}, wanted {shape}')
        elif np.dtype(saved[name].dtype) != dtype:
            problems.append(f'{name} is {saved[name].dtype}, wanted {dtype}')
    problems += [f'{name} is not wanted' for name in saved if name not in wanted]
    if problems:
        more = f'; and {len(problems) - _LISTED} more' if len(problems) > _LISTED else ''
        raise ValueError(
            f'{where} does not fit this configuration (use the one it was trained with): '
            f'{"; ".join(problems[:_LISTED])}{more}'
        )


def _encode(state: Any) -> dict[str, Any]:
    if isinstance(state, bytes):
        return {'bytes': base64.b64encode(state).decode('ascii')}
    try:
        # Through text and back now, so that what is restored is what was checked here.
        return {'json': json.loads(json.dumps(state, default=_plain))}
    except TypeError as error:
        raise ValueError(f'the state of the data iterator cannot be saved: {error}') from error


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f'{type(value).__name__} is neither bytes nor JSON')


def _decode(saved: dict[str, Any]) -> Any:
    return base64.b64decode(saved['bytes']) if 'bytes' in saved else saved['json']


def _is_full_disk(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(sign in str(error).lower() for sign in FULL_DISK_SIGNS):
            return True
        error = error.__cause__ or error.__context__
    return False
