"""Audio tower: embeds log-mel windows for distances and whole sounds beside sentence embeddings.

The second half of a contrastive pair (Radford et al. 2021, arXiv 2103.00020; for sound, Wu et al.
2023, 2211.06687). The text half is the frozen sentence encoder of a release, so that the tower
alone is trained. Every window is seen by itself: the vectors of a window do not depend on the sound
around it, as a Frechet distance over windows wants it.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from realaudio_jax.mel import log_mel
from realaudio_jax.models.layers import ConvBlock, RMSNorm
from realaudio_jax.typing import TEXT_WIDTH, Array, Bool, Float

TOWER_RATE = 16_000  # Hz
N_FFT, HOP, BANDS = 640, 160, 64  # 40 ms, 10 ms, mel bands
FLOOR = 1e-5  # of a mel band's magnitude
WINDOW_FRAMES, WINDOW_HOP = 100, 50  # STFT frames: 1 s, 0.5 s
WINDOW_WIDTH = 256  # of a window's vector
MAX_LOG_SCALE = 4.6  # ln 100, as in 2103.00020, sec. 2.5


def tower_log_mel(audio: Float[Array, '*b S']) -> Float[Array, '*b N 64']:
    """ln(max(mel |X|, 1e-5)) of mono sound at 16 kHz, 100 frames a second.

    Args:
        audio: in [-1, 1]; S is cut to whole frames of 160 samples.
    """
    whole = audio.shape[-1] // HOP * HOP
    return log_mel(audio[..., :whole], TOWER_RATE, N_FFT, HOP, BANDS, FLOOR)


def cut_windows(
    log_mel: Float[Array, '*b N 64'], hop: int = WINDOW_HOP
) -> Float[Array, '*b W 100 64']:
    """Windows of 100 frames, `hop` frames apart; W = 1 + (N - 100) // hop.

    Raises:
        ValueError: fewer frames than one window.
    """
    frames = log_mel.shape[-2]
    if frames < WINDOW_FRAMES:
        raise ValueError(
            f'{frames} frames are less than a window of {WINDOW_FRAMES}; pad the sound'
        )
    starts = range(0, frames - WINDOW_FRAMES + 1, hop)
    return jnp.stack([log_mel[..., i : i + WINDOW_FRAMES, :] for i in starts], axis=-3)


class AudioTower(nn.Module):
    """Convolutional encoder of log-mel windows; one vector for each window of one second.

    Attributes:
        width, blocks: of the first stage, at 10 tokens a second.
        deep_width, deep_blocks: of the second, at 5.
        head_width: of the layer between the pooled windows and the text space.
        patch: STFT frames in a token; 100 / patch must be even.
    """

    width: int = 192
    blocks: int = 2
    deep_width: int = 288
    deep_blocks: int = 3
    head_width: int = 512
    patch: int = 10

    def setup(self):
        """Makes the layers."""
        self.embed = nn.Dense(self.width)
        self.shallow = [ConvBlock(taps=5) for _ in range(self.blocks)]
        self.merge = nn.Dense(self.deep_width)
        self.deep = [ConvBlock(taps=5) for _ in range(self.deep_blocks)]
        self.norm = RMSNorm()
        self.window = nn.Dense(WINDOW_WIDTH)
        self.weigh = nn.Dense(WINDOW_WIDTH)
        self.head_up = nn.Dense(self.head_width)
        self.head_down = nn.Dense(TEXT_WIDTH)
        # Of the contrastive loss; no part of the embedding.
        self.log_scale = self.param('log_scale', nn.initializers.constant(2.66), ())

    def windows(self, x: Float[Array, 'B W 100 64']) -> Float[Array, 'B W 256']:
        """One vector for each window of log-mel frames."""
        batch, count = x.shape[:2]
        tokens = WINDOW_FRAMES // self.patch
        x = (x + 6.0) / 3.0  # about zero mean and unit spread
        x = self.embed(x.reshape(batch * count, tokens, self.patch * BANDS))
        for block in self.shallow:
            x = block(x)
        x = self.merge(x.reshape(batch * count, tokens // 2, 2 * self.width))
        for block in self.deep:
            x = block(x)
        x = self.window(self.norm(x).mean(axis=1))
        return x.reshape(batch, count, WINDOW_WIDTH)

    def pool(
        self, windows: Float[Array, 'B W 256'], mask: Bool[Array, 'B W']
    ) -> Float[Array, 'B 384']:
        """Pools the windows of a sound into one unit vector in the space of sentence embeddings.

        Each channel is a mean over windows with its own weights, softmax over the real windows.
        """
        logits = jnp.where(mask[..., None], self.weigh(windows), -1e9)
        x = jnp.sum(jax.nn.softmax(logits, axis=1) * windows, axis=1)
        x = self.head_down(nn.gelu(self.head_up(x)))
        return x / jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)

    def __call__(self, x: Float[Array, 'B W 100 64']) -> tuple[Array, Array]:
        """Sounds as log-mel windows to (unit vectors [B 384], logarithm of the loss's scale)."""
        mask = jnp.ones(x.shape[:2], bool)
        return self.pool(self.windows(x), mask), self.log_scale


def contrastive_loss(
    audio: Float[Array, 'B D'], text: Float[Array, 'B D'], log_scale: Float[Array, '']
) -> Float[Array, '']:
    """Symmetric InfoNCE of pairs of unit vectors (2103.00020, fig. 3).

    -mean_i [ln softmax_j(s a_i.t_j) + ln softmax_j(s t_i.a_j)]_(j=i) / 2, with s = exp(log_scale)
    of at most 100.
    """
    logits = jnp.exp(jnp.minimum(log_scale, MAX_LOG_SCALE)) * (audio @ text.T)
    rows = jnp.diagonal(jax.nn.log_softmax(logits, axis=1))
    columns = jnp.diagonal(jax.nn.log_softmax(logits, axis=0))
    return -jnp.mean(rows + columns) / 2


def recall_at_1(audio: Float[Array, 'B D'], text: Float[Array, 'B D']) -> Float[Array, '']:
    """Share of sounds whose own text is the nearest of the B texts; chance is 1 / B."""
    return jnp.mean(jnp.argmax(audio @ text.T, axis=1) == jnp.arange(len(audio)))
