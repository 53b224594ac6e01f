"""What AudioLDM 2's language model is given: both text encoders' states in one sequence.

Each encoder's states are projected to the language model's width and put between a learned start
and a learned end (Liu et al. 2023, 2308.05734, section III-C): [start, CLAP, end, start, FLAN-T5
states, end].
"""

import os

import flax.linen as nn
import jax.numpy as jnp

from realaudio_jax.teachers import importing
from realaudio_jax.typing import Array, Bool, Float, Int

CLASS_NAME = 'AudioLDM2ProjectionModel'


class Projection(nn.Module):
    """Projects both text encodings and adds start and end tokens around each.

    Attributes:
        width: D, of the language model.
    """

    width: int = 768

    @nn.compact
    def __call__(
        self, clap: Float[Array, 'B E'], text: Float[Array, 'B T W']
    ) -> Float[Array, 'B N D']:
        """The sequence, N = T + 5.

        Args:
            clap: CLAP's embedding of the prompt.
            text: states of FLAN-T5.
        """
        clap = nn.Dense(self.width, name='projection')(clap[:, None])
        text = nn.Dense(self.width, name='projection_1')(text)

        def learned(name):
            value = self.param(name, nn.initializers.ones, (self.width,))
            return jnp.broadcast_to(value.astype(text.dtype), (len(text), 1, self.width))

        parts = [learned('sos_embed'), clap, learned('eos_embed')]
        parts += [learned('sos_embed_1'), text, learned('eos_embed_1')]
        return jnp.concatenate(parts, axis=1)


def places(
    text_mask: Bool[Array, 'B T'], length: Int[Array, 'B']
) -> tuple[Bool[Array, 'B N'], Int[Array, 'B N']]:
    """Attention mask and positions of the projected sequence.

    The original pads the texts of a batch to the longest, and positions count padding. To make an
    item's result its own whatever stands beside it, and arrays of few sizes, the end stands at the
    position it would have after `length` tokens, however many the array has room for.

    Args:
        text_mask: True at tokens of FLAN-T5.
        length: tokens with their padding, as the original would count them.
    """
    batch, tokens = text_mask.shape
    seen = jnp.ones((batch, 4), bool)
    mask = jnp.concatenate([seen, text_mask, seen[:, :1]], axis=1)
    before = jnp.broadcast_to(jnp.arange(4 + tokens)[None], (batch, 4 + tokens))
    return mask, jnp.concatenate([before, 4 + length[:, None].astype(before.dtype)], axis=1)


def read_projection(folder: str | os.PathLike) -> Projection:
    """The module that a folder's config describes.

    Raises:
        FileNotFoundError: no such folder or config.
        ValueError: another model, or the variant for speech.
    """
    config = importing.read_model_config(folder, CLASS_NAME)
    # The original misspells its key.
    fields = {'langauge_model_dim': 'width'}
    fixed = {'use_learned_position_embedding': None, 'max_seq_length': None}
    return Projection(**importing.pick(config, folder, fields, fixed))
