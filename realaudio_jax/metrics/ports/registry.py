"""Embedders by name: what each one is, and one function that loads any of them."""

import dataclasses
import os
import pathlib
from collections.abc import Callable

from realaudio_jax.metrics import yamnet
from realaudio_jax.metrics.embedders import Embedder
from realaudio_jax.metrics.ports import clap, crepe, gpvad, openl3, panns, vggish


@dataclasses.dataclass(frozen=True)
class Port:
    """What is known of an embedder before its weights are there.

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


PORTS = {
    'yamnet': Port(
        yamnet.yamnet,
        (yamnet.WEIGHTS,),
        yamnet.SAMPLE_RATE,
        yamnet.DIMENSION,
        'Apache-2.0',
        'github.com/google-coral/coralmicro, models',
    ),
    'gpvad': Port(
        gpvad.gpvad,
        gpvad.TEACHERS,
        gpvad.SAMPLE_RATE,
        gpvad.DIMENSION,
        gpvad.LICENCE,
        gpvad.SOURCE,
    ),
    'crepe': Port(
        crepe.crepe,
        (crepe.WEIGHTS,),
        crepe.SAMPLE_RATE,
        crepe.DIMENSION,
        crepe.LICENCE,
        crepe.SOURCE,
    ),
    'vggish': Port(
        vggish.vggish,
        vggish.NAMES,
        vggish.SAMPLE_RATE,
        vggish.DIMENSION,
        vggish.LICENCE,
        vggish.SOURCE,
    ),
    'cnn14': Port(
        panns.cnn14,
        (panns.WEIGHTS,),
        panns.SAMPLE_RATE,
        panns.DIMENSION,
        panns.LICENCE,
        panns.SOURCE,
    ),
    'openl3': Port(
        openl3.openl3,
        openl3.NAMES,
        openl3.SAMPLE_RATE,
        openl3.DIMENSION,
        openl3.LICENCE,
        openl3.SOURCE,
    ),
    'clap': Port(
        lambda folder: clap.load_clap(folder).embedder,
        (clap.WEIGHTS,),
        clap.SAMPLE_RATE,
        clap.DIMENSION,
        clap.LICENCE,
        clap.SOURCE,
    ),
}


def load_embedder(name: str, weights_dir: str | os.PathLike) -> Embedder:
    """The embedder of this name with the weights in a folder.

    Its `name` holds the start of the weights' hash, so that a table that prints it says which
    checkpoint a figure is of. For the CLAP score, which needs texts too, use `clap.load_clap`.

    Args:
        name: a key of PORTS.
        weights_dir: the folder; each port's module says what it must hold.

    Raises:
        FileNotFoundError: the folder holds no such weights; where it holds another embedder's,
            the message says whose.
        ValueError: no such name; or the file is damaged, incomplete or of another network.
    """
    if name not in PORTS:
        raise ValueError(f'no embedder {name!r}: choose one of {", ".join(PORTS)}')
    port = PORTS[name]
    try:
        embedder = port.load(weights_dir)
    except FileNotFoundError as error:
        others = [n for n, other in PORTS.items() if n != name and _holds(weights_dir, other)]
        if not others or _holds(weights_dir, port):
            raise
        raise FileNotFoundError(f'{error} (this one holds {" and ".join(others)})') from error
    return dataclasses.replace(embedder, source=port.source)


def embedders_in(folder: str | os.PathLike) -> dict[str, pathlib.Path]:
    """Every embedder whose weights lie in a folder or right below it, and the folder that has them.

    Raises:
        FileNotFoundError: there is none.
    """
    root = pathlib.Path(folder)
    folders = [root, *sorted(path for path in root.glob('*') if path.is_dir())]
    found = {
        name: path
        for name, port in PORTS.items()
        for path in reversed(folders)
        if _holds(path, port)
    }
    if not found:
        raise FileNotFoundError(
            f'{root}: no weights of an embedder here or in a folder below it; known are '
            f'{", ".join(PORTS)}'
        )
    return found


def table() -> str:
    """The embedders as a Markdown table."""
    rows = [
        f'| {name} | {p.sample_rate} | {p.dimension} | {p.licence} | {p.source} |'
        for name, p in PORTS.items()
    ]
    head = ['| name | Hz | dimension | licence of the weights | source |', '|---|---|---|---|---|']
    return '\n'.join(head + rows)


def _holds(folder, port):
    return any((pathlib.Path(folder) / file).is_file() for file in port.files)
