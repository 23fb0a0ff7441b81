"""Intervals of metrics that rest on few patients."""

import numpy as np
import pytest
import scipy.stats

from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.few_patients import too_few_to_rank, without_few, without_too_few

# Four patients have two positive records each, and six others two negative ones.
LABELS, PATIENTS = np.repeat([1, 0], [8, 12]), np.repeat(np.arange(10), 2)
FULL = Interval(estimate=0.9, low=0.8, high=1.0, resamples=100)


@pytest.mark.parametrize(
    ("metric", "withheld"),
    [
        ("sensitivity", True), ("sensitivity at 0.9", True), ("PPV", True), ("F1", True), ("AUPRC", True),
        ("slope", True), ("PPV at 0.02", True), ("NPV at 0.02", True), ("specificity", False),
        ("specificity there", False), ("NPV", False), ("Brier", False),
    ],
)  # fmt: skip
def test_bounds_are_withheld_for_the_label_that_a_metric_rests_on(metric, withheld):
    found = without_few(FULL, metric, LABELS, patients=PATIENTS)
    assert np.isnan(found.low) == np.isnan(found.high) == withheld
    assert found.estimate == 0.9
    assert found.reason == ("patients with a positive record: 4, fewer than 5" if withheld else "")
    swapped = without_few(FULL, metric, 1 - LABELS, patients=PATIENTS)
    of_negatives = metric.startswith(("specificity", "NPV", "slope", "PPV at"))
    assert np.isnan(swapped.low) == of_negatives
    enough = np.append(LABELS, [1, 1]), np.append(PATIENTS, [10, 10])
    assert without_few(FULL, metric, enough[0], patients=enough[1]) is FULL


@pytest.mark.parametrize("patients", [5, 6, 30])
@pytest.mark.parametrize(
    ("metric", "label"), [("sensitivity", 1), ("specificity there", 0), ("false-positive rate", 0)]
)
def test_a_share_that_no_resample_moves_has_the_exact_interval_of_its_patients(metric, label, patients):
    labels, codes = np.repeat([label, 1 - label], [2 * patients, 50]), np.arange(2 * patients + 50)
    codes[: 2 * patients] //= 2  # Two records a patient.
    codes[2 * patients :] += 1000
    for estimate, found in ((1.0, patients), (0.0, 0)):
        same = Interval(estimate=estimate, low=estimate, high=estimate, resamples=100)
        exact = scipy.stats.binomtest(found, patients).proportion_ci(0.95, method="exact")
        got = without_few(same, metric, labels, patients=codes)
        np.testing.assert_allclose([got.low, got.high], [exact.low, exact.high], rtol=1e-12)
        assert not got.reason


@pytest.mark.parametrize("metric", ["PPV", "NPV", "F1", "PPV at 0.1"])
def test_bounds_of_other_shares_are_withheld_where_no_resample_moves_them(metric):
    labels, codes = np.repeat([1, 0], 10), np.arange(20)
    got = without_few(Interval(estimate=1.0, low=1.0, high=1.0), metric, labels, patients=codes)
    assert np.isnan([got.low, got.high]).all()
    assert got.text() == "1.000 [n/a: it is 1 in every resample]"
    moved = Interval(estimate=1.0, low=0.9, high=1.0)
    assert without_few(moved, metric, labels, patients=codes) is moved


def test_a_difference_of_few_patients_has_no_bounds_and_one_of_zero_keeps_its_own():
    none = Interval(estimate=0.0, low=0.0, high=0.0)
    few = without_too_few(none, "AUROC", LABELS, patients=PATIENTS)
    assert few.signed() == "+0.000 [n/a: patients with a positive record: 4, fewer than 5]"
    assert without_too_few(none, "sensitivity", np.repeat([1, 0], 10), patients=np.arange(20)) is none


def test_patients_and_records_of_the_rarer_label_are_told_where_they_are_too_few_to_rank_models():
    assert too_few_to_rank(LABELS, patients=PATIENTS) == "4 patients with a positive record"
    assert too_few_to_rank(1 - LABELS, patients=PATIENTS) == "4 patients with a negative record"
    one_each = np.repeat([1, 0], [9, 12]), np.arange(21)
    assert too_few_to_rank(one_each[0], patients=one_each[1]) == "9 patients with a positive record"
    assert not too_few_to_rank(np.repeat([1, 0], 10), patients=np.arange(20))
