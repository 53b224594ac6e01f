"""The arrays of an ONNX file, read without the onnx package.

An ONNX file is a protocol buffer: fields of (number << 3 | kind), where kind 0 is a varint, 1 and 5
are 8 and 4 bytes, and 2 is a length and as many bytes. A model's field 7 is its graph, a graph's
field 5 an initializer: dims (1), type (2), floats (4), int32s (5), int64s (7), name (8) and raw
bytes (9) (onnx.proto3).
"""

import os
import pathlib
from collections.abc import Iterator

import numpy as np

TYPES = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64}


def read_initializers(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The graph's constant arrays by name.

    Raises:
        ValueError: not an ONNX file, or a truncated one.
    """
    data = pathlib.Path(path).read_bytes()
    try:
        graphs = [value for field, value in _fields(data) if field == 7]
        tensors = [_tensor(value) for field, value in _fields(graphs[0]) if field == 5]
    except (IndexError, KeyError, TypeError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f'{path} is no ONNX file, or a truncated one; get it again') from error
    return dict(tensors)


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """The number at a place, and the place after it."""
    value = shift = 0
    while True:
        byte = data[start]
        value |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            return value, start


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(data, place)
        else:
            size = {1: 8, 5: 4}.get(kind)
            if kind == 2:
                size, place = _varint(data, place)
            if size is None or place + size > len(data):
                raise ValueError(f'field of kind {kind} at {place}')
            value, place = data[place : place + size], place + size
        yield key >> 3, value


def _tensor(data: bytes) -> tuple[str, np.ndarray]:
    dims: list[int] = []
    numbers: list[int] = []
    kind, name, raw, floats = 0, '', None, b''
    for field, value in _fields(data):
        if field == 1:
            dims += _packed(value)
        elif field == 2:
            kind = value
        elif field == 4:
            floats += value
        elif field in (5, 7):
            numbers += _packed(value)
        elif field == 8:
            name = value.decode()
        elif field == 9:
            raw = value
    if raw is not None:
        array = np.frombuffer(raw, TYPES[kind])
    elif floats:
        array = np.frombuffer(floats, np.float32)
    else:
        array = np.array(numbers, np.int64).astype(TYPES[kind])
    return name, array.reshape(dims)


def _packed(value: int | bytes) -> list[int]:
    """One number, or several in a row; the upper half of 64 bits is negative."""
    numbers, place = ([value] if isinstance(value, int) else []), 0
    while not isinstance(value, int) and place < len(value):
        number, place = _varint(value, place)
        numbers.append(number)
    return [n - (1 << 64) if n >> 63 else n for n in numbers]
