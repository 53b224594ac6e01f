"""Student of AudioLDM 2: its U-Net with embeddings of guidance scale and step size."""

import functools

import numpy as np

from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.distillation.setup import DistillationSetup
from realaudio_jax.teachers import distilling
from realaudio_jax.teachers.audioldm2.model import (
    Conditioning,
    Networks,
    Prompt,
    as_teacher,
    bind,
    parameter_shapes,
)
from realaudio_jax.teachers.distilling import make_subject, whole_batch
from realaudio_jax.typing import PyTree

student_networks = functools.partial(distilling.student_networks, name='unet')


def student_shapes(networks: Networks) -> PyTree:
    """Parameter shapes of the U-Net of `student_networks(networks)`."""
    return parameter_shapes(student_networks(networks), ('unet',))


def to_batch(arrays: dict[str, np.ndarray]) -> Batch:
    """Converts arrays of `AudioLDM2.encode_scenes` to a recipe's batch.

    The text of the empty prompt, kept without its padding, is padded to that of the prompts.
    """
    text, empty = (np.asarray(arrays[name], np.float32) for name in ('text', 'empty_text'))
    behind = [(0, 0), (0, text.shape[1] - empty.shape[1])]
    conditioning = Conditioning(
        prompt=Prompt(np.asarray(arrays['generated'], np.float32), text, arrays['text_mask']),
        empty=Prompt(
            np.asarray(arrays['empty_generated'], np.float32),
            np.pad(empty, [*behind, (0, 0)]),
            np.pad(np.ones(empty.shape[:2], bool), behind),
        ),
    )
    return whole_batch(arrays, conditioning)


def subject(networks: Networks, params: PyTree, text: float = 0.0) -> DistillationSetup:
    """`make_subject` of a teacher's networks and the U-Net's parameters."""
    return make_subject(
        as_teacher(networks),
        functools.partial(bind, student_networks(networks)),
        networks.schedule.path,
        params,
        student_shapes(networks),
        to_batch,
        text,
        repr(networks),
    )
