"""Thresholds, calibration and several labels against scikit-learn and brute force."""

import math

import numpy as np
import pytest
from scipy import special
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics import calibration, multilabel
from ecgjax.evaluation.metrics.operating_points import (
    Decisions,
    best_f1_threshold,
    net_benefit,
    npv_at_prevalence,
    ppv_at_prevalence,
    threshold_at_specificity,
)
from ecgjax.evaluation.metrics.weighting import estimate


def cohort(seed, *, n=200, levels=0):
    """Labels, probabilities (with ties where there are levels) and integer weights of records."""
    rng = np.random.default_rng(seed)
    labels = np.r_[0, 1, rng.integers(0, 2, n - 2)]
    probabilities = special.expit(rng.normal(size=n) + labels - 0.7)
    if levels:
        probabilities = np.round(probabilities * levels) / levels
    return labels, probabilities, rng.integers(0, 4, (6, n))


def repeated(weights, *columns):
    rows = np.repeat(np.arange(len(weights)), weights)
    return [column[rows] for column in columns]


CASES = [(seed, levels) for seed in range(3) for levels in (0, 5)]


@pytest.mark.parametrize(("seed", "levels"), CASES)
def test_decisions_equal_scikit_learn_under_weights(seed, levels):
    labels, scores, weights = cohort(seed, levels=levels)
    threshold = float(np.sort(scores)[120])
    made = Decisions(labels, scores, threshold=threshold)
    for row in weights:
        y, p = repeated(row, labels, scores)
        called = p >= threshold
        expected = {
            "sensitivity": sk.recall_score(y, called),
            "specificity": sk.recall_score(y, called, pos_label=0),
            "ppv": sk.precision_score(y, called),
            "npv": sk.precision_score(y, called, pos_label=0),
            "f1": sk.f1_score(y, called),
            "accuracy": sk.accuracy_score(y, called),
        }
        for name, value in expected.items():
            assert getattr(made, name)(row[None])[0] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize(("seed", "levels"), CASES)
def test_thresholds_are_the_best_of_all(seed, levels):
    labels, scores, _ = cohort(seed, n=60, levels=levels)
    f1 = {t: sk.f1_score(labels, scores >= t) for t in np.unique(scores)}
    chosen = best_f1_threshold(labels, scores)
    assert f1[chosen] == pytest.approx(max(f1.values()), abs=1e-12)
    assert all(value < f1[chosen] - 1e-12 for t, value in f1.items() if t > chosen)
    for specificity in (0.0, 0.8, 0.9, 1.0):
        specific = [t for t in np.unique(scores) if np.mean(scores[labels == 0] < t) >= specificity - 1e-12]
        assert threshold_at_specificity(labels, scores, specificity=specificity) == min(specific, default=math.inf)


def test_a_specificity_in_decimals_means_that_many_records():
    labels, scores = np.r_[np.zeros(10, int), 1], np.r_[np.arange(10.0), 8.5]
    # Nine of ten negatives lie below 9; 1 − .9 is above .1 in floating point.
    assert threshold_at_specificity(labels, scores, specificity=0.9) == 8.5


def test_predictive_values_by_bayes():
    labels, scores, _ = cohort(0)
    made = Decisions(labels, scores, threshold=0.5)
    sensitivity, specificity = estimate(made.sensitivity, 200), estimate(made.specificity, 200)
    own = ppv_at_prevalence(sensitivity, specificity, prevalence=labels.mean())
    assert own == pytest.approx(estimate(made.ppv, 200), abs=1e-12)
    assert ppv_at_prevalence(0.9, 0.9, prevalence=0.01) == pytest.approx(0.009 / (0.009 + 0.099))
    assert math.isnan(ppv_at_prevalence(0.0, 1.0, prevalence=0.3))
    negative = npv_at_prevalence(sensitivity, specificity, prevalence=labels.mean())
    assert negative == pytest.approx(estimate(made.npv, 200), abs=1e-12)
    assert npv_at_prevalence(0.9, 0.8, prevalence=0.3) == pytest.approx(0.56 / (0.56 + 0.03))
    assert math.isnan(npv_at_prevalence(1.0, 0.0, prevalence=0.3))
    for function in (ppv_at_prevalence, npv_at_prevalence):
        with pytest.raises(DataError, match="between 0 and 1"):
            function(0.9, 0.9, prevalence=30)


def test_predictive_values_at_a_prevalence_are_those_of_records_gathered_at_it():
    labels, scores, weights = cohort(1)
    made = Decisions(labels, scores, threshold=0.5)
    found = {"ppv": made.ppv_at(0.05)(weights), "npv": made.npv_at(0.05)(weights)}
    for number, row in enumerate(weights):
        # Weights that make up for how many positives and negatives there are; then 5 of 100 records are positive.
        share = np.where(labels == 1, 0.05 / row[labels == 1].sum(), 0.95 / row[labels == 0].sum()) * row
        called = scores >= 0.5
        assert found["ppv"][number] == pytest.approx(sk.precision_score(labels, called, sample_weight=share), abs=1e-12)
        npv = sk.precision_score(labels, called, sample_weight=share, pos_label=0)
        assert found["npv"][number] == pytest.approx(npv, abs=1e-12)


def test_net_benefit_by_hand():
    labels, probabilities = np.array([1, 1, 0, 0, 0]), np.array([0.9, 0.1, 0.4, 0.3, 0.2])
    # From .25 on: one ill and two healthy are treated, a healthy one costs a third: (1 − 2/3) / 5.
    assert estimate(net_benefit(labels, probabilities, threshold=0.25), 5) == pytest.approx((1 - 2 / 3) / 5)
    assert estimate(net_benefit(labels, np.ones(5), threshold=0.25), 5) == pytest.approx((2 - 3 / 3) / 5)
    with pytest.raises(DataError, match="below 1"):
        net_benefit(labels, probabilities, threshold=1.0)


def test_one_class_and_bad_scores_are_refused_or_undefined():
    with pytest.raises(DataError, match="no threshold can be chosen: none of 3 records is positive"):
        best_f1_threshold(np.zeros(3, int), np.arange(3.0))
    with pytest.raises(DataError, match="1 of 2 scores are not finite"):
        Decisions(np.array([0, 1]), np.array([0.5, math.nan]), threshold=0.5)
    with pytest.raises(DataError, match="1 of 2 probabilities lie outside 0 to 1"):
        calibration.brier(np.array([0, 1]), np.array([0.5, 1.5]))
    nobody = Decisions(np.zeros(3, int), np.arange(3.0), threshold=9.0)
    assert math.isnan(estimate(nobody.sensitivity, 3))
    assert math.isnan(estimate(nobody.ppv, 3))
    assert estimate(nobody.specificity, 3) == 1.0


@pytest.mark.parametrize(("seed", "levels"), CASES)
def test_brier_and_ece_under_weights(seed, levels):
    labels, p, weights = cohort(seed, levels=levels)
    brier = calibration.brier(labels, p)(weights)
    bins = np.minimum((p * 10).astype(int), 9)
    ece = calibration.expected_calibration_error(labels, p)(weights)
    for i, row in enumerate(weights):
        assert brier[i] == pytest.approx(sk.brier_score_loss(labels, p, sample_weight=row), abs=1e-12)
        gap = sum(abs(np.sum((row * (p - labels))[bins == b])) for b in range(10))
        assert ece[i] == pytest.approx(gap / row.sum(), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_calibration_slope_and_intercept_equal_unpenalised_regression(seed):
    labels, p, weights = cohort(seed)
    fitted = calibration.LogisticCalibration(labels, p)
    x = special.logit(p)
    slopes, intercepts = fitted.slope(weights), fitted.intercept(weights)
    for row, slope, intercept in zip(weights, slopes, intercepts, strict=True):
        reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=500).fit(x[:, None], labels, sample_weight=row)
        assert slope == pytest.approx(reference.coef_[0, 0], abs=1e-6)
        # The score equation of the intercept with the slope held at 1: predictions sum to the events.
        assert np.sum(row * special.expit(x + intercept)) == pytest.approx(np.sum(row * labels), rel=1e-9)


def test_calibration_of_what_is_right_too_extreme_or_too_high():
    rng = np.random.default_rng(0)
    x = rng.normal(size=200_000)
    labels = (rng.random(len(x)) < special.expit(x)).astype(int)
    ones = np.ones((1, len(x)))
    for log_odds, slope, intercept in ((x, 1, 0), (2 * x, 0.5, None), (x + 1, 1, -1)):
        fitted = calibration.LogisticCalibration(labels, special.expit(log_odds))
        assert fitted.slope(ones)[0] == pytest.approx(slope, abs=0.02)
        if intercept is not None:
            assert fitted.intercept(ones)[0] == pytest.approx(intercept, abs=0.02)


def test_calibration_without_a_solution_is_undefined():
    labels, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9])
    assert math.isnan(calibration.LogisticCalibration(labels, p).slope(np.ones((1, 4)))[0])
    constant = calibration.LogisticCalibration(labels, np.full(4, 0.3))
    assert math.isnan(constant.slope(np.ones((1, 4)))[0])
    assert constant.intercept(np.ones((1, 4)))[0] == pytest.approx(special.logit(0.5) - special.logit(0.3))
    one_class = constant.intercept(np.array([[1, 1, 0, 0], [1, 1, 1, 1]]))
    assert np.isnan(one_class).tolist() == [True, False]
    with pytest.raises(DataError, match="1 of 2 probabilities are 0 or 1"):
        calibration.LogisticCalibration(np.array([0, 1]), np.array([0.5, 1.0]))


@pytest.mark.parametrize("seed", range(3))
def test_reliability_curve_equals_scikit_learn(seed):
    labels, p, _ = cohort(seed)
    for by, strategy in (("width", "uniform"), ("mass", "quantile")):
        curve = calibration.reliability_curve(labels, p, bins=5, by=by)
        observed, predicted = calibration_curve(labels, p, n_bins=5, strategy=strategy)
        np.testing.assert_allclose(curve.observed, observed, atol=1e-12)
        np.testing.assert_allclose(curve.predicted, predicted, atol=1e-12)
        assert curve.counts.sum() == 200
        assert ((curve.low <= curve.observed) & (curve.observed <= curve.high)).all()
        assert ((curve.low >= 0) & (curve.high <= 1) & (curve.high - curve.low > 0.05)).all()
    tied = calibration.reliability_curve(labels, np.full(200, 0.25), bins=5, by="mass")
    assert (tied.counts.tolist(), tied.predicted.tolist()) == ([200], [0.25])


def test_wilsons_interval_of_the_textbook():
    # Newcombe 1998, table I: 81 of 263 gives .2553 to .3662.
    curve = calibration.reliability_curve(np.r_[np.ones(81, int), np.zeros(182, int)], np.full(263, 0.3), bins=1)
    assert (round(curve.low[0], 4), round(curve.high[0], 4)) == (0.2553, 0.3662)


def test_what_balanced_sampling_adds_to_the_log_odds():
    rng = np.random.default_rng(0)
    x = np.r_[rng.normal(0, 1, 95_000), rng.normal(1, 1, 5_000)]
    labels = np.r_[np.zeros(95_000, int), np.ones(5_000, int)]
    balanced = special.expit(x - 0.5)  # the true posterior where both classes are equally frequent
    p = special.expit(special.logit(balanced) - calibration.prior_shift(trained=0.5, prevalence=0.05))
    fitted = calibration.LogisticCalibration(labels, p)
    ones = np.ones((1, len(x)))
    assert abs(fitted.intercept(ones)[0]) < 0.05
    assert abs(fitted.slope(ones)[0] - 1) < 0.05
    shares = np.array([0.05, 0.5, 0.8])
    odds = calibration.prior_shift(trained=0.5, prevalence=shares)
    np.testing.assert_allclose(np.exp(odds), (1 - shares) / shares, rtol=1e-12)  # negatives a positive
    np.testing.assert_allclose(calibration.prior_shift(trained=shares, prevalence=0.5), -odds, rtol=1e-12)
    with pytest.raises(DataError, match="trained=0 must be above 0"):
        calibration.prior_shift(trained=0, prevalence=0.5)
    with pytest.raises(DataError, match=r"prevalence=.* must be above 0 and below 1"):
        calibration.prior_shift(trained=0.5, prevalence=np.array([0.5, 1.0]))


def test_macro_names_what_it_leaves_out():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, (60, 4)), rng.normal(size=(60, 4))
    labels[:, 1], labels[:, 3] = 0, 1
    result = multilabel.by_class(labels, scores, classes=["a", "b", "c", "d"])
    assert result.left_out == {"b": "none of 60 records is positive", "d": "all 60 records are positive"}
    expected = {name: sk.roc_auc_score(labels[:, i], scores[:, i]) for i, name in ((0, "a"), (2, "c"))}
    assert result.estimates() == pytest.approx(expected, abs=1e-12)
    weights = rng.integers(0, 3, (4, 60))
    weights[1, labels[:, 0] == 1] = 0
    found = result.macro(weights)
    assert math.isnan(found[1]), "another set of classes would be another metric"
    for i in (0, 2, 3):
        y, s = repeated(weights[i], labels[:, [0, 2]], scores[:, [0, 2]])
        assert found[i] == pytest.approx(sk.roc_auc_score(y, s, average="macro"), abs=1e-12)
    prc = multilabel.by_class(labels[:, :1], scores[:, :1], classes=["a"], metric=multilabel.auprc_of)
    assert prc.estimates()["a"] == pytest.approx(sk.average_precision_score(labels[:, 0], scores[:, 0]), abs=1e-12)
    nothing = multilabel.by_class(labels[:, 1:2], scores[:, 1:2], classes=["b"])
    assert math.isnan(estimate(nothing.macro, 60))
    with pytest.raises(DataError, match="a class is named twice"):
        multilabel.by_class(labels, scores, classes=["a", "a", "c", "d"])
    with pytest.raises(DataError, match="must be 0 or 1"):
        multilabel.by_class(np.where(labels, math.nan, 0.0), scores, classes=["a", "b", "c", "d"])
