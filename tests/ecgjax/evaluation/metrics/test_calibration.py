"""Calibration slope and intercept, also of predictions that are far too extreme."""

import numpy as np
import pytest
from scipy import optimize, special

from ecgjax.evaluation.metrics.calibration import LogisticCalibration

RNG = np.random.default_rng(0)


def _likelihood(coefficients, log_odds, labels, weights):
    odds = coefficients[0] + coefficients[1] * log_odds
    return -(weights * (labels * odds - np.logaddexp(0, odds))).sum()


@pytest.mark.parametrize("spread", [0.5, 3.0, 6.0, 12.0])
@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_slope_and_intercept_are_those_of_the_highest_likelihood(spread, shift):
    labels = np.repeat([1, 0], [16, 34])
    log_odds = np.clip(RNG.normal(shift + 0.2 * labels, spread, 50), -20, 20)
    calibration = LogisticCalibration(labels, special.expit(log_odds))
    drawn = RNG.integers(50, size=(20, 50))
    weights = np.stack([np.ones(50), *(np.bincount(each, minlength=50) for each in drawn)]).astype(float)
    slopes, intercepts = calibration.slope(weights), calibration.intercept(weights)
    assert np.isfinite(slopes).all()
    assert np.isfinite(intercepts).all()
    for weight, slope, intercept in zip(weights, slopes, intercepts, strict=True):
        best = optimize.minimize(_likelihood, [0.0, 0.0], (log_odds, labels, weight), method="BFGS", tol=1e-10).x
        assert slope == pytest.approx(best[1], abs=1e-4)

        def excess(at, weight=weight):
            return (weight * (labels - special.expit(at + log_odds))).sum()

        assert intercept == pytest.approx(optimize.brentq(excess, -60, 60), abs=1e-6)


def test_what_separates_the_classes_or_does_not_vary_has_no_slope():
    labels = np.repeat([0, 1], 5)
    assert np.isnan(LogisticCalibration(labels, np.linspace(0.05, 0.95, 10)).slope(np.ones(10)))
    assert np.isnan(LogisticCalibration(labels, np.full(10, 0.3)).slope(np.ones(10)))
    apart = np.where(labels == 1, 1 - 1e-9, 1e-9)
    assert np.isnan(LogisticCalibration(labels, apart).slope(np.ones(10)))
    assert np.isnan(LogisticCalibration(labels, apart).slope(np.r_[np.ones(5), np.zeros(5)]))
