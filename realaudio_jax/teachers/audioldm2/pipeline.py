"""AudioLDM 2 from a folder as diffusers saves it, and sound from prompts.

model_index.json      names the pipeline
text_encoder/         CLAP, of which the text tower is read      tokenizer/
text_encoder_2/       FLAN-T5                                    tokenizer_2/
projection_model/     language_model/  unet/  vae/  vocoder/  scheduler/
"""

import functools
import os
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.models import roberta
from realaudio_jax.noise import Denoise, NoisePath
from realaudio_jax.random import pinned_settings, random_key
from realaudio_jax.samplers import item_keys, item_noise
from realaudio_jax.teachers import importing, t5
from realaudio_jax.teachers.audioldm2 import (
    language_model,
    layers,
    model,
    projection,
    schedule,
    unet,
    vae,
    vocoder,
)
from realaudio_jax.teachers.pretrained import (
    PretrainedTeacher,
    Student,
    padded,
    student_networks,
    whole_batch,
)
from realaudio_jax.typing import Array, Float, PyTree

CLASS_NAME = 'AudioLDM2Pipeline'
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16, 'float16': jnp.float16}
STEPS, GUIDANCE = 50, 3.5  # of the reported comparison; the original's default scale

_condition = jax.jit(model.condition, static_argnums=0)
_sample = jax.jit(model.sample, static_argnums=(0, 5))
_encode = jax.jit(model.encode, static_argnums=0)
_decode = jax.jit(model.decode, static_argnums=0)


class AudioLDM2(PretrainedTeacher):
    """AudioLDM 2, loaded from a checkpoint.

    Args:
        networks: its modules and numbers.
        params: of each, by the names of `Networks`.
        tokenizer: of FLAN-T5; clap_tokenizer: of CLAP.
    """

    name, predictors = 'audioldm2', ('unet',)
    encoders = ('autoencoder', 'clap', 't5', 'projection', 'language_model')

    def __init__(
        self,
        networks: model.Networks,
        params: PyTree,
        tokenizer: t5.Tokenizer,
        clap_tokenizer: t5.Tokenizer,
    ):
        self.networks, self.params = networks, params
        self.tokenizer, self.clap_tokenizer = tokenizer, clap_tokenizer
        self._student_networks = student_networks(networks, 'unet')

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.networks.sample_rate

    @property
    def path(self) -> NoisePath:
        """The noise path of its schedule."""
        return self.networks.schedule.path

    def require_seconds(self, seconds: float) -> None:
        """Raises a ValueError for a duration that the model cannot generate."""
        self.networks.latent_frames(seconds)

    def tokens(self, prompts: Sequence[str], length: int | None = None) -> model.Tokens:
        """Token ids of prompts, followed by those of as many empty prompts, for `model.condition`.

        Args:
            prompts: any number.
            length: tokens of FLAN-T5 to count, with padding; each prompt's own where it is None.

        Raises:
            ValueError: a prompt has more tokens than either encoder takes.
        """
        texts = [*prompts, *[''] * len(prompts)]
        clap_ids, clap_mask = t5.trimmed(*self.clap_tokenizer.encode(texts))
        ids, mask = t5.trimmed(*self.tokenizer.encode(texts))
        own = mask[: len(prompts)].sum(axis=1) if length is None else [length] * len(prompts)
        return model.Tokens(clap_ids, clap_mask, ids, mask, np.tile(own, 2).astype(np.int32))

    def condition(self, prompts: Sequence[str]) -> model.Conditioning:
        """Encodes prompts; an item's result does not depend on the others'."""
        return _condition(self.networks, self.params, self.tokens(prompts))

    def noise(self, seeds: Sequence[int], seconds: float) -> Float[Array, 'B L C']:
        """Standard normal noise for a clip, each item a function of its own seed."""
        keys = item_keys(random_key(0), jnp.asarray(seeds))
        frames = self.networks.latent_frames(seconds)
        return item_noise(keys, (frames, int(np.prod(self.networks.cells))))

    def sample(
        self,
        conditioning: model.Conditioning,
        noise: Float[Array, 'B L C'],
        guidance_scale: float = GUIDANCE,
        steps: int = STEPS,
    ) -> Float[Array, 'B L C']:
        """Samples latents from noise; see `model.sample`."""
        scale = jnp.full(len(noise), guidance_scale, jnp.float32)
        return _sample(self.networks, self.params, conditioning, noise, scale, steps)

    def encode_audio(self, sound: Float[np.ndarray, 'B S']) -> Float[Array, 'B L C']:
        """The mean latents of sound, padded with silence to whole frames; see `model.encode`."""
        frames = self.networks.latent_frames(sound.shape[1] / self.sample_rate)
        behind = frames * self.networks.latent_samples - sound.shape[1]
        sound = np.pad(sound, [(0, 0), (0, behind)])
        return _encode(self.networks, self.params, jnp.asarray(sound, jnp.float32))

    def decode(self, latents: Float[Array, 'B L C']) -> Float[Array, 'B S']:
        """Decodes latents to samples; see `model.decode`."""
        return _decode(self.networks, self.params, latents)

    def encode_scenes(
        self, audio: Float[np.ndarray, 'B S 2'], captions: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Arrays for `to_batch`: latents, and what is made of captions and of ''."""
        latents, c = self.encode_audio(audio.mean(axis=-1)), self.condition(captions)
        text, mask = padded(c.prompt.text, c.prompt.text_mask, self.tokenizer.max_tokens)
        real = np.asarray(c.empty.text_mask).any(axis=0)
        states = {
            'latents': latents,
            'generated': c.prompt.generated,
            'text': text,
            'empty_generated': c.empty.generated,
            'empty_text': np.asarray(c.empty.text)[:, real],
        }
        states = {name: np.asarray(array, np.float16) for name, array in states.items()}
        return {**states, 'text_mask': mask}

    @staticmethod
    def to_batch(arrays: dict[str, np.ndarray]) -> Batch:
        """A recipe's batch from rows of `encode`.

        The text of the empty prompt, kept without its padding, is padded to that of the prompts.
        """
        text, empty = (np.asarray(arrays[name], np.float32) for name in ('text', 'empty_text'))
        behind = [(0, 0), (0, text.shape[1] - empty.shape[1])]
        conditioning = model.Conditioning(
            prompt=model.Prompt(
                np.asarray(arrays['generated'], np.float32), text, arrays['text_mask']
            ),
            empty=model.Prompt(
                np.asarray(arrays['empty_generated'], np.float32),
                np.pad(empty, [*behind, (0, 0)]),
                np.pad(np.ones(empty.shape[:2], bool), behind),
            ),
        )
        return whole_batch(arrays, conditioning)

    def guided(
        self, params: PyTree, conditioning: model.Conditioning, guidance_scale: Float[Array, 'B']
    ) -> Denoise:
        """The U-Net with guidance away from the empty prompt."""
        return model.as_teacher(self.networks)(params, conditioning, guidance_scale)

    def student(
        self,
        params: PyTree,
        conditioning: model.Conditioning,
        guidance_scale: Float[Array, 'B'],
        step_size: Float[Array, 'B'],
    ) -> Denoise:
        """The same network, with scale and step size as inputs."""
        return model.bind(self._student_networks, params, conditioning, guidance_scale, step_size)

    def student_shapes(self) -> PyTree:
        """Shapes of a student's parameters."""
        return model.parameter_shapes(self._student_networks, ('unet',))

    @pinned_settings()
    def generate(
        self,
        prompts: Sequence[str],
        seconds: float = 10.0,
        steps: int = STEPS,
        guidance_scale: float = GUIDANCE,
        seed: int = 0,
        noise: Float[Array, 'B L C'] | None = None,
        student: Student | None = None,
    ) -> Float[np.ndarray, 'B S']:
        """Generates mono sound in [-1, 1] at `networks.sample_rate`.

        Args:
            prompts: what is heard; '' for anything.
            seconds: duration.
            steps: of DDIM, two evaluations of the U-Net each.
            guidance_scale: 1 for none.
            seed: of the first item; the next ones follow.
            noise: where to start; from the seeds where it is None.
            student: sample this instead of the teacher, at one evaluation a step.

        Raises:
            ValueError: a prompt too long, or a duration or number of steps that is not supported.
        """
        frames = self.networks.latent_frames(seconds)  # checked before anything is computed
        samples = round(seconds * self.sample_rate)
        if student is not None:
            student.require(steps, guidance_scale)
        if noise is None:
            noise = self.noise(range(seed, seed + len(prompts)), seconds)
        elif noise.shape[1] != frames:
            raise ValueError(f'{seconds} s are {frames} latent frames, not {noise.shape[1]}')
        conditioning = self.condition(prompts)
        if student is None:
            latents = self.sample(conditioning, noise, guidance_scale, steps)
        else:
            latents = self._sample_student(
                student.params, conditioning, noise, steps, float(guidance_scale)
            )
        return np.asarray(self.decode(latents))[:, :samples]


def load(folder: str | os.PathLike, dtype: str = 'float32') -> AudioLDM2:
    """Loads a checkpoint from the folder that its authors publish.

    Args:
        folder: as `save_pretrained` of diffusers writes it.
        dtype: of the parameters and so of the arithmetic: 'float32', 'bfloat16' or 'float16'.
            FLAN-T5, whose activations exceed float16, is then kept in float32.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: another dtype; or the folder is another model, half-downloaded, damaged, of an
            older layout, or of numbers that are no floats.
    """
    if dtype not in DTYPES:
        raise ValueError(f'no precision {dtype!r}: choose one of {", ".join(DTYPES)}')
    networks, imports = read_networks(folder)
    shapes = model.parameter_shapes(networks)
    params = {}
    for name, (part, options) in imports.items():
        kind = 'float32' if (name, dtype) == ('t5', 'float16') else dtype
        params[name] = importing.import_params(part, shapes[name], dtype=DTYPES[kind], **options)
    folder = pathlib.Path(folder)
    return AudioLDM2(
        networks, params, t5.Tokenizer(folder / 'tokenizer_2'), t5.Tokenizer(folder / 'tokenizer')
    )


def read_networks(folder: str | os.PathLike) -> tuple[model.Networks, dict]:
    """What the configs in a folder describe, and how each network's weights are imported.

    Returns:
        The networks; and by network its folder and the arguments of `importing.import_params`.

    Raises:
        FileNotFoundError, ValueError: see `load`.
    """
    folder = pathlib.Path(folder)
    importing.read_model_config(folder, CLASS_NAME, 'model_index.json')
    at = functools.partial(pathlib.Path, folder)
    generator, generator_names, generated = language_model.read_language_model(at('language_model'))
    network, frames = unet.read_unet(at('unet'))
    autoencoder, scaling = vae.read_autoencoder(at('vae'))
    voice, sample_rate, bands = vocoder.read_vocoder(at('vocoder'))
    networks = model.Networks(
        roberta.read_clap_text(at('text_encoder')),
        t5.read_encoder(at('text_encoder_2')),
        projection.read_projection(at('projection_model')),
        generator,
        network,
        autoencoder,
        voice,
        schedule.read_schedule(at('scheduler')),
        scaling,
        generated,
        frames,
        sample_rate,
        bands,
    )
    planes = {'names': layers.NAMES}
    return networks, {
        'clap': (at('text_encoder'), {'names': roberta.NAMES, 'ignored': roberta.IGNORED}),
        't5': (at('text_encoder_2'), {'names': t5.NAMES, 'aliases': t5.ALIASES}),
        'projection': (at('projection_model'), {}),
        'language_model': (
            at('language_model'),
            {
                'names': generator_names,
                'ignored': language_model.IGNORED,
                'layout': language_model.layout,
            },
        ),
        'unet': (at('unet'), planes),
        'autoencoder': (at('vae'), planes),
        'vocoder': (
            at('vocoder'),
            {
                'names': vocoder.NAMES,
                'ignored': vocoder.IGNORED,
                'layout': vocoder.layout,
            },
        ),
    }
