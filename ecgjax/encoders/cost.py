"""What an encoder costs: multiply-accumulates, counted on its trace without running or compiling anything."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

from ecgjax.encoders import Split, apply


def macs(encoder: Split, shape: tuple[int, int]) -> int:
    """Multiply-accumulates of embedding one record at inference.

    Args:
        encoder: what `encoders.create` or `encoders.abstract` returned.
        shape: of the record, (time, lead).

    Returns:
        Those of convolutions and matrix products; additions, normalisations and activations are not counted.
    """
    ecg = jax.ShapeDtypeStruct((1, *shape), jnp.float32)

    def forward(params: Any, stats: Any, ecg: Array) -> Array:
        return apply(Split(encoder.graph, params, stats), ecg, train=False)[0]

    return macs_of(forward, encoder.params, encoder.stats, ecg)


def macs_of(function: Callable[..., Any], *args: Any) -> int:
    """Multiply-accumulates of the convolutions and matrix products in `function(*args)`.

    Products with padding count, as they do in the published figures; products with the zeros that a transposed
    convolution puts between samples do not.

    Args:
        function: any that JAX can trace.
        *args: trees of arrays, or of `jax.ShapeDtypeStruct`.

    Raises:
        ValueError: the function has a loop whose number of rounds its trace does not tell.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def _of_jaxpr(jaxpr: core.Jaxpr) -> int:
    return sum(macs_of_equation(equation) for equation in jaxpr.eqns)


def macs_of_equation(equation: core.JaxprEqn) -> int:
    """Multiply-accumulates of one equation of a trace; see `macs_of`."""
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        kernel, out = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
        features_out = kernel[params["dimension_numbers"].rhs_spec[0]]
        # The kernel's shape has the input features of one group alone.
        return math.prod(out) * math.prod(kernel) // features_out // math.prod(params["lhs_dilation"])
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        return math.prod(out) * math.prod(left[axis] for axis in contracted)
    inner = [_of_jaxpr(jaxpr) for jaxpr in core.jaxprs_in_params(params)]
    if name == "scan":
        return params["length"] * sum(inner)
    if name == "cond":
        return max(inner)
    if name == "while" and sum(inner):
        raise ValueError("a while loop with products in it: how often it runs cannot be told from the trace")
    return sum(inner)
