"""Student of Stable Audio 3: its networks with embeddings of guidance scale and step size."""

import functools

import numpy as np

from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.distillation.setup import DistillationSetup
from realaudio_jax.teachers import distilling
from realaudio_jax.teachers.distilling import guided_teacher, make_subject, whole_batch
from realaudio_jax.teachers.stable_audio_3 import conditioners, transformer
from realaudio_jax.teachers.stable_audio_3.conditioners import Conditioning
from realaudio_jax.teachers.stable_audio_3.denoise import PATH, Networks, bind, guided
from realaudio_jax.typing import PyTree

student_networks = functools.partial(distilling.student_networks, name='transformer')


def student_shapes(networks: Networks) -> PyTree:
    """Parameter shapes of `student_networks(networks)`."""
    return {
        'transformer': transformer.parameter_shapes(student_networks(networks).transformer),
        'duration': conditioners.parameter_shapes(networks.duration),
    }


def to_batch(arrays: dict[str, np.ndarray]) -> Batch:
    """Converts arrays of `StableAudio3.encode_scenes` to a recipe's batch."""
    conditioning = Conditioning(
        text=np.asarray(arrays['text'], np.float32),
        text_mask=arrays['text_mask'],
        seconds=arrays['seconds'],
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
