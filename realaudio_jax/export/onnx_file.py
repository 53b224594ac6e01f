"""Writes ONNX files without the onnx package.

An ONNX file is a protocol buffer of the messages of onnx.proto3; the numbers below are those of its
fields.
"""

import dataclasses
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

IR_VERSION, OPSET = 8, 17  # of onnxruntime 1.12 and newer
# TensorProto.DataType
DTYPES = {
    np.dtype(name): number
    for name, number in (
        *(('float32', 1), ('uint8', 2), ('int8', 3), ('uint16', 4), ('int16', 5), ('int32', 6)),
        *(('int64', 7), ('bool', 9), ('float16', 10), ('float64', 11), ('uint32', 12)),
    )
}
_FLOAT, _INT, _STRING, _GRAPH, _INTS = 1, 2, 3, 5, 7  # AttributeProto.AttributeType


@dataclasses.dataclass(frozen=True)
class Variable:
    """A named array of a graph, by its shape and dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


@dataclasses.dataclass
class Graph:
    """A graph under construction.

    Attributes:
        name: of the graph.
        inputs, outputs: its arguments and results.
        nodes: encoded, in an order in which they can run.
        initializers: constant arrays by name.
    """

    name: str
    inputs: list[Variable] = dataclasses.field(default_factory=list)
    outputs: list[Variable] = dataclasses.field(default_factory=list)
    nodes: list[bytes] = dataclasses.field(default_factory=list)
    initializers: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def encode(self) -> bytes:
        """GraphProto."""
        parts = [_message(1, node) for node in self.nodes]
        parts.append(_message(2, self.name.encode()))
        parts += [_message(5, _tensor(name, a)) for name, a in self.initializers.items()]
        parts += [_message(11, _value_info(v)) for v in self.inputs]
        parts += [_message(12, _value_info(v)) for v in self.outputs]
        return b''.join(parts)


def node(
    kind: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Mapping[str, Any]
) -> bytes:
    """NodeProto of one operator."""
    parts = [_message(1, name.encode()) for name in inputs]
    parts += [_message(2, name.encode()) for name in outputs]
    parts += [_message(3, outputs[0].encode()), _message(4, kind.encode())]
    parts += [_message(5, _attribute(name, value)) for name, value in attributes.items()]
    return b''.join(parts)


def model(graph: Graph, producer: str, version: str, notes: Mapping[str, str]) -> bytes:
    """ModelProto: a whole file.

    Args:
        graph: all of it.
        producer, version: who wrote it.
        notes: strings that a runtime shows as the model's metadata.
    """
    parts = [_number(1, IR_VERSION), _message(2, producer.encode()), _message(3, version.encode())]
    parts.append(_message(7, graph.encode()))
    parts.append(_message(8, _message(1, b'') + _number(2, OPSET)))
    for key, value in notes.items():
        parts.append(_message(14, _message(1, key.encode()) + _message(2, value.encode())))
    return b''.join(parts)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # two's complement of negative numbers
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _tensor(name: str, array: np.ndarray) -> bytes:
    """TensorProto, its values as raw bytes."""
    dims = b''.join(_number(1, size) for size in array.shape)
    kind = _number(2, DTYPES[array.dtype])
    raw = np.ascontiguousarray(array).astype(array.dtype.newbyteorder('<')).tobytes()
    return dims + kind + _message(8, name.encode()) + _message(9, raw)


def _value_info(variable: Variable) -> bytes:
    dims = b''.join(_message(1, _number(1, size)) for size in variable.shape)
    tensor = _number(1, DTYPES[np.dtype(variable.dtype)]) + _message(2, dims)
    return _message(1, variable.name.encode()) + _message(2, _message(1, tensor))


def _attribute(name: str, value: Any) -> bytes:
    head = _message(1, name.encode())
    if isinstance(value, float):
        return head + _varint(2 << 3 | 5) + struct.pack('<f', value) + _number(20, _FLOAT)
    if isinstance(value, (int, np.integer)):
        return head + _number(3, int(value)) + _number(20, _INT)
    if isinstance(value, str):
        return head + _message(4, value.encode()) + _number(20, _STRING)
    if isinstance(value, Graph):
        return head + _message(6, value.encode()) + _number(20, _GRAPH)
    return head + b''.join(_number(8, int(x)) for x in value) + _number(20, _INTS)
