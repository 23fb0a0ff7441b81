"""Metrics of predicted quantities: errors, correlation, explained variance, agreement."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics.weighting import Metric, check_finite, divide, mean


def rmse(truth: np.ndarray, predicted: np.ndarray) -> Metric:
    """Returns the root mean squared error as a metric, in the unit of the quantity.

    Args:
        truth: True values, `[n]`.
        predicted: Predictions, `[n]`.

    Raises:
        DataError: Shapes differ, or values are not finite.
    """
    truth, predicted = _checked(truth, predicted)
    squared = mean((predicted - truth) ** 2)
    return lambda weights: np.sqrt(squared(weights))


def mae(truth: np.ndarray, predicted: np.ndarray) -> Metric:
    """Returns the mean absolute error as a metric, in the unit of the quantity; arguments and errors as in `rmse`."""
    truth, predicted = _checked(truth, predicted)
    return mean(np.abs(predicted - truth))


def pearson(truth: np.ndarray, predicted: np.ndarray) -> Metric:
    """Returns Pearson's correlation as a metric, NaN where either variable does not vary; arguments as in `rmse`."""
    x, y = _centred(*_checked(truth, predicted))
    columns = np.stack([x, y, x * x, y * y, x * y], axis=1)

    def metric(weights: np.ndarray) -> np.ndarray:
        total, moments = _moments(weights, columns)
        mx, my, xx, yy, xy = moments.T
        vx, vy = _variance(xx, mx), _variance(yy, my)
        r = divide(xy - mx * my, np.sqrt(vx * vy))
        return np.where(total > 0, np.clip(r, -1.0, 1.0), math.nan)

    return metric


def r_squared(truth: np.ndarray, predicted: np.ndarray) -> Metric:
    """Returns R², 1 − squared error / variance of the truth, as a metric; `rmse` describes arguments and errors.

    It is below 0 where the mean would predict better, and NaN where the truth does not vary.
    """
    truth, predicted = _checked(truth, predicted)
    x = truth - truth.mean() if len(truth) else truth
    columns = np.stack([x, x * x, (predicted - truth) ** 2], axis=1)

    def metric(weights: np.ndarray) -> np.ndarray:
        _, moments = _moments(weights, columns)
        mx, xx, error = moments.T
        return 1 - divide(error, _variance(xx, mx))

    return metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlandAltman:
    """Agreement of prediction and truth: the mean of the differences, and limits between which 95 % of them lie.

    Attributes:
        bias: Mean of prediction − truth, in the unit of the quantity.
        bias_interval: 95 % interval of the bias.
        lower: Lower limit of agreement, bias − 1.96 standard deviations.
        lower_interval: 95 % interval of the lower limit.
        upper: Upper limit of agreement, bias + 1.96 standard deviations.
        upper_interval: 95 % interval of the upper limit.
        number: Number of pairs.
    """

    bias: float
    bias_interval: tuple[float, float]
    lower: float
    lower_interval: tuple[float, float]
    upper: float
    upper_interval: tuple[float, float]
    number: int


def bland_altman(truth: np.ndarray, predicted: np.ndarray) -> BlandAltman:
    """Returns bias and limits of agreement, with intervals by Student's t.

    The intervals assume that the pairs are independent, so that each patient should have one record.

    Args:
        truth: True values, `[n]`, at least 3.
        predicted: Predictions, `[n]`.

    Raises:
        DataError: There are fewer than 3 pairs, shapes differ, or values are not finite.

    References:
        Bland and Altman, Measuring agreement in method comparison studies, Stat. Methods Med. Res. 8 (1999) 135.
    """
    # This is imported here because SciPy's statistics take a second to load and nothing else here needs them.
    from scipy import stats

    truth, predicted = _checked(truth, predicted)
    n = len(truth)
    if n < 3:
        raise DataError(f"limits of agreement need at least 3 records, not {n}")
    difference = predicted - truth
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    z, t = float(stats.norm.ppf(0.975)), float(stats.t.ppf(0.975, n - 1))
    of_bias = t * sd / math.sqrt(n)
    of_limit = t * sd * math.sqrt(1 / n + z * z / (2 * (n - 1)))
    lower, upper = bias - z * sd, bias + z * sd
    return BlandAltman(
        bias=bias,
        bias_interval=(bias - of_bias, bias + of_bias),
        lower=lower,
        lower_interval=(lower - of_limit, lower + of_limit),
        upper=upper,
        upper_interval=(upper - of_limit, upper + of_limit),
        number=n,
    )


def _checked(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    if truth.ndim != 1 or truth.shape != predicted.shape:
        raise DataError(f"truth {truth.shape} and prediction {predicted.shape} must be two vectors of equal length")
    check_finite(truth, "true values")
    check_finite(predicted, "predictions")
    return truth, predicted


def _centred(*columns: np.ndarray) -> tuple[np.ndarray, ...]:
    # Moments are taken about the records' own mean: about 0, the variance of 7.4 ± .01 would drown in rounding.
    return tuple(column - column.mean() if len(column) else column for column in columns)


def _moments(weights: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    weights = np.atleast_2d(np.asarray(weights, np.float64))
    total = weights.sum(axis=1)
    return total, divide(weights @ columns, np.broadcast_to(total[:, None], (len(weights), columns.shape[1])))


def _variance(square: np.ndarray, mean_: np.ndarray) -> np.ndarray:
    """Returns the variance from moments, 0 where the difference is only rounding error.

    Args:
        square: Mean of the squares, `f64[weightings]`.
        mean_: Mean, `f64[weightings]`.
    """
    variance = square - mean_ * mean_
    return np.where(variance > 1e-12 * square, variance, 0.0)
