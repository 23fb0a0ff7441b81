"""Cost of an encoder in multiply-accumulates, counted on its trace without running or compiling anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core
from jax.sharding import PartitionSpec

from ecgjax.encoders import Encoder, Split, apply
from ecgjax.encoders.operations.time_blocks import useful
from ecgjax.objectives.pairs.ring import RECOMPUTED

#: Number of products of the size of the scores in cuDNN's attention, by primitive. Forwards these are the scores and
#: the weighted values; backwards the gradients of values, weights, queries and keys (the scores are computed again,
#: which does not count).
_FUSED_ATTENTION = {"dot_product_attention_fwd": 2, "dot_product_attention_bwd": 4}


def macs(encoder: Split[Encoder], shape: tuple[int, int]) -> int:
    """Returns the multiply-accumulates of embedding one record at inference.

    Args:
        encoder: Encoder that `encoders.create` or `encoders.abstract` returned.
        shape: Shape of the record, (time, lead).

    Returns:
        Number of multiply-accumulates of convolutions and matrix products; additions, normalisations and activations
        are not counted.
    """
    ecg = jax.ShapeDtypeStruct((1, *shape), jnp.float32)

    def forward(params: Any, stats: Any, ecg: Array) -> Array:
        return apply(Split(encoder.graph, params, stats), ecg, train=False)[0]

    return macs_of(forward, encoder.params, encoder.stats, ecg)


def macs_of(function: Callable[..., Any], *args: Any) -> int:
    """Returns the multiply-accumulates of `function(*args)`, as `macs_of_trace` counts them.

    Args:
        function: Any function that JAX can trace.
        *args: Trees of arrays, or of `jax.ShapeDtypeStruct`.

    Raises:
        ValueError: The function has products in a loop whose number of rounds is not fixed (`while`).
    """
    return macs_of_trace(jax.make_jaxpr(function)(*args).jaxpr)


def step_flops(trace: core.Jaxpr) -> float | None:
    """Returns the floating-point operations of a training step on all devices; None where loops have unknown lengths.

    There are two operations for each multiply-accumulate of `macs_of_trace`. These are the operations that the model
    asks for, by which MFU is defined (Chowdhery et al., PaLM, 2022, appendix B). What is computed again to save memory
    does not count, so that neither `config.micro_batch.parts`, nor an encoder's `remat`, nor the form of a tiling
    changes the number (except for zeros that fill up the last tile of keys). The products of metrics and of the
    optimiser count.

    Args:
        trace: Trace of the whole step, such as `jax.jit(step).trace(state, batch).jaxpr.jaxpr`.
    """
    try:
        return 2.0 * macs_of_trace(trace)
    except ValueError:
        return None


def macs_of_trace(trace: core.Jaxpr) -> int:
    """Returns the multiply-accumulates of convolutions and matrix products in a trace, of all devices together.

    Products with padding count, as they do in the figures that papers give; products with the zeros that a transposed
    convolution puts between samples do not. A loop's products count in every round, those of `cond` in the costliest
    branch, and those of `shard_map`, whose shapes are one device's, on every device among which the work is divided.
    What `jax.checkpoint` computes again in a backward pass does not count, nor do the zeros that a convolution over
    blocks of time multiplies (`time_blocks`).

    Args:
        trace: Trace of a function, such as `jax.make_jaxpr(function)(*args).jaxpr`.

    Raises:
        ValueError: There are products in a loop whose number of rounds is not fixed (`while`).
    """
    return sum(macs_of_equation(equation) for equation in trace.eqns if not _is_recomputed(equation))


def shaped(variable: core.Var | core.Literal) -> jax.core.ShapedArray:
    """Returns shape and type of an argument or a result of an equation of a trace.

    Raises:
        TypeError: The variable is no array.
    """
    if not isinstance(variable.aval, jax.core.ShapedArray):
        raise TypeError(f"{variable.aval} is no array")
    return variable.aval


def macs_of_equation(equation: core.JaxprEqn) -> int:
    """Returns the multiply-accumulates of one equation of a trace, as `macs_of_trace` counts them."""
    if equation.primitive.name == "dot_general":
        return useful(str(equation.source_info.name_stack), _macs_computed(equation))
    return _macs_computed(equation)


def _macs_computed(equation: core.JaxprEqn) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        kernel, out = shaped(equation.invars[1]).shape, shaped(equation.outvars[0]).shape
        features_out = kernel[params["dimension_numbers"].rhs_spec[0]]
        # The kernel's shape has the input features of one group alone.
        return math.prod(out) * math.prod(kernel) // features_out // math.prod(params["lhs_dilation"])
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left, out = shaped(equation.invars[0]).shape, shaped(equation.outvars[0]).shape
        return math.prod(out) * math.prod(left[axis] for axis in contracted)
    if products := _FUSED_ATTENTION.get(name.removesuffix("_wrapper")):
        query, key = (shaped(variable).shape for variable in equation.invars[:2])  # [batch, token, head, feature]
        return products * math.prod(query) * key[1]
    inner = [macs_of_trace(trace) for trace in core.jaxprs_in_params(params)]
    if name == "cond":
        return max(inner)
    if name == "while" and sum(inner) > 0:
        raise ValueError("a while loop with products in it: how often it runs cannot be told from the trace")
    return rounds(equation) * sum(inner)


def rounds(equation: core.JaxprEqn) -> int:
    """Returns how often an equation's inside is computed: rounds of a scan, devices that share a `shard_map`'s work."""
    if equation.primitive.name == "scan":
        return equation.params["length"]
    return _devices(equation.params) if equation.primitive.name == "shard_map" else 1


def _devices(params: Mapping[str, Any]) -> int:
    """Returns the number of devices among which a `shard_map` divides its work.

    Devices along an axis that no argument is cut along repeat the work. What a forward pass keeps for the backward pass
    is cut along all axes, whether or not it differs between them: such an array is ignored, as long as there are
    others.
    """
    manual = frozenset(params["newly_manual_axes"])
    cuts = [frozenset(_names(spec)) & manual for spec in (*params["in_specs"], *params["out_specs"])]
    along = frozenset().union(*(cut for cut in cuts if cut != manual)) or frozenset().union(*cuts)
    return math.prod(params["mesh"].shape[axis] for axis in along)


def _names(spec: PartitionSpec) -> Iterator[str]:
    """Yields the axes that an array is cut along."""
    for entry in spec:
        yield from (entry,) if isinstance(entry, str) else entry or ()


def _is_recomputed(equation: core.JaxprEqn) -> bool:
    """Returns whether an equation of a backward pass repeats a computation of the forward pass.

    JAX marks such equations in its name stack. The gradients of what is computed again stand inside a `transpose(…)`,
    under the same mark.
    """
    before, found, _ = str(equation.source_info.name_stack).partition(RECOMPUTED)
    return bool(found) and "transpose(" not in before
