"""The compilation of a step, with the number of its operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import jax
from jax.sharding import Mesh
from jax.stages import Traced

from ecgjax.encoders import cost
from ecgjax.placement.target import traced_for
from ecgjax.training.debugging.nan_checks import checked, telling

State = TypeVar("State")
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]


def compile_step(
    step: Callable[[State, Batch], tuple[State, Metrics]],
    state: State,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    *,
    shardings: Any,
    everywhere: jax.sharding.NamedSharding,
    nan_checks: bool,
) -> tuple[Callable[[State, Batch], tuple[State, Metrics]], float | None]:
    """Returns a compiled step, which donates its state, and its FLOP on all devices together, None where unknown.

    One trace serves to compile and to count operations: the compiler's own count takes a loop's body only once.

    Args:
        step: Function `(state, batch) → (state, metrics)`.
        state: State before the first step.
        batch: Shapes, types and shardings of a batch.
        shardings: Shardings of the state.
        everywhere: Sharding of what is the same on every device.
        nan_checks: Whether every operation is checked for NaN.
    """
    traced = trace_step(step, state, batch, shardings=shardings, everywhere=everywhere, nan_checks=nan_checks)
    compiled = traced.lower().compile()
    return telling(compiled) if nan_checks else compiled, cost.step_flops(traced.jaxpr.jaxpr)


def trace_step(
    step: Callable[[State, Batch], tuple[State, Metrics]],
    state: State,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    *,
    shardings: Any,
    everywhere: jax.sharding.NamedSharding,
    nan_checks: bool = False,
) -> Traced:
    """Returns the trace of a step that donates its state, for the devices of its mesh; arguments: `compile_step`."""
    function: Callable[..., Any] = checked(step) if nan_checks else step
    after: Any = (shardings, everywhere)
    if nan_checks:
        after = (everywhere, after)  # The error of the checks comes first.
    with traced_for(cast(Mesh, everywhere.mesh)):
        return jax.jit(function, donate_argnums=0, out_shardings=after).trace(state, batch)
