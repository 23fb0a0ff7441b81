"""An exponential moving average of the network's weights, which evaluation uses and loaded encoders have."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def average(before: Any, now: Any, *, decay: float, step: Array) -> Any:
    """Moves the average towards the weights after an update.

    The decay rises as 1 − 1 / (step + 1) up to `decay`. So early on the average is the mean of all weights since the
    first update, and the initialisation is forgotten at once (Tarvainen and Valpola, Mean teachers, NeurIPS 2017).
    Running statistics of batch norm are averaged with the weights that they belong to.

    Args:
        before: Average so far, a tree of float32 arrays.
        now: Weights after the update, a tree of the same structure.
        decay: Decay of the average, in [0, 1).
        step: Number of updates finished before this one, `i32[]`.

    Returns:
        The average after the update. Weights that do not change stay bit for bit.
    """
    share = jnp.maximum(jnp.float32(1 - decay), 1 / (step.astype(jnp.float32) + 1))
    return jax.tree.map(lambda mean, value: mean + share * (value - mean), before, now)
