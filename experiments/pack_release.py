"""Joins what the training runs left into a release: the autoencoder float16, the rest int8 or int4.

python -m experiments.pack_release --base=foley --autoencoder=FILE --teacher=FILE --out=DIR
python -m experiments.pack_release --base=foley --teacher=FILE --student=FILE --rank=20 \
    --teacher_adapter=1 --out=DIR
python -m experiments.pack_release --base=foley --merge --out=DIR

With --rank a teacher or student is stored as an adapter beside the base's own file, an eighth of
its size: exactly, but for int8, where it was trained as adapters of that rank in all.
--teacher_adapter adds the teacher's adapter, times this scale, to a student that is stored as an
adapter itself.
--merge makes both whole again: one file each, with the adapters in it.

A new student has neither moments nor the scale and grids that were chosen for the one before it.

The folder is ready to be published: it has a model card, digests and the authors of recordings.
"""

import dataclasses
import json
import pathlib
from collections.abc import Collection

import numpy as np
from absl import flags

from configs import foley_audio_tower
from experiments.common import define_out, run
from realaudio_jax import low_rank
from realaudio_jax.data import foley
from realaudio_jax.data.attribution import write_attribution
from realaudio_jax.data.sources import Recordings
from realaudio_jax.metrics.embedders.tower import load_text_embedder, tower_template
from realaudio_jax.model_card import CARD_NAME, upload_lines, write_model_card
from realaudio_jax.models.audio_tower import AudioTower
from realaudio_jax.models.denoiser import Denoiser
from realaudio_jax.packing import NETWORK_KEY, save_params, save_release
from realaudio_jax.release import (
    AUTOENCODER_NAME,
    MOMENTS_NAME,
    STUDENT_NAME,
    TEACHER_NAME,
    adapter_name,
    denoiser_template,
    find_release,
    load_autoencoder,
    load_denoiser,
    load_denoiser_and_adapter,
    load_moments,
    load_params,
    read_metadata,
    read_release,
)
from realaudio_jax.release_config import AudioTowerConfig, DenoiserConfig
from realaudio_jax.typing import MAX_EVENT_TOKENS, PyTree
from realaudio_jax.vocabulary import Vocabulary, make_vocabulary, save_vocabulary

_BASE = flags.DEFINE_string('base', 'foley', 'Release that gives the configuration and the rest.')
_OUT = define_out('Folder of the new release.')
_FILES = {
    stem: flags.DEFINE_string(stem, None, f'Its {stem}.safetensors; none: that of the base.')
    for stem in ('autoencoder', 'teacher', 'student', 'audio_tower')
}
_RANK = flags.DEFINE_integer(
    'rank', 0, 'Of the adapter that a teacher or student is stored as; 0: whole.', lower_bound=0
)
_TEACHER_ADAPTER = flags.DEFINE_float(
    'teacher_adapter', 0.0, "Scale of the teacher's adapter in the student; 0: as in the base."
)
_MERGE = flags.DEFINE_bool(
    'merge', False, 'Store the teacher and the student of the base whole, adapters in them.'
)
_LABELS = flags.DEFINE_string(
    'labels',
    None,
    'Recordings it was trained on: their labels, beside those of procedural '
    "sounds, become the release's vocabulary; none: that of the base.",
)
_LICENCE = flags.DEFINE_string(
    'licence', None, 'Of the weights, as the model card states it, such as cc-by-4.0.'
)
_DTYPE = flags.DEFINE_enum(
    'dtype', 'int8', ['int8', 'int4'], 'Of the weights of teacher, student and audio tower.'
)
BLOCK = {'int8': 64, 'int4': 32}  # inputs that share a scale, see `quantisation.quantise`
BATCH = 64  # labels that are encoded at once


def adapters(base: pathlib.Path, params: dict, shapes: PyTree, rank: int) -> dict:
    """Replaces teacher and student in `params` by adapters."""
    params = dict(params)
    for name in (TEACHER_NAME, STUDENT_NAME):
        stem = pathlib.Path(name).stem
        if stem in params:
            old, known = load_denoiser_and_adapter(base, name, shapes)
            adapter = low_rank.extract(old, params.pop(stem), rank, known)
            params[pathlib.Path(adapter_name(name)).stem] = adapter
    return params


def vocabulary_of(recordings: str, base: pathlib.Path) -> Vocabulary:
    """The vocabulary of a folder of recordings and of procedural sounds."""
    labels = {record.texts[0] for record in Recordings(recordings, log=print).clips}
    labels |= {kind.texts[0] for kind in (*foley.EVENTS.values(), *foley.AMBIENCES.values())}
    encode = load_text_embedder(base)

    def embed(texts: list[str]) -> np.ndarray:
        parts = (texts[i : i + BATCH] for i in range(0, len(texts), BATCH))
        return np.concatenate([np.asarray(encode(part, MAX_EVENT_TOKENS)[2]) for part in parts])

    return make_vocabulary(labels, embed)


def adapter_scale(scale: float | None, params: Collection[str], base: pathlib.Path) -> float | None:
    """Scale of the teacher's adapter in the new release's student; None: it has none.

    Args:
        scale: in the base.
        params: names of the networks that are stored anew.
        base: for messages.

    Raises:
        ValueError: flags that contradict each other, or a base that has to be merged first.
    """
    wanted, rank = _TEACHER_ADAPTER.value, _RANK.value
    if 'student' in params and not rank:
        scale = None
    if scale is not None and ('teacher' in params or wanted):
        raise ValueError(
            f"the student of {base} contains its teacher's adapter: pack it with --merge first"
        )
    if wanted and not rank:
        raise ValueError('--teacher_adapter is the scale of an adapter: give --rank too')
    return wanted or scale


def main(argv):
    del argv
    base = find_release(_BASE.value)
    config = read_release(base)
    sizes, autoencoder = {}, None
    if _FILES['autoencoder'].value:
        sizes['autoencoder'], autoencoder = load_autoencoder(base, _FILES['autoencoder'].value)
    if _FILES['teacher'].value and not _RANK.value:
        network = read_metadata(_FILES['teacher'].value).get(NETWORK_KEY)
        if network:
            sizes['denoiser'] = DenoiserConfig.from_dict(json.loads(network))
    config = dataclasses.replace(config, **sizes)
    another = config.denoiser != read_release(base).denoiser
    denoiser = denoiser_template(Denoiser(**config.denoiser.to_dict()))
    templates = {'teacher': denoiser, 'student': denoiser}
    if _FILES['audio_tower'].value:
        tower = AudioTowerConfig.from_dict(foley_audio_tower.get_config().model.to_dict())
        config = dataclasses.replace(config, audio_tower=tower)
        templates['audio_tower'] = tower_template(AudioTower(**tower.to_dict()))
    params = {
        stem: load_params(flag.value, templates[stem])
        for stem, flag in _FILES.items()
        if flag.value and stem in templates
    }
    student = config.student
    if another and 'student' not in params:
        params['student'] = params['teacher']  # that of the base is another network
    if 'student' in params:
        student = dataclasses.replace(student, guidance=None, grid_powers=())
    same = _MERGE.value and not params.keys() & {'teacher', 'student'}
    moments = load_moments(base) if same else {}  # merged networks are what they were
    out = pathlib.Path(_OUT.value)
    rank = _RANK.value
    if _MERGE.value and rank:
        raise ValueError('--merge stores no adapter and --rank does: give one of them')
    # a student that contains the teacher's adapter needs that teacher
    shared = student.teacher_adapter is not None and 'teacher' in params
    if _MERGE.value or (shared and not rank):
        for name in (TEACHER_NAME, STUDENT_NAME):
            stem = pathlib.Path(name).stem
            params[stem] = params.get(stem) or load_denoiser(base, name, denoiser)
    scale = adapter_scale(student.teacher_adapter, params, base)
    config = dataclasses.replace(
        config, student=dataclasses.replace(student, teacher_adapter=scale)
    )
    given = [*params, *(['autoencoder'] if autoencoder else [])]
    names = ', '.join(sorted(given)) or 'nothing'
    if rank:
        params = adapters(base, params, denoiser, rank)
    save_release(out, config, params, base, dtype=_DTYPE.value, block=BLOCK[_DTYPE.value])
    if autoencoder:  # small, and its principal components are exact: int8 costs more than it saves
        save_params(out / AUTOENCODER_NAME, autoencoder, dtype='float16')
    if _LABELS.value:
        save_vocabulary(out, vocabulary_of(_LABELS.value, base))
    if moments:
        save_params(out / MOMENTS_NAME, moments)
    trained = [pathlib.Path(flag.value).parent for flag in _FILES.values() if flag.value]
    others = _FILES.keys() - {stem for stem, flag in _FILES.items() if flag.value}
    if line := write_attribution(out, trained, base if others else None):
        print(line)
    if write_model_card(out, _LICENCE.value):
        print(f'{out / CARD_NAME}: complete it before you publish')
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f'{out}: {size / 1e6:.1f} MB, new in it: {names}')
    print('\n'.join(upload_lines(out)))


if __name__ == '__main__':
    run(main)
