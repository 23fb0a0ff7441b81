"""Metrics of quantities against scikit-learn and SciPy."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics import regression
from ecgjax.evaluation.metrics.weighting import estimate


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_equal_scikit_learn_and_scipy_under_weights(seed, offset):
    rng = np.random.default_rng(seed)
    truth = np.round(rng.normal(size=80), 1) + offset
    predicted = truth + rng.normal(0, 0.7, 80)
    weights = rng.integers(0, 4, (5, 80))
    found = {f.__name__: f(truth, predicted)(weights) for f in
             (regression.rmse, regression.mae, regression.pearson, regression.r_squared)}  # fmt: skip
    for i, row in enumerate(weights):
        rows = np.repeat(np.arange(80), row)
        t, p = truth[rows], predicted[rows]
        assert found["rmse"][i] == pytest.approx(sk.root_mean_squared_error(t, p), abs=1e-9)
        assert found["mae"][i] == pytest.approx(sk.mean_absolute_error(t, p), abs=1e-9)
        assert found["pearson"][i] == pytest.approx(stats.pearsonr(t, p).statistic, abs=1e-9)
        assert found["r_squared"][i] == pytest.approx(sk.r2_score(t, p), abs=1e-9)


def test_what_does_not_vary_is_undefined():
    constant, varying = np.full(5, 7.4), np.arange(5.0)
    assert math.isnan(estimate(regression.pearson(constant, varying), 5))
    assert math.isnan(estimate(regression.pearson(varying, constant), 5))
    assert math.isnan(estimate(regression.r_squared(constant, varying), 5))
    assert estimate(regression.r_squared(varying, varying), 5) == 1.0
    one = np.array([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    for metric in (regression.pearson, regression.r_squared):
        assert np.isnan(metric(varying, varying + 1)(one)).all()
    np.testing.assert_array_equal(regression.mae(varying, varying + 1)(one), [1.0, math.nan])


def test_bland_altman_by_hand():
    truth = np.array([10.0, 12.0, 14.0, 16.0])
    agreement = regression.bland_altman(truth, truth + np.array([1.0, -1.0, 2.0, 2.0]))
    sd, t = math.sqrt(2.0), 3.182446  # Student's t, 3 degrees of freedom
    assert agreement.bias == pytest.approx(1.0)
    assert agreement.bias_interval == pytest.approx((1 - t * sd / 2, 1 + t * sd / 2), rel=1e-6)
    assert (agreement.lower, agreement.upper) == pytest.approx((1 - 1.959964 * sd, 1 + 1.959964 * sd), rel=1e-6)
    half = t * sd * math.sqrt(1 / 4 + 1.959964**2 / 6)
    assert agreement.upper_interval == pytest.approx((agreement.upper - half, agreement.upper + half), rel=1e-6)
    assert agreement.lower_interval == pytest.approx((agreement.lower - half, agreement.lower + half), rel=1e-6)
    assert agreement.number == 4


def test_limits_of_agreement_cover():
    rng = np.random.default_rng(0)
    covered = np.zeros(3)
    for _ in range(600):
        found = regression.bland_altman(np.zeros(50), rng.normal(0.5, 2.0, 50))
        true = (0.5, 0.5 - 1.959964 * 2, 0.5 + 1.959964 * 2)
        intervals = (found.bias_interval, found.lower_interval, found.upper_interval)
        covered += [low <= value <= high for value, (low, high) in zip(true, intervals, strict=True)]
    assert (np.abs(covered / 600 - 0.95) < 0.03).all()


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([1.0, math.nan], [1.0, 2.0], "1 of 2 true values are not finite"),
        ([1.0, 2.0], [math.inf, 2.0], "1 of 2 predictions are not finite"),
        ([1.0, 2.0], [1.0], "equal length"),
    ],
)
def test_refuses_what_it_cannot_judge(truth, predicted, message):
    with pytest.raises(DataError, match=message):
        regression.rmse(np.array(truth), np.array(predicted))


def test_two_records_have_no_limits():
    with pytest.raises(DataError, match="at least 3 records, not 2"):
        regression.bland_altman(np.zeros(2), np.ones(2))
