"""The baselines of the benchmark table in JAX: published models, or random weights of their sizes.

Each makes a sound from as many latent frames as its own pipeline would.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import systems
from realaudio_jax.random import random_key
from realaudio_jax.teachers import audioldm2, t5, t5gemma
from realaudio_jax.teachers.audioldm2 import model as audioldm2_model
from realaudio_jax.teachers.audioldm2.pipeline import GUIDANCE
from realaudio_jax.teachers.stable_audio_3 import conditioners as conditioners_3
from realaudio_jax.teachers.stable_audio_3 import denoise as denoise_3
from realaudio_jax.teachers.stable_audio_3 import pipeline as stable_audio_3
from realaudio_jax.teachers.stable_audio_3 import same
from realaudio_jax.teachers.stable_audio_3 import transformer as transformer_3
from realaudio_jax.teachers.stable_audio_open import conditioners, denoise, oobleck, transformer
from realaudio_jax.teachers.stable_audio_open import pipeline as stable_audio_open
from realaudio_jax.typing import PyTree

TOKENS = 16  # of a prompt where there is no tokenizer; two of the three pad to a multiple of it
OPEN_TOKENS, OPEN_GUIDANCE = 128, 7.0  # Stable Audio Open pads every prompt


def audioldm2_system(
    folder: str | None,
    seconds: float,
    dtype: str,
    steps: int,
    networks: audioldm2.Networks | None = None,
) -> systems.System:
    """AudioLDM 2 from its folder, or with random weights (of the published size by default)."""
    loaded = None
    if folder:
        systems.require_memory_for(folder)
        loaded = audioldm2.load(folder, dtype)
        networks, params, tokens = loaded.networks, loaded.params, loaded.tokens([systems.PROMPT])
    else:
        networks = networks or audioldm2.Networks()
        params = systems.random_params(audioldm2_model.parameter_shapes(networks), dtype)
        ids, real = np.ones((2, TOKENS), np.int32), np.ones((2, TOKENS), bool)
        tokens = audioldm2_model.Tokens(ids, real, ids, real, np.full(2, TOKENS, np.int32))
    frames = networks.latent_frames(seconds)
    start = jax.random.normal(random_key(0), (1, frames, int(np.prod(networks.cells))))
    silence = jnp.zeros((1, frames * networks.latent_samples))
    scale = jnp.full(1, GUIDANCE, jnp.float32)
    jitted = functools.partial(jax.jit, static_argnums=0)
    condition, decode, encode = map(
        jitted, (audioldm2_model.condition, audioldm2_model.decode, audioldm2_model.encode)
    )
    sample = jax.jit(audioldm2_model.sample, static_argnums=(0, 5))
    return systems.System(
        name='AudioLDM 2',
        weights=systems.weights_name(folder),
        steps=steps,
        guided=True,
        parameters=systems.count(params),
        sample_rate=networks.sample_rate,
        channels=1,
        made_s=frames * networks.latent_samples / networks.sample_rate,
        text=lambda: condition(networks, params, tokens),
        sample=lambda c, taken: sample(networks, params, c, start, scale, taken),
        decode=lambda latents: decode(networks, params, latents),
        encode=lambda: encode(networks, params, silence),
        sounds=loaded and systems.published_sounds(loaded, networks.sample_rate, steps),
        flag='audioldm2',
    )


@dataclasses.dataclass(frozen=True)
class OpenNetworks:
    """The networks of Stable Audio Open; the defaults are the published ones."""

    predictors: denoise.Networks = denoise.Networks(
        transformer.Transformer(), conditioners.Projection()
    )
    autoencoder: oobleck.Oobleck = oobleck.Oobleck()
    text_encoder: t5.T5Encoder = t5.T5Encoder()
    schedule: denoise.Schedule = denoise.Schedule()

    def name(self, seconds: float, whole: bool) -> str:
        """In the table."""
        return 'Stable Audio Open' + ('' if whole else f', window of {seconds:g} s')

    def frames(self, seconds: float, whole: bool) -> int:
        """Latent frames: of the window it was trained on, or no more than `seconds` take.

        Raises:
            ValueError: longer than the window.
        """
        most, one = self.predictors.transformer.frames, self.autoencoder.samples_per_latent
        needed = -(-round(seconds * self.autoencoder.sample_rate) // one)
        if not 1 <= needed <= most:
            longest = most * one / self.autoencoder.sample_rate
            raise ValueError(
                f'Stable Audio Open cannot make a clip of {seconds:g} s: choose up to {longest:g} s'
            )
        return most if whole else needed


def stable_audio_open_system(
    folder: str | None,
    seconds: float,
    dtype: str,
    steps: int,
    whole: bool,
    networks: OpenNetworks | None = None,
) -> systems.System:
    """Stable Audio Open from its folder, or with random weights.

    Args:
        folder, seconds, dtype, steps, networks: as above.
        whole: makes its whole window, as published, of which `seconds` are kept; otherwise only as
          many latent frames as these take, which is faster and not what it was trained for.
    """
    loaded = None
    if folder:
        systems.require_memory_for(folder)
        loaded = stable_audio_open.load(folder, dtype)
        networks = OpenNetworks(
            loaded.networks, loaded.autoencoder, loaded.text_encoder, loaded.schedule
        )
        params, (ids, real) = loaded.params, loaded.tokenizer.encode([systems.PROMPT])
    else:
        networks = networks or OpenNetworks()
        parts = networks.predictors
        shapes = {
            'transformer': transformer.parameter_shapes(parts.transformer),
            'projection': conditioners.parameter_shapes(parts.projection),
            'autoencoder': oobleck.parameter_shapes(networks.autoencoder),
            'text_encoder': t5.parameter_shapes(networks.text_encoder),
        }
        params = systems.random_params(shapes, dtype)
        ids, real = np.ones((1, OPEN_TOKENS), np.int32), np.ones((1, OPEN_TOKENS), bool)
    autoencoder, frames = networks.autoencoder, networks.frames(seconds, whole)
    shape = (frames, networks.predictors.transformer.channels)
    start, fresh = denoise.noises(random_key(0)[None], steps, shape)
    encode_text = jax.jit(networks.text_encoder.apply)
    sample = jax.jit(functools.partial(denoise.sample, networks.predictors))
    own = {name: params[name] for name in stable_audio_open.StableAudioOpen.predictors}

    def text():
        states = encode_text({'params': params['text_encoder']}, ids, real)
        begin, end = jnp.zeros(1), jnp.full(1, seconds)
        return conditioners.Conditioning(states, jnp.asarray(real), begin, end, jnp.ones(1, bool))

    def some(conditioning, taken):
        times = networks.schedule.times(max(2, taken))[: taken + 1]
        return sample(own, conditioning, start, times, fresh[:taken], OPEN_GUIDANCE)

    kept = {'frames': None if whole else frames}
    return systems.System(
        name=networks.name(seconds, whole),
        weights=systems.weights_name(folder),
        steps=steps,
        guided=True,
        text=text,
        sample=some,
        sounds=loaded and systems.published_sounds(loaded, loaded.sample_rate, steps, **kept),
        flag='stable_audio_open',
        **_parameters_and_coder(params, autoencoder, frames),
    )


@dataclasses.dataclass(frozen=True)
class SmallNetworks:
    """The networks of Stable Audio 3; the defaults are the published small ones."""

    predictors: denoise_3.Networks = denoise_3.Networks(
        transformer_3.Transformer(), conditioners_3.Duration()
    )
    autoencoder: same.SAME = same.SAME()
    text_encoder: t5gemma.T5GemmaEncoder = t5gemma.T5GemmaEncoder()
    schedule: denoise_3.Schedule = denoise_3.Schedule()

    def frames(self, seconds: float) -> int:
        """Latent frames of a sound.

        Raises:
            ValueError: longer than the model makes.
        """
        longest = min(stable_audio_3.MAX_SECONDS, self.predictors.duration.high)
        if not 0 < seconds <= longest:
            raise ValueError(
                f'Stable Audio 3 cannot make a clip of {seconds:g} s: choose up to {longest:g} s'
            )
        samples = seconds * self.autoencoder.sample_rate
        return int(np.ceil(samples / self.autoencoder.samples_per_latent))


def stable_audio_3_system(
    folder: str | None,
    seconds: float,
    dtype: str,
    steps: int,
    networks: SmallNetworks | None = None,
) -> systems.System:
    """Stable Audio 3 small from its folder, or with random weights; it is not guided."""
    loaded = None
    if folder:
        systems.require_memory_for(folder)
        loaded = stable_audio_3.load(folder, dtype)
        networks = SmallNetworks(
            loaded.networks, loaded.autoencoder, loaded.text_encoder, loaded.schedule
        )
        params = loaded.params
        ids, real = t5.trimmed(*loaded.tokenizer.encode([systems.PROMPT]))
    else:
        networks = networks or SmallNetworks()
        shapes = {
            'transformer': transformer_3.parameter_shapes(networks.predictors.transformer),
            'duration': conditioners_3.parameter_shapes(networks.predictors.duration),
            'autoencoder': same.parameter_shapes(networks.autoencoder),
            'text_encoder': t5gemma.parameter_shapes(networks.text_encoder),
        }
        params = systems.random_params(shapes, dtype)
        ids, real = np.ones((1, TOKENS), np.int32), np.ones((1, TOKENS), bool)
    autoencoder, frames = networks.autoencoder, networks.frames(seconds)
    shape = (frames, networks.predictors.transformer.channels)
    start, keys = denoise_3.start(random_key(0)[None], shape)
    encode_text = jax.jit(networks.text_encoder.apply)
    sample = jax.jit(functools.partial(denoise_3.sample, networks.predictors))
    own = {name: params[name] for name in stable_audio_3.StableAudio3.predictors}

    def text():
        states = encode_text({'params': params['text_encoder']}, ids, real)
        return conditioners_3.Conditioning(states, jnp.asarray(real), jnp.full(1, seconds))

    return systems.System(
        name='Stable Audio 3 small',
        weights=systems.weights_name(folder),
        steps=steps,
        guided=False,
        text=text,
        sample=lambda c, taken: sample(own, c, start, networks.schedule.times(taken), keys),
        sounds=loaded and systems.published_sounds(loaded, loaded.sample_rate, steps),
        flag='stable_audio_3',
        **_parameters_and_coder(params, autoencoder, frames),
    )


def _parameters_and_coder(
    params: PyTree, autoencoder: oobleck.Oobleck | same.SAME, frames: int
) -> dict[str, Any]:
    """What follows for a `System` from its parameters and an autoencoder of `frames` latents."""
    kind = params['transformer']['embed']['kernel'].dtype
    samples = frames * autoencoder.samples_per_latent
    silence = jnp.zeros((1, samples, autoencoder.audio_channels), kind)
    coder = {'params': params['autoencoder']}
    decode, encode = (
        jax.jit(functools.partial(autoencoder.apply, method=name)) for name in ('decode', 'encode')
    )
    return {
        'parameters': systems.count(params),
        'sample_rate': autoencoder.sample_rate,
        'channels': autoencoder.audio_channels,
        'made_s': samples / autoencoder.sample_rate,
        'decode': lambda latents: decode(coder, latents.astype(kind)),
        'encode': lambda: encode(coder, silence),
    }


# By the name of a row, as `systems.OWN`.
ROWS: dict[str, systems.Builder] = {
    'audioldm2': lambda folders, seconds, dtype: audioldm2_system(
        folders['audioldm2'], seconds, dtype, 50
    ),
    'stable_audio_open': lambda folders, seconds, dtype: stable_audio_open_system(
        folders['stable_audio_open'], seconds, dtype, 20, True
    ),
    'stable_audio_open_short': lambda folders, seconds, dtype: stable_audio_open_system(
        folders['stable_audio_open'], seconds, dtype, 20, False
    ),
    'stable_audio_3': lambda folders, seconds, dtype: stable_audio_3_system(
        folders['stable_audio_3'], seconds, dtype, 8
    ),
}
