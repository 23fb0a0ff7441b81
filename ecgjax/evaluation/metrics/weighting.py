"""Metrics as functions of weights on the records, which compute the estimate as well as its bootstrap.

A resample is a vector of integer weights. A metric of `[weightings, n]` weights costs one matrix product for thousands
of resamples where a loop over resampled records would cost thousands of passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from data_pipelines.errors import DataError

#: Function of weights `f64[weightings, n]`, none negative, that returns `f64[weightings]`, NaN where it is undefined.
Metric = Callable[[np.ndarray], np.ndarray]


def estimate(metric: Metric, number: int) -> float:
    """Returns the value of a metric on `number` records as they are, each with weight one."""
    return float(metric(np.ones((1, number)))[0])


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> Metric:
    """Returns the metric Σ weight · numerator / Σ weight · denominator, NaN where the denominator's sum is not above 0.

    Args:
        numerator: Numerator of each record, `[n]`.
        denominator: Denominator of each record, `[n]`, none negative.
    """
    columns = np.stack([numerator, denominator], axis=1).astype(np.float64)

    def metric(weights: np.ndarray) -> np.ndarray:
        sums = np.asarray(weights, np.float64) @ columns
        return divide(sums[:, 0], sums[:, 1])

    return metric


def mean(values: np.ndarray) -> Metric:
    """Returns the weighted mean of `[n]` values as a metric."""
    return ratio(values, np.ones(len(values)))


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns the quotient, NaN where the denominator is not above 0, as an array of the numerator's shape."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, math.nan), where=denominator > 0)


def check_binary(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels as `int64[n]` and scores as they are given.

    Raises:
        DataError: Shapes differ, a label is not 0 or 1, or a score is not finite.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise DataError(f"labels {labels.shape} and scores {scores.shape} must be two vectors of equal length")
    if not np.isin(labels, (0, 1)).all():
        raise DataError("labels must be 0 or 1; leave records without a label out before scoring")
    check_finite(scores, "scores")
    return labels.astype(np.int64), scores


def check_probabilities(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels as `int64[n]` and probabilities as `f64[n]`.

    Raises:
        DataError: `check_binary` raises it, or a probability lies outside [0, 1].
    """
    labels, probabilities = check_binary(labels, probabilities)
    if outside := np.count_nonzero((probabilities < 0) | (probabilities > 1)):
        raise DataError(
            f"{outside} of {len(probabilities)} probabilities lie outside 0 to 1; turn log odds into them first"
        )
    return labels, probabilities.astype(np.float64)


def check_finite(values: np.ndarray, what: str) -> None:
    """Raises a `DataError` if a value is NaN or infinite.

    Args:
        values: Array of any shape.
        what: Name of the values in the plural, for the message.
    """
    if bad := np.count_nonzero(~np.isfinite(values)):
        raise DataError(f"{bad} of {values.size} {what} are not finite")


def on_rows(metric: Metric, rows: np.ndarray) -> Metric:
    """Returns a metric of some records as a function of weights on all records.

    Args:
        metric: Metric of the records of `rows`.
        rows: Positions of these records among all records, `int64[m]`.
    """
    return lambda weights: metric(np.atleast_2d(weights)[:, rows])
