"""Intervals of metrics that rest on few patients."""

import numpy as np
import pytest

from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.few_patients import too_few_to_rank, without_few

# Four patients have two positive records each, and six others two negative ones.
LABELS, PATIENTS = np.repeat([1, 0], [8, 12]), np.repeat(np.arange(10), 2)
FULL = Interval(estimate=1.0, low=1.0, high=1.0, resamples=100)


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
    assert found.estimate == 1
    assert found.reason == ("patients with a positive record: 4, fewer than 5" if withheld else "")
    swapped = without_few(FULL, metric, 1 - LABELS, patients=PATIENTS)
    of_negatives = metric.startswith(("specificity", "NPV", "slope", "PPV at"))
    assert np.isnan(swapped.low) == of_negatives
    enough = np.append(LABELS, [1, 1]), np.append(PATIENTS, [10, 10])
    assert without_few(FULL, metric, enough[0], patients=enough[1]) is FULL


def test_patients_and_records_of_the_rarer_label_are_told_where_they_are_too_few_to_rank_models():
    assert too_few_to_rank(LABELS, patients=PATIENTS) == "4 patients with a positive record"
    assert too_few_to_rank(1 - LABELS, patients=PATIENTS) == "4 patients with a negative record"
    one_each = np.repeat([1, 0], [9, 12]), np.arange(21)
    assert too_few_to_rank(one_each[0], patients=one_each[1]) == "9 patients with a positive record"
    assert not too_few_to_rank(np.repeat([1, 0], 10), patients=np.arange(20))
