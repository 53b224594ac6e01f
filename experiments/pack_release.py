"""Joins what the training runs left into a release: the autoencoder float16, the rest int8.

python -m experiments.pack_release --base=foley --autoencoder=FILE --teacher=FILE --out=DIR
python -m experiments.pack_release --base=foley --teacher=FILE --student=FILE --rank=20 \
    --share=1 --out=DIR

With --rank a teacher or student is stored as an adapter beside the base's own file, an eighth of
its size: exactly, but for int8, where it was trained as adapters of that rank in all. With --share
the student has that much of the teacher's adapter too, and its own is what is left.
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
    TEACHER_SHARE_KEY,
    TOWER_KEY,
    autoencoder_template,
    denoiser_template,
    find_release,
    read_adapter,
    save_release,
)
from realaudio_jax.metrics.tower import tower_template
from realaudio_jax.models.audio_tower import AudioTower
from realaudio_jax.models.autoencoder import Autoencoder
from realaudio_jax.models.denoiser import Denoiser
from realaudio_jax.release import load_params, read_config, save_params
from realaudio_jax.typing import PyTree

_BASE = flags.DEFINE_string('base', 'foley', 'Release that gives the configuration and the rest.')
_OUT = flags.DEFINE_string('out', None, 'Folder of the new release.', required=True)
_FILES = {
    stem: flags.DEFINE_string(stem, None, f'Its {stem}.safetensors; none: that of the base.')
    for stem in ('autoencoder', 'teacher', 'student', 'audio_tower')
}
_RANK = flags.DEFINE_integer(
    'rank', 0, 'Of the adapter that a teacher or student is stored as; 0: whole.', lower_bound=0
)
_SHARE = flags.DEFINE_float(
    'share', 0.0, "Of the teacher's adapter in the student, see `components.load_denoiser`."
)
BLOCK = 64  # inputs that share a scale, see `release.quantise`


def adapters(base: pathlib.Path, config: dict, params: dict, shapes: PyTree) -> dict:
    """`params` with adapters in place of teacher and student; `config` is told of their share."""
    params = dict(params)
    if 'teacher' in params:
        old = load_params(base / TEACHER_NAME, shapes)
        params['teacher_adapter'] = low_rank.factorise(old, params.pop('teacher'), _RANK.value)
    if 'student' in params:
        old = load_params(base / STUDENT_NAME, shapes)
        if _SHARE.value:
            shared = params.get('teacher_adapter') or read_adapter(base, TEACHER_NAME)
            old = low_rank.add(old, shared, _SHARE.value)
            config['student'][TEACHER_SHARE_KEY] = _SHARE.value
        params['student_adapter'] = low_rank.factorise(old, params.pop('student'), _RANK.value)
    return params


def main(argv):
    del argv
    base = find_release(_BASE.value)
    config = read_config(base)
    if _FILES['teacher'].value and not _RANK.value:
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
    if 'student' in params:
        config['student'].pop(TEACHER_SHARE_KEY, None)
    elif 'teacher' in params and TEACHER_SHARE_KEY in config['student']:
        raise ValueError(
            f'the student of {base} has a share of the old teacher: give --student too'
        )
    if _RANK.value:
        params = adapters(base, config, params, denoiser)
    elif _SHARE.value:
        raise ValueError('--share is of an adapter: give --rank too')
    save_release(out, config, params, base, dtype='int8', block=BLOCK)
    if autoencoder:  # small, and its code is exact: rounding it costs more than it saves
        save_params(out / AUTOENCODER_NAME, autoencoder, dtype='float16')
    size = sum(path.stat().st_size for path in out.iterdir())
    names = ', '.join(sorted(stem for stem in templates if _FILES[stem].value)) or 'nothing'
    print(f'{out}: {size / 1e6:.1f} MB, new in it: {names}')


if __name__ == '__main__':
    run(main)
