"""Breakdown of a training step's time into its single products and the operations between them.

The products are taken from the step's trace, so that each convolution comes with its two gradients as the step computes
them, and each is timed alone beside a plain matrix product. The time of the step beyond their sum is spent on
normalisation, activation, dropout, pooling, augmentation and moving memory; operations on whole layers are timed at the
shapes of the step.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterable
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend import core

from data_pipelines.benchmarks import harness
from ecgjax import encoders
from ecgjax.benchmarks.step_ceilings import Timed
from ecgjax.encoders import cost
from ecgjax.encoders.operations import layers
from ecgjax.encoders.operations.pooling import max_pool
from ecgjax.keys import row_keys

#: Share of all FLOP below which products are not timed; `products_left_out_of_flops` is the sum of their shares.
LEAST_SHARE = 0.002

_PRODUCTS = ("conv_general_dilated", "dot_general")


class _Product(TypedDict):
    """An entry of `products` in the result of `breakdown`."""

    product: str
    times: int
    ms: float
    flops_per_sec: float
    of_matrix_product: float


def breakdown(
    function: Callable[..., Any], args: tuple[Any, ...], *, product: Timed, step_s: float, num_devices: int = 1
) -> dict[str, Any]:
    """Times the products of a step one by one, and normalisation, dropout and pooling at the step's shapes.

    A product is a convolution or a matrix product; equal ones are timed once, and small ones not (`LEAST_SHARE`).

    Args:
        function: Function of the step before it is compiled, which `jax.make_jaxpr` can trace.
        args: Arguments that the function is traced with, arrays or shapes.
        product: Plain matrix product on one device, timed in turn with the step's products, each of which also runs on
            one device; its rate is the one to compare with.
        step_s: Seconds of the whole step.
        num_devices: Number of devices that the step runs on and divides its products among.

    Returns:
        Values for JSON: `products`, the most expensive first, each with its number of times in the step (including
        recomputation in the backward pass), the milliseconds on each device of all these times, FLOP/s, and share of
        the matrix product's rate; the sum of their milliseconds, and those of the step beyond that sum; and
        `layers_ms`, the milliseconds of a normalisation with ReLU, a dropout and a pooling with their gradients, and of
        a copy of the same array.
    """
    equations = all_equations(jax.make_jaxpr(function)(*args).jaxpr)
    counts: collections.Counter[str] = collections.Counter()
    by_name: dict[str, core.JaxprEqn] = {}
    for times, equation in equations:
        if equation.primitive.name in (*_PRODUCTS, "reduce_window_max"):
            name = _describe(equation)
            counts[name] += times
            by_name[name] = equation
    flops = {name: 2 * cost.macs_of_equation(by_name[name]) for name in counts}
    total = sum(flops[name] * counts[name] for name in counts)
    timed = [name for name in counts if flops[name] and flops[name] * counts[name] >= LEAST_SHARE * total]
    programs = {name: _alone(by_name[name]) for name in timed}
    of_layers = _layers(by_name.values())
    seconds = harness.take_turns({"matrix product": product.run, **programs, **of_layers})
    rate = product.amount / seconds["matrix product"]
    lines: list[_Product] = [
        {
            "product": name,
            "times": counts[name],
            "ms": 1e3 * seconds[name] * counts[name] / num_devices,
            "flops_per_sec": flops[name] / seconds[name],
            "of_matrix_product": flops[name] / seconds[name] / rate,
        }
        for name in timed
    ]
    products_ms = sum(line["ms"] for line in lines)
    flops_timed = sum(flops[name] * counts[name] for name in timed)
    return {
        "matrix_product_flops_per_sec": rate,
        "products": sorted(lines, key=lambda line: -line["ms"]),
        "products_ms": products_ms,
        "products_of_matrix_product": flops_timed / num_devices / (products_ms / 1e3) / rate,
        "products_left_out_of_flops": 1 - flops_timed / total,
        "beside_products_ms": 1e3 * step_s - products_ms,
        "layers_ms": {name: 1e3 * seconds[name] for name in of_layers},
    }


def all_equations(jaxpr: core.Jaxpr, times: int = 1) -> Iterable[tuple[int, core.JaxprEqn]]:
    """Yields the number of times that each equation is computed, on all devices together, and the equation."""
    for equation in jaxpr.eqns:
        yield times, equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from all_equations(inner, times * cost.rounds(equation))


def _describe(equation: core.JaxprEqn) -> str:
    shapes = " · ".join(_shape(variable) for variable in equation.invars)
    params = equation.params
    if equation.primitive.name == "conv_general_dilated":
        where = f"stride {params['window_strides'][0]}"
        if params["lhs_dilation"][0] > 1:
            where += f", input dilated {params['lhs_dilation'][0]}"
        if params["rhs_dilation"][0] > 1:
            where += f", kernel dilated {params['rhs_dilation'][0]}"
        return f"{_role(equation)}: {shapes} → {_shape(equation.outvars[0])}, {where}"
    return f"{equation.primitive.name}: {shapes} → {_shape(equation.outvars[0])}"


def _role(equation: core.JaxprEqn) -> str:
    """Returns which part of a convolution's forward and backward pass it is, from the form of JAX's gradients.

    A forward convolution takes `[batch, time, channel]` and a kernel `[time, in, out]`; the input's gradient takes the
    kernel with `in` and `out` exchanged; the kernel's gradient sums over the batch as if it were channels.
    """
    left, right, _ = equation.params["dimension_numbers"]
    if left[0] != 0:
        return "kernel gradient"
    return "input gradient" if right[0] < right[1] else "convolution"


def _shape(variable: core.Var | core.Literal) -> str:
    return "×".join(str(size) for size in cost.shaped(variable).shape)


def _alone(equation: core.JaxprEqn) -> Callable[[], Any]:
    """Returns a program that computes only this equation on random values."""
    rng = np.random.default_rng(0)
    given = [cost.shaped(variable) for variable in equation.invars]
    inputs = [jnp.asarray(rng.normal(size=each.shape), dtype=each.dtype) for each in given]
    program = jax.jit(lambda *inputs: equation.primitive.bind(*inputs, **equation.params))
    return lambda: jax.block_until_ready(program(*inputs))


def _layers(equations: Iterable[core.JaxprEqn]) -> dict[str, Callable[[], Any]]:
    """Returns programs of a normalisation, a dropout and a pooling, each with its gradient, and of a copy."""
    programs: dict[str, Callable[[], Any]] = {}
    for equation in equations:
        name, out = equation.primitive.name, cost.shaped(equation.outvars[0])
        if name == "conv_general_dilated" and _role(equation) == "convolution" and out.ndim == 3:
            x = jnp.asarray(np.random.default_rng(0).normal(size=out.shape), out.dtype)
            keys = row_keys(0, 0, jnp.arange(len(x)), stream="dropout")
            functions: dict[str, Callable[[Array], Array]] = {
                "copy": lambda x: x,
                "batch norm, ReLU": _batch_norm(x),
                "dropout": functools.partial(layers.row_dropout, keys=keys, rate=0.1),
            }
            of_shape = _shape(equation.outvars[0])
            programs |= {f"{layer} {of_shape}": _gradient(function, x) for layer, function in functions.items()}
        if name == "reduce_window_max":
            params = equation.params
            x = jnp.asarray(np.random.default_rng(0).normal(size=cost.shaped(equation.invars[0]).shape), out.dtype)
            pool = functools.partial(
                max_pool,
                window=params["window_dimensions"][1],
                stride=params["window_strides"][1],
                padding=params["padding"][1],
            )
            programs[f"max-pool {_shape(equation.invars[0])} → {_shape(equation.outvars[0])}"] = _gradient(pool, x)
    return programs


def _batch_norm(x: Array) -> Callable[[Array], Array]:
    norm = encoders.split(layers.BatchNorm(x.shape[2], dtype=x.dtype))
    valid = jnp.ones(len(x), bool)

    def normalise(x: Array) -> Array:
        # The module is built inside the function, because the statistics that it updates must belong to this trace.
        stats = jax.tree.map(lambda value: value + 0 * x[0, 0, 0].astype(value.dtype), norm.stats)
        module = encoders.merge(norm._replace(stats=stats))
        return jax.nn.relu(module(x, train=True, valid=valid))

    return normalise


def _gradient(function: Callable[[Array], Array], x: Array) -> Callable[[], Any]:
    """Returns a program that computes a function of `x` and its gradient for a random gradient of the output."""
    out = jax.eval_shape(function, x)
    given = jnp.asarray(np.random.default_rng(1).normal(size=out.shape), out.dtype)

    def both(x: Array, given: Array) -> tuple[Array, Array]:
        y, gradient = jax.vjp(function, x)
        return y, gradient(given)[0]

    program = jax.jit(both)
    return lambda: jax.block_until_ready(program(x, given))
