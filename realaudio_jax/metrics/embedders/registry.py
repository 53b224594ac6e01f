"""Embedders by name: their licences and sources, and the functions that load them."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

from realaudio_jax.metrics.embedders import clap, crepe, gpvad, openl3, panns, vggish, yamnet
from realaudio_jax.metrics.embedders.base import Embedder
from realaudio_jax.metrics.embedders.tower import Tower, has_tower, load_tower
from realaudio_jax.release import find_release


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A published embedder before its weights are loaded.

    Attributes:
        load: from the folder of the weights.
        files: names of which the folder must hold one.
        sample_rate: Hz, of the sound it takes.
        dimension: of its vectors.
        licence: of the weights.
        source: where the weights come from.
    """

    load: Callable[[str | os.PathLike], Embedder]
    files: tuple[str, ...]
    sample_rate: int
    dimension: int
    licence: str
    source: str


CHECKPOINTS = {
    'yamnet': Checkpoint(
        yamnet.yamnet,
        (yamnet.WEIGHTS,),
        yamnet.SAMPLE_RATE,
        yamnet.DIMENSION,
        'Apache-2.0',
        'github.com/google-coral/coralmicro, models',
    ),
    'gpvad': Checkpoint(
        gpvad.gpvad,
        gpvad.TEACHERS,
        gpvad.SAMPLE_RATE,
        gpvad.DIMENSION,
        gpvad.LICENCE,
        gpvad.SOURCE,
    ),
    'crepe': Checkpoint(
        crepe.crepe,
        (crepe.WEIGHTS,),
        crepe.SAMPLE_RATE,
        crepe.DIMENSION,
        crepe.LICENCE,
        crepe.SOURCE,
    ),
    'vggish': Checkpoint(
        vggish.vggish,
        vggish.NAMES,
        vggish.SAMPLE_RATE,
        vggish.DIMENSION,
        vggish.LICENCE,
        vggish.SOURCE,
    ),
    'cnn14': Checkpoint(
        panns.cnn14,
        (panns.WEIGHTS,),
        panns.SAMPLE_RATE,
        panns.DIMENSION,
        panns.LICENCE,
        panns.SOURCE,
    ),
    'openl3': Checkpoint(
        openl3.openl3,
        openl3.NAMES,
        openl3.SAMPLE_RATE,
        openl3.DIMENSION,
        openl3.LICENCE,
        openl3.SOURCE,
    ),
    'clap': Checkpoint(
        lambda folder: clap.load_clap(folder).embedder,
        (clap.WEIGHTS,),
        clap.SAMPLE_RATE,
        clap.DIMENSION,
        clap.LICENCE,
        clap.SOURCE,
    ),
}
TOWER = 'tower'  # of the release
NAMES = (TOWER, *CHECKPOINTS)


def load_embedder(name: str, weights_dir: str | os.PathLike) -> Embedder:
    """The embedder of this name with the weights in a folder.

    Its `name` holds the start of the weights' hash, so that a table that prints it says which
    checkpoint a result is of. For the CLAP score, which needs texts too, use `clap.load_clap`.

    Args:
        name: a key of CHECKPOINTS.
        weights_dir: the folder, or one right above it; each port's module says what it must hold.

    Raises:
        FileNotFoundError: the folder holds no such weights; where it holds another embedder's,
            the message says whose.
        ValueError: no such name; or the file is damaged, incomplete or of another network.
    """
    if name not in CHECKPOINTS:
        raise ValueError(f'no embedder {name!r}: choose one of {", ".join(CHECKPOINTS)}')
    checkpoint, weights_dir = CHECKPOINTS[name], _folder_of(name, weights_dir)
    try:
        embedder = checkpoint.load(weights_dir)
    except FileNotFoundError as error:
        others = [n for n, other in CHECKPOINTS.items() if n != name and _holds(weights_dir, other)]
        if not others or _holds(weights_dir, checkpoint):
            raise
        raise FileNotFoundError(f'{error} (this one holds {" and ".join(others)})') from error
    return dataclasses.replace(embedder, source=checkpoint.source)


def embedders_in(folder: str | os.PathLike, names: Sequence[str] = ()) -> dict[str, pathlib.Path]:
    """Embedders whose weights lie in a folder or right below it, and the folder that has them.

    Args:
        folder: the folder.
        names: of those that are wanted, in this order; none: all that are there.

    Raises:
        FileNotFoundError: there is none. ValueError: one of the names is not there.
    """
    root, found = pathlib.Path(folder), _found_in(folder)
    if not found:
        raise FileNotFoundError(
            f'{root}: no weights of an embedder here or in a folder below it; known are '
            f'{", ".join(CHECKPOINTS)}'
        )
    for name in names:
        if name not in found:
            raise ValueError(f'no weights of {name} in {root}, only {", ".join(found)}')
    return {name: found[name] for name in names or found}


def load_evaluators(
    release: str | os.PathLike, embedder_weights: str | os.PathLike | None = None
) -> tuple[Tower | None, list[Embedder]]:
    """The release's own audio tower, if it has one, and YAMNet where its weights are named.

    Args:
        release: folder of the release.
        embedder_weights: folder of YAMNet weights, or one right above it.

    Raises:
        FileNotFoundError: `embedder_weights` holds no YAMNet weights.
    """
    tower = load_tower(release) if has_tower(release) else None
    if not embedder_weights:
        return tower, []
    return tower, [yamnet.yamnet(_folder_of('yamnet', embedder_weights))]


def load_embedders(
    names: Sequence[str],
    release: str | os.PathLike,
    embedder_weights: str | os.PathLike | None = None,
) -> list[Embedder]:
    """Embedders by name; with no names, every one at hand.

    Args:
        names: of `NAMES`, or empty.
        release: name or folder of the release whose tower is used.
        embedder_weights: folder of the others' weights.

    Raises:
        ValueError: a name that is not known, or none at hand.
        FileNotFoundError: the release or the weights are not there.
    """
    for name in names:
        if name not in NAMES:
            raise ValueError(f'no embedder {name!r}; choose from {", ".join(NAMES)}')
        if name != TOWER and embedder_weights is None:
            raise ValueError(f'the embedder {name} needs its weights; name --embedder_weights')
    if names:
        return [
            load_tower(find_release(release)).embedder
            if name == TOWER
            else load_embedder(name, embedder_weights)
            for name in dict.fromkeys(names)
        ]
    tower, embedders = load_evaluators(find_release(release), embedder_weights)
    found = ([tower.embedder] if tower else []) + embedders
    if not found:
        raise ValueError(
            f'no embedder: release {release} has no audio tower; name --embedder_weights'
        )
    return found


def _found_in(folder: str | os.PathLike) -> dict[str, pathlib.Path]:
    """The folder of each embedder whose weights lie in a folder or right below it."""
    root = pathlib.Path(folder)
    folders = [root, *sorted(path for path in root.glob('*') if path.is_dir())]
    return {
        name: path
        for name, checkpoint in CHECKPOINTS.items()
        for path in reversed(folders)
        if _holds(path, checkpoint)
    }


def _folder_of(name: str, folder: str | os.PathLike) -> str | os.PathLike:
    """Where the weights of an embedder are; the folder itself where they are missing."""
    return _found_in(folder).get(name, folder)


def _holds(folder, checkpoint):
    return any((pathlib.Path(folder) / file).is_file() for file in checkpoint.files)
