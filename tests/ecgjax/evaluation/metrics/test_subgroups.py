"""Subgroups: planted gaps are found with their intervals, small groups only counted."""

import math

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import roc_auc_score

from data_pipelines.errors import DataError
from ecgjax.data.groups import MISSING, bands, categories
from ecgjax.evaluation.metrics.subgroups import subgroups


def cohort(n=3000):
    """Women are missed more often: their scores are lower by one whatever they have."""
    rng = np.random.default_rng(0)
    patients = rng.integers(0, n // 2, n)
    sex = categories(np.array([1.0, 0.0, math.nan])[rng.choice(3, n, p=[0.48, 0.48, 0.04])])
    log_odds = rng.normal(size=n)
    labels = (rng.random(n) < special.expit(1.5 * log_odds)).astype(int)
    probabilities = special.expit(1.5 * log_odds - (sex == "1"))
    return labels, probabilities, sex, patients


def test_planted_gaps_are_found():
    labels, p, sex, patients = cohort()
    found = subgroups(labels, p, {"sex": sex}, patients=patients, threshold=0.5, resamples=400)
    assert [(g.column, g.group) for g in found] == [("sex", "0"), ("sex", "1"), ("sex", MISSING)]
    assert sum(g.records for g in found) == 3000
    women = found[1]
    mask = sex == "1"
    assert (women.records, women.events) == (mask.sum(), labels[mask].sum())
    assert women.patients == len(set(patients[mask]))
    called = p >= 0.5
    expected = {
        "auroc": roc_auc_score(labels[mask], p[mask]),
        "sensitivity": called[mask & (labels == 1)].mean(),
        "false_positive_rate": called[mask & (labels == 0)].mean(),
        "calibration": p[mask].mean() - labels[mask].mean(),
    }
    for name, value in expected.items():
        interval = women.metrics[name]
        assert interval.estimate == pytest.approx(value, abs=1e-12)
        assert interval.low < value < interval.high
    rest = called[~mask & (labels == 1)].mean()
    gap = women.gaps["sensitivity"]
    assert gap.estimate == pytest.approx(expected["sensitivity"] - rest, abs=1e-12)
    assert gap.high < 0, "found for certain"
    assert women.gaps["calibration"].high < 0
    assert set(women.gaps) == {"sensitivity", "false_positive_rate", "calibration"}
    # Everybody's AUROC is the same: the threshold is what is unfair.
    assert abs(women.metrics["auroc"].estimate - found[0].metrics["auroc"].estimate) < 0.05


def test_small_groups_are_counted_and_not_measured():
    labels, p, _, patients = cohort(400)
    site = np.array(["A"] * 380 + ["B"] * 20, object)
    labels[380:] = np.r_[np.ones(9, int), np.zeros(11, int)]
    found = subgroups(labels, p, {"site": site}, patients=patients, threshold=0.5, resamples=100)
    assert (found[1].group, found[1].records, found[1].events) == ("B", 20, 9)
    assert found[1].reason == "9 events, fewer than 10"
    assert not found[1].metrics
    assert set(found[0].metrics) == {"auroc", "sensitivity", "false_positive_rate", "calibration"}
    assert not found[0].gaps, "there is nobody to compare with"
    labels[380:] = np.r_[np.ones(11, int), np.zeros(9, int)]
    found = subgroups(labels, p, {"site": site}, patients=patients, threshold=0.5, resamples=100)
    assert found[1].reason == "9 records without an event, fewer than 10"


def test_names_of_groups():
    assert categories(np.array([40.0, math.nan, 2.5])).tolist() == ["40", MISSING, "2.5"]
    assert categories(np.array(["Ulm", "", "Bonn"])).tolist() == ["Ulm", MISSING, "Bonn"]
    assert categories(np.array([1, 0])).tolist() == ["1", "0"]
    found = bands(np.array([12.0, 40.0, 59.9, 60.0, math.nan]), (40, 60), unit="years")
    assert found.tolist() == ["below 40 years", "40 to 60 years", "40 to 60 years", "60 years and more", MISSING]
    with pytest.raises(DataError, match="must ascend"):
        bands(np.zeros(2), (60, 40))


def test_lengths_must_agree():
    labels, p, sex, patients = cohort(400)
    with pytest.raises(DataError, match="399 values of sex for 400 labels"):
        subgroups(labels, p, {"sex": sex[:-1]}, patients=patients, threshold=0.5)
    with pytest.raises(DataError, match="lie outside 0 to 1"):
        subgroups(labels, 2 * p, {"sex": sex}, patients=patients, threshold=0.5)
