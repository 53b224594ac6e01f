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
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.metrics.embedders import frontends
from realaudio_jax.metrics.embedders.base import Embedder, embed_stream
from realaudio_jax.metrics.embedders.htsat import AudioConfig, Htsat
from realaudio_jax.metrics.embedders.weights import (
    Source,
    digest,
    find_weights,
    fit,
    parameter_shapes,
    read_arrays,
)
from realaudio_jax.models import roberta
from realaudio_jax.models.roberta import ClapText, Projection
from realaudio_jax.models.text_encoder import Tokenizer
from realaudio_jax.teachers.importing import original_name
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
    'sampling_rate': SAMPLE_RATE,
    'max_length_s': WINDOW_S,
    'fft_window_size': N_FFT,
    'hop_length': HOP,
    'feature_size': BANDS,
    'frequency_min': LOW_HZ,
    'frequency_max': HIGH_HZ,
    'truncation': 'rand_trunc',
    'padding': 'repeatpad',
}
BUFFERS = r'.*(position_ids|token_type_ids|relative_position_index|num_batches_tracked)'
# What the audio tower does not know is refused, not ignored.
FIXED = {
    'enable_fusion': False,
    'hidden_act': 'gelu',
    'patch_embed_input_channels': 1,
    'flatten_patch_embeds': True,
    'enable_patch_layer_norm': True,
    'num_mel_bins': BANDS,
}


class ClapNetwork(nn.Module):
    """Both towers; the defaults are clap-htsat-unfused."""

    audio_config: AudioConfig = AudioConfig()
    text_model: ClapText = ClapText()

    def setup(self):
        self.audio_model = Htsat(self.audio_config, name='audio_model.audio_encoder')
        self.audio_projection = Projection(self.text_model.dimension)
        # Of the contrastive loss: read, so that the file is read whole, but not used.
        self.logit_scale_a = self.param('logit_scale_a', nn.initializers.zeros, ())
        self.logit_scale_t = self.param('logit_scale_t', nn.initializers.zeros, ())

    def audio(self, log_mel: Float[Array, 'B N 64']) -> Float[Array, 'B E']:
        """Unit embeddings of audio windows."""
        return self.audio_projection(self.audio_model(log_mel))

    def text(self, ids: Int[Array, 'B T'], mask: Bool[Array, 'B T']) -> Float[Array, 'B E']:
        """Unit vectors of texts; padding stands at the end."""
        return self.text_model(ids, mask)

    def __call__(
        self, log_mel: Float[Array, 'B N 64'], ids: Int[Array, 'M T'], mask: Bool[Array, 'M T']
    ) -> tuple[Float[Array, 'B E'], Float[Array, 'M E']]:
        return self.audio(log_mel), self.text(ids, mask)


@dataclasses.dataclass(frozen=True)
class Clap:
    """A loaded LAION-CLAP checkpoint, which embeds sounds and texts.

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
    params = fit(
        read_arrays(path),
        network_shapes(network),
        f'{path} as CLAP',
        BUFFERS,
        _text_source,
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
        dimension=network.text_model.dimension,
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
    audio = config.get('audio_config', {})
    problems = [
        f'audio_config.{key} is {audio[key]!r}, not {wanted!r}'
        for key, wanted in FIXED.items()
        if audio.get(key, wanted) != wanted
    ]
    if problems:
        raise ValueError(
            f'{source} is a CLAP that is not supported: {"; ".join(problems)}; '
            'give an unfused one, such as laion/clap-htsat-unfused'
        )
    return ClapNetwork(_audio_config(audio), roberta.clap_text(config, source))


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


def _text_source(path: str) -> Source | None:
    """Where a parameter of the text tower stands in a ClapModel."""
    if not path.startswith('text_model/'):
        return None
    name = original_name(path.removeprefix('text_model/'), roberta.NAMES)
    return (name,), lambda x: x


def _audio_config(given):
    names = {field.name for field in dataclasses.fields(AudioConfig)}
    return AudioConfig(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k in names}
    )


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
