"""Primitives that move, choose or repeat numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from jax import export
from jax.lax import GatherScatterMode

from ecgjax.export.onnx.graph import Graph, Value, constant, empty, full_array, is_empty, is_static
from ecgjax.export.onnx.registry import Result, converts, demand


@converts("broadcast_in_dim")
def _broadcast_in_dim(
    graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
) -> Sequence[Value]:
    value, (result,) = inputs[0], results
    places = tuple(params["broadcast_dimensions"])
    shape = result.shape
    # An axis is thin where it is new or grows.
    thin = frozenset(
        axis
        for axis, length in enumerate(shape)
        if (axis not in places or places.index(axis) in value.thin or value.shape[places.index(axis)] != length)
        and not _is_one(length)
    )
    stored = tuple(
        1 if axis in thin or axis not in places else value.shape[places.index(axis)] for axis in range(len(shape))
    )
    if not isinstance(value.stored, str):
        return [constant(value.stored.reshape(stored), shape=shape, label=value.label)]
    name = graph.stored(value)
    if len(shape) > len(places):
        new = [axis for axis in range(len(shape)) if axis not in places]
        name = graph.add("Unsqueeze", [name, graph.numbers(*new)])
    return [graph.value(name, shape, result.dtype, thin=thin)]


def _is_one(length: Any) -> bool:
    return not export.is_symbolic_dim(length) and length == 1


@converts("transpose")
def _transpose(
    graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
) -> Sequence[Value]:
    del graph
    value, permutation = inputs[0], tuple(params["permutation"])
    moved = frozenset(permutation.index(axis) for axis in value.thin)
    if not isinstance(value.stored, str):
        array = value.stored.transpose(permutation)
        return [constant(array, shape=results[0].shape, label=value.label)]
    order = tuple(permutation.index(axis) for axis in value.order)
    return [dataclasses.replace(value, shape=results[0].shape, order=order, thin=moved)]


@converts("reshape")
def _reshape(
    graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
) -> Sequence[Value]:
    demand(params.get("dimensions") is None, "a reshape with a transposition")
    return [_with_shape(graph, inputs[0], results[0])]


@converts("squeeze")
def _squeeze(
    graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
) -> Sequence[Value]:
    del params
    return [_with_shape(graph, inputs[0], results[0])]


def _with_shape(graph: Graph, value: Value, result: Result) -> Value:
    return graph.value(graph.reshape(graph.whole(value), result.shape), result.shape, result.dtype)


@converts("concatenate")
def _concatenate(
    graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
) -> Sequence[Value]:
    parts = [graph.whole(value) for value in inputs if not is_empty(value.shape)]
    name = graph.add("Concat", parts, axis=params["dimension"]) if len(parts) > 1 else parts[0]
    return [graph.value(name, results[0].shape, results[0].dtype)]


@converts("stack")
def _stack(
    graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
) -> Sequence[Value]:
    axis = graph.numbers(params["axis"])
    parts = [graph.add("Unsqueeze", [graph.whole(value), axis]) for value in inputs]
    return [graph.value(graph.add("Concat", parts, axis=params["axis"]), results[0].shape, results[0].dtype)]


@converts("split")
def _split(
    graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
) -> Sequence[Value]:
    # A part without numbers has no node.
    sizes = [int(size) for size in params["sizes"]]
    kept = [size for size in sizes if size]
    operands = [graph.whole(inputs[0]), graph.numbers(*kept)]
    names = iter(graph.add_many("Split", operands, len(kept), axis=int(params["axis"])))
    return [
        graph.value(next(names), *result) if size else empty(*result)
        for size, result in zip(sizes, results, strict=True)
    ]


@converts("unstack")
def _unstack(
    graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
) -> Sequence[Value]:
    axis = int(params["axis"])
    sizes = graph.numbers(*[1] * len(results))
    names = graph.add_many("Split", [graph.whole(inputs[0]), sizes], len(results), axis=axis)
    return [
        graph.value(graph.add("Squeeze", [name, graph.numbers(axis)]), *result)
        for name, result in zip(names, results, strict=True)
    ]


@converts("slice")
def _slice(
    graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
) -> Sequence[Value]:
    (value,), (result,) = inputs, results
    strides = params["strides"] or (1,) * len(value.shape)
    name = graph.whole(value)
    for axis, length in enumerate(value.shape):
        start, stop, stride = params["start_indices"][axis], params["limit_indices"][axis], strides[axis]
        if not export.is_symbolic_dim(length):
            name = _sliced(graph, name, axis, (start, stop, stride), length)
        else:
            demand(_is_all(start, stop, stride, length), "a slice of the batch")
    return [graph.value(name, result.shape, result.dtype)]


def _is_all(start: Any, stop: Any, stride: Any, length: Any) -> bool:
    return bool(is_static([start, stride]) and start == 0 and stride == 1 and stop == length)


def _sliced(graph: Graph, name: str, axis: int, bounds: tuple[int, int, int], length: int) -> str:
    start, stop, stride = map(int, bounds)
    if (start, stop, stride) == (0, length, 1):
        return name
    return graph.add("Slice", [name, *(graph.numbers(each) for each in (start, stop, axis, stride))])


@converts("pad")
def _pad(
    graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
) -> Sequence[Value]:
    value, filling = inputs
    config = params["padding_config"]
    demand(all(inside == 0 for _, _, inside in config), "a padding between numbers")
    demand(not is_empty(value.shape), "a padding of nothing")
    pads = [(int(before), int(after)) for before, after, _ in config]
    return [graph.value(padded(graph, graph.whole(value), pads, graph.whole(filling)), *results[0])]


def padded(graph: Graph, name: str, pads: Sequence[tuple[int, int]], filling: str) -> str:
    """Returns the name of a tensor with numbers before and after each axis; negative counts cut numbers off.

    Args:
        graph: Graph that the node is added to.
        name: Name of the tensor to pad.
        pads: Numbers before and after, for each axis.
        filling: Name of the tensor that holds the one number to pad with.
    """
    before, after = zip(*pads, strict=True)
    return graph.add("Pad", [name, graph.numbers(*before, *after), filling], mode="constant")


@converts("iota")
def _iota(
    graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
) -> Sequence[Value]:
    del graph
    demand(not inputs, "an iota whose shape is an argument")
    shape, axis = results[0].shape, params["dimension"]
    demand(not export.is_symbolic_dim(shape[axis]), "a count along the batch")
    stored = [shape[axis] if each == axis else 1 for each in range(len(shape))]
    return [constant(np.arange(shape[axis], dtype=results[0].dtype).reshape(stored), shape=shape)]


@converts("sort")
def _sort(
    graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
) -> Sequence[Value]:
    demand(len(inputs) == 1, "a sort of several arrays by one of them")
    axis = params["dimension"]
    length = inputs[0].shape[axis]
    demand(not export.is_symbolic_dim(length), "a sort of the batch")
    operands = [graph.whole(inputs[0]), graph.numbers(length)]
    values, _ = graph.add_many("TopK", operands, 2, axis=axis, largest=0, sorted=1)
    return [graph.value(values, *results[0])]


@converts("gather")
def _gather(
    graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
) -> Sequence[Value]:
    value, indices = inputs
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    demand(len(numbers.start_index_map) == 1, "a gather by the places along several axes")
    (axis,) = numbers.start_index_map
    demand(not export.is_symbolic_dim(value.shape[axis]), "a gather from the batch")
    if numbers.operand_batching_dims:
        return [_gather_elements(graph, value, indices, params, results[0])]
    whole = all(sizes[each] == length for each, length in enumerate(value.shape) if each != axis)
    demand(whole, "a gather of parts along axes other than that of the places")
    known = full_array(indices)
    if known is None:
        demand(params["mode"] != GatherScatterMode.FILL_OR_DROP, "a gather whose places may lie outside")
        places, _ = _computed_places(graph, indices, value.shape[axis] - sizes[axis], params["mode"])
        return [_gather_slices(graph, value, places, len(indices.shape) - 1, params, results[0])]
    known = _known_places(known, value.shape[axis] - sizes[axis], params["mode"])
    if known.ndim == 0 and axis not in numbers.collapsed_slice_dims:
        bounds = (int(known), int(known) + sizes[axis], 1)
        return [graph.value(_sliced(graph, graph.whole(value), axis, bounds, value.shape[axis]), *results[0])]
    return [_gather_slices(graph, value, graph.initialiser(known), known.ndim, params, results[0])]


def _known_places(places: np.ndarray, last: int, mode: Any) -> np.ndarray:
    """Returns places that are constants, within bounds."""
    inside = bool(np.all((places >= 0) & (places <= last)))
    demand(inside or mode != GatherScatterMode.FILL_OR_DROP, "a gather from places that lie outside")
    return np.clip(places, 0, last).astype(np.int64)[..., 0]


def _computed_places(graph: Graph, indices: Value, last: int, mode: Any) -> tuple[str, str | None]:
    """Returns places within bounds, and where they lay there already; None in its place where that does not matter."""
    name = graph.reshape(graph.add("Cast", [graph.whole(indices)], to=onnx.TensorProto.INT64), indices.shape[:-1])
    bounds = [graph.initialiser(np.array(bound, np.int64)) for bound in (0, last)]
    places = graph.add("Min", [graph.add("Max", [name, bounds[0]]), bounds[1]])
    return places, graph.add("Equal", [places, name]) if mode == GatherScatterMode.FILL_OR_DROP else None


def _gather_slices(
    graph: Graph, value: Value, places: str, rank: int, params: Mapping[str, Any], result: Result
) -> Value:
    """Writes a gather of whole slices of one number's length, `rank` being the number of axes of the places."""
    numbers = params["dimension_numbers"]
    (axis,) = numbers.start_index_map
    one = params["slice_sizes"][axis] == 1 and axis in numbers.collapsed_slice_dims
    demand(one, "a gather of several numbers from each place")
    name = graph.add("Gather", [graph.whole(value), places], axis=axis)
    # ONNX puts the axes of the places where the axis was; JAX says where it wants the others.
    others = [each for each in range(len(value.shape)) if each != axis]
    here = [("other", each) for each in others if each < axis]
    here += [("place", each) for each in range(rank)]
    here += [("other", each) for each in others if each > axis]
    wanted_places = [each for each in range(len(result.shape)) if each not in numbers.offset_dims]
    wanted: list[tuple[str, int]] = [("", 0)] * len(result.shape)
    for number, place in enumerate(wanted_places):
        wanted[place] = ("place", number)
    for other, place in zip(others, sorted(numbers.offset_dims), strict=True):
        wanted[place] = ("other", other)
    if wanted != here:
        name = graph.add("Transpose", [name], perm=[here.index(each) for each in wanted])
    return graph.value(name, *result)


def _gather_elements(graph: Graph, value: Value, indices: Value, params: Mapping[str, Any], result: Result) -> Value:
    """Writes a gather of one number at each place, where all other axes are those of the places: `take_along_axis`."""
    numbers, rank = params["dimension_numbers"], len(value.shape)
    (axis,) = numbers.start_index_map
    others = tuple(each for each in range(rank) if each != axis)
    plain = (
        tuple(numbers.operand_batching_dims) == others == tuple(numbers.start_indices_batching_dims)
        and tuple(numbers.collapsed_slice_dims) == (axis,)
        and not numbers.offset_dims
        and len(indices.shape) == rank + 1
        and math.prod(params["slice_sizes"]) == 1
    )
    demand(plain, "a gather with a batch, other than take_along_axis")
    places, inside = _computed_places(graph, indices, value.shape[axis] - 1, params["mode"])
    name = graph.add("GatherElements", [graph.whole(value), places], axis=axis)
    if inside is not None:
        filling = params["fill_value"]
        demand(filling is not None and np.issubdtype(value.dtype, np.floating), "a gather that fills with a default")
        name = graph.add("Where", [inside, name, graph.initialiser(np.array(filling, value.dtype))])
    return graph.value(name, *result)
