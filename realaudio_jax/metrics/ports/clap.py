"""LAION-CLAP: sound and text in one space, from a checkpoint in the layout of transformers.

A port of the unfused network of Wu et al. 2023 (arXiv 2211.06687): HTSAT for sound, RoBERTa for
text, and a projection of two layers for each. The folder holds, as published under
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
from realaudio_jax.metrics.ports.htsat import AudioConfig, Htsat
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
