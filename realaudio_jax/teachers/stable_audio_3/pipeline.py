"""Stable Audio 3 from its folder: text in, sound out.

Published for the small models: up to 120 s of 44.1 kHz stereo, 8 steps, no guidance. The folder is
what `scripts/convert_stable_audio_3_to_diffusers.py` of diffusers makes of the authors' file.
"""

import math
import os
import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.random import pinned_settings, random_key
from realaudio_jax.samplers import item_keys
from realaudio_jax.teachers import importing, t5
from realaudio_jax.teachers.pretrained import Student, padded, whole_batch
from realaudio_jax.teachers.stable_audio import StableAudio
from realaudio_jax.teachers.stable_audio_3 import conditioners, denoise, transformer
from realaudio_jax.teachers.stable_audio_3.conditioners import Conditioning, import_duration
from realaudio_jax.teachers.stable_audio_3.denoise import Networks, Schedule, start
from realaudio_jax.teachers.stable_audio_3.same import SAME, import_autoencoder
from realaudio_jax.teachers.stable_audio_3.transformer import import_transformer
from realaudio_jax.teachers.t5gemma import T5GemmaEncoder, import_t5gemma
from realaudio_jax.typing import Array, Float, PyTree

CLASS_NAME = 'StableAudio3Pipeline'
SCHEDULER = 'FlowMatchEulerDiscreteScheduler'
PARTS = ('transformer', 'duration_embedder', 'vae', 'text_encoder', 'tokenizer', 'scheduler')
TEXT_TOKENS = 256  # most of a prompt, and what every text is padded to
MAX_SECONDS = 120.0  # of the small models; the folder does not say


class StableAudio3(StableAudio):
    """The whole published model; `load` reads it from its folder.

    Args:
        networks: transformer and duration embedder.
        autoencoder, text_encoder: the other modules.
        params: of all four, by the names transformer, duration, autoencoder and text_encoder; the
            networks compute in the precision of these.
        tokenizer: of the text encoder.
        schedule: noise levels to sample at.
        max_seconds: longest sound.
    """

    name, predictors = 'stable_audio_3', ('transformer', 'duration')
    functions, path = denoise, denoise.PATH

    def __init__(
        self,
        networks: Networks,
        autoencoder: SAME,
        text_encoder: T5GemmaEncoder,
        params: PyTree,
        tokenizer: t5.Tokenizer,
        schedule: Schedule,
        max_seconds: float = MAX_SECONDS,
    ):
        super().__init__(networks, autoencoder, text_encoder, params, tokenizer, schedule)
        self.max_seconds = min(max_seconds, networks.duration.high)

    def frames(self, seconds: float) -> int:
        """Number of latent frames that hold a sound, rounded up."""
        return math.ceil(seconds * self.sample_rate / self.autoencoder.samples_per_latent)

    def tokens(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and mask [B, T] of texts; T is little more than the longest has.

        The transformer knows of the padding.
        """
        return t5.trimmed(*super().tokens(texts))

    def encode_audio(self, audio: Float[np.ndarray, 'B S A']) -> Float[Array, 'B L C']:
        """Encodes sound at `sample_rate`, padded with silence to whole frames.

        Raises:
            ValueError: longer than the model makes.
        """
        self.require_seconds(audio.shape[1] / self.sample_rate)
        params = {'params': self.params['autoencoder']}
        return self._encode(params, jnp.asarray(audio, self._kind)).astype(jnp.float32)

    def conditioning(self, texts: Sequence[str], seconds: float) -> Conditioning:
        """Conditioning for texts and a duration."""
        states, mask = self.encode_text(texts)
        return Conditioning(
            text=states,
            text_mask=jnp.asarray(mask),
            seconds=jnp.full(len(texts), seconds, jnp.float32),
        )

    def encode_scenes(
        self, audio: Float[np.ndarray, 'B S 2'], captions: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Arrays for `to_batch`: latents, text, seconds."""
        text, mask = padded(*self.encode_text(captions), self.tokenizer.max_tokens)
        return {
            'latents': np.asarray(self.encode_audio(audio), np.float16),
            'text': np.asarray(text, np.float16),
            'text_mask': mask,
            'seconds': np.full(len(audio), audio.shape[1] / self.sample_rate, np.float32),
        }

    @staticmethod
    def to_batch(arrays: dict[str, np.ndarray]) -> Batch:
        """A recipe's batch from rows of `encode`."""
        conditioning = Conditioning(
            text=np.asarray(arrays['text'], np.float32),
            text_mask=arrays['text_mask'],
            seconds=arrays['seconds'],
        )
        return whole_batch(arrays, conditioning)

    def student_shapes(self) -> PyTree:
        """Shapes of a student's parameters."""
        return {
            'transformer': transformer.parameter_shapes(self._student_networks.transformer),
            'duration': conditioners.parameter_shapes(self.networks.duration),
        }

    @pinned_settings()
    def generate(
        self,
        prompts: Sequence[str],
        seconds: float = 10.0,
        steps: int | None = None,
        guidance: float = 1.0,
        seed: int = 0,
        negative: str | None = None,
        blank: bool = False,
        student: Student | None = None,
    ) -> Float[np.ndarray, 'B S A']:
        """Generates one sound in [-1, 1] for each prompt.

        Args:
            prompts: texts.
            seconds: duration.
            steps: of the sampler; None is 8, or 100 for a model that is not distilled.
            guidance: scale; 1 is none, for which the distilled models are made.
            seed: item i uses fold_in(key(0), seed + i).
            negative: a text to guide away from; None is nothing said.
            blank: tell the transformer that nothing is to be kept. The authors' own runtime does,
                this pipeline of diffusers does not, and trained weights tell the two apart.
            student: sample this instead of the teacher, by DDIM in even steps, which must be given;
                without `negative` and `blank`.

        Raises:
            ValueError: a prompt is too long, or `seconds` or `steps` is out of range.
        """
        self.require_seconds(seconds)
        steps = self.schedule.steps if steps is None else steps
        if student is not None:
            student.require(steps, guidance, negative)
            if blank:
                raise ValueError('a student was trained without `blank`; leave it out')
        times = jnp.asarray(self.schedule.times(steps))
        keys = item_keys(random_key(0), seed + jnp.arange(len(prompts)))
        x, keys = start(keys, (self.frames(seconds), self.networks.transformer.channels))
        conditioning = self.conditioning(prompts, seconds)
        scale, away = None, None
        if guidance != 1.0 and student is None:
            scale = float(guidance)
            away = self.conditioning([negative or ''] * len(prompts), seconds)
        if blank:
            local = jnp.zeros((*x.shape[:2], self.networks.transformer.local_input))
            conditioning = conditioning.replace(local=local)
            away = None if away is None else away.replace(local=local)
        keys = keys if self.schedule.stochastic else None
        if student is None:
            latents = self._sample(self.teacher_params, conditioning, x, times, keys, scale, away)
        else:
            latents = self._sample_student(student.params, conditioning, x, steps, float(guidance))
        samples = int(seconds * self.sample_rate)
        return np.clip(np.asarray(self.decode(latents)[:, :samples]), -1.0, 1.0)


def load(
    folder: str | os.PathLike, dtype: str = 'float32', max_seconds: float = MAX_SECONDS
) -> StableAudio3:
    """Loads the model from a folder in the layout of diffusers.

    Args:
        folder: with model_index.json, transformer/, duration_embedder/, vae/, text_encoder/,
            tokenizer/ and scheduler/.
        dtype: of all networks, one of `importing.DTYPES`.
        max_seconds: longest sound; 380 for the medium model.

    Raises:
        FileNotFoundError: no such folder, or parts of it are missing.
        ValueError: another model, an older layout, damage, a precision not known; in one line.
    """
    folder, kind = pathlib.Path(folder), importing.require_dtype(dtype)
    importing.require_pipeline(folder, CLASS_NAME, PARTS)
    tokenizer = t5.Tokenizer(folder / 'tokenizer', end=None, longest=TEXT_TOKENS)
    transformer, transformer_params = import_transformer(folder / 'transformer', kind)
    duration, duration_params = import_duration(folder / 'duration_embedder', kind)
    autoencoder, autoencoder_params = import_autoencoder(folder / 'vae', kind)
    text_encoder, text_params = import_t5gemma(folder / 'text_encoder', kind)
    importing.require_same(
        folder,
        ('latent channels', transformer.channels, autoencoder.channels),
        ('width of the text', transformer.context_input, text_encoder.width),
        ('width of the duration', transformer.duration_input, duration.width),
    )
    params = {
        'transformer': transformer_params,
        'duration': duration_params,
        'autoencoder': autoencoder_params,
        'text_encoder': text_params,
    }
    transformer = transformer.clone(text_tokens=tokenizer.max_tokens)
    return StableAudio3(
        Networks(transformer, duration),
        autoencoder,
        text_encoder,
        params,
        tokenizer,
        read_schedule(folder / 'scheduler'),
        max_seconds,
    )


def read_schedule(folder: str | os.PathLike) -> Schedule:
    """Reads the sampler's settings from a scheduler's config.

    Raises:
        FileNotFoundError, ValueError: see `importing.read_model_config` and `importing.pick`.
    """
    config = importing.read_model_config(folder, SCHEDULER, 'scheduler_config.json')
    fixed = {
        'num_train_timesteps': 1,
        'shift': 1.0,
        'use_dynamic_shifting': False,
        'shift_terminal': None,
        'invert_sigmas': False,
        'use_karras_sigmas': False,
        'use_exponential_sigmas': False,
        'use_beta_sigmas': False,
    }
    fields = {'stochastic_sampling': 'stochastic'}
    return Schedule(**importing.pick(config, folder, fields, fixed))
