"""The primitives of JAX that have a form in ONNX, each with the function that writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ecgjax.export.onnx.graph import Graph, Shape, UnsupportedError, Value


class Result(NamedTuple):
    """Shape and type of what an equation of a trace returns."""

    shape: Shape
    dtype: np.dtype


#: Function that writes an equation: graph, arguments, parameters of the equation, its results → values of the results.
Converter = Callable[[Graph, Sequence[Value], Mapping[str, Any], Sequence[Result]], Sequence[Value]]

CONVERTERS: dict[str, Converter] = {}


def converts(*primitives: str) -> Callable[[Converter], Converter]:
    """Returns a decorator that registers a function as the one that writes some primitives."""

    def register(converter: Converter) -> Converter:
        CONVERTERS.update(dict.fromkeys(primitives, converter))
        return converter

    return register


def demand(holds: bool, what: str) -> None:
    """Raises an `UnsupportedError` that names what there is no form for, unless the condition holds."""
    if not holds:
        raise UnsupportedError(what)
