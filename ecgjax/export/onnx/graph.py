"""A graph of ONNX that grows node by node, and the arrays of a trace as they are stored in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from jax import export

from ecgjax.errors import ConfigError

#: Version of the operators; onnxruntime has known it since 1.14, of February 2023.
OPSET = 18

#: Version of the file format that belongs to `OPSET`.
IR_VERSION = 8

#: Length of an axis: a whole number, or a multiple of the batch that only the file's user knows.
Length = Any

Shape = tuple[Length, ...]

#: Size up to which equal constants are stored once.
_SMALL = 64


class UnsupportedError(ConfigError):
    """Something in a trace has no form in ONNX here; the message names it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """An array of the trace, as a tensor of the graph or as a constant.

    What only moves numbers is put off until something needs it: a broadcast by `thin`, since most operators of ONNX
    broadcast by themselves, and a transposition by `order`, so that the layers between two convolutions compute in the
    order of a convolution.

    Attributes:
        shape: Shape of the array in the trace.
        dtype: Type of the numbers; float32 where the trace has bfloat16.
        stored: Name of the tensor, or the numbers of a constant.
        order: Axes of the array in the order in which they are stored; a constant's are in their own.
        thin: Axes that are stored with length 1, and stand for as many equal numbers as `shape` says.
        label: Name of the weight whose numbers a constant holds or was computed from; None for none.
    """

    shape: Shape
    dtype: np.dtype
    stored: str | np.ndarray
    order: tuple[int, ...]
    thin: frozenset[int] = frozenset()
    label: str | None = None


def is_static(lengths: Iterable[Length]) -> bool:
    """Whether all lengths are numbers."""
    return not any(export.is_symbolic_dim(length) for length in lengths)


def is_empty(shape: Shape) -> bool:
    """Whether an array of this shape holds no number, whatever the batch."""
    return any(not export.is_symbolic_dim(length) and length == 0 for length in shape)


def constant(array: np.ndarray, *, shape: Shape | None = None, label: str | None = None) -> Value:
    """Returns a constant.

    Args:
        array: Numbers of the constant.
        shape: Shape that the numbers are stretched to; their own by default.
        label: Name of the weight that the numbers come from.
    """
    shape = array.shape if shape is None else shape
    thin = frozenset(
        axis for axis, (stored, length) in enumerate(zip(array.shape, shape, strict=True)) if stored != length
    )
    return Value(shape, array.dtype, array, tuple(range(array.ndim)), thin, label)


def empty(shape: Shape, dtype: np.dtype) -> Value:
    """Returns an array without numbers, of which no node is made."""
    return constant(np.zeros([1 if export.is_symbolic_dim(length) else length for length in shape], dtype), shape=shape)


def full_array(value: Value) -> np.ndarray | None:
    """Returns all numbers of a constant, or None where the value is none or its shape depends on the batch."""
    if isinstance(value.stored, str) or not is_static(value.shape):
        return None
    return np.broadcast_to(value.stored, value.shape)


class Graph:
    """Nodes and constants of a graph, each made once however often it is asked for."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: list[onnx.TensorProto] = []
        self._known: dict[Any, tuple[str, ...]] = {}
        self._alive: list[np.ndarray] = []
        self._names: dict[str, int] = {}
        self._places: dict[Length, tuple[str, int]] = {}

    def name(self, wish: str) -> str:
        """Returns a name that no tensor has, beginning with the wish."""
        number = self._names[wish] = self._names.get(wish, -1) + 1
        return f"{wish}:{number}" if number else wish

    def add(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Adds a node of one output and returns the output's name."""
        return self.add_many(operator, inputs, 1, **attributes)[0]

    def add_many(self, operator: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> tuple[str, ...]:
        """Adds a node and returns the names of its outputs."""
        key = (operator, tuple(inputs), outputs, repr(sorted(attributes.items())))
        if key not in self._known:
            names = tuple(self.name(operator) for _ in range(outputs))
            self.nodes.append(onnx.helper.make_node(operator, inputs, names, name=names[0], **attributes))
            self._known[key] = names
        return self._known[key]

    def initialiser(self, array: np.ndarray, label: str | None = None) -> str:
        """Returns the name of a tensor that holds the numbers.

        Args:
            array: Numbers of the tensor.
            label: Wish for its name.
        """
        array = np.ascontiguousarray(array).reshape(array.shape)
        small = array.size <= _SMALL
        key = ("initialiser", label, array.shape, array.dtype.str, array.tobytes() if small else len(self.initialisers))
        if key not in self._known:
            name = self.name("constant" if label is None else label)
            self.initialisers.append(onnx.numpy_helper.from_array(array, name))
            self._known[key] = (name,)
        return self._known[key][0]

    def numbers(self, *numbers: int) -> str:
        """Returns the name of a tensor of whole numbers, `int64[n]`, as operators take axes and lengths."""
        return self.initialiser(np.array(numbers, np.int64))

    def value(
        self,
        name: str,
        shape: Shape,
        dtype: np.dtype,
        *,
        order: tuple[int, ...] | None = None,
        thin: frozenset[int] = frozenset(),
    ) -> Value:
        """Returns a tensor of the graph as an array of the trace; arguments are those of `Value`."""
        order = tuple(range(len(shape))) if order is None else order
        for place, axis in enumerate(order):
            if axis not in thin:
                self._places.setdefault(shape[axis], (name, place))
        return Value(shape, dtype, name, order, thin)

    def stored(self, value: Value, order: tuple[int, ...] | None = None) -> str:
        """Returns the name of a tensor that holds the value in an order of axes, with thin axes left thin."""
        order = tuple(range(len(value.shape))) if order is None else order
        if not isinstance(value.stored, str):
            return self._constant_in_order(value, value.stored, order)
        if value.order == order:
            return value.stored
        return self.add("Transpose", [value.stored], perm=[value.order.index(axis) for axis in order])

    def _constant_in_order(self, value: Value, array: np.ndarray, order: tuple[int, ...]) -> str:
        key = ("constant", id(array), order)
        if key not in self._known:
            self._known[key] = (self.initialiser(array.transpose(order), value.label),)
            self._alive.append(array)  # No other array gets its id.
        return self._known[key][0]

    def whole(self, value: Value, order: tuple[int, ...] | None = None) -> str:
        """Returns the name of a tensor that holds the value in an order of axes, and nothing thin."""
        order = tuple(range(len(value.shape))) if order is None else order
        array = full_array(value)
        if array is not None and value.thin:
            return self.initialiser(array.transpose(order), value.label)
        name = self.stored(value, order)
        if not value.thin:
            return name
        return self.add("Expand", [name, self.shape_tensor([value.shape[axis] for axis in order])])

    def shape_tensor(self, shape: Sequence[Length]) -> str:
        """Returns the name of a tensor that holds a shape, `int64[rank]`, at the batch that the file is used with."""
        if is_static(shape):
            return self.numbers(*shape)
        parts = [self._length(length) if export.is_symbolic_dim(length) else self.numbers(length) for length in shape]
        return self.add("Concat", parts, axis=0) if len(parts) > 1 else parts[0]

    def _length(self, length: Length) -> str:
        if length not in self._places:
            raise UnsupportedError(f"an axis of length {length}, of which no array before has one")
        name, place = self._places[length]
        return self.add("Shape", [name], start=place, end=place + 1)

    def reshape(self, name: str, shape: Sequence[Length]) -> str:
        """Returns the name of a tensor in another shape, which has no axis of length 0."""
        symbolic = [export.is_symbolic_dim(length) for length in shape]
        if sum(symbolic) > 1:
            return self.add("Reshape", [name, self.shape_tensor(shape)])
        lengths = [-1 if of_batch else length for length, of_batch in zip(shape, symbolic, strict=True)]
        return self.add("Reshape", [name, self.numbers(*lengths)])
