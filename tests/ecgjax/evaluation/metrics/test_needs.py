"""Every metric of a report has a phrase for what it needs, for where the report says that it is missing."""

import re

import numpy as np
import pytest

from ecgjax.evaluation.metrics.needs import needed_for
from ecgjax.evaluation.models.kinds import KINDS
from ecgjax.studies.one_task.calibrated import SPECIFICITY, Calibrated

#: Metrics that are defined wherever there are records.
_ALWAYS = {"Brier", "ECE", "RMSE", "MAE", "bias"}


@pytest.mark.parametrize(
    ("metric", "phrase"),
    [
        ("AUROC", "positive and negative records"),
        ("PPV at 0.1", "positive and negative records, and a record at or above the threshold"),
        (f"sensitivity at {SPECIFICITY:g}", "a positive record"),
        ("specificity there", "a negative record"),
        ("macro AUROC of 3 classes", "positive and negative records of every class"),
        ("Brier", "records"),
    ],
)
def test_a_metric_is_known_by_its_name_whatever_follows_it(metric, phrase):
    assert needed_for(metric) == phrase


def test_no_metric_of_a_decision_or_of_a_kind_is_unknown():
    labels, probabilities = np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.6, 0.8])
    used = Calibrated(probabilities=probabilities, threshold=0.5, strict=0.7)
    names = {*used.metrics(labels), "PPV", "NPV", "PPV at 0.1", "macro F1", "macro F1 of 2 classes"}
    for kind, classes in (("binary", ()), ("quantity", ()), ("multilabel", ("a", "b"))):
        shape = (4, 2) if classes else (4,)
        targets, outputs = np.resize(labels, shape), np.resize(probabilities, shape)
        names |= {*KINDS[kind].metrics(targets, outputs, classes=classes)}
    unknown = {name for name in names if needed_for(name, "?") == "?"}
    assert unknown <= _ALWAYS
    assert len(names - unknown) >= 14
    assert all(re.match(r"an? |positive |values ", needed_for(name)) for name in names - unknown)
