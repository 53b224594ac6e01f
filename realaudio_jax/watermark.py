"""The watermark of generated sound: its texture is drawn with a key.

The decoder draws what its latents leave out from standard normal noise n (`models.autoencoder`,
eq. 2). A key makes that draw: it gives a tape of TAPE_FRAMES latent frames, of which each sound
takes the stretch that its seed chooses,

    n[f, j] = c[f, j] x[(start(seed) + f) mod TAPE_FRAMES, j],       x ~ N(0, 1) from the key,   (1)

so to whoever lacks the key it is noise as any other, and an average over sounds shows nothing of
it. Three columns of eight are pilots, c = 1; the others carry the payload. Each half of its 32 bits
has every other one of them and is a codeword of the biorthogonal code of 2^15 chips, the
Reed-Muller code RM(1, 15): 15 bits choose a row of the Hadamard matrix H, one its sign. Programs
for less than 3 s, so sounds of up to 2 s, say the low half alone, in all of these columns. Which
chip c takes is drawn with the key, another one for short sounds,

    c[f, j] = +-H[row of the half, chip[f, j]].                                                  (2)

The texture is gone once a sound has passed through a decoder with another draw. So a weaker mark
is put on the latents themselves, further columns of the same tape times STRENGTH. That costs one
addition, and the texture costs less than the noise that it replaces: the tape is an argument of the
compiled program. `watermark_detection` finds the mark.
"""

import dataclasses
import hashlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from realaudio_jax.io import printable
from realaudio_jax.random import random_key
from realaudio_jax.timeline import shown
from realaudio_jax.typing import Array, Float, Int

PUBLIC_KEY = b'made by realaudio_jax'
TAPE_FRAMES = 1024  # 41 s, then the tape comes round
STRENGTH = 0.1  # of the mark on the latents, whose variance is about one
PAYLOAD_BITS = 32
HALVES = 2  # of a payload, each a codeword
SHORT_FRAMES = 75  # 3 s: a program for less says the low half of the payload alone
CHIPS = 2 ** (PAYLOAD_BITS // HALVES - 1)
KEY_BYTES = (16, 1024)  # of a private key
_START_SEED = 24


@dataclasses.dataclass(frozen=True)
class Watermark:
    """What a sound is marked with.

    Attributes:
        key: 16 to 1,024 bytes; whoever has them can find the mark, and make it.
        payload: 32 bits that the mark carries, 0 to 2^32 - 1; of sounds of up to 2 s the low 16.

    Raises:
        ValueError: a key or a payload of another size.
    """

    key: bytes = PUBLIC_KEY
    payload: int | np.integer = 0

    def __post_init__(self):
        low, high = KEY_BYTES
        if not isinstance(self.key, bytes) or not low <= len(self.key) <= high:
            size = f'{len(self.key)} bytes' if isinstance(self.key, bytes) else type(self.key)
            raise ValueError(f'the watermark key is {size}; give {low} to {high:,} bytes')
        is_whole = isinstance(self.payload, (int, np.integer)) and not isinstance(
            self.payload, bool
        )
        if not is_whole or not 0 <= self.payload < 2**PAYLOAD_BITS:
            raise ValueError(
                f'the payload is {shown(self.payload)}; give a whole number below 2^32'
            )
        object.__setattr__(self, 'payload', int(self.payload))

    def __str__(self) -> str:
        """Which key, without saying it."""
        if self.key == PUBLIC_KEY:
            return 'public key'
        return f'private key {_stream(self.key, "name", 4).hex()}'

    def __repr__(self) -> str:  # keys do not belong in logs
        return f'Watermark({self}, payload {self.payload})'


def read_key(text: str) -> bytes:
    """The key that a user names: 'public', hexadecimal digits, or a file.

    Args:
        text: 'public'; 32 or more hexadecimal digits; or the name of a file that holds such digits,
            white space around them, or 16 to 1,024 bytes that are no text.

    Raises:
        ValueError: none of these. OSError: the file cannot be read.
    """
    if text == 'public':
        return PUBLIC_KEY
    path = pathlib.Path(text)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # too long for a name, or no name at all
        is_file = False
    data = _digits(text)
    if is_file:
        with open(path, 'rb') as file:
            content = file.read(4 * KEY_BYTES[1] + 1)  # digits, and white space as long
        try:
            held = ' '.join(content.decode('utf-8-sig').split())
        except UnicodeDecodeError:
            held = None
        if len(content) > 4 * KEY_BYTES[1]:
            raise ValueError(
                f'the watermark key in {printable(path)} is too long; give {KEY_BYTES[0]} to '
                f'{KEY_BYTES[1]:,} bytes, or two hexadecimal digits for each'
            )
        if held is not None and held.isprintable():
            data = _digits(held)
            if data is None:
                raise ValueError(
                    f'the watermark key in {printable(path)} is text but no hexadecimal digits, '
                    'two for each byte; make one with: openssl rand -hex 32 > key.txt'
                )
        else:
            data = content
    if data is None:
        raise ValueError(
            f'the watermark key {text[:40]!r} is neither a file nor hexadecimal digits; make one '
            'with: openssl rand -hex 32 > key.txt'
        )
    return Watermark(data).key


def _digits(text: str) -> bytes | None:
    """Bytes of hexadecimal digits, or None for any other text."""
    try:
        return bytes.fromhex(text) if text else None
    except ValueError:
        return None


def _stream(key: bytes, label: str, count: int) -> bytes:
    """Bytes that are told from noise with the key alone; another label, other bytes."""
    prefix = b'realaudio_jax watermark 1' + len(key).to_bytes(2, 'big') + key
    return hashlib.shake_256(prefix + label.encode()).digest(count)


def carrier(key: bytes, name: str, columns: int) -> Float[np.ndarray, 'P R']:
    """x of eq. 1: standard normal numbers of a key.

    Args:
        key: its bytes.
        name: 'texture' or 'latents'.
        columns: R, of a latent frame.
    """
    words = np.frombuffer(_stream(key, name, 4 * TAPE_FRAMES * columns), '<u4')
    return ndtri((words + 0.5) / 2**32).astype(np.float32).reshape(TAPE_FRAMES, columns)


def chips(key: bytes, name: str, columns: int, halves: int = HALVES) -> Int[np.ndarray, 'P R']:
    """Which chip of its codeword each number carries, below CHIPS; see `signed_carrier`."""
    label = f'chips of {name}' if halves == HALVES else f'chips of short {name}'
    data = _stream(key, label, 2 * TAPE_FRAMES * columns)
    return np.frombuffer(data, '<u2').reshape(TAPE_FRAMES, columns).astype(np.int64) % CHIPS


def roles(columns: int, halves: int = HALVES) -> Int[np.ndarray, 'R']:
    """Which of the halves of the payload each column carries; -1 for the pilots."""
    j = np.arange(columns)
    pilot = j % 8 % 3 == 0
    return np.where(pilot, -1, np.cumsum(~pilot) % halves)


def signed_carrier(
    mark: Watermark, name: str, columns: int, halves: int = HALVES
) -> Float[np.ndarray, 'P R']:
    """c x of eq. 1, with the payload.

    Args:
        mark: key and payload.
        name, columns: see `carrier`.
        halves: of the payload that are said; 1 is the low one.
    """
    of_chips, role = chips(mark.key, name, columns, halves), roles(columns, halves)
    negative = np.zeros(of_chips.shape, bool)
    for half in range(halves):
        sign, row = divmod(mark.payload >> (16 * half) & 0xFFFF, CHIPS)
        odd = np.bitwise_count(of_chips & row) % 2 == 1  # where the row of H is negative
        negative |= (role == half) & (odd != bool(sign))
    values = carrier(mark.key, name, columns)
    return np.where(negative, -values, values)


def tape(
    mark: Watermark, directions: int, channels: int, halves: int = HALVES
) -> dict[str, np.ndarray]:
    """The tape of a key: noise for textures and the mark on latents, arguments of the program.

    Args:
        mark: key and payload.
        directions: that the decoder draws.
        channels: of the latents.
        halves: of the payload that are said.

    Returns:
        'texture' [TAPE_FRAMES, R] and 'latents' [TAPE_FRAMES, C], float32.
    """
    return {
        'texture': signed_carrier(mark, 'texture', directions, halves),
        'latents': np.float32(STRENGTH) * signed_carrier(mark, 'latents', channels, halves),
    }


def said_halves(frames: int) -> int:
    """How many halves of the payload a program of so many latent frames says."""
    return 1 if frames < SHORT_FRAMES else HALVES


def starts(seed: Int[Array, 'B']) -> Int[Array, 'B']:
    """The frame of the tape at which the sound of a seed starts."""
    key = random_key(_START_SEED)

    def one(item_seed):
        return jax.random.bits(jax.random.fold_in(key, item_seed), (), 'uint32') % TAPE_FRAMES

    return jax.vmap(one)(seed).astype(jnp.int32)


def stretch(
    part: Float[Array, 'P R'], first: Int[Array, 'B'], frames: int | Int[Array, 'L']
) -> Array:
    """The frames of a tape that sounds take; [B, L, R].

    Args:
        part: of a tape.
        first: frame that the first frame of each sound takes, see `starts`.
        frames: which latent frames, or how many from the first one on.
    """
    index = jnp.arange(frames) if isinstance(frames, int) else frames
    return part[(first[:, None] + index[None]) % TAPE_FRAMES]
