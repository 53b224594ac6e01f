"""Packs recordings of several folders as Opus, in part files for transfers that limit size.

python -m experiments.pack_data --recordings=DIR[,DIR] --out=DIR --part_mb=56

With them go labels, captions, the split that each folder has by itself, licence, author, source and
an ATTRIBUTION.md. `make_release --recordings=` takes the folder of parts as it is;
`experiments.parts --join=` makes one of recordings of it.
"""

import pathlib
import tempfile

from absl import flags

from experiments.common import define_out, run
from realaudio_jax.data.packed_recordings import FORMS, KBIT_PER_S, pack_recordings
from realaudio_jax.parts import split
from realaudio_jax.training.loop import Progress

_RECORDINGS = flags.DEFINE_list('recordings', None, 'Folders of sounds.', required=True)
_OUT = define_out('Folder of the parts, new or empty.')
_PART = flags.DEFINE_float('part_mb', 56.0, 'Size of a part at most, 10^6 bytes.', lower_bound=0.01)
_FORM = flags.DEFINE_enum('form', 'opus', list(FORMS), 'How sound is stored; flac loses nothing.')
_RATE = flags.DEFINE_float('kbit_per_s', KBIT_PER_S, 'Of Opus, for each channel.', 6, 256)


def main(argv):
    del argv
    out = pathlib.Path(_OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=out.parent, prefix='.partial-') as temporary,
        Progress(1, 'recordings') as progress,
    ):

        def show(done: int, total: int) -> None:
            progress.total = total
            progress.update(done)

        packed = pack_recordings(
            _RECORDINGS.value, temporary, _FORM.value, _RATE.value, progress.say, show
        )
        parts = split(temporary, out, int(_PART.value * 1e6))
    print(
        f'{out}: {packed.files} recordings, {packed.seconds / 3600:.2f} h, '
        f'{packed.bytes / 1e6:.1f} MB in {len(parts)} parts'
    )


if __name__ == '__main__':
    run(main)
