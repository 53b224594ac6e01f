"""Joins what the training runs left into a release: the autoencoder float16, the rest int8.

python -m experiments.pack_release --base=foley --autoencoder=FILE --teacher=FILE --out=DIR
python -m experiments.pack_release --base=foley --student=FILE --rank=20 --out=DIR

With --rank a teacher or student is stored as an adapter beside the base's own file, an eighth of
its size: exactly, but for int8, where it was trained as adapters of that rank in all.
"""

import pathlib

from absl import flags

from configs import foley_audio_tower, foley_teacher
from experiments.common import run
from realaudio_jax import low_rank
from realaudio_jax.components import (
    AUTOENCODER_NAME,
    STUDENT_NAME,
    TEACHER_NAME,
    TOWER_KEY,
    adapter_name,
    autoencoder_template,
    denoiser_template,
    find_release,
    save_release,
)
from realaudio_jax.metrics.tower import tower_template
from realaudio_jax.models.audio_tower import AudioTower
from realaudio_jax.models.autoencoder import Autoencoder
from realaudio_jax.models.denoiser import Denoiser
from realaudio_jax.release import load_params, read_config, save_params

_BASE = flags.DEFINE_string('base', 'foley', 'Release that gives the configuration and the rest.')
_OUT = flags.DEFINE_string('out', None, 'Folder of the new release.', required=True)
_FILES = {
    stem: flags.DEFINE_string(stem, None, f'Its {stem}.safetensors; none: that of the base.')
    for stem in ('autoencoder', 'teacher', 'student', 'audio_tower')
}
_RANK = flags.DEFINE_integer(
    'rank', 0, 'Of the adapter that a teacher or student is stored as; 0: whole.', lower_bound=0
)
BLOCK = 64  # inputs that share a scale, see `release.quantise`


def main(argv):
    del argv
    base = find_release(_BASE.value)
    config = read_config(base)
    if _FILES['teacher'].value:
        config['denoiser'] = foley_teacher.get_config().model.to_dict()
    denoiser = denoiser_template(Denoiser(**config['denoiser']))
    templates = {
        'autoencoder': autoencoder_template(Autoencoder(**config['autoencoder'])),
        'teacher': denoiser,
        'student': denoiser,
    }
    if _FILES['audio_tower'].value:
        config[TOWER_KEY] = foley_audio_tower.get_config().model.to_dict()
        templates['audio_tower'] = tower_template(AudioTower(**config[TOWER_KEY]))
    params = {
        stem: load_params(flag.value, templates[stem])
        for stem, flag in _FILES.items()
        if flag.value
    }
    out = pathlib.Path(_OUT.value)
    autoencoder = params.pop('autoencoder', None)
    for name in (TEACHER_NAME, STUDENT_NAME) if _RANK.value else ():
        stem = pathlib.Path(name).stem
        if stem in params:
            old, new = load_params(base / name, denoiser), params.pop(stem)
            adapter = low_rank.factorise(old, new, _RANK.value)
            params[pathlib.Path(adapter_name(name)).stem] = adapter
    save_release(out, config, params, base, dtype='int8', block=BLOCK)
    if autoencoder:  # small, and its code is exact: rounding it costs more than it saves
        save_params(out / AUTOENCODER_NAME, autoencoder, dtype='float16')
    size = sum(path.stat().st_size for path in out.iterdir())
    names = ', '.join(sorted(stem for stem in templates if _FILES[stem].value)) or 'nothing'
    print(f'{out}: {size / 1e6:.1f} MB, new in it: {names}')


if __name__ == '__main__':
    run(main)
