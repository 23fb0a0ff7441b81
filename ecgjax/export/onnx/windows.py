"""Primitives that look at a window around every place: convolutions and max-pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecgjax.export.onnx.graph import Graph, Value, is_static
from ecgjax.export.onnx.movement import padded
from ecgjax.export.onnx.registry import Result, converts, demand


@converts("conv_general_dilated")
def _convolution(
    graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
) -> Sequence[Value]:
    (x, kernel), (result,) = inputs, results
    demand(all(each == 1 for each in params["lhs_dilation"]), "a transposed convolution (lhs_dilation)")
    demand(params["batch_group_count"] == 1, "a convolution with groups of rows (batch_group_count)")
    demand(x.dtype == np.float32, f"a convolution of {x.dtype}")
    numbers, pads = params["dimension_numbers"], _pads(params["padding"])
    name = graph.whole(x, tuple(numbers.lhs_spec))
    if any(side < 0 for sides in pads for side in sides):
        name = padded(graph, name, [(0, 0), (0, 0), *pads], graph.initialiser(np.zeros((), x.dtype)))
        pads = [(0, 0)] * len(pads)
    name = graph.add(
        "Conv",
        [name, graph.whole(kernel, tuple(numbers.rhs_spec))],
        group=params["feature_group_count"],
        kernel_shape=[kernel.shape[axis] for axis in numbers.rhs_spec[2:]],
        **_steps(params["window_strides"], params["rhs_dilation"], pads),
    )
    return [graph.value(name, *result, order=tuple(numbers.out_spec))]


def _pads(padding: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    return [(int(before), int(after)) for before, after in padding]


def _steps(strides: Sequence[int], dilations: Sequence[int], pads: Sequence[tuple[int, int]]) -> dict[str, list[int]]:
    before, after = zip(*pads, strict=True) if pads else ((), ())
    return {
        "strides": [*map(int, strides)],
        "dilations": [*map(int, dilations)],
        "pads": [*before, *after],
    }


@converts("reduce_window_max")
def _max_pool(
    graph: Graph, inputs: Sequence[Value], params: Mapping[str, Any], results: Sequence[Result]
) -> Sequence[Value]:
    (x,), (result,) = inputs, results
    demand(all(each == 1 for each in params["base_dilation"]), "a max-pool of spread numbers (base_dilation)")
    demand(x.dtype == np.float32, f"a max-pool of {x.dtype}")
    pads = _pads(params["padding"])
    windows, strides, dilations = (params[f"window_{each}"] for each in ("dimensions", "strides", "dilation"))
    moving = [axis for axis in range(len(x.shape)) if (windows[axis], strides[axis], pads[axis]) != (1, 1, (0, 0))]
    # ONNX pools all axes after the first two, which are rows and channels.
    still = [axis for axis in range(len(x.shape)) if axis not in moving]
    demand(len(still) == 2 and bool(moving), f"a max-pool along {len(moving)} of {len(x.shape)} axes")
    demand(is_static(x.shape[axis] for axis in moving), "a max-pool along the batch")
    order = (*still, *moving)
    name, pads = graph.whole(x, order), [pads[axis] for axis in moving]
    kernel = [windows[axis] for axis in moving]
    # A window of nothing but padding has the maximum −inf, for which onnxruntime writes the least number.
    fits = all(side < length for sides, length in zip(pads, kernel, strict=True) for side in sides)
    demand(fits, "a max-pool whose padding is as long as its window")
    if any(side < 0 for sides in pads for side in sides):
        lowest = graph.initialiser(np.array(-np.inf, x.dtype))
        name, pads = padded(graph, name, [(0, 0), (0, 0), *pads], lowest), [(0, 0)] * len(pads)
    steps = _steps([strides[axis] for axis in moving], [dilations[axis] for axis in moving], pads)
    name = graph.add("MaxPool", [name], kernel_shape=kernel, ceil_mode=0, **steps)
    return [graph.value(name, *result, order=order)]
