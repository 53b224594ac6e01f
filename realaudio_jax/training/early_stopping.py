"""The weights of a run at its lowest held-out loss, and when to stop looking for lower ones."""

import pathlib

from realaudio_jax import processes
from realaudio_jax.packing import save_params
from realaudio_jax.release import load_params, read_metadata
from realaudio_jax.typing import PyTree

BEST_NAME = 'best.safetensors'


class EarlyStopping:
    """Keeps the best weights in a file, so that a run which is resumed goes on with them.

    Args:
        workdir: of the run.
        patience: steps without a lower held-out loss after which a run ends; 0: it never does.
    """

    def __init__(self, workdir: pathlib.Path, patience: int):
        self._path, self._patience = workdir / BEST_NAME, patience
        self.step, self.loss = 0, float('inf')
        if patience and self._path.is_file():
            known = read_metadata(self._path)
            self.step, self.loss = int(known['step']), float(known['loss'])

    def update(self, step: int, loss: float, params: PyTree) -> None:
        """Keeps the weights of a step if their loss is the lowest so far."""
        if self._patience and loss < self.loss:
            self.step, self.loss = step, loss
            known = {'step': str(step), 'loss': repr(loss)}
            processes.only_first(lambda: save_params(self._path, params, known), 'best weights')

    def ends(self, step: int) -> bool:
        """Whether a run at this step has waited long enough."""
        return bool(self._patience) and step - self.step >= self._patience

    def best(self, last: PyTree) -> PyTree:
        """The weights kept; `last` where none are."""
        return load_params(self._path, last) if self._patience and self.step else last
