"""A JAX function as an ONNX model, one operator after another of its jaxpr.

What depends on constants alone is computed here (weights are folded, fixed noise is drawn); calls
are written out in place; a Fourier transform becomes matrix products (`fourier`), and complex
numbers pairs of real ones. An array that was broadcast keeps axes of size 1 until an operator needs
them whole, for ONNX broadcasts by itself.

Every operator is one that onnxruntime has on CPU, in WebAssembly and on phones, from opset 17.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from realaudio_jax import __version__
from realaudio_jax.export import fourier, onnx_file
from realaudio_jax.export.onnx_file import Graph, Variable

_FOLDED = 1 << 22  # most elements of an array that is computed here
_SMALL = 1 << 10  # elements from which a constant is stored in fewer bytes, if it can be exactly
_BLOCK = 64  # inputs that share a scale of int8 in a release's files

UNARY = {
    'neg': 'Neg', 'sqrt': 'Sqrt', 'exp': 'Exp', 'log': 'Log', 'tanh': 'Tanh', 'sin': 'Sin',
    'cos': 'Cos', 'erf': 'Erf', 'abs': 'Abs', 'sign': 'Sign', 'floor': 'Floor', 'ceil': 'Ceil',
    'round': 'Round', 'logistic': 'Sigmoid', 'not': 'Not',
}  # fmt: skip
BINARY = {
    'add': 'Add', 'sub': 'Sub', 'mul': 'Mul', 'div': 'Div', 'max': 'Max', 'min': 'Min',
    'pow': 'Pow', 'and': 'And', 'or': 'Or', 'xor': 'Xor', 'eq': 'Equal', 'lt': 'Less',
    'le': 'LessOrEqual', 'gt': 'Greater', 'ge': 'GreaterOrEqual', 'add_any': 'Add',
}  # fmt: skip
ELEMENTWISE = {*UNARY, *BINARY, 'integer_pow', 'square', 'rsqrt', 'ne', 'convert_element_type'}
# What numpy computes as JAX does, without a compilation for each shape.
NUMPY = {
    'add': np.add, 'sub': np.subtract, 'mul': np.multiply, 'max': np.maximum, 'min': np.minimum,
    'neg': np.negative, 'eq': np.equal, 'ne': np.not_equal, 'lt': np.less, 'le': np.less_equal,
    'gt': np.greater, 'ge': np.greater_equal, 'square': np.square,
}  # fmt: skip
REDUCTIONS = {'reduce_sum': 'ReduceSum', 'reduce_max': 'ReduceMax', 'reduce_min': 'ReduceMin'}
SAME = ('copy', 'copy_p', 'stop_gradient', 'optimization_barrier', 'reduce_precision')


@dataclasses.dataclass(frozen=True)
class Value:
    """An array of the graph.

    Attributes:
        name: in the graph.
        stored: its shape there; an axis of size 1 may stand for a longer one.
        shape: as the jaxpr has it.
        dtype: of its elements.
    """

    name: str
    stored: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class Pair:
    """A complex array as its real and imaginary part."""

    real: Any
    imaginary: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.real.shape


def export(
    function: Callable[..., Mapping[str, jax.Array]],
    inputs: Mapping[str, jax.ShapeDtypeStruct],
    notes: Mapping[str, str],
) -> bytes:
    """An ONNX file of a function of named arrays.

    Args:
        function: of keyword arguments; gives a dictionary. Arrays that it holds become constants.
        inputs: its arguments by name, with their shapes.
        notes: strings for the file's metadata.

    Raises:
        NotImplementedError: it uses an operation that has no translation here; named.
    """
    shapes = list(inputs.values())
    names = list(inputs)
    results = list(jax.eval_shape(lambda *a: function(**dict(zip(names, a, strict=True))), *shapes))

    def flat(*arrays):
        found = function(**dict(zip(names, arrays, strict=True)))
        return [found[name] for name in results]

    closed = jax.make_jaxpr(flat)(*shapes)
    graph = Graph('realaudio_jax')
    graph.inputs = [Variable(n, s.shape, np.dtype(s.dtype)) for n, s in inputs.items()]
    arguments = [Value(v.name, v.shape, v.shape, v.dtype) for v in graph.inputs]
    writer = _Writer(graph)
    found = writer.run(closed.jaxpr, closed.consts, arguments)
    for name, value in zip(results, found, strict=True):
        value = writer.whole(value)
        writer.emit('Identity', [value], value.shape, value.dtype, outputs=[name])
        graph.outputs.append(Variable(name, value.shape, value.dtype))
    return onnx_file.model(graph, 'realaudio_jax', __version__, notes)


class _Writer:
    """Writes the nodes of one graph; `root` holds the constants of a graph within it."""

    def __init__(self, graph: Graph, root: '_Writer | None' = None):
        self.graph, self.root = graph, root or self
        if root is None:
            self.count, self.constants = 0, {}

    # -- values ------------------------------------------------------------------------------

    def fresh(self) -> str:
        self.root.count += 1
        return f'v{self.root.count}'

    def emit(
        self,
        kind: str,
        inputs: Sequence[Any],
        shape: Sequence[Any],
        dtype: Any,
        outputs: Sequence[str] | None = None,
        **attributes: Any,
    ) -> Value:
        """Adds an operator with one result, whose shape in the graph is given."""
        names = [self.name(x) for x in inputs]
        outputs = outputs or [self.fresh()]
        self.graph.nodes.append(onnx_file.node(kind, names, outputs, attributes))
        shape = tuple(map(int, shape))
        return Value(outputs[0], shape, shape, np.dtype(dtype))

    def name(self, x: Any) -> str:
        """The name of a value, a constant as an initializer of the outermost graph."""
        if isinstance(x, Value):
            return x.name
        if isinstance(x, str):
            return x
        x = np.asarray(x)
        known = self.root.constants
        key = (x.dtype.str, x.shape, hashlib.sha256(np.ascontiguousarray(x)).digest())
        if key not in known:
            known[key] = self.root.constant(x)
        return known[key]

    def constant(self, x: np.ndarray) -> str:
        """Adds an initializer, in as few bytes as hold it exactly."""
        name = f'c{len(self.graph.initializers)}'
        packed = _packed(x) if x.dtype == np.float32 and x.size >= _SMALL else None
        if packed is None:
            self.graph.initializers[name] = x
            return name
        values, scale = packed
        self.graph.initializers[name] = values
        nodes = [onnx_file.node('Cast', [name], [f'{name}_float'], {'to': 1})]
        last = f'{name}_float'
        if scale is not None:
            self.graph.initializers[f'{name}_scale'] = scale
            nodes.append(onnx_file.node('Mul', [last, f'{name}_scale'], [f'{name}_scaled'], {}))
            last = f'{name}_scaled'
        if values.shape != x.shape:
            self.graph.initializers[f'{name}_shape'] = np.array(x.shape, np.int64)
            nodes.append(onnx_file.node('Reshape', [last, f'{name}_shape'], [f'{name}_whole'], {}))
            last = f'{name}_whole'
        self.graph.nodes[:0] = nodes
        return last

    def whole(self, x: Any) -> Value:
        """A value with all of its elements in the graph."""
        if isinstance(x, Pair):
            raise NotImplementedError('complex numbers have few translations to ONNX here')
        if not isinstance(x, Value):
            x = np.asarray(x)
            core_ = _stripped(x)
            x = Value(self.name(core_), core_.shape, x.shape, x.dtype)
        if x.stored == x.shape:
            return x
        return self.emit('Expand', [x, np.array(x.shape, np.int64)], x.shape, x.dtype)

    def as_shape(self, x: Value, stored: Sequence[Any], shape: Sequence[Any]) -> Value:
        """The same elements under another shape."""
        stored, shape = tuple(map(int, stored)), tuple(map(int, shape))
        if x.stored != stored:
            x = self.emit('Reshape', [x, np.array(stored, np.int64)], stored, x.dtype)
        return Value(x.name, stored, shape, x.dtype)

    def elementwise(self, kind: str, inputs: Sequence[Any], dtype: Any, **attributes: Any) -> Value:
        """An operator whose inputs have one shape, or are scalars."""
        shape = np.broadcast_shapes(*map(np.shape, inputs))
        inputs = [x if isinstance(x, Value) else _stripped(np.asarray(x)) for x in inputs]
        stored = [x.stored if isinstance(x, Value) else x.shape for x in inputs]
        out = self.emit(kind, inputs, np.broadcast_shapes(*stored), dtype, **attributes)
        out = Value(out.name, out.stored, shape, out.dtype)
        missing = len(shape) - len(out.stored)
        return Value(out.name, (1,) * missing + out.stored, shape, out.dtype) if missing else out

    # -- jaxprs ------------------------------------------------------------------------------

    def run(self, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
        """Writes what a jaxpr does; its results."""
        values = dict(zip(jaxpr.constvars, map(_known, consts), strict=True))
        values |= dict(zip(jaxpr.invars, arguments, strict=True))

        def read(x):
            return np.asarray(x.val, x.aval.dtype) if isinstance(x, core.Literal) else values[x]

        for eqn in jaxpr.eqns:
            inputs = [read(x) for x in eqn.invars]
            results = self.equation(eqn, inputs)
            results = results if isinstance(results, (list, tuple)) else [results]
            values |= dict(zip(eqn.outvars, results, strict=True))
        return [read(x) for x in jaxpr.outvars]

    def equation(self, eqn: Any, inputs: list[Any]) -> Any:
        kind, params = eqn.primitive.name, eqn.params
        inner = params.get('jaxpr') or params.get('call_jaxpr')
        known = not any(isinstance(x, (Value, Pair)) for x in inputs)
        sizes = [math.prod(v.aval.shape) for v in eqn.outvars]
        if known and kind == 'broadcast_in_dim' and not _is_key(inputs[0]):
            return _broadcast(inputs[0], params['shape'], params['broadcast_dimensions'])
        if inner is not None and kind not in ('scan', 'while'):
            closed = inner if hasattr(inner, 'consts') else core.ClosedJaxpr(inner, ())
            return self.run(closed.jaxpr, closed.consts, inputs)
        if known and max(sizes) <= _FOLDED and not _repeats(kind, inputs, max(sizes)):
            return self.computed(eqn, inputs)
        if kind in UNARY:
            return self.elementwise(UNARY[kind], inputs, eqn.outvars[0].aval.dtype)
        if kind in BINARY:
            return self.elementwise(BINARY[kind], inputs, eqn.outvars[0].aval.dtype)
        if kind in REDUCTIONS:
            return self.reduce(REDUCTIONS[kind], inputs[0], params['axes'])
        if kind in SAME:
            return inputs
        method = getattr(self, f'op_{kind}', None)
        if method is None:
            raise NotImplementedError(f'{kind} has no translation to ONNX here: {eqn}'[:500])
        return method(eqn, *inputs)

    def computed(self, eqn: Any, inputs: list[Any]) -> list[Any]:
        """The results of an equation of constants."""
        params, shape = eqn.primitive.get_bind_params(eqn.params), eqn.outvars[0].aval.shape
        name = eqn.primitive.name
        if name in ELEMENTWISE:  # once for an axis along which nothing changes
            inputs = [np.broadcast_to(x, shape) if np.ndim(x) else x for x in inputs]
            steps = [x.strides for x in inputs if np.ndim(x)]
            part = tuple(slice(0, None if any(step) else 1) for step in zip(*steps, strict=True))
            inputs = [x[part] if np.ndim(x) else x for x in inputs]
        if name in NUMPY and not any(map(_is_key, inputs)):
            return [np.broadcast_to(NUMPY[name](*inputs), shape)]
        if name == 'convert_element_type':
            return [np.broadcast_to(inputs[0].astype(params['new_dtype']), shape)]
        if name == 'div' and np.issubdtype(inputs[0].dtype, np.floating):
            return [np.broadcast_to(np.divide(*inputs), shape)]
        if name == 'reshape' and not _is_key(inputs[0]):
            return [np.reshape(inputs[0], shape)]
        if name == 'slice' and not _is_key(inputs[0]):
            return [self.op_slice(eqn, *inputs)]
        if name == 'iota':
            numbers = np.arange(shape[params['dimension']], dtype=params['dtype'])
            return [_broadcast(numbers, shape, [params['dimension']])]
        arrays = [x if _is_key(x) else jnp.asarray(x) for x in inputs]
        results = eqn.primitive.bind(*arrays, **params)
        results = [_known(x) for x in (results if eqn.primitive.multiple_results else [results])]
        return [np.broadcast_to(results[0], shape)] if name in ELEMENTWISE else results

    def op_cond(self, eqn, index, *inputs):
        branch = eqn.params['branches'][int(index)]  # of a platform: known before it runs
        return self.run(branch.jaxpr, branch.consts, inputs)

    # -- operators ---------------------------------------------------------------------------

    def op_integer_pow(self, eqn, x):
        power, dtype = eqn.params['y'], x.dtype
        if power < 0:
            x, power = self.elementwise('Reciprocal', [x], dtype), -power
        if power in (1, 2, 3, 4):
            square = self.elementwise('Mul', [x, x], dtype) if power > 1 else x
            second = {1: None, 2: None, 3: x, 4: square}[power]
            return square if second is None else self.elementwise('Mul', [square, second], dtype)
        return self.elementwise('Pow', [x, np.float32(power)], dtype)

    def op_square(self, eqn, x):
        return self.elementwise('Mul', [x, x], x.dtype)

    def op_rsqrt(self, eqn, x):
        return self.elementwise('Reciprocal', [self.elementwise('Sqrt', [x], x.dtype)], x.dtype)

    def op_exp2(self, eqn, x):
        return self.elementwise('Pow', [np.float32(2), x], x.dtype)

    def op_log1p(self, eqn, x):
        return self.elementwise(
            'Log', [self.elementwise('Add', [x, np.float32(1)], x.dtype)], x.dtype
        )

    def op_expm1(self, eqn, x):  # tanh(x / 2) (exp(x) + 1) loses nothing near zero
        half = self.elementwise('Mul', [x, np.float32(0.5)], x.dtype)
        more = self.elementwise(
            'Add', [self.elementwise('Exp', [x], x.dtype), np.float32(1)], x.dtype
        )
        return self.elementwise('Mul', [self.elementwise('Tanh', [half], x.dtype), more], x.dtype)

    def op_erfc(self, eqn, x):
        return self.elementwise(
            'Sub', [np.float32(1), self.elementwise('Erf', [x], x.dtype)], x.dtype
        )

    def op_is_finite(self, eqn, x):
        size = self.elementwise('Abs', [x], x.dtype)  # a comparison with NaN is false
        return self.elementwise('LessOrEqual', [size, np.finfo(np.float32).max], bool)

    def op_rem(self, eqn, a, b):
        return self.elementwise('Mod', [a, b], eqn.outvars[0].aval.dtype, fmod=1)

    def op_ne(self, eqn, a, b):
        return self.elementwise('Not', [self.elementwise('Equal', [a, b], bool)], bool)

    def op_select_n(self, eqn, which, off, on):
        return self.elementwise('Where', [which, on, off], eqn.outvars[0].aval.dtype)

    def op_clamp(self, eqn, low, x, high):
        x = self.elementwise('Max', [x, low], x.dtype)
        return self.elementwise('Min', [x, high], x.dtype)

    def op_convert_element_type(self, eqn, x):
        dtype = np.dtype(eqn.params['new_dtype'])
        if isinstance(x, Pair) or (isinstance(x, Value) and x.dtype == dtype):
            return x
        return self.elementwise('Cast', [x], dtype, to=onnx_file.DTYPES[dtype])

    def op_broadcast_in_dim(self, eqn, x, *sizes):
        shape, axes = eqn.params['shape'], eqn.params['broadcast_dimensions']
        stored = [1] * len(shape)
        for size, axis in zip(x.stored, axes, strict=True):
            stored[axis] = size
        return self.as_shape(x, stored, shape)

    def op_reshape(self, eqn, x):
        x, shape = self.whole(x), eqn.params['new_sizes']
        return self.as_shape(x, shape, shape)

    def op_squeeze(self, eqn, x):
        axes = {a % len(x.shape) for a in eqn.params['dimensions']}
        keep = [i for i in range(len(x.shape)) if i not in axes]
        return self.as_shape(x, [x.stored[i] for i in keep], [x.shape[i] for i in keep])

    def op_expand_dims(self, eqn, x):
        shape = eqn.outvars[0].aval.shape
        return self.as_shape(self.whole(x), shape, shape)

    def op_transpose(self, eqn, x):
        return self.transposed(x, eqn.params['permutation'])

    def transposed(self, x: Any, order: Sequence[Any]) -> Any:
        """With its axes in another order."""
        if not isinstance(x, Value):
            return np.transpose(x, order)
        if tuple(order) == tuple(range(len(order))):
            return x
        stored = [x.stored[i] for i in order]
        out = self.emit('Transpose', [x], stored, x.dtype, perm=list(order))
        return Value(out.name, tuple(stored), tuple(x.shape[i] for i in order), x.dtype)

    def op_slice(self, eqn, x):
        starts, limits = eqn.params['start_indices'], eqn.params['limit_indices']
        return self.sliced(x, starts, limits, eqn.params['strides'])

    def sliced(
        self, x: Any, starts: Sequence[Any], limits: Sequence[Any], strides: Sequence[Any] | None
    ) -> Any:
        """A part of an array, by the first and the last index but one of each axis."""
        strides = strides or (1,) * len(starts)
        if not isinstance(x, Value):
            return x[tuple(slice(*part) for part in zip(starts, limits, strides, strict=True))]
        shape = [len(range(*p)) for p in zip(starts, limits, strides, strict=True)]
        cut = [i for i, (n, m) in enumerate(zip(shape, x.shape, strict=True)) if n != m]
        # Of an axis that was broadcast every part is the same.
        axes = [i for i in cut if x.stored[i] != 1 or x.shape[i] == 1]
        stored = [shape[i] if i in axes else n for i, n in enumerate(x.stored)]
        if axes:
            numbers = [[v[i] for i in axes] for v in (starts, limits)] + [axes]
            numbers.append([strides[i] for i in axes])
            inputs = [x, *(np.array(v, np.int64) for v in numbers)]
            x = self.emit('Slice', inputs, stored, x.dtype)
        return Value(x.name, tuple(stored), tuple(shape), x.dtype)

    def op_split(self, eqn, x):
        axis, at, parts = eqn.params['axis'], 0, []
        for size in eqn.params['sizes']:
            starts, limits = [0] * len(x.shape), list(x.shape)
            starts[axis], limits[axis] = at, at + size
            parts.append(self.sliced(x, starts, limits, None))
            at += size
        return parts

    def op_rev(self, eqn, x):
        x, axes = self.whole(x), list(eqn.params['dimensions'])
        numbers = ([-1] * len(axes), [np.iinfo(np.int64).min] * len(axes), axes, [-1] * len(axes))
        inputs = [x, *(np.array(v, np.int64) for v in numbers)]
        return self.emit('Slice', inputs, x.shape, x.dtype)

    def op_pad(self, eqn, x, fill):
        if isinstance(x, Pair):
            zero = np.float32(0)
            return Pair(self.op_pad(eqn, x.real, zero), self.op_pad(eqn, x.imaginary, zero))
        x = self.whole(x)
        config = ([int(n) for n in axis] for axis in eqn.params['padding_config'])
        low, high, within = zip(*config, strict=True)
        if any(within):
            raise NotImplementedError('padding between elements has no translation to ONNX here')
        if min(low + high) < 0:
            limits = [n + min(h, 0) for n, h in zip(x.shape, high, strict=True)]
            x = self.sliced(x, [max(-n, 0) for n in low], limits, None)
            low, high = ([max(n, 0) for n in side] for side in (low, high))
        if not any((*low, *high)):
            return x
        pads = np.array([*low, *high], np.int64)
        shape = [a + n + b for a, n, b in zip(low, x.shape, high, strict=True)]
        fill = np.asarray(fill).reshape(()) if not isinstance(fill, Value) else fill
        if x.dtype == bool:  # not every runtime pads booleans
            number = self.elementwise('Cast', [x], np.int32, to=6)
            fill = np.asarray(fill).astype(np.int32)
            out = self.emit('Pad', [number, pads, fill], shape, np.int32)
            return self.elementwise('Cast', [out], bool, to=9)
        return self.emit('Pad', [x, pads, fill], shape, x.dtype)

    def op_concatenate(self, eqn, *parts):
        axis, shape = eqn.params['dimension'], eqn.outvars[0].aval.shape
        parts = [self.whole(x) for x in parts if np.shape(x)[axis]]
        if len(parts) == 1:
            return parts[0]
        return self.emit('Concat', parts, shape, parts[0].dtype, axis=axis)

    def op_stack(self, eqn, *parts):
        axis, shape = eqn.params['axis'], eqn.outvars[0].aval.shape
        one = [*shape[:axis], 1, *shape[axis + 1 :]]
        parts = [self.as_shape(self.whole(x), one, one) for x in parts]
        return self.emit('Concat', parts, shape, parts[0].dtype, axis=axis)

    def op_tile(self, eqn, x):
        x = self.whole(x)
        reps = eqn.params['reps']
        shape = [n * m for n, m in zip(x.shape, reps, strict=True)]
        return self.emit('Tile', [x, np.array(reps, np.int64)], shape, x.dtype)

    def reduce(self, kind: str, x: Any, axes: Sequence[Any]) -> Value:
        x, axes = self.whole(x), list(axes)
        shape = [n for i, n in enumerate(x.shape) if i not in axes]
        if kind == 'ReduceSum':
            inputs = [x, np.array(axes, np.int64)]
            return self.emit(kind, inputs, shape, x.dtype, keepdims=0)
        return self.emit(kind, [x], shape, x.dtype, axes=axes, keepdims=0)

    def op_reduce_or(self, eqn, x):
        number = self.elementwise('Cast', [self.whole(x)], np.int32, to=6)
        found = self.reduce('ReduceMax', number, eqn.params['axes'])
        return self.elementwise('Cast', [found], bool, to=9)

    def op_reduce_and(self, eqn, x):
        number = self.elementwise('Cast', [self.whole(x)], np.int32, to=6)
        found = self.reduce('ReduceMin', number, eqn.params['axes'])
        return self.elementwise('Cast', [found], bool, to=9)

    def op_argmin(self, eqn, x):
        x, (axis,) = self.whole(x), eqn.params['axes']
        shape = [n for i, n in enumerate(x.shape) if i != axis]
        out = self.emit('ArgMin', [x], shape, np.int64, axis=axis, keepdims=0)
        return self.elementwise('Cast', [out], np.int32, to=6)

    def op_argmax(self, eqn, x):
        negative = self.elementwise('Neg', [x], x.dtype)
        return self.op_argmin(eqn, negative)

    def op_dot_general(self, eqn, a, b):
        (contract_a, contract_b), (batch_a, batch_b) = eqn.params['dimension_numbers']
        a, b = self.whole(a), (self.whole(b) if isinstance(b, Value) else np.asarray(b))
        if {a.dtype, b.dtype} != {np.dtype(np.float32)}:
            kinds = f'{a.dtype} and {b.dtype}'
            raise NotImplementedError(f'a product of {kinds} has no translation to ONNX here')
        shape_a, shape_b = a.shape, b.shape
        free_a = [i for i in range(len(shape_a)) if i not in (*contract_a, *batch_a)]
        free_b = [i for i in range(len(shape_b)) if i not in (*contract_b, *batch_b)]
        shape = [shape_a[i] for i in (*batch_a, *free_a)] + [shape_b[i] for i in free_b]
        a = self.transposed(a, [*batch_a, *free_a, *contract_a])
        b = self.transposed(b, [*batch_b, *contract_b, *free_b])
        lead = [shape_a[i] for i in batch_a]
        inner = math.prod(shape_a[i] for i in contract_a)
        rows, columns = [shape_a[i] for i in free_a], math.prod(shape_b[i] for i in free_b)
        # Without batch axes MatMul takes the rows of a as they are.
        rows = [math.prod(rows)] if lead else rows
        a = self.as_shape(a, [*lead, *rows, inner], [*lead, *rows, inner])
        flat = [*lead, inner, columns]
        b = self.as_shape(b, flat, flat) if isinstance(b, Value) else b.reshape(flat)
        out = self.emit('MatMul', [a, b], [*lead, *rows, columns], a.dtype)
        return self.as_shape(out, shape, shape)

    def op_gather(self, eqn, x, indices):
        numbers, sizes = eqn.params['dimension_numbers'], eqn.params['slice_sizes']
        shape = eqn.outvars[0].aval.shape
        axes = numbers.start_index_map
        if len(axes) != 1 or sizes[axes[0]] != 1 or axes != tuple(numbers.collapsed_slice_dims):
            raise NotImplementedError(f'this gather has no translation to ONNX here: {eqn}'[:500])
        axis, batching = axes[0], numbers.operand_batching_dims
        x = self.whole(x)
        if batching:
            return self.gathered_along(eqn, x, self.whole(indices))
        if isinstance(indices, Value):
            indices = self.whole(indices)
            indices = self.as_shape(indices, indices.shape[:-1], indices.shape[:-1])
        else:
            indices = np.asarray(indices)[..., 0].astype(np.int64)
        places = list(indices.shape)
        rest = [n for i, n in enumerate(x.shape) if i != axis]
        full = rest[:axis] + places + rest[axis:]
        out = self.emit('Gather', [x, indices], full, x.dtype, axis=axis)
        # Axes of the index stand together at `axis`; where the result has them elsewhere, turn.
        offset = list(numbers.offset_dims)
        batch = [i for i in range(len(shape)) if i not in offset]
        where = offset[:axis] + batch + offset[axis:]
        out = self.transposed(out, [where.index(i) for i in range(len(shape))])
        return self.as_shape(out, shape, shape)

    def gathered_along(self, eqn: Any, x: Value, indices: Value) -> Value:
        """A gather with batching axes: along one axis, each place by an index of its own."""
        numbers = eqn.params['dimension_numbers']
        (axis,), at = numbers.start_index_map, numbers.start_indices_batching_dims
        places = range(len(indices.shape) - 1)
        rest = [i for i in places if i not in at]
        if len(rest) > 1:
            raise NotImplementedError(f'this gather has no translation to ONNX here: {eqn}'[:500])
        batching = dict(zip(numbers.operand_batching_dims, at, strict=True))
        # What each axis of x becomes: an axis of the index, or one of the slices.
        becomes, order, offsets = [], [], 0
        for i in range(len(x.shape)):
            if i in batching or (i == axis and rest):
                order.append(batching.get(i, rest[0] if rest else 0))
                becomes.append(('index', order[-1]))
            elif i == axis:
                becomes.append(None)
            else:
                becomes.append(('slice', offsets))
                offsets += 1
        flat = self.as_shape(indices, indices.shape[:-1], indices.shape[:-1])
        flat = self.transposed(flat, order)
        sizes = iter(flat.shape)
        stored = [next(sizes) if b and b[0] == 'index' else 1 for b in becomes]
        shape = [
            x.shape[i] if b and b[0] == 'slice' else n
            for i, (b, n) in enumerate(zip(becomes, stored, strict=True))
        ]
        flat = self.whole(self.as_shape(flat, stored, shape))
        out = self.emit('GatherElements', [x, flat], shape, x.dtype, axis=axis)
        kept = [b for b in becomes if b]
        sizes = [n for b, n in zip(becomes, shape, strict=True) if b]
        out = self.as_shape(out, sizes, sizes)
        index = (('index', i) for i in places)
        wanted = [
            ('slice', numbers.offset_dims.index(i)) if i in numbers.offset_dims else next(index)
            for i in range(len(kept))
        ]
        return self.transposed(out, [kept.index(w) for w in wanted])

    def op_scatter(self, eqn, x, index, update):
        """x.at[:, i].set(update), i constant: what is before it, the update, what is after."""
        numbers = eqn.params['dimension_numbers']
        axes, window = numbers.scatter_dims_to_operand_dims, numbers.update_window_dims
        plain = numbers.inserted_window_dims == axes and len(window) == len(np.shape(update))
        if isinstance(index, Value) or np.size(index) != 1 or not plain:
            raise NotImplementedError(f'this scatter has no translation to ONNX here: {eqn}'[:500])
        (axis,), place = axes, int(np.asarray(index).reshape(()))
        x, shape = self.whole(x), x.shape
        one = [*shape[:axis], 1, *shape[axis + 1 :]]
        start, end = [0] * len(shape), list(shape)
        start[axis] = place + 1
        before = self.sliced(x, [0] * len(shape), [*shape[:axis], place, *shape[axis + 1 :]], None)
        after = self.sliced(x, start, end, None)
        parts = [before, self.as_shape(self.whole(update), one, one), after]
        parts = [part for part in parts if part.shape[axis]]
        return self.emit('Concat', parts, shape, x.dtype, axis=axis)

    def op_conv_general_dilated(self, eqn, x, kernel):
        params, numbers = eqn.params, eqn.params['dimension_numbers']
        x = self.transposed(self.whole(x), numbers.lhs_spec)
        kernel = self.transposed(kernel, numbers.rhs_spec)
        (between,) = params['lhs_dilation']
        if between > 1:  # zeros between the samples
            n, c, w = x.shape
            x = self.as_shape(x, (n, c, w, 1), (n, c, w, 1))
            pads = np.array([0, 0, 0, 0, 0, 0, 0, between - 1], np.int64)
            x = self.emit('Pad', [x, pads], (n, c, w, between), x.dtype)
            x = self.as_shape(x, (n, c, w * between), (n, c, w * between))
            x = self.sliced(x, (0, 0, 0), (n, c, (w - 1) * between + 1), None)
        (pads,) = params['padding']
        spec = numbers.out_spec
        shape = [eqn.outvars[0].aval.shape[i] for i in spec]
        out = self.emit(
            'Conv', [x, kernel], shape, x.dtype, pads=list(pads),
            strides=list(params['window_strides']), dilations=list(params['rhs_dilation']),
            group=params['feature_group_count'],
        )  # fmt: skip
        return self.transposed(out, [spec.index(i) for i in range(len(spec))])

    def op_scan(self, eqn, *inputs):
        params = eqn.params
        closed, constants, carried = params['jaxpr'], params['num_consts'], params['num_carry']
        if params['reverse']:
            raise NotImplementedError('a scan from the end has no translation to ONNX here')
        fixed = inputs[:constants]
        moving = [self.whole(x) for x in inputs[constants:]]
        body = _Writer(Graph(self.fresh()), self.root)
        arguments = []
        for i, x in enumerate(moving):
            shape = x.shape if i < carried else x.shape[1:]
            variable = Variable(self.fresh(), shape, x.dtype)
            body.graph.inputs.append(variable)
            arguments.append(Value(variable.name, shape, shape, x.dtype))
        for found in body.run(closed.jaxpr, closed.consts, [*fixed, *arguments]):
            value = body.whole(found)
            value = body.emit('Identity', [value], value.shape, value.dtype)
            body.graph.outputs.append(Variable(value.name, value.shape, value.dtype))
        results = [
            Value(self.fresh(), v.aval.shape, v.aval.shape, np.dtype(v.aval.dtype))
            for v in eqn.outvars
        ]
        attributes = {'body': body.graph, 'num_scan_inputs': len(moving) - carried}
        names = [r.name for r in results]
        self.graph.nodes.append(onnx_file.node('Scan', [x.name for x in moving], names, attributes))
        return results

    def op_complex(self, eqn, real, imaginary):
        return Pair(real, imaginary)

    def op_real(self, eqn, x):
        return x.real

    def op_imag(self, eqn, x):
        return x.imaginary

    def op_fft(self, eqn, x):
        kind, (points,) = eqn.params['fft_type'].name, eqn.params['fft_lengths']
        if kind == 'RFFT':
            return Pair(*self.traced(fourier.rfft, x))
        if kind == 'IRFFT':
            turn = functools.partial(fourier.irfft, n=points)
            return self.traced(turn, x.real, x.imaginary)[0]
        raise NotImplementedError(f'{kind} has no translation to ONNX here')

    def traced(self, function: Callable, *inputs: Any) -> list[Any]:
        """What a JAX function does, written here."""
        shapes = [jax.ShapeDtypeStruct(np.shape(x), np.float32) for x in inputs]
        closed = jax.make_jaxpr(function)(*shapes)
        return self.run(closed.jaxpr, closed.consts, inputs)


def _repeats(kind: str, inputs: Sequence[Any], size: int) -> bool:
    """Whether a constant only repeats others: better done where it runs than stored."""
    if kind not in ('reshape', 'concatenate', 'tile') or size < _SMALL:
        return False
    return size > 2 * sum(_stripped(np.asarray(x)).size for x in inputs)


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _known(x: Any) -> Any:
    """A constant as a numpy array; keys of JAX stay."""
    return x if _is_key(x) else np.asarray(x)


def _broadcast(x: np.ndarray, shape: Sequence[Any], axes: Sequence[Any]) -> np.ndarray:
    """A view of a constant with more axes; it takes no memory."""
    stored = [1] * len(shape)
    for size, axis in zip(np.shape(x), axes, strict=True):
        stored[axis] = size
    return np.broadcast_to(np.reshape(x, stored), shape)


def _stripped(x: np.ndarray) -> np.ndarray:
    """A constant with size 1 along the axes that were broadcast."""
    if not any(step == 0 and size > 1 for step, size in zip(x.strides, x.shape, strict=True)):
        return x
    return x[tuple(slice(0, 1) if step == 0 else slice(None) for step in x.strides)]


def _packed(x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None] | None:
    """(values, scale or None) in 1 or 2 bytes an element that give exactly x, or None.

    Weights that a release stores as int8 or float16 are found by trial: with blocks of inputs, rows
    or columns that share a scale.
    """
    with np.errstate(over='ignore'):
        half = x.astype(np.float16)
    if np.array_equal(half.astype(np.float32), x):
        return half, None
    if x.ndim != 2:
        return None
    shapes = [((-1, 1, x.shape[1]), 0), (x.shape, 1), (x.shape, 0)]
    for shape, axis in shapes:
        if len(shape) == 3:
            if x.shape[0] % _BLOCK:
                continue
            cut, axis = x.reshape(-1, _BLOCK, x.shape[1]), 1
        else:
            cut = x
        peak = np.max(np.abs(cut), axis=axis, keepdims=True)
        scale = np.where(peak > 0, peak / np.float32(127), 1).astype(np.float32)
        values = np.round(cut / scale)
        if np.array_equal(values * scale, cut):
            return values.astype(np.int8), scale
    return None
