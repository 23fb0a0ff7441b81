"""Printable lines on which parameters lie where, and on what a device holds of them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from ecgjax.placement.parameter_layout import ParameterLayout

#: Parameters that have a line of their own, the largest first.
_MOST_LINES = 8
_COLUMNS = 80
#: Characters of a name in the table, of which the last ones are shown.
_WIDTH = 34


def describe_layout(layout: ParameterLayout, state: Any) -> list[str]:
    """Returns lines of at most 80 columns: a table where parameters are divided, totals, and warnings.

    Args:
        layout: Layout of the parameters.
        state: State of the run, arrays on the mesh.
    """
    divided = layout.divided
    whole, here = state_bytes(state)
    if not divided:
        total = f"state of parameters and optimiser: {_mb(whole)} MB, whole on every device"
        return [total, *_warnings(layout)]
    data, model = (layout.mesh.shape[axis] for axis in ("data", "model"))
    return [
        f"layout {layout.settings.sharding!r} on data {data} × model {model}: {len(divided)} of {len(layout.specs)} "
        "parameters are divided",
        *_table(layout),
        f"state of parameters and optimiser: {_mb(whole)} MB, {_mb(here)} MB on a device",
        *_warnings(layout),
    ]


def state_bytes(state: Any) -> tuple[int, int]:
    """Returns the bytes of a state, all of them and those that a device holds.

    Args:
        state: Tree of arrays on a mesh, or of their shapes with shardings.
    """
    leaves = jax.tree.leaves(state)
    of_shards = (_bytes_of(leaf.sharding.shard_shape(leaf.shape), leaf.dtype) for leaf in leaves)
    return sum(_bytes_of(leaf.shape, leaf.dtype) for leaf in leaves), sum(of_shards)


def _table(layout: ParameterLayout) -> Iterator[str]:
    def size(name: str) -> int:
        shape = layout.shapes[name]
        return _bytes_of(shape.shape, shape.dtype)

    yield f"  {'parameter':<{_WIDTH}} {'shape':<14} {'divided by':<12} {'MB':>6} {'here':>6}"
    names = sorted(layout.divided, key=lambda name: (-size(name), name))
    for name in names[:_MOST_LINES]:
        axes, here = ",".join(axis or "" for axis in layout.specs[name]), size(name) / layout.parts(name)
        shape = "×".join(map(str, layout.shapes[name].shape))
        short = name if len(name) <= _WIDTH else f"…{name[1 - _WIDTH :]}"
        yield f"  {short:<{_WIDTH}} {shape:<14} {axes:<12} {_mb(size(name)):>6} {_mb(here):>6}"
    if others := names[_MOST_LINES:]:
        every, here = sum(map(size, others)), sum(size(name) / layout.parts(name) for name in others)
        yield f"  {f'{len(others)} smaller ones':<{_WIDTH}} {'':<14} {'':<12} {_mb(every):>6} {_mb(here):>6}"


def _warnings(layout: ParameterLayout) -> Iterator[str]:
    settings, axes = layout.settings, {axis for spec in layout.divided.values() for axis in spec}
    model = layout.mesh.shape["model"]
    if model > 1 and "model" not in axes:
        yield from _wrapped(
            f"warning: config.mesh.model={model}, and no parameter is divided over the model axis: its devices compute "
            "the same. Take config.mesh.sharding=tensor, a rule, or config.mesh.model=1"
        )
    if settings.sharding != "replicated" and not axes:
        yield from _wrapped(
            f"warning: config.mesh.sharding={settings.sharding} divides no parameter here: {_reason(layout)}"
        )


def _wrapped(words: str) -> list[str]:
    return textwrap.wrap(words, _COLUMNS, break_long_words=False, break_on_hyphens=False)


def _reason(layout: ParameterLayout) -> str:
    axis = "data" if layout.settings.sharding == "fsdp" else "model"
    if layout.mesh.shape[axis] == 1:
        return f"the axis {axis} has one device" + (" (config.mesh.model)" if axis == "model" else "")
    if axis == "data":
        return f"none has config.mesh.fsdp_min_mb={layout.settings.fsdp_min_mb:g} MB and a dimension that divides"
    return "no kernel has a dimension that divides"


def _bytes_of(shape: Sequence[int], dtype: Any) -> int:
    return math.prod(shape) * dtype.itemsize


def _mb(size: float) -> str:
    return f"{size / 1e6:,.2f}" if size < 1e7 else f"{size / 1e6:,.0f}"
