"""What is asked of a task head beside the metric loss: supervised metric learning (Jeong et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import optax
from jax import Array

from ecgjax.objectives.pairs import outputs
from ecgjax.objectives.pairs.outputs import LossOutput

#: Under the root of the mean square error, whose gradient has no end at 0 without it.
RMSE_EPSILON = 1e-6

TaskLoss = Callable[..., LossOutput]


def binary_cross_entropy(predictions: Array, labels: Array, *, valid: Array) -> LossOutput:
    """Cross-entropy of logits against labels 0 and 1.

    Args:
        predictions: logits, `f32[rows]`.
        labels: `f32[rows]`; a row whose label is NaN does not count.
        valid: `bool[rows]`.

    Returns:
        The mean over the rows that count, and `accuracy`.
    """
    counts, labels = _counted(labels, valid)
    per_row = optax.sigmoid_binary_cross_entropy(predictions, labels)
    accuracy = outputs.mean_where(((predictions > 0) == (labels > 0.5)).astype(jnp.float32), counts)
    return outputs.output(per_row, counts, {"accuracy": accuracy}, reducer=outputs.mean_of_counted)


def root_mean_square_error(predictions: Array, labels: Array, *, valid: Array) -> LossOutput:
    """√(mean (ŷ − y)² + ε) over the rows that count, in the label's unit.

    Args:
        predictions: `f32[rows]`.
        labels: `f32[rows]`; a row whose label is NaN does not count.
        valid: `bool[rows]`.

    Returns:
        The root; `per_row` are the squares.
    """
    counts, labels = _counted(labels, valid)

    def root(squares: Array, counts: Array) -> Array:
        mean = outputs.mean_of_counted(squares, counts)
        return jnp.where(counts.any(), jnp.sqrt(mean + jnp.float32(RMSE_EPSILON)), jnp.float32(0))

    return outputs.output((predictions - labels) ** 2, counts, {}, reducer=root)


#: Name in a config → loss.
TASKS: Mapping[str, TaskLoss] = {"binary": binary_cross_entropy, "regression": root_mean_square_error}


def _counted(labels: Array, valid: Array) -> tuple[Array, Array]:
    counts = valid & jnp.isfinite(labels)
    return counts, jnp.where(counts, labels, jnp.float32(0))
