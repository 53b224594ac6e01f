"""LAION-CLAP: sound and text in one space, from a checkpoint in the layout of transformers.

A port of the unfused network of Wu et al. 2023 (arXiv 2211.06687): HTSAT (Chen et al. 2022,
2202.00874), a Swin transformer (Liu et al. 2021, 2103.14030) on log-mel frames folded into a
square; RoBERTa; and a projection of two layers for each. The folder holds, as published under
laion/clap-htsat-unfused or laion/larger_clap_*,

    config.json, model.safetensors, tokenizer.json     preprocessor_config.json is checked if there

and where only pytorch_model.bin is published, transformers at hand makes the file:

    transformers.ClapModel.from_pretrained('laion/...').save_pretrained(folder)

Against transformers.ClapModel with random weights: vectors of texts within 1e-5, of sounds within
3e-5, front end included; log-mel against its feature extractor within 1e-3 dB. Windows are 10 s;
a shorter clip is repeated as often as it fits, then padded with zeros, as the original does. Of a
longer clip the original takes 10 s at random; here every whole window counts.
"""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.metrics.embedders import Embedder, embed_stream
from realaudio_jax.metrics.ports import frontends
from realaudio_jax.metrics.ports.weights import (
    LEAVES,
    Source,
    digest,
    find_weights,
    fit,
    parameter_shapes,
    read_arrays,
)
from realaudio_jax.models.text_encoder import TextEncoder, Tokenizer
from realaudio_jax.typing import Array, Bool, Float, Int, PyTree

LICENCE = 'Apache-2.0'
SOURCE = 'huggingface.co/laion/clap-htsat-unfused or laion/larger_clap_*'
SAMPLE_RATE, WINDOW_S = 48_000, 10  # Hz, s
N_FFT, HOP, BANDS, LOW_HZ, HIGH_HZ = 1024, 480, 64, 50.0, 14_000.0
MAX_TOKENS = 77  # as the authors cut captions
BATCH = 32  # texts at once
DIMENSION = 512  # of the published checkpoints
EPSILON = 1e-5  # of the norms between the stages
WEIGHTS, CONFIG, TOKENIZER = 'model.safetensors', 'config.json', 'tokenizer.json'
FRONT_END = {
    'sampling_rate': SAMPLE_RATE, 'max_length_s': WINDOW_S, 'fft_window_size': N_FFT,
    'hop_length': HOP, 'feature_size': BANDS, 'frequency_min': LOW_HZ, 'frequency_max': HIGH_HZ,
    'truncation': 'rand_trunc', 'padding': 'repeatpad',
}  # fmt: skip
BUFFERS = r'.*(position_ids|token_type_ids|relative_position_index|num_batches_tracked)'
# What this port does not know is refused, not ignored.
FIXED = {
    'audio_config': {
        'enable_fusion': False, 'hidden_act': 'gelu', 'patch_embed_input_channels': 1,
        'flatten_patch_embeds': True, 'enable_patch_layer_norm': True, 'num_mel_bins': BANDS,
    },
    'text_config': {'hidden_act': 'gelu'},
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class AudioConfig:
    """HTSAT's sizes by their names in config.json; the defaults are clap-htsat-unfused."""

    window_size: int = 8
    spec_size: int = 256
    patch_size: int = 4
    patch_stride: tuple[int, int] = (4, 4)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_attention_heads: tuple[int, ...] = (4, 8, 16, 32)
    patch_embeds_hidden_size: int = 96
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    layer_norm_eps: float = 1e-5


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """RoBERTa's sizes by their names in config.json; the defaults are clap-htsat-unfused."""

    vocab_size: int = 50_265
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 514
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 1


class WindowAttention(nn.Module):
    """Attention within square windows, with a learned bias for each relative position."""

    heads: int
    window: int
    qkv_bias: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, 'B W T D'], mask: Float[np.ndarray, 'W T T']
    ) -> Float[Array, 'B W T D']:
        batch, windows, tokens, width = x.shape
        depth = width // self.heads

        def split(name):
            y = nn.Dense(width, use_bias=self.qkv_bias, name=f'self.{name}')(x)
            y = y.reshape(batch, windows, tokens, self.heads, depth).transpose(0, 1, 3, 2, 4)
            return y.reshape(-1, tokens, depth)

        q, k, v = split('query'), split('key'), split('value')
        table = self.param(
            'self.relative_position_bias_table',
            nn.initializers.zeros,
            ((2 * self.window - 1) ** 2, self.heads),
        )
        bias = table[_relative_positions(self.window)].transpose(2, 0, 1)
        scores = jnp.matmul(q, k.transpose(0, 2, 1)) / jnp.sqrt(depth).astype(x.dtype)
        scores = scores.reshape(batch, windows, self.heads, tokens, tokens) + bias[None, None]
        scores = scores + jnp.asarray(mask, x.dtype)[None, :, None]
        out = jnp.matmul(jax.nn.softmax(scores.reshape(-1, tokens, tokens), -1), v)
        out = out.reshape(batch, windows, self.heads, tokens, depth).transpose(0, 1, 3, 2, 4)
        return nn.Dense(width, name='output.dense')(out.reshape(x.shape))


class SwinBlock(nn.Module):
    """x + attention(norm x), then x + mlp(norm x), in windows shifted by `shift` patches."""

    heads: int
    window: int
    shift: int
    mlp_ratio: float
    qkv_bias: bool
    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, 'B H W D']) -> Float[Array, 'B H W D']:
        side, width, window = x.shape[1], x.shape[-1], self.window
        shift = self.shift if side > window else 0
        y = _norm('layernorm_before', self.epsilon)(x)
        y = _windows(jnp.roll(y, (-shift, -shift), (1, 2)), window)
        attention = WindowAttention(self.heads, window, self.qkv_bias, name='attention')
        y = _unwindow(attention(y, _shift_mask(side, window, shift)), side)
        x = x + jnp.roll(y, (shift, shift), (1, 2))
        y = _norm('layernorm_after', self.epsilon)(x)
        y = nn.Dense(int(self.mlp_ratio * width), name='intermediate.dense')(y)
        y = nn.Dense(width, name='output.dense')(jax.nn.gelu(y, approximate=False))
        return x + y


class Htsat(nn.Module):
    """Log-mel frames [B N 64] to one vector [B D] a window."""

    config: AudioConfig

    @nn.compact
    def __call__(self, log_mel: Float[Array, 'B N 64']) -> Float[Array, 'B D']:
        config = self.config
        x = _to_square(frontends.BatchNorm(name='batch_norm')(log_mel), config.spec_size)
        strides = config.patch_stride
        padding = [((config.patch_size - s) // 2,) * 2 for s in strides]
        width, size = config.patch_embeds_hidden_size, (config.patch_size,) * 2
        x = nn.Conv(width, size, strides, padding, name='patch_embed.proj')(x[..., None])
        x = _norm('patch_embed.norm')(x)
        for i, (depth, heads) in enumerate(
            zip(config.depths, config.num_attention_heads, strict=True)
        ):
            for j in range(depth):
                x = SwinBlock(
                    heads,
                    config.window_size,
                    config.window_size // 2 * (j % 2),
                    config.mlp_ratio,
                    config.qkv_bias,
                    config.layer_norm_eps,
                    name=f'layers.{i}.blocks.{j}',
                )(x)
            if i + 1 < len(config.depths):
                x = jnp.concatenate(
                    [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], -1
                )
                x = _norm(f'layers.{i}.downsample.norm')(x)
                width *= 2
                reduce = nn.Dense(width, use_bias=False, name=f'layers.{i}.downsample.reduction')
                x = reduce(x)
        return _norm('norm')(x).mean((1, 2))


class Projection(nn.Module):
    """W_2 relu(W_1 x) at unit length."""

    dimension: int

    @nn.compact
    def __call__(self, x: Float[Array, 'B D']) -> Float[Array, 'B E']:
        x = nn.relu(nn.Dense(self.dimension, name='linear1')(x))
        x = nn.Dense(self.dimension, name='linear2')(x)
        return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


class ClapNetwork(nn.Module):
    """Both towers; the defaults are clap-htsat-unfused."""

    audio_config: AudioConfig = AudioConfig()
    text_config: TextConfig = TextConfig()
    projection_dim: int = DIMENSION

    def setup(self):
        text = self.text_config
        self.audio_model = Htsat(self.audio_config, name='audio_model.audio_encoder')
        self.text_model = TextEncoder(
            vocabulary=text.vocab_size,
            positions=text.max_position_embeddings - text.pad_token_id - 1,
            width=text.hidden_size,
            heads=text.num_attention_heads,
            hidden=text.intermediate_size,
            layers=text.num_hidden_layers,
            epsilon=text.layer_norm_eps,
        )
        self.pooler = nn.Dense(text.hidden_size, name='text_model.pooler.dense')
        self.audio_projection = Projection(self.projection_dim)
        self.text_projection = Projection(self.projection_dim)
        # Of the contrastive loss: read, so that the file is read whole, but not used.
        self.logit_scale_a = self.param('logit_scale_a', nn.initializers.zeros, ())
        self.logit_scale_t = self.param('logit_scale_t', nn.initializers.zeros, ())

    def audio(self, log_mel: Float[Array, 'B N 64']) -> Float[Array, 'B E']:
        """Unit vectors of windows."""
        return self.audio_projection(self.audio_model(log_mel))

    def text(self, ids: Int[Array, 'B T'], mask: Bool[Array, 'B T']) -> Float[Array, 'B E']:
        """Unit vectors of texts; padding stands at the end."""
        first = self.text_model(ids, mask)[:, 0]
        return self.text_projection(jnp.tanh(self.pooler(first)))

    def __call__(
        self, log_mel: Float[Array, 'B N 64'], ids: Int[Array, 'M T'], mask: Bool[Array, 'M T']
    ) -> tuple[Float[Array, 'B E'], Float[Array, 'M E']]:
        return self.audio(log_mel), self.text(ids, mask)


@dataclasses.dataclass(frozen=True)
class Clap:
    """A loaded checkpoint.

    Attributes:
        name: the checkpoint, with the start of its file's hash; what a table prints.
        embedder: windows of 10 s to unit vectors, for distances and scores.
        embed_text: texts to unit vectors [N E].
    """

    name: str
    embedder: Embedder
    embed_text: Callable[[Sequence[str]], Float[np.ndarray, 'N E']]

    def embed_audio(
        self, clips: Iterable[np.ndarray | str | os.PathLike], sample_rate: int | None = None
    ) -> Float[np.ndarray, 'N E']:
        """A unit vector for each clip: the mean over its windows, scaled to length 1.

        Args:
            clips: arrays [S] or [S A] in [-1, 1], or paths of sound files.
            sample_rate: rate of the arrays, Hz; None means 48 kHz.

        Raises:
            ValueError: a clip is empty or not finite; it is named.
        """
        stream = embed_stream(self.embedder, clips, sample_rate, frontends.MICRO_BATCH)
        means = [vectors.mean(0) for vectors in stream]
        return np.stack([mean / max(np.linalg.norm(mean), 1e-12) for mean in means])

    def scores(
        self,
        clips: Sequence[np.ndarray | str | os.PathLike],
        texts: Sequence[str],
        sample_rate: int | None = None,
    ) -> Float[np.ndarray, 'N']:
        """The CLAP score of each clip: the cosine, -1 to 1, of its vector and its own text's.

        Raises:
            ValueError: not as many texts as clips.
        """
        if len(clips) != len(texts):
            raise ValueError(f'{len(texts)} texts for {len(clips)} clips; give one for each')
        return np.sum(self.embed_audio(clips, sample_rate) * self.embed_text(texts), -1)


def load_clap(weights_dir: str | os.PathLike) -> Clap:
    """Reads a checkpoint folder.

    Raises:
        FileNotFoundError: a file is missing; it is named.
        ValueError: another network, half a download, or a variant that this port does not know.
    """
    folder = pathlib.Path(weights_dir)
    config = _read_json(find_weights(folder, (CONFIG,), 'CLAP'))
    path = find_weights(folder, (WEIGHTS,), 'CLAP')
    network = network_of(config, folder)
    _check_front_end(folder)
    pad = network.text_config.pad_token_id
    params = fit(
        read_arrays(path),
        network_shapes(network),
        f'{path} as CLAP',
        BUFFERS,
        functools.partial(_text_source, pad=pad),
    )
    name = f'CLAP {config.get("_name_or_path") or folder.resolve().name} ({digest(path)})'
    tokenizer = Tokenizer(folder / TOKENIZER, special=('<pad>', '<s>', '</s>'))
    size = WINDOW_S * SAMPLE_RATE
    embed = frontends.embed_windows(
        lambda params, audio: network.apply({'params': params}, log_mel(audio), method='audio'),
        size,
        size,
    )
    encode = jax.jit(
        lambda params, ids, mask: network.apply({'params': params}, ids, mask, method='text')
    )

    def embed_text(texts):
        ids, mask = tokenizer.encode(texts, MAX_TOKENS)
        out = []
        for i in range(0, len(ids), BATCH):
            rows = np.minimum(np.arange(i, i + BATCH), len(ids) - 1)  # one compiled shape
            out.append(np.asarray(encode(params, ids[rows], mask[rows]))[: len(ids) - i])
        return np.concatenate(out)

    embedder = Embedder(
        name=name,
        sample_rate=SAMPLE_RATE,
        dimension=network.projection_dim,
        window_s=float(WINDOW_S),
        licence=LICENCE,
        source=SOURCE,
        embed=lambda audio: embed(params, jnp.asarray(audio)),
        repeat_short=True,
    )
    return Clap(name, embedder, embed_text)


def network_of(config: dict, source: str | os.PathLike = CONFIG) -> ClapNetwork:
    """The network that a config.json describes; what the file leaves out has its default.

    Raises:
        ValueError: not a CLAP, or a variant that this port does not know.
    """
    if config.get('model_type') != 'clap':
        raise ValueError(f'{source} describes a {config.get("model_type")!r}, not a CLAP')
    problems = [
        f'{part}.{key} is {config[part][key]!r}, not {wanted!r}'
        for part, fixed in FIXED.items()
        for key, wanted in fixed.items()
        if config.get(part, {}).get(key, wanted) != wanted
    ]
    if config.get('projection_hidden_act', 'relu') != 'relu':
        problems.append(f'projection_hidden_act is {config["projection_hidden_act"]!r}')
    if problems:
        raise ValueError(
            f'{source} is a CLAP that is not supported: {"; ".join(problems)}; '
            'give an unfused one, such as laion/clap-htsat-unfused'
        )
    return ClapNetwork(
        _sizes(AudioConfig, config.get('audio_config', {})),
        _sizes(TextConfig, config.get('text_config', {})),
        config.get('projection_dim', DIMENSION),
    )


def network_shapes(network: ClapNetwork) -> PyTree:
    """Parameter shapes, for strict loading."""
    tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    mask = jax.ShapeDtypeStruct((1, 2), jnp.bool_)
    return parameter_shapes(network, (1, 1 + WINDOW_S * SAMPLE_RATE // HOP, BANDS), tokens, mask)


def log_mel(audio: Float[Array, 'B S']) -> Float[Array, 'B N 64']:
    """Mel bands of the power spectrum in dB, not below -100; N = 1 + S // 480."""
    power = frontends.power_spectrum(audio, N_FFT, HOP, frontends.periodic_hann(N_FFT))
    basis = frontends.area_mel(SAMPLE_RATE, N_FFT, BANDS, LOW_HZ, HIGH_HZ)
    return frontends.decibels(power @ basis)


def _norm(name, epsilon=EPSILON):
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, name=name)


def _to_square(x, side):
    """[B N F] to [B side side]: stretched to side^2 / F frames, whose quarters are stacked."""
    ratio = side // x.shape[-1]
    frames = side * ratio
    if x.shape[1] > frames:
        raise ValueError(f'{x.shape[1]} frames do not fit a square of {side}: {frames} at most')
    if x.shape[1] < frames:
        x = jnp.einsum('nm,bmf->bnf', jnp.asarray(_bicubic(x.shape[1], frames), x.dtype), x)
    x = x.reshape(x.shape[0], ratio, side, -1)
    return x.transpose(0, 1, 3, 2).reshape(x.shape[0], side, side)


@functools.cache
def _bicubic(source: int, target: int) -> np.ndarray:
    """Cubic convolution (a = -3/4) from `source` points to `target`, ends on ends; [target source].

    Keys 1981, eq. 15; beyond an end the end's value stands.
    """
    place = np.arange(target) * (source - 1) / (target - 1)
    base, a = np.floor(place).astype(int), -0.75
    matrix = np.zeros((target, source))
    for tap in (-1, 0, 1, 2):
        d = np.abs(place - (base + tap))
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        weight = np.where(d <= 1, near, np.where(d < 2, far, 0))
        np.add.at(matrix, (np.arange(target), np.clip(base + tap, 0, source - 1)), weight)
    return matrix


@functools.cache
def _relative_positions(window: int) -> np.ndarray:
    """Row of the bias table for each pair of places in a window; [window^2 window^2]."""
    place = np.stack(np.divmod(np.arange(window * window), window))
    rows, columns = place[:, :, None] - place[:, None, :] + window - 1
    return rows * (2 * window - 1) + columns


@functools.cache
def _shift_mask(side: int, window: int, shift: int) -> np.ndarray:
    """-100 where a shifted window holds patches that are no neighbours; [windows T T]."""
    edge = np.arange(side)
    region = (edge >= side - window).astype(int) + (edge >= side - shift)
    grid = (3 * region[:, None] + region[None, :] if shift else np.zeros((side, side)))[None]
    tokens = np.asarray(_windows(grid[..., None], window))[0, :, :, 0]
    return np.where(tokens[:, None, :] == tokens[:, :, None], 0.0, -100.0)


def _windows(x, window):
    """[B H W D] to [B windows tokens D]."""
    batch, height, width, depth = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, depth)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, window * window, depth)


def _unwindow(x, side):
    """The inverse of `_windows` for a square."""
    batch, _, tokens, depth = x.shape
    window = round(tokens**0.5)
    x = x.reshape(batch, side // window, side // window, window, window, depth)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, side, side, depth)


TEXT_NAMES = {
    'token': 'embeddings.word_embeddings',
    'embedding_norm': 'embeddings.LayerNorm',
    'attention/out': 'attention.output.dense',
    'attention_norm': 'attention.output.LayerNorm',
    'expand': 'intermediate.dense',
    'contract': 'output.dense',
    'output_norm': 'output.LayerNorm',
}


def _text_source(path: str, pad: int) -> Source | None:
    """Where the parameters of our text encoder stand in a RoBERTa.

    Its positions are counted from the padding token's id plus one; its only segment is added to
    them; q, k and v are one matrix.
    """
    if not path.startswith('text_model/'):
        return None
    owner, leaf = path.removeprefix('text_model/').rsplit('/', 1)
    prefix = 'text_model.'
    if owner.startswith('layer_'):
        layer, owner = owner.split('/', 1)
        prefix += f'encoder.layer.{layer.removeprefix("layer_")}.'
    kind = LEAVES.get(leaf, leaf)
    if owner == 'position':
        names = [f'{prefix}embeddings.{n}_embeddings.weight' for n in ('position', 'token_type')]
        return tuple(names), lambda position, segment: position[pad + 1 :] + segment[:1]
    if owner == 'attention/qkv':
        names = [f'{prefix}attention.self.{n}.{kind}' for n in ('query', 'key', 'value')]
        return tuple(names), lambda *parts: np.concatenate(parts, -1)
    return (f'{prefix}{TEXT_NAMES[owner]}.{kind}',), lambda x: x


def _sizes(kind, given):
    names = {field.name for field in dataclasses.fields(kind)}
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k in names}
    return kind(**values)


def _read_json(path):
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is damaged ({error}); get it again') from error
    if not isinstance(found, dict):
        raise ValueError(f'{path} is damaged (no JSON object); get it again')
    return found


def _check_front_end(folder):
    path = folder / 'preprocessor_config.json'
    given = _read_json(path) if path.is_file() else {}
    wrong = [
        f'{key} is {given[key]!r}, not {wanted!r}'
        for key, wanted in FRONT_END.items()
        if given.get(key, wanted) != wanted
    ]
    if wrong:
        raise ValueError(f'{path} asks for another front end: {"; ".join(wrong)}')
