"""Stable Audio Open from its folder: text in, sound out.

Published: a window of 2,097,152 samples of 44.1 kHz stereo (47.55 s), 100 steps, guidance 7.
"""

import os
import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.random import pinned_settings, random_key
from realaudio_jax.samplers import item_keys
from realaudio_jax.teachers import importing, t5
from realaudio_jax.teachers.pretrained import Student, whole_batch
from realaudio_jax.teachers.stable_audio import StableAudio
from realaudio_jax.teachers.stable_audio_open import conditioners, denoise, transformer
from realaudio_jax.teachers.stable_audio_open.conditioners import Conditioning, import_projection
from realaudio_jax.teachers.stable_audio_open.denoise import Networks, Schedule, noises
from realaudio_jax.teachers.stable_audio_open.oobleck import import_autoencoder
from realaudio_jax.teachers.stable_audio_open.transformer import import_transformer
from realaudio_jax.typing import Array, Float, PyTree

CLASS_NAME = 'StableAudioPipeline'
SCHEDULER = 'CosineDPMSolverMultistepScheduler'
PARTS = ('transformer', 'projection_model', 'vae', 'text_encoder', 'tokenizer', 'scheduler')


class StableAudioOpen(StableAudio):
    """The whole published model; `load` reads it from its folder.

    Args:
        networks: transformer and projection.
        autoencoder, text_encoder: the other modules.
        params: of all four, by the names transformer, projection, autoencoder and text_encoder; the
            networks compute in the precision of these.
        tokenizer: of the text encoder.
        schedule: noise levels to sample at.
    """

    name, predictors = 'stable_audio_open', ('transformer', 'projection')
    functions, path = denoise, denoise.PATH

    @property
    def frames(self) -> int:
        """Latent frames of the window that the model was trained on."""
        return self.networks.transformer.frames

    @property
    def max_seconds(self) -> float:
        """Duration of that window."""
        return self.frames * self.autoencoder.samples_per_latent / self.sample_rate

    def encode_audio(self, audio: Float[np.ndarray, 'B S A']) -> Float[Array, 'B L C']:
        """The mean latents of sound at `sample_rate`, padded with silence to the whole window.

        Raises:
            ValueError: longer than the window.
        """
        self.require_seconds(audio.shape[1] / self.sample_rate)
        whole = self.frames * self.autoencoder.samples_per_latent
        audio = np.pad(audio, [(0, 0), (0, whole - audio.shape[1]), (0, 0)])
        params = {'params': self.params['autoencoder']}
        return self._encode(params, jnp.asarray(audio, self._kind))[0].astype(jnp.float32)

    def conditioning(self, texts: Sequence[str], start_s: float, end_s: float) -> Conditioning:
        """Conditioning for texts and an excerpt from start_s to end_s."""
        states, mask = self.encode_text(texts)

        def full(value):
            return jnp.full(len(texts), value, jnp.float32)

        return Conditioning(
            text=states,
            text_mask=jnp.asarray(mask),
            start_s=full(start_s),
            end_s=full(end_s),
            present=jnp.ones(len(texts), bool),
        )

    def encode_scenes(
        self, audio: Float[np.ndarray, 'B S 2'], captions: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Arrays for `to_batch`: latents of the whole window, text, seconds."""
        seconds = audio.shape[1] / self.sample_rate
        if self.autoencoder.audio_channels == 1:
            audio = audio.mean(axis=-1, keepdims=True)
        text, mask = self.encode_text(captions)
        return {
            'latents': np.asarray(self.encode_audio(audio), np.float16),
            'text': np.asarray(text, np.float16),
            'text_mask': mask,
            'seconds': np.full(len(audio), seconds, np.float32),
        }

    @staticmethod
    def to_batch(arrays: dict[str, np.ndarray]) -> Batch:
        """A recipe's batch from rows of `encode`.

        The whole window counts, silence after the sound included: the student is sampled over it
        too.
        """
        conditioning = Conditioning(
            text=np.asarray(arrays['text'], np.float32),
            text_mask=arrays['text_mask'],
            start_s=np.zeros_like(arrays['seconds']),
            end_s=arrays['seconds'],
            present=np.ones(len(arrays['seconds']), bool),
        )
        return whole_batch(arrays, conditioning)

    def student_shapes(self) -> PyTree:
        """Shapes of a student's parameters."""
        return {
            'transformer': transformer.parameter_shapes(self._student_networks.transformer),
            'projection': conditioners.parameter_shapes(self.networks.projection),
        }

    @pinned_settings()
    def generate(
        self,
        prompts: Sequence[str],
        seconds: float = 10.0,
        steps: int = 100,
        guidance: float = 7.0,
        seed: int = 0,
        negative: str | None = None,
        frames: int | None = None,
        student: Student | None = None,
    ) -> Float[np.ndarray, 'B S A']:
        """Generates one sound for each prompt.

        Args:
            prompts: texts.
            seconds: duration; the model makes its whole window, and the rest is cut.
            steps: of the sampler, two evaluations each.
            guidance: scale.
            seed: item i uses fold_in(key(0), seed + i).
            negative: a text to guide away from; None is nothing said.
            student: sample this instead of the teacher, at one evaluation a step and without
                `negative`.
            frames: latent frames to make; None is the whole window, as the original. Fewer take
                less time and are not what the model was trained on.

        Raises:
            ValueError: a prompt is too long, or `seconds`, `steps` or `frames` is out of range.
        """
        self.require_seconds(seconds)
        frames = self.frames if frames is None else frames
        samples = round(seconds * self.sample_rate)
        least = -(-samples // self.autoencoder.samples_per_latent)
        if not least <= frames <= self.frames:
            raise ValueError(
                f'frames is {frames}: {seconds:g} s need {least} to {self.frames} latent frames'
            )
        if student is not None:
            student.require(steps, guidance, negative)
        keys = item_keys(random_key(0), seed + jnp.arange(len(prompts)))
        x, noise = noises(keys, steps, (frames, self.networks.transformer.channels))
        conditioning = self.conditioning(prompts, 0.0, seconds)
        if student is not None:
            latents = self._sample_student(student.params, conditioning, x, steps, float(guidance))
        else:
            away = None
            if negative is not None:
                away = self.conditioning([negative] * len(prompts), 0.0, seconds)
            times = jnp.asarray(self.schedule.times(steps))
            latents = self._sample(
                self.teacher_params, conditioning, x, times, noise, float(guidance), away
            )
        return np.asarray(self.decode(latents)[:, :samples])


def load(folder: str | os.PathLike, dtype: str = 'float32') -> StableAudioOpen:
    """Loads the model from a folder in the layout of diffusers.

    Args:
        folder: with model_index.json, transformer/, projection_model/, vae/, text_encoder/,
            tokenizer/ and scheduler/.
        dtype: of all networks, one of `importing.DTYPES`.

    Raises:
        FileNotFoundError: no such folder, or parts of it are missing.
        ValueError: another model, an older layout, damage, a precision not known; in one line.
    """
    folder, kind = pathlib.Path(folder), importing.require_dtype(dtype)
    importing.require_pipeline(folder, CLASS_NAME, PARTS)
    transformer, transformer_params = import_transformer(folder / 'transformer', kind)
    projection, projection_params = import_projection(folder / 'projection_model', kind)
    autoencoder, autoencoder_params = import_autoencoder(folder / 'vae', kind)
    text_encoder, text_params = t5.import_t5(folder / 'text_encoder', kind)
    importing.require_same(
        folder,
        ('latent channels', transformer.channels, autoencoder.channels),
        ('width of the tokens', transformer.context_input, projection.width),
        ('width of the timing', transformer.timing_input, 2 * projection.width),
        ('width of the text', projection.text_width, text_encoder.width),
    )
    params = {
        'transformer': transformer_params,
        'projection': projection_params,
        'autoencoder': autoencoder_params,
        'text_encoder': text_params,
    }
    return StableAudioOpen(
        Networks(transformer, projection),
        autoencoder,
        text_encoder,
        params,
        t5.Tokenizer(folder / 'tokenizer'),
        read_schedule(folder / 'scheduler'),
    )


def read_schedule(folder: str | os.PathLike) -> Schedule:
    """The noise levels that a scheduler's config describes.

    Raises:
        FileNotFoundError, ValueError: see `importing.read_model_config` and `importing.pick`.
    """
    config = importing.read_model_config(folder, SCHEDULER, 'scheduler_config.json')
    fixed = {
        'sigma_data': 1.0,
        'sigma_schedule': 'exponential',
        'prediction_type': 'v_prediction',
        'solver_order': 2,
        'solver_type': 'midpoint',
        'final_sigmas_type': 'zero',
    }
    fields = {'sigma_min': 'lowest', 'sigma_max': 'highest'}
    levels = importing.pick(config, folder, fields, fixed)
    return Schedule(**{name: float(value) for name, value in levels.items()})
