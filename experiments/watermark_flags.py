"""Flags of the experiments that make sounds: the watermark and the precision."""

from collections.abc import Callable

from absl import flags

from realaudio_jax.quantisation import PRECISIONS
from realaudio_jax.watermark import Watermark, read_key


def define_watermark(
    values: flags.FlagValues = flags.FLAGS,
) -> Callable[[], Watermark | None]:
    """The flags --watermark_key and --watermark_payload, of the experiments that make sounds.

    Returns:
        A function that gives the watermark; it raises ValueError where the key is none, or a
        payload comes without a mark, and OSError where its file cannot be read.
    """
    key = flags.DEFINE_string(
        'watermark_key',
        'public',
        "Key of the watermark: 'public', 32 or more hexadecimal digits, a file with a key, or off.",
        flag_values=values,
    )
    payload = flags.DEFINE_integer(
        'watermark_payload',
        0,
        '32 bits that the mark carries; in sounds of up to 2 s the low 16.',
        0,
        2**32 - 1,
        flag_values=values,
    )

    def mark() -> Watermark | None:
        if key.value != 'off':
            return Watermark(read_key(key.value), payload.value)
        if payload.value:
            raise ValueError(
                f'--watermark_payload={payload.value}: without a mark there is none; leave it out, '
                'or --watermark_key=off'
            )
        return None

    return mark


def define_precision(values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder:
    """The flag --precision, of the experiments that make sounds."""
    return flags.DEFINE_enum(
        'precision',
        'float32',
        PRECISIONS,
        'Of the products with weights, see docs/precision.md.',
        flag_values=values,
    )
