"""Calibration of predicted probabilities: Brier score, calibration slope and intercept, ECE, reliability curve."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
from scipy import special

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics.weighting import Metric, check_probabilities, divide, mean

# Most Newton steps for two coefficients: five or six suffice unless the classes separate, which has no solution.
_NEWTON_STEPS = 30
_CONVERGED = 1e-9
# Most steps, and halvings of each, where whole Newton steps do not find the coefficients.
_CAREFUL_STEPS, _HALVINGS = 100, 40
# A coefficient beyond this size is taken to mean that the log odds separate the classes.
_LARGEST = 1e3


def brier(labels: np.ndarray, probabilities: np.ndarray) -> Metric:
    """Returns the mean squared difference of probability and outcome as a metric (Brier 1950).

    Args:
        labels: Labels, `[n]`, 0 or 1.
        probabilities: Probabilities of the positive class, `[n]`.
    """
    labels, probabilities = check_probabilities(labels, probabilities)
    return mean((probabilities - labels) ** 2)


class LogisticCalibration:
    """Logistic regression of the outcome on the predicted log odds (Cox 1958).

    Its methods `slope` and `intercept` are metrics (`weighting.Metric`).

    References:
        Van Calster et al., Calibration: the Achilles heel of predictive analytics, BMC Medicine 17 (2019) 230.
    """

    def __init__(self, labels: np.ndarray, probabilities: np.ndarray):
        """Checks the predictions.

        Args:
            labels: Labels, `[n]`, 0 or 1.
            probabilities: Probabilities of the positive class, `[n]`, above 0 and below 1.

        Raises:
            DataError: `check_probabilities` raises it, or a probability is 0 or 1, whose log odds are infinite.
        """
        labels, probabilities = check_probabilities(labels, probabilities)
        if certain := np.count_nonzero((probabilities == 0) | (probabilities == 1)):
            raise DataError(f"{certain} of {len(labels)} probabilities are 0 or 1, whose log odds are infinite")
        self._labels, self._log_odds = labels.astype(np.float64), special.logit(probabilities)

    def slope(self, weights: np.ndarray) -> np.ndarray:
        """Returns the calibration slope, `f64[weightings]`: it is 1 for calibrated predictions and below 1 for too
        extreme ones.

        It is NaN where a class has no weight, or where the log odds do not vary or separate the classes.
        """
        return self._fit(weights, slope=True)[:, 1]

    def intercept(self, weights: np.ndarray) -> np.ndarray:
        """Returns the calibration in the large, with the slope held at 1: it is 0 for calibrated predictions and above
        0 for too low ones.

        It is `f64[weightings]`, and NaN where a class has no weight.
        """
        return self._fit(weights, slope=False)[:, 0]

    def _fit(self, weights: np.ndarray, *, slope: bool) -> np.ndarray:
        """Returns intercept and slope by Newton's method for all weightings at once, `f64[weightings, 2]`."""
        weights = np.atleast_2d(np.asarray(weights, np.float64))
        x, y = self._log_odds, self._labels
        found = np.tile([0.0, 1.0], (len(weights), 1))
        positives, total = weights @ y, weights.sum(axis=1)
        open_ = (positives > 0) & (positives < total)
        done = np.zeros(len(weights), bool)
        for _ in range(_NEWTON_STEPS):
            rows = np.flatnonzero(open_ & ~done)
            if not len(rows):
                break
            w, now = weights[rows], found[rows]
            p = special.expit(now[:, :1] + now[:, 1:] * x)
            whole = _newton_step(x, w * (y - p), w * p * (1 - p), slope=slope)
            step = np.clip(whole, -2.0, 2.0)  # Far from the solution a whole step may overshoot.
            found[rows] = now + step
            with np.errstate(invalid="ignore"):
                open_[rows] = np.abs(found[rows]).max(axis=1) < _LARGEST
                done[rows] = np.abs(step).max(axis=1) < _CONVERGED
        solved = done & open_
        # Where log odds are far apart, whole steps may swing from one side of the solution to the other.
        if len(again := np.flatnonzero((positives > 0) & (positives < total) & ~solved)):
            found[again] = self._fit_carefully(weights[again], slope=slope)
            solved[again] = np.isfinite(found[again]).all(axis=1)
        return np.where(solved[:, None], found, math.nan)

    def _fit_carefully(self, weights: np.ndarray, *, slope: bool) -> np.ndarray:
        """Returns what `_fit` returns, by steps that are halved as long as they do not raise the likelihood.

        The likelihood is concave, so that this ends at its maximum, or grows without end where the log odds separate
        the classes.

        Args:
            weights: Weights, `f64[weightings, n]`, of both classes in each.
            slope: Whether the slope is fitted; else it is 1.
        """
        y = self._labels
        # Centred and scaled, both coefficients are of the order of one.
        middle, scale = float(self._log_odds.mean()), float(self._log_odds.std()) or 1.0
        z = (self._log_odds - middle) / scale
        fixed = 0.0 if slope else self._log_odds
        found = np.zeros((len(weights), 2))

        def likelihood(at: np.ndarray, rows: np.ndarray) -> np.ndarray:
            # A step that does not exist has no likelihood, and is not taken for a higher one.
            with np.errstate(invalid="ignore", over="ignore"):
                odds = fixed + at[:, :1] + at[:, 1:] * z
                return (weights[rows] * (y * odds - np.logaddexp(0.0, odds))).sum(axis=1)

        rows = np.arange(len(weights))
        value, done = likelihood(found, rows), np.zeros(len(weights), bool)
        for _ in range(_CAREFUL_STEPS):
            rows = np.flatnonzero(~done)
            if not len(rows):
                break
            now, w = found[rows], weights[rows]
            chance = special.expit(fixed + now[:, :1] + now[:, 1:] * z)
            step = _newton_step(z, w * (y - chance), w * chance * (1 - chance), slope=slope)
            for _ in range(_HALVINGS):
                lower = ~(likelihood(now + step, rows) >= value[rows])
                if not lower.any():
                    break
                step[lower] /= 2
            found[rows] = now + step
            value[rows] = likelihood(found[rows], rows)
            with np.errstate(invalid="ignore"):
                done[rows] = ~(np.abs(step).max(axis=1) >= _CONVERGED)
        # What still grows, or has grown beyond all bounds, has no solution.
        slopes = found[:, 1] / scale if slope else np.ones(len(found))
        intercepts = found[:, 0] - (slopes * middle if slope else 0.0)
        solved = done & (np.abs(found).max(axis=1) < _LARGEST)
        return np.where(solved[:, None], np.stack([intercepts, slopes], axis=1), math.nan)


def _newton_step(x: np.ndarray, residual: np.ndarray, curvature: np.ndarray, *, slope: bool) -> np.ndarray:
    """Returns Newton's step of intercept and slope for each weighting, `f64[weightings, 2]`, NaN where there is none.

    Args:
        x: Log odds, or what they were scaled to, `f64[n]`.
        residual: Weighted difference of outcome and probability, `f64[weightings, n]`.
        curvature: Weighted variance of the outcome, `f64[weightings, n]`.
        slope: Whether the slope is fitted; else its step is 0.
    """
    gradient = np.stack([residual.sum(axis=1), residual @ x], axis=1)
    h00 = curvature.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        if not slope:
            return np.stack([gradient[:, 0] / h00, np.zeros(len(h00))], axis=1)
        h01, h11 = curvature @ x, curvature @ (x * x)
        determinant = h00 * h11 - h01 * h01
        # Where the log odds do not vary, the determinant is nothing but rounding error.
        determinant[determinant <= 1e-12 * h00 * h11] = math.nan
        steps = [
            (h11 * gradient[:, 0] - h01 * gradient[:, 1]) / determinant,
            (h00 * gradient[:, 1] - h01 * gradient[:, 0]) / determinant,
        ]
    return np.stack(steps, axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReliabilityCurve:
    """Observed frequency over predicted probability, bin by bin; bins without records are left out.

    Attributes:
        predicted: Mean probability in each bin, `f64[bins]`.
        observed: Share of positives in each bin, `f64[bins]`.
        low: Lower end of Wilson's 95 % interval of the share, `f64[bins]`, which assumes that records are independent.
        high: Upper end of Wilson's 95 % interval of the share, `f64[bins]`.
        counts: Number of records in each bin, `int64[bins]`.
    """

    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray


def reliability_curve(
    labels: np.ndarray, probabilities: np.ndarray, *, bins: int = 10, by: Literal["width", "mass"] = "mass"
) -> ReliabilityCurve:
    """Returns the reliability curve of predicted probabilities.

    Args:
        labels: Labels, `[n]`, 0 or 1.
        probabilities: Probabilities of the positive class, `[n]`.
        bins: Largest number of bins.
        by: `"width"` for bins of equal widths; `"mass"` for about as many records in each, with equal probabilities in
            one bin.
    """
    labels, probabilities = check_probabilities(labels, probabilities)
    index = _bins(probabilities, bins, by)
    counts = np.bincount(index, minlength=bins)
    some = counts > 0
    n = counts[some]
    observed = np.bincount(index, weights=labels, minlength=bins)[some] / n
    z = special.ndtri(0.975)
    centre = (observed + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(observed * (1 - observed) / n + z * z / (4 * n * n))
    return ReliabilityCurve(
        predicted=np.bincount(index, weights=probabilities, minlength=bins)[some] / n,
        observed=observed,
        # The interval holds the share, and ends at 1 or 0 where all or none are positive; rounding could break both.
        low=np.clip(centre - half, 0.0, observed),
        high=np.clip(centre + half, observed, 1.0),
        counts=n,
    )


def expected_calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, *, bins: int = 10, by: Literal["width", "mass"] = "width"
) -> Metric:
    """Returns the ECE as a metric: |mean probability − frequency| of each bin, weighted by its records.

    It is above 0 for perfect predictions too, the more so the fewer records a bin has.

    Args:
        labels: Labels, `[n]`, 0 or 1.
        probabilities: Probabilities of the positive class, `[n]`.
        bins: Number of bins.
        by: Division into bins, `"width"` or `"mass"` as in `reliability_curve`; bins are those of the records as they
            are, for every weighting.

    References:
        Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    labels, probabilities = check_probabilities(labels, probabilities)
    gaps = np.zeros((len(labels), bins))
    gaps[np.arange(len(labels)), _bins(probabilities, bins, by)] = probabilities - labels

    def metric(weights: np.ndarray) -> np.ndarray:
        weights = np.asarray(weights, np.float64)
        return divide(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1))

    return metric


def prior_shift(*, trained: np.ndarray, prevalence: np.ndarray) -> np.ndarray:
    """Returns the offset that training at another prevalence adds to the log odds, `f64[...]`; it is to be subtracted.

    Balanced batches and positive weights train at a prevalence of .5. The odds are multiplied by the ratio of the prior
    odds (Elkan, The foundations of cost-sensitive learning, IJCAI 2001); this holds where the ECGs of a class have the
    same distribution in both places.

    Args:
        trained: Share of positives in training, after any weighting or balancing, `[...]`.
        prevalence: Share of positives where the model is to be used, `[...]`.

    Raises:
        DataError: A share is not above 0 and below 1.
    """
    for name, shares in (("trained", np.asarray(trained)), ("prevalence", np.asarray(prevalence))):
        if not ((shares > 0) & (shares < 1)).all():
            raise DataError(f"{name}={shares} must be above 0 and below 1")
    return special.logit(trained) - special.logit(prevalence)


def _bins(probabilities: np.ndarray, bins: int, by: str) -> np.ndarray:
    """Returns the bin of each probability, `int64[n]` from 0 to bins − 1."""
    if by == "width":
        return np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    if by != "mass":
        raise DataError(f"bins are taken by 'width' or 'mass', not {by!r}")
    # The rank of a probability decides its bin; equal probabilities all have the rank of the first of them.
    ranks = np.searchsorted(np.sort(probabilities), probabilities, side="left")
    return ranks * bins // max(1, len(probabilities))
