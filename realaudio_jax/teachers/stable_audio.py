"""What Stable Audio Open and Stable Audio 3 have in common as teachers.

Both are a text encoder, an autoencoder at sample rate, a transformer, and a small network for the
duration. Their layers, noise paths and samplers differ: each has a module `denoise` of its own.
"""

import functools
import types
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.noise import Denoise, NoisePath
from realaudio_jax.teachers import t5
from realaudio_jax.teachers.pretrained import PretrainedTeacher, student_networks
from realaudio_jax.typing import Array, Bool, Float, PyTree


class StableAudio(PretrainedTeacher):
    """A model with its networks compiled one by one; the subclass loads it and samples.

    Args:
        networks: transformer and duration network.
        autoencoder, text_encoder: the other modules.
        params: of all four, by the names of `networks`, autoencoder and text_encoder; the
            networks compute in the precision of these.
        tokenizer: of the text encoder.
        schedule: noise levels to sample at.

    Attributes:
        functions: the model's module `denoise`, of which `bind`, `guided` and `sample` are used.
        path: its noise path.
        max_seconds: the longest sound.
    """

    functions: types.ModuleType
    path: NoisePath
    max_seconds: float
    encoders = ('autoencoder', 'text_encoder')

    def __init__(
        self,
        networks: Any,
        autoencoder: nn.Module,
        text_encoder: nn.Module,
        params: PyTree,
        tokenizer: t5.Tokenizer,
        schedule: Any,
    ):
        self.networks, self.autoencoder, self.text_encoder = networks, autoencoder, text_encoder
        self.params, self.tokenizer, self.schedule = params, tokenizer, schedule
        self._encode_text = jax.jit(text_encoder.apply)
        self._encode = jax.jit(functools.partial(autoencoder.apply, method='encode'))
        self._decode = jax.jit(functools.partial(autoencoder.apply, method='decode'))
        self._sample = jax.jit(functools.partial(self.functions.sample, networks))
        self._student_networks = student_networks(networks, 'transformer')

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.autoencoder.sample_rate

    def require_seconds(self, seconds: float) -> None:
        """Raises a ValueError for a duration that the model cannot generate."""
        if not 0 < seconds <= self.max_seconds + 1e-6:
            raise ValueError(
                f'a clip of {seconds:g} s: choose above 0 and up to {self.max_seconds:g} s, '
                'the longest of this model'
            )

    def tokens(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids [B, T] of texts, and the mask of real ones, as the text encoder takes them.

        Raises:
            ValueError: a text has more tokens than the tokenizer allows.
        """
        return self.tokenizer.encode(texts)

    def encode_text(
        self, texts: Sequence[str]
    ) -> tuple[Float[Array, 'B T W'], Bool[np.ndarray, 'B T']]:
        """States of the text encoder, and the mask of real tokens; see `tokens`."""
        ids, mask = self.tokens(texts)
        return self._encode_text({'params': self.params['text_encoder']}, ids, mask), mask

    def decode(self, latents: Float[Array, 'B L C']) -> Float[Array, 'B S A']:
        """Decodes latents to sound at `sample_rate`."""
        sound = self._decode({'params': self.params['autoencoder']}, latents.astype(self._kind))
        return sound.astype(jnp.float32)

    def guided(
        self, params: PyTree, conditioning: Any, guidance_scale: Float[Array, 'B']
    ) -> Denoise:
        """The teacher's networks with guidance away from the empty condition."""
        return self.functions.guided(self.networks, params, conditioning, None, guidance_scale)

    def student(
        self,
        params: PyTree,
        conditioning: Any,
        guidance_scale: Float[Array, 'B'],
        step_size: Float[Array, 'B'],
    ) -> Denoise:
        """The same networks, with scale and step size as inputs."""
        return self.functions.bind(
            self._student_networks, params, conditioning, guidance_scale, step_size
        )

    @property
    def _kind(self) -> np.dtype:
        """Dtype of the autoencoder's parameters."""
        return jax.tree.leaves(self.params['autoencoder'])[0].dtype
