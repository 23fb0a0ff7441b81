"""Primitives that compute each number from the numbers at the same place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx

from ecgjax.export.onnx.graph import Graph, Value
from ecgjax.export.onnx.registry import CONVERTERS, Result, demand

#: Primitives that are one operator.
_OPERATORS = {
    "abs": "Abs",
    "add": "Add",
    "ceil": "Ceil",
    "cos": "Cos",
    "div": "Div",
    "eq": "Equal",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "lt": "Less",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "sub": "Sub",
    "tanh": "Tanh",
}

#: Primitives of truth values that are one operator; of whole numbers they work on bits.
_LOGICAL = {"and": "And", "not": "Not", "or": "Or"}


class _Operands(NamedTuple):
    """Arguments of an elementwise primitive as tensors that broadcast to each other.

    Attributes:
        names: Names of the tensors.
        dtypes: Types of their numbers.
        params: Parameters of the equation.
        result: Shape and type of the result.
    """

    names: list[str]
    dtypes: list[np.dtype]
    params: Mapping[str, Any]
    result: Result


def _cast(graph: Graph, name: str, dtype: np.dtype) -> str:
    return graph.add("Cast", [name], to=onnx.helper.np_dtype_to_tensor_dtype(dtype))


def _convert_element_type(graph: Graph, operands: _Operands) -> str:
    (name,), (dtype,) = operands.names, operands.dtypes
    return name if dtype == operands.result.dtype else _cast(graph, name, operands.result.dtype)


def _rsqrt(graph: Graph, operands: _Operands) -> str:
    return graph.add("Reciprocal", [graph.add("Sqrt", operands.names)])


def _erfc(graph: Graph, operands: _Operands) -> str:
    one = graph.initialiser(np.ones((), operands.result.dtype))
    return graph.add("Sub", [one, graph.add("Erf", operands.names)])


def _square(graph: Graph, operands: _Operands) -> str:
    return graph.add("Mul", [operands.names[0], operands.names[0]])


def _integer_pow(graph: Graph, operands: _Operands) -> str:
    if operands.params["y"] == 2:
        return _square(graph, operands)
    exponent = graph.initialiser(np.array(operands.params["y"], operands.result.dtype))
    return graph.add("Pow", [operands.names[0], exponent])


def _ne(graph: Graph, operands: _Operands) -> str:
    return graph.add("Not", [graph.add("Equal", operands.names)])


def _select(graph: Graph, operands: _Operands) -> str:
    which, *cases = operands.names
    demand(operands.dtypes[0] == np.bool_ and len(cases) == 2, "a select_n by anything but a truth value")
    return graph.add("Where", [which, cases[1], cases[0]])


def _clamp(graph: Graph, operands: _Operands) -> str:
    low, x, high = operands.names
    return graph.add("Min", [graph.add("Max", [low, x]), high])


def _identity(graph: Graph, operands: _Operands) -> str:
    del graph
    return operands.names[0]


_COMPOSED: dict[str, Callable[[Graph, _Operands], str]] = {
    "clamp": _clamp,
    "convert_element_type": _convert_element_type,
    "copy": _identity,
    "erfc": _erfc,
    "integer_pow": _integer_pow,
    "ne": _ne,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "square": _square,
    "stop_gradient": _identity,
}


def _operator(primitive: str) -> Callable[[Graph, _Operands], str]:
    def write(graph: Graph, operands: _Operands) -> str:
        if primitive in _LOGICAL:
            demand(set(operands.dtypes) == {np.dtype(bool)}, f"{primitive!r} of the bits of numbers")
        return graph.add(_OPERATORS.get(primitive) or _LOGICAL[primitive], operands.names)

    return write


def _converter(write: Callable[[Graph, _Operands], str]) -> Any:
    def convert(
        graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
    ) -> Sequence[Value]:
        (result,) = results
        order = _common_order(inputs, len(result.shape))
        names = [graph.stored(value, order if value.shape else ()) for value in inputs]
        name = write(graph, _Operands(names, [value.dtype for value in inputs], params, result))
        thin = [value.thin for value in inputs if value.shape]
        all_thin = frozenset.intersection(*thin) if thin else frozenset[int]()
        return [graph.value(name, *result, order=order, thin=all_thin)]

    return convert


def _common_order(inputs: Sequence[Value], rank: int) -> tuple[int, ...]:
    """Returns the order of axes of the first argument that is no constant and not thin, which is the largest."""
    tensors = [value for value in inputs if len(value.shape) == rank and isinstance(value.stored, str)]
    return min(tensors, key=lambda value: len(value.thin)).order if tensors else tuple(range(rank))


ELEMENTWISE = frozenset({*_OPERATORS, *_LOGICAL, *_COMPOSED})

CONVERTERS.update({name: _converter(_operator(name)) for name in (*_OPERATORS, *_LOGICAL)})
CONVERTERS.update({name: _converter(write) for name, write in _COMPOSED.items()})
