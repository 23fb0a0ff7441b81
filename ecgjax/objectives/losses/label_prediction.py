"""Losses of a task head's predictions, which are added to a metric loss (Jeong et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import optax
from jax import Array

from ecgjax.objectives.pairs import outputs
from ecgjax.objectives.pairs.outputs import LossOutput

#: Added to the mean square error under its root, whose gradient would be infinite at 0 without it.
RMSE_EPSILON = 1e-6

TaskLoss = Callable[..., LossOutput]


def binary_cross_entropy(predictions: Array, labels: Array, *, valid: Array) -> LossOutput:
    """Returns the cross-entropy of logits against labels 0 and 1.

    Args:
        predictions: Logits, `f32[rows]`.
        labels: Labels, `f32[rows]`; a row whose label is NaN does not count.
        valid: Rows that hold a recording, `bool[rows]`; the others do not count.

    Returns:
        The mean over the rows that count, in nats, and the statistic `accuracy`, from 0 to 1.
    """
    counts, labels = _counted(labels, valid)
    per_row = optax.sigmoid_binary_cross_entropy(predictions, labels)
    accuracy = outputs.mean_where(((predictions > 0) == (labels > 0.5)).astype(jnp.float32), counts)
    return outputs.output(per_row, counts, {"accuracy": accuracy}, reducer=outputs.mean_of_counted)


def root_mean_square_error(predictions: Array, labels: Array, *, valid: Array) -> LossOutput:
    """Returns √(mean (ŷ − y)² + ε) over the rows that count, in the label's unit.

    Args:
        predictions: Predicted values, `f32[rows]`.
        labels: Labels, `f32[rows]`; a row whose label is NaN does not count.
        valid: Rows that hold a recording, `bool[rows]`; the others do not count.

    Returns:
        The root; `per_row` holds the squared errors.
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
    # NaN is replaced before the loss is computed: masked afterwards, it would still make the gradient NaN.
    return counts, jnp.where(counts, labels, jnp.float32(0))
