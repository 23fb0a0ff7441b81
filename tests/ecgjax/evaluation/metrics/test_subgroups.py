"""Subgroups: planted gaps are found with their intervals, small groups only counted."""

import math

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import roc_auc_score

from data_pipelines.errors import DataError
from ecgjax.data.groups import MISSING, bands, categories
from ecgjax.evaluation.metrics.bootstrap import bootstrap_metrics
from ecgjax.evaluation.metrics.subgroups import decision_metrics, members, too_few_events


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
    masks = members({"sex": sex}, number=3000)
    assert list(masks) == [("sex", "0"), ("sex", "1"), ("sex", MISSING)]
    np.testing.assert_array_equal(sum(mask.astype(int) for mask in masks.values()), 1)
    mask = masks["sex", "1"]
    np.testing.assert_array_equal(mask, sex == "1")
    assert not too_few_events(labels[mask])
    metrics = {
        (name, side): metric
        for side, rows in (("women", mask), ("rest", ~mask), ("men", masks["sex", "0"]))
        for name, metric in decision_metrics(labels, p, rows, threshold=0.5).items()
    }
    found = bootstrap_metrics(metrics, patients=patients, resamples=400)
    called = p >= 0.5
    expected = {
        "AUROC": roc_auc_score(labels[mask], p[mask]),
        "sensitivity": called[mask & (labels == 1)].mean(),
        "false-positive rate": called[mask & (labels == 0)].mean(),
        "mean probability minus frequency": p[mask].mean() - labels[mask].mean(),
    }
    assert list(expected) == [name for name, side in metrics if side == "women"]
    for name, value in expected.items():
        interval = found.interval((name, "women"))
        assert interval.estimate == pytest.approx(value, abs=1e-12)
        assert interval.low < value < interval.high
    gaps = {name: found.difference((name, "women"), (name, "rest")) for name in expected}
    rest = called[~mask & (labels == 1)].mean()
    assert gaps["sensitivity"].estimate == pytest.approx(expected["sensitivity"] - rest, abs=1e-12)
    assert gaps["sensitivity"].high < 0, "found for certain"
    assert gaps["mean probability minus frequency"].high < 0
    # Everybody's AUROC is the same: the threshold is what is unfair.
    assert abs(found.estimates["AUROC", "women"] - found.estimates["AUROC", "men"]) < 0.05


def test_metrics_of_a_group_are_those_of_its_records_under_any_weights():
    labels, p, sex, _ = cohort(400)
    p = np.round(p, 1)  # ties
    mask = sex == "1"
    weights = np.random.default_rng(1).integers(0, 3, (5, 400))
    found = {name: metric(weights) for name, metric in decision_metrics(labels, p, mask, threshold=0.5).items()}
    for number, row in enumerate(weights):
        rows = np.repeat(np.arange(400), row * mask)
        y, q = labels[rows], p[rows]
        expected = {
            "AUROC": roc_auc_score(y, q),
            "sensitivity": (q[y == 1] >= 0.5).mean(),
            "false-positive rate": (q[y == 0] >= 0.5).mean(),
            "mean probability minus frequency": (q - y).mean(),
        }
        assert {name: values[number] for name, values in found.items()} == pytest.approx(expected, abs=1e-12)


def test_small_groups_have_too_few_events():
    assert too_few_events(np.r_[np.ones(9, int), np.zeros(11, int)]) == "9 events, fewer than 10"
    assert too_few_events(np.r_[np.ones(11, int), np.zeros(9, int)]) == "9 records without an event, fewer than 10"
    assert too_few_events(np.r_[np.ones(10, int), np.zeros(10, int)]) == ""
    assert too_few_events(np.zeros(0, int)) == "0 events, fewer than 10"
    assert too_few_events(np.array([1, 0, 0]), least=1) == ""
    assert too_few_events(np.array([1, 1]), least=1) == "0 records without an event, fewer than 1"


def test_groups_come_in_order():
    ages = bands(np.array([12.0, 140.0, 59.9, 60.0, math.nan]), (40, 60, 100), unit="years")
    sites = categories(np.array(["Ulm", "", "Bonn", "Ulm", "Bonn"]))
    assert list(members({"site": sites, "age": ages}, number=5)) == [
        ("site", "Bonn"), ("site", "Ulm"), ("site", MISSING), ("age", "below 40 years"), ("age", "40 to 60 years"),
        ("age", "60 to 100 years"), ("age", "100 years and more"), ("age", MISSING),
    ]  # fmt: skip
    assert members({}, number=5) == {}


def test_names_of_groups():
    assert categories(np.array([40.0, math.nan, 2.5])).tolist() == ["40", MISSING, "2.5"]
    assert categories(np.array(["Ulm", "", "Bonn"])).tolist() == ["Ulm", MISSING, "Bonn"]
    assert categories(np.array([1, 0])).tolist() == ["1", "0"]
    found = bands(np.array([12.0, 40.0, 59.9, 60.0, math.nan]), (40, 60), unit="years")
    assert found.tolist() == ["below 40 years", "40 to 60 years", "40 to 60 years", "60 years and more", MISSING]
    with pytest.raises(DataError, match="must ascend"):
        bands(np.zeros(2), (60, 40))


def test_lengths_must_agree():
    labels, p, sex, _ = cohort(400)
    with pytest.raises(DataError, match="399 values of sex for 400 labels"):
        members({"sex": sex[:-1]}, number=400)
    with pytest.raises(DataError, match="lie outside 0 to 1"):
        decision_metrics(labels, 2 * p, sex == "1", threshold=0.5)
