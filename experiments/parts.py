"""Splits a folder into part files for transfers that limit size, and joins them again.

python -m experiments.parts --split=runs/release/release --new_to=foley --out=DIR --part_mb=15
python -m experiments.parts --join=DIR --out=DIR

SHA256SUMS beside the parts has the digest of each, which joining checks. With --new_to, what that
release holds, too, is left out, and --join takes it from there.
"""

import pathlib
import shutil

from absl import flags

from experiments.common import define_out, run
from realaudio_jax import integrity
from realaudio_jax.parts import join, split
from realaudio_jax.release import find_release

_SPLIT = flags.DEFINE_string('split', None, 'Folder or file to split.')
_JOIN = flags.DEFINE_string('join', None, 'Folder of parts to join.')
_OUT = define_out('Folder of what is made, new or empty.')
_PART = flags.DEFINE_float('part_mb', 15.0, 'Size of a part at most, 10^6 bytes.', lower_bound=0.01)
_BASE = flags.DEFINE_string('new_to', None, 'Name or folder of a release that the other side has.')


def new_files(folder: pathlib.Path, base: pathlib.Path) -> list[str]:
    """The files of a folder without those of its manifest that the base has, too.

    What the manifest does not list, such as licences and authors, no join could take from the base.
    """
    listed = integrity.read_manifest(folder) or {}
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file())

    def same(name: str) -> bool:
        other = base / name
        return other.is_file() and integrity.digest(other) == integrity.digest(folder / name)

    return [name for name in names if name not in listed or not same(name)]


def with_known_files(folder: pathlib.Path, base: pathlib.Path) -> None:
    """Takes from the base what the folder's manifest lists and the folder lacks."""
    for name in integrity.read_manifest(folder) or {}:
        if not (folder / name).exists():
            shutil.copyfile(base / name, folder / name)
    integrity.verify(folder)


def main(argv):
    del argv
    if (_SPLIT.value is None) == (_JOIN.value is None):
        raise ValueError('give --split=FOLDER or --join=PARTS, one of them')
    base = find_release(_BASE.value) if _BASE.value else None
    out = pathlib.Path(_OUT.value)
    if _JOIN.value:
        join(_JOIN.value, out)
        if base:
            with_known_files(out, base)
        print(f'{out}: joined, every digest as it was written')
        return
    folder = pathlib.Path(_SPLIT.value)
    names = new_files(folder, base) if base else None
    parts = split(folder, out, int(_PART.value * 1e6), names)
    size = sum(path.stat().st_size for path in parts)
    print(f'{out}: {size / 1e6:.1f} MB in {len(parts)} parts')


if __name__ == '__main__':
    run(main)
