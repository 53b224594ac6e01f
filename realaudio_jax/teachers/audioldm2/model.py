"""AudioLDM 2 as pure functions: prompts to conditioning, noise to latents, latents to sound.

    text      CLAP and FLAN-T5 -> projection -> GPT-2 generates 8 states      `condition`
    latents   U-Net with guidance, DDIM                                       `as_teacher`, `sample`
    sound     autoencoder -> HiFi-GAN                                         `decode`

Latents are [B L C] as everywhere in this project: L frames of 25 a second, C the cells of a frame,
channel fastest. Inside they are planes [B L M C]. Noise paths and samplers work in float32, the
networks in the precision of their parameters.

Source: Liu et al. 2023 (2308.05734).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import samplers
from realaudio_jax.models.roberta import ClapText
from realaudio_jax.noise import Denoise, x0_denoiser
from realaudio_jax.teachers.audioldm2.language_model import LanguageModel, generate
from realaudio_jax.teachers.audioldm2.mel import log_mel_frames
from realaudio_jax.teachers.audioldm2.projection import Projection, places
from realaudio_jax.teachers.audioldm2.schedule import Schedule
from realaudio_jax.teachers.audioldm2.unet import UNet
from realaudio_jax.teachers.audioldm2.vae import Autoencoder
from realaudio_jax.teachers.audioldm2.vocoder import Vocoder
from realaudio_jax.teachers.t5 import T5Encoder
from realaudio_jax.trees import initial_shapes
from realaudio_jax.typing import Array, Float, Leaf, PyTree

FLAN_T5_LARGE = T5Encoder(width=1024, hidden=2816, layers=24, heads=16, feed_forward='gated-gelu')


@dataclasses.dataclass(frozen=True)
class Networks:
    """The modules and numbers of a checkpoint; hashable, so they are constants of a program.

    The defaults are AudioLDM 2 (base).

    Attributes:
        clap, t5: text encoders.
        projection, language_model: what joins their states and continues them.
        unet, autoencoder, vocoder: noise, planes, samples.
        schedule: of the noise.
        scaling: what the autoencoder's latents are multiplied by.
        generated: states that the language model makes.
        trained_frames: latent frames that the U-Net was trained on.
        sample_rate: Hz.
        bands: of the log-mel planes.
    """

    clap: ClapText = ClapText()
    t5: T5Encoder = FLAN_T5_LARGE
    projection: Projection = Projection()
    language_model: LanguageModel = LanguageModel()
    unet: UNet = UNet()
    autoencoder: Autoencoder = Autoencoder()
    vocoder: Vocoder = Vocoder()
    schedule: Schedule = Schedule()
    scaling: float = 0.4110932946205139
    generated: int = 8
    trained_frames: int = 256
    sample_rate: int = 16_000
    bands: int = 64

    @property
    def hop(self) -> int:
        """Samples of a mel frame."""
        return math.prod(self.vocoder.rates)

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and channels of a latent frame."""
        return self.bands // self.autoencoder.factor, self.unet.latent_channels

    @property
    def latent_samples(self) -> int:
        """Samples of a latent frame."""
        return self.hop * self.autoencoder.factor

    @property
    def max_seconds(self) -> float:
        """The longest clip the U-Net was trained on."""
        return self.trained_frames * self.latent_samples / self.sample_rate

    def latent_frames(self, seconds: float) -> int:
        """L for a clip.

        Raises:
            ValueError: shorter than a latent frame, longer than the model was trained for, or NaN.
        """
        shortest = self.latent_samples / self.sample_rate
        if not shortest <= seconds <= self.max_seconds:
            raise ValueError(
                f'AudioLDM 2 cannot make a clip of {seconds} s: choose {shortest:g} to '
                f'{self.max_seconds:g} s'
            )
        return math.ceil(seconds / shortest - 1e-6)


@flax.struct.dataclass
class Tokens:
    """Token ids of prompts for both text encoders.

    Attributes:
        clap_ids, clap_mask: of CLAP.
        ids, mask: of FLAN-T5.
        length: of FLAN-T5, with what the original would count as padding, see `projection.places`.
    """

    clap_ids: Leaf['B T']
    clap_mask: Leaf['B T']
    ids: Leaf['B T']
    mask: Leaf['B T']
    length: Leaf['B']


@flax.struct.dataclass
class Prompt:
    """Conditioning states of a prompt, which the U-Net attends to.

    Attributes:
        generated: states of the language model.
        text: states of FLAN-T5; text_mask: real tokens.
    """

    generated: Leaf['B G E']
    text: Leaf['B T W']
    text_mask: Leaf['B T']


@flax.struct.dataclass
class Conditioning:
    """States of a prompt and of the empty prompt for classifier-free guidance."""

    prompt: Prompt
    empty: Prompt

    def unconditional(self) -> 'Conditioning':
        """The conditioning of the empty prompt."""
        return self.replace(prompt=self.empty)


def parameter_shapes(networks: Networks, names: Sequence[str] | None = None) -> PyTree:
    """Parameters as `jax.ShapeDtypeStruct`, by the names of `Networks`.

    Args:
        networks: of a teacher or a student.
        names: of the networks wanted; None is all.
    """
    n = networks
    f32, i32 = np.float32, np.int32
    rows, channels = n.cells
    smallest = 2 ** (len(n.unet.channels) - 1)
    text = _shape(f32, 1, 2, n.t5.width)
    generated = _shape(f32, 1, 2, n.projection.width)
    cache = jax.eval_shape(lambda: n.language_model.empty_cache(1, 2))
    further = (_shape(f32, 1), _shape(f32, 1)) if n.unet.distilled else ()
    inputs = {
        'clap': (_shape(i32, 1, 2), _shape(bool, 1, 2)),
        't5': (_shape(i32, 1, 2), _shape(bool, 1, 2)),
        'projection': (_shape(f32, 1, n.clap.dimension), text),
        'language_model': (generated, _shape(i32, 1, 2), _shape(f32, 1, 1, 2, 2), cache),
        'unet': (
            _shape(f32, 1, smallest, rows, channels),
            _shape(f32, 1),
            generated,
            text,
            _shape(bool, 1, 2),
            *further,
        ),
        'autoencoder': (_shape(f32, 1, n.autoencoder.factor, n.bands),),
        'vocoder': (_shape(f32, 1, 2, n.bands),),
    }
    return {
        name: initial_shapes(getattr(n, name), *inputs[name])['params']
        for name in (inputs if names is None else names)
    }


def condition(networks: Networks, params: PyTree, tokens: Tokens) -> Conditioning:
    """Encodes prompts and, beside each, the empty prompt of the same padded length.

    Args:
        networks, params: the model.
        tokens: [2 B ...], the prompts, then as many empty ones.
    """
    dtype = _dtype(params['unet'])

    def apply(name, *args):
        return getattr(networks, name).apply({'params': params[name]}, *args).astype(dtype)

    text = apply('t5', tokens.ids, tokens.mask)
    clap = apply('clap', tokens.clap_ids, tokens.clap_mask)
    generated = generate(
        networks.language_model,
        {'params': params['language_model']},
        apply('projection', clap, text),
        *places(tokens.mask, tokens.length),
        networks.generated,
    )
    count = len(tokens.ids) // 2
    every = Prompt(generated, text, tokens.mask)
    prompts = jax.tree.map(lambda x: x[:count], every)
    return Conditioning(prompts, jax.tree.map(lambda x: x[count:], every))


def network(
    networks: Networks,
    params: PyTree,
    prompt: Prompt,
    guidance_scale: Float[Array, 'B'] | None = None,
    step_size: Float[Array, 'B'] | None = None,
) -> Callable:
    """The U-Net as `network(x_t [B L C], t [B]) -> prediction`, prompt bound.

    Of n B prompts it predicts for the same B items with each of n conditions, those of the first
    condition first: [n B L C].

    Between steps of the table the U-Net sees fractions, which it was not trained on; before the
    first step, where there is less noise than it knows, it sees the first.

    Args:
        networks, params: of a teacher, or of a student.
        prompt: what to make.
        guidance_scale: embedded scale of a student; None for a teacher.
        step_size: of a student, in [0, 1]; None for a teacher.
    """
    kind = _dtype(params['unet'])
    states = prompt.generated.astype(kind), prompt.text.astype(kind), prompt.text_mask

    def apply(x_t, t):
        if t.ndim != 1:
            raise ValueError(f'AudioLDM 2 takes one time for each item, not {t.shape}')
        step = jnp.maximum(networks.schedule.path.step(t), 0.0)
        # float32 times miss the steps of the table by up to 1e-4.
        whole = jnp.round(step)
        step = jnp.where(jnp.abs(step - whole) < 1e-3, whole, step)
        planes = x_t.reshape(*x_t.shape[:2], *networks.cells).astype(kind)
        noise = networks.unet.apply(
            {'params': params['unet']}, planes, step, *states, guidance_scale, step_size
        )
        return noise.astype(x_t.dtype).reshape(-1, *x_t.shape[1:])

    return apply


def bind(
    networks: Networks,
    params: PyTree,
    conditioning: Conditioning,
    guidance_scale: Float[Array, 'B'] | None = None,
    step_size: Float[Array, 'B'] | None = None,
) -> Denoise:
    """The U-Net as `denoise(x_t [B L C], t [B]) -> x_0`: a teacher not guided, or a student.

    Args:
        networks, params, guidance_scale, step_size: see `network`.
        conditioning: of which the prompt is seen.
    """
    schedule = networks.schedule
    apply = network(networks, params, conditioning.prompt, guidance_scale, step_size)
    return x0_denoiser(schedule.path, apply, schedule.prediction)


def as_teacher(networks: Networks) -> Callable[..., Denoise]:
    """The U-Net as a recipe's `teacher(params, conditioning, guidance_scale [B])`, guided.

    The prompt and the empty one are one batch, from where the U-Net first sees them.
    """
    schedule = networks.schedule

    def teacher(params, conditioning, guidance_scale):
        both = jax.tree.map(
            lambda a, b: jnp.concatenate([a, b]), conditioning.empty, conditioning.prompt
        )
        predict = network(networks, params, both)

        def guided(x_t, t):
            return samplers.guide(*jnp.split(predict(x_t, t), 2), guidance_scale)

        return x0_denoiser(schedule.path, guided, schedule.prediction)

    return teacher


def sample(
    networks: Networks,
    params: PyTree,
    conditioning: Conditioning,
    noise: Float[Array, 'B L C'],
    guidance_scale: Float[Array, ' B'],
    steps: int,
) -> Float[Array, 'B L C']:
    """Samples latents by DDIM with the original's time steps."""
    denoise = as_teacher(networks)(params, conditioning, guidance_scale)
    schedule = networks.schedule
    return samplers.ddim(denoise, schedule.path, noise, schedule.times(steps))


def decode(
    networks: Networks, params: PyTree, latents: Float[Array, 'B L C']
) -> Float[Array, 'B S']:
    """Decodes latents to samples in [-1, 1]; S = L * latent_samples."""
    length = latents.shape[1]
    planes = latents.reshape(*latents.shape[:2], *networks.cells) / networks.scaling
    planes = planes.astype(_dtype(params['autoencoder']))
    mel = networks.autoencoder.apply({'params': params['autoencoder']}, planes, method='decode')
    sound = networks.vocoder.apply({'params': params['vocoder']}, mel)
    return sound[:, : length * networks.latent_samples].astype(jnp.float32)


def encode(
    networks: Networks,
    params: PyTree,
    sound: Float[Array, 'B S'],
    noise: Float[Array, 'B L C'] | None = None,
) -> Float[Array, 'B L C']:
    """Encodes mono sound to scaled latents.

    Args:
        networks, params: the model.
        sound: at the model's rate; S = L * latent_samples, at least 1024.
        noise: standard normal, for a draw from the posterior; None for its mean.
    """
    mel = log_mel_frames(sound, networks.sample_rate, networks.bands, networks.hop)
    mean, log_variance = networks.autoencoder.apply(
        {'params': params['autoencoder']},
        mel.astype(_dtype(params['autoencoder'])),
        method='encode',
    )
    if noise is not None:
        mean = mean + jnp.exp(log_variance / 2) * noise.reshape(mean.shape)
    return networks.scaling * mean.astype(jnp.float32).reshape(*mean.shape[:2], -1)


def _shape(dtype, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _dtype(params: PyTree):
    """The precision of a network's parameters."""
    return jax.tree.leaves(params)[0].dtype
