"""The compilation of a step, with the number of its operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

from ecgjax.encoders import cost
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

    Args:
        step: Function `(state, batch) → (state, metrics)`.
        state: State before the first step.
        batch: Shapes, types and shardings of a batch.
        shardings: Shardings of the state.
        everywhere: Sharding of what is the same on every device.
        nan_checks: Whether every operation is checked for NaN.
    """
    after = (shardings, everywhere)
    if nan_checks:
        traced = jax.jit(checked(step), donate_argnums=0, out_shardings=(everywhere, after)).trace(state, batch)
        return telling(traced.lower().compile()), cost.step_flops(traced.jaxpr.jaxpr)
    # One trace serves to compile and to count operations: the compiler's own count takes a loop's body only once.
    traced = jax.jit(step, donate_argnums=0, out_shardings=after).trace(state, batch)
    return traced.lower().compile(), cost.step_flops(traced.jaxpr.jaxpr)
