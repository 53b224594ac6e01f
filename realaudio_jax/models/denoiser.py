"""The latent denoiser: a diffusion transformer conditioned on text and timed events.

Two latent frames make one token, 12.5 tokens a second. Each block attends to itself, then to the
text and to the events of the timeline in one softmax, then applies a gated MLP; noise level,
duration, guidance scale and step size modulate it (adaLN-single, PixArt-alpha, arXiv 2310.00426,
sec. 2.3).

Time is in seconds everywhere. A rotary embedding (arXiv 2104.09864) turns queries by the time of
their token and event keys by the onset of their event, so a query finds the events near it. Each
frame also gets its signed distances to the nearest onset and offset, which are exact below the
length of a frame (`event_features`).

The network has no convolution over time and masks tokens beyond the duration, so padding a batch to
a longer length changes nothing.
"""

import functools
import math

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.models.layers import NormScale, RMSNorm, rms_norm, softmax_product
from realaudio_jax.noise import CosinePath, Denoise, x0_denoiser
from realaudio_jax.quantisation import Dense
from realaudio_jax.typing import LATENT_CHANNELS, LATENT_RATE, Array, Bool, Float, Leaf, PyTree

PATCH = 2  # latent frames per token
PATH = CosinePath()  # the noise path this network is trained on, with v-prediction
_DISTANCE_SCALES_S = (0.02, 0.08, 0.32, 1.28)
_CONTEXT = 'memory'  # the encoder's name in the parameters of every release
_EVENT_CHANNELS = 64  # of the events' text among the features of a frame


@flax.struct.dataclass
class Conditioning:
    """Conditioning of a batch. Absent parts have an empty mask, not another shape.

    Attributes:
        text: states of the text encoder; text_mask: real tokens.
        event_text: sentence embedding of each event; event_mask: real events.
        onset_s, offset_s: seconds from the start; gain_db: relative level.
        loudness_db: requested level per latent frame, dBFS; loudness_mask: whether it is requested.
        seconds: duration of the sound; frames beyond it are padding.
        init: known latents; init_mask: 1 where they are known (inpainting, continuation).
        curves: further curves per latent frame, of the K that the denoiser has, in octaves above
            1 kHz; curve_mask: where they are requested. None requests nothing.
    """

    text: Leaf['B T W']
    text_mask: Leaf['B T']
    event_text: Leaf['B E W']
    onset_s: Leaf['B E']
    offset_s: Leaf['B E']
    gain_db: Leaf['B E']
    event_mask: Leaf['B E']
    loudness_db: Leaf['B L']
    loudness_mask: Leaf['B']
    seconds: Leaf['B']
    init: Leaf['B L C']
    init_mask: Leaf['B L']
    curves: Leaf['B L K'] = None
    curve_mask: Leaf['B L K'] = None

    def without(self, text: Bool[Array, 'B'], timeline: Bool[Array, 'B']) -> 'Conditioning':
        """Masks the text, and the timeline with its curves, of the items marked True."""
        kept = self.curve_mask
        return self.replace(
            curve_mask=None if kept is None else kept & ~timeline[:, None, None],
            text_mask=self.text_mask & ~text[:, None],
            event_mask=self.event_mask & ~timeline[:, None],
            loudness_mask=self.loudness_mask & ~timeline,
        )

    def unconditional(self) -> 'Conditioning':
        """The unconditional input of classifier-free guidance: text and timeline masked.

        Duration and known latents stay: a sound has them with or without guidance.
        """
        everyone = jnp.ones_like(self.loudness_mask)
        return self.without(everyone, everyone)


def latent_frames(seconds: float) -> int:
    """Latent frames of a sound: 25 a second, rounded up to whole tokens."""
    return PATCH * math.ceil(seconds * LATENT_RATE / PATCH - 1e-6)


def frame_mask(seconds: Float[Array, 'B'], length: int) -> Bool[Array, 'B L']:
    """True for the latent frames of tokens that start before the end of the sound."""
    start = jnp.arange(length) // PATCH * (PATCH / LATENT_RATE)
    return start[None] < seconds[:, None] - 1e-4


def fourier_features(x: Float[Array, '*b'], count: int, longest: float) -> Float[Array, '*b F']:
    """[cos(2 pi f x), sin(2 pi f x)] for `count` frequencies f, doubling from 1 / longest."""
    frequency = 2.0 ** jnp.arange(count) / longest
    angle = 2 * jnp.pi * x[..., None] * jnp.expand_dims(frequency, tuple(range(x.ndim)))
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def octaves(hertz: Float[np.ndarray, '*b']) -> Float[np.ndarray, '*b']:
    """log2(f / 1 kHz): the unit of the curves that are frequencies."""
    return np.log2(hertz / 1000.0)


def curve_features(curve: Float[Array, 'B L'], mask: Bool[Array, 'B L']) -> Float[Array, 'B L F']:
    """One curve as the input of a token: its value coarse and fine, and whether it is requested."""
    waves = fourier_features(curve, 4, 8.0)
    requested = mask[..., None].astype(curve.dtype)
    parts = [curve[..., None] / 4.0, waves, jnp.ones_like(requested)]
    return jnp.concatenate(parts, axis=-1) * requested


def rotate(x: Float[Array, 'B N H F'], seconds: Float[Array, 'B N']) -> Float[Array, 'B N H F']:
    """Rotary embedding at times in seconds; periods from 40 ms to 20 s, evenly in the logarithm."""
    half = x.shape[-1] // 2
    period = 0.04 * (20.0 / 0.04) ** (jnp.arange(half) / max(half - 1, 1))
    angle = (2 * jnp.pi * seconds[..., None] / period[None, None])[:, :, None]
    a, b = x[..., :half], x[..., half:]
    turned = jnp.concatenate(
        [a * jnp.cos(angle) - b * jnp.sin(angle), a * jnp.sin(angle) + b * jnp.cos(angle)], axis=-1
    )
    return turned.astype(x.dtype)


def _heads_first(x: Float[Array, 'B N H F']) -> Float[Array, 'B*H N F']:
    """Heads as part of the batch: XLA's CPU backend computes one axis of it the fastest."""
    return jnp.moveaxis(x, 2, 1).reshape(-1, x.shape[1], x.shape[3])


def attention_scores(query: Float[Array, 'B N H F'], key: Float[Array, 'B M H F']) -> Array:
    """Scaled products in float32, [B*H, N, M]."""
    query, key = _heads_first(query), jnp.swapaxes(_heads_first(key), 1, 2)
    products = jnp.matmul(query, key, preferred_element_type=jnp.float32)
    return products * query.shape[-1] ** -0.5


def attend(
    scores: Float[Array, 'A N M'], value: Float[Array, 'B M H F'], mask: Bool[Array, 'B M']
) -> Float[Array, 'B N D']:
    """Softmax of the scores of A = B H heads times the values that are there."""
    batch, _, heads, width = value.shape
    scores = jnp.where(jnp.repeat(mask, heads, axis=0)[:, None], scores, -1e9)
    out = softmax_product(scores, _heads_first(value))
    out = jnp.moveaxis(out.reshape(batch, heads, -1, width), 1, 2)
    return out.reshape(batch, -1, heads * width)


def attend_fused(
    query: Float[Array, 'B N H F'],
    key: Float[Array, 'B M H F'],
    value: Float[Array, 'B M H V'],
    mask: Bool[Array, 'B M'],
    implementation: str,
    scale: float,
) -> Float[Array, 'B N D']:
    """`attend` of scaled `attention_scores` as one operation, `jax.nn.dot_product_attention`.

    Args:
        query, key, value: values may be narrower than keys: zeros beside them change nothing.
        mask: the keys that are there.
        implementation: 'xla', or 'cudnn' for a GPU and half precision.
        scale: of the products.
    """
    batch, tokens, heads, width = query.shape
    beside = width - value.shape[-1]
    out = jax.nn.dot_product_attention(
        query,
        key,
        jnp.pad(value, [(0, 0)] * 3 + [(0, beside)]),
        mask=mask[:, None, None],
        scale=scale,
        implementation=implementation,
    )
    return out[..., : value.shape[-1]].reshape(batch, tokens, heads * value.shape[-1])


def _split_heads(x: Float[Array, 'B N D'], heads: int) -> Float[Array, 'B N H F']:
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


@flax.struct.dataclass
class Context:
    """Cross-attention keys and values of text and events, shared by all blocks."""

    text_key: Leaf['B T H F']
    event_key: Leaf['B E H F']
    value: Leaf['B M H F']
    mask: Leaf['B M']

    @property
    def key(self) -> Float[Array, 'B M H G']:
        """All keys, for queries [q, rotated q]: of text beside zeros, zeros beside events."""
        both = (self.text_key, (0, 1)), (self.event_key, (1, 0))
        width = self.text_key.shape[-1]
        padded = [
            jnp.pad(key, [(0, 0)] * 3 + [(before * width, after * width)])
            for key, (before, after) in both
        ]
        return jnp.concatenate(padded, axis=1)


class ConditionEncoder(nn.Module):
    """Computes `Context` from text states and events; a learned token covers empty conditioning."""

    width: int
    heads: int
    dtype: str | None = None

    @nn.compact
    def __call__(self, c: Conditioning) -> Context:
        batch = c.text.shape[0]
        dense = functools.partial(nn.Dense, self.width, dtype=self.dtype)
        null = self.param('null', nn.initializers.normal(0.02), (self.width,))
        text = dense(name='text')(c.text)
        null = jnp.broadcast_to(null[None, None], (batch, 1, self.width)).astype(text.dtype)
        text = RMSNorm(name='text_norm')(jnp.concatenate([null, text], axis=1))
        times = jnp.stack([c.onset_s, c.offset_s, c.offset_s - c.onset_s], axis=-1)
        times = fourier_features(times, 8, 20.0).reshape(*c.onset_s.shape, -1)
        facts = jnp.concatenate([times, c.gain_db[..., None] / 20.0], axis=-1)
        events = dense(name='event_text')(c.event_text) + dense(name='event_facts')(facts)
        events = RMSNorm(name='event_norm')(dense(name='event')(nn.silu(events)))
        everything = jnp.concatenate([text, events], axis=1)
        key = _split_heads(dense(use_bias=False, name='key')(everything), self.heads)
        key = RMSNorm(name='key_norm')(key)
        value = dense(use_bias=False, name='value')(everything)
        mask = jnp.concatenate([jnp.ones((batch, 1), bool), c.text_mask, c.event_mask], axis=1)
        count = text.shape[1]
        return Context(
            text_key=key[:, :count],
            event_key=rotate(key[:, count:], c.onset_s),
            value=_split_heads(value, self.heads),
            mask=mask,
        )


class Block(nn.Module):
    """Transformer block: self-attention, cross-attention, gated MLP, each with adaLN."""

    heads: int
    expansion: float = 2.0
    dtype: str | None = None
    dropout: float = 0.0
    attention: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'B N D'],
        modulation: Float[Array, 'B M 8*D'],
        context: Context,
        seconds: Float[Array, 'B N'],
        mask: Bool[Array, 'B N'],
    ) -> Float[Array, 'B N D']:
        width = x.shape[-1]
        dense = functools.partial(Dense, use_bias=False, dtype=self.dtype)
        drop = nn.Dropout(self.dropout, deterministic=not self.has_rng('dropout'))
        table = self.param('table', nn.initializers.zeros, (8 * width,))
        parts = jnp.split((modulation + table[None, None]).astype(x.dtype), 8, axis=-1)
        shift_1, scale_1, gate_1, gate_2, shift_3, scale_3, gate_3, scale_2 = parts

        y = RMSNorm(name='self_norm')(x) * (1 + scale_1) + shift_1
        qkv = dense(3 * width, name='self_qkv')(y)
        # The heads of queries and keys side by side: one norm and one rotation for both.
        both = _split_heads(qkv[..., : 2 * width], 2 * self.heads)
        depth = both.shape[-1]
        norms = (NormScale(name=f'self_{name}_norm')(depth) for name in ('query', 'key'))
        norms = jnp.repeat(jnp.stack(list(norms)), self.heads, axis=0)
        query, key = jnp.split(rotate(rms_norm(both, norms[None, None]), seconds), 2, axis=2)
        value, scale = _split_heads(qkv[..., 2 * width :], self.heads), depth**-0.5
        if self.attention:
            y = attend_fused(query, key, value, mask, self.attention, scale)
        else:
            y = attend(attention_scores(query, key), value, mask)
        x = x + (1 + gate_1) * drop(dense(width, name='self_out')(y))

        y = RMSNorm(name='cross_norm')(x) * (1 + scale_2)
        query = _split_heads(dense(width, name='cross_query')(y), self.heads)
        query = RMSNorm(name='cross_query_norm')(query)
        if self.attention:
            both = jnp.concatenate([query, rotate(query, seconds)], axis=-1)
            y = attend_fused(both, context.key, context.value, context.mask, self.attention, scale)
        else:
            scores = [
                attention_scores(query, context.text_key),
                attention_scores(rotate(query, seconds), context.event_key),
            ]
            y = attend(jnp.concatenate(scores, axis=-1), context.value, context.mask)
        x = x + (1 + gate_2) * drop(dense(width, name='cross_out')(y))

        y = RMSNorm(name='mlp_norm')(x) * (1 + scale_3) + shift_3
        hidden = int(self.expansion * width)
        gate, up = jnp.split(dense(2 * hidden, name='mlp_in')(y), 2, axis=-1)
        y = dense(width, name='mlp_out')(nn.silu(gate) * up)
        return x + (1 + gate_3) * drop(y)


def event_features(
    c: Conditioning, event_channels: Float[Array, 'B E R'], length: int
) -> Float[Array, 'B L F']:
    """Frame-level event features: active events, signed distances to onset and offset.

    Signed distances d (seconds, positive after) enter as tanh(d / scale) at four scales, which
    keeps them exact near the event and bounded far from it.

    Args:
        c: the conditioning.
        event_channels: what to write into the frames where an event sounds.
        length: L.
    """
    time = (jnp.arange(length) + 0.5) / LATENT_RATE
    since_onset = time[None, :, None] - c.onset_s[:, None]  # [B, L, E]
    since_offset = time[None, :, None] - c.offset_s[:, None]
    mask = c.event_mask[:, None]
    half = 0.5 / LATENT_RATE
    # Seconds of the frame that it sounds: up to its end, from its beginning, at most its duration.
    overlap = jnp.minimum(since_onset + half, half - since_offset)
    overlap = jnp.minimum(overlap, (c.offset_s - c.onset_s)[:, None])
    active = jnp.clip(overlap / (2 * half), 0.0, 1.0) * mask

    def nearest(distance):
        index = jnp.argmin(jnp.where(mask, jnp.abs(distance), 1e3), axis=-1, keepdims=True)
        found = jnp.take_along_axis(distance, index, axis=-1)
        return jnp.where(jnp.any(mask, axis=-1, keepdims=True), found, -20.0)

    scales = jnp.asarray(_DISTANCE_SCALES_S)[None, None]
    loud = jnp.where(c.loudness_mask[:, None], (c.loudness_db + 40.0) / 20.0, 0.0)
    requested = jnp.broadcast_to(c.loudness_mask[:, None], loud.shape).astype(loud.dtype)
    parts = [
        active @ event_channels,
        jnp.max(active, axis=-1, keepdims=True),
        jnp.max(active * (1.0 + c.gain_db[:, None] / 20.0), axis=-1, keepdims=True),
        jnp.tanh(nearest(since_onset) / scales),
        jnp.tanh(nearest(since_offset) / scales),
        loud[..., None],
        requested[..., None],
    ]
    return jnp.concatenate(parts, axis=-1)


def student_embedding(
    width: int, guidance_scale: Float[Array, 'B'], step_size: Float[Array, 'B']
) -> Float[Array, 'B D']:
    """Embedding of guidance scale and step size, created in the module that calls this.

    Zero at the start: a student that begins as its teacher predicts what the teacher does.

    Args:
        width: D.
        guidance_scale: 1 is no guidance, and adds nothing.
        step_size: of the student, in [0, 1]; 0 adds nothing.
    """
    dense = functools.partial(nn.Dense, width, kernel_init=nn.initializers.zeros, use_bias=False)
    step = dense(name='step_size')(fourier_features(step_size, 4, 2.0) * (step_size > 0)[:, None])
    guidance = dense(name='guidance_scale')(
        fourier_features(jnp.log(guidance_scale), 4, 8.0) * (guidance_scale != 1)[:, None]
    )
    return step + guidance


class Denoiser(nn.Module):
    """Predicts v = alpha eps - sigma x_0 (arXiv 2202.00512, appendix D) of noisy latents.

    Attributes:
        width: features of a token.
        depth: blocks.
        heads: of every attention; width must be a multiple of 2 * heads.
        expansion: hidden width of the gated MLP over `width`.
        dtype: of the blocks' products and of the features between them, such as 'bfloat16'; None:
            that of the parameters. Times, noise levels, norms, softmax and the prediction stay
            float32.
        curves: names of the curves besides loudness that condition it, in the order of
            `Conditioning.curves`. Each is a linear map that begins at zero, so that a network
            trained without it is unchanged at first.
        dropout: of what each attention and MLP adds, where `apply` is given a key 'dropout'.
        attention: None for products and a softmax of our own, the fastest on a CPU; 'xla' or
            'cudnn', see `attend_fused`.
        channels: of the latents, as many as the autoencoder's.
    """

    width: int = 256
    depth: int = 5
    heads: int = 4
    expansion: float = 2.0
    dtype: str | None = None
    curves: tuple[str, ...] = ()
    dropout: float = 0.0
    attention: str | None = None
    channels: int = LATENT_CHANNELS

    @nn.compact
    def __call__(
        self,
        x_t: Float[Array, 'B L C'],
        t: Float[Array, '...'],
        conditioning: Conditioning,
        guidance_scale: Float[Array, 'B'],
        step_size: Float[Array, 'B'],
        context: Context | None = None,
    ) -> Float[Array, 'B L C']:
        """Predicts v.

        Args:
            x_t: noisy latents; L even.
            t: noise level in [0, 1], [B], or [B, L] with one value per token.
            conditioning: see `Conditioning`.
            guidance_scale: folded into a student; 1 for a teacher, which has none.
            step_size: length of the step a student takes, in [0, 1]; 0 for a teacher.
            context: of `encode_context`, for several calls; None: it is encoded here.
        """
        c = conditioning
        batch, length, _ = x_t.shape
        tokens = length // PATCH
        event_channels = nn.Dense(_EVENT_CHANNELS, name='raster_text')(c.event_text)
        events = event_features(c, event_channels, length)
        known = c.init_mask[..., None]
        x = jnp.concatenate([x_t, events, known * c.init, known], axis=-1)
        embed = nn.Dense(self.width, dtype=self.dtype, name='embed')
        x = embed(x.reshape(batch, tokens, -1))
        for i, name in enumerate(self.curves):
            values, requested = c.curves, c.curve_mask
            if values is None:
                values = jnp.zeros((batch, length, len(self.curves)))
                requested = jnp.zeros(values.shape, bool)
            features = curve_features(values[..., i], requested[..., i])
            follow = nn.Dense(
                self.width,
                use_bias=False,
                kernel_init=nn.initializers.zeros,
                dtype=self.dtype,
                name=f'curve_{name}',
            )
            x = x + follow(features.reshape(batch, tokens, -1))

        per_token = t[:, None] if t.ndim == 1 else t[:, ::PATCH]
        level = jnp.concatenate(
            [fourier_features(per_token, 8, 4.0), fourier_features(jnp.sqrt(per_token), 4, 4.0)], -1
        )
        level = nn.Dense(self.width, name='level')(level)
        student = student_embedding(self.width, guidance_scale, step_size)
        duration = nn.Dense(self.width, name='seconds')(fourier_features(c.seconds, 6, 20.0))
        level = nn.silu(level + (student + duration)[:, None])
        level = nn.silu(nn.Dense(self.width, name='level_mix')(level))
        zeros = nn.initializers.zeros
        modulation = nn.Dense(8 * self.width, kernel_init=zeros, name='modulation')(level)

        mask = frame_mask(c.seconds, length)[:, ::PATCH]
        seconds = (jnp.arange(tokens) + 0.5) * (PATCH / LATENT_RATE)
        seconds = jnp.broadcast_to(seconds[None], (batch, tokens))
        if context is None:
            context = ConditionEncoder(self.width, self.heads, self.dtype, name=_CONTEXT)(c)
        for i in range(self.depth):
            block = Block(
                self.heads,
                self.expansion,
                self.dtype,
                self.dropout,
                self.attention,
                name=f'block_{i}',
            )
            x = block(x, modulation, context, seconds, mask)
        out_modulation = nn.Dense(2 * self.width, kernel_init=zeros, name='out_modulation')(level)
        scale, shift = jnp.split(out_modulation, 2, axis=-1)
        x = RMSNorm(name='out_norm')(x.astype(scale.dtype)) * (1 + scale) + shift
        x = nn.Dense(PATCH * self.channels, kernel_init=zeros, name='out')(x)
        return x.reshape(batch, length, self.channels)


def encode_context(model: Denoiser, params: PyTree, conditioning: Conditioning) -> Context:
    """Keys and values of a sound's text and events, the same at every step."""
    encoder = ConditionEncoder(model.width, model.heads, model.dtype)
    return encoder.apply({'params': params['params'][_CONTEXT]}, conditioning)


def as_denoiser(
    model: Denoiser,
    params: PyTree,
    conditioning: Conditioning,
    guidance_scale: Float[Array, 'B'] | None = None,
    step_size: Float[Array, 'B'] | None = None,
    context: Context | None = None,
) -> Denoise:
    """The network as `denoise(x_t, t) -> x_0`, with its parameters and conditioning.

    Args:
            model: the network.
            params: its parameters.
            conditioning: what to generate.
            guidance_scale: embedded scale of a student; None for a teacher.
            step_size: of a student, in [0, 1]; None for a teacher.
            context: of `encode_context`, where it is at hand.
    """
    batch = conditioning.seconds.shape
    guidance_scale = jnp.ones(batch) if guidance_scale is None else guidance_scale
    step_size = jnp.zeros(batch) if step_size is None else step_size
    if context is None:
        context = encode_context(model, params, conditioning)
    return x0_denoiser(
        PATH,
        lambda x_t, t: model.apply(
            params, x_t, t, conditioning, guidance_scale, step_size, context
        ),
        'v',
    )
