"""Huber's loss over measurements of which some are missing, and how much of each the predictions explain.

References:
    Huber, Robust Estimation of a Location Parameter, Annals of Mathematical Statistics 1964.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from ecgjax.objectives.pairs import outputs
from ecgjax.objectives.pairs.outputs import LossOutput


class MeasurementLoss(NamedTuple):
    """The loss over measurements, and its sums for each.

    Attributes:
        output: Loss over all measured values; a row's own is the mean over its measurements.
        lost: Sum of the loss over the rows, for each measurement, `f32[measurements]`.
        lost_by_location: The same sum if every prediction were the measurement's location, `f32[measurements]`.
    """

    output: LossOutput
    lost: Array
    lost_by_location: Array


def masked_huber(
    predictions: Array,
    targets: Array,
    *,
    location: Array,
    scale: Array,
    predicted: Array,
    valid: Array,
    delta: float,
) -> MeasurementLoss:
    """Evaluates Huber's loss over all values that were measured, each in deviations of its measurement.

    An error e costs e² / 2 up to `delta` and delta · (|e| − delta / 2) beyond, so that a wave that was bounded wrongly
    pulls no harder than one that is `delta` off. The mean is over values and not over rows: a recording with half of
    its measurements counts half.

    Args:
        predictions: Predicted measurements in their units, `f32[rows, measurements]`.
        targets: Measurements in their units, `f32[rows, measurements]`; a value that is NaN does not count.
        location: Location of each measurement, `f32[measurements]`.
        scale: Scale of each measurement, `f32[measurements]`, above 0.
        predicted: Mask of the measurements that count, `bool[measurements]`.
        valid: Mask of the rows that count, `bool[rows]`.
        delta: Error, in deviations, from which the loss is linear.

    Returns:
        The mean of the loss over the values, and its sums for each measurement.
    """
    counts = valid[:, None] & predicted[None, :] & jnp.isfinite(targets)
    # NaN is replaced before the loss is computed: masked afterwards, it would still make the gradient NaN.
    targets = jnp.where(counts, targets, location[None, :])
    errors = _huber((predictions - targets) / scale[None, :], delta=delta)
    errors = jnp.where(counts, errors, jnp.float32(0))
    number = counts.sum(axis=1, dtype=jnp.float32)

    def over_values(per_row: Array, rows: Array) -> Array:
        return outputs.total(per_row * number, rows) / jnp.maximum(number.sum(), 1)

    per_row = errors.sum(axis=1) / jnp.maximum(number, 1)
    at_location = _huber((location[None, :] - targets) / scale[None, :], delta=delta)
    return MeasurementLoss(
        output=outputs.output(per_row, number > 0, {}, reducer=over_values),
        lost=errors.sum(axis=0),
        lost_by_location=jnp.where(counts, at_location, jnp.float32(0)).sum(axis=0),
    )


def _huber(errors: Array, *, delta: float) -> Array:
    # Optax's is a minimum of |e| and delta, whose gradient asks which of the two the result equals; that test can fail
    # where XLA computes them twice (see `encoders.operations.pooling.max_pool`).
    size = jnp.abs(errors)
    return jnp.where(size <= delta, errors**2 / 2, delta * (size - delta / 2))


def explained(lost: Array, lost_by_location: Array) -> Array:
    """Returns the share of a loss that predictions save: 1 of perfect ones, 0 of the location, below 0 of worse ones.

    With squared errors this would be R²; with Huber's loss a few wrong measurements do not decide it.

    Args:
        lost: Losses of the predictions, `f32[…]`.
        lost_by_location: Losses of the location, `f32[…]`; where it is 0, there is nothing to explain, and the share is
            NaN.
    """
    known = lost_by_location > 0
    return jnp.where(known, 1 - lost / jnp.where(known, lost_by_location, 1), jnp.float32(jnp.nan))
