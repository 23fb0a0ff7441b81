"""Primitives that make one number of many: sums, extremes, and matrix products."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from ecgjax.export.onnx.graph import Graph, Value
from ecgjax.export.onnx.registry import Converter, Result, converts, demand


def _reduction(operator: str) -> Converter:
    def convert(
        graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
    ) -> Sequence[Value]:
        demand(params.get("out_sharding") is None, "a sum that is cut among devices")
        name, truth = graph.whole(inputs[0]), inputs[0].dtype == np.bool_
        if truth:
            name = graph.add("Cast", [name], to=onnx.TensorProto.INT32)
        name = graph.add(operator, [name, graph.numbers(*map(int, params["axes"]))], keepdims=0)
        if truth:
            name = graph.add("Cast", [name], to=onnx.TensorProto.BOOL)
        return [graph.value(name, *results[0])]

    return convert


for _primitive, _operator in {
    "reduce_and": "ReduceMin",
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_or": "ReduceMax",
    "reduce_sum": "ReduceSum",
}.items():
    converts(_primitive)(_reduction(_operator))


def _argument(operator: str) -> Converter:
    def convert(
        graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
    ) -> Sequence[Value]:
        (axis,) = params["axes"]
        # The first of several greatest numbers, as JAX takes it.
        name = graph.add(operator, [graph.whole(inputs[0])], axis=int(axis), keepdims=0, select_last_index=0)
        to = onnx.helper.np_dtype_to_tensor_dtype(results[0].dtype)
        return [graph.value(graph.add("Cast", [name], to=to), *results[0])]

    return convert


converts("argmax")(_argument("ArgMax"))
converts("argmin")(_argument("ArgMin"))


@converts("dot_general")
def _dot_general(
    graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
) -> Sequence[Value]:
    (left, right), (result,) = inputs, results
    demand(left.dtype == right.dtype == result.dtype, "a product of different types")
    (contracted, batched) = params["dimension_numbers"]
    free = [
        [axis for axis in range(len(value.shape)) if axis not in (*contracted[side], *batched[side])]
        for side, value in enumerate((left, right))
    ]
    # 1. Bring the axes of both into the order batch, rows, contracted, and batch, contracted, columns.
    names = [
        graph.whole(left, (*batched[0], *free[0], *contracted[0])),
        graph.whole(right, (*batched[1], *contracted[1], *free[1])),
    ]
    batch = [left.shape[axis] for axis in batched[0]]
    inner = [left.shape[axis] for axis in contracted[0]]
    rows, columns = ([value.shape[axis] for axis in free[side]] for side, value in enumerate((left, right)))
    # 2. Make one axis each of rows, columns and contracted. Without a batch the rows may stay as they are.
    left_rows = [math.prod(rows)] if batch else rows
    if len(inner) != 1 or len(left_rows) != len(rows):
        names[0] = graph.reshape(names[0], (*batch, *left_rows, math.prod(inner)))
    if len(inner) != 1 or len(columns) != 1:
        names[1] = graph.reshape(names[1], (*batch, math.prod(inner), math.prod(columns)))
    # 3. Multiply, and give rows and columns their axes back.
    name = graph.add("MatMul", names)
    if len(left_rows) != len(rows) or len(columns) != 1:
        name = graph.reshape(name, result.shape)
    return [graph.value(name, *result)]
