"""Student of Stable Audio Open: its networks with embeddings of guidance scale and step size."""

import functools

import numpy as np

from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.distillation.setup import DistillationSetup
from realaudio_jax.teachers import distilling
from realaudio_jax.teachers.distilling import guided_teacher, make_subject, whole_batch
from realaudio_jax.teachers.stable_audio_open import conditioners, transformer
from realaudio_jax.teachers.stable_audio_open.conditioners import Conditioning
from realaudio_jax.teachers.stable_audio_open.denoise import PATH, Networks, bind, guided
from realaudio_jax.typing import PyTree

student_networks = functools.partial(distilling.student_networks, name='transformer')


def student_shapes(networks: Networks) -> PyTree:
    """Parameter shapes of `student_networks(networks)`."""
    return {
        'transformer': transformer.parameter_shapes(student_networks(networks).transformer),
        'projection': conditioners.parameter_shapes(networks.projection),
    }


def to_batch(arrays: dict[str, np.ndarray]) -> Batch:
    """Converts arrays of `StableAudioOpen.encode_scenes` to a recipe's batch.

    The whole window counts, silence after the sound included: the student is sampled over it too.
    """
    conditioning = Conditioning(
        text=np.asarray(arrays['text'], np.float32),
        text_mask=arrays['text_mask'],
        start_s=np.zeros_like(arrays['seconds']),
        end_s=arrays['seconds'],
        present=np.ones(len(arrays['seconds']), bool),
    )
    return whole_batch(arrays, conditioning)


def subject(networks: Networks, params: PyTree, text: float = 0.0) -> DistillationSetup:
    """`make_subject` of a teacher's networks and their parameters."""
    return make_subject(
        guided_teacher(guided, networks),
        functools.partial(bind, student_networks(networks)),
        PATH,
        params,
        student_shapes(networks),
        to_batch,
        text,
        repr(networks),
    )
