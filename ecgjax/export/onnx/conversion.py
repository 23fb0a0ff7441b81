"""The walk through a trace that writes each equation into a graph, computes constants, and opens calls and scans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

# These modules register what they convert.
from ecgjax.export.onnx import movement, reductions, windows  # noqa: F401
from ecgjax.export.onnx.elementwise import ELEMENTWISE
from ecgjax.export.onnx.graph import Graph, UnsupportedError, Value, constant, empty, full_array, is_empty
from ecgjax.export.onnx.registry import CONVERTERS, Result, demand

#: Primitives that only call a trace → name of the parameter that holds it.
CALLS = {
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "remat2": "jaxpr",
}

#: Primitives that only move a constant's numbers, which stay those of a weight.
_MOVES = frozenset({"broadcast_in_dim", "copy", "reshape", "squeeze", "stop_gradient", "transpose"})

#: Primitives that write constants by themselves.
_OF_CONSTANTS = frozenset({"broadcast_in_dim", "iota", "transpose"})


def supported() -> list[str]:
    """Returns the names of the primitives that have a form in ONNX."""
    return sorted({*CONVERTERS, *CALLS, "scan"})


def convert(graph: Graph, trace: Any, inputs: Sequence[Value]) -> list[Value]:
    """Writes a trace into a graph.

    Args:
        graph: Graph that nodes are added to.
        trace: Trace of a function, with its constants or without any.
        inputs: Values of the function's arguments.

    Returns:
        Values of its results.

    Raises:
        UnsupportedError: A primitive of the trace has no form in ONNX.
    """
    return _walk(graph, _opened(trace), [constant(_float32(each)) for each in getattr(trace, "consts", ())], inputs)


def _opened(trace: Any) -> core.Jaxpr:
    return getattr(trace, "jaxpr", trace)


def _walk(graph: Graph, jaxpr: core.Jaxpr, consts: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))

    def read(variable: core.Var | core.Literal) -> Value:
        return constant(_float32(variable.val)) if isinstance(variable, core.Literal) else known[variable]

    for equation in _needed(jaxpr):
        results = [_result(variable) for variable in equation.outvars]
        if _are_empty(equation.outvars):
            values: Sequence[Value] = [empty(*result) for result in results]
        else:
            values = _equation(graph, equation, [read(variable) for variable in equation.invars], results)
        known.update(zip(equation.outvars, values, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _needed(jaxpr: core.Jaxpr) -> list[core.JaxprEqn]:
    """Returns the equations whose results are used. Padding by nothing, for one, asks for the last row of the batch."""
    used, needed = {each for each in jaxpr.outvars if not isinstance(each, core.Literal)}, []
    for equation in reversed(jaxpr.eqns):
        if not used.isdisjoint(equation.outvars):
            needed.append(equation)
            if not _are_empty(equation.outvars):
                used.update(each for each in equation.invars if not isinstance(each, core.Literal))
    return needed[::-1]


def _are_empty(variables: Sequence[core.Var]) -> bool:
    return all(is_empty(_result(variable).shape) for variable in variables)


def _result(variable: core.Var | core.Literal) -> Result:
    demand(isinstance(variable.aval, jax.core.ShapedArray), f"{variable.aval}, which is no array")
    aval: Any = variable.aval
    return Result(aval.shape, _dtype(aval.dtype))


def _equation(
    graph: Graph, equation: core.JaxprEqn, inputs: Sequence[Value], results: Sequence[Result]
) -> Sequence[Value]:
    primitive = equation.primitive.name
    if primitive in CALLS:
        return convert(graph, equation.params[CALLS[primitive]], inputs)
    if primitive == "scan":
        return _scan(graph, equation.params, inputs, results)
    computed = _computed(equation, inputs, results)
    if computed is not None:
        return computed
    if primitive not in CONVERTERS:
        raise UnsupportedError(
            f"{primitive!r}{_place(equation)} has no form in ONNX here; those that have one: {', '.join(supported())}"
        )
    try:
        if primitive != "concatenate":
            demand(not any(is_empty(value.shape) for value in inputs), "an array without numbers")
        return CONVERTERS[primitive](graph, inputs, equation.params, results)
    except UnsupportedError as error:
        raise UnsupportedError(f"{primitive!r}{_place(equation)} has no form in ONNX here for {error}") from None


def _place(equation: core.JaxprEqn) -> str:
    stack = str(equation.source_info.name_stack)
    return f" (in {stack})" if stack else ""


def _scan(graph: Graph, params: Mapping[str, Any], inputs: Sequence[Value], results: Sequence[Result]) -> list[Value]:
    """Writes the body of a scan once for every round."""
    consts, carry, columns = _parts_of_scan(_opened(params["jaxpr"]), inputs, results)
    rounds = range(params["length"])
    out: dict[int, list[Value]] = {}
    for step in reversed(rounds) if params["reverse"] else rounds:
        rows = [_row(graph, column, step) for column in columns]
        carry_and_row = convert(graph, params["jaxpr"], [*consts, *carry, *rows])
        carry, out[step] = carry_and_row[: len(carry)], carry_and_row[len(carry) :]
    return [*carry, *(_stacked(graph, column) for column in zip(*(out[step] for step in rounds), strict=True))]


def _parts_of_scan(
    body: core.Jaxpr, inputs: Sequence[Value], results: Sequence[Result]
) -> tuple[list[Value], list[Value], list[Value]]:
    """Returns the constants, the first carry and the columns, of which each round gets a row.

    How many there are of each, the parameters of a scan tell in another way from one JAX to the next. A column has one
    axis more than the argument of the body.
    """
    num_columns = sum(len(value.shape) > _rank(inner) for value, inner in zip(inputs, body.invars, strict=True))
    num_stacked = sum(len(result.shape) > _rank(inner) for result, inner in zip(results, body.outvars, strict=True))
    last = len(inputs) - num_columns
    first = last - (len(results) - num_stacked)
    return list(inputs[:first]), list(inputs[first:last]), list(inputs[last:])


def _rank(variable: core.Var | core.Literal) -> int:
    return len(_result(variable).shape)


def _row(graph: Graph, column: Value, step: int) -> Value:
    array = full_array(column)
    if array is not None:
        return constant(array[step], label=None if column.label is None else f"{column.label}[{step}]")
    name = graph.add("Gather", [graph.whole(column), graph.initialiser(np.array(step, np.int64))], axis=0)
    return graph.value(name, column.shape[1:], column.dtype)


def _stacked(graph: Graph, rows: Sequence[Value]) -> Value:
    parts = [graph.add("Unsqueeze", [graph.whole(row), graph.numbers(0)]) for row in rows]
    return graph.value(graph.add("Concat", parts, axis=0), (len(rows), *rows[0].shape), rows[0].dtype)


def _computed(equation: core.JaxprEqn, inputs: Sequence[Value], results: Sequence[Result]) -> list[Value] | None:
    """Returns the results of an equation of constants alone, or None where they are no constants."""
    primitive = equation.primitive.name
    if primitive in _OF_CONSTANTS or not inputs or any(isinstance(value.stored, str) for value in inputs):
        return None
    arrays: Sequence[np.ndarray | None]
    if primitive in ELEMENTWISE:
        arrays = _alike([np.asarray(value.stored) for value in inputs])
    else:
        arrays = [full_array(value) for value in inputs]
    known = [array for array in arrays if array is not None]
    if len(known) < len(arrays):
        return None
    params = {name: _parameter(value) for name, value in equation.params.items()}
    with jax.default_device(_processor()):
        out = equation.primitive.bind(*map(jnp.asarray, known), **params)
    out = out if equation.primitive.multiple_results else [out]
    label = _label(primitive, inputs)
    return [
        constant(np.asarray(array), shape=result.shape, label=label) for array, result in zip(out, results, strict=True)
    ]


def _processor() -> jax.Device:
    """Returns the processor where JAX may use it, so that a file is the same wherever it is written."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]


def _alike(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the arrays at the shape that they broadcast to."""
    return list(np.broadcast_arrays(*arrays))


def _label(primitive: str, inputs: Sequence[Value]) -> str | None:
    labels: Iterator[str] = (value.label for value in inputs if value.label is not None)
    label = next(labels, None)
    return label if label is None or primitive in _MOVES else f"{label.partition(':')[0]}:{primitive}"


def _parameter(value: Any) -> Any:
    return jnp.dtype("float32") if isinstance(value, np.dtype) and value == jnp.bfloat16 else value


def _dtype(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float32) if dtype == jnp.bfloat16 else np.dtype(dtype)


def _float32(array: Any) -> np.ndarray:
    array = np.asarray(array)
    return array.astype(_dtype(array.dtype))
